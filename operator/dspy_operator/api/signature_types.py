"""Types of a signature's fields: a closed grammar with a parser of its own. Nothing is ever evaluated.

    union   := term ("|" term)*
    term    := "str" | "int" | "float" | "bool" | "date" | "datetime" | "None" (only beside another type)
             | "Literal" "[" value ("," value)* "]"          values: all strings, all whole numbers, or all True/False
             | "list" "[" union "]" | "dict" "[" "str" "," union "]" | "Optional" "[" union "]"
             | name                                          of an object type in spec.types
    whole   := union | "Image" | "Audio" | "History"         the three stand alone, for inputs

A parsed type renders to one canonical text, which Python reads as the type where those names mean something.

Values are JSON wherever we keep them: a date is its ISO 8601 text, an object a mapping in the order of its fields, an
image its URL, a sound its data URI. So rows, digests, journals and reports hold nothing that only Python knows.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, NoReturn
from urllib.parse import urlsplit

MAX_LENGTH = 2048
MAX_DEPTH = 5
"""Most brackets inside each other."""

_SCALARS = ("str", "int", "float", "bool")
_MOMENTS = ("date", "datetime")
_ALLOWED = 'str, int, float, bool, Literal["a", "b"], list[T], dict[str, T], Optional[T], A | B, date, datetime'
_ALLOWED_INPUT = f"{_ALLOWED}, Image, Audio, History"
Names = Mapping[str, str]
Meanings = Mapping[str, object]
_AS_WRITTEN: Names = MappingProxyType({})
_NOTHING: Meanings = MappingProxyType({})


class TypeSyntaxError(ValueError):
    """A text outside the grammar; `position` is the offset of what is wrong, the first character is 0."""

    def __init__(self, position: int, message: str) -> None:
        super().__init__(message)
        self.position = position
        self.message = message


@dataclass(frozen=True)
class Scalar:
    """str, int, float or bool."""

    name: Literal["str", "int", "float", "bool"]

    def render(self, spelled: Names = _AS_WRITTEN) -> str:
        """The canonical text; `spelled` says how names are written instead (`{"date": "datetime.date"}`)."""
        return self.name

    def to_python(self, meanings: Meanings = _NOTHING) -> object:
        """The Python type; `meanings` are those of Image, Audio, History and named types (KeyError where one is missing)."""
        return {"str": str, "int": int, "float": float, "bool": bool}[self.name]

    def coerce(self, value: object) -> Any:
        """The value as this type: 5 is a float, 5.0 an int, and nothing else changes its kind.

        Raises:
            ValueError: saying what is expected and what was found.
        """
        match self.name, value:
            case ("str", str()) | ("bool", bool()):
                return value
            case ("int" | "float", bool()):
                pass
            case ("int", int()):
                return value
            case ("int", float()) if value.is_integer():
                return int(value)
            case ("float", int() | float()) if abs(value) < float("inf"):
                return float(value)
        expected = {"str": "a string", "int": "a whole number", "float": "a number", "bool": "true or false"}[self.name]
        raise _wrong(f"must be {expected}", value, self._hint(value))

    def _hint(self, value: object) -> str:
        if self.name == "str" or not isinstance(value, str):
            return ""
        try:
            unquoted = self.coerce(json.loads(value))
        except ValueError:
            return ""
        return f": write {json.dumps(unquoted)} without quotes"


@dataclass(frozen=True)
class Choice:
    """Literal[...]: one of a few values, all of one kind."""

    values: tuple[str, ...] | tuple[int, ...] | tuple[bool, ...]

    def render(self, spelled: Names = _AS_WRITTEN) -> str:
        """The canonical text; `spelled` says how names are written instead (`{"date": "datetime.date"}`)."""
        return f"Literal[{', '.join(self.rendered_values())}]"

    def rendered_values(self) -> list[str]:
        """Each value as Python source."""
        return [python_string(value) if isinstance(value, str) else repr(value) for value in self.values]

    def to_python(self, meanings: Meanings = _NOTHING) -> object:
        """The Python type; `meanings` are those of Image, Audio, History and named types (KeyError where one is missing)."""
        return Literal[self.values]

    def coerce(self, value: object) -> Any:
        """The value that is meant; the text of a number or truth value counts as it, and a number as its text.

        Raises:
            ValueError: listing the values.
        """
        for choice in self.values:
            if choice == value and type(choice) is type(value):
                return choice
        if isinstance(value, (str, int)):
            for choice in self.values:
                if str(choice) == str(value) or (isinstance(choice, bool) and str(choice).lower() == value):
                    return choice
        raise ValueError(f"must be one of {', '.join(map(_shown, self.values))}; found {_shown(value)}")


@dataclass(frozen=True)
class ListOf:
    """list[T]."""

    item: TypeExpr

    def render(self, spelled: Names = _AS_WRITTEN) -> str:
        """The canonical text; `spelled` says how names are written instead (`{"date": "datetime.date"}`)."""
        return f"list[{self.item.render(spelled)}]"

    def to_python(self, meanings: Meanings = _NOTHING) -> object:
        """The Python type; `meanings` are those of Image, Audio, History and named types (KeyError where one is missing)."""
        return list.__class_getitem__(self.item.to_python(meanings))

    def coerce(self, value: object) -> Any:
        """The list with each item coerced.

        Raises:
            ValueError: naming the item.
        """
        if not isinstance(value, list):
            raise _wrong("must be a list", value)
        return [_coerce_inside(self.item.coerce, item, f"[{index}]") for index, item in enumerate(value)]


@dataclass(frozen=True)
class DictOf:
    """dict[str, T]."""

    value: TypeExpr

    def render(self, spelled: Names = _AS_WRITTEN) -> str:
        """The canonical text; `spelled` says how names are written instead (`{"date": "datetime.date"}`)."""
        return f"dict[str, {self.value.render(spelled)}]"

    def to_python(self, meanings: Meanings = _NOTHING) -> object:
        """The Python type; `meanings` are those of Image, Audio, History and named types (KeyError where one is missing)."""
        return dict.__class_getitem__((str, self.value.to_python(meanings)))

    def coerce(self, value: object) -> Any:
        """The mapping with each value coerced; the order of its keys is kept, since a prompt shows it.

        Raises:
            ValueError: naming the key.
        """
        if not isinstance(value, dict):
            raise _wrong("must be an object", value)
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise _wrong("must have string keys", wrong[0])
        return {key: _coerce_inside(self.value.coerce, item, f"[{_shown(key)}]") for key, item in value.items()}


@dataclass(frozen=True)
class OneOf:
    """A | B, and Optional[T]. Made by `union`, which keeps it flat; None is always written last."""

    members: tuple[TypeExpr, ...]
    nullable: bool

    def render(self, spelled: Names = _AS_WRITTEN) -> str:
        """The canonical text; `spelled` says how names are written instead (`{"date": "datetime.date"}`)."""
        return " | ".join([member.render(spelled) for member in self.members] + ["None"] * self.nullable)

    def to_python(self, meanings: Meanings = _NOTHING) -> object:
        """The Python type; built with `|`, so that it equals what Python makes of the rendered text."""
        members: list[Any] = [member.to_python(meanings) for member in self.members] + [None] * self.nullable
        return functools.reduce(operator.or_, members)

    def coerce(self, value: object) -> Any:
        """The value as the first member that takes it unchanged, else as the first that takes it at all.

        Raises:
            ValueError: with what each member expects.
        """
        if value is None and self.nullable:
            return None
        results, refusals = [], []
        for member in self.members:
            try:
                results.append(member.coerce(value))
            except ValueError as error:
                refusals.append(str(error))
        unchanged = (result for result in results if type(result) is type(value) and result == value)
        if results:
            return next(unchanged, results[0])
        raise ValueError("; or ".join(refusals + ["must be null"] * self.nullable))


@dataclass(frozen=True)
class Moment:
    """date or datetime."""

    name: Literal["date", "datetime"]

    def render(self, spelled: Names = _AS_WRITTEN) -> str:
        """The canonical text; `spelled` says how names are written instead (`{"date": "datetime.date"}`)."""
        return spelled.get(self.name, self.name)

    def to_python(self, meanings: Meanings = _NOTHING) -> object:
        """The Python type."""
        return {"date": date, "datetime": datetime}[self.name]

    def coerce(self, value: object) -> Any:
        """The text as `iso` writes it: seconds are always there, an offset of zero is Z.

        Raises:
            ValueError: saying what is expected and what was found.
        """
        if isinstance(value, str) and _MOMENT[self.name].fullmatch(value):
            try:
                return iso(date.fromisoformat(value) if self.name == "date" else datetime.fromisoformat(value))
            except ValueError:
                raise _wrong("must be a day and time that there is", value) from None
        example = {"date": '"2026-11-26"', "datetime": '"2026-11-26T10:00:00Z"'}[self.name]
        raise _wrong(f"must be a {self.name} as {example}", value)


_DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_MOMENT = {
    "date": re.compile(_DAY),
    "datetime": re.compile(_DAY + r"[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})?"),
}


def iso(moment: date | datetime) -> str:
    """The text of a date or datetime as JSON holds it; pydantic, and so a prompt, writes the same."""
    text = moment.isoformat()
    return text[: -len("+00:00")] + "Z" if isinstance(moment, datetime) and text.endswith("+00:00") else text


@dataclass(frozen=True)
class Image:
    """Image (dspy.Image): what a model looks at. For inputs."""

    def render(self, spelled: Names = _AS_WRITTEN) -> str:
        """The canonical text; `spelled` says how names are written instead (`{"Image": "dspy.Image"}`)."""
        return spelled.get("Image", "Image")

    def to_python(self, meanings: Meanings = _NOTHING) -> object:
        """What `meanings` says."""
        return meanings["Image"]

    def coerce(self, value: object) -> Any:
        """The URL. It is sent as it is: who answers fetches it, never we.

        Raises:
            ValueError: saying what is expected and what was found.
        """
        if isinstance(value, str) and value.startswith("data:"):
            head, _, data = value.partition(",")
            if not data or not _DATA_URI.fullmatch(head):
                raise _wrong("must be a data URI of an image as data:image/png;base64,...", value)
            _check_base64(data, value)
            return value
        if isinstance(value, str) and _URL.fullmatch(value) and _has_host(value):
            return value
        raise _wrong("must be the URL of an image (https://..., data:image/png;base64,...)", value)


_DATA_URI = re.compile(r"data:image/[A-Za-z0-9.+-]+;base64")
# No < and >: DSPy marks images in a text by <<...>>.
_URL = re.compile(r"(https?|gs)://[^\s<>\"]+")


@dataclass(frozen=True)
class Audio:
    """Audio (dspy.Audio): what a model listens to. For inputs."""

    def render(self, spelled: Names = _AS_WRITTEN) -> str:
        """The canonical text; `spelled` says how names are written instead (`{"Audio": "dspy.Audio"}`)."""
        return spelled.get("Audio", "Audio")

    def to_python(self, meanings: Meanings = _NOTHING) -> object:
        """What `meanings` says."""
        return meanings["Audio"]

    def coerce(self, value: object) -> Any:
        """The data URI: `audio/wav` or `audio/mp3`, which other names of the two become. Chat Completions takes no others, and no URL.

        Raises:
            ValueError: saying what is expected and what was found.
        """
        head, _, data = value.partition(",") if isinstance(value, str) else ("", "", "")
        format_ = _AUDIO_FORMATS.get(head)
        if not data or format_ is None:
            raise _wrong("must be a data URI as data:audio/wav;base64,... or data:audio/mp3;base64,...", value)
        _check_base64(data, value)
        return f"data:audio/{format_};base64,{data}"


MEDIA = (Image, Audio)
"""What is no text, and becomes a part of a message of its own."""
_AUDIO_FORMATS = {
    f"data:audio/{name};base64": format_
    for format_, names in {"wav": ("wav", "x-wav", "wave", "vnd.wave"), "mp3": ("mp3", "mpeg", "x-mp3")}.items()
    for name in names
}


def _check_base64(data: str, value: object) -> None:
    try:
        base64.b64decode(data, validate=True)
    except (ValueError, binascii.Error) as error:
        raise _wrong(f"must be a data URI in base64 ({error})", value) from None


def _has_host(url: str) -> bool:
    try:
        return bool(urlsplit(url).netloc)
    except ValueError:
        return False


@dataclass(frozen=True)
class History:
    """History (dspy.History): earlier turns of a conversation, each with the other fields of its signature. For inputs."""

    fields: tuple[tuple[str, TypeExpr], ...] = ()
    """What each message holds; known once the whole signature is."""
    thought: bool = False
    """Whether a message may hold `reasoning` too."""

    def render(self, spelled: Names = _AS_WRITTEN) -> str:
        """The canonical text; `spelled` says how names are written instead (`{"History": "dspy.History"}`)."""
        return spelled.get("History", "History")

    def to_python(self, meanings: Meanings = _NOTHING) -> object:
        """What `meanings` says."""
        return meanings["History"]

    def coerce(self, value: object) -> Any:
        """`{"messages": [...]}`, each message with every field in the order of the signature.

        Raises:
            ValueError: naming the message and its field.
        """
        if not isinstance(value, dict) or value.keys() != {"messages"}:
            raise _wrong('must be an object as {"messages": [...]}', value)
        if not isinstance(messages := value["messages"], list):
            raise _Inside(".messages", str(_wrong("must be a list", messages)))
        return {
            "messages": [
                _coerce_inside(self._message, message, f".messages[{index}]") for index, message in enumerate(messages)
            ]
        }

    def _message(self, value: object) -> Any:
        fields: dict[str, TypeExpr | Member] = dict(self.fields)
        if self.thought and isinstance(value, dict) and "reasoning" in value:
            fields["reasoning"] = Scalar("str")
        return _coerced_fields(fields, value)


@dataclass(frozen=True)
class Member:
    """One field of a named type."""

    name: str
    type: TypeExpr
    minimum: int | None = None
    maximum: int | None = None

    def coerce(self, value: object) -> Any:
        """The value as its type, within its bounds.

        Raises:
            ValueError: saying what is expected and what was found.
        """
        taken = self.type.coerce(value)
        if taken is not None and self.minimum is not None and taken < self.minimum:
            raise _wrong(f"must be at least {self.minimum}", value)
        if taken is not None and self.maximum is not None and taken > self.maximum:
            raise _wrong(f"must be at most {self.maximum}", value)
        return taken


@dataclass(frozen=True)
class Object:
    """A named type: an object with these fields, each of them there, and no other."""

    name: str
    members: tuple[Member, ...]

    def render(self, spelled: Names = _AS_WRITTEN) -> str:
        """The canonical text; `spelled` says how names are written instead."""
        return spelled.get(self.name, self.name)

    def to_python(self, meanings: Meanings = _NOTHING) -> object:
        """What `meanings` says."""
        return meanings[self.name]

    def coerce(self, value: object) -> Any:
        """The mapping with each field coerced, in the order of the type.

        Raises:
            ValueError: naming the field.
        """
        return _coerced_fields({member.name: member for member in self.members}, value)


_ALONE: Mapping[str, TypeExpr] = MappingProxyType({"Image": Image(), "Audio": Audio(), "History": History()})
TypeExpr = Scalar | Choice | ListOf | DictOf | OneOf | Moment | Image | Audio | History | Object


def comparable(type_: TypeExpr, value: object) -> object:
    """A value of the type in a form that is equal where two values are: moments that have an offset are given in UTC."""
    match type_:
        case Moment("datetime"):
            try:
                moment = datetime.fromisoformat(str(value))
            except ValueError:
                return value
            return iso(moment.astimezone(UTC)) if moment.tzinfo is not None else iso(moment)
        case ListOf(item) if isinstance(value, list):
            return [comparable(item, each) for each in value]
        case DictOf(inner) if isinstance(value, Mapping):
            return {key: comparable(inner, each) for key, each in value.items()}
        case Object(_, members) if isinstance(value, Mapping):
            known = {member.name: member.type for member in members}
            return {key: comparable(known[key], each) if key in known else each for key, each in value.items()}
        case OneOf(members=members):
            for member in members:
                try:
                    if member.coerce(value) == value:
                        return comparable(member, value)
                except ValueError:
                    continue
    return value


def union(members: list[TypeExpr], *, nullable: bool) -> TypeExpr:
    """One type out of at least one: nested unions are flattened and repetitions dropped, as Python does."""
    flat: dict[str, TypeExpr] = {}
    for member in members:
        nullable = nullable or (isinstance(member, OneOf) and member.nullable)
        for part in member.members if isinstance(member, OneOf) else (member,):
            flat.setdefault(part.render(), part)
    first, *rest = flat.values()
    return OneOf((first, *rest), nullable) if rest or nullable else first


def parse_type(text: str, objects: Mapping[str, Object] = MappingProxyType({}), *, is_input: bool = True) -> TypeExpr:
    """The type that a text of the grammar means.

    Args:
        text: as people write it.
        objects: the named types that it may name.
        is_input: what a refusal lists as allowed: Image, Audio and History are for inputs alone, which the caller refuses elsewhere.
    Raises:
        TypeSyntaxError: saying where, what was found and what is allowed.
    """
    if len(text) > MAX_LENGTH:
        raise TypeSyntaxError(MAX_LENGTH, f"the type is longer than {MAX_LENGTH} characters")
    allowed = _ALLOWED_INPUT if is_input else _ALLOWED
    parser = _Parser(_tokens(text, allowed), objects, allowed)
    result = parser.union(depth=0)
    parser.expect("end", 'the end of the type, or "|" and another type')
    return result


def python_string(text: str) -> str:
    """The text as a Python string literal, in the quotes that a formatter would choose; the invisible is escaped."""
    quote = "'" if text.count('"') > text.count("'") else '"'
    return quote + escaped(text).replace(quote, f"\\{quote}") + quote


def escaped(text: str) -> str:
    """The text with backslashes and all that cannot be seen as Python escapes; quotes are left to the caller."""
    return "".join(char if char.isprintable() and char != "\\" else repr(char)[1:-1] for char in text)


class _Token(NamedTuple):
    kind: Literal["name", "string", "number", "end", "[", "]", ",", "|"]
    value: str
    position: int

    def shown(self) -> str:
        return "the end" if self.kind == "end" else _shown(self.value)


_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+) | (?P<name>[A-Za-z_][A-Za-z0-9_.]*) | (?P<number>-?[0-9]+) | (?P<mark>[\[\],|])
      | (?P<string>"(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*')""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(
    r"""\\(?: (?P<quote>["'\\]) | x(?P<x>[0-9a-fA-F]{2}) | u(?P<u>[0-9a-fA-F]{4}) | U(?P<U>[0-9a-fA-F]{8}) | . )""",
    re.VERBOSE | re.DOTALL,
)


def _tokens(text: str, allowed: str) -> list[_Token]:
    tokens, position = [], 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            found = text[position]
            problem = "the string does not end" if found in "\"'" else f"unexpected {_shown(found)}"
            raise TypeSyntaxError(position, f"{problem} at {position}; allowed: {allowed}")
        kind, value = str(match.lastgroup), match.group()
        if kind == "mark":
            tokens.append(_Token(value, value, position))  # type: ignore[arg-type]  # the pattern admits these only
        elif kind == "string":
            tokens.append(_Token("string", _unquoted(value, position), position))
        elif kind != "space":
            tokens.append(_Token(kind, value, position))  # type: ignore[arg-type]
        position = match.end()
    return [*tokens, _Token("end", "", len(text))]


def _unquoted(quoted: str, position: int) -> str:
    def character(match: re.Match[str]) -> str:
        if match["quote"]:
            return match["quote"]
        code = int(match["x"] or match["u"] or match["U"] or "-1", 16)
        if not 0 <= code <= 0x10FFFF:
            at = position + 1 + match.start()
            raise TypeSyntaxError(
                at, f"unknown escape {_shown(match.group())} at {at}; allowed: \\\" \\' \\\\ \\xNN \\uNNNN \\UNNNNNNNN"
            )
        return chr(code)

    text = _ESCAPE.sub(character, quoted[1:-1])
    if text != text.strip():
        # DSPy strips each section of an answer: such a value could never be answered.
        raise TypeSyntaxError(position, f"white space around the value {_shown(text)} at {position}: remove it")
    if any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 or 0xD800 <= ord(char) < 0xE000 for char in text):
        raise TypeSyntaxError(position, f"control character in the value at {position}: remove it")
    return text


class _Parser:
    """Recursive descent; each method consumes one rule of the grammar."""

    def __init__(self, tokens: list[_Token], objects: Mapping[str, Object], allowed: str) -> None:
        self._tokens = tokens
        self._objects = objects
        self._allowed = allowed
        self._next = 0

    def union(self, depth: int) -> TypeExpr:
        start = self._tokens[self._next]
        terms = [self._term(depth)]
        while self._accept("|"):
            terms.append(self._term(depth))
        members = [term for term in terms if term is not None]
        if not members:
            raise TypeSyntaxError(
                start.position, f"None alone at {start.position} is no type; write it beside one: str | None"
            )
        result = union(members, nullable=None in terms)
        if isinstance(result, OneOf) and {Moment("date"), Moment("datetime")} <= {
            member for member in result.members if isinstance(member, Moment)
        }:
            self._fail(start, f"date beside datetime at {start.position}: midnight could be either; take one of them")
        return result

    def expect(self, kind: str, what: str) -> _Token:
        token = self._tokens[self._next]
        if token.kind != kind:
            self._fail(token, f"found {token.shown()} at {token.position}, expected {what}")
        self._next += kind != "end"
        return token

    def _accept(self, kind: str) -> bool:
        accepted = self._tokens[self._next].kind == kind
        self._next += accepted
        return accepted

    def _term(self, depth: int) -> TypeExpr | None:
        name = self.expect("name", f"a type; allowed: {self._allowed}")
        if name.value == "None":
            return None
        if name.value in _SCALARS:
            return Scalar(name.value)  # type: ignore[arg-type]  # one of them, as just seen
        if name.value in _MOMENTS:
            return Moment(name.value)  # type: ignore[arg-type]
        if name.value in _ALONE:
            return self._alone(name)
        if name.value in self._objects:
            return self._objects[name.value]
        if name.value not in ("Literal", "list", "dict", "Optional"):
            named = "".join(f", {each}" for each in self._objects)
            allowed = f"{self._allowed}{named}"
            alike = (each for each in re.findall(r"\w{2,}", allowed) if each.lower() == name.value.lower())
            hint = "".join(f"; did you mean {each}?" for each in alike)
            self._fail(name, f"unknown type {_shown(name.value)} at {name.position}; allowed: {allowed}{hint}")
        if depth == MAX_DEPTH:
            self._fail(
                name,
                f'"{name.value}" at {name.position} is nested too deep; at most {MAX_DEPTH} brackets inside each other',
            )
        example = {
            "Literal": 'Literal["a", "b"]',
            "list": "list[str]",
            "dict": "dict[str, int]",
            "Optional": "Optional[str]",
        }
        self.expect("[", f'"[" after {name.value}, as in {example[name.value]}')
        result = self._inside(name.value, depth + 1)
        self.expect("]", f'"]" to close {name.value}, as in {example[name.value]}')
        return result

    def _alone(self, name: _Token) -> TypeExpr:
        if self._next != 1 or self._tokens[1].kind != "end":
            self._fail(
                name, f'"{name.value}" at {name.position} stands alone: write type: {name.value}, nothing beside it'
            )
        return _ALONE[name.value]

    def _inside(self, name: str, depth: int) -> TypeExpr:
        match name:
            case "Literal":
                return self._choice()
            case "list":
                return ListOf(self.union(depth))
            case "Optional":
                return union([self.union(depth)], nullable=True)
        key = self.expect("name", "str: the keys of a dict are strings")
        if key.value != "str":
            self._fail(key, f'found "{key.value}" at {key.position}, expected str: the keys of a dict are strings')
        self.expect(",", '"," and the type of the values, as in dict[str, int]')
        return DictOf(self.union(depth))

    def _choice(self) -> Choice:
        values: list[Any] = [self._value()]
        while self._accept(","):
            token = self._tokens[self._next]
            value = self._value()
            if type(value) is not type(values[0]):
                self._fail(
                    token,
                    f"{_shown(value)} at {token.position}: the values of one Literal are of one kind; join two with |",
                )
            if value in values:
                self._fail(token, f"{_shown(value)} at {token.position} is there twice")
            values.append(value)
        return Choice(tuple(values))

    def _value(self) -> str | int | bool:
        token = self._tokens[self._next]
        self._next += token.kind != "end"
        match token.kind, token.value:
            case "string", text:
                return text
            case "number", digits if len(digits) <= 18:
                return int(digits)
            case "name", ("True" | "False") as truth:
                return truth == "True"
        self._fail(
            token,
            f'found {token.shown()} at {token.position}, expected a value: "text" in quotes, whole number, True, False',
        )

    def _fail(self, token: _Token, message: str) -> NoReturn:
        raise TypeSyntaxError(token.position, message)


class _Inside(ValueError):
    """What is wrong with a part of a value, and which part: `lines[0].quantity: must be ...`"""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where.removeprefix('.')}: {why}")
        self.where = where
        self.why = why


def _coerce_inside(coerce: Callable[[object], Any], value: object, where: str) -> Any:
    try:
        return coerce(value)
    except _Inside as error:
        raise _Inside(where + error.where, error.why) from None
    except ValueError as error:
        raise _Inside(where, str(error)) from None


def _coerced_fields(fields: Mapping[str, TypeExpr | Member], value: object) -> dict[str, Any]:
    allowed = ", ".join(fields)
    if not isinstance(value, dict):
        raise _wrong(f"must be an object with {allowed}", value)
    for name in fields:
        if name not in value:
            raise _Inside(f".{name}", f"is missing (an object holds {allowed})")
    for name in value:
        if name not in fields:
            raise ValueError(f"unknown field {_shown(name)}; allowed: {allowed}")
    return {name: _coerce_inside(of.coerce, value[name], f".{name}") for name, of in fields.items()}


def _wrong(expected: str, value: object, hint: str = "") -> ValueError:
    return ValueError(f"{expected}, found {_shown(value)}{hint}")


def _shown(value: object) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
