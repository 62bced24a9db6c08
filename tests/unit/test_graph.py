"""Graphs: what is refused before any call, and the file that they become."""

from __future__ import annotations

import ast
import random
from pathlib import Path
from typing import Any

import dspy
import pytest

from dspy_operator.api.graph import fits, understood
from dspy_operator.api.object_types import program_types
from dspy_operator.api.program import ObjectType, Program
from dspy_operator.api.promptprogram import Adapter
from dspy_operator.api.signature_types import parse_type
from dspy_operator.runner import graph_source
from dspy_operator.runner.program import check_program, load_program
from dspy_operator.runner.program_source import program_source
from dspy_operator.runner.values import input_fields
from tests.unit.graphs import SUMMARIES, a_field, a_graph, a_step
from tests.unit.test_program_source import CHAT, LABELS, SCHEMA, WORDS, ruff

GRAPH = "spec.program.graph"
GOLDEN = Path(__file__).parent / "golden" / "graph.py.golden"
SEARCH: dict[str, Any] = {
    "inputs": [a_field("question")],
    "nodes": {
        "words": a_step({"question": "inputs.question"}, a_field("queries", "list[str]"), asks="Write search queries."),
        "found": {"retrieve": {"http": {"url": "http://search.example/query"}, "topK": 3}, "inputs": {"query": "item"}}
        | {"forEach": "words.queries", "maxItems": 4},
        "more": {"retrieve": {"http": {"url": "http://search.example/query"}}, "inputs": {"query": "inputs.question"}},
        "brief": {
            "template": {"text": "As {{JSON}}, on {question}:\n\n{more}"},
            "inputs": {"question": "inputs.question", "more": "more.passages"},
        },
        "answer": a_step(
            {"question": "brief.text", "found": "found.passages", "more": "more.passages"},
            a_field("answer"),
            asks="Answer from what was found.",
            types={"found": "list[list[str]]", "more": "list[str]"},
        ),
    },
    "output": {"answer": "answer.answer"},
}


def problems(program: Program) -> list[str]:
    return [str(problem) for problem in check_program(program)]


REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a step that does not exist": (
        {"nodes__answer__inputs__notes": "notes.text"},
        [
            f'{GRAPH}.nodes.answer.inputs.notes: "notes.text" does not exist: there is no node "notes"; allowed: '
            "inputs.papers, inputs.question, note.text, topic.topic",
            f"{GRAPH}.nodes.note: no output comes from it, nor from what it leads to: remove it, or use it",
        ],
    ),
    "an output that a step has not": (
        {"nodes__answer__inputs__question": "topic.name"},
        [
            f'{GRAPH}.nodes.answer.inputs.question: "topic.name" does not exist; allowed: inputs.papers, '
            "inputs.question, note.text, topic.topic"
        ],
    ),
    "an input that the program has not": (
        {"nodes__topic__inputs__question": "inputs.text"},
        [
            f'{GRAPH}.nodes.topic.inputs.question: "inputs.text" does not exist; allowed: answer.answer, '
            "answer.reasoning, inputs.papers, inputs.question, note.text"
        ],
    ),
    "reasoning of a step that does not reason": (
        {"output__answer": "topic.reasoning"},
        [
            f'{GRAPH}.output.answer: "topic.reasoning" does not exist; allowed: answer.answer, answer.reasoning, '
            "note.text, topic.topic",
            f"{GRAPH}.nodes.answer: no output comes from it, nor from what it leads to: remove it, or use it",
            f"{GRAPH}.nodes.note: no output comes from it, nor from what it leads to: remove it, or use it",
        ],
    ),
    "an item outside of a repetition": (
        {"nodes__topic__inputs__question": "item"},
        [
            f'{GRAPH}.nodes.topic.inputs.question: "item" is for the inputs of a node with forEach; allowed: '
            "answer.answer, answer.reasoning, inputs.papers, inputs.question, note.text"
        ],
    ),
    "an output of the step itself": (
        {"nodes__topic__inputs__question": "topic.topic"},
        [
            f'{GRAPH}.nodes.topic.inputs.question: "topic.topic" is of the node itself; allowed: answer.answer, '
            "answer.reasoning, inputs.papers, inputs.question, note.text",
            f"{GRAPH}.nodes.topic.inputs: waits for itself: topic <- topic",
        ],
    ),
    "steps that wait for each other": (
        {"nodes__topic__inputs__question": "answer.answer"},
        [f"{GRAPH}.nodes.answer.inputs: waits for itself: answer <- note <- topic <- answer"],
    ),
    "a list where a text is wanted": (
        {"nodes__topic__inputs__question": "inputs.papers"},
        [f'{GRAPH}.nodes.topic.inputs.question: "inputs.papers" is list[str]; the input is str'],
    ),
    "an item of another type": (
        {"inputs__1__type": "list[int]"},
        [f'{GRAPH}.nodes.note.inputs.paper: "item" is int; the input is str'],
    ),
    "a repetition over a text": (
        {"nodes__note__forEach": "inputs.question"},
        [f'{GRAPH}.nodes.note.forEach: "inputs.question" is str; forEach needs a list'],
    ),
    "a repetition over nothing": (
        {"nodes__note__forEach": "inputs.all"},
        [f'{GRAPH}.nodes.note.forEach: "inputs.all" does not exist; allowed: inputs.papers'],
    ),
    "a repetition that repeats the same": (
        {"nodes__note__inputs__paper": "topic.topic"},
        [f'{GRAPH}.nodes.note.forEach: no input is "item": each time would be the same'],
    ),
    "an input that is not wired": (
        {"nodes__answer__inputs__notes": None},
        [
            f'{GRAPH}.nodes.answer.inputs: nothing is said of input "notes"; the node takes question, notes',
            f"{GRAPH}.nodes.note: no output comes from it, nor from what it leads to: remove it, or use it",
        ],
    ),
    "an input that the step does not take": (
        {"nodes__answer__inputs__topic": "topic.topic"},
        [f'{GRAPH}.nodes.answer.inputs.topic: "topic" is no input of the node; it takes question, notes'],
    ),
    "a step that nobody needs": (
        {"output__answer": "topic.topic"},
        [
            f"{GRAPH}.nodes.answer: no output comes from it, nor from what it leads to: remove it, or use it",
            f"{GRAPH}.nodes.note: no output comes from it, nor from what it leads to: remove it, or use it",
        ],
    ),
    "an output that is an input": (
        {"output__topic": "inputs.question"},
        [
            f'{GRAPH}.output.topic: "inputs.question" is no output of a node; allowed: answer.answer, '
            "answer.reasoning, note.text, topic.topic"
        ],
    ),
    "one name for an input and an output": (
        {"output__question": "topic.topic"},
        [f'{GRAPH}.output.question: "question" is an input; inputs and outputs share one set of names'],
    ),
    "one name for two inputs": (
        {"inputs__1": a_field("question")},
        [
            f'{GRAPH}.inputs[1].name: input "question" is there twice',
            f'{GRAPH}.nodes.note.forEach: "inputs.papers" does not exist; allowed: none',
        ],
    ),
    "one name for an input and a step": (
        {"inputs__1__name": "topic"},
        [
            f'{GRAPH}.nodes.topic: "topic" is an input; a node needs a name of its own',
            f'{GRAPH}.nodes.note.forEach: "inputs.papers" does not exist; allowed: inputs.topic',
            f'{GRAPH}.output.topic: "topic" is an input; inputs and outputs share one set of names',
        ],
    ),
    "a type outside of the grammar": (
        {"nodes__topic__predict__signature__outputs__0__type": "text"},
        [
            f'{GRAPH}.nodes.topic.predict.signature.outputs[0].type: unknown type "text" at 0; allowed: str, int, float, '
            'bool, Literal["a", "b"], list[T], dict[str, T], Optional[T], A | B, date, datetime',
        ],
    ),
    "a history": (
        {"inputs__0__type": "History"},
        [
            f'{GRAPH}.inputs[0].type: "History" at 0 is for a program of type Single: its turns hold the fields of one signature'
        ],
    ),
    "an image as an answer": (
        {"nodes__answer__predict__signature__outputs__0__type": "Image"},
        [
            f'{GRAPH}.nodes.answer.predict.signature.outputs[0].type: "Image" at 0 is for inputs only: no model answers with one'
        ],
    ),
    "empty instructions": (
        {"nodes__topic__predict__signature__instructions": " \n"},
        [f"{GRAPH}.nodes.topic.predict.signature.instructions: holds only white space"],
    ),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_a_mistake_is_told_with_its_place_and_what_is_allowed(mistake: str) -> None:
    changes, want = REFUSED[mistake]
    assert problems(a_graph(**changes)) == want


