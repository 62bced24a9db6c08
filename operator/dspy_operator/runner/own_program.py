"""A program of somebody's own, made whole: what is no answer of it ends the run, with its file and line.

DSPy's optimizers score 0 where a program raises, and go on: a mistake in code would look like a bad prompt.
"""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Callable, Collection
from types import FunctionType
from typing import Any

import dspy
from dspy.utils.exceptions import DSPyError

from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.runner.attempts import losing_rows
from dspy_operator.runner.code import said
from dspy_operator.runner.own_source import OwnText
from dspy_operator.runner.stop import RunStop
from dspy_operator.runner.values import input_fields


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
        if (why := _why_not(self.program, input_fields(self))) is not None:
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


def _why_not(module: Any, inputs: Collection[str]) -> str | None:
    """What is wrong with what was built, or None.

    Args:
        inputs: that the program declares, and `forward` is given by name.
    """
    if not isinstance(module, dspy.Module):
        return f"a {type(module).__name__}, not a dspy.Module"
    if not module.predictors():
        return "a module without a dspy.Predict in it: there is nothing to ask a model"
    # The class first: DSPy warns of whoever looks at an instance's.
    if not callable(getattr(type(module), "forward", None)) and not callable(getattr(module, "forward", None)):
        own = ", ".join(name for name, made in vars(type(module)).items() if callable(made) and name[0] != "_")
        return f"a {type(module).__name__} without the method forward (its own methods: {own or 'none'})"
    if (called := _called(module)) is not None and (why := _not_for(called, inputs)) is not None:
        taken = called.replace(
            parameters=[each.replace(annotation=each.empty) for each in called.parameters.values()],
            return_annotation=called.empty,
        )
        declared = ", ".join(inputs) or "none"
        return f"a {type(module).__name__} whose forward{taken} {why} (inputs of the program: {declared})"
    return None


def _called(module: Any) -> inspect.Signature | None:
    """What a call of the module has to fit; None where that is not certain.

    Of a decorated method the outermost function's, which is what Python binds: one that fills in an argument is made with
    functools.wraps, too, and the signature that this shows is of the function inside.
    """
    method = inspect.getattr_static(type(module), "forward", None)
    if (
        not isinstance(method, FunctionType)
        or hasattr(method, "__signature__")
        or "forward" in vars(module)
        or type(module).__call__ is not dspy.Module.__call__
    ):
        return None
    return inspect.signature(method, follow_wrapped=False)


def _not_for(called: inspect.Signature, inputs: Collection[str]) -> str | None:
    """Why a method cannot be called with these names, or None. Not by `Signature.bind`, which in Python 3.11 refuses some that can."""
    parameters = list(called.parameters.values())
    if parameters and parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL:
        first = parameters.pop(0)
        by_name = (first.KEYWORD_ONLY, first.VAR_KEYWORD)
        if first.kind in by_name or (first.kind is first.POSITIONAL_OR_KEYWORD and first.name in inputs):
            return "has no self"
    elif not parameters:
        return "has no self"
    takes = {each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}
    if not any(each.kind is each.VAR_KEYWORD for each in parameters):
        for name in inputs:
            if name not in takes:
                return f'does not take the input "{name}"{" by its name" if name in called.parameters else ""}'
    for each in parameters:
        is_open = each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD) or each.default is not each.empty
        if not is_open and (each.kind is each.POSITIONAL_ONLY or each.name not in inputs):
            given = "by position" if each.name in inputs else "which is no input of the program"
            return f'needs "{each.name}", {given}'
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
