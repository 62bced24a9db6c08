"""Optimizers one after the other: what each begins with, what is kept of them, and how a stage that fails is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.acceptance import reference, resumed_to_the_same, unanswered, uninterrupted
from tests.integration.harness import OPTIMIZERS, Case, Workplace, workplace
from tests.integration.test_kill import THREADS, kill_at_ordinal
from tests.integration.test_optimizers import PROPOSAL

pytestmark = pytest.mark.timeout(600)


def staged(*stages: dict[str, Any]) -> dict[str, Any]:
    """The optimizer."""
    return {"type": "Stages", "stages": {"stages": list(stages)}}


BOOTSTRAP = {"type": "BootstrapFewShot", "bootstrapFewShot": {"maxBootstrappedDemos": 3, "maxLabeledDemos": 4}}
GEPA = {"type": "GEPA", "gepa": {"maxMetricCalls": 60}}


def test_each_stage_begins_with_what_the_one_before_made(tmp_path: Path) -> None:
    """GEPA changes the instructions of a program that has the demonstrations of the first stage."""
    with workplace(tmp_path, Case(staged(BOOTSTRAP, GEPA), concurrency=THREADS)) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        marks = [entry for entry in place.journal() if entry["kind"] == "mark" and "scores" in entry]
        kinds = [entry["mark"] for entry in marks]
        baseline, bootstrap, made = marks[:3]
        assert kinds[:3] == ["evaluate", "bootstrap", "evaluate"]
        assert bootstrap["program"] == baseline["program"] != made["program"]
        assert len(made["scores"]) == len(baseline["scores"]) == 12
        assert marks[3]["program"] == made["program"]  # GEPA scores what it begins with, from the journal
        state = json.loads((place.run_folder / "revision" / "program.json").read_bytes())
        (predictor,) = (part for name, part in state.items() if name != "metadata")
        assert predictor["demos"]
        assert [list(own) for own in done.result["resolved"]["stages"]] == [
            ["max_bootstrapped_demos", "max_labeled_demos", "max_rounds", "max_errors"],
            ["max_metric_calls"],
        ]
        progress = json.loads((place.run_folder / "progress.json").read_bytes())
        assert progress["stage"] == "2 of 2: GEPA"
        assert place.verify().code == 0


def test_the_best_of_what_the_stages_made_is_kept(tmp_path: Path) -> None:
    """Labelled rows alone, after demonstrations that the program solved itself: on this server the first are worth less."""
    worse = {"type": "LabeledFewShot", "labeledFewShot": {"k": 1}}
    with workplace(tmp_path, Case(staged(BOOTSTRAP, worse), concurrency=THREADS)) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        marks = [entry for entry in place.journal() if entry["kind"] == "mark" and entry["mark"] == "evaluate"]
        means = [sum(entry["scores"]) / len(entry["scores"]) for entry in marks]
        assert len(means) == 3 and means[1] > max(means[0], means[2])
        assert done.result["scores"]["devBest"]["score"] == pytest.approx(100 * means[1], abs=1e-3)
        judged = [entry["program"] for entry in place.journal() if entry.get("mark") == "judge"]
        assert judged == [marks[0]["program"], marks[1]["program"]]


def test_kills_in_each_stage_and_between_them_come_to_the_same_revision(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    case = Case(OPTIMIZERS["Stages"], concurrency=THREADS)
    whole = reference(tmp_path_factory.getbasetemp(), "Stages")
    first, boundary = whole.evaluations[0], whole.evaluations[1]
    with workplace(tmp_path, case) as place:
        for ordinal in (first + 2, boundary - 3, boundary + 2):
            kill_at_ordinal(place, ordinal, settled=True)
            place.server.wait_until(lambda counts: counts["in_flight"] == 0)
        resumed_to_the_same(place, whole, unanswered(place))
        assert place.verify().code == 0


def test_a_stage_that_its_rows_cannot_serve_is_refused_unpaid_by_its_path(tmp_path: Path) -> None:
    many = {"type": "MIPROv2", "miproV2": {"minibatch": True, "minibatchSize": 13, "numCandidates": 3, "numTrials": 3}}
    with workplace(tmp_path, Case(staged(BOOTSTRAP, many))) as place:
        done = place.run()
        assert (done.code, done.result["path"]) == (41, "spec.optimizer.stages.stages[1].miproV2"), done.stderr
        assert "MIPROv2: minibatchSize 13 is more than the 12 validation rows" in done.result["message"]
        assert "all.yaml:" in done.stderr
        assert place.server.counts()["requests"] == 0


def test_what_earlier_stages_made_is_judged_where_one_gives_up(tmp_path: Path) -> None:
    copro = {"type": "COPRO", "copro": {"breadth": 2, "depth": 1}}
    faults = [{"type": "garbage_text", "when": {"match": PROPOSAL}}]
    with workplace(tmp_path, Case(staged(BOOTSTRAP, copro), concurrency=THREADS), faults=faults) as place:
        done = place.run()
        assert (done.code, done.result["reason"]) == (0, "OptimizerGaveUp"), done.stderr
        assert done.result["outcome"] in {"Improved", "NoImprovement"}
        assert len([entry for entry in place.journal() if entry.get("mark") == "judge"]) == 2
        assert done.result["path"] == "spec.optimizer.stages.stages[1].copro"
        assert "COPRO: it cannot go on without an answer; the last error: " in done.result["message"]
        assert done.result["scores"]["devBest"]["score"] > done.result["scores"]["devBaseline"]["score"]
        assert "OptimizerGaveUp" in done.stdout + done.stderr
        assert place.verify().code == 0
        sent = place.server.counts()["requests"]
        again = place.run("--resume")
        assert (again.code, again.result["candidate"]) == (0, done.result["candidate"])
        assert place.server.counts()["requests"] == sent


def test_a_stage_whose_rows_fail_ends_the_run_by_its_own_name(tmp_path: Path) -> None:
    case = Case(staged(BOOTSTRAP, {**BOOTSTRAP, "bootstrapFewShot": {"maxErrors": 2}}), concurrency=THREADS)
    whole = uninterrupted(tmp_path / "whole", case)
    faults = [{"type": "garbage_text", "when": {"after": whole.evaluations[1]}}]
    with workplace(tmp_path / "failing", case, faults=faults) as place:
        done = place.run()
        assert (done.code, done.result["path"]) == (53, "spec.optimizer.stages.stages[1].bootstrapFewShot"), done.stderr
        assert "BootstrapFewShot: maxErrors: 2 rows failed" in done.result["message"]


def test_a_budget_is_shared_by_the_stages_that_fit_it(tmp_path: Path) -> None:
    with workplace(tmp_path, Case(staged(BOOTSTRAP, {"type": "MIPROv2"}), budget={"calls": 150})) as place:
        done = place.run()
        assert done.code in (0, 44), done.stderr
        assert 120 <= done.result["estimate"]["calls"] <= 150
        assert sent(place) <= 150
        frozen = [entry["counts"] for entry in place.journal() if entry.get("mark") == "resolved"]
        assert frozen == [done.result["resolved"]]


def sent(place: Workplace) -> int:
    """Requests that the server saw."""
    return int(place.server.counts()["requests"])
