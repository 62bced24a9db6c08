"""Tools of an MCP server: listed once, called through the one core, and its outage becomes no score."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from mcp.server.mcpserver.exceptions import ToolError

from tests.integration.acceptance import revision_files
from tests.integration.harness import OPTIMIZERS, Case, Workplace, intruder, workplace
from tests.integration.mcp_server import ThingsServer, free_port, things_server
from tests.integration.react import react_case
from tests.integration.test_kill import THREADS, killed, until

pytestmark = [pytest.mark.timeout(600), pytest.mark.unmeasured]

TOOL = "spec.program.single.module.react.tools[0].mcp"


def mcp_case(optimizer: str, url: str, *, dev: int = 12, test: int = 6, more: dict[str, Any] | None = None) -> Case:
    case = react_case(OPTIMIZERS[optimizer], "", dev=dev, test=test, concurrency=THREADS)
    react = case.program["program"]["single"]["module"]["react"]
    react["tools"] = [{"name": "things", "mcp": {"url": url, "tools": ["lookup"], **(more or {})}}]
    return case


def alone(place: Workplace, **environment: str) -> subprocess.CompletedProcess[str]:
    """The revision's program.py as a program of its own."""
    command = [sys.executable, str(place.run_folder / "revision" / "program.py"), "--model", "openai/fake"]
    command += ["--api-base", place.server.url, json.dumps({"text": "item001 thing"})]
    environment["HOME"] = str(place.folder)
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def kill_at_a_call(place: Workplace, things: ThingsServer, ordinal: int) -> None:
    """Hold every call from this one on, and kill once one waits."""
    held = threading.Event()

    def hold(at: int, thing: str) -> str:
        if at >= ordinal:
            held.wait(60)
        return f"about {thing}"

    things.answers = hold
    process = place.start()
    until(place.server, process, lambda: len(things.calls) >= ordinal)
    time.sleep(0.2)
    killed(process)
    held.set()
    things.answers = None


def test_a_killed_run_comes_to_the_same_revision_with_the_tools_that_were_listed(tmp_path: Path) -> None:
    port = free_port()
    with things_server(port=port) as things:
        with workplace(tmp_path / "whole", mcp_case("BootstrapFewShot", things.url)) as place:
            whole = place.run()
            assert whole.code == 0, whole.stderr
            files, calls = revision_files(place.run_folder), len(things.calls)
            assert whole.result["tools"] == {"lookup": {"calls": calls, "failed": 0}}
            assert things.methods.count("tools/list") == 1
            assert things.methods.count("initialize") <= 1 + THREADS, (
                "one to list, and one for all threads, or one for each"
            )
            (wiring,) = json.loads((place.run_folder / "revision" / "prompts.json").read_bytes())["wiring"]
            assert list(wiring["tools"]) == ["lookup"] and wiring["tools"]["lookup"]["mcp"] == things.url
            answered = alone(place)
            assert answered.returncode == 0, answered.stderr
            assert len(things.calls) == calls + 1
        things.calls.clear()
        with workplace(tmp_path / "killed", mcp_case("BootstrapFewShot", things.url)) as place:
            kill_at_a_call(place, things, calls // 2)
            place.server.wait_until(lambda counts: counts["in_flight"] == 0)
            listed = things.methods.count("tools/list")
            done = place.run("--resume")
            assert done.code == 0, done.stderr
            assert revision_files(place.run_folder) == files
            assert calls <= len(things.calls) <= calls + THREADS
            assert things.methods.count("tools/list") == listed, "a resumed run goes on with the tools that it knows"
            before = len(things.methods)
            verified = place.verify(environment=intruder(denied=tmp_path / "attempts"))
            assert verified.code == 0, verified.stderr
            assert len(things.methods) == before


def test_a_server_that_is_away_stops_the_run_and_nothing_is_scored_without_it(tmp_path: Path) -> None:
    def answers(at: int, thing: str) -> str:
        if at == 2:
            things.status = 503
        return f"about {thing}"

    with things_server(answers, as_json=True) as things, workplace(tmp_path, mcp_case("Evaluate", things.url)) as place:
        done = place.run()
        assert (done.code, done.result["reason"]) == (45, "EndpointUnavailable"), done.stderr
        assert f'the tool "lookup" at {things.url} left 10 requests in a row' in done.result["message"]
        assert done.result["path"] == f"{TOOL}.url" and done.result["tools"]["lookup"]["failed"] == 0
        things.status, things.answers = 200, None
        again = place.run("--resume")
        assert again.code == 0, again.stderr
        assert again.result["scores"]["candidate"]["failed"] == 0
        assert place.verify().code == 0


def test_a_tool_that_says_that_it_failed_is_told_to_the_model_and_counted(tmp_path: Path) -> None:
    def answers(at: int, thing: str) -> str:
        if at == 3:
            raise ToolError("nobody knows that")
        return f"about {thing}, X"

    more = {"headersSecret": {"name": "token"}}
    with (
        things_server(answers) as things,
        workplace(tmp_path / "p", mcp_case("Evaluate", things.url, more=more)) as place,
    ):
        secret = tmp_path / "secret"
        secret.mkdir()
        (secret / "X-Api-Key").write_text("s3cr3t-of-ours")
        done = place.run("--secret", f"token={secret}")
        assert done.code == 0, done.stderr
        assert things.keys == {"s3cr3t-of-ours"}
        assert done.result["tools"]["lookup"] == {"calls": len(things.calls), "failed": 1}
        (failed,) = [line["error"] for line in place.journal() if line["kind"] == "told" and "error" in line]
        assert "nobody knows that" in failed
        assert all(b"s3cr3t" not in path.read_bytes() for path in place.folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("status", "more", "code", "reason", "field", "said"),
    [
        pytest.param(401, {}, 46, "AuthenticationFailed", "headersSecret", "HTTP Error 401", id="wants a key"),
        pytest.param(404, {}, 40, "InvalidProgram", "url", "HTTP Error 404", id="is not there"),
        pytest.param(
            200, {"tools": ["look"]}, 40, "InvalidProgram", "tools", '"look" (there are: lookup, forget)', id="x"
        ),
    ],
)
def test_a_server_that_does_not_say_its_tools_ends_the_run_before_a_call(
    tmp_path: Path, status: int, more: dict[str, Any], code: int, reason: str, field: str, said: str
) -> None:
    with things_server() as things, workplace(tmp_path, mcp_case("Evaluate", things.url, more=more)) as place:
        things.status = status
        done = place.run()
        assert (done.code, done.result["reason"], done.result["path"]) == (code, reason, f"{TOOL}.{field}"), done.stderr
        assert said in done.result["message"] and things.url in done.result["message"]
        assert place.server.counts()["requests"] == 0
