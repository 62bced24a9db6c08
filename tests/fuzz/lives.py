"""The life of an object that the API server took, in a world in memory: each state that an operator may meet it in.

The worlds are those of the controllers' unit tests: they carry out plans as the engine does, and fail where a room never comes
to rest, uses a name twice or changes what the cache holds. Each life returns how far it came, for the reader of the counts.
"""

from __future__ import annotations

import copy
import json
from typing import Any

from dspy_operator.api.objects import Kind, ModelEndpoint, OptimizationRun, PromptProgram
from dspy_operator.api.status import STATUSES
from tests.unit.modelendpoint.scene import Scene, pulling
from tests.unit.optimizationrun.builders import a_cluster, an_endpoint_is
from tests.unit.promptprogram import world
from tests.unit.promptprogram.world import PROGRAM

Body = dict[str, Any]
MOST_STATUS = 16 * 1024
PRICES = {"pricing": {"currency": "USD", "input": "1", "output": "1"}}


def lived(typed: Kind, body: Body) -> str:
    """From its birth to its end.

    Args:
        body: as the API server would have kept it.
    """
    match typed:
        case OptimizationRun():
            return _run(typed, body)
        case PromptProgram():
            return _program(body)
        case ModelEndpoint():
            return _endpoint(body)
    raise AssertionError(f"{typed.kind} is refused as a whole")


def _run(typed: OptimizationRun, body: Body) -> str:
    """Its program and endpoints are ready, whatever they are called; the pod is pending, runs, reports, ends; then edits."""
    cluster = a_cluster()
    an_endpoint_is(cluster, changes=PRICES)
    roles = typed.spec.endpoints
    for role in type(roles).model_fields if roles is not None else ():
        if (named := getattr(roles, role)) is not None:
            at = {"name": named.name, "namespace": named.namespace or "team-a"}
            an_endpoint_is(cluster, changes=PRICES | {"access": {"namespaces": {"from": "All"}}}, **at)
    name = body["metadata"]["name"]
    run = copy.deepcopy(body)
    run["metadata"] = {"name": name}
    run["spec"]["programRef"]["name"] = "triage"
    cluster.apply(run)
    cluster.settle()
    if cluster.jobs(name):
        cluster.pod_of(name, pending=True)
        cluster.settle()
        cluster.pod_starts(name)
        cluster.reports(name, calls=3)
        cluster.settle()
        cluster.restart()
        cluster.settle()
    if cluster.jobs(name) and not _is_over(cluster.status(name)):
        cluster.reports(name, calls=5, step="judge")
        cluster.settle()
        cluster.ends(name)
        cluster.settle()
    reached = str(cluster.status(name)["phase"])
    _check("OptimizationRun", cluster.status(name))
    for edit in ({"suspend": True}, {"suspend": None, "stop": None, "rerun": "again"}, {"seed": 77, "rerun": None}):
        cluster.edit(name, **edit)
        cluster.pass_time(minutes=10)
        cluster.leaves(name)
        cluster.settle()
        _check("OptimizationRun", cluster.status(name))
    cluster.pass_time(days=400)
    cluster.settle()
    return reached


def _is_over(status: Body) -> bool:
    return "completionTime" in status


def _program(body: Body) -> str:
    """Its rows come, a pod validates it, a run finds a better one, its rows are gone again."""
    cluster = world.Cluster()
    program = {**copy.deepcopy(body), "metadata": {"name": PROGRAM.name}}
    cluster.put(program)
    cluster.settle()
    source = program["spec"]["dataset"]["source"]
    if "configMap" in source:
        cluster.apply_rows(name=source["configMap"]["name"], key=source["configMap"]["key"])
        cluster.pass_time(minutes=2)
        cluster.settle()
    if cluster.jobs():
        cluster.put_pod(cluster.job, {"phase": "Pending"})
        cluster.settle()
        cluster.pod_reports()
        cluster.job_ends()
        cluster.settle()
        cluster.restart()
        cluster.run_ends("fast")
        cluster.settle()
        cluster.lose_status()
        cluster.settle()
    reached = str(cluster.status["phase"])
    _check("PromptProgram", cluster.status)
    cluster.unwatched.clear()
    cluster.pass_time(hours=1)
    cluster.settle()
    _check("PromptProgram", cluster.status)
    return reached


def _endpoint(body: Body) -> str:
    """A run is admitted, a pod pulls, is ready, the run ends, nobody needs it any more."""
    scene = Scene(copy.deepcopy(body["spec"]))
    scene.look()
    run = scene.admit("fast", 4)
    scene.look()
    if "Deployment" in scene.kinds:
        pod = scene.start_pod("a", pulling(40))
        scene.look()
        scene.make_ready(pod)
        scene.look()
    reached = scene.ready[1]
    scene.restart()
    scene.look()
    scene.end(run)
    for _ in range(3):
        scene.passes(hours=1)
        scene.look()
    _check("ModelEndpoint", scene.status)
    return reached


def _check(kind: str, status: Body) -> None:
    """What a controller says of it fits the schema that a person reads it by."""
    told = {key: value for key, value in status.items() if value is not None}
    STATUSES[kind].model_validate(told)
    assert len(json.dumps(told)) <= MOST_STATUS
