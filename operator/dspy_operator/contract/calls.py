"""How many calls one row costs, known from the program before any is made. Pure; operator and runner count alike."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dspy_operator.api.metric import Metric
from dspy_operator.api.program import GraphNode, ModuleType, Program


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


NONE = Calls(0, 0)
ONE = Calls(1, 1)


def row_calls(program: Program) -> Calls:
    """Calls in the task role for one answer of a program to one row, what its modules ask by themselves included."""
    if program.graph is not None:
        return sum((_times(node) for node in program.graph.nodes.values() if node.predict is not None), NONE)
    single = program.single
    assert single is not None
    if single.repeat is not None:
        # How many attempts a row takes is the reward's to say: half of them is within a factor of two for up to three.
        most = single.repeat.attempts
        usual = most // 2 + 1
        if single.module_type is ModuleType.REFINE:  # between two attempts the model gives advice
            return Calls(2 * usual - 1, 2 * most - 1)
        return Calls(usual, most)
    if single.module_type is ModuleType.MULTI_CHAIN_COMPARISON:
        return Calls(single.chains + 1, single.chains + 1)
    return ONE


def _times(node: GraphNode) -> Calls:
    """How often a step asks. Of a repeated one half of the most is usual: how long lists are is not known before."""
    most = node.max_items or 1
    return Calls(math.ceil(most / 2), most)


def scored_row_calls(program: Program, metric: Metric) -> Calls:
    """Calls in all roles for one answer to one row and its score."""
    return row_calls(program)
