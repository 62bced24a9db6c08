"""The class in `program.py` of a program that is a graph: each step is a line of `forward`, in the order in which they are done."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass

from dspy_operator.api.graph import ITEM, QUERY
from dspy_operator.api.program import DEFAULT_TOP_K, GraphProgram
from dspy_operator.api.signature_types import python_string

NAMES = frozenset({"bounded", "each", "filled", "inputs", "retrieved", ITEM})
"""What the class calls something itself, and neither a step nor an input can be called."""
MOST_CHARACTERS = 40
"""Of a step's name: a longer one leaves no room in a line."""
METHODS = frozenset(
    ("completions", "copy", "from_completions", "get", "get_lm_usage", "inputs", "items", "keys", "labels")
) | {"set_lm_usage", "toDict", "values", "with_inputs", "without"}
"""Of dspy.Prediction: a field of that name is no attribute of it."""
BOUNDED = '''\
def bounded(step: str, items: list[Any], most: int) -> list[Any]:
    """The first items of a list; where there are more, the log says so."""
    if len(items) > most:
        logging.getLogger(__name__).warning("%s: of %d items the first %d are taken", step, len(items), most)
    return items[:most]'''
RETRIEVED = '''\
def retrieved(url: str, query: str, top_k: int) -> list[str]:
    """What a server finds for a query: {"query", "topK"} goes to it as JSON, a list of texts comes back."""
    body = json.dumps({"query": query, "topK": top_k}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        passages = json.load(response)
    if not isinstance(passages, list) or not all(isinstance(passage, str) for passage in passages):
        raise ValueError(f"{url} answers with something else than a list of texts")
    return passages[:top_k]'''
"""A run replaces it by its own, which tries again and writes down what was answered (runner/retrieval.py)."""
FILLED = '''\
def filled(text: str, /, **values: Any) -> str:
    """The text with its placeholders filled in; of a list of texts an empty line stands between the items."""
    texts = {name: "\\n\\n".join(value) if isinstance(value, list) else value for name, value in values.items()}
    return text.format_map(texts)'''
_WIDTH = 120
_INDENT = 8
"""Of a statement in a method."""


def titles(graph: GraphProgram, taken: Container[str]) -> dict[str, str]:
    """Step that asks the model -> the name of its signature's class."""
    found: dict[str, str] = {}
    for name, node in sorted(graph.nodes.items()):
        if node.predict is not None:
            title = "".join(part.capitalize() for part in name.split("_")) + "Signature"
            while title in taken or title in found.values():
                title += "_"
            found[name] = title
    return found


def repeats(graph: GraphProgram) -> bool:
    """Whether a step is done for each item of a list."""
    return any(node.for_each is not None for node in graph.nodes.values())


def retrieves(graph: GraphProgram) -> bool:
    """Whether a step looks something up."""
    return any(node.retrieve is not None for node in graph.nodes.values())


def fills(graph: GraphProgram) -> bool:
    """Whether a step makes a text of others."""
    return any(node.template is not None for node in graph.nodes.values())


def retrieved(*, asks_with_headers: bool) -> str:
    """The function that looks up.

    Args:
        asks_with_headers: the text is another only where a server wants some.
    """
    if not asks_with_headers:
        return RETRIEVED
    text = RETRIEVED.replace("top_k: int) ->", 'top_k: int, node: str = "") ->')
    text = text.replace('"application/json"})', '"application/json", **headers_of(node)})')
    return text.replace("urllib.request.urlopen(", "urllib.request.build_opener(NoRedirect).open(")


