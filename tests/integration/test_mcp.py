"""Tools of an MCP server, the SDK's own: listed once, called through the one core, replayed exactly; its outage becomes no score."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest
from mcp.server.mcpserver.exceptions import ToolError

from dspy_operator.api.optimizationrun import Budget
from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.contract.resolve import Surroundings, resolve_validation
from dspy_operator.contract.runspec import Control, Endpoint, Paths, RunSpec
from dspy_operator.runner.journal import Journal
from dspy_operator.runner.ledger import Ledger
from dspy_operator.runner.mcp import listed_tools
from dspy_operator.runner.mcp_wire import McpError, ask_mcp, mcp_text
from dspy_operator.runner.program import load_program
from dspy_operator.runner.program_source import program_source
from dspy_operator.runner.stop import RunStop
from dspy_operator.runner.tools import Tools
from tests.integration.harness import SMALL, Case, Workplace, workplace
from tests.integration.listening import until_listening
from tests.integration.mcp_server import ThingsServer, things_server
from tests.integration.react import react_case
from tests.integration.test_kill import killed, until
from tests.unit.written import program

pytestmark = [pytest.mark.measured, pytest.mark.timeout(600)]

MODULE = "spec.program.single.module.react"
TOOL = f"{MODULE}.tools[0].mcp"
THREADS = 4
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def serving() -> Iterator[ThingsServer]:
    """One for all tests: it answers in a stream of events."""
    with things_server() as place:
        yield place


@pytest.fixture
def things(serving: ThingsServer) -> ThingsServer:
    """It, when nobody has asked it anything."""
    serving.forget()
    return serving


# --- a run -----------------------------------------------------------------------------------------------------------


def mcp_case(optimizer: str, url: str) -> Case:
    case = react_case(SMALL[optimizer], "", dev=6, test=3, concurrency=THREADS)
    tools = [{"name": "things", "mcp": {"url": url, "tools": ["lookup"]}}]
    case.program["program"]["single"]["module"]["react"]["tools"] = tools
    return case


def alone(place: Workplace) -> subprocess.CompletedProcess[str]:
    """The revision's program.py as a program of its own."""
    command = [sys.executable, str(place.run_folder / "revision" / "program.py"), "--model", "openai/fake"]
    command += ["--api-base", place.server.url, json.dumps({"text": "item001 thing"})]
    return subprocess.run(command, capture_output=True, text=True, env={"HOME": str(place.folder)})


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
    killed(process)
    held.set()
    things.answers = None


def test_a_killed_run_goes_on_with_the_tools_that_were_listed_and_is_replayed_without_the_server(
    tmp_path: Path, things: ThingsServer
) -> None:
    with workplace(tmp_path / "place", mcp_case("BootstrapFewShot", things.url)) as place:
        kill_at_a_call(place, things, 6)
        place.server.wait_until(lambda counts: counts["in_flight"] == 0)
        assert things.methods.count("tools/list") == 1
        assert things.methods.count("initialize") <= 1 + THREADS, "one to list, one for all threads or one for each"

        done = place.run("--resume")
        assert done.code == 0, done.stderr
        assert things.methods.count("tools/list") == 1, "a resumed run goes on with the tools that it knows"
        told = [line for line in place.journal() if line["kind"] == "told"]
        assert len(told) == len({line["key"] for line in told}) >= 9, "each row asks once"
        assert {line["url"] for line in told} == {things.url}
        assert all(line["answer"].startswith("about ") for line in told)
        assert len(told) <= len(things.calls) <= len(told) + THREADS
        assert done.result["tools"]["lookup"]["failed"] == 0
        assert len(things.calls) <= done.result["tools"]["lookup"]["calls"] <= len(told) + THREADS

        messages, requests = len(things.methods), place.server.counts()["requests"]
        verified = place.verify()
        assert verified.code == 0, verified.stderr
        assert (len(things.methods), place.server.counts()["requests"]) == (messages, requests)

        (wiring,) = json.loads((place.run_folder / "revision" / "prompts.json").read_bytes())["wiring"]
        assert list(wiring["tools"]) == ["lookup"] and wiring["tools"]["lookup"]["mcp"] == things.url
        calls = len(things.calls)
        answered = alone(place)
        assert answered.returncode == 0, answered.stderr
        assert json.loads(answered.stdout)["label"] in ("positive", "negative")
        assert len(things.calls) == calls + 1


