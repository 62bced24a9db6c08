"""`type: Auto` and `constrained: Auto`: which adapter a program gets, decided before its rows are asked. Pure; decision 010.

Measured on small models (docs/results.md, and the models' own pages agree): held to a JSON schema they answer best; asked for
JSON in words alone, they answer worst; the sections of Chat are between the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from dspy_operator.api.object_types import ProgramTypes, program_types
from dspy_operator.api.program import Program
from dspy_operator.api.promptprogram import Adapter
from dspy_operator.api.signature_types import MEDIA, DictOf, History, ListOf, Object, OneOf, TypeExpr
from dspy_operator.contract.calls import row_calls
from dspy_operator.contract.runspec import ProgramPart, RunSpec

AskedRole = Literal["task", "prompt"]
"""Roles that are asked in the program's adapter."""


def is_open(adapter: Adapter | None) -> bool:
    """Whether the endpoints have a say: `constrained: Auto` where a schema could be sent."""
    if adapter is None or adapter.type in ("Chat", "XML"):
        return False
    return adapter.constrained in (None, "Auto")  # unset with type Auto alone


def concrete(part: ProgramPart, *, keeps_schema: bool = False) -> Adapter | None:
    """The adapter that a program is asked in, with nothing left to choose.

    Args:
        part: its program, types and adapter as written.
        keeps_schema: what the endpoints showed; False where they were not asked, as in `validate`.
    """
    adapter = part.adapter
    if adapter is None or adapter.type == "Chat":
        return None
    if adapter.type == "XML":
        return Adapter(type="XML")
    constrained = "Required" if adapter.constrained == "Required" or (keeps_schema and is_open(adapter)) else "Disabled"
    kind = adapter.type if adapter.type != "Auto" else _kind(part, constrained=constrained == "Required")
    return Adapter.model_validate({"type": kind} if kind == "Chat" else {"type": kind, "constrained": constrained})


def asked_endpoints(spec: RunSpec) -> dict[tuple[str, str], AskedRole]:
    """(name, model) -> the role in which each endpoint is asked whether it keeps a schema; none where nothing is open."""
    if not is_open(spec.program.adapter):
        return {}
    found: dict[tuple[str, str], AskedRole] = {}
    roles: tuple[AskedRole, ...] = ("task", "prompt")
    for role in roles:
        if (endpoint := spec.endpoints.get(role)) is not None:
            found.setdefault((endpoint.name, endpoint.model), role)
    return found


def probe_calls(spec: RunSpec) -> int:
    """Most calls that are spent on finding out: one for each endpoint, and an answer to the first row that is of no use."""
    asked = asked_endpoints(spec)
    return len(asked) + row_calls(spec.program.program).most if asked else 0


def _kind(part: ProgramPart, *, constrained: bool) -> str:
    """With objects in answers BAML, which says types shortest, but where it cannot take an input; else JSON for a schema, or Chat."""
    known = program_types(part.program, part.types)
    graph = known.graph.fields if known.graph is not None else {}
    if not any(map(_has_object, _answers(part.program, known))):
        return "JSON" if constrained else "Chat"
    every = (type_ for fields in (known.fields, *graph.values()) for type_ in fields.values())
    return "JSON" if any(isinstance(type_, (*MEDIA, History)) for type_ in every) else "BAML"


def _answers(program: Program, known: ProgramTypes) -> Iterator[TypeExpr]:
    """The types that the model answers with."""
    if program.single is not None:
        yield from (
            known.fields[field.name] for field in program.single.signature.outputs if field.name in known.fields
        )
    if program.code is not None:  # what its steps answer with nobody knows
        yield from (known.fields[field.name] for field in program.code.outputs if field.name in known.fields)
    if program.graph is None or known.graph is None:
        return
    for name, node in program.graph.nodes.items():
        if node.predict is not None:
            fields = known.graph.fields[name]
            yield from (fields[field.name] for field in node.predict.signature.outputs if field.name in fields)


def _has_object(type_: TypeExpr) -> bool:
    match type_:
        case Object():
            return True
        case ListOf(inner) | DictOf(inner):
            return _has_object(inner)
        case OneOf(members=members):
            return any(map(_has_object, members))
    return False
