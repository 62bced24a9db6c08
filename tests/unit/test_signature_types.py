"""The grammar of field types: what it means, what it refuses and how it says so."""

from __future__ import annotations

import json
import typing
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from dspy_operator.api.signature_types import (
    Audio,
    Choice,
    DictOf,
    History,
    Image,
    ListOf,
    Member,
    Moment,
    Object,
    OneOf,
    Scalar,
    TypeExpr,
    TypeSyntaxError,
    comparable,
    iso,
    parse_type,
    python_string,
    union,
)

_LINE = Object(
    "Line",
    (
        Member("sku", Scalar("str")),
        Member("count", Scalar("int"), minimum=1, maximum=9),
        Member("price", OneOf((Scalar("float"),), nullable=True)),
    ),
)
_ORDER = Object(
    "Order",
    (Member("lines", ListOf(_LINE)), Member("day", Moment("date")), Member("at", Moment("datetime"))),
)
OBJECTS = {"Line": _LINE, "Order": _ORDER}
LINE = {"sku": "a", "count": 1, "price": None}
A_SOUND = "must be a data URI as data:audio/wav;base64,... or data:audio/mp3;base64,..."
WAV = "data:audio/wav;base64,UklGRg=="
AN_IMAGE = "must be the URL of an image (https://..., data:image/png;base64,...)"
ORDER = {"lines": [LINE], "day": "2026-11-26", "at": "2026-11-26T10:00:00Z"}


@pytest.mark.parametrize(
    ("text", "want_rendered", "want_python"),
    [
        pytest.param("str", "str", str, id="a scalar is itself"),
        pytest.param("  list [ int ]\n", "list[int]", list[int], id="white space between the parts is free"),
        pytest.param(
            "Literal['a', \"b\"]", 'Literal["a", "b"]', Literal["a", "b"], id="choices are rendered in double quotes"
        ),
        pytest.param(
            "Literal['say \"hi\"']",
            "Literal['say \"hi\"']",
            Literal['say "hi"'],
            id="a choice with double quotes takes single ones",
        ),
        pytest.param(
            r'Literal["a\\b\"c\u200d"]', r"""Literal['a\\b"c\u200d']""", Literal['a\\b"c\u200d'], id="escapes survive"
        ),
        pytest.param("Literal[-1, 2]", "Literal[-1, 2]", Literal[-1, 2], id="numbers can be choices"),
        pytest.param(
            "Literal[True, False]", "Literal[True, False]", Literal[True, False], id="truth values can be choices"
        ),
        pytest.param("Optional[str]", "str | None", str | None, id="Optional is a union with None"),
        pytest.param("None | str", "str | None", str | None, id="None is rendered last"),
        pytest.param("Optional[Optional[int] | str]", "int | str | None", int | str | None, id="unions are flat"),
        pytest.param("int | str | int", "int | str", int | str, id="a repeated member is dropped"),
        pytest.param(
            "dict[str, list[Literal['x'] | None]]",
            'dict[str, list[Literal["x"] | None]]',
            dict[str, list[Literal["x"] | None]],
            id="types nest",
        ),
    ],
)
def test_a_type_has_one_canonical_text_and_one_python_meaning(
    text: str, want_rendered: str, want_python: object
) -> None:
    parsed = parse_type(text)
    assert parsed.render() == want_rendered
    assert parsed.to_python() == want_python


def test_1_and_true_are_two_choices_although_python_calls_them_equal() -> None:
    assert parse_type("Literal[1] | Literal[True]").render() == "Literal[1] | Literal[True]"


