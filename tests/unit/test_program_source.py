"""program.py: the same text each time, readable, stable under the formatter, and true to what was written."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import dspy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_operator.api.object_types import program_types
from dspy_operator.api.program import ObjectType, Program
from dspy_operator.api.promptprogram import Adapter, SamplingRequest
from dspy_operator.api.signature_types import parse_type
from dspy_operator.runner.layout import settled_instructions
from dspy_operator.runner.program import check_program, load_program
from dspy_operator.runner.program_source import program_source

pytestmark = pytest.mark.unmeasured

LABELS = "Literal[" + ", ".join(f'"label number {number}"' for number in range(12)) + "]"
CHAT, SCHEMA, WORDS = None, {"type": "JSON", "constrained": "Required"}, {"type": "JSON", "constrained": "Disabled"}
XML, BAML = {"type": "XML"}, {"type": "BAML", "constrained": "Disabled"}
VISIBLE = st.characters(exclude_categories=["Cs"])


def a_field(name: str, type_: str = "str", description: str | None = None) -> dict[str, str]:
    return {"name": name, "type": type_} | ({"description": description} if description is not None else {})


def a_program(
    *outputs: dict[str, str], instructions: str = "Classify.", inputs: tuple[dict[str, str], ...] = (a_field("ticket"),)
) -> Program:
    signature = {"instructions": instructions, "inputs": list(inputs), "outputs": list(outputs or (a_field("label"),))}
    return Program.model_validate({"type": "Single", "single": {"signature": signature}})


def source_of(program: Program, adapter: dict[str, str] | None = CHAT, request: SamplingRequest | None = None) -> str:
    return program_source("my-triage", program, Adapter.model_validate(adapter) if adapter else None, request)


def ruff(*arguments: str, source: str) -> str:
    command = [
        sys.executable,
        "-m",
        "ruff",
        *arguments,
        "--isolated",
        "--line-length",
        "120",
        "--stdin-filename",
        "program.py",
        "-",
    ]
    return subprocess.run(command, input=source, capture_output=True, text=True, encoding="utf-8", check=True).stdout


def class_in(source: str, name: str) -> ast.ClassDef:
    return next(node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == name)


def instructions_in(source: str) -> str:
    """What DSPy reads: `Signature.instructions` is `inspect.cleandoc` of the docstring."""
    docstring = ast.get_docstring(class_in(source, "MyTriageSignature"), clean=False)
    assert docstring is not None
    return inspect.cleandoc(docstring)


def repeated(
    module: str, outputs: int, inputs: int, pattern: str = "^[a-z]+$", type_: str = "str", /, **more: Any
) -> Program:
    reward = {"type": "Regex", "regex": {"field": "label", "pattern": pattern}}
    options = {"attempts": 3, "threshold": "1", "reward": reward, **more}
    members: dict[str, Any] = {
        "BestOfN": {"bestOfN": options},
        "Refine": {"refine": options},
        "MultiChainComparison": {},
    }
    document = a_program(
        a_field("label", type_),
        *(a_field(f"output_{place}") for place in range(outputs)),
        inputs=tuple(a_field(f"{'input' * 4}_{place}") for place in range(inputs)),
    ).document()
    document["single"]["module"] = {"type": module, **members[module]}
    return Program.model_validate(document)


SHAPES = [
    pytest.param(a_program(), CHAT, None, id="the smallest program"),
    pytest.param(a_program(a_field("label", LABELS, "one of many")), SCHEMA, None, id="a long Literal"),
    pytest.param(
        a_program(a_field("labels", f"list[{LABELS}]"), a_field("labels_", f"dict[str, {LABELS}]")),
        WORDS,
        None,
        id="long lists and dicts",
    ),
    pytest.param(
        a_program(a_field("label", f"Optional[{LABELS}]"), a_field("by", f"dict[str, {LABELS} | int]")),
        CHAT,
        None,
        id="long unions",
    ),
    pytest.param(
        a_program(a_field("deep", f"dict[str, dict[str, list[{LABELS}] | None]]")),
        CHAT,
        None,
        id="a long type deep inside",
    ),
    pytest.param(
        a_program(a_field("label", 'list[Literal["' + "x" * 130 + '"]]')), CHAT, None, id="a value that fits no line"
    ),
    pytest.param(
        a_program(a_field("n" * 63, f'Literal["{"a" * 40}", "b"]', "d" * 100), a_field("m" * 63, LABELS)),
        CHAT,
        None,
        id="names of 63 characters",
    ),
    pytest.param(
        a_program(a_field("label", "str", "long " * 50 + '"'), a_field("x", "str", "it's\n\"\\")),
        CHAT,
        None,
        id="long descriptions and quotes",
    ),
    pytest.param(
        a_program(inputs=tuple(a_field(f"{'input' * 8}_{place}") for place in range(4))), CHAT, None, id="many inputs"
    ),
    pytest.param(
        a_program(),
        CHAT,
        SamplingRequest.model_validate({"temperature": "0.70", "topP": "1", "maxTokens": 5, "stop": ["\n\n"]}),
        id="a request",
    ),
    pytest.param(
        a_program(),
        CHAT,
        SamplingRequest.model_validate({"stop": ["x" * 60, "y" * 60]}),
        id="a request with long stops",
    ),
    pytest.param(
        a_program(), CHAT, SamplingRequest.model_validate({"stop": ["x" * 128] * 4}), id="a request with longer stops"
    ),
    *(
        pytest.param(repeated(module, 1, inputs), CHAT, None, id=f"{module} with {inputs} inputs")
        for module in ("BestOfN", "Refine", "MultiChainComparison")
        for inputs in (1, 2, 3, 9)
    ),
    *(
        pytest.param(
            repeated("Refine", 0, 1, "x" * width, "int", module="ChainOfThought", attempts=64, failCount=64),
            SCHEMA,
            None,
            id=f"a pattern of {width} characters",
        )
        for width in (100, 101, 102, 103, 104, 105, 106, 109, 110, 111, 112, 113)
    ),
    *(
        pytest.param(
            a_program(
                a_field("b", f'Literal["{"z" * (width - 60)}", "y"]'),
                instructions="x" * width,
                inputs=(a_field("a", "str", "y" * (width - 32)),),
            ),
            CHAT,
            None,
            id=f"lines of about {width} characters",
        )
        for width in range(104, 124)
    ),
]


@pytest.mark.parametrize(("program", "adapter", "request_"), SHAPES)
def test_the_formatter_and_the_linter_have_nothing_to_change(
    program: Program, adapter: Any, request_: SamplingRequest | None
) -> None:
    source = source_of(program, adapter, request_)
    assert ruff("format", source=source) == source
    # Only a string that a person wrote may be longer than the line.
    assert ruff("check", "--select", "E,F,I,B,UP", "--ignore", "E501", source=source).strip() == "All checks passed!"
    assert source_of(program, adapter, request_) == source


@given(
    st.text(VISIBLE, min_size=1)
    | st.lists(st.sampled_from([" ", "\n", "\\", '"', '"""', "'", "\t", "x", "é\u200b", "\r", "\x85"])).map("".join)
)
@settings(max_examples=60, deadline=None)
def test_any_instructions_survive_in_a_docstring_that_the_formatter_leaves_alone(text: str) -> None:
    want = settled_instructions(text)
    source = source_of(a_program(instructions=text or " "))
    assert instructions_in(source) == want
    assert ruff("format", source=source) == source


