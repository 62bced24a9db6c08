"""A graph of steps, understood: in which order they are done, what each takes and gives, and what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dspy_operator.api.objects import Problem
from dspy_operator.api.program import GraphNode, GraphProgram, SignatureField
from dspy_operator.api.signature_types import (
    MEDIA,
    Choice,
    DictOf,
    History,
    ListOf,
    Object,
    OneOf,
    Scalar,
    TypeExpr,
    TypeSyntaxError,
    parse_type,
)

GRAPH: tuple[str, ...] = ("spec", "program", "graph")
ITEM = "item"
"""The reference to the item that a repeated node is at."""
QUERY = "query"
"""The input of a node that retrieves."""
PASSAGES = "passages"
"""Its output."""
TEXT = "text"
"""The output of a node with a template."""
_TEXT = Scalar("str")
_FILLED_IN = OneOf((_TEXT, Scalar("int"), Scalar("float"), Scalar("bool"), ListOf(_TEXT)), nullable=False)
"""What a placeholder takes."""
_MARK = re.compile(r"\{\{|\}\}|\{(?P<name>[^{}]*)\}|[{}]")


@dataclass(frozen=True)
class Graph:
    """What a graph means. Where there are problems, only they count."""

    written: GraphProgram
    order: tuple[str, ...]
    """The nodes, each after those whose outputs it takes; among equals by name, since a cluster keeps no order."""
    inputs: Mapping[str, TypeExpr]
    """Of the program."""
    outputs: Mapping[str, TypeExpr]
    """Of the program, by name: a cluster keeps no order of a map."""
    fields: Mapping[str, Mapping[str, TypeExpr]]
    """Node that asks the model -> the fields of its signature: the inputs, then the outputs."""
    problems: tuple[Problem, ...]


def understood(graph: GraphProgram, objects: Mapping[str, Object]) -> Graph:
    """The graph with its references followed.

    Args:
        graph: as written.
        objects: the named types.
    """
    return _Reader(graph, objects).read()


def steps_before(node: GraphNode) -> set[str]:
    """The nodes that a node takes something of, whether they exist or not."""
    references = [*node.inputs.values(), *([node.for_each] if node.for_each else [])]
    return {owner for reference in references if (owner := reference.partition(".")[0]) not in ("inputs", ITEM)}


def fits(found: TypeExpr, wanted: TypeExpr) -> bool:
    """Whether each value of one type is one of the other."""
    match found, wanted:
        case OneOf(members, nullable), _:
            takes_none = isinstance(wanted, OneOf) and wanted.nullable
            return (takes_none or not nullable) and all(fits(member, wanted) for member in members)
        case _, OneOf(members=members):
            return any(fits(found, member) for member in members)
        case Choice(values), Choice(allowed):
            return {(type(value), value) for value in values} <= {(type(value), value) for value in allowed}
        case Choice(values), Scalar(name):
            return all(fits(Scalar(type(value).__name__), Scalar(name)) for value in values)  # type: ignore[arg-type]
        case Scalar("int"), Scalar("float"):
            return True
        case ListOf(item), ListOf(other):
            return fits(item, other)
        case DictOf(value), DictOf(other):
            return fits(value, other)
    return found == wanted


_Fields = dict[str, TypeExpr | None]
"""None: the type is wrong, which is told where it is written, or not known here."""


def _right(fields: _Fields) -> dict[str, TypeExpr]:
    return {name: type_ for name, type_ in fields.items() if type_ is not None}


class _Reader:
    def __init__(self, graph: GraphProgram, objects: Mapping[str, Object]) -> None:
        self._graph = graph
        self._objects = objects
        self._problems: list[Problem] = []
        self._nodes = dict(sorted(graph.nodes.items()))
        self._inputs = dict(self._parsed((*GRAPH, "inputs"), graph.inputs, outputs=False))
        self._takes: dict[str, _Fields] = {}
        self._gives: dict[str, _Fields] = {}

    def read(self) -> Graph:
        self._check_inputs()
        for name, node in self._nodes.items():
            self._takes[name], self._gives[name] = self._ends(name, node)
        for name, node in self._nodes.items():
            self._check_wiring(name, node)
        outputs = self._outputs()
        order = self._order()
        self._check_use()
        fields = {
            name: _right(self._takes[name] | self._gives[name])
            for name, node in self._nodes.items()
            if node.predict is not None
        }
        return Graph(self._graph, order, _right(self._inputs), outputs, fields, tuple(self._problems))

    def _say(self, path: tuple[str | int, ...], message: str) -> None:
        self._problems.append(Problem(path, message))

    def _parsed(
        self, path: tuple[str | int, ...], fields: list[SignatureField], *, outputs: bool
    ) -> Iterator[tuple[str, TypeExpr | None]]:
        for index, field in enumerate(fields):
            at = (*path, index, "type")
            type_: TypeExpr | None = None
            try:
                type_ = parse_type(field.type, self._objects, is_input=not outputs)
            except TypeSyntaxError as error:
                self._say(at, error.message)
            if isinstance(type_, History):
                self._say(
                    at, '"History" at 0 is for a program of type Single: its turns hold the fields of one signature'
                )
                type_ = None
            elif outputs and isinstance(type_, MEDIA):
                self._say(at, f'"{type_.render()}" at 0 is for inputs only: no model answers with one')
                type_ = None
            yield field.name, type_

    def _check_inputs(self) -> None:
        names = [field.name for field in self._graph.inputs]
        for index, name in enumerate(names):
            if name in names[:index]:
                self._say((*GRAPH, "inputs", index, "name"), f'input "{name}" is there twice')
            elif name in self._nodes:
                self._say((*GRAPH, "nodes", name), f'"{name}" is an input; a node needs a name of its own')

    def _ends(self, name: str, node: GraphNode) -> tuple[_Fields, _Fields]:
        """What one doing of a node takes and gives."""
        if node.template is not None:
            return dict.fromkeys(self._placeholders(name, node), _FILLED_IN), {TEXT: _TEXT}
        if node.predict is None:
            return {QUERY: _TEXT}, {PASSAGES: ListOf(_TEXT)}
        signature, path = node.predict.signature, (*GRAPH, "nodes", name, "predict", "signature")
        takes = dict(self._parsed((*path, "inputs"), signature.inputs, outputs=False))
        return takes, dict(self._parsed((*path, "outputs"), signature.outputs, outputs=True))

    def _placeholders(self, name: str, node: GraphNode) -> Iterator[str]:
        assert node.template is not None
        for mark in _MARK.finditer(node.template.text):
            if mark["name"] in node.inputs:
                yield mark["name"]
            elif mark[0] not in ("{{", "}}"):
                what = "lone brace" if mark["name"] is None else "unknown placeholder"
                allowed = ", ".join(f"{{{field}}}" for field in sorted(node.inputs))
                self._say(
                    (*GRAPH, "nodes", name, "template", "text"),
                    f"{what} {mark[0]} at {mark.start()}; allowed: {allowed}; {{{{ and }}}} are braces",
                )

    def _offered(self, name: str) -> _Fields:
        """What others may take of a node: a repeated one gives lists."""
        node, gives = self._nodes[name], self._gives[name]
        if node.predict is not None and node.predict.module and node.predict.module.type == "ChainOfThought":
            gives = {"reasoning": _TEXT, **gives}
        if node.for_each is None:
            return gives
        return {field: ListOf(type_) if type_ is not None else None for field, type_ in gives.items()}

    def _known(self, *, but: str | None = None, item: bool = False) -> _Fields:
        """Everything that can be referred to; of an item only its node knows the type."""
        known: _Fields = {f"inputs.{name}": type_ for name, type_ in self._inputs.items()}
        for name in self._nodes:
            if name != but:
                known |= {f"{name}.{field}": type_ for field, type_ in self._offered(name).items()}
        return known | ({ITEM: None} if item else {})

    def _check_wiring(self, name: str, node: GraphNode) -> None:
        path = (*GRAPH, "nodes", name)
        item = self._item(path, name, node)
        wanted = list(self._takes[name])
        for field in wanted:
            if field not in node.inputs:
                self._say((*path, "inputs"), f'nothing is said of input "{field}"; the node takes {", ".join(wanted)}')
        known = self._known(but=name, item=node.for_each is not None)
        for field, reference in sorted(node.inputs.items()):
            if field not in wanted:
                takes = ", ".join(wanted) or "none"
                self._say((*path, "inputs", field), f'"{field}" is no input of the node; it takes {takes}')
                continue
            self._check_reference((*path, "inputs", field), reference, known, self._takes[name].get(field), item)
        if node.for_each is not None and ITEM not in node.inputs.values():
            self._say((*path, "forEach"), f'no input is "{ITEM}": each time would be the same')

    def _item(self, path: tuple[str | int, ...], name: str, node: GraphNode) -> TypeExpr | None:
        """The type of what a node repeats over; None where it does not, or where that is wrong."""
        if node.for_each is None:
            return None
        at, known = (*path, "forEach"), self._known(but=name)
        if node.for_each not in known:
            self._unknown(at, node.for_each, {each for each, type_ in known.items() if isinstance(type_, ListOf)})
            return None
        found = known[node.for_each]
        if isinstance(found, ListOf):
            return found.item
        if found is not None:
            self._say(at, f'"{node.for_each}" is {found.render()}; forEach needs a list')
        return None

    def _check_reference(
        self,
        path: tuple[str | int, ...],
        reference: str,
        known: _Fields,
        wanted: TypeExpr | None,
        item: TypeExpr | None,
    ) -> None:
        if reference not in known:
            self._unknown(path, reference, set(known))
            return
        found = item if reference == ITEM else known[reference]
        if found is not None and wanted is not None and not fits(found, wanted):
            self._say(path, f'"{reference}" is {found.render()}; the input is {wanted.render()}')

    def _unknown(self, path: tuple[str | int, ...], reference: str, allowed: set[str]) -> None:
        owner, _, field = reference.partition(".")
        if reference == ITEM:
            why = f'"{ITEM}" is for the inputs of a node with forEach'
        elif owner in self._nodes and field in self._offered(owner):
            why = f'"{reference}" is of the node itself'
        elif owner == "inputs" or owner in self._nodes:
            why = f'"{reference}" does not exist'
        else:
            why = f'"{reference}" does not exist: there is no node "{owner}"'
        self._say(path, f"{why}; allowed: {', '.join(sorted(allowed)) or 'none'}")

    def _outputs(self) -> dict[str, TypeExpr]:
        known = {each: type_ for each, type_ in self._known().items() if not each.startswith("inputs.")}
        inputs = {field.name for field in self._graph.inputs}
        outputs = {}
        for name, reference in sorted(self._graph.output.items()):
            path = (*GRAPH, "output", name)
            if name in inputs:
                self._say(path, f'"{name}" is an input; inputs and outputs share one set of names')
            elif reference not in known:
                if reference.startswith("inputs."):
                    self._say(path, f'"{reference}" is no output of a node; allowed: {", ".join(sorted(known))}')
                else:
                    self._unknown(path, reference, set(known))
            elif (type_ := known[reference]) is not None:
                outputs[name] = type_
        return outputs

    def _order(self) -> tuple[str, ...]:
        waits = {name: steps_before(node) & self._nodes.keys() for name, node in self._nodes.items()}
        order: list[str] = []
        while ready := sorted(name for name, on in waits.items() if name not in order and on <= set(order)):
            order.append(ready[0])
        stuck = [name for name in waits if name not in order]
        if stuck:
            way = [stuck[0]]
            while way.count(way[-1]) < 2:
                way.append(min(waits[way[-1]] & set(stuck)))
            cycle = way[way.index(way[-1]) :]
            self._say((*GRAPH, "nodes", cycle[0], "inputs"), f"waits for itself: {' <- '.join(cycle)}")
        return tuple(order)

    def _check_use(self) -> None:
        used = {reference.partition(".")[0] for reference in self._graph.output.values()}
        waiting = list(used)
        while waiting:
            node = self._nodes.get(waiting.pop())
            for other in (steps_before(node) if node else set()) - used:
                used.add(other)
                waiting.append(other)
        for name in self._nodes:
            if name not in used:
                self._say(
                    (*GRAPH, "nodes", name), "no output comes from it, nor from what it leads to: remove it, or use it"
                )
        if not any(node.predict for node in self._nodes.values()):
            self._say((*GRAPH, "nodes"), "no node asks the model: at least one with predict is required")