@pytest.mark.parametrize(
    ("text", "want_position", "want_message"),
    [
        pytest.param(
            "list[Date]",
            5,
            'unknown type "Date" at 5; allowed: str, int, float, bool, Literal["a", "b"], list[T]',
            id="an unknown type",
        ),
        pytest.param(
            "audio",
            0,
            "Optional[T], A | B, date, datetime, Image, Audio, History; did you mean Audio?",
            id="a type in small letters",
        ),
        pytest.param("dspy.Image", 0, 'unknown type "dspy.Image" at 0; allowed: str', id="a dotted name"),
        pytest.param(
            "Image | str", 0, '"Image" at 0 stands alone: write type: Image, nothing beside it', id="an image or a text"
        ),
        pytest.param("list[History]", 5, '"History" at 5 stands alone', id="several conversations"),
        pytest.param("list[Lines]", 5, 'unknown type "Lines" at 5; allowed: str', id="a named type that there is not"),
        pytest.param(
            "list[datetime | None | Optional[date]]",
            5,
            "date beside datetime at 5: midnight could be either; take one of them",
            id="a date or a datetime",
        ),
        pytest.param("date[str]", 4, 'found "[" at 4, expected the end of the type', id="an argument of a date"),
        pytest.param("", 0, "found the end at 0, expected a type; allowed: str", id="nothing"),
        pytest.param("list", 4, 'found the end at 4, expected "[" after list, as in list[str]', id="a list of nothing"),
        pytest.param("list[str", 8, 'found the end at 8, expected "]" to close list', id="an open bracket"),
        pytest.param(
            "dict[int, str]",
            5,
            'found "int" at 5, expected str: the keys of a dict are strings',
            id="a dict with other keys",
        ),
        pytest.param(
            "dict[str]", 8, 'found "]" at 8, expected "," and the type of the values', id="a dict without values"
        ),
        pytest.param(
            "str int",
            4,
            'found "int" at 4, expected the end of the type, or "|" and another type',
            id="two types without a bar",
        ),
        pytest.param("None", 0, "None alone at 0 is no type", id="None alone"),
        pytest.param("str | ", 6, "found the end at 6, expected a type", id="a bar without a right side"),
        pytest.param(
            "Literal[billing]",
            8,
            'found "billing" at 8, expected a value: "text" in quotes',
            id="a choice without quotes",
        ),
        pytest.param("Literal[]", 8, 'found "]" at 8, expected a value', id="no choices"),
        pytest.param("Literal[1.5]", 9, 'unexpected "." at 9', id="a fraction as a choice"),
        pytest.param(
            'Literal["a", 1]',
            13,
            "1 at 13: the values of one Literal are of one kind; join two with |",
            id="choices of two kinds",
        ),
        pytest.param('Literal["a", "a"]', 13, '"a" at 13 is there twice', id="a choice twice"),
        pytest.param('Literal["a ]', 8, "the string does not end at 8", id="an open string"),
        pytest.param(
            'Literal[" a"]', 8, 'white space around the value " a" at 8', id="a choice that an answer can never hold"
        ),
        pytest.param('Literal["a\nb"]', 8, "control character in the value at 8", id="a choice over two lines"),
        pytest.param(r'Literal["a\d"]', 10, r'unknown escape "\\d" at 10', id="an unknown escape"),
        pytest.param(
            "list[" * 6 + "str" + "]" * 6,
            25,
            '"list" at 25 is nested too deep; at most 5',
            id="six brackets inside each other",
        ),
        pytest.param("str|" * 600 + "str", 2048, "longer than 2048 characters", id="a text without end"),
        pytest.param("__import__('os')", 10, 'unexpected "(" at 10', id="a call"),
    ],
)
def test_a_text_outside_the_grammar_is_refused_with_its_position(
    text: str, want_position: int, want_message: str
) -> None:
    with pytest.raises(TypeSyntaxError) as refused:
        parse_type(text)
    assert refused.value.position == want_position
    assert want_message in str(refused.value)


@pytest.mark.parametrize(
    ("type_text", "value", "want"),
    [
        pytest.param("str", "5", "5", id="a string is a string"),
        pytest.param("int", 5.0, 5, id="5.0 is a whole number"),
        pytest.param("float", 5, 5.0, id="5 is a number"),
        pytest.param('Literal["1", "2"]', 1, "1", id="a number means the choice of its text"),
        pytest.param("Literal[1, 2]", "2", 2, id="a text means the choice of its number"),
        pytest.param("Literal[True, False]", "false", False, id="a text means the choice of its truth value"),
        pytest.param("list[float]", [1, 2.5], [1.0, 2.5], id="each item of a list"),
        pytest.param("dict[str, float]", {"b": 1, "a": 2}, {"b": 1.0, "a": 2.0}, id="each value of a dict"),
        pytest.param("str | None", None, None, id="null where it is allowed"),
        pytest.param("float | int", 1, 1, id="the member that takes the value unchanged comes first"),
        pytest.param("bool | int", 1, 1, id="1 is not true"),
        pytest.param("float | str", 1, 1.0, id="else the first that takes it"),
        pytest.param("date", "2026-11-26", "2026-11-26", id="a date stays its text"),
        pytest.param("datetime", "2026-11-26 10:00", "2026-11-26T10:00:00", id="a datetime has seconds and a T"),
        pytest.param("datetime", "2026-11-26T10:00:00+00:00", "2026-11-26T10:00:00Z", id="an offset of zero is Z"),
        pytest.param(
            "datetime", "2026-11-26T10:00:00.5-05:00", "2026-11-26T10:00:00.500000-05:00", id="an offset stays"
        ),
        pytest.param("str | date", "2026-11-26", "2026-11-26", id="a date beside a text"),
        pytest.param("Image", "https://example.com/a.png?b=c", "https://example.com/a.png?b=c", id="an image by URL"),
        pytest.param("Image", "data:image/png;base64,iVBORw0=", "data:image/png;base64,iVBORw0=", id="an image itself"),
        pytest.param("Audio", WAV, WAV, id="a sound"),
        pytest.param("Audio", WAV.replace("wav", "x-wav"), WAV, id="a sound under another name"),
        pytest.param("Audio", WAV.replace("wav", "mpeg"), WAV.replace("wav", "mp3"), id="MP3 by its usual name"),
        pytest.param("Order", ORDER, ORDER, id="an object in an object"),
        pytest.param(
            "Line", {"price": 2, "sku": "a", "count": 1.0}, {"sku": "a", "count": 1, "price": 2.0}, id="fields"
        ),
        pytest.param("Line | None", None, None, id="null where an object is optional"),
    ],
)
def test_a_value_is_taken_as_its_type(type_text: str, value: object, want: object) -> None:
    taken = parse_type(type_text, OBJECTS).coerce(value)
    assert json.dumps(taken) == json.dumps(want)


