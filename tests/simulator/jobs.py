"""Plays the Job controller, for measurements: the real one carries 30 Jobs a second here, and would be what is measured."""

from __future__ import annotations

from typing import Any

from dspy_operator.contract import names
from tests.simulator.api import Api, Body, Refused
from tests.simulator.kubelet import now

JOBS = "/apis/batch/v1"


async def make_pods(api: Api) -> None:
    """One pod for each of our Jobs that has none, for ever."""
    seen: set[str] = set()
    async for event, job in api.follow(f"{JOBS}/jobs", names.LABEL_KIND):
        uid = job["metadata"]["uid"]
        if event == "DELETED" or uid in seen or job.get("status", {}).get("startTime"):
            continue
        seen.add(uid)
        await api.do("POST", f"/api/v1/namespaces/{job['metadata']['namespace']}/pods", _pod(job))


async def end_job(api: Api, pod: Body, *, succeeded: bool) -> None:
    """What the Job controller writes when the Job's only pod is over."""
    labels, namespace = pod["metadata"]["labels"], pod["metadata"]["namespace"]
    ended = now()
    kinds = ("SuccessCriteriaMet", "Complete") if succeeded else ("FailureTarget", "Failed")
    conditions = [
        {"type": kind, "status": "True", "lastProbeTime": ended, "lastTransitionTime": ended, "reason": "Simulated"}
        for kind in kinds
    ]
    status: dict[str, Any] = {
        "startTime": ended,
        "conditions": conditions,
        "ready": 0,
        "terminating": 0,
        "uncountedTerminatedPods": {},
        **({"succeeded": 1, "completionTime": ended} if succeeded else {"failed": 1}),
    }
    path = f"{JOBS}/namespaces/{namespace}/jobs/{labels['job-name']}/status"
    code, said = await api.ask("PATCH", path, {"status": status}, kind="merge-patch+json")
    if code not in (200, 404):
        raise Refused("PATCH", path, code, said)


def _pod(job: Body) -> Body:
    metadata, template = job["metadata"], job["spec"]["template"]
    owner = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{metadata['name']}-pod",
            "labels": template["metadata"]["labels"] | {"job-name": metadata["name"]},
            "ownerReferences": [owner],
        },
        "spec": template["spec"],
    }
