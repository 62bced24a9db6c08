"""How many calls one row costs, known from the program before any is made. Pure; operator and runner count alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from dspy_operator.api.graph import steps_before
from dspy_operator.api.metric import JudgeMetric, Metric
from dspy_operator.api.program import GraphNode, ModuleType, Program, RepeatOptions
from dspy_operator.contract.runspec import RunSpec


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
REACT_MAX_ITERS = 20
"""Of dspy.ReAct, where `maxIters` is unset."""
REACT_USUAL_ROUNDS = 3
"""Two calls of a tool, and the one that says that it is done."""


def row_calls(program: Program) -> Calls:
    """Calls for one answer of a program to one row, what its modules ask by themselves included, and who rewards it."""
    if program.graph is not None:
        return sum((_times(node) for node in program.graph.nodes.values() if node.predict is not None), NONE)
    if program.code is not None:
        calls = program.code.calls or 1
        return Calls(calls, calls)
    single = program.single
    assert single is not None
    if single.repeat is not None:
        attempts = _attempts(single.repeat)
        if single.module_type is ModuleType.REFINE:  # between two attempts the model gives advice
            attempts = Calls(2 * attempts.usual - 1, 2 * attempts.most - 1)
        return attempts + reward_calls(program)
    if single.module_type is ModuleType.MULTI_CHAIN_COMPARISON:
        return Calls(single.chains + 1, single.chains + 1)
    module = single.module
    if module is not None and module.react is not None:
        rounds = module.react.max_iters or REACT_MAX_ITERS
        # Each round is a thought; the outputs are one call more. What a context cuts short is asked again: no program is built for that.
        return Calls(usual=min(REACT_USUAL_ROUNDS, rounds) + 1, most=rounds + 1)
    return ONE


def least_row_calls(program: Program) -> int:
    """Calls that one answer certainly takes: 1, or 0 where code may know it without a model, or every step may have an empty list.

    Not one for each step: what another program asked in the same words at temperature 0 replays.
    """
    if program.graph is not None:
        return int(any(node.predict and node.max_items is None for node in program.graph.nodes.values()))
    return 0 if program.code is not None else 1


def reward_calls(program: Program) -> Calls:
    """Those of them in the judge role: one for each attempt, where the reward is a judge."""
    repeat = program.single.repeat if program.single is not None else None
    return _attempts(repeat) if repeat is not None and repeat.reward.judge is not None else NONE


def _attempts(repeat: RepeatOptions) -> Calls:
    # How many attempts a row takes is the reward's to say: half of them is within a factor of two for up to three.
    return Calls(repeat.attempts // 2 + 1, repeat.attempts)


def _times(node: GraphNode) -> Calls:
    """How often a step asks. Of a repeated one half of the most is usual: how long lists are is not known before."""
    most = node.max_items or 1
    return Calls(math.ceil(most / 2), most)


def judge_calls(metric: Metric) -> Calls:
    """Calls in the judge role for the score of one answer.

    A judge that is asked again, since its reply holds no grade, is like a request that is sent again: nobody reserves for it.
    """
    votes = sum(map(votes_of, metric.judges.values()))
    return Calls(votes, votes)


def votes_of(judge: JudgeMetric) -> int:
    """Calls of one judge about one answer."""
    return (judge.votes or 1) * (2 if judge.pairwise else 1)


def least_calibration_calls(metric: Metric) -> int:
    """Calls that calibrations cost at least, where nobody has counted the graded rows: grades that are all alike are refused."""
    return sum(2 * votes_of(judge) for judge in metric.judges.values() if judge.calibration is not None)


def scored_row_calls(program: Program, metric: Metric) -> Calls:
    """Calls in all roles for one answer to one row and its score."""
    return row_calls(program) + judge_calls(metric)


def changed_row_calls(program: Program, metric: Metric) -> int:
    """Usual calls for one answer and its score where one predictor was changed: the steps that it does not reach replay.

    The mean over the predictors, rounded up.
    """
    if program.graph is None:
        return scored_row_calls(program, metric).usual
    nodes = program.graph.nodes
    asks = {name: _times(node).usual for name, node in nodes.items() if node.predict is not None}
    calls = [sum(asks.get(step, 0) for step in _reached(name, nodes)) for name in asks]
    return math.ceil(sum(calls) / len(calls)) + judge_calls(metric).usual


def _reached(name: str, nodes: Mapping[str, GraphNode]) -> set[str]:
    """A step, and those that wait for it."""
    found: set[str] = set()
    left = {name}
    while left:
        found |= left
        left = {other for other, node in nodes.items() if steps_before(node) & left} - found
    return found


def preflight_calls(spec: RunSpec) -> int:
    """One answer and its score, and a word from each endpoint that has no part in them."""
    asked = {"task", "judge"}
    words = {(of.name, of.model) for of in spec.endpoints.values()}
    words -= {(of.name, of.model) for role, of in spec.endpoints.items() if role in asked}
    return scored_row_calls(spec.program.program, spec.program.metric).most + len(words)