def program_class(
    graph: GraphProgram,
    order: Sequence[str],
    titles: Mapping[str, str],
    parameter: Callable[[str], str],
    headers: Container[str] = (),
) -> str:
    """The class `Program`.

    Args:
        graph: as written, and without problems.
        order: of the steps.
        titles: step -> its signature's class.
        parameter: input -> how `forward` declares it.
        headers: steps whose servers want some.
    """
    inits = []
    for name in order:
        if (step := graph.nodes[name].predict) is not None:
            module = step.module.type if step.module else "Predict"
            inits.append(f"self.{name} = {_laid(_Call(f'dspy.{module}(', [('', titles[name])]), before=len(name) + 8)}")
    parameters = [("", "self"), ("", "*"), *(("", parameter(field.name)) for field in graph.inputs)]
    header = (
        _laid(_Call("def forward(", parameters), indent=4, after=len(" -> dspy.Prediction:")) + " -> dspy.Prediction:"
    )
    lines = [f"{name} = {_laid(_step(name, graph, headers), before=len(name) + 3)}" for name in order]
    outputs = [(name, _value(reference, graph)) for name, reference in sorted(graph.output.items())]
    lines.append(f"return {_laid(_Call('dspy.Prediction(', outputs), before=len('return '))}")
    init = textwrap.indent("\n".join(["super().__init__()", *inits]), " " * 4)
    body = f"def __init__(self) -> None:\n{init}\n\n{header}\n" + textwrap.indent("\n".join(lines), " " * 4)
    return "class Program(dspy.Module):\n" + textwrap.indent(body, " " * 4)


@dataclass(frozen=True)
class _Call:
    """A call; arguments are (keyword or "", value)."""

    opening: str
    arguments: Sequence[tuple[str, _Expression]]


@dataclass(frozen=True)
class _Each:
    """A list made of another one."""

    value: _Expression
    name: str
    items: _Expression


_Expression = str | _Call | _Each


def _step(name: str, graph: GraphProgram, headers: Container[str]) -> _Expression:
    node = graph.nodes[name]
    if node.predict is not None:
        fields = [field.name for field in node.predict.signature.inputs]
        call = _Call(f"self.{name}(", [(field, _value(node.inputs[field], graph)) for field in fields])
    elif node.template is not None:
        values = [(field, _value(reference, graph)) for field, reference in sorted(node.inputs.items())]
        call = _Call("filled(", [("", python_string(node.template.text)), *values])
    else:
        assert node.retrieve is not None
        query = (QUERY, _value(node.inputs[QUERY], graph))
        top_k = str(node.retrieve.top_k or DEFAULT_TOP_K)
        asks_as = [("node", python_string(name))] if name in headers else []
        call = _Call("retrieved(", [("", python_string(node.retrieve.http.url)), query, ("top_k", top_k), *asks_as])
    if node.for_each is None:
        return call
    items = [("", python_string(name)), ("", _value(node.for_each, graph)), ("", str(node.max_items))]
    return _Each(call, ITEM, _Call("bounded(", items))


def _value(reference: str, graph: GraphProgram) -> _Expression:
    owner, _, field = reference.partition(".")
    if owner == ITEM:
        return ITEM
    if owner == "inputs":
        return field
    if graph.nodes[owner].predict is None:
        return owner
    if graph.nodes[owner].for_each is None:
        return _field(owner, field)
    return _Each(_field("each", field), "each", owner)


def _field(of: str, name: str) -> str:
    return f'{of}["{name}"]' if name in METHODS else f"{of}.{name}"


def _flat(expression: _Expression) -> str:
    match expression:
        case _Call(opening, arguments):
            return (
                opening + ", ".join(f"{key}={_flat(value)}" if key else _flat(value) for key, value in arguments) + ")"
            )
        case _Each(value, name, items):
            return f"[{_flat(value)} for {name} in {_flat(items)}]"
    return expression


def _laid(expression: _Expression, *, indent: int = _INDENT, before: int = 0, after: int = 0) -> str:
    """In one line where it fits, else broken as ruff does; `before` and `after` share its outer lines."""
    flat = _flat(expression)
    if indent + before + len(flat) + after <= _WIDTH:
        return flat
    match expression:
        case _Call(opening, arguments):
            lines = [
                f"{key}=" * bool(key) + _laid(value, indent=indent + 4, before=len(key) + bool(key), after=1) + ","
                for key, value in arguments
            ]
            return opening + "\n" + textwrap.indent("\n".join(lines), " " * 4) + "\n)"
        case _Each(value, name, items):
            body = flat[1:-1]
            if indent + 4 + len(body) > _WIDTH:
                source = _laid(items, indent=indent + 4, before=len(f"for {name} in "))
                body = f"{_laid(value, indent=indent + 4)}\nfor {name} in {source}"
            return "[\n" + textwrap.indent(body, " " * 4) + "\n]"
    return expression
