"""ReAct programs: a tool is asked once and replayed exactly, and its outage becomes no score."""

from __future__ import annotations

import functools
import json
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.acceptance import LONG, revision_files
from tests.integration.harness import SMALL, Case, Workplace, intruder, workplace
from tests.integration.react import react, react_case, react_workplace
from tests.integration.test_kill import THREADS, kill_at_ordinal, killed, until
from tests.integration.tool_server import Asked, Said, ToolServer, tool_server

pytestmark = pytest.mark.timeout(600)

CONFORMANCE = Path(__file__).with_name("conformance.py")
NORMAL = ("BootstrapFewShot", "SIMBA")
ROWS: dict[str, Any] = {"dev": 12, "test": 6}


@dataclass(frozen=True)
class Whole:
    """An uninterrupted run."""

    folder: Path
    result: dict[str, Any]
    requests: int
    tool_calls: int


@functools.cache
def uninterrupted(folder: Path, optimizer: str, port: int) -> Whole:
    """The run of an optimizer that nothing disturbs; the tool's URL, with its port, is a part of the program."""
    with tool_server(port=port) as tools:
        case = react_case(SMALL[optimizer], tools.url, **ROWS, concurrency=THREADS)
        with workplace(folder / f"react-{optimizer}-{port}", case) as place:
            done = place.run()
            assert done.code == 0, done.stderr
            return Whole(place.run_folder, done.result, place.server.counts()["requests"], tools.calls)


def free_port() -> int:
    """A port that nobody listens on."""
    with tool_server() as tools:
        return int(tools.url.rpartition(":")[2])


@pytest.mark.parametrize("optimizer", SMALL if LONG else NORMAL)
def test_a_killed_run_of_each_optimizer_comes_to_the_same_revision_and_asks_no_tool_twice(
    tmp_path: Path, optimizer: str
) -> None:
    port, draw = free_port(), random.Random(f"react/{optimizer}")
    whole = uninterrupted(tmp_path / "whole", optimizer, port)
    assert whole.result["tools"]["lookup"] == {"calls": whole.tool_calls, "failed": 0}
    assert whole.tool_calls > 6
    with tool_server(port=port) as tools:
        case = react_case(SMALL[optimizer], tools.url, **ROWS, concurrency=THREADS)
        with workplace(tmp_path / "killed", case) as place:
            lost = 0
            for share in (0.3, 0.7):
                if draw.random() < 0.5:
                    ordinal = max(int(whole.requests * share), place.server.counts()["requests"] + 1)
                    kill_at_ordinal(place, ordinal, settled=True)
                else:
                    kill_at_a_tool(place, tools, int(whole.tool_calls * share))
                place.server.wait_until(lambda counts: counts["in_flight"] == 0)
                lost += THREADS
            done = place.run("--resume")
            assert done.code == 0, done.stderr
            assert done.result["candidate"] == whole.result["candidate"]
            assert revision_files(place.run_folder) == revision_files(whole.folder)
            assert done.result["scores"] == whole.result["scores"]
            assert whole.tool_calls <= tools.calls <= whole.tool_calls + lost
            assert place.server.counts()["requests"] <= whole.requests + lost
            # A kill may come between the journal's line and the wire.
            assert tools.calls <= done.result["tools"]["lookup"]["calls"] <= whole.tool_calls + lost
            told = [line["key"] for line in place.journal() if line["kind"] == "told"]
            assert len(told) == len(set(told)) == whole.tool_calls
            before = tools.calls
            verified = place.verify(environment=intruder(denied=tmp_path / "attempts"))
            assert verified.code == 0, verified.stderr
            assert not (tmp_path / "attempts").exists(), (tmp_path / "attempts").read_text()
            assert tools.calls == before


def report(place: Workplace) -> dict[str, Any]:
    """report.json."""
    document: dict[str, Any] = json.loads((place.run_folder / "revision" / "report.json").read_bytes())
    return document


