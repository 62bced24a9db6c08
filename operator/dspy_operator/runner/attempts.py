"""What DSPy's BestOfN and Refine leave undone when optimizers run them: docs/decisions/014-attempts.md.

They let copies of their module answer and swallow what fails. Around the program's forward() three things are put right:
the trace names the program's own predictors, so that bootstraps find their demonstrations; a row on which every attempt
failed says why, where DSPy may answer None; and an attempt that the network lost is a lost row, not a worse answer.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError, DSPyError, LMError

from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.runner.code import Broken, Function, score_of
from dspy_operator.runner.metrics.judge import Silence
from dspy_operator.runner.metrics.shape import NoVerdict, shown
from dspy_operator.runner.stop import RunStop

HINT = "hint_"
"""Input in which Refine gives its advice; a demonstration must not hold it."""


@dataclass
class _Call:
    """One call of a program that makes attempts."""

    failed: Exception | None = None
    """Of the last attempt without an answer."""
    unanswered: Exception | None = None
    """A request that the endpoint never answered, while it answered others."""


_CALL: ContextVar[_Call | None] = ContextVar("attempts", default=None)
"""The call that this thread is in."""


def unanswered(error: Exception) -> None:
    """Tell the call that the thread is in, if any, of a request that was given up: DSPy would go on without it."""
    if (call := _CALL.get()) is not None:
        call.unanswered = error


@contextmanager
def losing_rows() -> Iterator[None]:
    """A call of a program, which fails where a request was given up, whatever the program made of that.

    Raises:
        Exception: what was given up.
    """
    call = _Call()
    within = _CALL.set(call)
    try:
        yield
    finally:
        _CALL.reset(within)
    if call.unanswered is not None:
        raise call.unanswered


def make_whole(program: Any, attempt: Any) -> None:
    """Put right the classes of a `program.py` that makes attempts.

    Args:
        program: its class Program.
        attempt: its class Attempt, of which BestOfN and Refine make copies.
    """
    ask, answer = attempt.forward, program.forward

    @functools.wraps(ask)
    def attempted(self: Any, **inputs: Any) -> Any:
        try:
            return ask(self, **inputs)
        except Exception as error:
            if (call := _CALL.get()) is not None:
                call.failed = error
            raise

    @functools.wraps(answer)
    def answered(self: Any, **inputs: Any) -> Any:
        call = _Call()
        within = _CALL.set(call)
        try:
            with dspy.context(trace=[]):
                prediction, trace = answer(self, **inputs), dspy.settings.trace
        except DSPyError as error:
            raise _as_own(self, call.unanswered or call.failed or error) from error
        except Exception as error:
            raise RunStop(Reason.INTERNAL_ERROR, f"an attempt could not be rewarded: {error!r}") from error
        finally:
            _CALL.reset(within)
        if call.unanswered is not None:
            raise call.unanswered
        if prediction is None:
            if call.failed is None:
                raise RunStop(Reason.INTERNAL_ERROR, "no attempt could be rewarded")
            raise _as_own(self, call.failed)
        _trace(self, trace)
        return prediction

    attempt.forward, program.forward = attempted, answered


def rewarding(reward: Callable[..., Any], path: str) -> Callable[[dict[str, Any], Any], float]:
    """A reward of somebody's own that gives a number from 0 to 1, or ends the run: DSPy takes one that raises for a failed attempt.

    Args:
        path: of the field that names it.
    """
    file = inspect.getsourcefile(reward) or ""
    function = Function(path, reward, reward.__name__, file, "")
    _check_arguments(function)

    @functools.wraps(reward)
    def rewarded(inputs: dict[str, Any], prediction: Any) -> float:
        try:
            with dspy.context(trace=[], callbacks=[]):
                given = function(inputs, prediction)
        except Broken as broken:
            raise RunStop(Reason.INVALID_PROGRAM, str(broken), path=path) from broken
        if (value := score_of(given)) is None:
            message = f"{function.name} gave {shown(given)}, not a number from 0 to 1 or a bool"
            raise RunStop(Reason.INVALID_PROGRAM, message, path=path)
        return value

    return rewarded


class Ungraded(LMError):  # type: ignore[misc]  # DSPy is untyped here
    """An attempt that a judge gave no verdict on; its row counts as undecided, not as wrong."""


def _check_arguments(function: Function) -> None:
    signature = inspect.signature(function.call)
    try:
        signature.bind({}, None)
    except TypeError:
        message = f'"{function.name}{signature}" cannot be called as a reward: (inputs, prediction)'
        raise RunFailed(Reason.INVALID_PROGRAM, message, path=f"{function.path}.entrypoint") from None


def graded(reward: Callable[..., float]) -> Callable[[dict[str, Any], Any], float]:
    """A judge's reward, whose missing verdict is known to the call: DSPy takes it for a failed attempt."""
    silence = Silence()

    @functools.wraps(reward)
    def rewarded(inputs: dict[str, Any], prediction: Any) -> float:
        try:
            value = reward(inputs, prediction)
        except (NoVerdict, ValueError) as error:
            silence.count(error)
            failure = Ungraded(str(error))
            unanswered(failure)
            raise failure from error
        silence.count(None)
        return value

    return rewarded


def _trace(program: Any, trace: list[Any]) -> None:
    """Hand on what the best attempt's predictor was asked and answered, as the program's own."""
    outer = dspy.settings.trace
    if outer is None or dspy.settings.max_trace_size <= 0:
        return
    (own,) = program.predictors()  # a Single program has one
    for _, inputs, outputs in trace:
        if len(outer) >= dspy.settings.max_trace_size:
            outer.pop(0)
        outer.append((own, {name: value for name, value in inputs.items() if name != HINT}, outputs))


def _as_own(program: Any, error: Exception) -> Exception:
    """An answer that cannot be read, as one of the program's own predictor: GEPA looks for its signature, without the hint."""
    if not isinstance(error, AdapterParseError):
        return error
    (own,) = program.predictors()
    found: Exception = AdapterParseError(
        error.adapter_name, own.signature, error.lm_response, parsed_result=error.parsed_result
    )
    return found
