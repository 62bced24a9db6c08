"""The metric: one score from 0 to 1 for one answer, in the three shapes that DSPy's optimizers ask for it.

DSPy takes any non-zero value as good when it bootstraps; GEPA goes on after a metric that raises or gives NaN, MIPROv2
after None. So nothing reaches them from here but a finite number from 0 to 1, or the end of the run.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from dspy_operator.api.fields import decimal
from dspy_operator.api.metric import Metric
from dspy_operator.api.signature_types import TypeExpr, comparable
from dspy_operator.contract.canonical import row_digest
from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.runner.code import Function
from dspy_operator.runner.metrics import measure_of
from dspy_operator.runner.metrics.code import BrokenMetric
from dspy_operator.runner.metrics.composite import Composite
from dspy_operator.runner.metrics.feedback import InvalidTemplate, Template
from dspy_operator.runner.metrics.judge import Ask, Judge
from dspy_operator.runner.metrics.shape import NoVerdict, Opinion
from dspy_operator.runner.rows import Row, example_key
from dspy_operator.runner.stop import RunStop

_PATH = "spec.metric"
_RIGHT = "right."
CHECKED_ROWS = 3
NEVER_A_DEMONSTRATION = -1.0
UNDECIDED = 0.5
"""What an answer without a verdict is worth to an optimizer, which averages over all rows and knows no gap: neither good
nor bad, and alike for every candidate. Never a demonstration, and no part of a score that is reported."""


@dataclass(frozen=True)
class Assessment:
    """What there is to say of one answer."""

    score: float
    """0 to 1; UNDECIDED where there is no verdict."""
    feedback: str
    undecided: bool = False
    """A judge gave no verdict."""


class ScoredMetric:
    """A metric that gives a score, or ends the run: never None, NaN or an exception that an optimizer could swallow.

    What is right is for `spec.type` to say (package `metrics`). An answer that lacks a field which the metric looks at
    cannot be used: it scores 0 as a whole.

    Args:
        spec: the program's metric.
        outputs: output fields of the signature, which the metric may name.
        told: row digest -> what the column of `spec.feedback` says; a row that is not there gets the metric's own words.
        types: of the outputs, where known: datetimes of one moment are equal, however they are written.
        inputs: input fields of the signature that a judge is shown.
        code: path in the program -> function of one's own.
        beside: what a prediction holds beside the outputs, with a value that means nothing; for scoring labels.
        place_of: where the row with a digest stands, for messages.
        ask: what a judge is asked with; without it no answer can be scored by one.
    Raises:
        RunFailed: InvalidMetric when a field is no output, or a pattern or template is wrong.
    """

    def __init__(
        self,
        spec: Metric,
        outputs: Sequence[str],
        told: Mapping[str, str] | None = None,
        types: Mapping[str, TypeExpr] = MappingProxyType({}),
        inputs: Sequence[str] = (),
        code: Mapping[str, Function] = MappingProxyType({}),
        beside: Mapping[str, object] = MappingProxyType({}),
        place_of: Callable[[str], str | None] = lambda _: None,
        ask: Ask | None = None,
    ) -> None:
        self.measure = measure_of(spec, outputs, _PATH, inputs, code, ask)
        self.beside = beside
        self.place_of = place_of
        self.judges = bool(spec.judges)
        self.inputs = tuple(inputs)
        self.fields = self.measure.fields
        self.accept = float(decimal(spec.accept)) if spec.accept is not None else 1.0
        self._template = _template(spec, outputs)
        self._told = told or {}
        self._types = types

    @property
    def every_judge(self) -> list[Judge]:
        """In the order of `Metric.judges`."""
        measures = (
            [part.measure for part in self.measure.parts] if isinstance(self.measure, Composite) else [self.measure]
        )
        return [measure for measure in measures if isinstance(measure, Judge)]

    def score(self, gold: Mapping[str, object], predicted: Mapping[str, object]) -> float:
        """How good an answer is, 0 to 1; a field that it lacks makes it 0.

        Args:
            gold: inputs and outputs of the row.
        Raises:
            NoVerdict: a judge gave none.
            RunStop: InvalidMetric when a function raises, or gives what is no score.
        """
        return self._opinion(gold, predicted).score

    def feedback(self, gold: Mapping[str, object], predicted: Mapping[str, object], row: str | None = None) -> str:
        """What GEPA's reflection reads of an answer: the row's own words, the template's, or what was wrong with it.

        The last is a line for each wrong field, `label: expected "billing", got "bug"`, or `right.`

        Args:
            row: digest of the row, for what a column says of it.
        """
        return self.assess(gold, predicted, row).feedback

    def assess(self, gold: Mapping[str, object], predicted: Mapping[str, object], row: str | None = None) -> Assessment:
        """Score and feedback, for which a judge is asked once; also where it gives no verdict.

        Raises:
            RunStop: as `score`.
        """
        try:
            opinion = self._opinion(gold, predicted)
        except NoVerdict as error:
            return Assessment(UNDECIDED, str(error), undecided=True)
        return Assessment(opinion.score, self._feedback(gold, predicted, opinion, row))

    def accepts(self, score: float) -> bool:
        """Whether an answer of this score may become a demonstration."""
        return score >= self.accept

    def for_dspy(self, example: object, prediction: object, trace: object = None) -> float | bool:
        """DSPy's usual metric: the score; while bootstrapping (`trace` is given) whether it is accepted."""
        score = self.for_threshold(example, prediction, trace)
        return score if trace is None else self.accepts(score)

    def for_threshold(self, example: object, prediction: object, trace: object = None) -> float:
        """For optimizers that were given `metric_threshold`: always the score, which they compare themselves.

        An answer without a verdict is below every threshold while bootstrapping.
        """
        try:
            return self.score(_fields_of(example), _fields_of(prediction))
        except NoVerdict:
            return UNDECIDED if trace is None else NEVER_A_DEMONSTRATION

    def of_example(self, example: object, prediction: object, row: str) -> Assessment:
        """What there is to say of a dspy.Prediction for a dspy.Example, of the row with this digest."""
        return self.assess(_fields_of(example), _fields_of(prediction), row)

    def for_gepa(
        self, gold: object, pred: object, trace: object = None, pred_name: str | None = None, pred_trace: object = None
    ) -> Any:
        """GEPA's metric of five arguments: `dspy.Prediction(score=, feedback=)`.

        The score is the program's for every predictor: GEPA ignores another one.
        """
        row = example_key(gold) if self._told else None
        found = self.assess(_fields_of(gold), _fields_of(pred), row)
        dspy = importlib.import_module("dspy")
        return dspy.Prediction(score=found.score, feedback=found.feedback)

    def _opinion(self, gold: Mapping[str, object], predicted: Mapping[str, object]) -> Opinion:
        if any(field not in predicted for field in self.fields):
            return Opinion(0.0, self.measure.complaints(self._settled(gold), self._settled(predicted)))
        try:
            return self.measure.opinion(self._settled(gold), self._settled(predicted))
        except BrokenMetric as broken:  # left alone, an optimizer would score it 0
            place = self.place_of(row_digest(gold))
            message = f"the row of {place}: {broken}" if place is not None else str(broken)
            raise RunStop(Reason.INVALID_METRIC, message, path=broken.path) from broken

    def _settled(self, values: Mapping[str, object]) -> Mapping[str, object]:
        """Datetimes in one form, so that equal moments compare as equal."""
        return {
            name: comparable(self._types[name], value) if name in self._types else value
            for name, value in values.items()
        }

    def _feedback(
        self, gold: Mapping[str, object], predicted: Mapping[str, object], opinion: Opinion, row: str | None
    ) -> str:
        if row is not None and row in self._told:
            return self._told[row]
        if self._template is not None:
            return self._template.render(gold, predicted, opinion.score)
        if opinion.said is not None:
            return opinion.said
        if opinion.score == 1:
            return _RIGHT
        return "\n".join(opinion.complaints) or f"scored {opinion.score:.2g} of 1."