def kill_at_a_tool(place: Workplace, tools: ToolServer, ordinal: int) -> None:
    """Hold every call of the tool from this one on, and kill once all threads wait."""
    held = threading.Event()

    def hold(asked: Asked) -> Said | str:
        if asked.ordinal >= ordinal:
            held.wait(60)
            return Said(cut=True)
        return f"about {json.dumps(asked.arguments)}"

    tools.answers = hold
    process = place.start(*(("--resume",) if (place.run_folder / "run.json").exists() else ()))
    until(place.server, process, lambda: tools.calls >= ordinal)
    time.sleep(0.2)
    killed(process)
    held.set()
    tools.answers = None


def test_a_tool_that_is_away_stops_the_run_by_its_name_and_the_run_goes_on_when_it_is_back(tmp_path: Path) -> None:
    away = threading.Event()

    def answers(asked: Asked) -> Said | str:
        if asked.ordinal > 9:
            away.set()
        return Said(status=503, body=b"out of order") if away.is_set() else "known"

    with react_workplace(tmp_path, SMALL["BootstrapFewShot"], answers, **ROWS, concurrency=4) as (place, tools):
        done = place.run()
        assert (done.code, done.result["reason"]) == (45, "EndpointUnavailable"), done.stderr
        assert f'the tool "lookup" at {tools.url}/lookup left 10 requests in a row' in done.result["message"]
        assert "HTTP Error 503" in done.result["message"] and "out of order" in done.result["message"]
        assert "candidate" not in done.result and done.result["tools"]["lookup"]["failed"] == 0
        calls = tools.calls
        assert calls <= 9 + 10 + 4
        tools.answers = lambda asked: "known"
        again = place.run("--resume")
        assert again.code == 0, again.stderr
        assert again.result["tools"]["lookup"] == {"calls": tools.calls, "failed": 0}
        assert place.verify().code == 0


@pytest.mark.usefixtures("short_waits")
def test_nobody_listens_where_the_tool_should_be(tmp_path: Path) -> None:
    port = free_port()
    case = react_case(SMALL["Evaluate"], f"http://127.0.0.1:{port}", **ROWS)
    with workplace(tmp_path, case) as place:
        done = place.run()
        assert (done.code, done.result["reason"]) == (45, "EndpointUnavailable"), done.stderr
        assert "Connection refused" in done.result["message"] and f"127.0.0.1:{port}/lookup" in done.result["message"]
        assert place.server.counts()["requests"] == 1, "the preflight's row, and nothing after its tool"
        assert done.result["scores"] == {}


FAULTS: dict[str, tuple[Said, str]] = {
    "a refusal": (Said(status=400, body=b"thing is unknown"), "HTTP Error 400: Bad Request thing is unknown"),
    "an error of the server": (Said(status=500), "HTTP Error 500: Internal Server Error"),
    "garbage": (Said(body=b"<html>"), "Expecting value: line 1 column 1 (char 0)"),
    "half an answer": (Said(body=b'{"a": [1, 2'), "Expecting ',' delimiter: line 1 column 12 (char 11)"),
    "a redirect": (Said(status=302, headers={"Location": "/elsewhere"}), "HTTP Error 302: Found"),
    "no answer": (Said(cut=True), "Remote end closed connection without response"),
}


