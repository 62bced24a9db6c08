"""A run of a ReAct with one tool, on the harness's rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.integration.harness import Case, Workplace, workplace
from tests.integration.tool_server import Answers, ToolServer, tool_server

BUDGET = {"calls": 4000}


def react(url: str, *, max_iters: int = 3, **tool: Any) -> dict[str, Any]:
    """`spec.program` with a tool at a URL."""
    lookup = {
        "name": "lookup",
        "description": "Says what is known about a thing.",
        "arguments": [{"name": "thing", "type": "str", "description": "Which thing."}],
        "http": {"url": f"{url}/lookup"},
    }
    return {
        "type": "Single",
        "single": {
            "signature": {
                "instructions": "Classify the text.",
                "inputs": [{"name": "text", "type": "str"}],
                "outputs": [{"name": "label", "type": 'Literal["positive", "negative"]'}],
            },
            "module": {"type": "ReAct", "react": {"tools": [{**lookup, **tool}], "maxIters": max_iters}},
        },
    }


def react_case(
    optimizer: Mapping[str, Any], url: str, *, program: Mapping[str, Any] | None = None, **more: Any
) -> Case:
    """The harness's case with that program."""
    return Case(optimizer, program={"program": react(url), **(program or {})}, **{"budget": BUDGET, **more})


@contextmanager
def react_workplace(
    folder: Path, optimizer: Mapping[str, Any], answers: Answers | None = None, **more: Any
) -> Iterator[tuple[Workplace, ToolServer]]:
    """A workplace with a counting server for the model, and one for the tool."""
    with tool_server(answers) as tools, workplace(folder, react_case(optimizer, tools.url, **more)) as place:
        yield place, tools
