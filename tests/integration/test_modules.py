"""Programs that ask more than once, run to their end: optimizers, kills, budgets, lost requests, export."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from dspy_operator.cli.export import Target, export
from dspy_operator.cli.revisions import read_revision
from dspy_operator.contract.exits import RunFailed
from tests.integration.acceptance import LONG, resumed_to_the_same, unanswered, uninterrupted
from tests.integration.harness import OPTIMIZERS, Case, workplace
from tests.integration.programs import REFINE, REWARD
from tests.integration.test_kill import THREADS, kill_at_ordinal

pytestmark = pytest.mark.timeout(600)

NEVER = {"type": "Regex", "regex": {"field": "label", "pattern": "^neither$"}}
MODULES: dict[str, dict[str, Any]] = {
    "BestOfN": {"type": "BestOfN", "bestOfN": {"attempts": 2, "threshold": "1", "reward": REWARD}},
    "Refine": REFINE,
    "MultiChainComparison": {"type": "MultiChainComparison", "multiChainComparison": {"m": 2}},
}
EVERY = [(module, optimizer) for module in MODULES for optimizer in OPTIMIZERS]
"""Refine with every optimizer, and the others, too: the long form."""
SLICE = [("Refine", "SIMBA"), ("MultiChainComparison", "BootstrapFewShot")]


def a_case(module: str, optimizer: str, **more: Any) -> Case:
    program = {"program": {"single": {"module": MODULES[module]}}}
    return Case(OPTIMIZERS[optimizer], dev=16, test=6, program=program, concurrency=THREADS, **more)


@pytest.mark.parametrize(("module", "optimizer"), EVERY if LONG else SLICE)
def test_a_program_that_asks_more_than_once_is_optimized_killed_and_resumed_to_the_same(
    tmp_path: Path, module: str, optimizer: str
) -> None:
    case = a_case(module, optimizer)
    whole = uninterrupted(tmp_path / "uninterrupted", case)
    assert whole.result["usage"]["calls"] <= whole.result["estimate"]["calls"] * 2
    changed = json.loads(whole.files()["program.json"])
    if optimizer.startswith("Bootstrap"):
        assert {len(part["demos"]) for name, part in changed.items() if name != "metadata"} == {4}
        assert b"hint_" not in whole.files()["program.json"]
    draw = random.Random(f"modules/{module}/{optimizer}")
    with workplace(tmp_path / "killed", case) as place:
        for ordinal in sorted(draw.sample(range(2, whole.requests), 2)):
            # A resume goes on behind the last kill, whatever of its requests was lost.
            kill_at_ordinal(place, max(ordinal, place.server.counts()["requests"] + 1), settled=draw.random() < 0.5)
            place.server.wait_until(lambda counts: counts["in_flight"] == 0)
        resumed_to_the_same(place, whole, unanswered(place))
        verified = place.verify()
        assert verified.code == 0, verified.stderr


def test_a_budget_holds_within_a_row_and_raised_it_ends_as_without_one(tmp_path: Path) -> None:
    case = a_case("Refine", "COPRO")
    whole = uninterrupted(tmp_path / "uninterrupted", case)
    with workplace(tmp_path / "spent", case) as place:
        place.change(budget={"calls": 110})
        spent = place.run()
        assert (spent.code, spent.result["reason"]) == (44, "BudgetExhausted"), spent.stderr
        assert 110 - whole.result["estimate"]["reservedCalls"] <= place.server.counts()["requests"] <= 110
        place.change(budget={"calls": 1000})
        done = place.run("--resume")
        assert done.code == 0, done.stderr
        assert done.result["candidate"] == whole.result["candidate"]


def test_a_budget_that_could_not_pay_for_every_attempt_is_refused_unpaid(tmp_path: Path) -> None:
    with workplace(tmp_path, a_case("Refine", "Evaluate", budget={"calls": 34})) as place:
        done = place.run()
        assert (done.code, done.result["reason"]) == (43, "BudgetTooSmall"), done.stderr
        assert "35 calls are needed (judgement 30, preflight 5), given 34" in done.result["message"]
        assert place.server.counts()["requests"] == 0


@pytest.mark.parametrize("module", ["BestOfN", "Refine"])
def test_an_attempt_that_the_network_lost_is_a_lost_row_and_no_worse_answer(tmp_path: Path, module: str) -> None:
    """The endpoint answers the next attempt on that row, and would have DSPy take it."""
    lost = [{"type": "hang", "when": {"match": "item017", "max": 3}}]
    case = a_case(module, "Evaluate", timeout="1s")
    with workplace(tmp_path, case, faults=lost) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        assert place.server.counts()["by_fault"]["hang"] == 3
        assert done.result["scores"]["candidate"]["failed"] == 1
        assert place.verify().code == 0


@pytest.mark.parametrize("module", ["BestOfN", "Refine"])
def test_an_outage_in_the_middle_of_attempts_ends_the_run_and_it_goes_on(tmp_path: Path, module: str) -> None:
    case = a_case(module, "BootstrapFewShot")
    whole = uninterrupted(tmp_path / "uninterrupted", case)
    with workplace(tmp_path / "outage", case, faults=[{"type": "500", "when": {"after": 20}}]) as place:
        done = place.run()
        assert (done.code, done.result["reason"]) == (45, "EndpointUnavailable"), done.stderr
        place.server.set_script(case.script())
        done = place.run("--resume")
        assert done.code == 0, done.stderr
        assert done.result["candidate"] == whole.result["candidate"]
        assert done.result["scores"] == whole.result["scores"]


@pytest.mark.parametrize("module", MODULES)
def test_no_format_of_another_library_holds_it(tmp_path: Path, module: str) -> None:
    with workplace(tmp_path, a_case(module, "Evaluate")) as place:
        assert place.run().code == 0
        revision = read_revision(str(place.run_folder))
    for target in Target:
        with pytest.raises(RunFailed, match=r"its program\.py"):
            export(revision, target)


def test_the_judgement_of_what_is_served_is_reserved_for_also_where_it_asks_more_often_than_the_program(
    tmp_path: Path,
) -> None:
    """The program was BestOfN of 4 when it was promoted, and is Predict now: 72 calls for 18 rows, not 18."""
    asks_four_times = {"type": "BestOfN", "bestOfN": {"attempts": 4, "threshold": "1", "reward": NEVER}}
    rows: dict[str, Any] = {"dev": 12, "test": 6}
    served = Case(OPTIMIZERS["Evaluate"], **rows, program={"program": {"single": {"module": asks_four_times}}})
    with workplace(tmp_path / "served", served) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        revision = place.run_folder / "revision"
    # On dev the baseline asks 12 times and what is served 48 times; judged are 6, 24 and 6 calls, with a quarter more for what is served 42.
    wants = {"type": "MIPROv2", "miproV2": {"numCandidates": 6, "numTrials": 60, "minibatch": False}}
    with workplace(tmp_path / "now", Case(wants, **rows, budget={"calls": 130})) as place:
        done = place.run("--incumbent", str(revision))
        assert done.result["reason"] == "BudgetExhausted", done.result
        assert "gate" in done.result, done.result
        assert {
            name: done.result["scores"][name]["rows"] for name in ("baseline", "incumbent", "candidate")
        } == dict.fromkeys(("baseline", "incumbent", "candidate"), 6)
        assert done.result["usage"]["calls"] == place.server.counts()["requests"] <= 130
        assert "24 calls more are kept" in done.stdout + done.stderr
    few = Case(OPTIMIZERS["LabeledFewShot"], dev=4, test=6, budget={"calls": 40})
    with workplace(tmp_path / "few", few) as place:
        done = place.run("--incumbent", str(revision))
        assert done.result["reason"] == "BudgetTooSmall"
        assert "the judgement alone needs about 42 calls (42 calls), given 40, used 20" in done.result["message"]
