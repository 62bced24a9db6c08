"""Writes a program as the `program.py` that the runner imports, reviewers read and users eject to.

The text depends on nothing but the arguments and is stable under `ruff format` at 120 columns, so that a diff of two
revisions shows what changed. An interpreter over the YAML was rejected: MIPROv2, SIMBA and Refine show the model
`inspect.getsource(type(program))`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from dspy_operator.api.object_types import ProgramTypes, program_types
from dspy_operator.api.program import (
    CodeProgram,
    GraphProgram,
    ObjectType,
    Program,
    Signature,
    SignatureField,
    SingleProgram,
    Tool,
    TypeField,
)
from dspy_operator.api.promptprogram import Adapter, SamplingRequest
from dspy_operator.api.signature_types import (
    MEDIA,
    Audio,
    Choice,
    DictOf,
    History,
    ListOf,
    Moment,
    Object,
    OneOf,
    TypeExpr,
    python_string,
)
from dspy_operator.runner import graph_source
from dspy_operator.runner.adapter_source import CLASSES, AdapterSource, adapter_source
from dspy_operator.runner.graph_source import BOUNDED, FILLED
from dspy_operator.runner.layout import WIDTH as _WIDTH
from dspy_operator.runner.layout import call as _call
from dspy_operator.runner.layout import docstring as _docstring
from dspy_operator.runner.layout import indented as _indented
from dspy_operator.runner.layout import settled_instructions
from dspy_operator.runner.mcp import Tools as Listings
from dspy_operator.runner.module_source import Needs, module_blocks, needs
from dspy_operator.runner.own_source import OwnText
from dspy_operator.runner.react_source import (
    HEADERS_CHECK,
    MCP_TOOL,
    NO_REDIRECT,
    TOOL_CLASS,
    has_long_descriptions,
    headers_block,
    mcp_calls,
    tool_calls,
    tool_function,
    tool_list,
)

_LONG_TYPE = 72
"""A longer type gets a name of its own above the class; a field's line is then never broken before its arguments."""

_SPELLED = {
    "date": "datetime.date",
    "datetime": "datetime.datetime",
    "Image": "dspy.Image",
    "Audio": "dspy.Audio",
    "History": "dspy.History",
}
NAMES = CLASSES | {"Any", "BaseModel", "ConfigDict", "Field", "Path", "Program", "TypeAdapter"}
"""What program.py calls something itself, and a named type cannot be called."""


def reads_datetime(types: ProgramTypes) -> bool:
    """Whether the source needs Python's `datetime`, which then is no name of a field."""
    return any(_holds(type_, Moment) for type_ in types.every)


def program_source(
    name: str,
    program: Program,
    adapter: Adapter | None,
    request: SamplingRequest | None = None,
    types: Mapping[str, ObjectType] | None = None,
    own: OwnText | None = None,
    headers: Mapping[str, Sequence[str]] | None = None,
    listed: Listings | None = None,
) -> str:
    """The source of `program.py`.

    Args:
        name: of the PromptProgram; names the signature's class.
        program: what it is; its types parse (`check_program`).
        adapter: how it talks to the model; None means Chat.
        request: how the target samples, for those who run the file itself; the runner asks by its own.
        types: `spec.types`.
        own: code of somebody's own: the reward, or the program.
        headers: tool or node -> names of the headers that it wants.
        listed: MCP server -> its tools.
    """
    known = program_types(program, types)
    headers = headers or {}
    if program.single is not None:
        shape = _single(name, program.single, known, own, listed or {})
    elif program.code is not None:
        shape = _code(program.code, known, own)
    else:
        shape = _graph(program.graph, known, headers=headers)
    texts, outputs = shape.texts, [known.fields[field] for field in program.output_names]
    written = adapter_source(adapter, has_objects=any(_holds(type_, Object) for type_ in shape.answers))
    needed = needs(program.single, known.fields)
    beside = " and ".join(["google-re2"] * needed.reward + ["litellm"] * _hears(known))
    blocks = [
        _DOCSTRING.format(name=name, needs=f" (it needs {beside}, too)" if beside else ""),
        _imports(
            texts,
            known,
            written,
            outputs,
            repeats=BOUNDED in shape.blocks,
            retrieves=program.graph is not None and graph_source.retrieves(program.graph),
            fills=FILLED in shape.blocks,
            has_arguments=any(_arguments(field) for each in (types or {}).values() for field in each.fields),
            needed=needed,
            tools=program.tools,
            has_headers=bool(headers),
        ),
        *itertools.chain.from_iterable(
            [*texts.aliases(name), _object_class(name, (types or {})[name].fields, texts)] for name in known.objects
        ),
        *shape.blocks,
        *([written.definition] if written.definition else []),
        f'ADAPTER = {written.call}\nREQUEST = {_request(request)}\nSTATE = Path(__file__).with_name("program.json")',
        *([headers_block(headers)] if headers else []),
        *([_heard(shape.typed) if _hears(known) else shape.typed] if _has_typed(known) else []),
        *_calls(program, headers),
        _functions(known, outputs, asks_with_headers=bool(headers)),
    ]
    return _join(blocks)


