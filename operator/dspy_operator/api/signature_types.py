"""Types of a signature's fields: a closed grammar with a parser of its own. Nothing is ever evaluated.

    union   := term ("|" term)*
    term    := "str" | "int" | "float" | "bool" | "None" (only beside another type)
             | "Literal" "[" value ("," value)* "]"          values: all strings, all whole numbers, or all True/False
             | "list" "[" union "]" | "dict" "[" "str" "," union "]" | "Optional" "[" union "]"

A parsed type renders to one canonical text: Python source that needs no import but `from typing import Literal`.
"""

from __future__ import annotations

import functools
import json
import operator
import re
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, NoReturn

MAX_LENGTH = 2048
MAX_DEPTH = 5
"""Most brackets inside each other."""

_SCALARS = ("str", "int", "float", "bool")
_ALLOWED = 'str, int, float, bool, Literal["a", "b"], list[T], dict[str, T], Optional[T], A | B'
_LATER = ("date", "datetime", "Image", "Audio", "History")


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

    def render(self) -> str:
        """The canonical text."""
        return self.name

    def to_python(self) -> object:
        """The Python type."""
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

    def render(self) -> str:
        """The canonical text."""
        return f"Literal[{', '.join(self.rendered_values())}]"

    def rendered_values(self) -> list[str]:
        """Each value as Python source."""
        return [python_string(value) if isinstance(value, str) else repr(value) for value in self.values]

    def to_python(self) -> object:
        """The Python type."""
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

    def render(self) -> str:
        """The canonical text."""
        return f"list[{self.item.render()}]"

    def to_python(self) -> object:
        """The Python type."""
        return list.__class_getitem__(self.item.to_python())

    def coerce(self, value: object) -> Any:
        """The list with each item coerced.

        Raises:
            ValueError: naming the item.
        """
        if not isinstance(value, list):
            raise _wrong("must be a list", value)
        return [_coerce_inside(self.item, item, f"[{index}]") for index, item in enumerate(value)]


@dataclass(frozen=True)
class DictOf:
    """dict[str, T]."""

    value: TypeExpr

    def render(self) -> str:
        """The canonical text."""
        return f"dict[str, {self.value.render()}]"

    def to_python(self) -> object:
        """The Python type."""
        return dict.__class_getitem__((str, self.value.to_python()))

    def coerce(self, value: object) -> Any:
        """The mapping with each value coerced; the order of its keys is kept, since a prompt shows it.

        Raises:
            ValueError: naming the key.
        """
        if not isinstance(value, dict):
            raise _wrong("must be an object", value)
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise _wrong("must have string keys", wrong[0])
        return {key: _coerce_inside(self.value, item, f"[{_shown(key)}]") for key, item in value.items()}


@dataclass(frozen=True)
class OneOf:
    """A | B, and Optional[T]. Made by `union`, which keeps it flat; None is always written last."""

    members: tuple[TypeExpr, ...]
    nullable: bool

    def render(self) -> str:
        """The canonical text."""
        return " | ".join(self.rendered_members())

    def rendered_members(self) -> list[str]:
        """Each member as Python source."""
        return [member.render() for member in self.members] + ["None"] * self.nullable

    def to_python(self) -> object:
        """The Python type; built with `|`, so that it equals what Python makes of the rendered text."""
        members: list[Any] = [member.to_python() for member in self.members] + [None] * self.nullable
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


TypeExpr = Scalar | Choice | ListOf | DictOf | OneOf


def union(members: list[TypeExpr], *, nullable: bool) -> TypeExpr:
    """One type out of at least one: nested unions are flattened and repetitions dropped, as Python does."""
    flat: dict[str, TypeExpr] = {}
    for member in members:
        nullable = nullable or (isinstance(member, OneOf) and member.nullable)
        for part in member.members if isinstance(member, OneOf) else (member,):
            flat.setdefault(part.render(), part)
    first, *rest = flat.values()
    return OneOf((first, *rest), nullable) if rest or nullable else first


def parse_type(text: str) -> TypeExpr:
    """The type that a text of the grammar means.

    Raises:
        TypeSyntaxError: saying where, what was found and what is allowed.
    """
    if len(text) > MAX_LENGTH:
        raise TypeSyntaxError(MAX_LENGTH, f"the type is longer than {MAX_LENGTH} characters")
    parser = _Parser(_tokens(text))
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


def _tokens(text: str) -> list[_Token]:
    tokens, position = [], 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            found = text[position]
            problem = "the string does not end" if found in "\"'" else f"unexpected {_shown(found)}"
            raise TypeSyntaxError(position, f"{problem} at {position}; allowed: {_ALLOWED}")
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

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
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
        return union(members, nullable=None in terms)

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
        name = self.expect("name", f"a type; allowed: {_ALLOWED}")
        if name.value == "None":
            return None
        if name.value in _SCALARS:
            return Scalar(name.value)  # type: ignore[arg-type]  # one of them, as just seen
        if name.value in _LATER:
            self._fail(name, f'type "{name.value}" at {name.position} is not supported yet; allowed: {_ALLOWED}')
        if name.value not in ("Literal", "list", "dict", "Optional"):
            self._fail(name, f"unknown type {_shown(name.value)} at {name.position}; allowed: {_ALLOWED}")
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


def _coerce_inside(type_: TypeExpr, value: object, where: str) -> Any:
    try:
        return type_.coerce(value)
    except ValueError as error:
        inner = str(error)
        raise ValueError(f"{where}{'' if inner.startswith('[') else ': '}{inner}") from None


def _wrong(expected: str, value: object, hint: str = "") -> ValueError:
    return ValueError(f"{expected}, found {_shown(value)}{hint}")


def _shown(value: object) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
