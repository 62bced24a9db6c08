"""The metric: one score from 0 to 1 for one answer, in the three shapes that DSPy's optimizers ask for it.

DSPy takes any non-zero value as good when it bootstraps; GEPA goes on after a metric that raises or gives NaN, MIPROv2
after None. So nothing reaches them from here but a finite number from 0 to 1, or the end of the run.
"""

from __future__ import annotations

import importlib
import json
import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from dspy_operator.api.fields import decimal
from dspy_operator.api.metric import Metric
from dspy_operator.api.signature_types import TypeExpr, comparable
from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.runner.rows import Row
from dspy_operator.runner.stop import RunStop

MetricFunction = Callable[[Mapping[str, object], Mapping[str, object]], object]
"""(gold outputs, predicted outputs) -> score."""

_PATH = "spec.metric"
_RIGHT = "right."
_CHECKED_ROWS = 3
_SHOWN_CHARACTERS = 1000


class ScoredMetric:
    """A metric that gives a score, or ends the run: never None, NaN or an exception that an optimizer could swallow.

    ExactMatch, per field: texts are equal but for white space around them; numbers by value (1 is 1.0), a bool only
    equals a bool; lists and objects item by item by the same rule. Case counts: applications compare labels with `==`.
    F1, per field: overlap of words after SQuAD's normalization (`dspy.evaluate.metrics.f1_score`), lists joined by
    spaces; where one side has no word left ("A" is an article), ExactMatch decides: DSPy would score a right "A" 0.
    The score is the mean over the fields. An answer that lacks one of them cannot be used: it scores 0 as a whole.

    Args:
        spec: the program's metric.
        outputs: output fields of the signature, which the metric may name.
        function: scores instead of `spec.type`; for metrics that are code.
        types: of the outputs, where known: datetimes of one moment are equal, however they are written.
    Raises:
        RunFailed: InvalidMetric when a field is no output.
    """

    def __init__(
        self,
        spec: Metric,
        outputs: Sequence[str],
        function: MetricFunction | None = None,
        types: Mapping[str, TypeExpr] = MappingProxyType({}),
    ) -> None:
        member, options = ("exactMatch", spec.exact_match) if spec.type == "ExactMatch" else ("f1", spec.f1)
        named = options.fields if options is not None else None
        for index, name in enumerate(named or ()):
            if name not in outputs:
                raise RunFailed(
                    Reason.INVALID_METRIC,
                    f'"{name}" is no output of the program (outputs: {", ".join(outputs)})',
                    path=f"{_PATH}.{member}.fields[{index}]",
                )
        self.fields: tuple[str, ...] = tuple(dict.fromkeys(named or outputs))
        self.accept = float(decimal(spec.accept)) if spec.accept is not None else 1.0
        self._of_field = _exact_match if spec.type == "ExactMatch" else _f1
        self._function = function
        self._types = types

    def score(self, gold: Mapping[str, object], predicted: Mapping[str, object]) -> float:
        """How good an answer is, 0 to 1; a field that it lacks makes it 0.

        Raises:
            RunStop: InvalidMetric when a function raises, or gives what is no finite number.
        """
        if any(field not in predicted for field in self.fields):
            return 0.0
        if self._function is not None:
            return _as_score(self._value(self._function, gold, predicted))
        gold, predicted = self._settled(gold), self._settled(predicted)
        return math.fsum(self._of_field(gold[field], predicted[field]) for field in self.fields) / len(self.fields)

    def feedback(self, gold: Mapping[str, object], predicted: Mapping[str, object]) -> str:
        """What was wrong with an answer, for GEPA's reflection: `label: expected "billing", got "bug"`, or `right.`"""
        return self._feedback(gold, predicted, self.score(gold, predicted))

    def accepts(self, score: float) -> bool:
        """Whether an answer of this score may become a demonstration."""
        return score >= self.accept

    def for_dspy(self, example: object, prediction: object, trace: object = None) -> float | bool:
        """DSPy's usual metric: the score; while bootstrapping (`trace` is given) whether it is accepted."""
        score = self.for_threshold(example, prediction)
        return score if trace is None else self.accepts(score)

    def for_threshold(self, example: object, prediction: object, trace: object = None) -> float:
        """For optimizers that were given `metric_threshold`: always the score, which they compare themselves."""
        return self.score(_fields_of(example), _fields_of(prediction))

    def for_gepa(
        self, gold: object, pred: object, trace: object = None, pred_name: str | None = None, pred_trace: object = None
    ) -> Any:
        """GEPA's metric of five arguments: `dspy.Prediction(score=, feedback=)`.

        The score is the program's for every predictor: GEPA ignores another one.
        """
        wanted, predicted = _fields_of(gold), _fields_of(pred)
        score = self.score(wanted, predicted)
        dspy = importlib.import_module("dspy")
        return dspy.Prediction(score=score, feedback=self._feedback(wanted, predicted, score))

    def _settled(self, values: Mapping[str, object]) -> Mapping[str, object]:
        """Datetimes in one form, so that equal moments compare as equal."""
        return {
            name: comparable(self._types[name], value) if name in self._types else value
            for name, value in values.items()
        }

    def _value(self, function: MetricFunction, gold: Mapping[str, object], predicted: Mapping[str, object]) -> object:
        try:
            return function(gold, predicted)
        except Exception as error:  # whatever a user's code raises; left alone, an optimizer would score it 0
            message = f"the metric raised {type(error).__name__}: {error}"
            raise RunStop(Reason.INVALID_METRIC, message, path=_PATH) from error

    def _feedback(self, gold: Mapping[str, object], predicted: Mapping[str, object], score: float) -> str:
        if score == 1:
            return _RIGHT
        gold, predicted = self._settled(gold), self._settled(predicted)
        wrong = [complaint for field in self.fields if (complaint := self._complaint(field, gold[field], predicted))]
        return "\n".join(wrong) or f"scored {score:.2g} of 1."

    def _complaint(self, field: str, wanted: object, predicted: Mapping[str, object]) -> str | None:
        if field not in predicted:
            return f"{field}: expected {_shown(wanted)}, got no answer that can be read"
        if self._of_field(wanted, predicted[field]) == 1:
            return None
        return f"{field}: expected {_shown(wanted)}, got {_shown(predicted[field])}"


