"""A program of several steps in a cluster: validated, served, and its calls counted before a run begins."""

from __future__ import annotations

from typing import Any

from tests.integration.operator.manifests import a_dataset, a_program, a_run, an_endpoint
from tests.integration.operator.namespace import Namespace
from tests.unit.graphs import a_field, a_step

LABEL = 'Literal["billing", "bug"]'
GRAPH: dict[str, Any] = {
    "inputs": [a_field("ticket")],
    "nodes": {
        "wish": a_step({"ticket": "inputs.ticket"}, a_field("wish"), asks="Say what the customer wants."),
        "known": {
            "retrieve": {"http": {"url": "http://search.example/known"}, "topK": 3},
            "inputs": {"query": "wish.wish"},
        },
        "verdict": a_step(
            {"ticket": "inputs.ticket", "known": "known.passages"},
            a_field("label", LABEL),
            asks="Classify the ticket.",
            types={"known": "list[str]"},
        ),
    },
    "output": {"label": "verdict.label"},
}


def test_a_graph_is_validated_and_a_budget_that_cannot_pay_its_steps_is_refused(namespace: Namespace) -> None:
    program = a_program(program={"type": "Graph", "graph": GRAPH})
    namespace.apply(an_endpoint(), a_dataset(), program, a_run(budget={"calls": 241}))
    namespace.condition("PromptProgram", "triage", "Ready", "True")
    told = namespace.condition("OptimizationRun", "fast", "Accepted", "False", "BudgetTooSmall")
    assert told["message"] == (
        "spec.budget.calls: 242 calls are needed (judgement 240: 60 test rows x 2 programs x 2 calls; preflight 2), given 241"
    )
