"""Budgets are hard: the server never sees a call more, the best-so-far is judged, and a raised budget pays nothing twice."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.integration.acceptance import LONG, unanswered, uninterrupted
from tests.integration.harness import Case, Ended, ended, workplace
from tests.integration.test_kill import kill_at_ordinal, until

THREADS = 8
TEST_ROWS = 12
BUDGET = {"calls": 80}
MIPRO = {"type": "MIPROv2", "miproV2": {"numCandidates": 4, "numTrials": 40, "minibatch": False}}
GEPA = {"type": "GEPA", "gepa": {"maxMetricCalls": 340}}
RANDOM_SEARCH = {
    "type": "BootstrapFewShotWithRandomSearch",
    "bootstrapFewShotWithRandomSearch": {"maxBootstrappedDemos": 3, "maxLabeledDemos": 4, "numCandidatePrograms": 20},
}
LABELED = {"type": "LabeledFewShot", "labeledFewShot": {"k": 4}}
WANTING = {
    "LabeledFewShot": Case(LABELED, dev=160),
    "BootstrapFewShot": Case({"type": "BootstrapFewShot", "bootstrapFewShot": {"maxBootstrappedDemos": 4}}, dev=160),
    "MIPROv2": Case(MIPRO, dev=16),
    "GEPA": Case(GEPA),
    "BootstrapFewShotWithRandomSearch": Case(RANDOM_SEARCH),
    "COPRO": Case({"type": "COPRO", "copro": {"breadth": 6, "depth": 5}}, dev=14),
    "InferRules": Case({"type": "InferRules", "inferRules": {"maxLabeledDemos": 4, "numCandidates": 24}}),
    "SIMBA": Case({"type": "SIMBA", "simba": {"bsize": 6, "numCandidates": 3, "maxSteps": 10}}),
    "Stages": Case({"type": "Stages", "stages": {"stages": [LABELED, RANDOM_SEARCH]}}),
}
"""Explicit counts that want more than 300 calls, with 12 test rows."""
EXACT = {"MIPROv2", "GEPA", "BootstrapFewShotWithRandomSearch", "COPRO", "InferRules", "SIMBA", "Stages"}
"""Whose best-so-far is better than the baseline after 56 calls here, so that both arms of the judgement are paid."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("optimizer", WANTING if LONG else ["BootstrapFewShot", "GEPA", "SIMBA", "Stages"])
def test_80_calls_stop_a_run_that_wants_300_and_raising_them_pays_nothing_twice(tmp_path: Path, optimizer: str) -> None:
    case = WANTING[optimizer]
    whole = uninterrupted(tmp_path / "uninterrupted", case)
    assert whole.result["estimate"]["calls"] > 300
    with workplace(tmp_path / "stopped", Case(**{**vars(case), "budget": BUDGET}), latency_ms=3) as place:
        stopped = judged_best_so_far(place.run())
        spent = place.server.counts()["requests"]
        baseline_is_best = "p" not in stopped["gate"]
        assert baseline_is_best == (optimizer not in EXACT)
        assert spent == stopped["usage"]["calls"] == 80 - (TEST_ROWS if baseline_is_best else 0)
        assert place.verify().code == 0

        place.change(budget={"calls": 1000})
        raised = place.run("--resume")
        assert raised.code == 0, raised.stderr
        assert raised.result["candidate"] == whole.result["candidate"]
        assert raised.result["scores"] == whole.result["scores"]
        other = not baseline_is_best and stopped["candidate"] != whole.result["candidate"]
        assert place.server.counts()["requests"] == whole.requests + (TEST_ROWS if other else 0)
        verified = place.verify()
        assert verified.code == 0, verified.stderr


def test_an_evaluation_wants_less_and_is_not_stopped(tmp_path: Path) -> None:
    with workplace(tmp_path, Case({"type": "Evaluate"}, budget=BUDGET)) as place:
        done = place.run()
        assert (done.code, done.result["reason"]) == (0, "Completed"), done.stderr
        assert place.server.counts()["requests"] <= 80


