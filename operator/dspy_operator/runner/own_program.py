"""A program of somebody's own, made whole: what is no answer of it ends the run, with its file and line.

DSPy's optimizers score 0 where a program raises, and go on: a mistake in code would look like a bad prompt.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from typing import Any

import dspy
from dspy.utils.exceptions import DSPyError

from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.runner.attempts import losing_rows
from dspy_operator.runner.code import said
from dspy_operator.runner.own_source import OwnText
from dspy_operator.runner.stop import RunStop


def make_own(program: Any, build: Callable[..., Any], own: OwnText, source: str) -> None:
    """Put right the class of a `program.py` that has somebody's module in it.

    Args:
        program: its class Program.
        build: what gives the module.
        own: what somebody wrote.
        source: of program.py.
    """
    made, answer = program.__init__, program.forward

    @functools.wraps(made)
    def checked(self: Any) -> None:
        try:
            made(self)
        except (Exception, SystemExit) as error:  # whatever somebody's code raises
            message = f"{_where(error, own, source)} raised {said(error)}"
            raise RunFailed(Reason.INVALID_PROGRAM, message, path=own.path) from error
        if (why := _why_not(self.program)) is not None:
            message = f"{own.function} gives {why}"
            raise RunFailed(Reason.INVALID_PROGRAM, message, path=f"{own.path}.entrypoint")

    @functools.wraps(answer)
    def answered(self: Any, **inputs: Any) -> Any:
        try:
            with losing_rows():
                prediction = answer(self, **inputs)
        except (DSPyError, UnicodeEncodeError):  # an answer that cannot be read, or never came: no mistake of the code
            raise
        except (Exception, SystemExit) as error:
            message = f"{_where(error, own, source)} raised {said(error)}"
            raise RunStop(Reason.INVALID_PROGRAM, message, path=own.path) from error
        if not isinstance(prediction, dspy.Prediction):
            message = f"the module gave a {type(prediction).__name__}, not a dspy.Prediction"
            raise RunStop(Reason.INVALID_PROGRAM, message, path=own.path)
        if missing := [name for name in own.outputs if name not in prediction.keys()]:  # noqa: SIM118  # it is no mapping
            message = (
                f"the module's prediction has no {missing[0]} (it has: {', '.join(prediction.keys()) or 'nothing'})"
            )
            raise RunStop(Reason.INVALID_PROGRAM, message, path=f"{own.path}.outputs")
        return prediction

    program.__init__, program.forward = checked, answered


def _why_not(module: Any) -> str | None:
    """What is wrong with what was built, or None."""
    if not isinstance(module, dspy.Module):
        return f"a {type(module).__name__}, not a dspy.Module"
    if not module.predictors():
        return "a module without a dspy.Predict in it: there is nothing to ask a model"
    if not callable(getattr(module, "forward", None)):
        own = ", ".join(name for name, made in vars(type(module)).items() if callable(made) and name[0] != "_")
        return f"a {type(module).__name__} without the method forward (its own methods: {own or 'none'})"
    return None


def _where(error: BaseException, own: OwnText, source: str) -> str:
    """The last line of somebody's text that an error came through: `program.py, line 7, in forward`."""
    if not own.file or own.text not in source:
        return own.function
    before, lines = source[: source.index(own.text)].count("\n"), own.text.count("\n") + 1
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.endswith("/program.py") and frame.lineno and before < frame.lineno <= before + lines
    ]
    return f"{own.file}, line {(frames[-1].lineno or 0) - before}, in {frames[-1].name}" if frames else own.file
