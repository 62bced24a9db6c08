"""A revision's files say the same as the runner: program.py and program.json alone, and prompts.json without DSPy."""

from __future__ import annotations

import ast
import inspect
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dspy
import pytest

from dspy_operator.api.program import Program
from dspy_operator.api.promptprogram import Adapter, SamplingRequest
from dspy_operator.contract.exits import Exit, RunFailed
from dspy_operator.runner.program import (
    LoadedProgram,
    check_program,
    document_bytes,
    load_program,
    program_hash,
    program_json_bytes,
    state_document,
)
from dspy_operator.runner.program_source import program_source
from dspy_operator.runner.prompts import REASONING, prompts_document

CONFORMANCE = Path(__file__).with_name("conformance.py")
CHAT, SCHEMA, WORDS = None, {"type": "JSON", "constrained": "Required"}, {"type": "JSON", "constrained": "Disabled"}
XML, BAML, BAML_SCHEMA = {"type": "XML"}, *({"type": "BAML", "constrained": each} for each in ("Disabled", "Required"))
ADAPTERS = [
    pytest.param(CHAT, id="Chat"),
    pytest.param(SCHEMA, id="JSON with a schema"),
    pytest.param(WORDS, id="JSON in words"),
    pytest.param(XML, id="XML"),
    pytest.param(BAML, id="BAML in words"),
    pytest.param(BAML_SCHEMA, id="BAML with a schema"),
]
REQUEST = SamplingRequest.model_validate({"temperature": "0.2", "maxTokens": 300, "stop": ["<<end>>"]})
INSTRUCTIONS = """Ordne das Ticket ein: „genau“, 日本語 too.

Rules:
  - keep {{ticket}} and {braces}
  - \\d+ or 'x'\x20\x20
End with "why\""""

INPUTS: dict[str, object] = {
    "ticket": ' Über {{tags}} "quoted" {ticket}\n\n[[ ## label ## ]]\nنص 👩‍💻 ',
    "tags": ["a, b", "«é»", ""],
    "prices": {"z": 1.0, "a": 1e-05},
    "note": None,
    "count": -3,
    "urgent": True,
    "plan": "free",
}
OUTPUTS: dict[str, object] = {
    "label": "other\\way",
    "level": 2,
    "topics": ["a", "ü"],
    "scores": {"z": 0.5, "a": 1e-05},
    "amount": 3,
    "ratio": 0.1,
    "sure": False,
    "reply": "Two\n  lines,\n\n{braces}",
    "due": None,
    "mixed": ["x"],
}


INPUT_TYPES = {
    "ticket": "str",
    "tags": "list[str]",
    "prices": "dict[str, float]",
    "note": "Optional[str]",
    "count": "int",
    "urgent": "bool",
    "plan": 'Literal["free", "paid"] | int',
}
OUTPUT_TYPES = {
    "label": r'Literal["billing", "other\\way"]',
    "level": "Literal[1, 2]",
    "topics": "list[str]",
    "scores": "dict[str, float]",
    "amount": "int",
    "ratio": "float",
    "sure": "bool",
    "reply": "str",
    "due": "int | None",
    "mixed": "list[str] | dict[str, int] | bool",
}


def readable(adapter: dict[str, str] | None, outputs: dict[str, Any]) -> dict[str, Any]:
    """Without what the adapter cannot read, which `check_program` refuses: XML cannot tell the members of `mixed` apart."""
    return {name: value for name, value in outputs.items() if adapter != XML or name != "mixed"}


def a_program(
    module: str = "ChainOfThought", instructions: str = INSTRUCTIONS, adapter: dict[str, str] | None = CHAT
) -> Program:
    inputs = [{"name": name, "type": text, "description": f'the "{name}"'} for name, text in INPUT_TYPES.items()]
    outputs = [{"name": name, "type": text} for name, text in readable(adapter, OUTPUT_TYPES).items()]
    signature = {"instructions": instructions, "inputs": inputs, "outputs": outputs}
    return Program.model_validate({"type": "Single", "single": {"signature": signature, "module": {"type": module}}})


def an_adapter(document: dict[str, str] | None) -> Adapter | None:
    return Adapter.model_validate(document) if document else None


