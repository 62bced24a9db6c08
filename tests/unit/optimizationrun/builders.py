"""Runs, programs and endpoints as a story needs them, in one cluster in memory."""

from __future__ import annotations

from typing import Any

from dspy_operator.contract import names
from dspy_operator.contract.resolve import program_part
from dspy_operator.engine.conditions import timestamp
from tests.unit.optimizationrun.cluster import NAMESPACE, START, TEST_DIGEST, Cluster
from tests.unit.written import a_program, a_run, an_endpoint, program

DATASET_DIGEST = "v1:" + "2" * 64


def a_cluster(*, endpoint: str = "External", state: str = "Ready", slots: int | None = 4) -> Cluster:
    """A validated program and the endpoint that it is tuned for."""
    cluster = Cluster()
    an_endpoint_is(cluster, endpoint, slots=slots)
    a_program_is(cluster, state)
    return cluster


def a_program_is(cluster: Cluster, state: str = "Ready", changes: dict[str, Any] | None = None, **status: Any) -> None:
    """A program, its validation over (Ready), refused (any reason), or not begun (New)."""
    body = cluster.apply(_here(a_program(changes)))
    generation = body["metadata"]["generation"]
    if state == "New":
        return
    good = state == "Ready"
    told: dict[str, Any] = {
        "observedGeneration": generation,
        "conditions": [_condition("Accepted", good, "Accepted" if good else state, generation)],
    }
    if good:
        told |= {
            "programDigest": program_part(program(changes)).digest,
            "dataset": {
                "rows": 100,
                "train": 30,
                "validation": 30,
                "test": 40,
                "digest": DATASET_DIGEST,
                "testDigest": TEST_DIGEST,
            },
            "baselineRevision": "triage-base0000",
            "servedRevision": {"name": "triage-base0000", "digest": "v1:" + "b" * 64},
        }
    cluster.set_status("PromptProgram", "triage", told | status)


def an_endpoint_is(
    cluster: Cluster,
    reason: str = "External",
    *,
    name: str = "qwen",
    namespace: str = NAMESPACE,
    slots: int | None = 4,
    changes: dict[str, Any] | None = None,
    **status: Any,
) -> None:
    """An endpoint whose Ready condition has this reason (New: none yet)."""
    limits = {"limits.concurrency": slots} if slots is not None else {}
    document = an_endpoint(limits | (changes or {}))
    document["metadata"] = {"name": name, "namespace": namespace}
    body = cluster.apply(document)
    if reason == "New":
        return
    generation = body["metadata"]["generation"]
    ready = reason in ("External", "ModelLoaded", "ScaledToZero")
    told = {"observedGeneration": generation, "conditions": [_condition("Ready", ready, reason, generation)]}
    cluster.set_status("ModelEndpoint", name, told | status, namespace)


def a_run_is(cluster: Cluster, changes: dict[str, Any] | None = None, *, name: str = "fast") -> None:
    """A run of the program."""
    document = a_run({"journal": {"type": "EmptyDir"}} | (changes or {}))
    document["metadata"] = {"name": name, "namespace": NAMESPACE}
    cluster.apply(document)


def a_revision_is(cluster: Cluster, name: str, digest: str | None = None) -> None:
    """A revision of the program, where nothing else is said of the digest `v1:<name>`."""
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": name,
                "namespace": NAMESPACE,
                "labels": {
                    names.LABEL_KIND: "PromptProgram",
                    names.LABEL_NAME: "triage",
                    names.LABEL_COMPONENT: names.Component.REVISION.value,
                },
                "annotations": {names.ANNOTATION_DIGEST: digest or f"v1:{name}"},
            },
            "data": {},
        }
    )


def running(cluster: Cluster, run: str = "fast", *, calls: int = 0) -> None:
    """From nothing to a pod that runs."""
    cluster.settle()
    assert cluster.jobs(run), cluster.status(run)
    cluster.pod_of(run)
    if calls:
        cluster.reports(run, calls=calls)
    cluster.settle()


def _here(document: dict[str, Any]) -> dict[str, Any]:
    return {**document, "metadata": {**document["metadata"], "namespace": NAMESPACE}}


def _condition(of: str, holds: bool, reason: str, generation: int) -> dict[str, Any]:
    return {
        "type": of,
        "status": str(holds),
        "reason": reason,
        "message": f"words of {reason}",
        "observedGeneration": generation,
        "lastTransitionTime": timestamp(START),
    }