@runtime_checkable
class _Fields(Protocol):
    """What dict, dspy.Example and dspy.Prediction have in common."""

    def keys(self) -> Iterable[str]: ...

    def __getitem__(self, name: str, /) -> object: ...


def check_metric(metric: ScoredMetric, rows: Sequence[Row]) -> None:
    """Score the first 3 rows' own labels, so that a broken metric costs no call. The scores need not be 1.

    Raises:
        RunFailed: InvalidMetric with the row's line and what the metric did.
    """
    for row in rows[:_CHECKED_ROWS]:
        try:
            metric.score(row.outputs, row.outputs)
        except RunStop as stop:
            raise RunFailed(stop.reason, f"line {row.line}: {stop.message}", path=stop.path) from stop


def _as_score(value: object) -> float:
    if not isinstance(value, numbers.Real):
        raise RunStop(Reason.INVALID_METRIC, f"the metric gave {_shown(value)}, not a number from 0 to 1", path=_PATH)
    score = float(value)
    if not math.isfinite(score):
        raise RunStop(Reason.INVALID_METRIC, f"the metric gave {score}, not a number from 0 to 1", path=_PATH)
    return min(1.0, max(0.0, score))


def _exact_match(gold: object, predicted: object) -> float:
    return float(_equal(gold, predicted))


def _equal(gold: object, predicted: object) -> bool:
    if isinstance(gold, str) and isinstance(predicted, str):
        return gold.strip() == predicted.strip()
    if isinstance(gold, bool) or isinstance(predicted, bool):
        return gold is predicted
    if isinstance(gold, (list, tuple)) and isinstance(predicted, (list, tuple)):
        return len(gold) == len(predicted) and all(map(_equal, gold, predicted))
    if isinstance(gold, Mapping) and isinstance(predicted, Mapping):
        return gold.keys() == predicted.keys() and all(_equal(gold[key], predicted[key]) for key in gold)
    return bool(gold == predicted)


def _f1(gold: object, predicted: object) -> float:
    metrics = importlib.import_module("dspy.evaluate.metrics")
    wanted, got = _words(gold), _words(predicted)
    if not metrics.normalize_text(wanted) or not metrics.normalize_text(got):
        return _exact_match(gold, predicted)
    return float(metrics.f1_score(got, wanted))


def _words(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(_words, value))
    if isinstance(value, Mapping):
        return " ".join(f"{key} {_words(item)}" for key, item in value.items())
    return str(value)


def _fields_of(source: object) -> Mapping[str, object]:
    """The fields of a dict, dspy.Example or dspy.Prediction as JSON; anything else (None, FailedPrediction) answers nothing."""
    values = importlib.import_module("dspy_operator.runner.values")
    return {name: values.plain(source[name]) for name in source.keys()} if isinstance(source, _Fields) else {}  # noqa: SIM118


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
