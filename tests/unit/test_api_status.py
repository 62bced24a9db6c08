"""The status models: bounded, described, without floats, small; what the API server would keep of what the operator writes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from dspy_operator.api.objects import KINDS
from dspy_operator.api.resources import RESOURCES
from dspy_operator.api.status import STATUSES, OptimizationRunStatus, PromptProgramStatus
from tests.unit.test_api_fields import is_bounded, parts_of

SCHEMAS = {kind: model.model_json_schema(by_alias=True) for kind, model in STATUSES.items()}
EACH_KIND = pytest.mark.parametrize("kind", STATUSES)


def test_every_kind_has_a_status() -> None:
    assert STATUSES.keys() == KINDS.keys() == {resource.kind for resource in RESOURCES}


@EACH_KIND
def test_everything_in_a_status_is_bounded(kind: str) -> None:
    parts = list(parts_of(SCHEMAS[kind], SCHEMAS[kind]))
    assert [path for path, part in parts if not is_bounded(part)] == []
    assert len(parts) > 20


@EACH_KIND
def test_no_status_has_a_float(kind: str) -> None:
    assert [path for path, part in parts_of(SCHEMAS[kind], SCHEMAS[kind]) if part.get("type") == "number"] == []


@EACH_KIND
def test_every_kind_tells_which_generation_it_is_about(kind: str) -> None:
    assert {"observedGeneration", "conditions", "phase"} <= SCHEMAS[kind]["properties"].keys()


def test_a_run_may_tell_all_of_this() -> None:
    usage = {"calls": 80, "replayed": 3, "failed": 1, "inputTokens": 9000, "outputTokens": 700, "cost": "0.12"}
    status: dict[str, Any] = {
        "observedGeneration": 3,
        "phase": "Judging",
        "attempt": 1,
        "try": 2,
        "conditions": [
            {
                "type": "Admitted",
                "status": "True",
                "reason": "Admitted",
                "message": "",
                "lastTransitionTime": "2026-11-23T20:00:00Z",
                "observedGeneration": 3,
            }
        ],
        "inputs": {"inputDigest": "v1:1f2e", "endpoints": {"task": {"name": "team-a/qwen", "uid": "1", "modelDigest": "s"}}},
        "resolved": {"auto": None, "numTrials": 20, "anything": {"the": ["optimizer", "says"]}},
        "progress": {"step": "judge", "trialsDone": 4, "trialsPlanned": 9, "percent": 80, "eta": "12m"},
        "scores": {"baseline": "51.2", "best": "66", "test": {"baseline": "50", "candidate": "64.1"}},
        "usage": {**usage, "reserved": {"calls": 10}, "byRole": {"task": usage}},
        "admission": {"time": "2026-11-23T20:00:00Z", "slots": {"team-a/qwen": 2}},
        "gate": {"p": "0.01", "alpha": "0.0304", "delta": "14.1", "promote": True, "why": "p = 0.01"},
    }  # fmt: skip
    kept = OptimizationRunStatus.model_validate(status).document()
    assert kept == {**status, "resolved": status["resolved"]}


@pytest.mark.parametrize(
    "status",
    [
        pytest.param({"scores": {"best": 66.1}}, id="a float"),
        pytest.param({"progres": {}}, id="a field that the API server would drop"),
        pytest.param({"conditions": [{"type": "Ready", "status": True}]}, id="a condition in half"),
        pytest.param({"progress": {"percent": 101}}, id="more than all"),
    ],
)
def test_a_status_that_the_api_server_would_refuse_or_cut_is_found(status: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OptimizationRunStatus.model_validate(status)


def test_a_programs_fullest_status_is_small() -> None:
    """etcd holds it in every version of the object; 16 KiB is the promise."""
    condition = {
        "type": "X" * 20,
        "status": "Unknown",
        "reason": "R" * 30,
        "message": "m" * 300,
        "lastTransitionTime": "2026-11-23T20:00:00Z",
        "observedGeneration": 9,
    }
    candidate = {
        "revision": "r" * 49,
        "run": "r" * 40,
        "delta": "12.5",
        "p": "0.000000001",
        "verdict": "v" * 20,
        "message": "m" * 300,
    }
    status = {"conditions": [condition] * 5, "candidates": [candidate] * 10}
    kept = PromptProgramStatus.model_validate(status).document()
    assert len(json.dumps(kept)) < 16 * 1024
    with pytest.raises(ValidationError):
        PromptProgramStatus.model_validate({"candidates": [candidate] * 11})