@pytest.mark.parametrize("fault", FAULTS if LONG else ["a refusal", "garbage"])
def test_one_call_that_fails_for_ever_is_told_to_the_model_and_counted(tmp_path: Path, fault: str) -> None:
    said, words = FAULTS[fault]
    poisoned: list[str] = []

    def answers(asked: Asked) -> Said | str:
        if asked.ordinal == 4:
            poisoned.append(json.dumps(asked.arguments))
        return said if json.dumps(asked.arguments) in poisoned else "known"

    with react_workplace(tmp_path, SMALL["Evaluate"], answers, **ROWS, concurrency=2) as (place, tools):
        done = place.run()
        assert done.code == 0, done.stderr
        assert done.result["tools"]["lookup"] == {"calls": tools.calls, "failed": 1}
        told = [line for line in place.journal() if line["kind"] == "told" and "error" in line]
        assert [line["error"] for line in told] == [words]
        asked = Counter(json.dumps(each.arguments) for each in tools.asked)
        assert asked[poisoned[0]] == (1 if fault in ("a refusal", "a redirect") else 3)
        assert all(each.path == "/lookup" for each in tools.asked)
        requests = [json.dumps(line["request"], ensure_ascii=False) for line in place.journal() if "request" in line]
        assert sum("Execution error in lookup: " in text for text in requests) == 2, "the next thought, and the answer"
        assert not any("Traceback" in text for text in requests)
        before = tools.calls
        assert place.verify().code == 0 and tools.calls == before
        assert report(place)["tools"] == done.result["tools"]


def test_a_row_without_its_tool_that_is_wrong_has_a_class_of_its_own(tmp_path: Path) -> None:
    wrong = {"base": 0.0, "per_demo": 0, "instructions": 0, "max": 0.0}

    def answers(asked: Asked) -> Said | str:
        return Said(status=400) if asked.ordinal == 3 else "known"

    with react_workplace(tmp_path, SMALL["Evaluate"], answers, **ROWS) as (place, _):
        place.server.set_script(place.case.script(skill=wrong))
        done = place.run()
        assert done.code == 0, done.stderr
        assert Counter(row["candidate"]["class"] for row in report(place)["rows"]) == {"wrong": 5, "tool": 1}


def test_a_tool_that_refuses_every_call_is_no_program(tmp_path: Path) -> None:
    refuse = Said(status=404, body=b"no such path")
    with react_workplace(tmp_path, SMALL["Evaluate"], lambda _: refuse, concurrency=4) as (place, tools):
        done = place.run()
        assert (done.code, done.result["reason"]) == (40, "InvalidProgram"), done.stderr
        assert done.result["path"] == "spec.program.single.module.react.tools[0].http.url"
        assert "refused each of its first 10 calls: HTTP Error 404" in done.result["message"]
        assert tools.calls <= 10 + 4


def test_a_tool_that_wants_to_know_who_asks_ends_the_run(tmp_path: Path) -> None:
    with react_workplace(tmp_path, SMALL["Evaluate"], lambda _: Said(status=401)) as (place, tools):
        done = place.run()
        assert (done.code, done.result["reason"]) == (46, "AuthenticationFailed"), done.stderr
        assert f'the tool "lookup" at {tools.url}/lookup' in done.result["message"] and tools.calls == 1
        assert done.result["path"] == "spec.program.single.module.react.tools[0].http.headersSecret"


def test_a_tool_that_is_slow_down_is_asked_again_when_it_says(tmp_path: Path) -> None:
    def answers(asked: Asked) -> Said | str:
        return Said(status=429, headers={"Retry-After": "1"}) if asked.ordinal == 2 else "known"

    with react_workplace(tmp_path, SMALL["Evaluate"], answers, **ROWS, concurrency=1) as (place, tools):
        done = place.run()
        assert done.code == 0, done.stderr
        assert done.result["tools"]["lookup"] == {"calls": tools.calls, "failed": 0}


def test_a_stopped_run_asks_no_tool_any_more(tmp_path: Path) -> None:
    """The budget ends while threads are at their tools: what comes back goes nowhere, and nothing new is asked."""
    budget = {"calls": 6 * 2 * 4 + 30}
    with react_workplace(tmp_path, SMALL["SIMBA"], None, **ROWS, budget=budget, concurrency=8) as (place, tools):
        done = place.run()
        assert done.code == 44, done.stderr
        assert place.server.counts()["requests"] <= budget["calls"]
        assert done.result["usage"]["calls"] <= budget["calls"]
        lines = place.journal()
        asked, told = (sum(line["kind"] == kind for line in lines) for kind in ("ask", "told"))
        # The process may end between a question's line and its request: once for each thread that was at a tool.
        assert told <= tools.calls <= asked <= tools.calls + 8
        assert place.verify().code == 0