@runtime_checkable
class _Fields(Protocol):
    """What dict, dspy.Example and dspy.Prediction have in common."""

    def keys(self) -> Iterable[str]: ...

    def __getitem__(self, name: str, /) -> object: ...


def check_metric(metric: ScoredMetric, rows: Sequence[Row]) -> None:
    """Look at every label, and score the first 3 rows' own, so that a broken metric costs no call. The scores need not be 1.

    A judge is not asked.

    Raises:
        RunFailed: InvalidMetric with the row's line and what the metric did, or cannot do with it.
    """
    for row in rows:
        if (refused := metric.measure.refusal(row.outputs)) is not None:
            path, why = refused
            raise RunFailed(Reason.INVALID_METRIC, f"{row.place}: {why}", path=path)
    for row in () if metric.judges else rows[:CHECKED_ROWS]:
        try:
            metric.score({**row.inputs, **row.outputs}, {**metric.beside, **row.outputs})
        except RunStop as stop:
            raise RunFailed(stop.reason, stop.message, path=stop.path) from stop


def _template(spec: Metric, outputs: Sequence[str]) -> Template | None:
    if spec.feedback is None or spec.feedback.template is None:
        return None
    try:
        return Template(spec.feedback.template, outputs)
    except InvalidTemplate as error:
        raise RunFailed(Reason.INVALID_METRIC, str(error), path=f"{_PATH}.feedback.template") from None


def _fields_of(source: object) -> Mapping[str, object]:
    """The fields of a dict, dspy.Example or dspy.Prediction as JSON; anything else (None, FailedPrediction) answers nothing."""
    values = importlib.import_module("dspy_operator.runner.values")
    return {name: values.plain(source[name]) for name in source.keys()} if isinstance(source, _Fields) else {}  # noqa: SIM118