def test_the_example_is_valid_beside_its_server_and_the_model_reads_why_a_tool_failed(tmp_path: Path) -> None:
    example, url = ROOT / "examples" / "stock-mcp", "http://127.0.0.1:8096/mcp"
    with (tmp_path / "server.log").open("wb") as log:
        server = subprocess.Popen([sys.executable, example / "server.py"], stdout=log, stderr=log)
    try:
        until_listening(8096, server, tmp_path / "server.log")
        files = [example, ROOT / "examples/stock-react/dataset.yaml", ROOT / "examples/sentiment/endpoint.yaml"]
        command: list[str | Path] = [sys.executable, "-m", "dspy_operator.cli.main", "validate", *files, "-o", tmp_path]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        text = (tmp_path / "stock-mcp.baseline" / "revision" / "program.py").read_text("utf-8")
        assert "how many pieces of an item are in stock" in text and "reorder" not in text

        def said(item: str) -> str:
            return mcp_text(ask_mcp(url, "tools/call", {"name": "stock", "arguments": {"item": item}}, {}, timeout=30))

        assert said("Hinge") == "120"
        with pytest.raises(McpError, match="no item 'hinges'; there are: hinge, bolt"):
            said("hinges")
    finally:
        server.kill()
        server.wait()


# --- which tools there are -------------------------------------------------------------------------------------------


def a_spec(url: str, *more: dict[str, Any], **mcp: Any) -> RunSpec:
    tools = [{"name": "things", "mcp": {"url": url, **mcp}}, *more]
    written = program({"program.single.module": {"type": "ReAct", "react": {"tools": tools}}})
    around = Surroundings(data_path="/rows", paths=Paths(journal="/j", out="/o", control="/c"), dataset_digest="v1:d")
    return resolve_validation(written, around)


def test_a_server_says_its_tools_in_its_order(things: ThingsServer) -> None:
    lookup, forget = listed_tools(a_spec(things.url))["things"]
    assert (lookup.name, forget.name) == ("lookup", "forget")
    assert lookup.description == "Says what is known about a thing."
    assert lookup.inputSchema["properties"].keys() == {"thing", "limit"}
    assert [tool.name for tool in listed_tools(a_spec(things.url, tools=["forget"]))["things"]] == ["forget"]


def test_all_pages_are_read_and_what_they_say_back_of_a_secret_is_not_told(
    tmp_path: Path, things: ThingsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "X-Api-Key").write_text("s3cr3t-of-ours")
    spec = a_spec(things.url, headersSecret={"name": "token"})
    spec = spec.model_copy(update={"headers": {"token": str(tmp_path)}})
    listed_tools(spec)
    assert things.keys == {"s3cr3t-of-ours"}

    def page(url: str, method: str, params: dict[str, str], headers: dict[str, str], timeout: float) -> dict[str, Any]:
        at = params.get("cursor", "0")
        schema = {"type": "object", "properties": {"key": {"default": headers["X-Api-Key"]}}}
        tool = {"name": f"tool{at}", "description": f"For {headers['X-Api-Key']}.", "inputSchema": schema}
        return {"tools": [tool], **({"nextCursor": str(int(at) + 1)} if at != "2" else {})}

    monkeypatch.setattr("dspy_operator.runner.mcp.ask_mcp", page)
    tools = listed_tools(spec)["things"]
    assert [tool.name for tool in tools] == ["tool0", "tool1", "tool2"]
    assert {tool.description for tool in tools} == {"For ***."}
    assert "s3cr3t" not in str(tools)


HTTP = {"name": "lookup", "description": "x", "http": {"url": "http://127.0.0.1:9"}}


@pytest.mark.parametrize(
    ("status", "of_mcp", "more", "reason", "path", "said"),
    [
        pytest.param(
            401, {}, [], Reason.AUTHENTICATION_FAILED, f"{TOOL}.headersSecret", "HTTP Error 401", id="wants a key"
        ),
        pytest.param(404, {}, [], Reason.INVALID_PROGRAM, f"{TOOL}.url", "HTTP Error 404", id="is not there"),
        pytest.param(
            503,
            {},
            [],
            Reason.ENDPOINT_UNAVAILABLE,
            f"{TOOL}.url",
            "does not answer: HTTP Error 503: Service Unavailable out of order, 5 times",
            id="is out of order",
        ),
        pytest.param(
            200,
            {"tools": ["look"]},
            [],
            Reason.INVALID_PROGRAM,
            f"{TOOL}.tools",
            'has no tool "look" (there are: lookup, forget)',
            id="has not what is wanted",
        ),
        pytest.param(
            200, {}, [HTTP], Reason.INVALID_PROGRAM, f"{TOOL}.tools", 'a tool "lookup", and so has', id="has the same name"
        ),
    ],
)  # fmt: skip
def test_a_server_that_does_not_say_its_tools_is_told_by_its_path(
    things: ThingsServer,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    of_mcp: dict[str, Any],
    more: list[dict[str, Any]],
    reason: Reason,
    path: str,
    said: str,
) -> None:
    monkeypatch.setattr("dspy_operator.runner.snapshot._pause", lambda _: 0.0)
    things.status = status
    with pytest.raises(RunFailed) as failed:
        listed_tools(a_spec(things.url, *more, **of_mcp))
    assert (failed.value.reason, failed.value.path) == (reason, path)
    assert said in failed.value.message and f'the MCP server "things" at {things.url}' in failed.value.message


