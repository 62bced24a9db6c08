"""Graphs as a user would write them, for tests."""

from __future__ import annotations

import copy
from typing import Any

from dspy_operator.api.program import Program

Document = dict[str, Any]


def a_field(name: str, type_: str = "str", description: str | None = None) -> Document:
    """A field of a signature."""
    return {"name": name, "type": type_} | ({"description": description} if description is not None else {})


def a_step(inputs: Document, *outputs: Document, asks: str = "Do it.", types: Document | None = None) -> Document:
    """A node that asks the model; its inputs are texts unless `types` says otherwise."""
    fields = [a_field(name, (types or {}).get(name, "str")) for name in inputs]
    signature = {"instructions": asks, "inputs": fields, "outputs": list(outputs)}
    return {"predict": {"signature": signature}, "inputs": inputs}


SUMMARIES: Document = {
    "inputs": [a_field("question"), a_field("papers", "list[str]", "what was found")],
    "nodes": {
        "topic": a_step({"question": "inputs.question"}, a_field("topic"), asks="Name the topic."),
        "note": a_step({"topic": "topic.topic", "paper": "item"}, a_field("text"), asks="Sum the paper up.")
        | {"forEach": "inputs.papers", "maxItems": 3},
        "answer": a_step(
            {"question": "inputs.question", "notes": "note.text"},
            a_field("answer"),
            asks="Answer the question.",
            types={"notes": "list[str]"},
        ),
    },
    "output": {"answer": "answer.answer", "topic": "topic.topic"},
}
"""Three steps, one of them for each paper."""
SUMMARIES["nodes"]["answer"]["predict"]["module"] = {"type": "ChainOfThought"}


def a_graph(graph: Document = SUMMARIES, **changes: Any) -> Program:
    """A program of that graph, with changes by dotted path; None removes."""
    document = copy.deepcopy(graph)
    for path, value in changes.items():
        *parents, last = path.split("__")
        inside = document
        for parent in parents:
            inside = inside[int(parent)] if isinstance(inside, list) else inside.setdefault(parent, {})
        if value is None:
            del inside[last]
        elif isinstance(inside, list):
            inside[int(last)] = value
        else:
            inside[last] = value
    return Program.model_validate({"type": "Graph", "graph": document})
