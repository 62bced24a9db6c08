"""`dspy-operator export`: each library, the real one, makes the messages that DSPy sends."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.counting_server.server import CountingServer
from tests.integration.export.exported import GOLDEN, export, messages_of, prompts_of
from tests.integration.export.libraries import libraries
from tests.integration.harness import Workplace, ended, start_cli

pytestmark = pytest.mark.measured

HERE = Path(__file__).parent


def read_with(library: str, file: Path, revision: Path, *more: str) -> list[Any]:
    """What the library makes of the vectors, in a process that has it and nothing of ours."""
    (file.parent / "prompts.json").write_text(json.dumps(prompts_of(revision)), encoding="utf-8")
    without_ours = [sys.executable, "-S", "-P", str(HERE / "read_with.py")]
    done = subprocess.run(
        [*without_ours, library, str(file), str(file.parent / "prompts.json"), *more],
        capture_output=True,
        text=True,
        check=False,
        cwd=file.parent,
        env={**os.environ, "PYTHONPATH": str(libraries(HERE / "requirements.txt"))},
    )
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_python_needs_nothing_and_checks_itself(place: Workplace, hardest: Path, tmp_path: Path) -> None:
    for revision in (place.run_folder, hardest):
        assert export(revision, "python", tmp_path / "exported.py").code == 0
        alone = [sys.executable, "-I", "-S", str(tmp_path / "exported.py")]
        done = subprocess.run(alone, capture_output=True, text=True, check=False)
        count = len(messages_of(revision))
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{count} vectors agree\n", "")

    text = (tmp_path / "exported.py").read_text(encoding="utf-8")
    spoilt = text.replace("'role': 'system'", "'role': 'user'", 1)
    assert spoilt != text
    (tmp_path / "exported.py").write_text(spoilt, encoding="utf-8")
    assert subprocess.run(alone, capture_output=True, check=False).returncode == 1


def test_objects_and_dates_are_read_and_what_is_no_text_is_refused(tmp_path: Path) -> None:
    examples = HERE.parents[2] / "examples"
    folders = [str(examples / "invoice-lines"), str(examples / "sentiment" / "endpoint.yaml")]
    assert ended(start_cli("validate", *folders, "-o", str(tmp_path / "out")), tmp_path).code == 0
    assert export(tmp_path / "out" / "invoice-lines.baseline", "python", tmp_path / "exported.py").code == 0
    alone = [sys.executable, "-I", "-S", str(tmp_path / "exported.py")]
    done = subprocess.run(alone, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "3 vectors agree\n", "")

    for name in ("program.py", "program.json", "prompts.json"):
        shutil.copy(GOLDEN / "types" / f"{name}.golden", tmp_path / name)
    for target in ("python", "openai", "langchain", "mlflow", "promptfoo"):
        refused = export(tmp_path, target, tmp_path / "out.txt")
        assert refused.code != 0
        assert (
            f"cannot be exported to {target}: its input scan is no text; its program.py runs with DSPy"
            in refused.stderr
        )


def test_openai_sends_what_dspy_sends(hardest: Path, tmp_path: Path) -> None:
    assert export(hardest, "openai", tmp_path / "openai.json").code == 0
    with CountingServer() as server:
        read_with("openai", tmp_path / "openai.json", hardest, server.url)
        sent = [json.loads(seen["body"]) for seen in server.requests()]
    assert [body["messages"] for body in sent] == messages_of(hardest)


def test_langchain_formats_what_dspy_sends(place: Workplace, hardest: Path, tmp_path: Path) -> None:
    for revision in (place.run_folder, hardest):
        assert export(revision, "langchain", tmp_path / "langchain.json").code == 0
        assert read_with("langchain", tmp_path / "langchain.json", revision) == messages_of(revision)


def test_mlflow_formats_what_dspy_sends_and_what_it_cannot_hold_is_refused(
    place: Workplace, hardest: Path, tmp_path: Path
) -> None:
    assert export(place.run_folder, "mlflow", tmp_path / "mlflow.json").code == 0
    assert read_with("mlflow", tmp_path / "mlflow.json", place.run_folder) == messages_of(place.run_folder)

    refused = export(hardest, "mlflow", tmp_path / "refused.json")
    assert (refused.code, (tmp_path / "refused.json").exists()) == (64, False)
    assert "cannot be exported to mlflow: a message has {{ticket}} in it" in refused.stderr


def test_promptfoo_has_the_prompt_the_provider_and_a_test_for_each_vector(place: Workplace, tmp_path: Path) -> None:
    """What promptfoo makes of it: test_promptfoo.py, a part of `make test-long`."""
    assert export(place.run_folder, "promptfoo", tmp_path / "promptfooconfig.yaml").code == 0
    config = yaml.safe_load((tmp_path / "promptfooconfig.yaml").read_bytes())
    prompts = prompts_of(place.run_folder)
    assert [test["vars"] for test in config["tests"]] == [vector["inputs"] for vector in prompts["vectors"]]
    (prompt,) = config["prompts"]
    assert prompt["raw"].count('"role"') == len(messages_of(place.run_folder)[0])
    assert config["providers"][0]["config"]["temperature"] == 0.0
