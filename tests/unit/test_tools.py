"""Tools of a ReAct: their source, what is refused of them, whose call is whose, and what counts as an input."""

from __future__ import annotations

import ast
import inspect
import random
import subprocess
import sys
import types
import urllib.error
from email.message import Message
from pathlib import Path
from typing import Any

import dspy
import pytest
from pydantic import ValidationError

from dspy_operator.api.metric import Metric
from dspy_operator.api.optimizationrun import Budget
from dspy_operator.api.program import ObjectType, Program
from dspy_operator.api.promptprogram import Adapter, SamplingRequest
from dspy_operator.contract.digests import program_digest
from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.contract.runspec import Control, Endpoint
from dspy_operator.runner.journal import Journal
from dspy_operator.runner.ledger import Epoch, Ledger
from dspy_operator.runner.mcp import Listed, Misshapen, listed
from dspy_operator.runner.mcp_wire import McpError, mcp_text
from dspy_operator.runner.program import LoadedProgram, check_program, load_program, refuse_unsafe_tools
from dspy_operator.runner.program_source import program_source
from dspy_operator.runner.prompts import prompts_document
from dspy_operator.runner.stop import RunStop
from dspy_operator.runner.tools import ToolFailed, Tools, over_http, tool_failed

URL = "http://search.tools.svc:8080/search"
SEARCH: dict[str, Any] = {
    "name": "search",
    "description": "Finds passages.",
    "arguments": [{"name": "query", "type": "str", "description": 'What to "look" for.'}],
    "http": {"url": URL},
}
LONG = "Literal[" + ", ".join(f'"value number {number}"' for number in range(9)) + "]"


def a_program(*tools: dict[str, Any], outputs: tuple[str, ...] = ("answer",), **options: Any) -> Program:
    signature = {
        "instructions": "Answer.",
        "inputs": [{"name": "question", "type": "str"}],
        "outputs": [{"name": name, "type": "str"} for name in outputs],
    }
    module = {"type": "ReAct", "react": {"tools": list(tools or [SEARCH]), **options}}
    return Program.model_validate({"type": "Single", "single": {"signature": signature, "module": module}})


def a_type(**fields: str) -> ObjectType:
    return ObjectType.model_validate({"fields": [{"name": name, "type": type_} for name, type_ in fields.items()]})


