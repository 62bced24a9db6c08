"""The command line as a person meets it: help, estimates, the screen of a terminal, several runs in one folder."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from dspy_operator import __version__
from dspy_operator.cli.main import app
from tests.integration.harness import API, OPTIMIZERS, Case, ended, start_cli, workplace

pytestmark = pytest.mark.measured

EVALUATE = {"type": "Evaluate"}
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # it is a group


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_says_what_it_is_for(command: str) -> None:
    assert COMMANDS[command].help
    assert [each.name for each in COMMANDS[command].params if not each.help] == []


def test_help_names_the_commands_and_a_wrong_flag_is_a_usage_error(tmp_path: Path) -> None:
    shown = ended(start_cli("--help", fresh=True), tmp_path)
    assert shown.code == 0
    assert all(re.search(rf"\b{command} ", shown.stdout) for command in ("run", "validate", "verify", "version"))
    wrong = ended(start_cli("run", ".", "--bugdet", "5", fresh=True), tmp_path)
    assert (wrong.code, "No such option: --bugdet" in wrong.stderr) == (64, True)
    version = ended(start_cli("version", fresh=True), tmp_path)
    assert (version.code, version.stdout) == (0, f"{__version__}\n")


@pytest.mark.parametrize("optimizer", ["BootstrapFewShot", "MIPROv2", "GEPA"])
def test_an_estimate_sends_nothing_and_is_within_a_factor_of_two(tmp_path: Path, optimizer: str) -> None:
    with workplace(tmp_path, Case(OPTIMIZERS[optimizer])) as place:
        estimated = place.run("--estimate")
        assert (estimated.code, estimated.stderr) == (0, "")
        assert place.server.counts()["requests"] == 0
        assert not place.run_folder.exists(), "an estimate starts no run"
        estimate = estimated.logs[-1]["result"]["estimate"]

        done = place.run()
        assert done.code == 0, done.stderr
        used = done.result["usage"]
        assert used["calls"] / 2 <= estimate["calls"] <= used["calls"] * 2
        tokens = used["inputTokens"] + used["outputTokens"]
        assert tokens / 3 <= estimate["tokens"] <= tokens * 3, "tokens depend on what the optimizer finds"
        assert float(used["cost"]) / 3 <= float(estimate["cost"]) <= float(used["cost"]) * 3


def test_validate_writes_the_baseline_revision_that_a_run_starts_from(tmp_path: Path) -> None:
    with workplace(tmp_path, Case(EVALUATE, test=6, dev=6)) as place:
        valid = ended(start_cli("validate", str(place.manifests), "-o", str(place.out)), place.out)
        baseline = place.out / "sentiment.baseline"
        assert (valid.code, valid.stderr) == (0, "")
        assert valid.stdout == (
            f"sentiment: valid, 12 rows (3 train, 3 validation, 6 test); baseline revision in {baseline / 'revision'}\n"
        )
        assert place.server.counts()["requests"] == 0
        done = place.run()
        assert done.code == 0, done.stderr
        assert json.loads((baseline / "result.json").read_bytes())["candidate"] == done.result["candidate"]
        for name in ("program.py", "program.json", "prompts.json"):
            assert (baseline / "revision" / name).read_bytes() == (place.run_folder / "revision" / name).read_bytes()


def test_a_program_and_its_run_may_have_one_name(tmp_path: Path) -> None:
    """People name them alike: neither command takes the other's folder."""
    with workplace(tmp_path, Case(EVALUATE, test=4, dev=4)) as place:
        objects = place.case.objects()
        objects[3]["metadata"]["name"] = "sentiment"
        (place.manifests / "all.yaml").write_text(yaml.safe_dump_all(objects), encoding="utf-8")
        validate = ["validate", str(place.manifests), "-o", str(place.out)]
        assert ended(start_cli(*validate), place.out).code == 0
        assert place.run().code == 0
        result = (place.out / "sentiment" / "result.json").read_bytes()
        assert ended(start_cli(*validate), place.out).code == 0
        assert (place.out / "sentiment" / "result.json").read_bytes() == result


