"""Reads what a request asks for: which output fields, of which types, in which format, for which row.

Knows the prompts of DSPy 3.4's ChatAdapter, JSONAdapter, XMLAdapter and BAMLAdapter (dspy/adapters/*.py, `format_*`), OpenAI's
`response_format`, GEPA's reflection prompt (gepa/strategies/instruction_proposal.py), and what our judge is asked.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tests.counting_server import baml
from tests.counting_server.hashing import digest

Schema = Mapping[str, Any]

_OUTPUTS = "Your output fields are:\n"
_STRUCTURE = "All interactions will be structured in the following way"
_OBJECTIVE = "your objective is:"
_JUDGE = ("You grade an answer by this rubric", "You compare two answers by this rubric")
_REMINDERS = (
    "Respond with the corresponding output fields, starting with the field",
    "Respond with a JSON object in the following order of fields:",
    "Respond with the corresponding output fields wrapped in XML tags",
)
_FIELD = re.compile(r"^\d+\. `(\w+)` \((.*?)\):", re.MULTILINE)
_NOTE = re.compile(r"\{(\w+)\}\s+# note: the value you produce (.*)$", re.MULTILINE)
_SCALARS: Mapping[str, Schema] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
}


class Style(StrEnum):
    """The format an answer has to have."""

    CHAT = "chat"
    JSON = "json"
    XML = "xml"
    FENCED = "fenced"
    """A new instruction within ``` blocks (GEPA's reflection)."""
    JUDGE = "judge"
    """A reason and a grade, or which of two is better (our own metric Judge)."""
    TEXT = "text"


@dataclass(frozen=True, kw_only=True)
class Field:
    """One wanted output: its name and the JSON schema its value has to satisfy."""

    name: str
    schema: Schema


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request, understood."""

    style: Style
    fields: tuple[Field, ...]
    definitions: Schema
    """The `$defs` that the schemas of `fields` refer to."""
    row: str
    """The last message without the reminder of the format: what differs from row to row."""
    instructions: str
    demos: int
    demos_hash: str


def read(body: Mapping[str, Any]) -> Asked:
    """What `body`, an OpenAI chat completion request, asks for."""
    messages = [(str(message.get("role", "")), text_of(message.get("content"))) for message in body["messages"]]
    system = "\n".join(text for role, text in messages if role in ("system", "developer"))
    turns = [(role, text) for role, text in messages if role not in ("system", "developer")]
    last = turns[-1][1] if turns else ""
    schema = _response_schema(body.get("response_format"))
    fields = tuple(_fields_of_schema(schema)) if schema else tuple(_fields_of_prompt(system))
    if system.startswith(_JUDGE):
        # Asked again, the judge is shown its reply and what was wrong with it; what it judges is in the first turn.
        return Asked(
            style=Style.JUDGE,
            fields=(),
            definitions={},
            row=turns[0][1],
            instructions=system,
            demos=0,
            demos_hash="",
        )
    return Asked(
        style=_style(body.get("response_format"), system, last, fields),
        fields=fields,
        definitions=schema.get("$defs", {}) if schema else {},
        row=_without_reminder(last),
        instructions=" ".join(system.rpartition(_OBJECTIVE)[2].split()),
        demos=sum(role == "assistant" for role, _ in turns[:-1]),
        demos_hash=digest(*(part for turn in turns[:-1] for part in turn)),
    )


def text_of(content: object) -> str:
    """The text of a message's content, which is a string or a list of parts."""
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) if isinstance(part, dict) else str(part) for part in content)
    return content if isinstance(content, str) else ""


def input_value(row: str, name: str) -> str:
    """The value of the input field `name` in a row that ChatAdapter or JSONAdapter wrote; "" if it has none."""
    found = re.search(rf"^\[\[ ## {re.escape(name)} ## \]\]\n(.*?)(?=^\[\[ ## |\Z)", row, re.MULTILINE | re.DOTALL)
    return found.group(1).strip() if found else ""


def _style(response_format: object, system: str, last: str, fields: tuple[Field, ...]) -> Style:
    if isinstance(response_format, dict) and response_format.get("type") in ("json_object", "json_schema"):
        return Style.JSON
    if not fields:
        return Style.FENCED if "```" in last and "instruction" in last else Style.TEXT
    if _REMINDERS[1] in last:
        return Style.JSON
    if "[[ ## completed ## ]]" in system:
        return Style.CHAT
    return Style.JSON if "Outputs will be a JSON object" in system else Style.XML


def _without_reminder(last: str) -> str:
    starts = [last.rfind(reminder) for reminder in _REMINDERS if reminder in last]
    return last[: max(starts)].strip() if starts else last.strip()


def _response_schema(response_format: object) -> Schema | None:
    if not isinstance(response_format, dict) or response_format.get("type") != "json_schema":
        return None
    schema = response_format.get("json_schema", {}).get("schema")
    return schema if isinstance(schema, dict) else None


def _fields_of_schema(schema: Schema) -> list[Field]:
    return [Field(name=name, schema=property_) for name, property_ in schema.get("properties", {}).items()]


def _fields_of_prompt(system: str) -> list[Field]:
    described = system.partition(_OUTPUTS)[2].partition(_STRUCTURE)[0]
    notes = {name: _unquoted(note) for name, note in _NOTE.findall(system)}
    written = baml.schemas(system)
    return [
        Field(name=name, schema=written[name] if name in written else _schema(type_, notes.get(name, "")))
        for name, type_ in _FIELD.findall(described)
    ]


def _schema(type_: str, note: str) -> Schema:
    """The JSON schema of a field from the two places where DSPy describes it; a string if it is not understood."""
    if type_ in _SCALARS:
        return _SCALARS[type_]
    if type_.startswith("Literal["):
        try:
            return {"enum": list(ast.literal_eval(type_.removeprefix("Literal")))}
        except (ValueError, SyntaxError):
            pass  # a literal that holds "):": the note has the values too
    if "JSON schema: " in note:
        schema = json.loads(note.partition("JSON schema: ")[2])
        return schema if isinstance(schema, dict) else {}
    if "one of: " in note:
        return {"enum": note.partition("one of: ")[2].split("; ")}
    if type_.startswith("list["):  # XMLAdapter writes no note here
        return {"type": "array", "items": _schema(type_[len("list[") : -1], "")}
    if type_.startswith("dict["):
        return {"type": "object"}
    return {"type": "string"}


def _unquoted(note: str) -> str:
    """JSONAdapter shows its example object as JSON, so that a note there is the inside of a JSON string."""
    line = note.rstrip()
    inside = line.removesuffix(",").removesuffix('"')
    if inside == line:
        return line
    try:
        return str(json.loads(f'"{inside}"'))
    except json.JSONDecodeError:
        return line