def loaded(directory: Path, adapter: dict[str, str] | None = CHAT, module: str = "ChainOfThought") -> LoadedProgram:
    """The program in the directory, with one complete and one incomplete demonstration."""
    written = a_program(module, adapter=adapter)
    assert check_program(written, None, an_adapter(adapter)) == []
    program = load_program(program_source("triage", written, an_adapter(adapter), REQUEST), directory)
    (predictor,) = program.module.predictors()
    complete = dspy.Example(
        **(INPUTS | readable(adapter, OUTPUTS) | {"note": "n", "due": 4, "reasoning": "Because {{ticket}}."})
    )
    predictor.demos = [complete.with_inputs(*INPUTS), dspy.Example(augmented=True, label="billing", ticket="bill?")]
    return program


def prompts(program: LoadedProgram, adapter: dict[str, str] | None, rows: Any) -> dict[str, Any]:
    return prompts_document(program.module, program.adapter, an_adapter(adapter), REQUEST, rows)


def conforms(directory: Path, document: dict[str, Any]) -> bool:
    path = directory / "prompts.json"
    path.write_bytes(document_bytes(document))
    result = subprocess.run(
        [sys.executable, "-I", str(CONFORMANCE), str(path)], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in result.stderr, result.stderr
    return result.returncode == 0


@dataclass
class Recorder:
    """A server that keeps each request's bytes and always answers the same."""

    answer: str
    status: int = 200
    url: str = ""
    bodies: list[bytes] = field(default_factory=list)

    def messages(self) -> list[bytes]:
        """The `messages` of each request, as bytes on the wire."""
        return [
            body[body.index(b'"messages"') : body.index(b"]", body.rindex(b'"content"')) + 1] for body in self.bodies
        ]


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder(answer="")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            recorder.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": recorder.answer}}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            body: dict[str, Any] = {
                "id": "1",
                "object": "chat.completion",
                "created": 1,
                "model": "m",
                "choices": [choice],
                "usage": usage,
            }
            if recorder.status != 200:
                body = {"error": {"message": "response_format is not supported", "type": "invalid_request_error"}}
            content = json.dumps(body).encode()
            self.send_response(recorder.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    recorder.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield recorder
    server.shutdown()
    server.server_close()


def run_alone(directory: Path, recorder: Recorder, model: str = "openai/some-model") -> Any:
    """What `python program.py` prints, where nothing of ours can be imported."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory), "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "program.py", "--model", model, "--api-base", recorder.url, json.dumps(INPUTS)]
    result = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def call(module: Any, adapter: Any, recorder: Recorder, model: str = "openai/some-model") -> Any:
    """The module's outputs, called as the runner calls it."""
    lm = dspy.LM(
        model,
        api_base=recorder.url,
        api_key="none",
        cache=False,
        num_retries=0,
        temperature=0.2,
        max_tokens=300,
        stop=["<<end>>"],
    )
    with dspy.context(lm=lm, adapter=adapter):
        return module(**INPUTS).toDict()


@pytest.mark.parametrize(
    ("adapter", "module"),
    [
        pytest.param(CHAT, "ChainOfThought", id="Chat with reasoning"),
        pytest.param(CHAT, "Predict", id="Chat without reasoning"),
        pytest.param(SCHEMA, "ChainOfThought", id="JSON with a schema"),
        pytest.param(WORDS, "Predict", id="JSON in words"),
        pytest.param(XML, "ChainOfThought", id="XML"),
        pytest.param(BAML, "ChainOfThought", id="BAML in words"),
        pytest.param(BAML_SCHEMA, "Predict", id="BAML with a schema"),
    ],
)
def test_program_py_alone_sends_what_the_runner_sends(
    tmp_path: Path, recorder: Recorder, adapter: Any, module: str
) -> None:
    program = loaded(tmp_path, adapter, module)
    (tmp_path / "program.json").write_bytes(program_json_bytes(program.module))
    vector = prompts(program, adapter, [(INPUTS, readable(adapter, OUTPUTS))])["vectors"][0]
    recorder.answer = vector["response"]

    alone = run_alone(tmp_path, recorder)
    in_the_runner = call(program.in_state(state_document(program.module)), program.adapter, recorder)
    just_optimized = call(program.module, program.adapter, recorder)

    assert alone == in_the_runner == just_optimized == vector["outputs"]
    assert alone == readable(adapter, OUTPUTS) | ({"reasoning": REASONING} if module == "ChainOfThought" else {})
    assert len(set(recorder.messages())) == 1
    assert len(set(recorder.bodies)) == 1
    assert json.loads(recorder.bodies[0])["messages"] == vector["messages"]


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_page_without_dspy_builds_the_same_messages_and_reads_the_same_answer(tmp_path: Path, adapter: Any) -> None:
    program = loaded(tmp_path, adapter)
    rows = [
        (INPUTS, OUTPUTS),
        (
            INPUTS | {"note": "{{ticket}}", "plan": 7, "urgent": False},
            OUTPUTS | {"due": 5, "sure": True, "mixed": {"k": 1}, "reply": "a < b && <c>&lt;</c>", "topics": ["<&>"]},
        ),
        (
            INPUTS | {"ticket": "", "tags": [], "prices": {}},
            OUTPUTS | {"reply": "", "topics": [], "level": 1, "mixed": False, "scores": {"a b": 1, "c-d": 2.5, '"': 3}},
        ),
        (INPUTS, OUTPUTS),
    ]
    document = prompts(program, adapter, [(inputs, readable(adapter, outputs)) for inputs, outputs in rows])
    assert len(document["vectors"]) == 3
    assert conforms(tmp_path, document)

    for index in range(len(document["vectors"][0]["messages"])):
        changed = json.loads(json.dumps(document))
        changed["predictors"]["predict.predict"]["messages"][index]["content"] += " "
        assert not conforms(tmp_path, changed)
    changed = json.loads(json.dumps(document))
    changed["vectors"][1]["outputs"]["due"] = 6
    assert not conforms(tmp_path, changed)


def test_the_reader_of_prompts_json_is_short_and_needs_no_package() -> None:
    # The last part compares with the vectors: nobody else has to.
    _docstring, *code, _main = ast.parse(CONFORMANCE.read_text()).body
    lines = {node.lineno for part in code for node in ast.walk(part) if isinstance(node, (ast.stmt, ast.ExceptHandler))}
    assert len(lines) <= 63
    of_xml = {"escaped", "element", "tree", "elements"}
    xml = [part for part in code if isinstance(part, ast.FunctionDef) and part.name in of_xml]
    others = lines - {node.lineno for part in xml for node in ast.walk(part) if isinstance(node, ast.stmt)}
    assert len(others) <= 35
    assert [ast.unparse(part) for part in code if isinstance(part, (ast.Import, ast.ImportFrom))] == [
        "import json",
        "import re",
        "import sys",
        "import xml.etree.ElementTree as ET",
        "from xml.sax.saxutils import quoteattr",
    ]


def test_the_schema_is_sent_always_and_in_the_order_of_the_signature(tmp_path: Path, recorder: Recorder) -> None:
    program = loaded(tmp_path, SCHEMA)
    document = prompts(program, SCHEMA, [(INPUTS, OUTPUTS)])
    recorder.answer = document["vectors"][0]["response"]
    # gpt-4o-mini is in DSPy's catalogue, some-model is not.
    for model in ("openai/some-model", "openai/gpt-4o-mini"):
        call(program.module, program.adapter, recorder, model)
        body = recorder.bodies[-1].decode()
        sent = json.loads(body)["response_format"]
        assert sent == document["predictors"]["predict.predict"]["responseFormat"]
        assert sent["json_schema"]["strict"] is True
        properties = sent["json_schema"]["schema"]["properties"]
        assert list(properties) == sent["json_schema"]["schema"]["required"] == ["reasoning", *OUTPUTS]
        places = [body.index(f'"{name}":', body.index('"properties"')) for name in properties]
        assert places == sorted(places)


def test_no_response_format_is_sent_where_it_is_disabled(tmp_path: Path, recorder: Recorder) -> None:
    program = loaded(tmp_path, WORDS)
    document = prompts(program, WORDS, [(INPUTS, OUTPUTS)])
    recorder.answer = document["vectors"][0]["response"]
    for model in ("openai/some-model", "openai/gpt-4o-mini"):
        call(program.module, program.adapter, recorder, model)
        assert "response_format" not in json.loads(recorder.bodies[-1])
    assert document["predictors"]["predict.predict"]["responseFormat"] is None


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_answer_in_another_format_costs_one_call_and_no_second_try(
    tmp_path: Path, recorder: Recorder, adapter: Any
) -> None:
    program = loaded(tmp_path, adapter)
    recorder.answer = "I would rather not."
    with pytest.raises(dspy.utils.exceptions.AdapterParseError):
        call(program.module, program.adapter, recorder)
    assert len(recorder.bodies) == 1


def test_an_endpoint_that_refuses_the_schema_is_an_error_and_not_a_fallback(tmp_path: Path, recorder: Recorder) -> None:
    program = loaded(tmp_path, SCHEMA)
    recorder.status = 400
    with pytest.raises(dspy.utils.exceptions.LMError, match="response_format is not supported"):
        call(program.module, program.adapter, recorder)
    assert len(recorder.bodies) == 1


def test_the_hook_that_our_json_adapters_override_is_the_one_that_dspy_calls() -> None:
    hook = dspy.JSONAdapter._prepare_response_format
    assert list(inspect.signature(hook).parameters) == ["self", "lm", "lm_kwargs", "signature"]
    for entry in (dspy.JSONAdapter.__call__, dspy.JSONAdapter.acall):
        assert "self._prepare_response_format(lm, lm_kwargs, signature)" in inspect.getsource(inspect.unwrap(entry))


@pytest.mark.parametrize(("adapter", "folder"), [(CHAT, "chat"), (SCHEMA, "json"), (XML, "xml"), (BAML_SCHEMA, "baml")])
def test_a_revisions_bytes_are_those_of_the_golden_files(tmp_path: Path, adapter: Any, folder: str) -> None:
    """Other bytes are another digest for everybody's program: a change here is a new contract, or a bug.

    UPDATE_GOLDEN=1 writes the files anew.
    """
    program = loaded(tmp_path, adapter)
    files = {
        "program.py": program.source.encode(),
        "program.json": program_json_bytes(program.module),
        "prompts.json": document_bytes(prompts(program, adapter, [(INPUTS, readable(adapter, OUTPUTS))])),
    }
    for name, content in files.items():
        # The suffix keeps linters away: a golden file is what it is.
        golden = Path(__file__).parent / "golden" / folder / f"{name}.golden"
        if os.environ.get("UPDATE_GOLDEN"):
            golden.parent.mkdir(parents=True, exist_ok=True)
            golden.write_bytes(content)
        assert golden.read_bytes().decode() == content.decode()


def test_program_json_is_loaded_by_plain_dspy_and_comes_out_the_same(tmp_path: Path) -> None:
    program = loaded(tmp_path)
    content = program_json_bytes(program.module)
    (tmp_path / "program.json").write_bytes(content)
    fresh = type(program.module)()
    fresh.load(tmp_path / "program.json")
    assert program_json_bytes(fresh) == content
    assert program_hash(fresh) == program_hash(program.module)
    assert program_hash(fresh) != program_hash(type(program.module)())


def test_program_json_names_no_model_no_url_and_no_version(tmp_path: Path) -> None:
    program = loaded(tmp_path)
    before = program_json_bytes(program.module)
    program.module.set_lm(dspy.LM("openai/secret-model", api_base="http://secret.example/v1", api_key="secret-key"))
    assert program_json_bytes(program.module) == before
    assert json.loads(before)["metadata"] == {"dependency_versions": {}}
    assert b"secret" not in before
    assert b"secret" not in document_bytes(prompts(program, CHAT, [(INPUTS, OUTPUTS)]))


def test_the_order_of_a_demonstrations_fields_is_no_difference_and_that_of_its_values_is_one(tmp_path: Path) -> None:
    program = loaded(tmp_path)
    (predictor,) = program.module.predictors()
    demo = predictor.demos[0].toDict()
    predictor.demos = [demo]
    want = program_hash(program.module)
    predictor.demos = [dict(reversed(demo.items())) | {"dspy_uuid": "of the moment"}]
    assert program_hash(program.module) == want
    predictor.demos = [demo | {"prices": dict(reversed(demo["prices"].items()))}]
    assert program_hash(program.module) != want


def test_instructions_that_dspy_would_change_at_each_copy_are_settled(tmp_path: Path) -> None:
    program = loaded(tmp_path)
    (predictor,) = program.module.predictors()
    predictor.signature = predictor.signature.with_instructions("\n\nFirst:\n  - a\n  - b\n")
    state = state_document(program.module)
    again = program.in_state(state)
    assert state["predict.predict"]["signature"]["instructions"] == again.predictors()[0].signature.instructions
    assert state_document(again) == state


def test_the_source_that_optimizers_show_to_the_model_is_that_of_the_program(tmp_path: Path) -> None:
    first, second = loaded(tmp_path / "a"), loaded(tmp_path / "b", module="Predict")
    assert inspect.getsource(type(first.module)).startswith("class Program(dspy.Module):\n")
    assert "dspy.ChainOfThought(TriageSignature)" in inspect.getsource(type(first.module))
    assert "dspy.Predict(TriageSignature)" in inspect.getsource(type(second.module))


def test_a_new_source_of_the_same_size_is_the_one_that_is_imported(tmp_path: Path) -> None:
    for text in ("Say one.", "Say two."):
        program = load_program(program_source("triage", a_program(instructions=text), None), tmp_path)
        os.utime(tmp_path / "program.py", (1, 1))
        assert program.module.predictors()[0].signature.instructions == text


def test_a_state_of_another_program_is_refused(tmp_path: Path) -> None:
    state = state_document(loaded(tmp_path / "a").module)
    with pytest.raises(RunFailed, match="the state is of another program") as refused:
        loaded(tmp_path / "b", module="Predict").in_state(state)
    assert refused.value.exit is Exit.INVALID_PROGRAM


def test_a_source_that_cannot_be_built_is_an_invalid_program(tmp_path: Path) -> None:
    with pytest.raises(
        RunFailed, match="the program cannot be built: NameError: name 'Date' is not defined"
    ) as refused:
        load_program("import dspy\n\n\nclass S(dspy.Signature):\n    day: Date = dspy.InputField()\n", tmp_path)
    assert refused.value.exit is Exit.INVALID_PROGRAM
    assert refused.value.path == "spec.program"


def test_vectors_are_left_out_where_rows_must_not_be_exported_and_the_file_says_so(tmp_path: Path) -> None:
    program = loaded(tmp_path)
    kept = prompts(program, CHAT, None)
    assert kept["vectors"] is None
    assert "exportRows is false" in kept["note"]
    incomplete = prompts(program, CHAT, [(INPUTS, {"label": "billing"})])
    assert incomplete["vectors"] is None
    assert "no row labels every output" in incomplete["note"]
    assert conforms(tmp_path, kept)


def test_a_row_with_dspys_marker_of_custom_types_is_no_vector(tmp_path: Path) -> None:
    marker = "<<CUSTOM-TYPE-START-IDENTIFIER>>[]<<CUSTOM-TYPE-END-IDENTIFIER>>"
    assert prompts(loaded(tmp_path), CHAT, [(INPUTS | {"ticket": marker}, OUTPUTS)])["vectors"] is None


def test_the_request_is_that_of_the_target_without_model_or_url(tmp_path: Path) -> None:
    program = loaded(tmp_path)
    assert prompts(program, CHAT, None)["request"] == {"temperature": "0.2", "maxTokens": 300, "stop": ["<<end>>"]}
    assert prompts_document(program.module, program.adapter, None, SamplingRequest(), None)["request"] == {
        "temperature": "0"
    }


@pytest.mark.parametrize(
    ("part", "field_document", "want"),
    [
        pytest.param(
            "outputs",
            {"name": "day", "type": "list[Date]"},
            'spec.program.single.signature.outputs[0].type: unknown type "Date" at 5; allowed: str',
            id="an unknown type",
        ),
        pytest.param(
            "inputs",
            {"name": "completions", "type": "str"},
            'spec.program.single.signature.inputs[0].name: "completions" cannot be a field name: DSPy uses it',
            id="a name of Predict",
        ),
        pytest.param(
            "outputs",
            {"name": "fields", "type": "str"},
            'spec.program.single.signature.outputs[0].name: "fields" cannot be a field name: DSPy uses it',
            id="a name of Signature",
        ),
        pytest.param(
            "outputs",
            {"name": "model_dump", "type": "str"},
            'spec.program.single.signature.outputs[0].name: "model_dump" cannot',
            id="a name of pydantic",
        ),
        pytest.param(
            "outputs",
            {"name": "_x", "type": "str"},
            'spec.program.single.signature.outputs[0].name: "_x" cannot be',
            id="a leading underscore",
        ),
        pytest.param(
            "inputs",
            {"name": "list", "type": "str"},
            'spec.program.single.signature.inputs[0].name: "list" cannot be a field name: program.py uses it',
            id="a name of a type",
        ),
    ],
)
def test_what_the_schema_cannot_see_is_found_with_its_path(
    part: str, field_document: dict[str, str], want: str
) -> None:
    document = a_program().document()
    document["single"]["signature"][part][0] = field_document
    (problem,) = check_program(Program.model_validate(document))
    assert str(problem).startswith(want)


def test_a_sound_program_has_no_problem_and_instructions_of_white_space_are_one() -> None:
    assert check_program(a_program()) == []
    (problem,) = check_program(a_program(instructions=" \n"))
    assert str(problem) == "spec.program.single.signature.instructions: holds only white space"
