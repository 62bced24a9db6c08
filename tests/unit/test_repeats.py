"""How often a row is asked where the model samples, and what that costs."""

from __future__ import annotations

from typing import Any

import pytest

from dspy_operator.api.promptprogram import SamplingRequest
from dspy_operator.contract.repeats import COMPARES, by_validation, choice_calls, repeats_of
from dspy_operator.contract.runspec import RunSpec
from dspy_operator.runner.judge import Arm, FailureClass, Judged, worst
from dspy_operator.runner.optimizers import OPTIMIZERS
from dspy_operator.runner.rows import Row
from dspy_operator.runner.spend import Reserve
from tests.unit.test_resolve import resolved


@pytest.mark.parametrize(
    ("temperature", "written", "want"),
    [
        pytest.param(None, None, 1, id="unset is 0"),
        pytest.param("0", 5, 1, id="at 0 each answer would be the same"),
        pytest.param("0.0", None, 1, id="another spelling of 0"),
        pytest.param("0.7", None, 3, id="three where it samples"),
        pytest.param("0.7", 1, 1, id="one where a person wants one"),
        pytest.param("1", 16, 16, id="the most"),
    ],
)
def test_answers_to_each_row(temperature: str | None, written: int | None, want: int) -> None:
    assert repeats_of(written, SamplingRequest.model_validate({"temperature": temperature})) == want
    task = {"endpoints.task": {"name": "qwen", "request": {"temperature": temperature} if temperature else {}}}
    found: RunSpec = resolved(task | ({"repeats": written} if written else {}))
    assert found.repeats == want


@pytest.mark.parametrize(
    ("optimizer", "repeats", "want"),
    [
        ("MIPROv2", 3, 3 * 20 * 2 * 3),
        ("MIPROv2", 1, 0),
        ("LabeledFewShot", 3, 0),
        ("Evaluate", 3, 0),
        ("Stages", 3, 360),
    ],
)
def test_calls_of_the_choice_between_those_that_lead(optimizer: str, repeats: int, want: int) -> None:
    assert choice_calls(optimizer, 20, 2, repeats) == want


def test_operator_and_runner_know_alike_which_rows_an_optimizer_compares_on() -> None:
    for name, optimizer in OPTIMIZERS.items():
        if name in COMPARES:
            assert optimizer.uses_validation is COMPARES[name], name
        else:
            assert not optimizer.uses_validation, f"{name} chooses by validation rows: it belongs to COMPARES"


def test_stages_compare_on_validation_where_one_of_them_does() -> None:
    assert by_validation(["LabeledFewShot", "GEPA"])
    assert not by_validation(["LabeledFewShot", "SIMBA"])


def test_a_part_of_a_reserve_is_its_share_of_everything() -> None:
    whole = Reserve(400, 1000, Reserve().cost + 2, 60.0)
    assert whole.part(100) == Reserve(100, 250, Reserve().cost + Reserve(1, 0, whole.cost / 4, 0.0).cost, 15.0)
    assert Reserve().part(0) == Reserve()


def answered(line: int, score: float, failure: FailureClass) -> Judged:
    return Judged(Row(line, f"{line}", {"text": "x"}, {"label": "y"}), score, {}, "", failure)


def an_arm(*passes: list[tuple[float, FailureClass]]) -> Arm:
    return Arm(tuple(answered(line, *each) for one in passes for line, each in enumerate(one)), len(passes))


RIGHT: Any = (1.0, "right")
WRONG: Any = (0.0, "wrong")
LOST: Any = (0.0, "request")


def test_a_row_counts_once_with_the_mean_of_its_answers() -> None:
    arm = an_arm([RIGHT, WRONG, RIGHT], [WRONG, WRONG, RIGHT], [RIGHT, LOST, RIGHT])
    assert arm.scores == (2 / 3, 0, 1)
    assert [worst(answers) for answers in arm.by_row] == ["wrong", "request", "right"]
    score = arm.score()
    assert (score.score, score.rows, score.repeats, score.failed, score.unreadable) == (55.5556, 3, 3, 1, 0)


def test_of_one_answer_nothing_changes() -> None:
    arm = an_arm([RIGHT, WRONG])
    assert arm.scores == (1, 0)
    assert (arm.score().repeats, arm.score().rows) == (1, 2)