@given(st.text(VISIBLE) | st.lists(st.sampled_from([" ", "\n", "x", "\t", "\xa0"])).map("".join))
@settings(max_examples=300, deadline=None)
def test_settled_instructions_are_changed_by_no_further_copy(text: str) -> None:
    settled = settled_instructions(text)
    assert inspect.cleandoc(settled) == settled_instructions(settled) == settled


@pytest.mark.parametrize(
    ("text", "want"),
    [
        pytest.param("Classify.\n", "Classify.", id="the newline of a YAML block goes"),
        pytest.param("A:\n\n  - b\n    - c\nd", "A:\n\n  - b\n    - c\nd", id="indentation that means something stays"),
        pytest.param("  A:\n    - b\n    - c", "A:\n- b\n- c", id="common indentation goes"),
        pytest.param("\n\nA:\n  - b", "A:\n- b", id="what DSPy would take away at its second copy goes at once"),
        pytest.param("a\tb  \nc", "a       b  \nc", id="tabs become spaces, spaces at the end of a line stay"),
    ],
)
def test_instructions_are_settled_as_dspy_keeps_them(text: str, want: str) -> None:
    assert settled_instructions(text) == want
    assert instructions_in(source_of(a_program(instructions=text))) == want


@given(st.text(VISIBLE, min_size=1), st.text(VISIBLE, min_size=1))
@settings(max_examples=60, deadline=None)
def test_any_description_survives(ours: str, theirs: str) -> None:
    source = source_of(a_program(a_field("label", "str", ours), inputs=(a_field("ticket", "str", theirs),)))
    fields = [node for node in class_in(source, "MyTriageSignature").body if isinstance(node, ast.AnnAssign)]
    assert [ast.literal_eval(node.value.keywords[0].value) for node in fields if isinstance(node.value, ast.Call)] == [
        theirs,
        ours,
    ]


@pytest.mark.parametrize("type_", [LABELS, f"list[{LABELS} | None]", f"dict[str, dict[str, {LABELS}] | int]"])
def test_a_long_type_means_the_same_under_its_name(type_: str) -> None:
    source = source_of(a_program(a_field("label", type_)))
    alias = next(
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LabelType"
    )
    # Without the commas that keep the formatter from joining lines.
    assert parse_type(ast.unparse(alias.value)) == parse_type(type_)


