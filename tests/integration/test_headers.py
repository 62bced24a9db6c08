"""`headersSecret` of tools and lookups: the headers arrive, their names are published, and their values are nowhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.graph import graph_case
from tests.integration.harness import OPTIMIZERS, Case, Workplace, workplace
from tests.integration.react import react, react_case
from tests.integration.search_server import search_server
from tests.integration.test_validate import findings
from tests.integration.tool_server import Asked, tool_server

pytestmark = pytest.mark.timeout(600)

VALUE = "Bearer s3cr3t-of-ours"
TOOL = "spec.program.single.module.react.tools[0].http.headersSecret.name"


def a_secret(folder: Path, **headers: str) -> Path:
    folder.mkdir()
    for name, value in headers.items():
        (folder / name.replace("_", "-")).write_text(f"{value}\n")
    return folder


def everything(place: Workplace) -> bytes:
    """All that lies in the run's folder and beside it."""
    return b"".join(path.read_bytes() for path in place.folder.rglob("*") if path.is_file())


def alone(place: Workplace, text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The revision's program.py as a program of its own."""
    command = [sys.executable, str(place.run_folder / "revision" / "program.py"), "--model", "openai/fake"]
    command += ["--api-base", place.server.url, json.dumps({"text": text})]
    environment["HOME"] = str(place.folder)
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def prompts(place: Workplace) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((place.run_folder / "revision" / "prompts.json").read_bytes())
    return document


def test_a_tool_is_asked_with_the_headers_of_its_secret_which_only_their_names_leave(tmp_path: Path) -> None:
    def echo(asked: Asked) -> str:
        return f"{json.dumps(asked.arguments)}, asked with {asked.headers['authorization']}"

    with tool_server(echo) as tools:
        http = {"url": f"{tools.url}/lookup", "headersSecret": {"name": "token"}}
        program = {"program": react(tools.url, http=http)}
        case = react_case(OPTIMIZERS["Evaluate"], tools.url, program=program, dev=2, test=2)
        with workplace(tmp_path / "place", case) as place:
            secret = a_secret(tmp_path / "secret", Authorization=VALUE, X_Team="a")
            done = place.run("--secret", f"token={secret}")
            assert done.code == 0, done.stderr
            assert {(each.headers["authorization"], each.headers["x-team"]) for each in tools.asked} == {(VALUE, "a")}
            told = [line["answer"] for line in place.journal() if line["kind"] == "told"]
            assert told and all(answer.endswith("asked with ***") for answer in told)
            assert b"s3cr3t" not in everything(place) + done.stdout.encode() + done.stderr.encode()
            (wiring,) = prompts(place)["wiring"]
            assert wiring["tools"]["lookup"]["headers"] == ["Authorization", "X-Team"]
            calls = tools.calls

            (secret / "Authorization").rename(tmp_path / "Authorization")
            verified = place.verify()  # by what is written down: the Secret is not wanted
            assert verified.code == 0, verified.stderr
            assert tools.calls == calls

            failed = alone(place, "item001 thing", TOOL_HEADERS=str(tmp_path / "mine"))
            assert failed.returncode == 2
            assert f"there is no {tmp_path}/mine/lookup/Authorization, {tmp_path}/mine/lookup/X-Team" in failed.stderr
            a_secret(tmp_path / "mine")
            a_secret(tmp_path / "mine" / "lookup", Authorization="Bearer mine", X_Team="b", X_Other="not asked for")
            answered = alone(place, "item001 thing", TOOL_HEADERS=str(tmp_path / "mine"))
            assert answered.returncode == 0, answered.stderr
            assert tools.calls == calls + 1 and tools.asked[-1].headers["authorization"] == "Bearer mine"
            assert "x-other" not in tools.asked[-1].headers


def test_passages_are_looked_up_with_the_headers_of_the_nodes_secret(tmp_path: Path) -> None:
    with search_server() as search:
        case = graph_case(OPTIMIZERS["Evaluate"], search.url, dev=2, test=2)
        http = case.program["program"]["graph"]["nodes"]["context"]["retrieve"]["http"]
        http["headersSecret"] = {"name": "token"}
        with workplace(tmp_path / "place", case) as place:
            done = place.run("--secret", f"token={a_secret(tmp_path / 'secret', X_Api_Key='s3cr3t-of-ours')}")
            assert done.code == 0, done.stderr
            assert search.keys == {"s3cr3t-of-ours"}
            assert b"s3cr3t" not in everything(place)
            steps = {step["node"]: step for step in prompts(place)["wiring"]}
            assert steps["context"]["headers"] == ["X-Api-Key"]
            search.keys.clear()
            (tmp_path / "mine").mkdir()
            a_secret(tmp_path / "mine" / "context", X_Api_Key="mine")
            answered = alone(place, "item001 thing", TOOL_HEADERS=str(tmp_path / "mine"))
            assert answered.returncode == 0, answered.stderr
            assert search.keys == {"mine"}


def test_a_secret_that_is_not_there_is_asked_for_with_its_place(tmp_path: Path) -> None:
    http = {"url": "http://127.0.0.1:9/lookup", "headersSecret": {"name": "token"}}
    case = Case(OPTIMIZERS["Evaluate"], program={"program": react("", http=http)}, budget={"calls": 500})
    with workplace(tmp_path / "place", case) as place:
        done = place.run()
        assert done.code == 47
        assert TOOL in done.stderr and "here --secret token=FOLDER gives its keys, each a file" in done.stderr
        done = place.run("--secret", f"token={a_secret(tmp_path / 'empty')}")
        assert (done.code, done.result["reason"], done.result["path"]) == (47, "SecretMissing", TOOL)
        assert place.server.counts()["requests"] == 0
        code, found = findings(place.manifests)
    assert code == 0
    assert [(each["severity"], each["reason"], each["path"]) for each in found] == [("warning", "SecretMissing", TOOL)]