@pytest.mark.parametrize("effects", ["Unsafe", "Safe"])
def test_a_tool_with_effects_is_refused_in_a_run_and_taken_by_validate(tmp_path: Path, effects: str) -> None:
    with tool_server() as tools:
        program = {"program": react(tools.url, effects=effects)}
        with workplace(tmp_path, Case(SMALL["Evaluate"], program=program, budget={"calls": 500})) as place:
            done = place.run()
            if effects == "Safe":
                assert done.code == 0, done.stderr
                return
            assert (done.code, done.result["reason"]) == (40, "InvalidProgram"), done.stderr
            assert done.result["path"] == "spec.program.single.module.react.tools[0].effects"
            assert 'the tool "lookup" is Unsafe' in done.result["message"]
            assert tools.calls == place.server.counts()["requests"] == 0


@pytest.mark.parametrize("adapter", ["Chat", "JSON"])
def test_prompts_json_says_the_same_as_the_run_without_dspy(tmp_path: Path, adapter: str) -> None:
    program = {"adapter": {"type": adapter, "constrained": "Disabled"}} if adapter == "JSON" else {}
    with react_workplace(tmp_path, SMALL["BootstrapFewShot"], None, **ROWS, program=program) as (place, tools):
        done = place.run()
        assert done.code == 0, done.stderr
        path = place.run_folder / "revision" / "prompts.json"
        document = json.loads(path.read_bytes())
        assert list(document["predictors"]) == ["predict.react", "predict.extract.predict"]
        (wiring,) = document["wiring"]
        assert wiring["maxIters"] == 3 and wiring["think"]["predictor"] == "predict.react"
        assert wiring["tools"]["lookup"]["url"] == f"{tools.url}/lookup"
        assert {vector["predictor"] for vector in document["vectors"]} == set(document["predictors"])
        checked = subprocess.run([sys.executable, "-I", str(CONFORMANCE), str(path)], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
        sent = [line["request"] for line in place.journal() if "request" in line]
        trajectory = document["vectors"][-1]["inputs"]["trajectory"]
        header = re.findall(r"\[\[ ## (\w+) ## \]\]", trajectory)
        assert header == ["thought_0", "tool_name_0", "tool_args_0", "observation_0"]
        assert any(all(f"## {name} ##" in json.dumps(request) for name in header) for request in sent)


def test_the_program_alone_asks_the_same_as_the_run(tmp_path: Path) -> None:
    def said(tools: ToolServer, path: str = "/lookup") -> list[Any]:
        return [asked.arguments for asked in tools.asked if asked.path == path]

    with react_workplace(tmp_path, SMALL["Evaluate"], None, dev=2, test=1) as (place, tools):
        done = place.run()
        assert done.code == 0, done.stderr
        recorded: Mapping[str, int] = Counter(map(json.dumps, said(tools)))
        (row,) = [row for row in place.case.rows() if row["part"] == "test"]
        tools.asked.clear()
        command = [sys.executable, str(place.run_folder / "revision" / "program.py"), "--model", "openai/fake"]
        command += ["--api-base", place.server.url, json.dumps({"text": row["text"]})]
        headers = tmp_path / "headers" / "lookup"
        headers.mkdir(parents=True)
        (headers / "X-Who").write_text("me\n")
        alone = subprocess.run(
            command, capture_output=True, text=True, env={"TOOL_HEADERS": str(headers.parent), "HOME": str(tmp_path)}
        )
        assert alone.returncode == 0, alone.stderr
        assert json.loads(alone.stdout)["label"] in ("positive", "negative")
        assert [json.dumps(arguments) in recorded for arguments in said(tools)] == [True]
        assert tools.asked[0].headers["x-who"] == "me"
