"""The types of a program's fields, all together: named types in terms of each other, and signatures in terms of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dspy_operator.api.graph import Graph, understood
from dspy_operator.api.objects import Problem
from dspy_operator.api.program import ObjectType, Program, SignatureField
from dspy_operator.api.signature_types import (
    MEDIA,
    DictOf,
    History,
    ListOf,
    Member,
    Object,
    OneOf,
    Scalar,
    TypeExpr,
    TypeSyntaxError,
    parse_type,
)

MOST_NESTED = 5
"""Most named types inside each other: beyond that, models lose the thread and constrained decoding its patience."""

Path = tuple[str | int, ...]
_SIGNATURE: Path = ("spec", "program", "single", "signature")
_CODE: Path = ("spec", "program", "code")
_TOOLS: Path = ("spec", "program", "single", "module", "react", "tools")


@dataclass(frozen=True)
class ProgramTypes:
    """What the texts of a program's types mean."""

    objects: Mapping[str, Object]
    """The named types, each after those that it names."""
    fields: Mapping[str, TypeExpr]
    """Of the program: the inputs, then the outputs. A field whose type is wrong is not there."""
    problems: tuple[Problem, ...]
    """What is wrong, with the path of the type and the position in it."""
    tools: Mapping[str, Mapping[str, TypeExpr]]
    """Tool of a ReAct -> the types of its arguments."""
    graph: Graph | None = None
    """What a program of type Graph means."""

    @property
    def every(self) -> Iterator[TypeExpr]:
        """The types of all fields: of the program, of the steps of a graph, of the named types, of a tool's arguments."""
        yield from self.fields.values()
        for fields in self.graph.fields.values() if self.graph is not None else ():
            yield from fields.values()
        yield from self.objects.values()
        for arguments in self.tools.values():
            yield from arguments.values()


def program_types(program: Program, types: Mapping[str, ObjectType] | None) -> ProgramTypes:
    """The types of a program: of its signature, of the steps of a graph, or those that code declares.

    Args:
        program: as written.
        types: `spec.types`.
    """
    # A cluster does not keep the order of a map, and program.py is the same everywhere.
    objects, problems = _objects(dict(sorted((types or {}).items())))
    if program.graph is not None:
        graph = understood(program.graph, objects)
        return ProgramTypes(objects, {**graph.inputs, **graph.outputs}, (*problems, *graph.problems), {}, graph)
    if program.code is not None:
        taken = dict(_fields((*_CODE, "inputs"), program.code.inputs, objects, problems))
        given = dict(_fields((*_CODE, "outputs"), program.code.outputs, objects, problems))
        for index, field in enumerate(program.code.inputs):
            if isinstance(taken.get(field.name), History):  # its turns are those of one signature, and code has several
                message = '"History" at 0 is for a program of one signature; declare list[dict[str, str]]'
                problems.append(Problem((*_CODE, "inputs", index, "type"), message))
        return ProgramTypes(objects, taken | given, tuple(problems), {})
    single = program.single
    assert single is not None
    inputs = dict(_fields((*_SIGNATURE, "inputs"), single.signature.inputs, objects, problems))
    outputs = dict(_fields((*_SIGNATURE, "outputs"), single.signature.outputs, objects, problems))
    tools = {
        tool.name: dict(_fields((*_TOOLS, index, "arguments"), tool.arguments or [], objects, problems))
        for index, tool in enumerate(single.tools)
    }
    histories = [name for name, type_ in inputs.items() if isinstance(type_, History)]
    for name in histories[1:]:
        index = [field.name for field in single.signature.inputs].index(name)
        path = (*_SIGNATURE, "inputs", index, "type")
        problems.append(Problem(path, f'a signature has one History; "{histories[0]}" is one already'))
    if histories:
        turn = tuple((name, type_) for name, type_ in (inputs | outputs).items() if name not in histories)
        inputs[histories[0]] = History(turn, thought=single.thinks)
    return ProgramTypes(objects, inputs | outputs, tuple(problems), tools)