@pytest.mark.timeout(600)
@pytest.mark.parametrize("resource", ["tokens", "cost"])
def test_tokens_and_money_are_overspent_by_at_most_what_is_in_flight(tmp_path: Path, resource: str) -> None:
    limit: dict[str, Any] = {"tokens": 25000} if resource == "tokens" else {"cost": "0.005"}
    with workplace(tmp_path, Case(GEPA, budget=limit, concurrency=THREADS), latency_ms=3) as place:
        stopped = judged_best_so_far(place.run())
        counts, answers = place.server.counts(), [line for line in place.journal() if line["kind"] == "done"]
        usages = [answer["response"]["usage"] for answer in answers]
        largest = max(usage["input_tokens"] + usage["output_tokens"] for usage in usages)
        tokens = counts["prompt_tokens"] + counts["completion_tokens"]
        assert stopped["usage"]["inputTokens"] + stopped["usage"]["outputTokens"] == tokens
        if resource == "tokens":
            assert tokens <= 25000 + THREADS * largest
        else:
            money = (counts["prompt_tokens"] * 0.15 + counts["completion_tokens"] * 0.60) / 1e6
            assert money == pytest.approx(float(stopped["usage"]["cost"]), abs=1e-6)
            dearest = max(usage["input_tokens"] * 0.15 + usage["output_tokens"] * 0.60 for usage in usages) / 1e6
            assert money <= 0.005 + THREADS * dearest


def test_a_judgement_that_the_tokens_cannot_pay_is_refused_before_the_optimization(tmp_path: Path) -> None:
    with workplace(tmp_path, Case(GEPA, budget={"tokens": 5000}, concurrency=THREADS)) as place:
        done = place.run()
        assert (done.code, done.result["reason"], done.result["path"]) == (43, "BudgetTooSmall", "spec.budget.tokens")
        assert "the judgement alone needs about" in done.stderr
        assert place.server.counts()["requests"] == 12


def test_a_wall_clock_ends_the_optimization_in_time_to_judge(tmp_path: Path) -> None:
    case = Case(GEPA, budget={"calls": 1000, "wallClock": "20s"}, concurrency=THREADS)
    with workplace(tmp_path, case, latency_ms=500) as place:
        stopped = judged_best_so_far(place.run())
        assert "of 20 seconds used" in stopped["message"]
        sent = place.server.counts()["requests"]

        verified = place.verify()
        assert verified.code == 0, verified.stderr
        again = place.run("--resume")
        assert again.code == 44, again.stderr
        assert again.result["candidate"] == stopped["candidate"]
        assert place.server.counts()["requests"] == sent


@pytest.mark.parametrize(
    ("case", "needed"),
    [
        pytest.param(Case(MIPRO, dev=16, budget={"calls": 24}), 25, id="two arms of 12 rows and a preflight"),
        pytest.param(Case({"type": "Evaluate"}, budget={"calls": 12}), 13, id="one arm of 12 rows and a preflight"),
    ],
)
def test_a_budget_below_its_own_judgement_is_refused_unpaid(tmp_path: Path, case: Case, needed: int) -> None:
    with workplace(tmp_path, case) as place:
        done = place.run()
        assert (done.code, done.result["reason"], done.result["path"]) == (43, "BudgetTooSmall", "spec.budget.calls")
        assert f"{needed} calls are needed" in done.stderr and "all.yaml:" in done.stderr
        assert place.server.counts()["requests"] == 0

        place.change(budget={"calls": needed})
        assert place.run().code in {0, 44}
        assert place.server.counts()["requests"] <= needed


