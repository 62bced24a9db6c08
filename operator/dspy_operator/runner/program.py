"""A program as DSPy runs it: checked, imported from its source, and its state to and from `program.json`."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import sys
import types
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy
from pydantic import BaseModel

from dspy_operator.api.graph import GRAPH
from dspy_operator.api.object_types import ProgramTypes, program_types
from dspy_operator.api.objects import Problem
from dspy_operator.api.program import (
    CodeProgram,
    GraphProgram,
    MCPServer,
    ModuleType,
    ObjectType,
    Program,
    Server,
    Signature,
    SignatureField,
    SingleProgram,
    Tool,
)
from dspy_operator.api.promptprogram import Adapter
from dspy_operator.api.signature_types import History
from dspy_operator.contract.canonical import sha256_hex
from dspy_operator.contract.effects import unsafe_tool
from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.runner import graph_source, judge_source
from dspy_operator.runner.adapter_source import not_for
from dspy_operator.runner.attempts import graded, make_whole, rewarding
from dspy_operator.runner.layout import settled_instructions
from dspy_operator.runner.module_check import check_module
from dspy_operator.runner.own_program import make_own
from dspy_operator.runner.own_source import OwnText
from dspy_operator.runner.program_source import NAMES, reads_datetime
from dspy_operator.runner.react_source import ARGUMENT_NAMES, HEADERS_NAMES, MCP_NAMES, TOOL_NAMES, TYPE_NAMES
from dspy_operator.runner.values import plain

_SHADOWED = frozenset({"str", "int", "float", "bool", "list", "dict", "dspy"})
"""Names that program.py itself uses inside the signature's class."""
_SIGNATURE_OWN = frozenset({"fields", "input_fields", "output_fields", "instructions", "signature"})
"""Attributes of every dspy.Signature class; a field of that name hides them, and DSPy fails."""

_CODE = ("spec", "program", "code")
_TOOLS = ("spec", "program", "single", "module", "react", "tools")
_REACT_OWN = frozenset({"trajectory", "reasoning", "next_thought", "next_tool_name", "next_tool_args", "max_iters"})
"""Fields that dspy.ReAct adds, and the argument that it takes out of its inputs."""
_ATTEMPTS = judge_source.NAMES | {"Attempt"}
"""What program.py of a BestOfN or Refine defines, and a named type could be called."""
_MODULE_OWN = frozenset({*dir(dspy.Module), "callbacks", "forward", "history"})
"""Attributes of every dspy.Module."""


@dataclass(frozen=True)
class LoadedProgram:
    """A program imported from its source."""

    module: dspy.Module
    """A new instance in its first state: the written instructions, no demonstrations."""
    adapter: dspy.Adapter
    source: str
    namespace: types.ModuleType
    """What the source was imported as."""

    def fresh(self) -> dspy.Module:
        """Another instance of the program in its first state."""
        return type(self.module)()

    def in_state(self, state: Mapping[str, Any]) -> dspy.Module:
        """Another instance of the program, in a state of its own (`state_document`)."""
        module = self.fresh()
        apply_state(module, state)
        return module


def check_program(
    program: Program, types: Mapping[str, ObjectType] | None = None, adapter: Adapter | None = None
) -> list[Problem]:
    """What the schema cannot see: types outside the grammar, names that DSPy cannot take, empty instructions.

    Args:
        program: as written.
        types: `spec.types`.
        adapter: `spec.adapter`; what it could never read is a problem of the field.
    """
    problems: list[Problem] = []
    known = program_types(program, types)
    shadowed = _SHADOWED | ({"datetime"} if reads_datetime(known) else set())
    for path, signature in _signatures(program):
        problems += _check_signature(path, signature, shadowed, known.problems)
    if program.single is not None:
        problems += check_module(program.single)
    if program.code is not None:
        problems += _check_code(program.code, shadowed)
    if program.graph is not None:
        problems += _check_names(program.graph, shadowed)
        problems += _one_secret_a_url(program.servers, "node")
    if adapter is not None:
        problems += _not_for_adapter(program, known, adapter)
    taken = NAMES
    if program.single is not None and program.single.module_type is ModuleType.REACT:
        problems += _check_react(program.single, known, adapter)
        taken |= TYPE_NAMES
        if mcp := [server for server in program.servers if isinstance(server.http, MCPServer)]:
            problems += _one_secret_a_url(mcp, "MCP server")
            taken |= MCP_NAMES
    if any(server.http.headers_secret is not None for server in program.servers):
        taken |= HEADERS_NAMES
    told = {problem.path for problem in problems}
    problems += [problem for problem in known.problems if problem.path not in told]
    for name, object_type in sorted((types or {}).items()):
        if name in taken or (name in _ATTEMPTS and program.single is not None and program.single.repeat is not None):
            problems.append(Problem(("spec", "types", name), f'"{name}" cannot name a type: program.py uses it'))
        for index, member in enumerate(object_type.fields):
            place = ("spec", "types", name, "fields", index, "name")
            if member.name in shadowed:
                problems.append(Problem(place, f'"{member.name}" cannot be a field name: program.py uses it'))
            elif member.name.startswith(("_", "model_")) or hasattr(BaseModel, member.name):
                problems.append(Problem(place, f'"{member.name}" cannot be a field name: pydantic uses it'))
    return problems