@dataclass(frozen=True)
class _Shape:
    """What depends on whether a program is one signature or a graph."""

    texts: _Types
    answers: Sequence[TypeExpr]
    """Types that the model answers with."""
    blocks: Sequence[str]
    """The signatures' classes and the program's."""
    typed: str
    """The function that makes DSPy's inputs out of JSON, where JSON is not enough."""


def title_of(name: str, objects: Collection[str]) -> str:
    """What the signature's class of a program of this name is called.

    Args:
        objects: names of object types.
    """
    title = "".join(part.capitalize() for part in name.split("-")) + "Signature"
    while title in objects:
        title += "_"
    return title


def _calls(program: Program, headers: Mapping[str, Sequence[str]]) -> list[str]:
    """The functions by which tools are called."""
    by_url = any(tool.http is not None for tool in program.tools)
    by_mcp = any(tool.mcp is not None for tool in program.tools)
    blocks = [tool_calls(headers)] if by_url else []
    blocks += [NO_REDIRECT] if by_mcp and not by_url else []
    return [*blocks, *([mcp_calls(with_headers=bool(headers))] if by_mcp else [])]


def _single(name: str, single: SingleProgram, known: ProgramTypes, own: OwnText | None, listed: Listings) -> _Shape:
    title = title_of(name, known.objects)
    arguments = {f"{tool}.{name}": type_ for tool, types in known.tools.items() for name, type_ in types.items()}
    signature, texts = single.signature, _Types(known, {**known.fields, **arguments})
    blocks = [*texts.aliases(), _signature_class(title, signature, texts.of)]
    for tool in single.functions:
        blocks += [*texts.aliases(tool.name), tool_function(tool, texts.parameter)]
    if single.tools:
        blocks += [TOOL_CLASS, *([MCP_TOOL] if any(tool.mcp for tool in single.tools) else [])]
        blocks.append(tool_list(single.tools, listed))
    blocks += module_blocks(
        single, title, [texts.parameter(field.name) for field in signature.inputs], known.fields, own
    )
    answers = [known.fields[field.name] for field in signature.outputs]
    return _Shape(texts, answers, blocks, _TYPED.format(title=title))


def _code(code: CodeProgram, known: ProgramTypes, own: OwnText | None) -> _Shape:
    """What somebody wrote, and around it what is called with the declared inputs."""
    assert own is not None
    texts = _Types(known, known.fields)
    parameters = [texts.parameter(field.name) for field in code.inputs]
    passed = [f"{field.name}={field.name}" for field in code.inputs]
    forward = _call("def forward(", ["self", "*", *parameters], ") -> dspy.Prediction:", 4)
    asked = _call("return self.program(", passed, ")", 8)
    members = ["def __init__(self) -> None:", "    super().__init__()", f"    self.program = {own.function}()"]
    wrapper = "class Program(dspy.Module):\n" + _indented("\n".join([*members, "", forward, _indented(asked)]))
    answers = [known.fields[field.name] for field in code.outputs]
    return _Shape(texts, answers, [*texts.aliases(), own.text, wrapper], _TYPED_GRAPH)