TYPES = {
    name: ObjectType.model_validate({"fields": fields})
    for name, fields in {
        "Order": [
            {"name": "lines", "type": "list[Line]", "description": "In the order of the paper.\n" * 6},
            {"name": "due", "type": "Optional[datetime]"},
            {"name": "by", "type": f"dict[str, Line | {LABELS}]", "description": "who"},
        ],
        "Line": [
            {"name": "sku", "type": "str", "description": 'the "number"'},
            {"name": "quantity", "type": "int", "minimum": 1},
            {"name": "weight", "type": "float | None", "minimum": -1, "maximum": 9, "description": "in kg, " * 9},
            {"name": "state", "type": LABELS},
            {"name": "b" * 63, "type": "int", "minimum": 1, "maximum": 2, "description": "c" * 40},
            {"name": "d" * 63, "type": "int", "minimum": 1, "maximum": 2, "description": "e" * 140},
        ],
        "MyTriageSignature": [{"name": "day", "type": "date"}],
        "LabelType": [{"name": "a", "type": "bool"}],
    }.items()
}
HEARD = a_program(
    a_field("label", LABELS),
    inputs=(a_field("voice", "Audio", "what the caller says"), a_field("chat", "History"), a_field("text", "str")),
)
RICH = a_program(
    a_field("order", "Order", "what was ordered"),
    a_field("days", "list[date | MyTriageSignature]"),
    a_field("label", f"{LABELS} | LabelType"),
    inputs=(a_field("scan", "Image", "of the paper"), a_field("chat", "History"), a_field("asked", "datetime")),
)


@pytest.mark.parametrize("adapter", [CHAT, SCHEMA, WORDS, XML, BAML, {**BAML, "constrained": "Required"}])
def test_named_types_become_models_that_read_as_a_person_writes_them(tmp_path: Path, adapter: Any) -> None:
    spec = Adapter.model_validate(adapter) if adapter else None
    assert check_program(RICH, TYPES) == []
    source = program_source("my-triage", RICH, spec, None, TYPES)
    assert program_source("my-triage", RICH, spec, None, dict(reversed(TYPES.items()))) == source
    assert ruff("format", source=source) == source
    checked = ruff("check", "--select", "E,F,I,B,UP", "--ignore", "E501", source=source)
    assert checked.strip() == "All checks passed!"

    signature = load_program(source, tmp_path).module.predictors()[0].signature
    order = signature.fields["order"].annotation
    line = {"sku": "a", "quantity": 1, "weight": None, "state": "label number 1", "b" * 63: 1, "d" * 63: 2}
    value = {"lines": [line], "due": "2026-11-26T10:00:00+01:00", "by": {"me": line, "you": "label number 2"}}
    # What our types take, the models take, and give back the same.
    assert program_types(RICH, TYPES).fields["order"].coerce(value) == value
    assert order.model_validate(value).model_dump(mode="json") == value
    for wrong in ({**line, "quantity": 0}, {**line, "weight": 10}, {**line, "x": 1}, {"sku": "a"}):
        with pytest.raises(ValueError):
            order.model_validate({**value, "lines": [wrong]})
    properties = order.model_json_schema()["$defs"]["Line"]["properties"]
    assert list(properties) == [field.name for field in TYPES["Line"].fields]
    assert properties["sku"]["description"] == 'the "number"'


def test_a_program_that_hears_reads_as_a_person_writes_it_and_says_what_it_needs(tmp_path: Path) -> None:
    assert check_program(HEARD) == []
    source = program_source("calls", HEARD, None, None)
    assert ruff("format", source=source) == source
    assert ruff("check", "--select", "E,F,I,B,UP", "--ignore", "E501", source=source).strip() == "All checks passed!"
    assert source.startswith('"""PromptProgram calls: plain DSPy (it needs litellm, too), written by dspy-operator.')
    typed = sys.modules[load_program(source, tmp_path).module.__module__].typed
    voice = "data:audio/wav;base64,UklGRg=="
    made = typed({"voice": voice, "chat": {"messages": [{"voice": voice}]}, "text": "x"})
    assert [made["voice"], made["chat"].messages[0]["voice"], made["text"]] == [dspy.Audio(voice)] * 2 + ["x"]


def test_the_file_needs_dspy_and_the_standard_library_alone() -> None:
    rich = program_source("my-triage", RICH, None, None, TYPES)
    for source in (*(source_of(a_program(), adapter) for adapter in (CHAT, SCHEMA, WORDS, XML, BAML)), rich):
        tree = ast.parse(source)
        names = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
        names |= {str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)}
        # pydantic is a requirement of DSPy itself.
        assert names - {"dspy", "dspy.adapters.baml_adapter", "pydantic", "pydantic_core"} <= sys.stdlib_module_names


def test_an_input_that_may_be_null_may_be_left_out() -> None:
    source = source_of(a_program(inputs=(a_field("note", "Optional[str]"), a_field("ticket"))))
    assert "    def forward(self, *, note: str | None = None, ticket: str) -> dspy.Prediction:\n" in source
    assert "        return self.predict(note=note, ticket=ticket)\n" in source