@pytest.mark.parametrize(
    ("name", "want"),
    [
        pytest.param("item", '"item" cannot be a node: program.py uses it', id="of the file"),
        pytest.param("save", '"save" cannot be a node: DSPy uses it', id="of a module"),
        pytest.param("forward", '"forward" cannot be a node: DSPy uses it', id="of the class"),
        pytest.param("_x", '"_x" cannot be a node: DSPy uses it', id="hidden"),
        pytest.param("x" * 41, "the name has 41 characters; that of a node has at most 40", id="too long"),
    ],
)
def test_a_name_that_a_step_cannot_have_is_told(name: str, want: str) -> None:
    step = a_step({"question": "inputs.question"}, a_field("answer"))
    program = a_graph({"inputs": [a_field("question")], "nodes": {name: step}, "output": {"answer": f"{name}.answer"}})
    assert problems(program) == [f"{GRAPH}.nodes.{name}: {want}"]


def test_a_graph_without_a_mistake_is_taken_in_whatever_order_the_cluster_gives_it() -> None:
    backwards = a_graph(SUMMARIES | {"nodes": dict(reversed(SUMMARIES["nodes"].items()))})
    assert problems(a_graph()) == problems(backwards) == []
    assert understood(graph_of(a_graph()), {}).order == ("topic", "note", "answer")
    assert program_source("papers", backwards, None) == program_source("papers", a_graph(), None)
    assert backwards.output_names == ["answer", "topic"]
    assert list(program_types(backwards, None).fields) == ["question", "papers", "answer", "topic"]


def graph_of(program: Program) -> Any:
    assert program.graph is not None
    return program.graph


def test_steps_that_wait_for_nobody_are_done_by_name_and_each_as_early_as_it_can() -> None:
    nodes = {
        "c": a_step({"x": "inputs.x"}, a_field("y")),
        "a": a_step({"x": "d.y"}, a_field("y")),
        "b": a_step({"x": "c.y", "z": "a.y"}, a_field("y")),
        "d": a_step({"x": "inputs.x"}, a_field("y")),
    }
    program = a_graph({"inputs": [a_field("x")], "nodes": nodes, "output": {"y": "b.y"}})
    assert understood(graph_of(program), {}).order == ("c", "d", "a", "b")


@pytest.mark.parametrize(
    ("found", "wanted", "want"),
    [
        ("str", "str", True),
        ("int", "float", True),
        ("float", "int", False),
        ("str", "str | None", True),
        ("str | None", "str", False),
        ("str | None", "Optional[str]", True),
        ("int | str", "str | float", True),
        ('Literal["a"]', 'Literal["b", "a"]', True),
        ('Literal["a", "c"]', 'Literal["b", "a"]', False),
        ('Literal["a"]', "str", True),
        ("Literal[1]", "float", True),
        ("Literal[True]", "int", False),
        ("Literal[True]", "Literal[1]", False),
        ("str", 'Literal["a"]', False),
        ("list[int]", "list[float | str]", True),
        ("list[str]", "str", False),
        ("dict[str, int]", "dict[str, float]", True),
        ("dict[str, str]", "list[str]", False),
        ("date", "date", True),
        ("date", "datetime", False),
        ("date", "str", False),
    ],
)
def test_a_type_fits_where_each_of_its_values_does(found: str, wanted: str, want: bool) -> None:
    assert fits(parse_type(found), parse_type(wanted)) is want