# --- calls -----------------------------------------------------------------------------------------------------------


class Scene:
    """The tools of a program.py between a journal and the server."""

    def __init__(self, folder: Path, url: str, headers: dict[str, str] | None = None) -> None:
        spec = a_spec(url, **({"headersSecret": {"name": "token"}} if headers else {}))
        written = spec.program.program
        names = {"things": tuple(headers)} if headers else {}
        source = program_source("qa", written, None, headers=names, listed=listed_tools(a_spec(url)))
        self.program = load_program(source, folder)
        self.journal = Journal(folder / "journal.jsonl")
        model = Endpoint(name="a/b", type="OpenAI", url="http://127.0.0.1:9/v1", model="m")
        self.ledger = Ledger(self.journal, {"task": model}, Control(budget=Budget(calls=10)), seed=0)
        self.epoch = self.ledger.open_epoch("optimize")
        self.tools = Tools(written.tools)
        self.tools.open(self.ledger, self.journal, {"things": headers or {}})
        self.tools.connect(self.program)

    def ask(self, thing: str) -> str:
        """What a model that calls the tool for a row reads."""
        module = self.program.module.predict
        with dspy.context(lm=self.ledger.lm("task", self.epoch)):
            self.tools.on_module_start("1", module, {"args": (), "kwargs": {"ticket": "a row"}})
            try:
                return str(module.tools["lookup"](thing=thing))
            finally:
                self.tools.on_module_end("1", dspy.Prediction())


@pytest.mark.parametrize("as_json", [False, True], ids=["in a stream of events", "in JSON"])
def test_calls_share_a_session_and_go_on_in_another_one_when_the_server_was_restarted(
    tmp_path: Path, as_json: bool
) -> None:
    with things_server(as_json=as_json) as things:
        scene = Scene(tmp_path, things.url)
        things.methods.clear()
        assert [scene.ask(thing) for thing in ("a", "b")] == ["about a", "about b"]
        assert things.methods == ["initialize", "notifications/initialized", "tools/call", "tools/call"]
    with things_server(port=int(things.url.split(":")[2].split("/")[0]), as_json=as_json) as again:
        assert scene.ask("c") == "about c" and again.calls == ["c"]
    assert (scene.tools.usage()["lookup"].calls, scene.tools.usage()["lookup"].failed) == (3, 0)


def test_a_tool_that_says_that_it_failed_is_told_to_the_model_once_and_for_ever(
    tmp_path: Path, things: ThingsServer
) -> None:
    def answers(at: int, thing: str) -> str:
        raise ToolError(f"nobody knows {thing}")

    scene = Scene(tmp_path, things.url)
    things.answers = answers
    said = scene.ask("that")
    assert said.startswith("Execution error in lookup: ") and said.endswith("nobody knows that")
    things.answers = None
    assert scene.ask("that") == said and things.calls == ["that"]
    assert scene.ask("this") == "about this"
    assert (scene.tools.usage()["lookup"].calls, scene.tools.usage()["lookup"].failed) == (2, 1)


def test_a_server_that_is_away_stops_the_run_and_nothing_is_told(
    tmp_path: Path, things: ThingsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dspy_operator.runner.servers.backoff_seconds", lambda *_: 0.0)
    scene = Scene(tmp_path, things.url)
    assert scene.ask("a") == "about a"
    things.status = 503
    with pytest.raises(RunStop) as stopped:
        scene.ask("b")
    assert (stopped.value.reason, stopped.value.path) == (Reason.ENDPOINT_UNAVAILABLE, f"{TOOL}.url")
    message = f'the MCP server "things" at {things.url} left 10 requests in a row unanswered (server error): '
    assert message + "HTTP Error 503: Service Unavailable out of order" in stopped.value.message
    assert things.refused == 10
    things.status = 200
    scene.epoch = scene.ledger.open_epoch("test")
    assert scene.ask("b") == "about b", "nothing was written down of it"
    usage = scene.tools.usage()["lookup"]
    assert usage.failed == 0


def test_the_headers_of_the_secret_are_sent_with_every_message_and_not_written_down(
    tmp_path: Path, things: ThingsServer
) -> None:
    scene = Scene(tmp_path, things.url, {"X-Api-Key": "s3cr3t-of-ours"})
    things.keys.clear()
    things.answers = lambda at, thing: f"{thing}, asked with s3cr3t-of-ours"
    assert scene.ask("a") == "a, asked with ***"
    assert things.keys == {"s3cr3t-of-ours"}
    scene.journal.close()
    assert all(b"s3cr3t" not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