def test_where_stdout_is_no_terminal_every_line_is_json_and_the_last_is_the_result(tmp_path: Path) -> None:
    with workplace(tmp_path, Case(EVALUATE, test=6, dev=6)) as place:
        done = place.run()
        assert (done.code, done.stderr) == (0, "")
        assert done.logs[-1]["reason"] == "Completed"
        assert done.logs[-1]["result"] == done.result
        assert {"time", "level", "logger", "message"} <= set(done.logs[0])


# On a terminal


def on_a_terminal(*arguments: str, **environment: str) -> tuple[int, str]:
    """`dspy-operator ...` under a pseudo-terminal: exit code, and all that was written to it."""
    ours, theirs = pty.openpty()
    surroundings = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200", "LINES": "50", **environment}
    for name in {"PYTHONHASHSEED", "NO_COLOR", "FORCE_COLOR"} - set(environment):
        surroundings.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, "-m", "dspy_operator.cli.main", *arguments],
        stdout=theirs,
        stderr=theirs,
        stdin=theirs,
        env=surroundings,
    )
    os.close(theirs)
    written, deadline = b"", time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            more = os.read(ours, 65536)
        except OSError:  # Linux says EIO where the other end is closed
            break
        if not more:
            break
        written += more
    os.close(ours)
    return process.wait(timeout=10), written.decode(errors="replace").replace("\r\n", "\n")


