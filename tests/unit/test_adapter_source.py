"""Adapters: what each cannot read is refused before anything is paid, and only that; none falls back to another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.adapters.baml_adapter import BAMLAdapter

from dspy_operator.api.program import ObjectType, Program
from dspy_operator.api.promptprogram import Adapter
from dspy_operator.runner.program import check_program, load_program
from dspy_operator.runner.program_source import program_source

XML, BAML = {"type": "XML"}, {"type": "BAML", "constrained": "Disabled"}
TYPES = {
    "Line": ObjectType.model_validate(
        {"fields": [{"name": "sku", "type": "str"}, {"name": "price", "type": "float | None"}]}
    ),
    "Grade": ObjectType.model_validate({"fields": [{"name": "points", "type": "Literal[1, 2]"}]}),
}


def a_program(type_: str, *, input_type: str = "str") -> Program:
    signature = {
        "instructions": "Do.",
        "inputs": [{"name": "text", "type": input_type}],
        "outputs": [{"name": "answer", "type": type_}],
    }
    return Program.model_validate({"type": "Single", "single": {"signature": signature}})


def problems(adapter: dict[str, str], program: Program) -> list[str]:
    return [str(problem) for problem in check_program(program, TYPES, Adapter.model_validate(adapter))]


VALUES: list[tuple[str, list[Any]]] = [
    ("str", ["a < b & c", "x"]),
    ("int", [0, -3]),
    ("bool", [True, False]),
    ("int | str", [5, "five"]),
    ("int | None", [5, None]),
    ('Literal["a", "b"] | None', ["a", None]),
    ("Literal[1, 2]", [2]),
    ("list[str]", [[], [""], ["a", "<b> & c"]]),
    ("list[int] | None", [[1, 2], None]),
    ("list[list[int]]", [[[1], [2, 3]]]),
    ('list[Literal["1", "2"]]', [["1"]]),
    ("dict[str, float]", [{}, {"a b": 1.5, '"': 2.0, "c": 3.0}]),
    ("dict[str, bool | None]", [{"a": True, "b": None}]),
    ("Line", [{"sku": "s", "price": 0.5}, {"sku": "", "price": None}]),
    ("list[Line]", [[{"sku": "s", "price": 0.5}] * 2]),
    ("dict[str, Line]", [{"a": {"sku": "s", "price": None}}]),
]


@pytest.mark.parametrize(("type_", "values"), VALUES, ids=[type_ for type_, _ in VALUES])
def test_what_xml_is_allowed_for_comes_back_as_it_was(tmp_path: Path, type_: str, values: list[Any]) -> None:
    assert problems(XML, a_program(type_)) == []
    program = load_program(program_source("x", a_program(type_), Adapter.model_validate(XML), None, TYPES), tmp_path)
    signature = program.module.predictors()[0].signature
    for value in values:
        written = program.adapter.format_assistant_message_content(signature, {"answer": value})
        read = program.adapter.parse(signature, written)["answer"]
        dumped = dspy.adapters.utils.serialize_for_json(read)
        assert dumped == value
        assert type(dumped) is type(value)


@pytest.mark.parametrize(
    ("type_", "value", "unreadable"),
    [
        ("list[str] | dict[str, int]", {"a": 1}, "list[str] | dict[str, int]"),
        ("list[str] | bool", True, "list[str] | bool"),
        ("list[Literal[1, 2]]", [1], "Literal[1, 2]"),
        ("dict[str, int | str]", {"a": 1}, "int | str"),
        ("Grade", {"points": 2}, "Literal[1, 2]"),
        ("list[Grade] | None", [{"points": 2}], "Literal[1, 2]"),
    ],
)
def test_what_xml_would_read_as_something_else_is_refused(
    tmp_path: Path, type_: str, value: Any, unreadable: str
) -> None:
    (problem,) = problems(XML, a_program(type_))
    assert problem == (
        "spec.program.single.signature.outputs[0].type: "
        f"adapter XML cannot read {unreadable} back from text; adapter JSON or BAML can"
    )
    program = load_program(program_source("x", a_program(type_), None, None, TYPES), tmp_path)
    signature, adapter = program.module.predictors()[0].signature, dspy.XMLAdapter()
    written = adapter.format_assistant_message_content(signature, {"answer": value})
    try:
        read = dspy.adapters.utils.serialize_for_json(adapter.parse(signature, written)["answer"])
    except dspy.utils.exceptions.AdapterParseError:
        return
    assert read != value


@pytest.mark.parametrize("type_", ["Image", "Audio", "History"])
def test_baml_takes_no_input_that_it_writes_in_two_ways(type_: str) -> None:
    assert problems(XML, a_program("str", input_type=type_)) == []
    (problem,) = problems(BAML, a_program("str", input_type=type_))
    assert problem.startswith(
        f"spec.program.single.signature.inputs[0].type: adapter BAML writes {type_} in another way"
    )
    assert problems(BAML, a_program("list[int] | dict[str, int | Literal[1]]", input_type="Line")) == []


@pytest.mark.parametrize(
    ("adapter", "want"),
    [
        (None, dspy.ChatAdapter),
        (XML, dspy.XMLAdapter),
        ({"type": "JSON", "constrained": "Required"}, dspy.JSONAdapter),
        ({"type": "JSON", "constrained": "Disabled"}, dspy.JSONAdapter),
        (BAML, BAMLAdapter),
        ({"type": "BAML", "constrained": "Required"}, BAMLAdapter),
    ],
)
def test_each_is_dspys_own_and_can_be_made_without_arguments(tmp_path: Path, adapter: Any, want: Any) -> None:
    spec = Adapter.model_validate(adapter) if adapter else None
    made: Any = load_program(program_source("x", a_program("Line"), spec, None, TYPES), tmp_path).adapter
    assert isinstance(made, want)
    assert isinstance(made, dspy.JSONAdapter) or made.use_json_adapter_fallback is False
    assert type(type(made)()) is type(made)  # as DSPy's Refine does
