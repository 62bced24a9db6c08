"""How far a judge agrees with people, and what of their grades cannot be used."""

from __future__ import annotations

from typing import Any

import pytest

from dspy_operator.api.metric import Metric
from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.runner.calibration import Calibration, calibrate, calibrations, columns_of, kappa
from dspy_operator.runner.metric import ScoredMetric
from dspy_operator.runner.rows import Row
from tests.unit.test_judge_metric import Replies


def metric(**options: Any) -> Metric:
    judge = {"instructions": "Is it right?", "calibration": {"answer": "said", "grade": "human"}} | options
    return Metric.model_validate({"type": "Judge", "judge": judge})


def row(line: int, said: object, human: object) -> Row:
    return Row(line, str(line), {"ticket": "a"}, {"label": "b"}, graded={"said": said, "human": human})


def calibration(rows: list[Row], **options: Any) -> Calibration:
    spec = metric(**options)
    judges = ScoredMetric(spec, ["label"], inputs=["ticket"]).every_judge
    (made,) = calibrations(spec, judges, rows, lambda _, value: str(value))
    return made


@pytest.mark.parametrize(
    ("counts", "best", "want"),
    [
        pytest.param(
            {(1, 1): 20, (1, 0): 5, (0, 1): 10, (0, 0): 15}, 1, 0.4, id="Cohen's own: 0.7 seen, 0.5 by chance"
        ),
        pytest.param({(1, 1): 5, (0, 0): 5}, 1, 1, id="all alike"),
        pytest.param({(1, 0): 5, (0, 1): 5}, 1, -1, id="all the other way round"),
        pytest.param({(0, 0): 1, (1, 2): 1, (2, 1): 1}, 2, 1 - (2 / 3) / (12 / 9), id="one off weighs 1, two off 4"),
        pytest.param({(1, 1): 9}, 1, None, id="one grade alone says nothing"),
        pytest.param({}, 1, None, id="no grades"),
    ],
)
def test_kappa(counts: dict[tuple[int, int], int], best: int, want: float | None) -> None:
    found = kappa([pair for pair, times in counts.items() for _ in range(times)], best)
    assert found == (pytest.approx(want) if want is not None else None)


def test_rows_that_nobody_graded_are_not_asked_about() -> None:
    made = calibration([row(1, "x", 1), row(2, "y", None), row(3, "z", ""), row(4, "w", "0 ")], scale=4)
    assert [(graded.row.line, graded.answer, graded.grade) for graded in made.answers] == [
        (1, {"label": "x"}, 1),
        (4, {"label": "w"}, 0),
    ]
    assert made.calls == 2
    assert calibration([row(1, "x", 0), row(2, "y", 2)], pairwise=True, votes=3).calls == 12
    assert columns_of(metric()) == {
        "spec.metric.judge.calibration.answer": "said",
        "spec.metric.judge.calibration.grade": "human",
    }


@pytest.mark.parametrize(
    ("rows", "path", "message"),
    [
        pytest.param([row(7, "x", 5)], "grade", "line 7: 5 is no whole number from 0 to 4", id="above the scale"),
        pytest.param([row(7, "x", "good")], "grade", "line 7: 'good' is no whole number from 0 to 4", id="a word"),
        pytest.param([row(7, "x", True)], "grade", "line 7: True is no whole number from 0 to 4", id="a truth value"),
        pytest.param(
            [row(1, "x", 1), row(2, "y", 1)], "grade", "2 dev rows have a grade, and they need", id="all alike"
        ),
    ],
)
def test_grades_that_cannot_be_used_are_told_before_any_call(rows: list[Row], path: str, message: str) -> None:
    with pytest.raises(RunFailed) as failed:
        calibration(rows, scale=4)
    assert (failed.value.reason, failed.value.path) == (
        Reason.INVALID_METRIC,
        f"spec.metric.judge.calibration.{path}",
    )
    assert failed.value.message.startswith(message)


def test_an_answer_without_a_verdict_is_no_part_of_kappa() -> None:
    made = calibration(
        [row(1, "x", 1), row(2, "y", 0), row(3, "z", 1)],
        calibration={"answer": "said", "grade": "human", "minKappa": "0.5"},
    )
    made.judge._ask = Replies("Grade: 1", "Grade: 0", "a", "b", "c")
    report = calibrate(made, 1)
    assert (report.kappa, report.rows, report.undecided, report.agreed, report.min_kappa) == (1, 3, 1, 2, "0.5")