@pytest.mark.parametrize(("name", "graph"), [("graph", SUMMARIES), ("graph_search", SEARCH)])
def test_the_file_is_the_stored_one(name: str, graph: dict[str, Any]) -> None:
    """Made anew by deleting the golden file and running this test twice."""
    source, path = program_source("papers", a_graph(graph), None), GOLDEN.with_name(f"{name}.py.golden")
    if not path.exists():
        path.write_text(source, "utf-8")
        pytest.fail("the golden file was not there, and is now")
    assert source == path.read_text("utf-8")
    assert ruff("format", source=source) == source
    checked = ruff("check", "--select", "E,F,I,B,UP", "--ignore", "E501", source=source)
    assert checked.strip() == "All checks passed!"
    assert problems(a_graph(graph)) == []


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        pytest.param(
            {"nodes__more__inputs": {"text": "inputs.question"}},
            [
                f'{GRAPH}.nodes.more.inputs: nothing is said of input "query"; the node takes query',
                f'{GRAPH}.nodes.more.inputs.text: "text" is no input of the node; it takes query',
            ],
            id="another input than query",
        ),
        pytest.param(
            {"nodes__more__inputs__query": "words.queries"},
            [f'{GRAPH}.nodes.more.inputs.query: "words.queries" is list[str]; the input is str'],
            id="a list as the query",
        ),
        pytest.param(
            {"nodes__answer__inputs__more": "more.texts"},
            [
                f'{GRAPH}.nodes.answer.inputs.more: "more.texts" does not exist; allowed: brief.text, found.passages, inputs.question, '
                "more.passages, words.queries",
            ],
            id="another output than passages",
        ),
        pytest.param(
            {"nodes__answer__inputs__more": "found.passages"},
            [
                f'{GRAPH}.nodes.answer.inputs.more: "found.passages" is list[list[str]]; the input is list[str]',
            ],
            id="lists of passages as passages",
        ),
        pytest.param(
            {"nodes__brief__template__text": "On {topic}: {more} {question} } {"},
            [
                f"{GRAPH}.nodes.brief.template.text: unknown placeholder {{topic}} at 3; allowed: {{more}}, {{question}}; "
                "{{ and }} are braces",
                f"{GRAPH}.nodes.brief.template.text: lone brace }} at 30; allowed: {{more}}, {{question}}; {{{{ and }}}} are braces",
                f"{GRAPH}.nodes.brief.template.text: lone brace {{ at 32; allowed: {{more}}, {{question}}; {{{{ and }}}} are braces",
            ],
            id="a placeholder that is no input",
        ),
        pytest.param(
            {"nodes__brief__template__text": "On {more}"},
            [f'{GRAPH}.nodes.brief.inputs.question: "question" is no input of the node; it takes more'],
            id="an input that is no placeholder",
        ),
        pytest.param(
            {"nodes__brief__inputs__more": "found.passages"},
            [
                f'{GRAPH}.nodes.brief.inputs.more: "found.passages" is list[list[str]]; the input is str | int | float | bool | list[str]'
            ],
            id="a value that a text cannot hold",
        ),
    ],
)
def test_what_is_wrong_with_a_lookup_is_told(changes: dict[str, Any], want: list[str]) -> None:
    assert problems(a_graph(SEARCH, **changes)) == want


def test_a_template_is_filled_in_with_texts_numbers_and_lists_of_texts(tmp_path: Path) -> None:
    program = load_program(program_source("papers", a_graph(SEARCH), None), tmp_path)
    filled = vars(program.namespace)["filled"]
    found = filled("As {{JSON}}, on {text}:\n\n{more} {n} {b}", text="{n}", more=["a", "{x}"], n=0.5, b=True)
    assert found == "As {JSON}, on {n}:\n\na\n\n{x} 0.5 True"


def test_a_graph_that_asks_no_model_is_refused() -> None:
    nodes = {"more": SEARCH["nodes"]["more"]}
    program = a_graph({"inputs": SEARCH["inputs"], "nodes": nodes, "output": {"answer": "more.passages"}})
    assert problems(program) == [f"{GRAPH}.nodes: no node asks the model: at least one with predict is required"]