def _graph(graph: GraphProgram | None, known: ProgramTypes, *, headers: Mapping[str, Sequence[str]]) -> _Shape:
    assert graph is not None and known.graph is not None
    titles = graph_source.titles(graph, known.objects)
    parsed = {
        f"{title}.{field}": type_ for step, title in titles.items() for field, type_ in known.graph.fields[step].items()
    }
    texts = _Types(known, parsed | dict(known.graph.inputs))
    blocks, answers = [], []
    for step in known.graph.order:
        if (asked := graph.nodes[step].predict) is not None:
            of = functools.partial(texts.of, owner=titles[step])
            blocks += [*texts.aliases(titles[step]), _signature_class(titles[step], asked.signature, of)]
            answers += [known.graph.fields[step][field.name] for field in asked.signature.outputs]
    blocks += [BOUNDED] if graph_source.repeats(graph) else []
    blocks += [NO_REDIRECT] if headers else []
    blocks += [graph_source.retrieved(asks_with_headers=bool(headers))] if graph_source.retrieves(graph) else []
    blocks += [FILLED] if graph_source.fills(graph) else []
    blocks += texts.aliases()
    blocks.append(graph_source.program_class(graph, known.graph.order, titles, texts.parameter, headers))
    return _Shape(texts, answers, blocks, _TYPED_GRAPH)


_DOCSTRING = '''\
"""PromptProgram {name}: plain DSPy{needs}, written by dspy-operator.

Its instructions and demonstrations are in program.json beside it.

    program = load()
    with dspy.context(lm=dspy.LM("openai/MODEL", api_base="URL", **REQUEST), adapter=ADAPTER):
        prediction = program(...)

or, for one call: python program.py --model openai/MODEL --api-base URL '{{"field": "value"}}'
"""'''

_FUNCTIONS = '''\
def load(path: Path = STATE) -> Program:
    """The program with the instructions and demonstrations of its revision."""
    program = Program()
    program.load(path)
    return program


def main() -> None:
    """Call the program once: its inputs as a JSON object in, its outputs as a JSON object out."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="as DSPy names it, for example openai/gpt-4.1-mini")
    parser.add_argument("--api-base", required=True, help="URL of the endpoint, up to and including /v1")
    parser.add_argument("--api-key-env", help="environment variable that holds the API key")
    parser.add_argument("inputs", type=json.loads, help="the inputs as a JSON object")
    options = parser.parse_args()
    api_key = os.environ[options.api_key_env] if options.api_key_env else "none"
    lm = dspy.LM(options.model, api_base=options.api_base, api_key=api_key, cache=False, **REQUEST)
    with dspy.context(lm=lm, adapter=ADAPTER):
        prediction = load()(**options.inputs)
    print(json.dumps(prediction.toDict(), ensure_ascii=False, indent=2))


if __name__ == "__main__":
    main()'''

_TYPED = '''\
def typed(values: dict[str, Any]) -> dict[str, Any]:
    """Inputs as DSPy takes them, out of JSON: an Image of its URL, a History of its messages."""
    made = dict(values)
    for name, field in {title}.input_fields.items():
        if name in made and field.annotation is dspy.Image:
            made[name] = dspy.Image(made[name])
        if name in made and field.annotation is dspy.History:
            made[name] = dspy.History(messages=[typed(message) for message in made[name]["messages"]])
    return made'''

