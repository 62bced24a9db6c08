"""Stages: the rows that each works on, sizes that share a budget, and one digest for what computes the same."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from dspy_operator.api.optimizationrun import Optimizer
from dspy_operator.cli.screen import estimate_screen, line_of
from dspy_operator.contract.digests import input_digest
from dspy_operator.contract.documents import Estimate, Progress, Result
from dspy_operator.contract.resolve import Surroundings, resolve
from dspy_operator.contract.runspec import Paths
from dspy_operator.runner.optimizers import optimizer_of, parts_of
from dspy_operator.runner.optimizers.shape import Sizes
from tests.unit.written import endpoint, program, run

SIZES = Sizes(train=30, validation=20, dev=50)
BOOTSTRAP = {"type": "BootstrapFewShot"}
MIPRO, GEPA = {"type": "MIPROv2"}, {"type": "GEPA"}


def stages(*written: dict[str, Any]) -> tuple[Any, Any]:
    """(optimizer, options)."""
    options = Optimizer.model_validate({"type": "Stages", "stages": {"stages": list(written)}}).options
    return optimizer_of("Stages", options), options


def counts(calls: int | None, *written: dict[str, Any]) -> list[dict[str, Any]]:
    optimizer, options = stages(*written)
    return list(optimizer.counts(options, SIZES, calls)["stages"])


@pytest.mark.parametrize(
    ("written", "uses_validation", "dev"),
    [
        pytest.param((BOOTSTRAP, {"type": "COPRO"}), False, 50, id="all rows, where no stage keeps some back"),
        pytest.param((BOOTSTRAP, MIPRO), True, 30, id="the train rows, where one compares on the validation rows"),
    ],
)
def test_no_stage_learns_from_rows_that_another_compares_on(
    written: tuple[dict[str, Any], ...], uses_validation: bool, dev: int
) -> None:
    optimizer, options = stages(*written)
    assert optimizer.uses_validation is uses_validation
    parts = parts_of("Stages", optimizer, options, SIZES)
    assert {part.sizes for part in parts} == {Sizes(train=30, validation=20, dev=dev)}
    assert parts[1].path == f"spec.optimizer.stages.stages[1].{'miproV2' if uses_validation else 'copro'}"


def test_stages_that_fit_the_budget_share_what_the_others_leave() -> None:
    for calls in (300, 1000):
        found = counts(calls, BOOTSTRAP, MIPRO, GEPA)
        optimizer, _ = stages(BOOTSTRAP, MIPRO, GEPA)
        spent = optimizer.calls({"stages": found}, SIZES)
        assert 0.8 * calls <= spent <= calls + SIZES.validation  # GEPA ends with at most one set of rows more
        alone = [part.optimizer.calls(own, part.sizes) for part, own in zip(optimizer.parts(SIZES), found, strict=True)]
        assert 0.5 <= alone[1] / alone[2] <= 2
    assert counts(1000, BOOTSTRAP, MIPRO)[1]["num_trials"] > counts(1000, BOOTSTRAP, MIPRO, GEPA)[1]["num_trials"]


def test_a_stage_with_numbers_of_its_own_keeps_them_whatever_the_budget_is() -> None:
    fixed = {"type": "MIPROv2", "miproV2": {"numCandidates": 4, "numTrials": 9}}
    for calls in (None, 10, 1000):
        assert counts(calls, BOOTSTRAP, fixed)[1]["num_trials"] == 9


def test_what_a_stage_made_is_scored_where_it_does_not_score_itself() -> None:
    for written, scored in (((BOOTSTRAP, MIPRO), 20), ((BOOTSTRAP, BOOTSTRAP), 50)):
        optimizer, options = stages(*written)
        found = optimizer.counts(options, SIZES, None)
        pairs = zip(optimizer.parts(SIZES), found["stages"], strict=True)
        alone = sum(part.optimizer.calls(own, part.sizes) for part, own in pairs)
        assert optimizer.calls(found, SIZES) == alone + scored


def test_a_default_that_a_stage_spells_out_moves_no_digest_and_the_order_of_stages_does() -> None:
    def digest(*written: dict[str, Any]) -> str:
        optimizer = Optimizer.model_validate({"type": "Stages", "stages": {"stages": list(written)}})
        return input_digest(optimizer=optimizer, seed=0, mode="Run", program="p", dataset="d", endpoints={})

    spelled = {"type": "BootstrapFewShot", "bootstrapFewShot": {"maxRounds": 1}}
    assert digest(BOOTSTRAP, MIPRO) == digest(spelled, MIPRO)
    assert len({digest(BOOTSTRAP, MIPRO), digest(MIPRO, BOOTSTRAP), digest(BOOTSTRAP, MIPRO, MIPRO)}) == 3


def test_an_estimate_tells_what_each_stage_came_to() -> None:
    of_run = run({"optimizer": {"type": "Stages", "stages": {"stages": [BOOTSTRAP, MIPRO]}}})
    around = Surroundings("/data", Paths(journal="j", out="o", control="c"), dataset_digest="v1:d")
    spec = resolve(of_run, program(), {"default/qwen": endpoint()}, around)
    assert "prompt" in spec.endpoints  # for MIPROv2, which is only a stage here
    text = io.StringIO()
    result = Result(resolved={"stages": [{"max_rounds": 1}, {"num_trials": 9}]}, estimate=Estimate(calls=80, tokens=9))
    estimate_screen(Console(file=text, width=120), spec, result)
    assert "  1. BootstrapFewShot: max_rounds 1\n  2. MIPROv2: num_trials 9\n" in text.getvalue()
    assert "2 of 2: MIPROv2" in line_of("fast", Progress(step="optimize", stage="2 of 2: MIPROv2")).plain
