"""Named types: in terms of each other, never of themselves; what is wrong is told with its path and position."""

from __future__ import annotations

from typing import Any

import pytest

from dspy_operator.api.object_types import program_types
from dspy_operator.api.program import ObjectType, Program
from dspy_operator.api.signature_types import History
from dspy_operator.runner.program import check_program

SIGNATURE = "spec.program.single.signature"


def a_program(inputs: dict[str, str], outputs: dict[str, str], module: str = "Predict") -> Program:
    def fields(of: dict[str, str]) -> list[dict[str, str]]:
        return [{"name": name, "type": type_} for name, type_ in of.items()]

    signature = {"instructions": "Do.", "inputs": fields(inputs), "outputs": fields(outputs)}
    return Program.model_validate({"type": "Single", "single": {"signature": signature, "module": {"type": module}}})


def a_type(*fields: Any, **types: str) -> ObjectType:
    written = [*fields, *({"name": name, "type": type_} for name, type_ in types.items())]
    return ObjectType.model_validate({"fields": written})


def problems(types: dict[str, ObjectType], inputs: dict[str, str] | None = None, **outputs: str) -> list[str]:
    program = a_program(inputs or {"text": "str"}, outputs or {"answer": "str"})
    return [str(problem) for problem in check_program(program, types)]


def test_a_type_names_another_wherever_it_is_written() -> None:
    types = {
        "Order": a_type(lines="list[Line]"),
        "Line": a_type(product="Product | None"),
        "Product": a_type(sku="str"),
    }
    known = program_types(a_program({"orders": "dict[str, Order]"}, {"line": "Line"}), types)
    assert known.problems == ()
    assert list(known.objects) == ["Product", "Line", "Order"]
    assert known.fields["orders"].coerce({"a": {"lines": [{"product": {"sku": "b"}}]}}) == {
        "a": {"lines": [{"product": {"sku": "b"}}]}
    }
    with pytest.raises(
        ValueError, match=r'^\["a"\]\.lines\[0\]\.product: sku: must be a string, found 1; or must be null$'
    ):
        known.fields["orders"].coerce({"a": {"lines": [{"product": {"sku": 1}}]}})


@pytest.mark.parametrize(
    ("types", "want"),
    [
        pytest.param(
            {"A": a_type(next="Optional[A]")},
            'spec.types.A.fields[0].type: "A" holds itself: A.next -> A; a type may name others, not itself',
            id="itself",
        ),
        pytest.param(
            {"A": a_type(x="str", b="list[B]"), "B": a_type(c="dict[str, C]"), "C": a_type(a="A | str")},
            'spec.types.C.fields[0].type: "A" holds itself: A.b -> B.c -> C.a -> A; a type may name others, not itself',
            id="itself, through two others",
        ),
        pytest.param(
            {"Z": a_type(a="A"), "A": a_type(b="B"), "B": a_type(a="A")},
            'spec.types.B.fields[0].type: "A" holds itself: A.b -> B.a -> A; a type may name others, not itself',
            id="a circle that another leads to",
        ),
        pytest.param(
            {f"T{level}": a_type(x=f"T{level + 1}" if level < 5 else "str") for level in range(6)},
            'spec.types.T0: "T0" is nested too deep; at most 5 named types inside each other',
            id="six inside each other",
        ),
        pytest.param(
            {"Line": a_type(sku="str", day="list[Day]")},
            'spec.types.Line.fields[1].type: unknown type "Day" at 5; allowed: str, int, float, bool, Literal["a", "b"], '
            "list[T], dict[str, T], Optional[T], A | B, date, datetime, Line",
            id="an unknown name",
        ),
        pytest.param(
            {"Line": a_type(photo="Image")},
            'spec.types.Line.fields[0].type: "Image" at 0 is for the inputs of a signature only',
            id="an image inside",
        ),
        pytest.param(
            {"Line": a_type({"name": "sku", "type": "str", "minimum": 1})},
            "spec.types.Line.fields[0].minimum: is for a field of type int or float, or one of them and None; "
            '"sku" is str',
            id="the least of a text",
        ),
        pytest.param(
            {"Line": a_type({"name": "n", "type": "int | float", "maximum": 1})},
            'spec.types.Line.fields[0].maximum: is for a field of type int or float, or one of them and None; "n" is '
            "int | float",
            id="the greatest of two types",
        ),
        pytest.param(
            {"Path": a_type(x="str")},
            'spec.types.Path: "Path" cannot name a type: program.py uses it',
            id="a name of ours",
        ),
        pytest.param(
            {"Line": a_type(schema="str")},
            'spec.types.Line.fields[0].name: "schema" cannot be a field name: pydantic uses it',
            id="a name of pydantic's",
        ),
        pytest.param(
            {"Line": a_type(list="str")},
            'spec.types.Line.fields[0].name: "list" cannot be a field name: program.py uses it',
            id="a name of a type",
        ),
        pytest.param(
            {"Line": a_type(datetime="date")},
            'spec.types.Line.fields[0].name: "datetime" cannot be a field name: program.py uses it',
            id="datetime where there are dates",
        ),
    ],
)
def test_what_is_wrong_with_a_named_type_is_told_once_with_its_path(types: dict[str, ObjectType], want: str) -> None:
    assert problems(types) == [want]