def _signatures(program: Program) -> Iterator[tuple[tuple[str, ...], Signature]]:
    """(path, signature) of everything that asks the model."""
    if program.single is not None:
        yield ("spec", "program", "single", "signature"), program.single.signature
    for name, node in sorted(program.graph.nodes.items()) if program.graph is not None else ():
        if node.predict is not None:
            yield (*GRAPH, "nodes", name, "predict", "signature"), node.predict.signature


def _check_signature(
    at: tuple[str, ...], signature: Signature, shadowed: Set[str], known: Sequence[Problem]
) -> Iterator[Problem]:
    if not signature.instructions.strip():
        yield Problem((*at, "instructions"), "holds only white space")
    path: tuple[str | int, ...]
    for kind, fields in (("inputs", signature.inputs), ("outputs", signature.outputs)):
        for index, field in enumerate(fields):
            path = (*at, kind, index)
            yield from _check_name(path, field, shadowed, is_input=kind == "inputs")
            yield from [problem for problem in known if problem.path == (*path, "type")]


def _not_for_adapter(program: Program, known: ProgramTypes, adapter: Adapter) -> Iterator[Problem]:
    """Fields of types that the adapter cannot be used with."""
    for at, signature in _signatures(program):
        types = known.fields if known.graph is None else known.graph.fields[at[-3]]
        for kind, fields in (("inputs", signature.inputs), ("outputs", signature.outputs)):
            for index, field in enumerate(fields):
                type_ = types.get(field.name)
                why = not_for(adapter, type_, is_output=kind == "outputs") if type_ is not None else None
                if why is not None:
                    yield Problem((*at, kind, index, "type"), why)


def _check_names(graph: GraphProgram, shadowed: Set[str]) -> Iterator[Problem]:
    """What steps, inputs and outputs of a graph cannot be called."""
    taken = shadowed | graph_source.NAMES
    path: tuple[str | int, ...]
    for index, field in enumerate(graph.inputs):
        path = (*GRAPH, "inputs", index)
        if field.name in taken:
            yield Problem((*path, "name"), f'"{field.name}" cannot be an input: program.py uses it')
        else:
            yield from _check_name(path, field, shadowed, is_input=True)
    for name in sorted(graph.nodes):
        place = (*GRAPH, "nodes", name)
        if name in taken:
            yield Problem(place, f'"{name}" cannot be a node: program.py uses it')
        elif name.startswith("_") or name in _MODULE_OWN:
            yield Problem(place, f'"{name}" cannot be a node: DSPy uses it')
        elif len(name) > graph_source.MOST_CHARACTERS:
            most = graph_source.MOST_CHARACTERS
            yield Problem(place, f"the name has {len(name)} characters; that of a node has at most {most}")
    for name in sorted(graph.output):
        if name.startswith(("_", "dspy_")) or name in {"base", "record"}:
            yield Problem((*GRAPH, "output", name), f'"{name}" cannot be an output: DSPy uses it')


def _check_code(code: CodeProgram, shadowed: Set[str]) -> Iterator[Problem]:
    """What inputs and outputs of code cannot be called."""
    for index, field in enumerate(code.inputs):
        yield from _check_name((*_CODE, "inputs", index), field, shadowed, is_input=True)
    for index, field in enumerate(code.outputs):
        if field.name.startswith(("_", "dspy_")) or field.name in {"base", "record"}:
            yield Problem((*_CODE, "outputs", index, "name"), f'"{field.name}" cannot be an output: DSPy uses it')