@pytest.mark.parametrize(
    ("type_text", "value", "want_message"),
    [
        pytest.param("str", 5, "must be a string, found 5", id="a number is no string"),
        pytest.param("str", None, "must be a string, found null", id="null is no string"),
        pytest.param("int", "5", 'must be a whole number, found "5": write 5 without quotes', id="a quoted number"),
        pytest.param("int", 5.5, "must be a whole number, found 5.5", id="a fraction is no whole number"),
        pytest.param("int", True, "must be a whole number, found true", id="true is no number"),
        pytest.param("float", float("nan"), "must be a number, found NaN", id="NaN is no number"),
        pytest.param(
            "bool", "true", 'must be true or false, found "true": write true without quotes', id="a quoted truth value"
        ),
        pytest.param("bool", 1, "must be true or false, found 1", id="1 is not true"),
        pytest.param('Literal["a", "b"]', "c", 'must be one of "a", "b"; found "c"', id="another choice"),
        pytest.param("Literal[1, 2]", True, "must be one of 1, 2; found true", id="true is not the choice 1"),
        pytest.param("list[str]", "a", 'must be a list, found "a"', id="a string is no list"),
        pytest.param(
            "list[dict[str, int]]",
            [{"a": 1}, {"b": "x"}],
            '[1]["b"]: must be a whole number, found "x"',
            id="deep inside",
        ),
        pytest.param("dict[str, int]", {1: 1}, "must have string keys, found 1", id="a dict with other keys"),
        pytest.param("int | None", "x", 'must be a whole number, found "x"; or must be null', id="no member takes it"),
        pytest.param("date", "26.11.2026", 'must be a date as "2026-11-26", found "26.11.2026"', id="another date"),
        pytest.param(
            "date", "2026-02-30", 'must be a day and time that there is, found "2026-02-30"', id="a day that is none"
        ),
        pytest.param("date", 20261126, 'must be a date as "2026-11-26", found 20261126', id="a number is no date"),
        pytest.param(
            "datetime",
            "2026-11-26",
            'must be a datetime as "2026-11-26T10:00:00Z", found "2026-11-26"',
            id="a day without a time",
        ),
        pytest.param(
            "Image",
            "/tmp/a.png",
            f'{AN_IMAGE}, found "/tmp/a.png"',
            id="a file is no image",
        ),
        pytest.param("Image", "https:///a", f'{AN_IMAGE}, found "https:///a"', id="a URL without a host"),
        pytest.param("Image", "https://[a", f'{AN_IMAGE}, found "https://[a"', id="a URL with an open bracket"),
        pytest.param(
            "Image",
            "data:text/plain;base64,YQ==",
            'must be a data URI of an image as data:image/png;base64,..., found "data:text/plain;base64,YQ=="',
            id="a text is no image",
        ),
        pytest.param(
            "Image",
            "data:image/png;base64,***",
            'must be a data URI in base64 (Only base64 data is allowed), found "data:image/png;base64,***"',
            id="no base64",
        ),
        pytest.param(
            "Audio",
            "https://example.com/a.wav",
            f'{A_SOUND}, found "https://example.com/a.wav"',
            id="no URL of a sound: nobody would fetch it",
        ),
        pytest.param("Audio", WAV.replace("wav", "ogg"), f'{A_SOUND}, found "{WAV.replace("wav", "ogg")}"', id="Ogg"),
        pytest.param("Audio", "data:audio/wav;base64,", f'{A_SOUND}, found "data:audio/wav;base64,"', id="no sound"),
        pytest.param("Audio", 5, f"{A_SOUND}, found 5", id="a number is no sound"),
        pytest.param(
            "Audio",
            "data:audio/wav;base64,***",
            'must be a data URI in base64 (Only base64 data is allowed), found "data:audio/wav;base64,***"',
            id="no base64 of a sound",
        ),
        pytest.param("Line", "a", 'must be an object with sku, count, price, found "a"', id="a text is no object"),
        pytest.param("Line", {"sku": "a"}, "count: is missing (an object holds sku, count, price)", id="a field less"),
        pytest.param(
            "Line",
            {"sku": "a", "count": 1, "price": None, "x": 1},
            'unknown field "x"; allowed: sku, count, price',
            id="a field more",
        ),
        pytest.param(
            "dict[str, Order]",
            {"a": {**ORDER, "lines": [LINE, {**LINE, "count": 0}]}},
            '["a"].lines[1].count: must be at least 1, found 0',
            id="a bound deep inside",
        ),
        pytest.param(
            "Order",
            {**ORDER, "lines": [{**LINE, "count": "two"}]},
            'lines[0].count: must be a whole number, found "two"',
            id="a path that begins with a field",
        ),
        pytest.param("Line", {**LINE, "count": 10}, "count: must be at most 9, found 10", id="above the greatest"),
        pytest.param(
            "History", [{"a": 1}], 'must be an object as {"messages": [...]}, found [{"a": 1}]', id="messages alone"
        ),
    ],
)
def test_a_value_of_another_type_is_refused_in_words(type_text: str, value: object, want_message: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse_type(type_text, OBJECTS).coerce(value)
    assert str(refused.value) == want_message


CHAT = History((("question", Scalar("str")), ("asked", Moment("date")), ("line", OBJECTS["Line"])), thought=True)


def test_a_history_holds_the_other_fields_of_its_signature_in_their_order() -> None:
    turn = {"line": LINE, "question": "why?", "asked": "2026-11-26"}
    taken = CHAT.coerce({"messages": [turn, {**turn, "reasoning": "because"}]})
    assert [list(message) for message in taken["messages"]] == [
        ["question", "asked", "line"],
        ["question", "asked", "line", "reasoning"],
    ]
    with pytest.raises(ValueError, match=r"^messages\[1\]\.line\.count: must be at least 1, found 0$"):
        CHAT.coerce({"messages": [turn, {**turn, "line": {**LINE, "count": 0}}]})
    with pytest.raises(ValueError, match=r"^messages\[0\]: unknown field \"answer\"; allowed: question, asked, line$"):
        CHAT.coerce({"messages": [{**turn, "answer": "x"}]})
    with pytest.raises(ValueError, match=r"^messages\[0\]\.asked: is missing"):
        CHAT.coerce({"messages": [{"question": "x", "line": LINE}]})
    with pytest.raises(ValueError, match=r'^messages: must be a list, found "x"$'):
        CHAT.coerce({"messages": "x"})


@pytest.mark.parametrize(
    ("type_text", "one", "other", "want"),
    [
        pytest.param("datetime", "2026-11-26T10:00:00Z", "2026-11-26T11:00:00+01:00", True, id="two offsets"),
        pytest.param("datetime", "2026-11-26T10:00:00", "2026-11-26T10:00:00Z", False, id="with and without an offset"),
        pytest.param("str", "2026-11-26T10:00:00Z", "2026-11-26T11:00:00+01:00", False, id="texts"),
        pytest.param("str | datetime", "2026-11-26T10:00:00Z", "2026-11-26T11:00:00+01:00", False, id="a text first"),
        pytest.param(
            "list[datetime | None]",
            [None, "2026-11-26T10:00:00Z"],
            [None, "2026-11-26T11:00:00+01:00"],
            True,
            id="in a list",
        ),
        pytest.param(
            "Order", ORDER, {**ORDER, "at": "2026-11-26T12:00:00+02:00"}, True, id="in an object of another order"
        ),
    ],
)
def test_datetimes_of_one_moment_compare_as_equal(type_text: str, one: object, other: object, want: bool) -> None:
    type_ = parse_type(type_text, OBJECTS)
    assert (comparable(type_, one) == comparable(type_, other)) == want


_OFFSETS = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(timezones=st.none() | st.just(UTC) | _OFFSETS), st.dates())
def test_what_we_write_of_a_moment_is_what_pydantic_writes_and_is_read_back(moment: datetime, day: date) -> None:
    text = iso(moment)
    assert TypeAdapter(datetime).dump_python(moment, mode="json") == text
    assert Moment("datetime").coerce(text) == text
    assert datetime.fromisoformat(text) == moment
    assert TypeAdapter(date).dump_python(day, mode="json") == iso(day) == Moment("date").coerce(iso(day))


