"""Dates, named types, images and conversations, from the manifest to the revision and to those who use it."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dspy
import pytest
import yaml
import zstandard

from dspy_operator.api.object_types import program_types
from dspy_operator.api.program import ObjectType, Program
from dspy_operator.api.promptprogram import Adapter, SamplingRequest
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
from dspy_operator.runner.values import for_dspy, input_fields, plain_fields
from tests.counting_server.prompts import text_of
from tests.integration.harness import OPTIMIZERS, Case, ended, merged, start_cli, workplace
from tests.integration.test_revision_files import ADAPTERS, CHAT, SCHEMA, Recorder, conforms, recorder

__all__ = ["recorder"]  # a fixture

PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
TYPES: dict[str, Any] = {
    "Line": {
        "fields": [
            {"name": "sku", "type": "str", "description": "the number on the shelf"},
            {"name": "quantity", "type": "int", "minimum": 1},
            {"name": "price", "type": "float | None"},
        ]
    },
    "Order": {"fields": [{"name": "lines", "type": "list[Line]"}, {"name": "until", "type": "datetime"}]},
}
SIGNATURE: dict[str, Any] = {
    "instructions": "Read the order.",
    "inputs": [
        {"name": "scan", "type": "Image", "description": "of the paper"},
        {"name": "chat", "type": "History"},
        {"name": "text", "type": "str"},
        {"name": "asked", "type": "date"},
        {"name": "before", "type": "Optional[Line]"},
    ],
    "outputs": [
        {"name": "order", "type": "Order"},
        {"name": "day", "type": "date"},
        {"name": "paid", "type": "date | None"},
    ],
}
REQUEST = SamplingRequest.model_validate({"maxTokens": 300})
LINE = {"sku": "ä {{text}}", "quantity": 2, "price": None}
OUTPUTS: dict[str, Any] = {
    "order": {"lines": [LINE, {**LINE, "price": 0.5}], "until": "2026-11-26T10:00:00.500000+01:00"},
    "day": "2026-11-26",
    "paid": None,
}
ONE: dict[str, Any] = {"scan": PIXEL, "text": 'first {{asked}} "x"\n', "asked": "2026-01-01", "before": None}
INPUTS: dict[str, Any] = {
    "scan": "https://example.com/a.png?b={{text}}",
    "chat": {"messages": [{**ONE, **OUTPUTS}, {**ONE, "before": LINE, "scan": "https://example.com/b.png", **OUTPUTS}]},
    "text": "second",
    "asked": "2026-01-02",
    "before": LINE,
}


def seen(adapter: dict[str, str] | None, value: Any) -> Any:
    """Without the picture and the conversation, where the adapter takes none."""
    if adapter is None or adapter["type"] != "BAML":
        return value
    if isinstance(value, (list, tuple)):
        kept = [item for item in value if not isinstance(item, dict) or item.get("name") not in ("scan", "chat")]
        return [seen(adapter, item) for item in kept]
    if isinstance(value, dict):
        return {name: seen(adapter, item) for name, item in value.items() if name not in ("scan", "chat")}
    return value


def a_program(module: str = "ChainOfThought", adapter: dict[str, str] | None = CHAT) -> Program:
    single = {"signature": seen(adapter, SIGNATURE), "module": {"type": module}}
    return Program.model_validate({"type": "Single", "single": single})


def types() -> dict[str, ObjectType]:
    return {name: ObjectType.model_validate(document) for name, document in TYPES.items()}


def spec_of(adapter: dict[str, str] | None) -> Adapter | None:
    return Adapter.model_validate(adapter) if adapter else None


def loaded(directory: Path, adapter: dict[str, str] | None, module: str = "ChainOfThought") -> LoadedProgram:
    """The program with three demonstrations: a row's, an answer's as DSPy parses it, and an incomplete one."""
    source = program_source("orders", a_program(module, adapter), spec_of(adapter), REQUEST, types())
    program = load_program(source, directory)
    (predictor,) = program.module.predictors()
    inputs = for_dspy(predictor.signature.input_fields, seen(adapter, INPUTS))
    gold = {**OUTPUTS, "paid": "2026-01-03", "reasoning": "Because."}
    parsed = program.adapter.parse(
        predictor.signature, program.adapter.format_assistant_message_content(predictor.signature, gold)
    )
    predictor.demos = [
        dspy.Example(**inputs, **gold),
        dspy.Example(augmented=True, **inputs, **parsed),
        dspy.Example(**(seen(adapter, {"scan": dspy.Image(PIXEL)}) or {"text": "?"}), **OUTPUTS),
    ]
    return program


def prompts(program: LoadedProgram, adapter: dict[str, str] | None, *rows: Any) -> dict[str, Any]:
    return prompts_document(program.module, program.adapter, spec_of(adapter), REQUEST, seen(adapter, [*rows]))


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("module", ["Predict", "ChainOfThought"])
def test_program_py_alone_sends_what_the_runner_sends(
    tmp_path: Path, recorder: Recorder, adapter: Any, module: str
) -> None:
    assert check_program(a_program(module, adapter), types(), spec_of(adapter)) == []
    fields = program_types(a_program(module, adapter), types()).fields
    given = seen(adapter, INPUTS)
    assert {name: fields[name].coerce(value) for name, value in (given | OUTPUTS).items()} == given | OUTPUTS
    program = loaded(tmp_path, adapter, module)
    (tmp_path / "program.json").write_bytes(program_json_bytes(program.module))
    (vector,) = prompts(program, adapter, (INPUTS, OUTPUTS))["vectors"]
    recorder.answer = vector["response"]

    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "program.py", "--model", "openai/some-model", "--api-base", recorder.url]
    alone = subprocess.run(
        [*command, json.dumps(given)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert alone.returncode == 0, alone.stderr
    assert "mismatch" not in alone.stderr
    lm = dspy.LM(
        "openai/some-model", api_base=recorder.url, api_key="none", cache=False, temperature=0.0, max_tokens=300
    )
    answers = []
    for module_ in (program.in_state(state_document(program.module)), program.module):
        with dspy.context(lm=lm, adapter=program.adapter):
            answers.append(plain_fields(module_(**for_dspy(input_fields(module_), given))))

    assert json.loads(alone.stdout) == answers[0] == answers[1] == vector["outputs"]
    assert answers[0] == ({"reasoning": REASONING} if module == "ChainOfThought" else {}) | OUTPUTS
    assert len(recorder.bodies) == 3
    assert len(set(recorder.bodies)) == 1
    assert json.loads(recorder.bodies[0])["messages"] == vector["messages"]


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_page_without_dspy_builds_the_same_messages_and_reads_the_same_answer(tmp_path: Path, adapter: Any) -> None:
    program = loaded(tmp_path, adapter)
    message = {**ONE, "reasoning": 'Two\nlines, "quoted"', **OUTPUTS}
    rows = [
        (INPUTS, OUTPUTS),
        (INPUTS | {"chat": {"messages": []}, "scan": PIXEL, "before": None}, OUTPUTS | {"paid": "2026-01-03"}),
        (INPUTS | {"chat": {"messages": [message] * 3}, "text": "third"}, OUTPUTS),
    ]
    document = prompts(program, adapter, *rows)
    assert len(document["vectors"]) == 3
    assert conforms(tmp_path, document)
    for part in (0, 1) if "chat" in document["predictors"]["predict.predict"]["inputs"] else ():
        changed = json.loads(json.dumps(document))
        turn = changed["predictors"]["predict.predict"]["inputs"]["chat"]["turn"]
        turn[part] = {**turn[part], "content": "other"}
        assert not conforms(tmp_path, changed)
    changed = json.loads(json.dumps(document))
    changed["vectors"][0]["outputs"]["day"] = "2026-11-27"
    assert not conforms(tmp_path, changed)


def test_every_reference_of_the_schema_is_found_at_its_root(tmp_path: Path) -> None:
    document = prompts(loaded(tmp_path, SCHEMA), SCHEMA)
    schema = document["predictors"]["predict.predict"]["responseFormat"]["json_schema"]["schema"]
    assert list(schema["$defs"]) == ["Line"]
    assert schema["properties"]["order"]["properties"]["lines"]["items"] == {"$ref": "#/$defs/Line"}
    assert schema["$defs"]["Line"]["additionalProperties"] is False
    assert list(schema["$defs"]["Line"]["properties"]) == schema["$defs"]["Line"]["required"] == list(LINE)


def test_program_json_holds_json_and_comes_out_of_plain_dspy_the_same(tmp_path: Path) -> None:
    program = loaded(tmp_path, CHAT)
    content = program_json_bytes(program.module)
    demo = json.loads(content)["predict.predict"]["demos"][1]
    assert (demo["day"], demo["paid"], demo["order"]) == ("2026-11-26", "2026-01-03", OUTPUTS["order"])
    (tmp_path / "program.json").write_bytes(content)
    fresh = type(program.module)()
    fresh.load(tmp_path / "program.json")
    assert program_json_bytes(fresh) == content
    assert program_hash(fresh) == program_hash(program.module)


@pytest.mark.parametrize("name", ["program.py", "program.json", "prompts.json"])
def test_a_revisions_bytes_are_those_of_the_golden_files(tmp_path: Path, name: str) -> None:
    """UPDATE_GOLDEN=1 writes the files anew."""
    program = loaded(tmp_path, CHAT)
    content = {
        "program.py": program.source.encode(),
        "program.json": program_json_bytes(program.module),
        "prompts.json": document_bytes(prompts(program, CHAT, (INPUTS, OUTPUTS))),
    }[name]
    golden = Path(__file__).parent / "golden" / "types" / f"{name}.golden"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_bytes(content)
    assert golden.read_bytes().decode() == content.decode()


def test_a_large_image_is_in_no_vector(tmp_path: Path) -> None:
    large = "data:image/png;base64," + "A" * 40_000
    document = prompts(loaded(tmp_path, CHAT), CHAT, (INPUTS | {"scan": large}, OUTPUTS), (INPUTS, OUTPUTS))
    assert [vector["inputs"]["scan"] for vector in document["vectors"]] == [INPUTS["scan"]]


@dataclass
class Orders(Case):
    """A run whose program takes and gives all of it."""

    program: Any = field(
        default_factory=lambda: {
            "program": {"type": "Single", "single": {"signature": SIGNATURE, "module": {"type": "Predict"}}},
            "types": TYPES,
            "metric": {"type": "ExactMatch", "exactMatch": {"fields": ["order", "day"]}},
        }
    )

    def rows(self) -> list[dict[str, Any]]:
        """Each with a picture and a conversation of its own."""
        made: list[dict[str, Any]] = []
        for number in range(self.dev + self.test):
            order = {
                "until": f"2026-11-26T{10 + number % 2}:00:00+0{number % 2}:00",
                "lines": [{"price": 1, "sku": f"s{number}", "quantity": number + 1}] * (number % 3),
            }
            made.append(
                {
                    **INPUTS,
                    "scan": f"https://example.com/{number}.png" if number % 2 else PIXEL,
                    "text": f"item{number:03d} thing",
                    "before": None,
                    "order": order,
                    "day": f"2026-01-{number % 28 + 1:02}",
                    "paid": None,
                    "part": "dev" if number < self.dev else "test",
                }
            )
        return made

    def answers(self) -> dict[str, Any]:
        """The right order, its moment written in another way, by the text."""
        said = {"until": "2026-11-26T10:00:00Z"}
        return {
            row["text"]: {"order": {**row["order"], **said}, "day": row["day"], "paid": row["paid"]}
            for row in self.rows()
        }


@pytest.mark.parametrize("optimizer", ["BootstrapFewShot", "MIPROv2", "GEPA"])
def test_a_run_ends_with_a_judged_revision_and_verifies(tmp_path: Path, optimizer: str) -> None:
    with workplace(tmp_path, Orders(OPTIMIZERS[optimizer])) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        assert done.result["reason"] == "Completed"
        assert done.result["dataset"]["dropped"] == 0
        assert 0 < done.result["scores"]["baseline"]["score"] < 100
        assert done.result["scores"]["baseline"]["unreadable"] == 0
        assert "mismatch" not in done.stdout
        requests = [message for seen in place.server.requests() for message in json.loads(seen["body"])["messages"]]
        assert any(PIXEL in json.dumps(message) for message in requests)
        # A picture is a part of a message, for a model that writes prompts too; never its letters as text.
        letters = PIXEL.partition(",")[2]
        assert not [text for message in requests if letters in (text := text_of(message["content"]))]
        verified = place.verify()
        assert verified.code == 0, verified.stderr
        assert done.result["candidate"] in verified.stdout

        lines = zstandard.ZstdDecompressor().stream_reader((place.run_folder / "examples.jsonl.zst").open("rb"))
        evidence = [json.loads(line) for line in io.TextIOWrapper(lines, "utf-8")]
        assert {arm["class"] for line in evidence for arm in line["arms"].values()} == {"right", "wrong"}
        for line in evidence:
            for arm in line["arms"].values():
                assert (arm["outputs"]["day"] == line["expected"]["day"]) == (arm["score"] == 1)
                assert isinstance(arm["outputs"]["order"]["lines"], list)

        document = json.loads((place.run_folder / "revision" / "prompts.json").read_bytes())
        assert len(document["vectors"]) == 3
        assert conforms(tmp_path, document)


def test_values_outside_their_types_are_dropped_with_the_place_inside_them(tmp_path: Path) -> None:
    case = Orders(OPTIMIZERS["Evaluate"])
    rows = case.rows()
    rows[0]["order"] = {**rows[0]["order"], "lines": [{"sku": "a", "quantity": 0, "price": None}]}
    rows[1]["day"] = "1.2.2026"
    rows[2]["chat"] = {"messages": [{"text": "x"}]}
    rows[3]["scan"] = "scans/3.png"
    objects = case.objects()
    objects[0]["data"]["data.jsonl"] = "".join(json.dumps(row) + "\n" for row in rows)
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "all.yaml").write_text(yaml.safe_dump_all(objects, sort_keys=False))
    done = ended(start_cli("validate", str(folder), "-o", str(tmp_path / "out"), "--format", "json"), folder)
    assert done.code == 0, done.stdout
    assert [finding["message"] for finding in json.loads(done.stdout)] == [
        'line 1: column "order": lines[0].quantity: must be at least 1, found 0',
        'line 2: column "day": must be a date as "2026-11-26", found "1.2.2026"',
        'line 3: column "chat": messages[0].scan: is missing (an object holds scan, text, asked, before, order, day, paid)',
        'line 4: column "scan": must be the URL of an image (https://..., data:image/png;base64,...), found "scans/3.png"',
    ]


def test_what_is_wrong_with_types_is_told_where_it_is_written(tmp_path: Path) -> None:
    case = Orders(OPTIMIZERS["Evaluate"])
    circle = {"fields": [{"name": "lines", "type": "list[Line]"}, {"name": "next", "type": "Order | None"}]}
    spec = merged(case.program, {"types": {"Order": circle}})
    spec["program"]["single"]["signature"] = {
        **SIGNATURE,
        "outputs": [
            {"name": "order", "type": "Order"},
            {"name": "photo", "type": "Image"},
            {"name": "x", "type": "Lines"},
        ],
    }
    folder = tmp_path / "x"
    folder.mkdir()
    objects = dataclasses.replace(
        case, program={**spec, "metric": {"type": "ExactMatch", "exactMatch": None}}
    ).objects()
    (folder / "all.yaml").write_text(yaml.safe_dump_all(objects, sort_keys=False))
    done = ended(start_cli("validate", str(folder), "-o", str(tmp_path / "out"), "--format", "json"), folder)
    found = json.loads(done.stdout)
    signature = "spec.program.single.signature"
    assert [(each["path"], each["message"].split(";")[0]) for each in found] == [
        (f"{signature}.outputs[1].type", '"Image" at 0 is for inputs only: no model answers with one'),
        (f"{signature}.outputs[2].type", 'unknown type "Lines" at 0'),
        ("spec.types.Order.fields[1].type", '"Order" holds itself: Order.next -> Order'),
    ]
    text = (folder / "all.yaml").read_text().splitlines()
    for each, written in zip(found, ["type: Image", "type: Lines", "type: Order | None"], strict=True):
        assert text[each["line"] - 1].strip() == written
