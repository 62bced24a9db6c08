"""Code: a function of one's own, called as DSPy calls a metric."""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.runner.code import Broken, Function, reason_of, score_of
from dspy_operator.runner.metrics.shape import Fields, Opinion, shown, unanswered

_SCORES = "a number from 0 to 1, a bool, or dspy.Prediction(score=, feedback=)"


class BrokenMetric(Exception):
    """A function of somebody's own did not give a score."""

    def __init__(self, message: str, path: str) -> None:
        super().__init__(message)
        self.path = path
        """Of the field that names it."""


class Code:
    """`(example, prediction, trace=None)` -> a number from 0 to 1, a bool, or dspy.Prediction(score=, feedback=).

    Example and prediction hold JSON, as rows do (docs/decisions/008-values-are-json.md), and are copies. `trace` is always
    None: which answers become demonstrations is for `accept` to say. What is no score is not taken for one, neither clamped
    nor 0: the run ends.

    Args:
        function: None where it was not looked at.
        fields: outputs of the program; an answer that lacks one is not shown to the function, and scores 0.
    Raises:
        RunFailed: InvalidMetric where it cannot be called as a metric.
    """

    def __init__(self, function: Function | None, fields: tuple[str, ...]) -> None:
        self.fields = fields
        self._function = function
        self._arguments = _arguments(function) if function is not None else 0

    def opinion(self, gold: Fields, predicted: Fields) -> Opinion:
        """What the function says.

        Raises:
            BrokenMetric: it raised, or gave what is no score.
        """
        function = self._function
        assert function is not None
        dspy = importlib.import_module("dspy")
        inputs = [name for name in gold if name not in self.fields]
        example = dspy.Example(**copy.deepcopy(dict(gold))).with_inputs(*inputs)
        prediction = dspy.Prediction(**copy.deepcopy(dict(predicted)))
        more = (None,) * (self._arguments - 2)
        try:
            # What a metric asks a model is no step of the program: no demonstration, and nothing that is counted as its answer.
            with dspy.context(trace=[], callbacks=[]):
                given = function(example, prediction, *more)
            return _opinion(given)
        except Broken as broken:
            raise BrokenMetric(str(broken), function.path) from broken
        except ValueError as error:
            raise BrokenMetric(f"{function.name} gave {error}, not {_SCORES}", function.path) from None

    def complaints(self, gold: Fields, predicted: Fields) -> Iterator[str]:
        """What the answer lacks; the function is not asked."""
        return unanswered(self.fields, predicted)

    def refusal(self, gold: Fields) -> tuple[str, str] | None:
        """None: what the function can do with a label it shows itself."""
        return None


def _arguments(function: Function) -> int:
    """How many it takes: three, as DSPy's metrics, five, as GEPA's, or the first two."""
    call: Callable[..., Any] = function.call
    path = f"{function.path}.entrypoint"
    if inspect.iscoroutinefunction(call):
        raise RunFailed(reason_of(path), f'"{function.name}" is async: a metric is a plain function', path=path)
    try:
        signature = inspect.signature(call)
    except ValueError:  # of some that are written in C
        return 3
    for arguments in (3, 5, 2):
        try:
            signature.bind(*range(arguments))
        except TypeError:
            continue
        return arguments
    message = f'"{function.name}{signature}" cannot be called as a metric: (example, prediction, trace=None)'
    raise RunFailed(Reason.INVALID_METRIC, message, path=path)


def _opinion(given: object) -> Opinion:
    """What a function gave, as an opinion.

    Raises:
        ValueError: it is no score; the message is what it is.
    """
    feedback = None
    dspy = importlib.import_module("dspy")
    if isinstance(given, (dspy.Prediction, Mapping)):
        fields = given if isinstance(given, Mapping) else given.toDict()
        if "score" not in fields:
            raise ValueError(f"a prediction without a score ({shown(fields)})")
        given, feedback = fields["score"], fields.get("feedback")
        if feedback is not None and not isinstance(feedback, str):
            raise ValueError(f"feedback that is no text ({shown(feedback)})")
    if (score := score_of(given)) is None:
        raise ValueError(shown(given))
    return Opinion(score, [feedback] if feedback else [], said=feedback)