def plain(text: str) -> str:
    """Without the codes that move the cursor and set colours."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


COLOURED = re.compile(r"\x1b\[[0-9;]*\b3[0-7][;m]")


def test_a_terminal_shows_a_progress_bar_and_a_last_screen(tmp_path: Path) -> None:
    case = Case(OPTIMIZERS["BootstrapFewShot"], dev=16, test=8)
    with workplace(tmp_path, case, latency_ms=100) as place:
        arguments = ["run", str(place.manifests), "--endpoint", f"fake={place.server.url}", "-o", str(place.out)]
        code, written = on_a_terminal(*arguments, "--estimate")
        shown = plain(written)
        assert code == 0, shown
        assert re.search(r"run: estimate, no model was called\n", shown)
        assert re.search(r"about \d+ calls \(optimization \d+, judgement 16\), [\d,]+ tokens\n", shown)
        assert re.search(r"about 0\.0\d+ USD\n", shown)
        assert "rows: 8 train, 8 validation, 8 test, 0 dropped\n" in shown

        code, written = on_a_terminal(*arguments)
        shown = plain(written)
        assert code == 0, shown
        assert COLOURED.search(written)
        live, last = shown.split("run: Completed, ", 1)
        assert re.search(r"run (baseline|optimize|judge) .*━+ +\d+ %.* \d+ calls  [\d,]+ tokens", live)
        assert re.search(r"Held-out test, 8 rows", last)
        assert re.search(r"baseline +│ +\d+\.\d │", last) and re.search(r"candidate +│ +\d+\.\d │", last)
        assert re.search(r"Gate: (not promoted|would be promoted)\. .*p", last)
        calls = place.server.counts()["requests"]
        assert re.search(
            rf"Spent: {calls} calls \(\d+ replayed\), [\d,]+ input and [\d,]+ output tokens, 0\.0\d+ USD", last
        )
        candidate = json.loads((place.run_folder / "result.json").read_bytes())["candidate"]
        assert f"Revision sentiment-{candidate[3:11]}: {place.run_folder / 'revision'}\n" in last
        assert f"Everything else: {place.run_folder}\n" in last
        logged = [json.loads(line) for line in (place.run_folder / "log.jsonl").read_text("utf-8").splitlines()]
        assert [line for line in logged if line["level"] == "error"] == []

        code, written = on_a_terminal(*arguments, "--resume", NO_COLOR="1")
        assert (code, COLOURED.search(written)) == (0, None)
        code, written = on_a_terminal(*arguments, "--resume", "--json")
        assert code == 0
        assert json.loads(plain(written).splitlines()[-1])["result"]["candidate"] == candidate


# Several programs and runs


def test_of_two_runs_the_named_one_is_meant_also_from_standard_input(tmp_path: Path) -> None:
    with workplace(tmp_path, Case(EVALUATE, test=4, dev=4)) as place:
        objects = place.case.objects()
        other_program = {**objects[2], "metadata": {"name": "other"}}
        other_run = {**objects[3], "metadata": {"name": "second"}}
        other_run["spec"] = {**other_run["spec"], "programRef": {"name": "other"}}
        more = yaml.safe_dump_all([other_program, other_run], sort_keys=False)
        (place.manifests / "more.yaml").write_text(more, encoding="utf-8")

        unclear = place.run()
        assert unclear.code == 64
        assert "there are several OptimizationRuns: name one of run, second" in unclear.stderr
        second = place.run("--run", "second")
        assert second.code == 0, second.stderr
        assert sorted(path.name for path in place.out.iterdir()) == ["other.account.json", "second"]
        assert json.loads((place.out / "second" / "run.json").read_bytes())["program"]["name"] == "other"

        valid = ended(start_cli("validate", str(place.manifests), "-o", str(tmp_path / "v")), tmp_path)
        assert [line.split(":")[0] for line in valid.stdout.splitlines()] == ["sentiment", "other"]

        command = [
            "run",
            "-",
            "-o",
            str(tmp_path / "piped"),
            "--endpoint",
            f"fake={place.server.url}",
            "--run",
            "second",
        ]
        process = subprocess.run(
            [sys.executable, "-m", "dspy_operator.cli.main", *command],
            input=yaml.safe_dump_all([*objects, other_program, other_run]),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert process.returncode == 0, process.stderr
        piped = json.loads((tmp_path / "piped" / "second" / "result.json").read_bytes())
        assert piped["candidate"] == json.loads((place.out / "second" / "result.json").read_bytes())["candidate"]


def test_one_spec_and_seed_give_one_revision_and_an_incumbent_is_judged_as_a_third_arm(tmp_path: Path) -> None:
    with workplace(tmp_path, Case(OPTIMIZERS["BootstrapFewShot"])) as place:
        place.fresh = True  # with the hash seeds of interpreters
        first = place.run()
        elsewhere = place.run("-o", str(tmp_path / "elsewhere"))
        assert (first.code, elsewhere.code) == (0, 0), elsewhere.stderr
        again = json.loads((tmp_path / "elsewhere" / "run" / "result.json").read_bytes())
        assert again["candidate"] == first.result["candidate"]
        assert again["scores"] == first.result["scores"]
        assert (first.result["gate"]["look"], first.result["estimate"]["reservedCalls"]) == (1, 24)

        second = {
            "apiVersion": API,
            "kind": "OptimizationRun",
            "metadata": {"name": "second"},
            "spec": {**place.case.objects()[3]["spec"], "optimizer": OPTIMIZERS["LabeledFewShot"], "seed": 5},
        }
        (place.manifests / "second.yaml").write_text(yaml.safe_dump(second), encoding="utf-8")
        revision = place.run_folder / "revision"
        done = place.run("--run", "second", "--incumbent", str(revision))
        assert done.code == 0, done.stderr
        result = json.loads((place.out / "second" / "result.json").read_bytes())
        assert {"baseline", "incumbent", "candidate"} <= set(result["scores"])
        assert result["scores"]["incumbent"] == first.result["scores"]["candidate"]
        assert result["scores"]["baseline"] == first.result["scores"]["baseline"]
        assert result["estimate"]["reservedCalls"] == 36
        assert result["gate"]["look"] == 2
        assert result["gate"]["alpha"] == pytest.approx(first.result["gate"]["alpha"] / 4)

        account = json.loads((place.out / "sentiment.account.json").read_bytes())
        test_set = result["dataset"]["testDigest"]
        assert {name: entry["testLooks"] for name, entry in account.items()} == {
            "run": {test_set: 1},
            "second": {test_set: 1},
        }
        assert account["second"]["used"]["calls"] == result["usage"]["calls"]
