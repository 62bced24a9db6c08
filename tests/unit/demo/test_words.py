"""What the demo says: of its objects while they move, and of the scores at its end. And what it applies."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster.command import Failed
from e2e.demo import demo, lastscreen, overlay
from e2e.demo.follow import lines
from e2e.demo.supply import FIXTURES, PUBLIC, QWEN, SMOLLM

USAGE = {"calls": 406, "inputTokens": 116942, "outputTokens": 7687}


def a_status(kind: str, conditions: dict[str, tuple[str, str, str]], **status: Any) -> dict[str, Any]:
    told = [{"type": t, "status": s, "reason": r, "message": m} for t, (s, r, m) in conditions.items()]
    return {"kind": kind, "metadata": {"name": "x"}, "status": {**status, "conditions": told}}


@pytest.mark.parametrize(
    ("body", "want"),
    [
        pytest.param(
            a_status(
                "ModelEndpoint",
                {"Ready": ("False", "Pulling", "")},
                pull={"percent": 43, "totalBytes": 491_000_000, "eta": "20s"},
            ),
            "mep/x                       Pulling: 43 % of 491 MB, about 20s left",
            id="a pull has its percent",
        ),
        pytest.param(
            a_status("ModelEndpoint", {"Ready": ("False", "ModelNotFound", "no such model")}, desiredReplicas=1),
            "mep/x                       ModelNotFound (0 of 1 pods): no such model",
            id="what is broken is told in words",
        ),
        pytest.param(
            a_status("PromptProgram", {"Accepted": ("False", "InvalidMetric", "no field mood")}, phase="Rejected"),
            "pp/x                        Rejected (InvalidMetric): no field mood",
            id="a program that is refused says why",
        ),
        pytest.param(
            a_status("OptimizationRun", {"Admitted": ("False", "EndpointBusy", "0 of 2 slots")}, phase="Queued"),
            "orun/x                      Queued (EndpointBusy)",
            id="a run that waits says for what",
        ),
        pytest.param(
            a_status(
                "OptimizationRun",
                {"Complete": ("False", "Running", "")},
                phase="Running",
                progress={"percent": 12, "eta": "9m"},
                usage={"calls": 51},
                scores={"best": "37.5"},
            ),
            "orun/x                      Running: 12 %, 51 calls, best so far 37.5 on the rows to learn from, about 9m left",
            id="a run that calls has its numbers",
        ),
        pytest.param(
            a_status(
                "OptimizationRun",
                {"Complete": ("True", "Completed", "")},
                phase="Succeeded",
                outcome="Improved",
                progress={"percent": 100},
                usage={"calls": 406},
            ),
            "orun/x                      Succeeded (Completed), Improved",
            id="a run that is over has its outcome",
        ),
    ],
)
def test_a_line_of_an_object(body: dict[str, Any], want: str) -> None:
    assert [str(line) for line in lines([body])] == [want]


def test_nothing_is_said_of_what_has_no_status() -> None:
    assert list(lines([{"kind": "OptimizationRun", "metadata": {"name": "x"}}])) == []


def test_the_scores_say_what_is_proven_and_what_is_not() -> None:
    def result(gate: dict[str, Any] | None, **scores: float) -> dict[str, Any]:
        arms = {arm: {"score": score, "rows": 160, "unreadable": 3} for arm, score in scores.items()}
        return {"scores": arms, "gate": gate, "usage": USAGE, "message": "out of budget"}

    comparison = result(None, baseline=81.25)
    proven = "\n".join(
        lastscreen.scores(result({"why": "promoted", "passed": True}, baseline=20, candidate=91.875), comparison)
    )
    assert "160 rows" in proven and "20.0   3 of 160" in proven and "81.2   3 of 160" in proven
    assert "promoted" in proven and "is\nnot chance" not in proven and "not chance on these rows" in proven
    assert "406 calls and 124,629 tokens" in proven
    chance = "\n".join(
        lastscreen.scores(result({"why": "too little", "passed": False}, baseline=20, candidate=21), comparison)
    )
    assert "not chance" not in chance and "here it is not" in chance
    unjudged = "\n".join(lastscreen.scores(result(None, baseline=20), comparison))
    assert "Not judged: out of budget" in unjudged and "not chance" not in unjudged


@pytest.mark.parametrize(
    ("supply", "model", "pulls_from", "image"),
    [
        pytest.param(PUBLIC, QWEN, None, None, id="in public nothing is changed but the scaling"),
        pytest.param(FIXTURES, SMOLLM, "model-registry.fixtures.svc:5001", "dspy-operator/", id="without any registry"),
    ],
)
def test_what_is_applied(tmp_path: Path, supply: Any, model: str, pulls_from: str | None, image: str | None) -> None:
    overlay.write(tmp_path, overlay.kustomization(tmp_path, supply, namespace="demo", model=model))
    made = yaml.safe_load((tmp_path / "kustomization.yaml").read_text())
    assert [(tmp_path / path).resolve() for path in made["resources"]] == [
        overlay.EXAMPLES / name for name in overlay.APPLIED
    ]
    changes = {change["path"]: change["value"] for change in yaml.safe_load(made["patches"][0]["patch"])}
    assert changes["/spec/scaling"]["minReplicas"] == 0
    assert changes.get("/spec/provider/ollama/model", QWEN) == model
    assert changes.get("/spec/provider/ollama/pull", {}).get("registry") == pulls_from
    assert (image is None) == ("images" not in made)


@pytest.mark.parametrize(
    ("found", "refused"),
    [
        pytest.param(None, False, id="one that is not there"),
        pytest.param({"metadata": {"labels": {"demo.dspy-operator.io/made-here": "true"}}}, False, id="a demo's own"),
        pytest.param({"metadata": {"labels": {"team": "a"}}}, True, id="somebody's"),
        pytest.param({"metadata": {}}, True, id="somebody's without labels"),
    ],
)
def test_a_namespace_that_no_demo_made_is_never_removed(found: dict[str, Any] | None, refused: bool) -> None:
    class Api:
        def find(self, _: str) -> dict[str, Any] | None:
            return found

    with pytest.raises(Failed, match="left alone") if refused else contextlib.nullcontext():
        demo._refuse_others(Api(), "team-a")  # type: ignore[arg-type]