_SEEN = "return {name: dspy.Image(value) if types.get(name) is dspy.Image else value for name, value in values.items()}"
_SEEN_AND_HEARD = """\
return {
        name: types[name](value) if types.get(name) in (dspy.Image, dspy.Audio) else value
        for name, value in values.items()
    }"""
_TYPED_GRAPH = f'''\
def typed(values: dict[str, Any]) -> dict[str, Any]:
    """Inputs as DSPy takes them, out of JSON: an Image of its URL."""
    types = Program.forward.__annotations__
    {_SEEN}'''


_HEARD = """\
    if find_spec("litellm") is None:
        parser.error("it hears audio, which DSPy sends with litellm alone: pip install 'dspy[litellm]'")
"""


def _functions(types: ProgramTypes, outputs: list[TypeExpr], *, asks_with_headers: bool) -> str:
    """`load` and `main`; dates and objects come from JSON and go to JSON."""
    text = _FUNCTIONS
    if asks_with_headers:
        text = text.replace("    api_key = ", HEADERS_CHECK + "    api_key = ")
    if _hears(types):
        text = text.replace("    api_key = ", _HEARD + "    api_key = ")
    if _has_typed(types):
        text = text.replace("(**options.inputs)", "(**typed(options.inputs))")
    if any(_holds(type_, (Moment, Object)) for type_ in types.every):
        # DSPy takes their JSON for them, and sends the same; its warning would be noise.
        text = text.replace("adapter=ADAPTER):", "adapter=ADAPTER, warn_on_type_mismatch=False):")
    if any(_holds(type_, Moment) for type_ in outputs):
        text = text.replace("prediction.toDict(),", "to_jsonable_python(prediction.toDict()),")
    return text


def _hears(types: ProgramTypes) -> bool:
    return any(isinstance(type_, Audio) for type_ in types.fields.values())


def _heard(typed: str) -> str:
    """`typed` of a program that hears."""
    one = typed.replace("an Image of its URL", "an Image of its URL, Audio of its data URI")
    one = one.replace("field.annotation is dspy.Image", "field.annotation in (dspy.Image, dspy.Audio)")
    one = one.replace("= dspy.Image(made", "= field.annotation(made")
    return one.replace(_SEEN, _SEEN_AND_HEARD)


def _has_typed(types: ProgramTypes) -> bool:
    return any(isinstance(type_, (*MEDIA, History)) for type_ in types.fields.values())


def _holds(type_: TypeExpr, kind: type | tuple[type, ...], seen: set[str] | None = None) -> bool:
    """Whether a type is of the kind, or has one inside; each named type is looked into once."""
    seen = set() if seen is None else seen
    if isinstance(type_, kind):
        return True
    match type_:
        case ListOf(inner) | DictOf(inner):
            return _holds(inner, kind, seen)
        case OneOf(members=members):
            return any(_holds(member, kind, seen) for member in members)
        case Object(name, fields) if name not in seen:
            seen.add(name)
            return any(_holds(field.type, kind, seen) for field in fields)
    return False


