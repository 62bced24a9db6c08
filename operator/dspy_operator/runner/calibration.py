"""Whether a judge grades as people do: Cohen's kappa over answers that people graded, before anything else is spent."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from dspy_operator.api.metric import JudgeMetric, Metric
from dspy_operator.contract.calls import votes_of
from dspy_operator.contract.documents import CalibrationReport
from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.runner.metrics.judge import Judge
from dspy_operator.runner.metrics.shape import NoVerdict
from dspy_operator.runner.rows import Row

Coerce = Callable[[str, object], object]


@dataclass(frozen=True)
class Graded:
    """An answer that a person graded."""

    row: Row
    answer: Mapping[str, object]
    grade: int


@dataclass(frozen=True)
class Calibration:
    """One judge of a metric, and the answers that it is asked about."""

    path: str
    """Of the judge: "spec.metric.judge"."""
    spec: JudgeMetric
    judge: Judge
    answers: Sequence[Graded]

    @property
    def calls(self) -> int:
        """Calls that it costs."""
        return len(self.answers) * votes_of(self.spec)


def columns_of(metric: Metric) -> dict[str, str]:
    """Path of a field -> the column of the dataset that it asks for."""
    return {
        f"spec.metric.{path}.calibration.{name}": column
        for path, judge in metric.judges.items()
        if judge.calibration is not None
        for name, column in (("answer", judge.calibration.answer), ("grade", judge.calibration.grade))
    }


def calibrations(
    metric: Metric, judges: Sequence[Judge], dev: Sequence[Row], coerce: Coerce
) -> tuple[Calibration, ...]:
    """What each judge of a metric is calibrated with; made without a call.

    Args:
        judges: as built, in the order of `metric.judges`.
        dev: rows that may be asked about.
        coerce: makes an answer of the output's type.
    Raises:
        RunFailed: InvalidMetric for what is no grade or no answer, or grades that are all alike.
    """
    found = []
    for (path, spec), judge in zip(metric.judges.items(), judges, strict=True):
        if spec.calibration is not None:
            at = f"spec.metric.{path}"
            answers = _graded(at, spec, judge, dev, coerce)
            found.append(Calibration(at, spec, judge, answers))
    return tuple(found)


def calibrate(of: Calibration, threads: int) -> CalibrationReport:
    """Ask the judge about each answer, in the surrounding dspy.context.

    Raises:
        RunStop: as the judge's calls.
    """
    best = best_grade(of.spec)

    def asked(graded: Graded) -> int | None:
        gold = {**graded.row.inputs, **graded.row.outputs}
        try:
            return round(of.judge.opinion(gold, graded.answer).score * best)
        except NoVerdict:
            return None

    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(contextvars.copy_context().run, asked, graded) for graded in of.answers]
        said = [future.result() for future in futures]
    pairs = [(graded.grade, grade) for graded, grade in zip(of.answers, said, strict=True) if grade is not None]
    agreement = kappa(pairs, best)
    assert of.spec.calibration is not None
    return CalibrationReport(
        kappa=round(agreement, 4) if agreement is not None else None,
        rows=len(said),
        undecided=said.count(None),
        agreed=sum(one == other for one, other in pairs),
        min_kappa=of.spec.calibration.min_kappa,
    )


def best_grade(spec: JudgeMetric) -> int:
    """The best grade that a person gives."""
    return 2 if spec.pairwise else spec.scale or 1


def kappa(pairs: Sequence[tuple[int, int]], best: int) -> float | None:
    """Cohen's kappa with quadratic weights (Cohen 1968): 1 less the disagreement over that of chance.

    Of two grades it is the plain one (Cohen 1960). None where chance disagrees never: all grades are one.
    """
    if not pairs:
        return None
    observed = sum((one - other) ** 2 for one, other in pairs) / len(pairs)
    ones, others = [one for one, _ in pairs], [other for _, other in pairs]
    by_chance = (
        sum(
            ones.count(one) * others.count(other) * (one - other) ** 2
            for one in range(best + 1)
            for other in range(best + 1)
        )
        / len(pairs) ** 2
    )
    return 1 - observed / by_chance if by_chance else None


def _graded(path: str, spec: JudgeMetric, judge: Judge, dev: Sequence[Row], coerce: Coerce) -> list[Graded]:
    assert spec.calibration is not None
    answers = []
    for row in dev:
        values = row.graded or {}
        written = values.get(spec.calibration.grade)
        if written is None or written == "":
            continue
        grade = _grade(written, best_grade(spec), f"{path}.calibration.grade", row)
        answer = values.get(spec.calibration.answer)
        where = f"{path}.calibration.answer"
        try:
            answers.append(Graded(row, _answer(answer, judge.fields, coerce), grade))
        except ValueError as error:
            raise RunFailed(Reason.INVALID_METRIC, f"{row.place}: {error}", path=where) from None
    if len({graded.grade for graded in answers}) < 2:
        message = f"{len(answers)} dev rows have a grade, and they need at least two different ones"
        raise RunFailed(Reason.INVALID_METRIC, message, path=f"{path}.calibration.grade")
    return answers


def _answer(value: object, fields: Sequence[str], coerce: Coerce) -> dict[str, object]:
    if len(fields) == 1:
        return {fields[0]: coerce(fields[0], value)}
    if not isinstance(value, Mapping) or set(value) != set(fields):
        raise ValueError(f"an answer is an object of {', '.join(fields)}")
    return {name: coerce(name, value[name]) for name in fields}


def _grade(written: Any, best: int, path: str, row: Row) -> int:
    text = written.strip() if isinstance(written, str) else written
    grade = int(text) if isinstance(text, str) and text.isdecimal() else text
    if isinstance(grade, bool) or not isinstance(grade, int) or not 0 <= grade <= best:
        message = f"{row.place}: {written!r} is no whole number from 0 to {best}"
        raise RunFailed(Reason.INVALID_METRIC, message, path=path)
    return grade