@pytest.mark.parametrize(
    ("inputs", "outputs", "want"),
    [
        pytest.param(
            {"text": "str"},
            {"photo": "Image"},
            f'{SIGNATURE}.outputs[0].type: "Image" at 0 is for inputs only: no model answers with one',
            id="an image as an answer",
        ),
        pytest.param(
            {"text": "str"},
            {"voice": "Audio"},
            f'{SIGNATURE}.outputs[0].type: "Audio" at 0 is for inputs only: no model answers with one',
            id="a sound as an answer",
        ),
        pytest.param(
            {"text": "str"},
            {"a": "str", "chat": "History"},
            f'{SIGNATURE}.outputs[1].type: "History" at 0 is for inputs only: no model answers with one',
            id="a history as an answer",
        ),
        pytest.param(
            {"one": "History", "text": "str", "two": "History"},
            {"a": "str"},
            f'{SIGNATURE}.inputs[2].type: a signature has one History; "one" is one already',
            id="two histories",
        ),
        pytest.param(
            {"datetime": "str"},
            {"day": "list[date]"},
            f'{SIGNATURE}.inputs[0].name: "datetime" cannot be a field name: program.py uses it',
            id="a field called datetime beside a date",
        ),
    ],
)
def test_what_is_wrong_with_a_signature_is_told_with_its_path(
    inputs: dict[str, str], outputs: dict[str, str], want: str
) -> None:
    assert problems({}, inputs, **outputs) == [want]


def test_a_field_may_be_called_datetime_where_there_is_no_date() -> None:
    assert problems({}, {"datetime": "str"}) == []


def test_types_that_hold_many_of_each_other_are_looked_into_once() -> None:
    wide = {f"T{level}": a_type(**{f"f{n}": f"T{level + 1}" for n in range(32)}) for level in range(4)}
    assert problems(wide | {"T4": a_type(x="date")}, {"text": "T0"}) == []


def test_a_history_is_of_the_signature_that_it_stands_in() -> None:
    fields = program_types(
        a_program({"chat": "History", "text": "str"}, {"line": "Line"}, "ChainOfThought"), {"Line": a_type(n="int")}
    ).fields
    history = fields["chat"]
    assert isinstance(history, History)
    assert [name for name, _ in history.fields] == ["text", "line"]
    assert history.thought
    with pytest.raises(ValueError, match=r"^messages\[0\]\.line\.n: must be a whole number"):
        history.coerce({"messages": [{"text": "a", "line": {"n": "b"}}]})
