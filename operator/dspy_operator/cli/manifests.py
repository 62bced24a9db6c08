"""Manifests from files, every value with the line it stands on: what local mode reads in place of an API server.

One folder serves `kubectl apply` and `run`: what the two would read differently is refused here, by its line.
"""

from __future__ import annotations

import base64
import difflib
import itertools
import json
import os.path
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

from yaml.composer import Composer
from yaml.error import Mark, MarkedYAMLError
from yaml.events import AliasEvent
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from dspy_operator.api.fields import API_VERSION, DURATION, GROUP
from dspy_operator.api.objects import (
    KINDS,
    InvalidObject,
    Kind,
    ModelEndpoint,
    OptimizationRun,
    Problem,
    PromptProgram,
    model_at,
    parse_object,
    values_not_yet,
)
from dspy_operator.api.rules import DECIMAL
from dspy_operator.api.unsupported import PREFIX
from dspy_operator.contract.exits import Reason, RunFailed

MAX_FILE_BYTES = 8 * 1024 * 1024
"""An object in a cluster has at most 1.5 MiB (etcd's limit for a request); a file may hold a handful of them."""
MAX_NODES = 100_000
"""Values in one file, aliases expanded. The examples have 100 each; PyYAML composes 14,000 a second (measured)."""
MAX_DEPTH = 100
"""Levels of nesting; the kinds have less than 10. PyYAML's composer recurses, and so do we."""

SUFFIXES = frozenset({".yaml", ".yml", ".json"})
KUSTOMIZATIONS = frozenset({"kustomization.yaml", "kustomization.yml"})
"""Instructions to `kubectl apply -k`, no objects."""


_T = TypeVar("_T")
FieldPath = tuple[str | int, ...]
_Start = tuple[int, int]
"""Line and column, from 1."""
Key = tuple[str, str]
"""`(namespace, name)`."""


class ObjectId(NamedTuple):
    """Which object: also a ConfigMap, which has no type of ours."""

    kind: str
    namespace: str
    name: str

    @classmethod
    def of(cls, obj: Kind) -> ObjectId:
        """The identity of a typed object."""
        return cls(obj.kind, obj.metadata.namespace, obj.metadata.name)


