"""How often a row is asked where the model samples: one answer says little about a program that answers otherwise next time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dspy_operator.api.fields import decimal
from dspy_operator.api.promptprogram import SamplingRequest

DEFAULT_REPEATS = 3
"""Above temperature 0. What each number does to p: docs/results.md."""
LEADING = 3
"""Programs that are asked anew before one of them is chosen, those that lead on dev."""
COMPARES: Mapping[str, bool] = {
    "BootstrapFewShotWithRandomSearch": True,
    "MIPROv2": True,
    "GEPA": True,
    "InferRules": True,
    "COPRO": False,
    "SIMBA": False,
}
"""Optimizers that choose one of the programs that they scored -> whether by the validation rows alone, or by all of dev."""


def chooses(optimizer: str) -> bool:
    """Whether an optimizer of this type chooses between programs that it scored; Stages does, whatever they are."""
    return optimizer == "Stages" or optimizer in COMPARES


def by_validation(optimizers: Iterable[str]) -> bool:
    """Whether these, one or the stages, compare on the validation rows alone."""
    return any(COMPARES.get(each) for each in optimizers)


def repeats_of(written: int | None, request: SamplingRequest) -> int:
    """Answers to each row.

    Args:
        written: `spec.repeats`.
        request: of the task role; without a temperature it is 0.
    """
    if request.temperature is None or decimal(request.temperature) == 0:
        return 1
    return DEFAULT_REPEATS if written is None else written


def choice_calls(optimizer: str, rows: int, calls_per_row: int, repeats: int) -> int:
    """Calls of the choice between the programs that lead; 0 where the model does not sample, or nothing is chosen.

    Args:
        optimizer: its type.
        rows: those that it compares programs on.
        calls_per_row: the most that one answer and its score cost.
        repeats: answers to each row.
    """
    return LEADING * rows * calls_per_row * repeats if repeats > 1 and chooses(optimizer) else 0
