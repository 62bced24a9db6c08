"""Whether an endpoint holds an answer to a JSON schema, and keeps the order of its fields: one call tells.

An endpoint may take `response_format` and do nothing with it, or sort the fields: then `label` is decided before `reasoning`
is written, and demonstrations show another order than the answers have.
"""

from __future__ import annotations

import json
from typing import Any

MESSAGES = [{"role": "user", "content": "In one sentence: why is the sky blue?"}]
"""Asks for prose: an answer that keeps to the schema has it from constrained decoding alone."""
FIELDS = {"mood": ["calm", "loud"], "zone": ["north", "south"], "area": ["large", "small"]}
"""In an order that no sorting gives; choices only, so that an answer is about 20 tokens."""
RESPONSE_FORMAT: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": "outputs",
        "schema": {
            "type": "object",
            "properties": {name: {"type": "string", "enum": choices} for name, choices in FIELDS.items()},
            "required": list(FIELDS),
            "additionalProperties": False,
        },
        "strict": True,
    },
}


def why_not(answer: str) -> str | None:
    """Why the answer to the probe shows that schemas cannot be relied on; None where it keeps to the schema."""
    shown = repr(" ".join(answer.split())[:120])
    try:
        pairs = json.loads(answer, object_pairs_hook=list)
    except ValueError:
        return f"does not keep to a JSON schema: {shown}"
    names = [pair[0] for pair in pairs if isinstance(pair, tuple)] if isinstance(pairs, list) else []
    if sorted(names) != sorted(FIELDS) or any(value not in FIELDS[name] for name, value in pairs):
        return f"does not keep to a JSON schema: {shown}"
    if names != list(FIELDS):
        return f"writes the fields of a schema in another order: {', '.join(names)} instead of {', '.join(FIELDS)}"
    return None
