"""Reads the types that DSPy's BAMLAdapter writes into a prompt (dspy/adapters/baml_adapter.py, `_render_type_str`)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

_FIELD = re.compile(r"^Output field `(\w+)` should be of type: (.*?)\n\n\[\[ ## ", re.MULTILINE | re.DOTALL)
_TOKEN = re.compile(r'\s+|#[^\n]*|"(?:[^"\\]|\\.)*"|\bor\b|-?\d+|\w+|\[\]|[\[\]{}:,]')
_NAMES: Mapping[str, Schema] = {
    "string": {"type": "string"},
    "int": {"type": "integer", "minimum": 1},  # the bounds of a field are not shown; most that are written begin here
    "float": {"type": "number"},
    "boolean": {"type": "boolean"},
    "null": {"type": "null"},
    "date": {"type": "string", "format": "date"},
    "datetime": {"type": "string", "format": "date-time"},
    "true": {"const": True},
    "false": {"const": False},
}


def schemas(system: str) -> dict[str, Schema]:
    """The JSON schema of each output field that the prompt describes so; none of another adapter's prompt."""
    return {name: _Types(text).union() for name, text in _FIELD.findall(system)}


class _Types:
    """A parser of one type's text."""

    def __init__(self, text: str) -> None:
        found = (token for token in _TOKEN.findall(text) if token.strip() and not token.startswith("#"))
        self._tokens = [*found, ""]

    def union(self) -> Schema:
        """A or B."""
        options = [self._term()]
        while self._accept("or"):
            options.append(self._term())
        constants = [option["const"] for option in options if "const" in option]
        if len(constants) == len(options) > 1:
            return {"enum": constants}
        others = [option for option in options if "const" not in option]
        return options[0] if len(options) == 1 else {"anyOf": [*([{"enum": constants}] if constants else []), *others]}

    def _term(self) -> Schema:
        schema = self._alone()
        while self._accept("[]"):
            schema = {"type": "array", "items": schema}
        return schema

    def _alone(self) -> Schema:
        token = self._tokens.pop(0)
        if token == "{":
            properties = {}
            while not self._accept("}"):
                name = self._tokens.pop(0)
                self._accept(":")
                properties[name] = self.union()
                self._accept(",")
            return {"type": "object", "properties": properties}
        if token == "[":
            item = self.union()
            self._accept("]")
            return {"type": "array", "items": item}
        if token == "dict":
            for expected in ("[", "string", ","):
                self._accept(expected)
            value = self.union()
            self._accept("]")
            return {"type": "object", "additionalProperties": value}
        if token.startswith('"') or token.lstrip("-").isdigit():
            return {"const": json.loads(token)}
        return _NAMES.get(token, {"type": "string"})

    def _accept(self, token: str) -> bool:
        if self._tokens[0] != token:
            return False
        self._tokens.pop(0)
        return True
