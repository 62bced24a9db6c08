"""How many calls one row costs, known from the program before any is made. Pure; operator and runner count alike."""

from __future__ import annotations

from dataclasses import dataclass

from dspy_operator.api.metric import Metric
from dspy_operator.api.program import Program


@dataclass(frozen=True)
class Calls:
    """Calls for one row."""

    usual: int
    """What estimates and the sizes of an optimization count with."""
    most: int
    """What a reserve must be able to pay."""

    def __add__(self, other: Calls) -> Calls:
        """One after the other."""
        return Calls(self.usual + other.usual, self.most + other.most)


ONE = Calls(1, 1)


def row_calls(program: Program) -> Calls:
    """Calls in the task role for one answer of a program to one row, what its modules ask by themselves included."""
    assert program.single is not None
    return ONE


def scored_row_calls(program: Program, metric: Metric) -> Calls:
    """Calls in all roles for one answer to one row and its score."""
    return row_calls(program)