def _choices() -> st.SearchStrategy[TypeExpr]:
    texts = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=8).map(str.strip)
    kinds: list[st.SearchStrategy[list[Any]]] = [
        st.lists(texts, min_size=1, max_size=4, unique=True),
        st.lists(st.integers(-999, 999), min_size=1, max_size=4, unique=True),
        st.lists(st.booleans(), min_size=1, max_size=2, unique=True),
    ]
    return st.one_of(kinds).map(lambda values: Choice(tuple(values)))


def _parses(type_: TypeExpr) -> bool:
    return not isinstance(type_, OneOf) or [type(member) for member in type_.members].count(Moment) < 2


def _types(depth: int = 3) -> st.SearchStrategy[TypeExpr]:
    scalars: list[TypeExpr] = [Scalar("str"), Scalar("int"), Scalar("float"), Scalar("bool")]
    leaves = st.sampled_from([*scalars, Moment("date"), Moment("datetime"), *OBJECTS.values()]) | _choices()
    if not depth:
        return leaves
    inner = _types(depth - 1)
    unions = st.builds(
        lambda members, nullable: union(members, nullable=nullable),
        st.lists(inner, min_size=1, max_size=3),
        st.booleans(),
    ).filter(_parses)
    return leaves | inner.map(ListOf) | inner.map(DictOf) | unions


