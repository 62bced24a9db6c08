"""Asks the run's judge: from whichever thread scores an answer, in its phase, through the Ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dspy
from dspy import lm15

from dspy_operator.runner.judge_source import ASK
from dspy_operator.runner.metrics.shape import NoVerdict
from dspy_operator.runner.program import LoadedProgram


def ask_judge(messages: Sequence[Mapping[str, str]], rollout: int | None) -> str:
    """The judge's reply.

    Which run and which phase it is asked in, the LM says that the thread's program was asked with: DSPy carries its
    settings into its pool's threads, and nothing else. It is asked beneath dspy.LM, whose callbacks count the answers of
    the task model, and whose trace becomes demonstrations.

    Raises:
        NoVerdict: this request can never be answered.
        RunStop: the phase has ended, or the request ended it.
    """
    asking = dspy.settings.lm.engine
    # A revision that is served may have a judge where the program of the run has none any more.
    judge = asking.ledger.lm("judge" if asking.ledger.plays("judge") else "task", asking.epoch)
    sampling = {name: value for name, value in judge.kwargs.items() if value is not None}
    request = lm15.request_from_openai_chat({"model": judge.model, "messages": list(messages), **sampling})
    try:
        with judge.engine.rollout(rollout):
            response = judge.engine.complete(request)
    except lm15.LM15Error as error:
        raise NoVerdict(f"the judge was not answered: {error}") from error
    return response.text or ""


def connect(program: LoadedProgram) -> None:
    """Let a program whose reward is a judge ask the judge of the run that it is in."""
    if hasattr(program.namespace, ASK):
        setattr(program.namespace, ASK, _asked_by_a_reward)


def _asked_by_a_reward(messages: list[dict[str, Any]]) -> str:
    return ask_judge(messages, None)
