"""How many calls one row costs, for every shape of a program."""

from __future__ import annotations

from typing import Any

import pytest

from dspy_operator.api.metric import Metric
from dspy_operator.api.optimizationrun import OPTIONS
from dspy_operator.api.program import Program
from dspy_operator.contract.calls import Calls, changed_row_calls, least_row_calls, row_calls, scored_row_calls
from dspy_operator.runner.optimizers import OPTIMIZERS
from dspy_operator.runner.optimizers.shape import Sizes
from tests.integration.coded import code_program
from tests.unit.graphs import SUMMARIES

SIGNATURE = {
    "instructions": "Classify.",
    "inputs": [{"name": "text", "type": "str"}],
    "outputs": [{"name": "label", "type": "str"}],
}


def asked(module: str, **options: Any) -> dict[str, Any]:
    return {"type": "Single", "single": {"signature": SIGNATURE, "module": {"type": module, **options}}}


def attempts(most: int) -> dict[str, Any]:
    reward = {"type": "Regex", "regex": {"field": "label", "pattern": "a"}}
    return {"attempts": most, "threshold": "1", "reward": reward}


TOOL = {"name": "look_up", "description": "Says what is known.", "http": {"url": "http://127.0.0.1:9/"}}
COSTS: dict[str, tuple[dict[str, Any], Calls]] = {
    "Predict": ({"type": "Single", "single": {"signature": SIGNATURE}}, Calls(1, 1)),
    "ChainOfThought": (asked("ChainOfThought"), Calls(1, 1)),
    "a graph": ({"type": "Graph", "graph": SUMMARIES}, Calls(4, 5)),
    "BestOfN of 1": (asked("BestOfN", bestOfN=attempts(1)), Calls(1, 1)),
    "BestOfN of 3": (asked("BestOfN", bestOfN=attempts(3)), Calls(2, 3)),
    "BestOfN of 8": (asked("BestOfN", bestOfN=attempts(8)), Calls(5, 8)),
    "Refine of 1": (asked("Refine", refine=attempts(1)), Calls(1, 1)),
    "Refine of 3": (asked("Refine", refine=attempts(3)), Calls(3, 5)),
    "MultiChainComparison": (asked("MultiChainComparison"), Calls(4, 4)),
    "MultiChainComparison of 5": (asked("MultiChainComparison", multiChainComparison={"m": 5}), Calls(6, 6)),
    "ReAct": (
        {"type": "Single", "single": {"signature": SIGNATURE, "module": {"type": "ReAct", "react": {"tools": [TOOL]}}}},
        Calls(4, 21),
    ),
    "ReAct that calls once": (
        {
            "type": "Single",
            "single": {
                "signature": SIGNATURE,
                "module": {"type": "ReAct", "react": {"tools": [TOOL], "maxIters": 1}},
            },
        },
        Calls(2, 2),
    ),
}


def repeated_alone() -> dict[str, Any]:
    nodes = {"note": {**SUMMARIES["nodes"]["note"], "inputs": {"topic": "inputs.question", "paper": "item"}}}
    return {"type": "Graph", "graph": {**SUMMARIES, "nodes": nodes, "output": {"notes": "note.text"}}}


@pytest.mark.parametrize("shape", COSTS)
def test_calls_of_one_row(shape: str) -> None:
    program, want = COSTS[shape]
    assert row_calls(Program.model_validate(program)) == want


@pytest.mark.parametrize(
    ("program", "want"),
    [
        pytest.param(COSTS["Predict"][0], 1, id="one signature"),
        pytest.param(COSTS["BestOfN of 8"][0], 1, id="attempts: the first may do"),
        pytest.param(COSTS["a graph"][0], 1, id="a graph: steps may be asked what they were asked before"),
        pytest.param(repeated_alone(), 0, id="a graph whose only step has a list to go through"),
        pytest.param(code_program(), 0, id="code: it may know the answer"),
    ],
)
def test_calls_that_one_row_takes_at_least(program: dict[str, Any], want: int) -> None:
    assert least_row_calls(Program.model_validate(program)) == want


def test_a_scored_row_costs_a_call_more_for_each_vote() -> None:
    program = Program.model_validate(COSTS["Predict"][0])
    judge = {"type": "Judge", "judge": {"instructions": "Is it right?"}}
    votes = {"type": "Judge", "judge": {"instructions": "Is it right?", "votes": 3}}
    for spec, want in (
        ({"type": "ExactMatch"}, 1),
        (judge, 2),
        (votes, 4),
        ({"type": "Judge", "judge": {"instructions": "Is it right?", "votes": 3, "pairwise": True}}, 7),
        ({"type": "Composite", "composite": {"parts": [{"metric": judge}, {"metric": votes}]}}, 5),
    ):
        assert scored_row_calls(program, Metric.model_validate(spec)) == Calls(want, want)


def test_a_changed_step_costs_itself_and_what_waits_for_it() -> None:
    def step(**inputs: str) -> dict[str, Any]:
        fields = [{"name": name, "type": "str"} for name in inputs]
        signature = {"instructions": "Do it.", "inputs": fields, "outputs": [{"name": "said", "type": "str"}]}
        return {"predict": {"signature": signature}, "inputs": inputs}

    graph = {
        "inputs": [{"name": "text", "type": "str"}],
        "nodes": {
            "first": step(text="inputs.text"),
            "shown": {"template": {"text": "It says {said}."}, "inputs": {"said": "first.said"}},
            "other": step(text="inputs.text"),
            "last": step(one="shown.text", two="other.said"),
        },
        "output": {"said": "last.said"},
    }
    chain, right = (
        Program.model_validate({"type": "Graph", "graph": graph}),
        Metric.model_validate({"type": "ExactMatch"}),
    )
    assert row_calls(chain).usual == 3
    assert changed_row_calls(chain, right) == 2  # 2, 2 and 1, rounded up
    single = Program.model_validate(COSTS["Refine of 3"][0])
    assert changed_row_calls(single, right) == row_calls(single).usual


def test_copro_pays_for_no_program_twice() -> None:
    copro, options = OPTIMIZERS["COPRO"], OPTIONS["COPRO"].model_validate({"breadth": 3, "depth": 2})

    def calls(**more: int) -> int:
        sizes = Sizes(10, 10, 20, **more)
        return copro.calls(copro.counts(options, sizes, None), sizes)

    assert calls() == 5 + (3 * 2 - 1) * 20
    assert calls(predictors=2, calls_per_row=2) == 2 * 5 + (2 * (3 + 6) - 2 * 2) * 20 * 2
    assert calls(predictors=2, calls_per_row=2, calls_per_change=1) == 2 * 5 + (2 * (3 + 6) - 2 * 2) * 20


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_estimates_grow_with_what_a_row_costs(name: str) -> None:
    """By no more than the factor: proposals cost what they cost."""
    optimizer, options = OPTIMIZERS[name], OPTIONS[name]()

    def calls(per_row: int) -> int:
        sizes = Sizes(40, 40, 80, calls_per_row=per_row)
        return optimizer.calls(optimizer.counts(options, sizes, None), sizes)

    one, four = calls(1), calls(4)
    assert one < four <= 4 * one or one == four == 0