def _one_secret_a_url(servers: Sequence[Server], kind: str) -> Iterator[Problem]:
    """What one URL says to a question is known by the question alone, whoever asked."""
    first: dict[str, Server] = {}
    for server in servers:
        before = first.setdefault(server.http.url, server)
        if server.http.headers_secret != before.http.headers_secret:
            message = f'the {kind} "{before.name}" asks the same URL with other headers'
            yield Problem((*server.path, "headersSecret"), message)


def _check_react(single: SingleProgram, known: ProgramTypes, adapter: Adapter | None) -> Iterator[Problem]:
    """What adapter, fields, tools and arguments of a ReAct cannot be."""
    if adapter is not None and adapter.type == "XML":
        message = (
            "XML is not for a ReAct: it reads the arguments of tools as texts; adapter Chat, JSON or BAML does not"
        )
        yield Problem(("spec", "adapter", "type"), message)
    path: tuple[str | int, ...]
    for kind, fields in (("inputs", single.signature.inputs), ("outputs", single.signature.outputs)):
        for index, field in enumerate(fields):
            path = ("spec", "program", "single", "signature", kind, index)
            if field.name in _REACT_OWN:
                yield Problem((*path, "name"), f'"{field.name}" cannot be a field name: DSPy uses it')
            if isinstance(known.fields.get(field.name), History):
                yield Problem((*path, "type"), "History is not for a ReAct: its turns have no trajectory")
    taken = TOOL_NAMES | (MCP_NAMES if any(tool.mcp is not None for tool in single.tools) else frozenset())
    for index, tool in enumerate(single.tools):
        path = (*_TOOLS, index)
        if tool.http is not None and tool.name in taken:
            yield Problem((*path, "name"), f'"{tool.name}" cannot be a tool\'s name: program.py uses it')
        if tool.description is not None and not tool.description.strip():
            yield Problem((*path, "description"), "holds only white space")
        for place, argument in enumerate(tool.arguments or ()):
            if argument.name in ARGUMENT_NAMES or argument.name.startswith("_"):
                message = f'"{argument.name}" cannot be an argument\'s name: DSPy or program.py uses it'
                yield Problem((*path, "arguments", place, "name"), message)


def refuse_unsafe_tools(tools: Sequence[Tool]) -> None:
    """A run asks a tool as often as it needs to, which must change nothing.

    Raises:
        RunFailed: InvalidProgram with the tool's path.
    """
    if (refused := unsafe_tool(tools)) is not None:
        path, why = refused
        raise RunFailed(Reason.INVALID_PROGRAM, why, path=path)


def _check_name(
    path: tuple[str | int, ...], field: SignatureField, shadowed: Set[str], *, is_input: bool
) -> list[Problem]:
    if field.name in shadowed:
        return [Problem((*path, "name"), f'"{field.name}" cannot be a field name: program.py uses it')]
    if (
        field.name in _SIGNATURE_OWN
        or field.name.startswith(("_", "dspy_"))
        or (field.name.startswith("model_") and hasattr(dspy.Signature, field.name))
        or (is_input and field.name == "completions")
    ):
        return [Problem((*path, "name"), f'"{field.name}" cannot be a field name: DSPy uses it')]
    return []


def load_program(source: str, directory: Path, own: OwnText | None = None) -> LoadedProgram:
    """Import the source as `directory/program.py`, which is written where it differs.

    It has to be a file: MIPROv2 shows the model `inspect.getsource(type(program))`.

    Args:
        own: what somebody else wrote of it.
    Raises:
        RunFailed: InvalidProgram when it cannot be imported or built.
    """
    path = directory / "program.py"
    if not path.is_file() or path.read_bytes() != source.encode():
        directory.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.encode())
    # Named after its content, so that two programs in one process do not hide each other's source.
    name = f"dspy_operator_program_{sha256_hex(source.encode())[:8]}"
    loader = _SourceLoader(name, str(path))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None  # a loader of files always has one
    imported = importlib.util.module_from_spec(spec)
    sys.modules[name] = imported
    try:
        loader.exec_module(imported)
        called = getattr(imported, own.function, None) if own is not None else None
        if own is not None and callable(called) and own.is_program:
            make_own(imported.Program, called, own, source)
        elif own is not None and callable(called):
            setattr(imported, own.function, rewarding(called, own.path))
        elif hasattr(imported, judge_source.ASK):
            setattr(imported, judge_source.REWARD, graded(getattr(imported, judge_source.REWARD)))
        if issubclass(getattr(imported, "Attempt", object), dspy.Module):
            make_whole(imported.Program, imported.Attempt)
        return LoadedProgram(imported.Program(), imported.ADAPTER, source, imported)
    except RunFailed:
        raise
    except Exception as error:  # whatever pydantic, DSPy or Python refuse: to the user it is the program
        problem = " ".join(str(error).split())[:400]
        raise RunFailed(
            Reason.INVALID_PROGRAM,
            f"the program cannot be built: {type(error).__name__}: {problem}",
            path="spec.program",
        ) from error


