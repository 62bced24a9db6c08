"""`answersFrom`: what another run of the program paid for is not paid again, and nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.acceptance import LONG, revision_files, unanswered, uninterrupted
from tests.integration.harness import OPTIMIZERS, Case, Workplace, workplace
from tests.integration.test_kill import kill_at_ordinal

ALL = [name for name in OPTIMIZERS if name != "Evaluate"]


def evaluated_first(place: Workplace) -> None:
    """The program was measured as it is, and the run of it is kept as `first`."""
    assert place.run().code == 0
    place.run_folder.rename(place.out / "first")
    (place.out / "sentiment.account.json").unlink()  # a look at the test set is not what is compared here


def case_of(optimizer: str, **run: Any) -> Case:
    """At few threads, so that a kill leaves something to do."""
    return Case(OPTIMIZERS[optimizer], concurrency=4, run=run)


OF_VALIDATION = {"BootstrapFewShotWithRandomSearch", "MIPROv2", "GEPA", "InferRules", "Stages"}
"""They score the validation rows; Evaluate scores all of dev, and its preflight asks the first of those."""
FIRST = {"answersFrom": {"runs": ["first"]}}


@pytest.mark.parametrize("optimizer", ALL if LONG else ["BootstrapFewShot", "COPRO"])
def test_a_second_run_of_a_program_does_not_pay_for_its_baseline(tmp_path: Path, optimizer: str) -> None:
    whole = uninterrupted(tmp_path / "alone", case_of(optimizer))
    with workplace(tmp_path / "second", case_of("Evaluate")) as place:
        evaluated_first(place)
        paid = place.server.counts()["requests"]
        place.change(optimizer=OPTIMIZERS[optimizer], run=FIRST)
        kill_at_ordinal(place, paid + (whole.requests - paid) // 2, settled=True)
        place.server.wait_until(lambda counts: counts["in_flight"] == 0)
        lost = unanswered(place)
        done = place.run("--resume")
        assert done.code == 0, done.stderr
        assert revision_files(place.run_folder) == whole.files()
        assert (done.result["gate"], done.result["scores"]) == (whole.result["gate"], whole.result["scores"])
        # All that the first paid for is saved: the test rows of the baseline, and the row of the preflight where both ask the same.
        shared = requested(place.run_folder.with_name("first")) & requested(whole.run_folder)
        assert len(shared) == paid - (optimizer in OF_VALIDATION)
        assert place.server.counts()["requests"] - paid <= done.result["usage"]["calls"]
        assert done.result["usage"]["calls"] <= whole.requests - len(shared) + lost
        verified = place.verify()
        assert verified.code == 0, verified.stderr


def requested(run_folder: Path) -> set[str]:
    """Keys of the requests that a run sent."""
    lines = (json.loads(line) for line in (run_folder / "journal.jsonl").read_bytes().splitlines())
    return {line["key"] for line in lines if line["kind"] == "start"}


def test_a_run_that_is_not_there_is_named_with_what_to_do(tmp_path: Path) -> None:
    with workplace(tmp_path, Case(OPTIMIZERS["Evaluate"], run=FIRST)) as place:
        refused = place.run()
        assert refused.code == 64
        assert "spec.answersFrom.runs[0]" in refused.stderr and f"{place.out}/first has no journal" in refused.stderr
        assert place.server.counts()["requests"] == 0