MEANINGS: dict[str, object] = {name: type(name, (), {}) for name in (*OBJECTS, "Image", "Audio", "History")}


@given(_types() | st.sampled_from([Image(), Audio(), History()]))
@settings(max_examples=300, deadline=None)
def test_what_a_type_renders_to_parses_to_the_same_type(type_: TypeExpr) -> None:
    assert parse_type(type_.render(), OBJECTS) == type_
    # Python itself reads the rendered text as the type that we build without evaluating it.
    names = {"Literal": typing.Literal, "date": date, "datetime": datetime} | MEANINGS
    assert eval(type_.render(), names) == type_.to_python(MEANINGS)


_PIECES = [
    "list",
    "dict",
    "str",
    "None",
    "Literal",
    "Optional",
    "[",
    "]",
    ",",
    "|",
    '"a"',
    "-1",
    "'",
    '"',
    "\\",
    "True",
    "date",
    "Image",
    "History",
    "Audio",
    "Line",
    "Order",
]


@given(st.text(max_size=60) | st.lists(st.sampled_from(_PIECES), max_size=20).map(" ".join))
@settings(max_examples=500, deadline=None)
def test_any_text_is_a_type_or_a_syntax_error(text: str) -> None:
    try:
        parsed = parse_type(text, OBJECTS)
    except TypeSyntaxError as error:
        place = error.position
    else:
        place = 0
        assert parse_type(parsed.render(), OBJECTS) == parsed
    assert 0 <= place <= len(text)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


_MOMENTS = st.datetimes(timezones=st.none() | st.just(UTC)).map(iso) | st.dates().map(iso)


def _values(type_: TypeExpr) -> st.SearchStrategy[Any]:
    """Values that mostly are of the type."""
    match type_:
        case Moment():
            return _MOMENTS
        case ListOf(inner):
            return st.lists(_values(inner), max_size=3)
        case DictOf(inner):
            return st.dictionaries(st.text(max_size=3), _values(inner), max_size=3)
        case OneOf(members=members):
            return st.one_of([_values(member) for member in members]) | st.none()
        case Choice(values):
            return st.sampled_from(values)
        case Object(_, members):
            fields = {member.name: _values(member.type) for member in members}
            return st.permutations(list(fields)).flatmap(
                lambda names: st.fixed_dictionaries({n: fields[n] for n in names})
            )
        case Scalar("str"):
            return st.text(max_size=5)
    return st.integers(0, 9) | st.booleans() | st.floats(allow_nan=False, allow_infinity=False)


@given(st.data(), _types(2))
@settings(max_examples=300, deadline=None)
def test_taking_a_value_twice_changes_nothing_more(data: st.DataObject, type_: TypeExpr) -> None:
    try:
        taken = type_.coerce(data.draw(_JSON | _values(type_)))
    except ValueError:
        return
    again = type_.coerce(taken)
    assert again == taken
    assert json.dumps(again) == json.dumps(taken)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_a_python_string_means_its_text_and_shows_all_of_it(text: str) -> None:
    literal = python_string(text)
    assert eval(literal) == text
    assert literal.isprintable()
