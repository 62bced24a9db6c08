"""An optimization that is good enough ends there: by its scores alone, whatever the threads do, and again after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.acceptance import resumed_to_the_same, unanswered, uninterrupted
from tests.integration.harness import Case, Workplace, workplace
from tests.integration.test_kill import THREADS, kill_at_ordinal
from tests.integration.test_optimizers import changed

pytestmark = pytest.mark.timeout(600)

MANY = {"type": "MIPROv2", "miproV2": {"numCandidates": 6, "numTrials": 40, "minibatch": False}}
PATIENT: dict[str, dict[str, Any]] = {
    "MIPROv2": MANY,
    "BootstrapFewShotWithRandomSearch racing": changed(
        "BootstrapFewShotWithRandomSearch", numCandidatePrograms=12, racing=True
    ),
    "GEPA": {"type": "GEPA", "gepa": {"maxMetricCalls": 400}},
}


def test_a_goal_ends_the_search_and_is_judged(tmp_path: Path) -> None:
    with workplace(tmp_path, Case(MANY, run={"goal": {"score": "70"}})) as place:
        done = place.run()
        assert (done.code, done.result["reason"]) == (0, "GoalReached"), done.stderr
        scores = evaluations(place)
        assert max(scores[:-1]) < 70 <= scores[-1] == done.result["scores"]["devBest"]["score"]
        assert done.result["outcome"] in {"Improved", "NoImprovement"}
        assert "goal.score 70" in done.result["message"]
        assert place.verify().code == 0
        sent = place.server.counts()["requests"]
        again = place.run("--resume")
        assert (again.code, again.result["candidate"]) == (0, done.result["candidate"])
        assert place.server.counts()["requests"] == sent
        other = place.run("--resume", *_with(place, {"score": "80"}))
        assert (other.code, "the goal changed since" in other.stderr) == (64, True), other.stderr


def test_a_baseline_that_is_good_enough_is_not_optimized(tmp_path: Path) -> None:
    with workplace(tmp_path, Case(MANY, run={"goal": {"score": "10"}})) as place:
        done = place.run()
        assert (done.code, done.result["reason"], done.result["outcome"]) == (0, "GoalReached", "NoImprovement")
        assert place.server.counts()["requests"] == 12 + 12
        assert place.verify().code == 0


@pytest.mark.parametrize("name", PATIENT)
def test_patience_ends_after_so_many_candidates_that_are_no_better(tmp_path: Path, name: str) -> None:
    case = Case(PATIENT[name], dev=48, concurrency=THREADS, run={"goal": {"patience": 3}})
    with workplace(tmp_path, case) as place:
        done = place.run()
        assert (done.code, done.result["reason"]) == (0, "GoalReached"), done.stderr
        assert f"better than {done.result['scores']['devBest']['score']:.4g}" in done.result["message"]
        marks = [entry for entry in place.journal() if entry.get("mark") == "evaluate"]
        whole = [entry for entry in marks if len(entry["scores"]) == 24]
        best = max(whole, key=lambda entry: sum(entry["scores"]))
        beaten = {entry["program"] for entry in (marks if "racing" in name else whole)[whole.index(best) + 1 :]}
        assert len(beaten - {entry["program"] for entry in whole[: whole.index(best) + 1]}) == 3


def test_a_goal_is_reached_at_the_same_candidate_after_a_kill(tmp_path: Path) -> None:
    case = Case(PATIENT["GEPA"], dev=48, concurrency=THREADS, run={"goal": {"patience": 3}})
    whole = uninterrupted(tmp_path / "uninterrupted", case)
    with workplace(tmp_path / "killed", case) as place:
        kill_at_ordinal(place, whole.judge_from - 5, settled=True)
        place.server.wait_until(lambda counts: counts["in_flight"] == 0)
        resumed_to_the_same(place, whole, unanswered(place))
        assert place.verify().code == 0


def _with(place: Workplace, goal: dict[str, Any]) -> tuple[str, ...]:
    """Edit the goal; no further arguments."""
    place.change(run={"goal": goal})
    return ()


def evaluations(place: Workplace) -> list[float]:
    """Mean scores of the optimization's evaluations, 0 to 100, in order."""
    marks = [entry for entry in place.journal() if entry["kind"] == "mark" and entry["mark"] == "evaluate"]
    return [round(100 * sum(mark["scores"]) / len(mark["scores"]), 4) for mark in marks]
