"""Which tools a run must not call. Pure; operator and runner refuse alike."""

from __future__ import annotations

from collections.abc import Sequence

from dspy_operator.api.program import Tool

_WHY = "a run calls its tools again and again, also for answers that nobody reads; write effects: Safe where that changes nothing"


def unsafe_tool(tools: Sequence[Tool]) -> tuple[str, str] | None:
    """Path of the first tool whose calls change something, and why a run cannot have it; None where there is none."""
    for index, tool in enumerate(tools):
        if tool.effects == "Unsafe":
            path = f"spec.program.single.module.react.tools[{index}].effects"
            return path, f'the tool "{tool.name}" is Unsafe: {_WHY}'
    return None
