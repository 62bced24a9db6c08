"""What `prompts.json` says of a ReAct beside its two predictors: how thoughts, tools and the outputs follow from each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dspy

from dspy_operator.api.program import Tool
from dspy_operator.runner.mcp import Tools as Listings

_LOOP = (
    "At most maxIters times: ask `think`, then call the tool that it names with its arguments; after finish no further time. "
    "Each time the trajectory grows by these fields, k counting from 0. Then ask `answer` with the trajectory."
)
_FIELDS = ("thought", "tool_name", "tool_args", "observation")
_PLACES = ("{{thought}}", "{{toolName}}", "{{toolArgs}}", "{{observation}}")
_TRAJECTORY = (
    "Rounds as `round` says, joined by an empty line; before the first it is empty. {k} counts from 0; thought, toolName and "
    "toolArgs are next_thought, next_tool_name and next_tool_args, the arguments rendered as json; observation is what the tool said."
)
_CALL = (
    "POST the arguments as a JSON object to the tool's url: all of them, null for one that was left out. The observation is the "
    "answer: a JSON string as its text, other JSON as json. Of finish it is Completed. Where there is no answer it is "
    "`Execution error in NAME: ` and why."
)
_CALL_MCP = (
    "A tool with `mcp`: the method tools/call of the Model Context Protocol, over streamable HTTP at that URL, with name and "
    "arguments. The observation is the answer's texts, a line for each. Of one with isError, and where there is no answer, it is "
    "`Execution error in NAME: ` and why."
)
HEADERS = "The server wants these headers. Their values are secrets of who asks, and are told nowhere."
_TOO_LONG = "A request that exceeds the context is asked again without the oldest four fields of the trajectory, twice."


def react_wiring(
    react: dspy.ReAct,
    adapter: dspy.Adapter,
    predictors: Sequence[str],
    tools: Sequence[Tool],
    headers: Mapping[str, Sequence[str]],
    listed: Listings,
) -> dict[str, Any]:
    """Who is asked when, and with what.

    Args:
        react: of the program.
        adapter: what `program.py` calls ADAPTER.
        predictors: the program's: the one that thinks, and the one that answers.
        tools: as written.
        headers: tool -> names of the headers that it wants.
        listed: MCP server -> its tools.
    """
    think, answer = predictors
    inputs = {field: field for field in react.signature.input_fields}
    return {
        "loop": _LOOP,
        "maxIters": react.max_iters,
        "think": {"predictor": think, "inputs": {**inputs, "trajectory": "trajectory"}},
        "tools": {
            name: {
                "mcp" if tool.mcp is not None else "url": tool.server.url,
                "arguments": react.tools[name].args,
                "effects": tool.effects or "Safe",
                **({"headers": list(headers[tool.name])} if tool.name in headers else {}),
            }
            for tool in tools
            for name in ([tool.name] if tool.mcp is None else [each.name for each in listed[tool.name]])
        },
        **({"call": _CALL} if any(tool.http for tool in tools) else {}),
        **({"callMCP": _CALL_MCP} if any(tool.mcp for tool in tools) else {}),
        **({"headers": HEADERS} if headers else {}),
        "trajectory": {"round": _round(adapter, "{k}", _PLACES), "rule": _TRAJECTORY, "tooLong": _TOO_LONG},
        "answer": {
            "predictor": answer,
            "inputs": {**inputs, "trajectory": "trajectory"},
            "outputs": list(react.signature.output_fields),
        },
    }


def react_stand_ins(adapter: dspy.Adapter) -> tuple[dict[str, Any], dict[str, Any]]:
    """For vectors: an input and outputs that rows do not hold."""
    thought = {"next_thought": "Nothing more is needed.", "next_tool_name": "finish", "next_tool_args": {}}
    said = [thought["next_thought"], thought["next_tool_name"], thought["next_tool_args"], "Completed."]
    return {"trajectory": _round(adapter, "0", said)}, thought


def _round(adapter: dspy.Adapter, number: str, values: Sequence[Any]) -> str:
    """A trajectory of one round, as dspy/predict/react.py has it."""
    names = [f"{name}_0" for name in _FIELDS]
    shape = dspy.Signature(f"{', '.join(names)} -> x")
    text: str = adapter.format_user_message_content(shape, dict(zip(names, values, strict=True)))
    for name in _FIELDS:
        text = text.replace(f"{name}_0", f"{name}_{number}")
    return text