def _imports(
    texts: _Types,
    types: ProgramTypes,
    adapter: AdapterSource,
    outputs: list[TypeExpr],
    *,
    repeats: bool,
    retrieves: bool,
    fills: bool,
    has_arguments: bool,
    needed: Needs,
    tools: Sequence[Tool],
    has_headers: bool,
) -> str:
    typing_names = ["Any"] * bool(
        adapter.definition
        or repeats
        or fills
        or _has_typed(types)
        or needed.reward
        or needed.judge
        or tools
        or has_headers
    )
    typing_names += ["Literal"] * texts.use_literal
    lines = ["import argparse"]
    lines += ["import datetime"] if reads_datetime(types) else []
    lines += ["import inspect"] if has_long_descriptions(tools) else []
    by_mcp, by_url = [tool for tool in tools if tool.mcp], [tool for tool in tools if tool.http]
    lines += ["import json", *["import logging"] * repeats, "import os", *["import time"] * bool(by_mcp)]
    lines += ["import re"] if needed.judge else []
    lines += ["import urllib.error"] if tools else []
    lines += ["import urllib.request"] if tools or retrieves else []
    lines += ["import uuid"] if by_mcp else []
    lines += ["from importlib.util import find_spec"] if _hears(types) else []
    lines += ["from pathlib import Path"]
    lines += [f"from typing import {', '.join(typing_names)}"] if typing_names else []
    lines += ["", "import dspy", *(["import re2"] if needed.reward else []), *adapter.imports]
    lines += ["from dspy.adapters.types.tool import convert_input_schema_to_tool_args"] if by_mcp else []
    pydantic_names = ["BaseModel", "ConfigDict"] if types.objects else []
    pydantic_names += ["Field"] if has_arguments else []
    pydantic_names += ["TypeAdapter"] if "TypeAdapter" in adapter.definition else []
    lines += [f"from pydantic import {', '.join(pydantic_names)}"] if pydantic_names else []
    jsonable = needed.jsonable or any(_holds(type_, Moment) for type_ in outputs)
    core_names = ["to_json"] * bool(by_url) + ["to_jsonable_python"] * jsonable
    lines += [f"from pydantic_core import {', '.join(core_names)}"] if core_names else []
    return "\n".join(lines)


class _Types:
    """The types of all fields as source; long ones get a name. A field of a named type is known as `Type.field`."""

    def __init__(self, types: ProgramTypes, fields: Mapping[str, TypeExpr]) -> None:
        self._parsed = {
            f"{object_.name}.{member.name}": member.type
            for object_ in types.objects.values()
            for member in object_.members
        } | dict(fields)
        self.use_literal = any("Literal[" in type_.render() for type_ in self._parsed.values())
        self.named: dict[str, str] = {}
        for field, type_ in self._parsed.items():
            text = type_.render(_SPELLED)
            owner, _, name = field.rpartition(".")
            assigned = "Field(" if owner in types.objects else "dspy.OutputField("
            if len(text) > _LONG_TYPE or len(f"    {name}: {text} = {assigned}") > _WIDTH:
                alias = ("".join(part[:1].upper() + part[1:] for part in f"{owner}_{name}".split("_")))[:24] + "Type"
                while alias in self.named.values() or alias in types.objects or alias in NAMES:
                    alias += "_"
                self.named[field] = alias

    def of(self, field: str, owner: str = "") -> str:
        """What stands behind the field's colon."""
        field = f"{owner}.{field}" if owner else field
        return self.named.get(field) or self._parsed[field].render(_SPELLED)

    def parameter(self, field: str) -> str:
        """How `forward`, or a tool's function, declares it."""
        return f"{field.rpartition('.')[2]}: {self.of(field)}{' = None' * self.nullable(field)}"

    def nullable(self, field: str) -> bool:
        """Whether the field may be left out."""
        type_ = self._parsed[field]
        return isinstance(type_, OneOf) and type_.nullable

    def aliases(self, owner: str = "") -> list[str]:
        """The long types of a named type, or of the signature, under their names: a block, or none."""
        named = {field: alias for field, alias in self.named.items() if field.rpartition(".")[0] == owner}
        return ["\n".join(_assignment(alias, self._parsed[field]) for field, alias in named.items())] if named else []


def _assignment(name: str, type_: TypeExpr) -> str:
    layout = _layout(type_, before=len(name) + 3)
    if isinstance(type_, OneOf) and "\n" in layout:
        return f"{name} = (\n{_indented(_layout(type_, indent=4))}\n)"
    return f"{name} = {layout}"