@dataclass(frozen=True)
class Origin:
    """Where an object was read from."""

    file: str
    """The path as the person gave it; `<stdin>` for `-`."""
    line: int
    """From 1."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Place(NamedTuple):
    """Where something stands; line and column from 1."""

    file: str
    line: int
    column: int


@dataclass(frozen=True)
class Located:
    """A problem, and where a person finds it."""

    file: str
    line: int | None
    """From 1; None where the file itself is the problem."""
    column: int | None
    """From 1; None where there is no line."""
    object: str | None
    """`kind/name`, as far as they could be read."""
    problem: Problem

    def __str__(self) -> str:
        # Of a field the path says more than a column.
        column = None if self.problem.path else self.column
        place = ":".join(str(part) for part in (self.file, self.line, column) if part is not None)
        what = str(self.problem) if self.problem.path else self.problem.message
        return ": ".join(part for part in (place, self.object, what) if part)


class ManifestError(RunFailed):
    """Manifests that cannot be used; carries every problem of every file."""

    def __init__(self, problems: Sequence[Located]) -> None:
        super().__init__(Reason.INVALID_MANIFEST, "\n".join(map(str, problems)))
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Manifests:
    """All objects of the paths that were read."""

    sources: tuple[str, ...]
    """The paths as given."""
    programs: Mapping[Key, PromptProgram]
    runs: Mapping[Key, OptimizationRun]
    endpoints: Mapping[Key, ModelEndpoint]
    config_maps: Mapping[Key, Mapping[str, str | bytes]]
    """`data` and `binaryData`: text where it is UTF-8, else bytes."""
    ignored: Mapping[str, int]
    """Kinds that local mode has no use for, and how many objects of each."""
    origins: Mapping[ObjectId, Origin]
    """Of the objects that were refused too."""
    _nodes: Mapping[ObjectId, Node] = field(repr=False, compare=False)

    def locate(self, of: Kind | ObjectId, path: FieldPath = ()) -> str:
        """Where a field was written: `examples/x/program.yaml:12`.

        Args:
            of: an object of these manifests.
            path: the field from the object's root; of one that is absent, its nearest parent's place is given.
        Raises:
            KeyError: the object does not come from these manifests.
        """
        place = self.place(of if isinstance(of, ObjectId) else ObjectId.of(of), path)
        return str(Origin(place.file, place.line))

    def place(self, of: ObjectId, path: FieldPath = ()) -> Place:
        """The same, with the column."""
        return Place(self.origins[of].file, *_start_of(self._nodes[of], path))

    def place_in_text(self, of: ObjectId, path: FieldPath, line: int) -> Place:
        """Where a line of a text stands, a field's value: exact in a literal block (|), else where the text begins.

        Args:
            line: of the text, from 1.
        """
        node = _node_at(self._nodes[of], path)
        if not isinstance(node, ScalarNode) or node.style != "|":
            return self.place(of, path)
        return Place(self.origins[of].file, node.start_mark.line + 1 + line, 1)


def read_manifests(paths: Sequence[Path]) -> Manifests:
    """Every object of these files, all of them right.

    Raises:
        ManifestError: with all problems of all files.
    """
    manifests, problems = survey_manifests(paths)
    if problems:
        raise ManifestError(problems)
    return manifests


def survey_manifests(paths: Sequence[Path]) -> tuple[Manifests, Sequence[Located]]:
    """The right objects of these files, and what is wrong with the others.

    Args:
        paths: files, folders (their *.yaml, *.yml and *.json, by name, without subfolders, hidden files and
            kustomization.yaml), or `-` for standard input. A file that is named twice is read once.
    """
    reading = _Reading()
    files: dict[str, Path] = {}
    for path in paths:
        try:
            for file in _files_of(path):
                files.setdefault(os.path.realpath(file), file)
        except _Refused as refused:
            reading.problems.append(refused.located)
    for file in files.values():
        reading.read(file)
    manifests = Manifests(
        sources=tuple(map(_shown_path, paths)),
        programs=_of_type(PromptProgram, reading.objects),
        runs=_of_type(OptimizationRun, reading.objects),
        endpoints=_of_type(ModelEndpoint, reading.objects),
        config_maps=_of_type(dict, reading.objects),
        ignored=dict(reading.ignored),
        origins=reading.origins,
        _nodes=reading.nodes,
    )
    return manifests, reading.problems


def one_run(manifests: Manifests, name: str | None = None) -> OptimizationRun:
    """The run that is meant: the one of this name (`name` or `namespace/name`), or the only one.

    Raises:
        ManifestError: there is none, or there are several and none is named.
    """
    runs = list(manifests.runs.values())
    named = [run for run in runs if name in (None, run.metadata.name, run.key)]
    if len(named) == 1:
        return named[0]
    meant = named or runs
    unique = len({run.metadata.name for run in meant}) == len(meant)
    names = ", ".join(sorted(run.metadata.name if unique else run.key for run in meant))
    if not runs:
        message = "there is no OptimizationRun"
    elif named:
        message = f"there are several OptimizationRuns: name one of {names}"
    else:
        message = f'there is no OptimizationRun "{name}"; there are: {names}'
    raise ManifestError([Located(", ".join(manifests.sources), None, None, None, Problem((), message))])


# Files


class _Refused(Exception):
    """A file, or the rest of one, that cannot be read."""

    def __init__(self, file: str, message: str, line: int | None = None, column: int | None = None) -> None:
        super().__init__(message)
        self.located = Located(file, line, column, None, Problem((), message))


def _shown_path(path: Path) -> str:
    return "<stdin>" if str(path) == "-" else str(path)


def _files_of(path: Path) -> list[Path]:
    try:
        if not path.is_dir():
            return [path]
        entries = sorted(path.iterdir())
    except OSError as error:
        raise _Refused(str(path), f"cannot be read: {error.strerror}") from None
    files = [
        entry
        for entry in entries
        if entry.suffix in SUFFIXES
        and not entry.name.startswith(".")
        and entry.name not in KUSTOMIZATIONS
        and not entry.is_dir()
    ]
    if not files:
        raise _Refused(str(path), "there are no manifests in this folder (*.yaml, *.yml, *.json)")
    return files


def _text_of(path: Path) -> str:
    file = _shown_path(path)
    try:
        if str(path) == "-":
            data = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        else:
            with path.open("rb") as stream:
                data = stream.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise _Refused(file, "no such file or folder") from None
    except OSError as error:
        raise _Refused(file, f"cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise _Refused(file, f"has more than {MAX_FILE_BYTES // 1024**2} MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _Refused(file, f"is not UTF-8: byte 0x{data[error.start]:02x}", line) from None
    # JSON may be indented with tabs, YAML may not; inside a JSON string no tab stands unescaped.
    return text.replace("\t", " ") if path.suffix == ".json" else text


# YAML: text -> nodes

_PLAIN, _TEXT = "plain", "text"
_STR_TAG = "tag:yaml.org,2002:str"


class _TooLarge(MarkedYAMLError):
    """A file beyond MAX_NODES or MAX_DEPTH."""


class _BoundedComposer(Reader, Scanner, Parser, Composer, BaseResolver):
    """PyYAML's front end in pure Python, bounded, which leaves the meaning of scalars to us.

    Not libyaml, 40 times as fast on a block of text: it recurses in C, and there would be two sets of error messages.
    """

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)
        self._nodes = self._depth = 0

    def resolve(self, kind: type[Node], value: Any, implicit: Any) -> str:
        """The tag of a node that has none of its own."""
        return _PLAIN if kind is ScalarNode and implicit[0] else _TEXT

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        """A node and all below it."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        self._nodes, self._depth = self._nodes + 1, self._depth + 1
        _check_size(self._nodes, self._depth, event.start_mark)
        if not isinstance(event, AliasEvent):
            self.anchors.pop(event.anchor, None)  # YAML and kubectl let an anchor be defined again, PyYAML does not
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _check_size(nodes: int, depth: int, mark: Mark) -> None:
    if depth > MAX_DEPTH:
        raise _TooLarge(problem=f"nested more than {MAX_DEPTH} levels deep", problem_mark=mark)
    if nodes > MAX_NODES:
        raise _TooLarge(problem=f"more than {MAX_NODES:,} values, aliases expanded", problem_mark=mark)


