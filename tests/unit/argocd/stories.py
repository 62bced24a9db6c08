"""The objects that Argo CD's health checks are tried on: what `decide` itself says when these things happen to them.

`python -m tests.unit.argocd.stories` writes them to argocd/resource_customizations, each kind's into its testdata; a test fails
where they are not up to date.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from dspy_operator.contract.documents import LoaderProgress
from dspy_operator.contract.exits import Reason
from dspy_operator.engine.plan import Body
from tests.unit.modelendpoint.scene import Scene, ollama, openai, pulling
from tests.unit.optimizationrun.builders import a_cluster, a_run_is, running
from tests.unit.optimizationrun.cluster import NAMESPACE
from tests.unit.optimizationrun.cluster import Cluster as Runs
from tests.unit.promptprogram.world import Cluster as Programs
from tests.unit.written import a_quota

FOLDER = Path(__file__).parents[3] / "argocd/resource_customizations/dspy-operator.io"
DELETED = "2026-11-23T12:34:56Z"


def _program(*steps: Callable[[Programs], Any]) -> Body:
    cluster = Programs()
    for step in steps:
        step(cluster)
    return cluster.program


def _applied(changes: dict[str, Any] | None = None) -> Callable[[Programs], None]:
    def apply(cluster: Programs) -> None:
        cluster.apply_program(changes)
        cluster.settle()

    return apply


def _column_missing(cluster: Programs) -> None:
    cluster.pod_reports(
        reason=Reason.INVALID_DATASET,
        path="spec.dataset.fields.label",
        message='column "category" is not in data.jsonl (columns: text, tag)',
    )
    cluster.job_ends(complete=False)
    cluster.settle()


PIN = {"revision": {"name": "triage-nowhere"}}
OTHER = {"program.single.signature.instructions": "Classify the ticket well."}


def _run(*steps: Callable[[Runs], Any], **changes: Any) -> Body:
    cluster = a_cluster()
    a_run_is(cluster, changes)
    for step in steps:
        step(cluster)
        cluster.settle()
    return cluster.server["OptimizationRun", NAMESPACE, "fast"]


def _queued() -> Body:
    """Another run of the program was there first."""
    cluster = a_cluster()
    a_run_is(cluster, name="first")
    cluster.settle()
    a_run_is(cluster)
    cluster.settle()
    return cluster.server["OptimizationRun", NAMESPACE, "fast"]


def _ends(reason: Reason, message: str = "", **more: Any) -> Callable[[Runs], None]:
    return lambda cluster: cluster.ends("fast", reason, message=message, **more)


def _edit(**changes: Any) -> Callable[[Runs], None]:
    return lambda cluster: cluster.edit("fast", **changes)


def _leaves(cluster: Runs) -> None:
    cluster.leaves("fast", calls=10)


def _rests(cluster: Runs) -> None:
    """Nothing happens."""


UNTIL_DONE = {"readyWhen": "Finished"}


def _endpoint(*steps: Callable[[Scene], Any], spec: Body | None = None) -> Body:
    scene = Scene(spec)
    scene.look()
    for step in steps:
        step(scene)
        scene.look()
    return scene.body


def _pod(progress: LoaderProgress) -> Callable[[Scene], Body]:
    return lambda scene: scene.start_pod("a", progress)


def _next_pod(scene: Scene) -> None:
    scene.start_pod("b", pulling(43))


NOT_THERE = LoaderProgress(phase="failed", reason="ModelNotFound", message="pull of qwen2.5-coder:0.5b: no such file")

STORIES: dict[str, dict[str, Callable[[], Body]]] = {
    "PromptProgram": {
        "new": lambda: _program(Programs.apply_program),
        "validating": lambda: _program(_applied()),
        "serving": lambda: _program(Programs.validated),
        "edited": lambda: _program(Programs.validated, lambda cluster: cluster.apply_program(OTHER)),
        "column-missing": lambda: _program(_applied(), _column_missing),
        "pinned-to-nothing": lambda: _program(lambda cluster: cluster.validated(PIN)),
        "deleted": lambda: _deleted(_program(Programs.validated)),
    },
    "OptimizationRun": {
        "new": _run,
        "queued": _queued,
        "running": lambda: _run(running),
        "running-until-finished": lambda: _run(running, **UNTIL_DONE),
        "edited": lambda: _edited(_run(running)),
        "improved": lambda: _run(running, _ends(Reason.COMPLETED), **UNTIL_DONE),
        "budget-exhausted": lambda: _run(running, _ends(Reason.BUDGET_EXHAUSTED), **UNTIL_DONE),
        "key-refused": lambda: _run(running, _ends(Reason.AUTHENTICATION_FAILED, "qwen: 401 Unauthorized")),
        "cancelled": lambda: _run(running, _edit(stop="Cancel"), _ends(Reason.STOPPED)),
        "budget-too-small": lambda: _run(_rests, budget={"calls": 1}),
        "program-missing": lambda: _run(_rests, programRef={"name": "nowhere"}),
        "suspending": lambda: _run(running, _edit(suspend=True), **UNTIL_DONE),
        "suspended": lambda: _run(running, _edit(suspend=True), _leaves, **UNTIL_DONE),
        "suspended-after-its-end": lambda: _run(
            running, _ends(Reason.INVALID_METRIC, "it raises"), _edit(suspend=True)
        ),
        "deleted": lambda: _deleted(_run(running)),
    },
    "ModelEndpoint": {
        "new": lambda: Scene().body,
        "pulling": lambda: _endpoint(_pod(pulling(43))),
        "answers": lambda: _endpoint(Scene.ready_pod),
        "grows": lambda: _endpoint(Scene.ready_pod, _next_pod, spec=ollama(replicas=2)),
        "model-not-found": lambda: _endpoint(_pod(NOT_THERE)),
        "scaled-to-zero": lambda: _endpoint(spec=ollama(scaling={"minReplicas": 0, "maxReplicas": 2})),
        "external": lambda: _endpoint(spec=openai()),
        "edited": lambda: _edited(_endpoint(Scene.ready_pod)),
        "deleted": lambda: _deleted(_endpoint(Scene.ready_pod)),
    },
    # Nobody looks at one yet (api/unsupported.py): it is there, or it goes.
    "OptimizationQuota": {
        "new": a_quota,
        "deleted": lambda: _deleted(a_quota()),
    },
}


def _edited(body: Body) -> Body:
    """Somebody changed the spec, and the operator has not seen it yet."""
    return {**body, "metadata": {**body["metadata"], "generation": body["metadata"]["generation"] + 1}}


def _deleted(body: Body) -> Body:
    return {**body, "metadata": {**body["metadata"], "deletionTimestamp": DELETED}}


def files() -> dict[Path, str]:
    """Path -> what is to be in it."""
    return {
        FOLDER / kind / "testdata" / f"{name}.yaml": _text(story())
        for kind, stories in STORIES.items()
        for name, story in stories.items()
    }


def _text(body: Body) -> str:
    metadata = {"generation": 1} | body["metadata"]
    kept = {
        name: metadata[name] for name in ("name", "namespace", "generation", "deletionTimestamp") if name in metadata
    }
    shown = {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": kept, "spec": body["spec"]}
    if body.get("status"):
        shown["status"] = body["status"]
    return yaml.safe_dump(json.loads(json.dumps(shown)), sort_keys=False, width=120)  # as the wire has it: plain text


def write() -> None:
    """Makes the folder's testdata what the stories say."""
    wanted = files()
    for path in FOLDER.glob("*/testdata/*"):
        if path not in wanted:
            path.unlink()
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    write()