SCENE = {
    "Line": ObjectType.model_validate({"fields": [a_field("sku"), {"name": "quantity", "type": "int", "minimum": 1}]})
}
RICH = a_graph(
    {
        "inputs": [a_field("scan", "Image"), a_field("asked", "datetime"), a_field("labels", f"list[{LABELS}]")],
        "nodes": {
            "lines": a_step(
                {"scan": "inputs.scan"}, a_field("items", "list[Line]"), a_field("due", "date"), types={"scan": "Image"}
            ),
            "check": a_step(
                {"line": "item", "due": "lines.due", "labels": "inputs.labels"},
                a_field("values", f"list[{LABELS}]"),
                types={"line": "Line", "due": "date", "labels": f"list[{LABELS}]"},
            )
            | {"forEach": "lines.items", "maxItems": 8},
            "fix": a_step(
                {"line": "item", "all": "check.values"},
                a_field("line_", "Line"),
                types={"line": "Line", "all": f"list[list[{LABELS}]]"},
            )
            | {"forEach": "lines.items", "maxItems": 8},
        },
        "output": {"lines": "fix.line_", "due": "lines.due"},
    }
)


def a_wide_graph(draw: random.Random) -> Program:
    """Names of all lengths up to the most."""

    def name(prefix: str, most: int) -> str:
        return prefix + "x" * draw.randint(0, most - len(prefix))

    inputs = [a_field(name(f"i{number}", 63)) for number in range(draw.randint(1, 4))]
    inputs.append(a_field(name("l", 63), "list[str]"))
    nodes: dict[str, Any] = {}
    given = [f"inputs.{field['name']}" for field in inputs[:-1]]
    lists = [f"inputs.{inputs[-1]['name']}"]
    output = {}
    for number in range(draw.randint(1, 5)):
        step = name(f"n{number}", graph_source.MOST_CHARACTERS)
        out = name("o", 63)
        over = draw.random() < 0.5
        wires = {name(f"f{place}", 63): draw.choice(given) for place in range(draw.randint(1, 3))}
        wires |= {name("g", 63): draw.choice(lists)}
        types = {field: "list[str]" for field, reference in wires.items() if reference in lists}
        if over:
            wires |= {name("h", 63): "item"}
        nodes[step] = a_step(wires, a_field(out), types=types)
        nodes[step] |= {"forEach": draw.choice(lists), "maxItems": draw.randint(1, 256)} if over else {}
        (lists if over else given).append(f"{step}.{out}")
        output[name(f"p{number}", 63)] = f"{step}.{out}"
    return a_graph({"inputs": inputs, "nodes": nodes, "output": output})


@pytest.mark.parametrize("adapter", [CHAT, SCHEMA, WORDS])
def test_a_graph_of_every_type_reads_as_a_person_writes_it_and_loads(tmp_path: Path, adapter: Any) -> None:
    assert [str(problem) for problem in check_program(RICH, SCENE)] == []
    source = program_source("orders", RICH, Adapter.model_validate(adapter) if adapter else None, None, SCENE)
    assert ruff("format", source=source) == source
    checked = ruff("check", "--select", "E,F,I,B,UP", "--ignore", "E501", source=source)
    assert checked.strip() == "All checks passed!"
    module = load_program(source, tmp_path).module
    assert [name for name, _ in module.named_predictors()] == ["lines", "check", "fix"]
    assert {name: field.annotation for name, field in input_fields(module).items()}["scan"] is dspy.Image


@pytest.mark.parametrize("seed", range(12))
def test_the_formatter_and_the_linter_have_nothing_to_change(tmp_path: Path, seed: int) -> None:
    program = a_wide_graph(random.Random(seed))
    assert problems(program) == []
    source = program_source("wide", program, None)
    assert ruff("format", source=source) == source
    checked = ruff("check", "--select", "E,F,I,B,UP", "--ignore", "E501", source=source)
    assert checked.strip() == "All checks passed!"
    ast.parse(source)
    load_program(source, tmp_path)


def test_methods_are_those_of_dspys_prediction() -> None:
    assert {name for name in dir(dspy.Prediction) if not name.startswith("_")} == graph_source.METHODS


def test_more_items_than_are_taken_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    program = load_program(program_source("papers", a_graph(), None), tmp_path)
    bounded = type(program.module).forward.__globals__["bounded"]
    assert bounded("note", ["a", "b", "c"], 3) == ["a", "b", "c"] and caplog.messages == []
    assert bounded("note", ["a", "b", "c", "d"], 3) == ["a", "b", "c"]
    assert caplog.messages == ["note: of 4 items the first 3 are taken"]