@pytest.mark.parametrize(
    ("budget", "path", "needed"),
    [
        pytest.param({"tokens": 23}, "spec.budget.tokens", "at least 24 tokens are needed", id="tokens"),
        pytest.param({"cost": "0.000008"}, "spec.budget.cost", "at least 0.000009 is needed", id="money"),
    ],
)
def test_tokens_or_money_below_two_tokens_a_call_of_the_judgement_are_refused_unpaid(
    tmp_path: Path, budget: dict[str, Any], path: str, needed: str
) -> None:
    with workplace(tmp_path, Case({"type": "Evaluate"}, budget=budget)) as place:
        done = place.run()
        assert (done.code, done.result["reason"], done.result["path"]) == (43, "BudgetTooSmall", path)
        assert needed in done.stderr and "all.yaml:" in done.stderr
        assert place.server.counts()["requests"] == 0


@pytest.mark.timeout(600)
def test_an_answer_that_is_late_at_the_exhausted_budget_is_kept_for_the_raised_one(tmp_path: Path) -> None:
    whole = uninterrupted(tmp_path / "uninterrupted", WANTING["GEPA"])
    case = Case(**{**vars(WANTING["GEPA"]), "budget": BUDGET, "timeout": "60s"})
    late = 55
    """Of the calls before the judgement the last but one, in an evaluation that asks for more rows at once."""
    with workplace(tmp_path / "stopped", case, hold_at=[late]) as place:
        process = place.start()
        until(place.server, process, lambda: place.server.counts()["requests"] == 80)
        with pytest.raises(subprocess.TimeoutExpired):  # it judges, and then it waits
            process.wait(timeout=3)
        place.server.release()
        stopped = judged_best_so_far(ended(process, place.run_folder))
        assert unanswered(place) == 0

        place.change(budget={"calls": 1000})
        assert place.run("--resume").code == 0
        other = stopped["candidate"] != whole.result["candidate"]
        assert place.server.counts()["requests"] == whole.requests + (TEST_ROWS if other else 0)


@pytest.mark.timeout(600)
def test_kills_in_a_row_never_take_a_call_more_than_the_budget(tmp_path: Path) -> None:
    with workplace(tmp_path, Case(GEPA, budget=BUDGET, concurrency=THREADS)) as place:
        for ordinal in (7, 25, 45):
            kill_at_ordinal(place, ordinal, settled=True)
            place.server.wait_until(lambda counts: counts["in_flight"] == 0)
        lost = unanswered(place)
        done = judged_best_so_far(place.run("--resume"))
        starts = sum(line["kind"] == "start" for line in place.journal())
        assert place.server.counts()["requests"] <= starts == done["usage"]["calls"] <= 80
        assert lost > 0

        place.change(budget={"calls": 90})
        assert place.run("--resume").code == 44
        assert place.server.counts()["requests"] <= 90


def test_kills_in_the_judgement_keep_the_budget_even_where_nothing_is_left_to_judge(tmp_path: Path) -> None:
    with workplace(tmp_path, Case(GEPA, budget=BUDGET, concurrency=THREADS)) as place:
        for ordinal in (60, 70):
            kill_at_ordinal(place, ordinal, settled=True)
            place.server.wait_until(lambda counts: counts["in_flight"] == 0)
        done = place.run("--resume")
        assert (done.code, done.result["outcome"]) == (44, "NotJudged"), done.result
        assert place.server.counts()["requests"] <= 80
        assert (place.run_folder / "revision" / "program.json").is_file()

        place.change(budget={"calls": 120})
        judged_best_so_far(place.run("--resume"))
        assert place.server.counts()["requests"] <= 120


def judged_best_so_far(done: Ended) -> dict[str, Any]:
    """The exit of an exhausted budget, with a verdict, and the files that it speaks of; the result."""
    assert done.code == 44, (done.code, done.stderr, done.result)
    result = done.result
    assert (result["reason"], result["exit"]) == ("BudgetExhausted", 44)
    assert {"baseline", "candidate"} <= set(result["scores"]) and result["gate"]["why"]
    assert result["outcome"] in {"Improved", "NoImprovement"}
    assert json.loads((done.folder / "revision" / "report.json").read_bytes())["revision"] == result["candidate"]
    return result