def _fields(
    side: Path, fields: list[SignatureField], objects: Mapping[str, Object], problems: list[Problem]
) -> Iterator[tuple[str, TypeExpr]]:
    for index, field in enumerate(fields):
        path = (*side, index, "type")
        try:
            type_ = parse_type(field.type, objects, is_input=side[-1] == "inputs")
        except TypeSyntaxError as error:
            problems.append(Problem(path, error.message))
            continue
        if side[-1] != "inputs" and isinstance(type_, (*MEDIA, History)):
            problems.append(Problem(path, f'"{type_.render()}" at 0 is for inputs only: no model answers with one'))
            continue
        yield field.name, type_


def _objects(types: Mapping[str, ObjectType]) -> tuple[dict[str, Object], list[Problem]]:
    """The named types, and what is wrong with them. One that is wrong is known by its name all the same."""
    problems: list[Problem] = []
    names = {name: Object(name, ()) for name in types}
    references: dict[str, list[tuple[str, int, str]]] = {name: [] for name in types}
    for name, object_type in types.items():
        for index, field in enumerate(object_type.fields):
            path: Path = ("spec", "types", name, "fields", index)
            try:
                type_ = parse_type(field.type, names, is_input=False)
            except TypeSyntaxError as error:
                problems.append(Problem((*path, "type"), error.message))
                continue
            if isinstance(type_, (*MEDIA, History)):
                message = f'"{type_.render()}" at 0 is for the inputs of a signature only'
                problems.append(Problem((*path, "type"), message))
            for bound in ("minimum", "maximum"):
                if getattr(field, bound) is not None and not _is_number(type_):
                    message = f'is for a field of type int or float, or one of them and None; "{field.name}" is {type_.render()}'
                    problems.append(Problem((*path, bound), message))
            references[name] += [(field.name, index, other) for other in sorted(_named(type_))]
    problems += _nesting(references)
    return (names if problems else _built(types, references)), problems


def _built(types: Mapping[str, ObjectType], references: Mapping[str, list[tuple[str, int, str]]]) -> dict[str, Object]:
    built: dict[str, Object] = {}

    def build(name: str) -> None:
        for *_, other in references[name]:
            if other not in built:
                build(other)
        built[name] = Object(
            name,
            tuple(
                Member(field.name, parse_type(field.type, built), field.minimum, field.maximum)
                for field in types[name].fields
            ),
        )

    for name in types:
        if name not in built:
            build(name)
    return built


def _nesting(references: Mapping[str, list[tuple[str, int, str]]]) -> Iterator[Problem]:
    """Each way in which a type holds itself, once; else the types that hold too many others inside each other."""
    heights: dict[str, int] = {}

    def visit(name: str, way: list[tuple[str, str, int]]) -> Iterator[Problem]:
        heights[name] = 0  # known before it is finished, so that a cycle is told once
        for field, index, other in references[name]:
            here = [*way, (name, field, index)]
            on_the_way = [each for each, *_ in here]
            if other in on_the_way:
                cycle = here[on_the_way.index(other) :]
                said = " -> ".join(f"{each}.{its}" for each, its, _ in cycle)
                path = ("spec", "types", name, "fields", index, "type")
                yield Problem(path, f'"{other}" holds itself: {said} -> {other}; a type may name others, not itself')
                continue
            if other not in heights:
                yield from visit(other, here)
            heights[name] = max(heights[name], heights[other])
        heights[name] += 1
        if heights[name] == MOST_NESTED + 1:
            yield Problem(
                ("spec", "types", name),
                f'"{name}" is nested too deep; at most {MOST_NESTED} named types inside each other',
            )

    for name in references:
        if name not in heights:
            yield from visit(name, [])


def _named(type_: TypeExpr) -> set[str]:
    match type_:
        case Object(name):
            return {name}
        case ListOf(inner) | DictOf(inner):
            return _named(inner)
        case OneOf(members=members):
            return set().union(*map(_named, members))
    return set()


def _is_number(type_: TypeExpr) -> bool:
    if isinstance(type_, OneOf):
        return len(type_.members) == 1 and _is_number(type_.members[0])
    return isinstance(type_, Scalar) and type_.name in ("int", "float")
