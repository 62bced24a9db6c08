"""A run of a graph with one lookup, on the harness's rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.integration.harness import Case
from tests.unit.graphs import a_field, a_step

LABEL = 'Literal["positive", "negative"]'


def a_graph(url: str) -> dict[str, Any]:
    """Five calls a row at most, and as many lookups as it has texts: one."""
    return {
        "inputs": [a_field("text")],
        "nodes": {
            "context": {
                "retrieve": {"http": {"url": url, "timeout": "5s"}, "topK": 2},
                "inputs": {"query": "inputs.text"},
            },
            "views": a_step({"text": "inputs.text"}, a_field("parts", "list[str]"), asks="Take the text apart."),
            "task": {"template": {"text": "Text:\n{text}"}, "inputs": {"text": "inputs.text"}},
            "mood": a_step({"text": "task.text", "part": "item"}, a_field("mood"), asks="Name the mood of the part.")
            | {"forEach": "views.parts", "maxItems": 2},
            "verdict": a_step(
                {"text": "inputs.text", "moods": "mood.mood", "context": "context.passages"},
                a_field("label", LABEL),
                asks="Classify the text.",
                types={"moods": "list[str]", "context": "list[str]"},
            ),
        },
        "output": {"label": "verdict.label"},
    }


def graph_case(optimizer: Mapping[str, Any], search: str = "", **more: Any) -> Case:
    """The harness's rows, answered by a graph; only its last step has a right answer. Without a URL to search at nothing is looked up."""
    graph = a_graph(search)
    if not search:
        del graph["nodes"]["context"]
        verdict = graph["nodes"]["verdict"]
        verdict["predict"]["signature"]["inputs"].pop()
        del verdict["inputs"]["context"]
    program = {"program": {"type": "Graph", "graph": graph}}
    return GraphCase(optimizer, program=program, **{"dev": 12, "test": 6} | more)


class GraphCase(Case):
    """The server's right answers are of the last step."""

    def answers(self) -> dict[str, Any]:
        return {text: {"label": label} for text, label in super().answers().items()}