def _documents(file: str, text: str) -> Iterator[Node]:
    """The root of each document, as far as the syntax is right.

    Raises:
        _Refused: at the first error of syntax; what follows it in the file has no certain meaning.
    """
    try:
        composer = _BoundedComposer(text)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        raise _Refused(file, f"control character U+{ord(text[error.position]):04X}", line, column) from None
    try:
        while composer.check_node() and (root := composer.get_node()) is not None:
            yield root
    except MarkedYAMLError as error:
        message, mark = _in_plain_words(error, text)
        raise _Refused(file, message, mark.line + 1, mark.column + 1) from None
    except (ValueError, OverflowError):
        # PyYAML 6.0.3 hands "\UFFFFFFFF" to chr() and the digits of %YAML to int(), unchecked.
        mark = composer.get_mark()
        raise _Refused(file, "a number here is too large", mark.line + 1, mark.column + 1) from None


def _in_plain_words(error: MarkedYAMLError, text: str) -> tuple[str, Mark]:
    """What a syntax error means to somebody who does not know PyYAML, and the place to look at."""
    problem, mark = error.problem or "", error.problem_mark
    assert mark is not None, "every error of PyYAML's scanner, parser and composer has one"
    start = error.context_mark or mark
    opened = f"line {start.line + 1}"
    indentation = re.match(r"[ \t]*", text[mark.index - mark.column :])
    if "'\\t'" in problem or (indentation and "\t" in indentation[0]):
        return "a tab: YAML is indented with spaces", mark
    if problem.startswith("mapping values are not allowed"):
        return 'a ":" is not expected here: check the indentation, or put the text in quotes', mark
    if problem.startswith("could not find expected ':'"):
        return 'neither "field: value" nor the continuation of a text: is a ":" missing?', start
    if problem.startswith("expected <block end>") or problem.startswith("sequence entries"):
        return f"does not fit what begins at {opened}: check the indentation and the quotes", mark
    if match := re.match(r"expected ',' or '([\]}])'", problem):
        bracket = match[1]
        if (found := text[mark.index : mark.index + 1]) and found in "[{":
            return f'"," or "{bracket}" is expected: put a text with "{found}" in it in quotes', mark
        return f'"," or "{bracket}" is expected: is the "{_OPENING[bracket]}" of {opened} closed?', mark
    if error.context and "quoted scalar" in error.context and problem.startswith("found unexpected"):
        return "the quotes that open here are not closed", start
    if match := re.match(r"found unknown escape character '(.*)'", problem):
        return f'"\\{match[1]}" is no escape: inside double quotes write "\\\\{match[1]}", or use single quotes', mark
    if "that cannot start any token" in problem or (error.context in _SCANNING_A_MARKER and "expected" in problem):
        start = mark if error.context not in _SCANNING_A_MARKER else start
        return f'a text cannot begin with "{text[start.index]}": put it in quotes', start
    if match := re.match(r"found undefined alias '(.*)'", problem):
        return f"alias *{match[1]}: there is no anchor &{match[1]} above it in this document", mark
    return f"{problem} ({error.context})" if error.context else problem, mark