MANY = {
    **SEARCH,
    "name": "by_everything",
    "description": 'Says "all".\n\n  It is slow.\\',
    "arguments": [{"name": f"an_argument_with_number_{number}", "type": LONG} for number in range(5)]
    + [{"name": "limit", "type": "Optional[int]", "description": "d" * 130}, {"name": "since", "type": "date"}],
    "http": {"url": f"http://{'x' * 110}/"},
}
SHAPES = {
    "one tool": (a_program(), None),
    "no arguments": (a_program({**SEARCH, "arguments": []}, maxIters=5), None),
    "long everything": (a_program(SEARCH, MANY), None),
    "an object": (
        a_program({**SEARCH, "arguments": [{"name": "item", "type": "list[Item]"}]}),
        {"Item": a_type(a="str", b="date")},
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_source_is_as_the_formatter_leaves_it_and_says_what_was_written(shape: str, tmp_path: Path) -> None:
    program, types = SHAPES[shape]
    assert check_program(program, types) == []
    source = program_source("qa", program, None, None, types)
    command = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", "120", "-"]
    formatted = subprocess.run(command, input=source, capture_output=True, text=True, check=True).stdout
    assert formatted == source
    unused = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F,I", "--line-length", "120", "-"]
    checked = subprocess.run(unused, input=source, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    imported = {
        name.name.split(".")[0]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([ast.alias(node.module or "")] if isinstance(node, ast.ImportFrom) else node.names)
    }
    assert not any(name.startswith("dspy_operator") for name in imported)
    module = load_program(source, tmp_path).module
    assert [name for name, _ in module.named_predictors()] == ["predict.react", "predict.extract.predict"]
    assert program.single is not None and program.single.module is not None and program.single.module.react is not None
    assert module.predict.max_iters == (program.single.module.react.max_iters or 20)
    for tool in program.single.tools:
        found = module.predict.tools[tool.name]
        assert inspect.cleandoc(found.desc) == inspect.cleandoc(tool.description or "")
        assert "\n    " not in found.desc, "no indentation of the source"
        assert list(found.args) == [argument.name for argument in tool.arguments or ()]
        told = {argument.name: argument.description for argument in tool.arguments or () if argument.description}
        assert {name: schema["description"] for name, schema in found.args.items() if "description" in schema} == told


def test_what_goes_wrong_is_a_line_without_paths_of_this_machine(tmp_path: Path) -> None:
    module = load_program(program_source("qa", a_program(), None), tmp_path).module
    search, finish = module.predict.tools["search"], module.predict.tools["finish"]
    assert search(query=3) == "Execution error in search: Arg query is invalid: 3 is not of type 'string'"
    assert search() == "Execution error in search: search() missing 1 required keyword-only argument: 'query'"
    assert finish(answer="x") == "Execution error in finish: Arg answer is not in the tool's args."
    assert finish() == "Completed."


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "a name of the source": ({"name": "load"}, "name", '"load" cannot be a tool\'s name: program.py uses it'),
    "an argument of DSPy's": (
        {"arguments": [{"name": "instance", "type": "str"}]},
        "arguments[0].name",
        '"instance" cannot be an argument\'s name: DSPy or program.py uses it',
    ),
    "an image": (
        {"arguments": [{"name": "picture", "type": "Image"}]},
        "arguments[0].type",
        '"Image" at 0 is for inputs only: no model answers with one',
    ),
    "an unknown type": ({"arguments": [{"name": "item", "type": "Item"}]}, "arguments[0].type", "unknown type"),
    "nothing said": ({"description": "  "}, "description", "holds only white space"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_python_or_dspy_cannot_take_is_refused_with_its_path(case: str) -> None:
    change, path, message = REFUSED[case]
    (problem,) = check_program(a_program({**SEARCH, "name": "first"}, {**SEARCH, **change}))
    assert problem.field == f"spec.program.single.module.react.tools[1].{path}"
    assert message in problem.message


@pytest.mark.parametrize("name", ["trajectory", "reasoning", "next_tool_args", "max_iters"])
def test_fields_that_react_adds_are_refused(name: str) -> None:
    (problem,) = check_program(a_program(outputs=("answer", name)))
    assert problem.message == f'"{name}" cannot be a field name: DSPy uses it'


def test_history_is_refused() -> None:
    document = a_program().document()
    document["single"]["signature"]["inputs"].append({"name": "earlier", "type": "History"})
    (problem,) = check_program(Program.model_validate(document))
    assert problem.field == "spec.program.single.signature.inputs[1].type"


def test_an_unsafe_tool_is_refused_in_a_run_with_its_path() -> None:
    program = a_program({**SEARCH, "effects": "Safe"}, {**SEARCH, "name": "pay", "effects": "Unsafe"})
    assert check_program(program) == []
    with pytest.raises(RunFailed) as failed:
        refuse_unsafe_tools(program.tools)
    assert failed.value.reason is Reason.INVALID_PROGRAM
    assert failed.value.path == "spec.program.single.module.react.tools[1].effects"


def test_how_a_tool_is_reached_and_what_is_default_are_no_inputs() -> None:
    metric = Metric.model_validate({"type": "ExactMatch"})

    def digest(program: Program) -> str:
        return program_digest(program, None, metric, None)

    plain = digest(a_program())
    reached = {"url": URL, "timeout": "5s"}
    spelled = Program.model_validate(a_program({**SEARCH, "effects": "Safe"}, maxIters=20).document())
    assert digest(spelled) == plain
    assert digest(a_program({**SEARCH, "http": reached})) == plain
    others = [
        a_program(maxIters=19),
        a_program({**SEARCH, "description": "Finds more."}),
        a_program({**SEARCH, "http": {"url": f"{URL}/2"}}),
        a_program({**SEARCH, "effects": "Unsafe"}),
        a_program({**SEARCH, "arguments": [{"name": "query", "type": "str"}]}),
    ]
    assert len({plain, *map(digest, others)}) == 1 + len(others)


@pytest.mark.parametrize("type_", ["Chat", "JSON", "BAML"])
def test_prompts_json_says_how_a_trajectory_is_written(tmp_path: Path, type_: str) -> None:
    adapter = Adapter.model_validate({"type": type_} | ({"constrained": "Disabled"} if type_ != "Chat" else {}))
    program = a_program()
    loaded = load_program(program_source("qa", program, adapter), tmp_path)
    rows = [({"question": "q?"}, {"answer": "a"})]
    document = prompts_document(loaded.module, loaded.adapter, adapter, SamplingRequest(), rows, single=program.single)
    (wiring,) = document["wiring"]
    said = {"{{thought}}": "t", "{{toolName}}": "search", "{{toolArgs}}": '{"query": "ü"}', "{{observation}}": "o\n\nx"}
    rounds: list[str] = []
    trajectory: dict[str, Any] = {}
    for k in range(2):
        text = wiring["trajectory"]["round"].replace("{k}", str(k))
        for place, value in said.items():
            text = text.replace(place, value)
        rounds.append(text)
        trajectory |= {f"thought_{k}": "t", f"tool_name_{k}": "search", f"tool_args_{k}": {"query": "ü"}}
        trajectory |= {f"observation_{k}": "o\n\nx"}
    with dspy.context(adapter=loaded.adapter):
        assert "\n\n".join(rounds) == loaded.module.predict._format_trajectory(trajectory)
    assert [vector["predictor"] for vector in document["vectors"]] == ["predict.react", "predict.extract.predict"]


def test_the_source_names_the_headers_that_a_tool_wants(tmp_path: Path) -> None:
    one: dict[str, tuple[str, ...]] = {"search": ("Authorization",)}
    many: dict[str, tuple[str, ...]] = {f"{'x' * 40}{at}": ("Authorization", "X-Team") for at in range(2)}
    for headers in (one, many):
        source = program_source("qa", a_program(), None, headers=headers)
        command = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", "120", "-"]
        formatted = subprocess.run(command, input=source, capture_output=True, text=True, check=True).stdout
        assert formatted == source
        assert {tool: [*names] for tool, names in headers.items()} == load_program(source, tmp_path).namespace.HEADERS


THINGS = {"name": "things", "mcp": {"url": "http://things.example/mcp"}}
LISTED = [
    Listed(
        name="look-up",
        description='Says.\n  More of "x".\\',
        inputSchema={
            "type": "object",
            "properties": {"thing": {"type": "string", "description": "d" * 90}, "limit": {"default": None}},
            "required": ["thing"],
        },
    ),
    Listed(name="list", inputSchema={"type": "object", "additionalProperties": False}),
]


@pytest.mark.parametrize("tools", [[THINGS], [SEARCH, THINGS]], ids=["alone", "beside one behind a URL"])
@pytest.mark.parametrize("headers", [{}, {"things": ("Authorization",)}], ids=["open", "with headers"])
def test_the_source_has_the_tools_of_an_mcp_server_as_it_described_them(
    tools: list[dict[str, Any]], headers: dict[str, tuple[str, ...]], tmp_path: Path
) -> None:
    program = a_program(*tools)
    assert check_program(program) == []
    source = program_source("qa", program, None, headers=headers, listed={"things": LISTED})
    command = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", "120", "-"]
    assert subprocess.run(command, input=source, capture_output=True, text=True, check=True).stdout == source
    unused = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F,I", "--line-length", "120", "-"]
    checked = subprocess.run(unused, input=source, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    loaded = load_program(source, tmp_path).module.predict.tools
    assert list(loaded) == [*(["search"] if SEARCH in tools else []), "look-up", "list", "finish"]
    assert loaded["look-up"].desc == LISTED[0].description
    assert loaded["look-up"].args == LISTED[0].inputSchema["properties"]


@pytest.mark.parametrize(
    ("tool", "said"),
    [
        ({"name": "x"}, "exactly one of http, mcp is required"),
        ({**THINGS, "http": {"url": URL}, "description": "x"}, "exactly one of http, mcp is required"),
        ({**THINGS, "description": "x"}, "with mcp the server says description"),
        ({**THINGS, "arguments": []}, "with mcp the server says description"),
        ({"name": "x", "http": {"url": URL}}, "description is required with http"),
    ],
)
def test_a_tool_is_in_one_place_and_described_once(tool: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        a_program(tool)


def a_value(draw: random.Random, depth: int) -> Any:
    """Some JSON."""
    if depth and draw.random() < 0.35:
        return {a_text(draw): a_value(draw, depth - 1) for _ in range(draw.randint(0, 4))}
    if depth and draw.random() < 0.4:
        return [a_value(draw, depth - 1) for _ in range(draw.randint(0, 6))]
    return draw.choice([None, True, False, 0, -3, 1.5, 1e30, 1e-9, a_text(draw)])


def a_text(draw: random.Random) -> str:
    words = [
        "a",
        'say "x"',
        "it's",
        "\\n back",
        "new\nline",
        "é",
        "e\u0301",
        "\u202e",
        "x" * 30,
        "",
        "日本",
        "\"both' quotes",
    ]
    return " ".join(draw.choice(words) for _ in range(draw.choice([1, 1, 2, 5, 12])))


def test_any_schema_is_written_as_the_formatter_leaves_it_and_reads_back_the_same() -> None:
    draw = random.Random(7)
    schemas = [{"properties": {a_text(draw): {"default": a_value(draw, 4)} for _ in range(3)}} for _ in range(40)]
    tools = [
        Listed(name=f"{'n' * draw.randint(1, 60)}{at}", description=a_text(draw), inputSchema=schema)
        for at, schema in enumerate(schemas)
    ]
    source = program_source("qa", a_program(THINGS), None, listed={"things": tools})
    command = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", "120", "-"]
    assert subprocess.run(command, input=source, capture_output=True, text=True, check=True).stdout == source
    nodes = ast.walk(ast.parse(source))
    calls = [node for node in nodes if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "mcp_tool"]
    written = [[ast.literal_eval(argument) for argument in call.args[2:]] for call in calls]
    assert written == [[tool.name, tool.description, tool.inputSchema] for tool in tools]


def test_a_type_of_several_is_read_though_dspy_cannot(tmp_path: Path) -> None:
    nullable = {"type": ["string", "null"], "description": "Which."}
    (tool,) = listed([{"name": "look_up", "inputSchema": {"properties": {"thing": nullable, "any": True}}}])
    source = program_source("qa", a_program(THINGS), None, listed={"things": [tool]})
    args = load_program(source, tmp_path).module.predict.tools["look_up"].args
    assert args == {"thing": {"description": "Which.", "anyOf": [{"type": "string"}, {"type": "null"}]}, "any": {}}


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        (None, "tools: a list is wanted, found NoneType"),
        ([{"name": "x"}], "tools[0].inputSchema: Field required"),
        ([{"name": "x", "inputSchema": {"properties": []}}], "properties: an object is wanted, found list"),
        ([{"name": "x", "inputSchema": {"properties": {"a": 1}}}], "properties.a: an object is wanted, found int"),
    ],
)
def test_tools_that_are_not_as_the_protocol_has_them_are_refused_with_their_place(tools: Any, said: str) -> None:
    with pytest.raises(Misshapen) as refused:
        listed(tools)
    assert said in str(refused.value)


def test_an_mcp_server_has_one_secret_and_any_name_and_program_py_needs_some_names_for_it() -> None:
    other = {"name": "time", "mcp": {"url": "http://things.example/mcp", "headersSecret": {"name": "token"}}}
    (problem,) = check_program(a_program(THINGS, other))
    assert problem.field == "spec.program.single.module.react.tools[1].mcp.headersSecret"
    assert problem.message == 'the MCP server "things" asks the same URL with other headers'
    assert check_program(a_program({**SEARCH, "name": "time"})) == []
    (problem,) = check_program(a_program({**SEARCH, "name": "time"}, THINGS))
    assert problem.field == "spec.program.single.module.react.tools[0].name"
    (problem,) = check_program(a_program(THINGS), {"McpError": a_type(a="str")})
    assert problem.field.startswith("spec.types.McpError")


def test_xml_is_refused() -> None:
    (problem,) = check_program(a_program(), None, Adapter.model_validate({"type": "XML"}))
    assert problem.field == "spec.adapter.type" and "XML is not for a ReAct" in problem.message


# --- whose call is whose ---------------------------------------------------------------------------------------------


class Scene:
    """Tools between a journal and a tool that answers with its ordinal."""

    def __init__(self, folder: Path, *, offline: bool = False) -> None:
        self.journal = Journal(folder / "journal.jsonl", read_only=offline)
        endpoint = Endpoint(name="a/b", type="OpenAI", url="http://127.0.0.1:9/v1", model="m")
        control = Control(budget=Budget(calls=10))
        self.ledger = Ledger(self.journal, {"task": endpoint}, control, seed=0, offline=offline)
        self.epoch = self.ledger.open_epoch("optimize")
        self.tools = Tools(a_program().tools)
        self.tools.open(self.ledger, self.journal)
        self.sent: list[dict[str, Any]] = []
        self.react = dspy.ReAct("question -> answer", tools=[])
        self.outcome: Exception | None = None

    def send(self, url: str, arguments: Any, headers: Any, timeout: float) -> str:
        self.sent.append(dict(arguments))
        if self.outcome is not None:
            raise self.outcome
        return f"answer {len(self.sent)}"

    def row(self, question: str, *queries: str, rollout: int | None = None, temperature: float = 0.0) -> Any:
        """A trajectory of one row: what was said to each query, and the prediction."""
        lm = self.ledger.lm("task", self.epoch).copy(rollout_id=rollout, temperature=temperature)
        prediction, said = dspy.Prediction(answer="x"), []
        with dspy.context(lm=lm):
            self.tools.on_module_start("1", self.react, {"args": (), "kwargs": {"question": question}})
            for query in queries:
                try:
                    said.append(self.tools.call(over_http(self.send), "search", URL, {"query": query}))
                except RunStop:
                    raise
                except Exception as error:
                    said.append(str(error))
            self.tools.on_module_end("1", prediction)
        return said, prediction


def test_a_call_is_known_by_row_rollout_place_and_arguments(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    first, _ = scene.row("q1", "a", "a", "b")
    assert first == ["answer 1", "answer 2", "answer 3"], "the same question twice in a row is asked twice"
    assert scene.row("q1", "a", "a", "b")[0] == first, "another candidate is told the same"
    assert scene.row("q2", "a")[0] == ["answer 4"], "another row asks for itself"
    assert scene.row("q1", "b")[0] == ["answer 5"], "another place in the trajectory too"
    assert scene.row("q1", "a", rollout=1)[0] == ["answer 1"], "a rollout counts where the model samples"
    assert scene.row("q1", "a", rollout=1, temperature=1.0)[0] == ["answer 6"]
    assert scene.tools.usage()["search"].calls == 6


def test_what_was_told_is_told_again_after_a_crash_and_what_was_not_is_asked_again(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    told, _ = scene.row("q1", "a", "b")
    scene.journal.append("ask", key="lost", tool="search", url=URL, arguments="{}")
    scene.journal.close()
    again = Scene(tmp_path)
    assert again.row("q1", "a", "b")[0] == told and again.sent == []
    assert again.tools.usage()["search"].calls == 3, "over the run's whole life"
    assert again.row("q1", "a", "c")[0] == ["answer 1", "answer 1"]


def test_lines_of_a_graphs_lookups_are_not_tools(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    lookup = {"key": "k", "tool": "retrieve", "url": URL, "query": "a", "topK": 5}
    scene.journal.append("ask", **lookup)
    scene.journal.append("told", **lookup, passages=["p"])
    scene.journal.close()
    assert Scene(tmp_path).tools.usage() == {}


def test_headers_go_to_the_tool_that_they_are_for_and_a_value_that_is_said_back_is_not_told(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.tools.open(scene.ledger, scene.journal, {"search": {"Authorization": "Bearer 12345678", "X": "answer"}})
    seen: list[Any] = []

    def send(url: str, arguments: Any, headers: Any, timeout: float) -> str:
        seen.append((url, headers))
        return "answer to 12345678"

    scene.send = send  # type: ignore[method-assign]
    assert scene.row("q1", "a")[0] == ["answer to ***"]
    with dspy.context(lm=scene.ledger.lm("task", scene.epoch)):
        scene.tools.on_module_start("2", scene.react, {"args": (), "kwargs": {"question": "q1"}})
        scene.tools.call(over_http(send), "search", "http://elsewhere.example/", {"query": "a"})
    assert [headers.keys() for _, headers in seen] == [{"Authorization", "X"}, set()]


def test_verify_asks_no_tool(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.row("q1", "a")
    scene.journal.close()
    offline = Scene(tmp_path, offline=True)
    assert offline.row("q1", "a")[0] == ["answer 1"]
    with pytest.raises(RunStop) as stopped:
        offline.row("q1", "other")
    assert stopped.value.reason is Reason.VERIFY_FAILED
    assert f'the tool "search" at {URL} was not asked this there: {{"query":"other"}}' in stopped.value.message
    assert offline.sent == []


def test_an_ended_phase_asks_no_tool_and_is_told_nothing(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.row("q1", "a")
    scene.ledger.end(scene.epoch, RunStop(Reason.BUDGET_EXHAUSTED, "calls are used up"))
    for query in ("a", "b"):
        with pytest.raises(RunStop):
            scene.row("q1", query)
    assert len(scene.sent) == 1


def refusal(status: int) -> urllib.error.HTTPError:
    return urllib.error.HTTPError(URL, status, "no", Message(), None)


def test_a_refused_call_is_told_to_the_model_once_and_for_ever(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.row("q1", "a")
    scene.outcome = refusal(400)
    said, prediction = scene.row("q2", "a")
    assert said == ["HTTP Error 400: no"] and tool_failed(prediction) and len(scene.sent) == 2
    scene.outcome = None
    assert scene.row("q2", "a")[0] == said and len(scene.sent) == 2
    assert scene.tools.usage()["search"].failed == 1
    assert not tool_failed(scene.row("q1", "a")[1])


def test_a_call_that_fails_alone_is_told_after_three_attempts_and_a_look_whether_the_tool_still_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dspy_operator.runner.servers.backoff_seconds", lambda *_: 0.0)
    scene = Scene(tmp_path)
    scene.row("q1", "good")

    def send(url: str, arguments: Any, headers: Any, timeout: float) -> str:
        scene.sent.append(dict(arguments))
        if arguments["query"] == "bad":
            raise TimeoutError("timed out")
        return "fine"

    monkeypatch.setattr(scene, "send", send)
    assert scene.row("q2", "bad")[0] == ["timed out"]
    assert [each["query"] for each in scene.sent] == ["good", "bad", "bad", "bad", "good"]


def test_whether_an_mcp_server_still_answers_is_asked_of_the_tool_that_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dspy_operator.runner.servers.backoff_seconds", lambda *_: 0.0)
    scene, asked = Scene(tmp_path), []

    def ask_mcp(url: str, method: str, params: Any, headers: Any, timeout: float) -> dict[str, Any]:
        asked.append((params["name"], params["arguments"]))
        if params["name"] == "slow":
            raise TimeoutError("timed out")
        return {"content": [{"type": "text", "text": "fine"}]}

    names = types.ModuleType("program")
    vars(names).update(ask_mcp=ask_mcp, mcp_text=mcp_text, McpError=McpError)
    scene.tools.connect(LoadedProgram(dspy.Module(), dspy.ChatAdapter(), "", names))
    with dspy.context(lm=scene.ledger.lm("task", scene.epoch)):
        scene.tools.on_module_start("1", scene.react, {"args": (), "kwargs": {"question": "q1"}})
        assert vars(names)["call_mcp"]("things", "http://things.example/mcp", "quick", {"a": 1}) == "fine"
        with pytest.raises(ToolFailed, match="timed out"):
            vars(names)["call_mcp"]("things", "http://things.example/mcp", "slow", {"b": 2})
    assert asked == [("quick", {"a": 1}), *[("slow", {"b": 2})] * 3, ("quick", {"a": 1})]
    usage = scene.tools.usage()
    assert (usage["slow"].calls, usage["slow"].failed) == (3, 1)


def test_a_tool_that_answers_nothing_stops_the_run_and_nothing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dspy_operator.runner.servers.backoff_seconds", lambda *_: 0.0)
    scene = Scene(tmp_path)
    scene.outcome = ConnectionRefusedError(111, "Connection refused")
    with pytest.raises(RunStop) as stopped:
        scene.row("q1", "a")
    assert stopped.value.reason is Reason.ENDPOINT_UNAVAILABLE
    assert f'the tool "search" at {URL} left 10 requests in a row unanswered (connection)' in stopped.value.message
    assert len(scene.sent) == 10
    scene.journal.close()
    assert Scene(tmp_path).journal.recorded.told == {}


def test_a_bug_of_ours_stops_the_run_instead_of_becoming_an_observation(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    with pytest.raises(RunStop) as stopped:
        scene.tools.call(over_http(scene.send), "search", URL, {"query": "nobody's"})
    assert stopped.value.reason is Reason.INTERNAL_ERROR
    assert isinstance(scene.epoch, Epoch)
