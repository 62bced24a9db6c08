"""A thousand runs name one endpoint: what changes of it with each of them must not have the others looked at."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from dspy_operator.controllers.admission.grants import Grants
from dspy_operator.controllers.modelendpoint.controller import ModelEndpointController
from dspy_operator.controllers.optimizationrun.controller import OptimizationRunController
from dspy_operator.controllers.promptprogram.controller import PromptProgramController
from dspy_operator.engine.plan import Settings

SETTINGS = Settings("runner:1", "operator:1")
ROOMS: dict[str, Any] = {
    "ModelEndpoint": ModelEndpointController(SETTINGS),
    "PromptProgram": PromptProgramController(SETTINGS),
    "OptimizationRun": OptimizationRunController(SETTINGS, Grants()),
}
READY = {"type": "Ready", "status": "True", "reason": "External", "message": ""}


@pytest.mark.parametrize(
    ("kind", "change", "news"),
    [
        pytest.param(
            "ModelEndpoint", {"activeRuns": 7, "desiredReplicas": 2}, False, id="how many runs an endpoint has"
        ),
        pytest.param("ModelEndpoint", {"pull": {"percent": 50}}, True, id="how far its model is"),
        pytest.param("ModelEndpoint", {"model": {"digest": "sha256:b"}}, True, id="which model it has loaded"),
        pytest.param("PromptProgram", {"testUse": {"looks": 2}}, False, id="how often the test rows were looked at"),
        pytest.param("PromptProgram", {"candidates": [{"run": "fast"}]}, True, id="that a run's revision is there"),
        pytest.param("PromptProgram", {"servedRevision": {"name": "p-1"}}, True, id="what a program serves"),
        pytest.param(
            "OptimizationRun", {"progress": {"percent": 7}, "usage": {"calls": 9}}, False, id="a run's progress"
        ),
        pytest.param("OptimizationRun", {"admission": {"slots": {"a/b": 2}}}, True, id="slots that a run holds"),
        pytest.param("OptimizationRun", {"completionTime": "now"}, True, id="the end of a run"),
        pytest.param("OptimizationRun", {"conditions": [{**READY, "status": "False"}]}, True, id="a condition"),
    ],
)
def test_others_look_at(kind: str, change: dict[str, Any], news: bool) -> None:
    before: dict[str, Any] = {
        "kind": kind,
        "metadata": {"namespace": "a", "name": "b", "resourceVersion": "1", "generation": 1},
        "spec": {"seed": 1},
        "status": {"conditions": [READY]},
    }
    after = copy.deepcopy(before)
    after["metadata"]["resourceVersion"] = "2"
    after["status"] |= change
    room = ROOMS[kind]
    assert (room.shown(before) != room.shown(after)) is news
    assert room.shown(before) != room.shown({**before, "spec": {"seed": 2}})
    gone = {**before, "metadata": {**before["metadata"], "deletionTimestamp": "now"}}
    assert room.shown(before) != room.shown(gone)