class _SourceLoader(importlib.machinery.SourceFileLoader):
    """Never reads a .pyc: one is trusted by mtime and size, and a new source may have those of the old one."""

    def get_code(self, fullname: str) -> types.CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def state_document(module: dspy.Module) -> dict[str, Any]:
    """The content of `program.json`: what optimizers change, and nothing of the model, the machine or the moment.

    Instructions are settled, so that what is loaded sends what was judged: judge `LoadedProgram.in_state` of this, not
    the optimizer's own object. Demonstrations hold the signature's fields first; their values keep the order of their
    keys, because the prompt shows it.
    """
    document: dict[str, Any] = {}
    for name, predictor in module.named_predictors():
        state = predictor.dump_state(json_mode=True)
        fields = list(predictor.signature.fields)
        state["signature"]["instructions"] = settled_instructions(state["signature"]["instructions"])
        # An answer that became a demonstration holds dates, which DSPy leaves as they are.
        demos = [_ordered(plain(demo), fields) for demo in state["demos"]]
        state |= {"traces": [], "train": [], "lm": None, "demos": demos}
        document[name] = state
    # DSPy's load needs the key; real versions would give a laptop another digest than the cluster.
    document["metadata"] = {"dependency_versions": {}}
    detached: dict[str, Any] = json.loads(json.dumps(document, allow_nan=False))
    return detached


def speaking(module: dspy.Module, adapter: dspy.Adapter) -> dspy.Module:
    """The module, to be asked in an adapter of its own wherever it is judged, and another program for `program_hash`."""
    module.spoken = adapter
    return module


def apply_state(module: dspy.Module, state: Mapping[str, Any]) -> None:
    """Put the module into that state; DSPy also resets the predictors' own `lm`, so set models afterwards.

    Raises:
        RunFailed: InvalidProgram when the state is of another program.
    """
    want = {name: len(predictor.signature.fields) for name, predictor in module.named_predictors()}
    try:
        found = {name: len(part["signature"]["fields"]) for name, part in state.items() if name != "metadata"}
    except (AttributeError, KeyError, TypeError):
        raise RunFailed(Reason.INVALID_PROGRAM, "program.json is no state of a DSPy program") from None
    if want != found:
        raise RunFailed(
            Reason.INVALID_PROGRAM, f"the state is of another program: has {found}, this one {want} (predictor: fields)"
        )
    module.load_state(state)


def settled(module: dspy.Module) -> dspy.Module:
    """Another instance of its class, in its state as a revision would hold it: without models, traces or the mark of a compiled one."""
    another = type(module)()
    apply_state(another, state_document(module))
    return another


def fields_of(module: dspy.Module) -> dict[str, list[str]]:
    """Predictor -> the names of its fields, as its signature orders them."""
    return {name: list(predictor.signature.fields) for name, predictor in module.named_predictors()}


def document_bytes(document: dict[str, Any]) -> bytes:
    """A revision's JSON file: indented, UTF-8, keys in the document's own order, since models are shown some of it."""
    return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def program_json_bytes(module: dspy.Module) -> bytes:
    """`program.json` as plain `dspy.Module.load` reads it."""
    return document_bytes(state_document(module))


def program_hash(module: dspy.Module) -> str:
    """SHA-256 of all instructions and demonstrations: instances of one program with one hash send the same messages."""
    state = state_document(module)
    parts: list[Any] = [
        [name, state[name]["signature"]["instructions"], state[name]["demos"]] for name, _ in module.named_predictors()
    ]
    if hasattr(module, "spoken"):
        parts.append(type(module.spoken).__name__)
    return sha256_hex(json.dumps(parts, ensure_ascii=False, allow_nan=False).encode())


def _ordered(demo: dict[str, Any], fields: list[str]) -> dict[str, Any]:
    first = {name: demo[name] for name in fields if name in demo}
    # dspy_uuid and its like are of the moment.
    return first | {name: demo[name] for name in sorted(demo) if name not in first and not name.startswith("dspy_")}