def _layout(type_: TypeExpr, *, indent: int = 0, before: int = 0, after: int = 0) -> str:
    """The type in one line where it fits, else broken as ruff does; `before` and `after` share its outer lines."""
    text = type_.render(_SPELLED)
    if indent + before + len(text) + after <= _WIDTH:
        return text
    match type_:
        case Choice(values):
            comma = "," * (len(values) > 1)
            return "Literal[\n" + "".join(f"    {value}{comma}\n" for value in type_.rendered_values()) + "]"
        case ListOf(item):
            return f"list[\n{_indented(_layout(item, indent=indent + 4))}\n]"
        case DictOf(value):
            return f"dict[\n    str,\n{_indented(_layout(value, indent=indent + 4, after=1))},\n]"
        case OneOf(members, nullable):
            first, *rest = [
                _layout(member, indent=indent, before=2 * bool(place)) for place, member in enumerate(members)
            ]
            return "\n| ".join([first, *rest] + ["None"] * nullable)
    return text


def _object_class(name: str, fields: Sequence[TypeField], texts: _Types) -> str:
    lines = "\n".join(_member(field, texts.of(f"{name}.{field.name}")) for field in fields)
    return f'class {name}(BaseModel):\n    model_config = ConfigDict(extra="forbid")\n\n{_indented(lines)}'


def _member(field: TypeField, type_: str) -> str:
    if not (arguments := _arguments(field)):
        return f"{field.name}: {type_}"
    opening, joined = f"{field.name}: {type_} = Field(", ", ".join(arguments)
    if len(f"{opening}{joined})") + 4 <= _WIDTH:
        return f"{opening}{joined})"
    if len(joined) + 8 <= _WIDTH or len(arguments) == 1:
        return f"{opening}\n    {joined}\n)"
    return _call(opening, arguments, ")", _WIDTH)


def _arguments(field: TypeField) -> list[str]:
    """Of pydantic's Field."""
    arguments = [f"ge={field.minimum}"] if field.minimum is not None else []
    arguments += [f"le={field.maximum}"] if field.maximum is not None else []
    arguments += [f"description={python_string(field.description)}"] if field.description is not None else []
    return arguments


def _signature_class(title: str, signature: Signature, type_of: Callable[[str], str]) -> str:
    fields = [_field("Input", field, type_of) for field in signature.inputs]
    fields += [_field("Output", field, type_of) for field in signature.outputs]
    docstring = _docstring(settled_instructions(signature.instructions))
    return f"class {title}(dspy.Signature):\n{_indented(docstring)}\n\n{_indented(chr(10).join(fields))}"


def _field(kind: str, field: SignatureField, type_of: Callable[[str], str]) -> str:
    argument = f"desc={python_string(field.description)}" if field.description is not None else ""
    opening = f"{field.name}: {type_of(field.name)} = dspy.{kind}Field("
    line = f"{opening}{argument})"
    return line if len(line) + 4 <= _WIDTH else f"{opening}\n    {argument}\n)"


def _request(request: SamplingRequest | None) -> str:
    asked = request or SamplingRequest()
    values = [f'"temperature": {float(asked.temperature or "0")}']
    values += [f'"top_p": {float(asked.top_p)}'] if asked.top_p is not None else []
    values += [f'"max_tokens": {asked.max_tokens}'] if asked.max_tokens is not None else []
    if asked.stop is None:
        return f"{{{', '.join(values)}}}"
    stop = ", ".join(map(python_string, asked.stop))
    if len(f'REQUEST = {{{", ".join(values)}, "stop": [{stop}]}}') <= _WIDTH:
        return f'{{{", ".join(values)}, "stop": [{stop}]}}'
    return _call("{", [*values, _call('"stop": [', [*map(python_string, asked.stop)], "]", 5)], "}", _WIDTH)


def _join(blocks: list[str]) -> str:
    """Two empty lines around classes and functions, one elsewhere, as the formatters want it."""
    text = blocks[0]
    for before, block in itertools.pairwise(blocks):
        definition = block.startswith(("class ", "def ")) or before.startswith(("class ", "def "))
        text += ("\n\n\n" if definition else "\n\n") + block
    return text + "\n"