_OPENING = {"]": "[", "}": "{"}
_SCANNING_A_MARKER = frozenset(f"while scanning a{what}" for what in ("n alias", "n anchor", " block scalar"))


# YAML: nodes -> plain data

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_BOOL_OF_YAML_1_1 = {"y": "true", "yes": "true", "on": "true", "n": "false", "no": "false", "off": "false"}
_CASE = re.compile(r"[a-z]+|[A-Z][a-z]*|[A-Z]+")
"""How YAML 1.1 lets such a word be written."""
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_ODD_NUMBER = re.compile(r"[-+]?(0[0-9]+|0x[0-9a-f]+|0o[0-7]+|0b[01]+|\.inf)|\.nan", re.IGNORECASE)


@dataclass(frozen=True)
class _Fault:
    start: _Start
    problem: Problem


class _PlainData:
    """What a node means, and what in it is no plain data.

    Scalars mean what both YAML 1.2 (core schema) and kubectl read: null, true and false, decimal numbers, else text;
    a date is text. kubectl (kubernetes-sigs/yaml goyaml.v2/resolve.go) has YAML 1.1's other booleans and its octal
    numbers as well: there `name: y` is `name: true`. Such words are refused: text here would be an error there.
    """

    def __init__(self, counter: Iterator[int]) -> None:
        self.faults: list[_Fault] = []
        self._counter = counter

    def of(self, node: Node, path: FieldPath = (), start: _Start | None = None) -> Any:
        """The value; each fault is kept, and stands for itself as text or is left out.

        Raises:
            _TooLarge: aliases make it larger, or deeper, than a file may be.
        """
        _check_size(next(self._counter), len(path) + 1, node.start_mark)
        start = start or _start(node)
        if node.tag not in (_PLAIN, _TEXT, _STR_TAG):
            tag = node.tag.replace("tag:yaml.org,2002:", "!!")
            self._fault(start, path, f"tags are not understood, found {tag}")
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self.of(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._plain(node.value, path, start) if node.tag == _PLAIN else self._text(node.value, path, start)

    def _mapping(self, node: MappingNode, path: FieldPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            start = _start(key_node)
            key = self._key(key_node, path, start)
            if key is None:
                continue
            if key in lines:
                self._fault(start, (*path, key), f"is there twice, first on line {lines[key]}")
                continue
            lines[key] = start[0]
            result[key] = self.of(value_node, (*path, key), start)
        return result

    def _key(self, node: Node, path: FieldPath, start: _Start) -> str | None:
        if not isinstance(node, ScalarNode):
            self._fault(start, path, "the name of a field must be text (is this a template? render it first)")
            return None
        if node.tag != _PLAIN:
            return self._text(node.value, path, start)
        if node.value == "<<":
            self._fault(start, path, 'merge keys ("<<") are not understood: repeat the fields')
            return None
        key = self._plain(node.value, path, start)
        if not isinstance(key, str):
            self._fault(start, path, f'the name of a field must be text: write "{node.value}" in quotes')
            return None
        return key

    def _plain(self, text: str, path: FieldPath, start: _Start) -> Any:
        if text in _NULL:
            return None
        if text in _BOOL:
            return _BOOL[text]
        if (meaning := _BOOL_OF_YAML_1_1.get(text.lower())) and _CASE.fullmatch(text):
            message = f"{text} without quotes is {meaning} to kubectl: put it in quotes, or write {meaning}"
            self._fault(start, path, message)
            return text
        digits = text.replace("_", "") if text[0] in "+-0123456789" else text
        if _ODD_NUMBER.fullmatch(digits) or (digits != text and _FLOAT.fullmatch(digits)):
            message = f'{text} without quotes is not one number to all readers: write "{text}", or its plain digits'
            self._fault(start, path, message)
            return text
        if _INT.fullmatch(text):
            if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
                self._fault(start, path, "is a number of more than 64 bits: put it in quotes, or make it smaller")
                return text
            return int(text)
        return float(text) if _FLOAT.fullmatch(text) else self._text(text, path, start)

    def _text(self, text: str, path: FieldPath, start: _Start) -> str:
        try:
            # JSON escapes a character beyond U+FFFF as two halves, which PyYAML leaves apart.
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            self._fault(start, path, "has one half of an escaped character (a lone surrogate)")
            return ""

    def _fault(self, start: _Start, path: FieldPath, message: str) -> None:
        self.faults.append(_Fault(start, Problem(path, message)))


def _start(node: Node) -> _Start:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _child(node: Node, name: str | int) -> tuple[_Start, Node] | None:
    """A field or item, and where it begins."""
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if isinstance(key, ScalarNode) and key.value == name:
                return _start(key), value
    elif isinstance(node, SequenceNode) and isinstance(name, int) and 0 <= name < len(node.value):
        return _start(node.value[name]), node.value[name]
    return None


def _start_of(node: Node, path: FieldPath) -> _Start:
    start = _start(node)
    for part in path:
        if (child := _child(node, part)) is None:
            break
        start, node = child
    return start


def _node_at(node: Node, path: FieldPath) -> Node | None:
    for part in path:
        if (child := _child(node, part)) is None:
            return None
        node = child[1]
    return node


# Plain data -> objects


class _Reading:
    """What has been read so far, and every problem met on the way."""

    def __init__(self) -> None:
        self.problems: list[Located] = []
        self.objects: dict[ObjectId, Kind | dict[str, str | bytes]] = {}
        self.ignored: Counter[str] = Counter()
        self.origins: dict[ObjectId, Origin] = {}
        self.nodes: dict[ObjectId, Node] = {}

    def read(self, path: Path) -> None:
        """All objects of one file."""
        file = _shown_path(path)
        try:
            counter = itertools.count(1)
            for root in _documents(file, _text_of(path)):
                for node in _unpacked(root):
                    self._read_object(file, node, _PlainData(counter))
        except _Refused as refused:
            self.problems.append(refused.located)

    def _read_object(self, file: str, node: Node, data: _PlainData) -> None:
        try:
            document = data.of(node)
        except _TooLarge as error:
            assert error.problem_mark is not None
            raise _Refused(file, str(error.problem), error.problem_mark.line + 1) from None
        if document is None:
            return
        if not isinstance(document, dict):
            message = "must be an object: a mapping with apiVersion, kind and metadata"
            data.faults.append(_Fault(_start(node), Problem((), message)))
            document = {}
        elif _is_foreign(document):
            self.ignored[document["kind"]] += 1
            return
        doubtful = {fault.problem.path for fault in data.faults}
        problems = [
            _Fault(_start_of(node, problem.path), _with_suggestion(problem, document))
            for problem in self._take(document, Origin(file, node.start_mark.line + 1), node)
            if not any(problem.path[:depth] in doubtful for depth in range(len(problem.path) + 1))
            or (problem.path in doubtful and problem.message.startswith("must be one of "))
        ]
        title = _title(document)
        for fault in sorted((*data.faults, *problems), key=lambda fault: fault.start[0]):
            self.problems.append(Located(file, *fault.start, title, fault.problem))

    def _take(self, document: dict[str, Any], origin: Origin, node: Node) -> list[Problem]:
        """Keep the object where it is right, and say what is wrong where it is not."""
        kind = document.get("kind")
        if not isinstance(kind, str):
            return [Problem(("kind",), "is required" if kind is None else f"must be a string, found {_found(kind)}")]
        if kind == "List":
            return [Problem(("items",), "must be a list of objects; a List in a List is not unpacked")]
        if kind not in KINDS and kind != "ConfigMap":
            return [Problem(("kind",), f'{GROUP} has no kind "{kind}"' + did_you_mean(kind, sorted(KINDS)))]

        problems = []
        want = API_VERSION if kind in KINDS else "v1"
        if (api_version := document.get("apiVersion")) != want:
            problems.append(Problem(("apiVersion",), f'must be "{want}", found {_found(api_version)}'))
        # An object of another version is read as if it were of ours, so that all its problems are told at once.
        document = {**document, "apiVersion": want}
        if (identity := _identity(document)) is not None:
            self.nodes[identity] = node
            if (first := self.origins.setdefault(identity, origin)) is not origin:
                problems.append(Problem(("metadata", "name"), f"this {kind} is there twice, first at {first}"))
        try:
            parsed = parse_object(document) if kind in KINDS else _config_map(document)
        except InvalidObject as invalid:
            return [*problems, *invalid.problems]
        assert identity is not None, "an object without a name is invalid"
        self.objects[identity] = parsed
        return problems


def _unpacked(root: Node) -> Sequence[Node]:
    kind, items = _child(root, "kind"), _child(root, "items")
    is_list = kind is not None and isinstance(kind[1], ScalarNode) and kind[1].value == "List"
    return items[1].value if is_list and items is not None and isinstance(items[1], SequenceNode) else [root]


def _is_foreign(document: Mapping[str, Any]) -> bool:
    """Whether the object is none of those that local mode reads.

    A kind of our name in another group is not foreign: a typing error in `apiVersion` must not hide a run.
    """
    kind = document.get("kind")
    if not isinstance(kind, str) or kind in KINDS or kind in ("ConfigMap", "List"):
        return False
    return str(document.get("apiVersion")).partition("/")[0] != GROUP


def _name_and_namespace(document: Mapping[str, Any]) -> tuple[object, object]:
    metadata = document.get("metadata")
    return (metadata.get("name"), metadata.get("namespace", "default")) if isinstance(metadata, dict) else (None, None)


def _identity(document: Mapping[str, Any]) -> ObjectId | None:
    name, namespace = _name_and_namespace(document)
    if name and namespace and isinstance(name, str) and isinstance(namespace, str):
        return ObjectId(document["kind"], namespace, name)
    return None


def _title(document: Mapping[str, Any]) -> str | None:
    kind, (name, _) = document.get("kind"), _name_and_namespace(document)
    if not isinstance(kind, str):
        return None
    return f"{kind}/{name}" if name and isinstance(name, str) else kind


def _config_map(document: Mapping[str, Any]) -> dict[str, str | bytes]:
    """What a ConfigMap holds, by key."""
    problems = []
    metadata = document.get("metadata")
    if not isinstance(metadata, dict):
        problems.append(Problem(("metadata",), "must be a mapping with a name"))
    else:
        for part, default in (("name", None), ("namespace", "default")):
            value = metadata.get(part, default)
            if not isinstance(value, str) or not value:
                message = "is required" if part not in metadata else f"must be a string, found {_found(value)}"
                problems.append(Problem(("metadata", part), message))
    values_of: dict[str, str | bytes] = {}
    for part in ("data", "binaryData"):
        values = document.get(part)
        if values is None:
            continue
        if not isinstance(values, dict):
            problems.append(Problem((part,), f"must be a mapping, found {_found(values)}"))
            continue
        for key, value in values.items():
            if not isinstance(value, str):
                problems.append(Problem((part, key), f"must be text in quotes or a block (|), found {_found(value)}"))
            elif part == "data":
                values_of[key] = value
            elif key in values_of:
                problems.append(Problem((part, key), "is in data as well"))
            else:
                try:
                    values_of[key] = _text_or_bytes(base64.b64decode("".join(value.split()), validate=True))
                except ValueError:
                    problems.append(Problem((part, key), "is not base64"))
    if problems:
        raise InvalidObject(tuple(problems))
    return values_of


def _text_or_bytes(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _found(value: object) -> str:
    if value is None:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


_NAMED = re.compile(r"unknown field; allowed: (?P<fields>.*)|must be one of (?P<values>.*), found (?P<found>\".*\")")
_IN_WORDS = {
    "metadata.name": 'a-z, 0-9 and "-", a letter first',
    DURATION: "numbers with h, m, s or ms, such as 1h30m; a day is 24h",
    DECIMAL: 'digits with at most one point, such as "0.05"',
}
"""Path or pattern -> what it allows."""


def _with_suggestion(problem: Problem, document: Mapping[str, Any]) -> Problem:
    """What a person may have meant: the nearest word, how a type alone is written, a pattern in words."""
    said, kind = problem.message, document.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        return problem
    if match := _NAMED.fullmatch(said):
        said += _nearest(problem, match, document)
    elif match := re.fullmatch(r"must be a mapping, found (.*)", said):
        said += _written_as_mapping(problem, match[1], document)
    elif match := re.fullmatch(r"must match (?P<pattern>.*), found .*", said):
        words = _IN_WORDS.get(problem.field) or _IN_WORDS.get(match["pattern"])
        said += f": {words}" if words else ""
    return Problem(problem.path, said)


def _nearest(problem: Problem, match: re.Match[str], document: Mapping[str, Any]) -> str:
    """Also which values nobody should try next: they would be refused too."""
    if match["found"] is None:
        word = str(problem.path[-1])
        if word == "namespace":
            return "; what it names is in this object's own namespace"
        return did_you_mean(word, match["fields"].split(", "))
    later = values_not_yet(problem.path, document)
    note = f" ({PREFIX}{', '.join(later)})" if later else ""
    return note + did_you_mean(json.loads(match["found"]), match["values"].split(", "))


def _written_as_mapping(problem: Problem, found: str, document: Mapping[str, Any]) -> str:
    model = model_at(problem.path, document)
    if model is None:
        return ""
    types = get_args(model.model_fields["type"].annotation) if "type" in model.model_fields else ()
    if found.strip('"') in types:
        return f": write {{type: {found.strip(chr(34))}}}"
    return f"; its fields: {', '.join(sorted(field.alias or name for name, field in model.model_fields.items()))}"


def did_you_mean(word: str, allowed: Sequence[str]) -> str:
    """`; did you mean ...?`, or nothing. Near in letters: `max_tokens` and `jsonl` are maxTokens and JSONL, spelled as elsewhere."""
    plain = {re.sub(r"[-_ ]", "", each).lower(): each for each in allowed}
    close = difflib.get_close_matches(re.sub(r"[-_ ]", "", word).lower(), plain, n=1, cutoff=0.65)
    return f'; did you mean "{plain[close[0]]}"?' if close else ""


def _of_type(kind: type[_T], objects: Mapping[ObjectId, object]) -> dict[Key, _T]:
    return {(key.namespace, key.name): obj for key, obj in objects.items() if isinstance(obj, kind)}
