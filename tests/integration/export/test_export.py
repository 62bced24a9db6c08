"""`dspy-operator export`: each library, the real one, makes the messages that DSPy sends."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.counting_server.server import CountingServer
from tests.integration.harness import OPTIMIZERS, Case, Ended, Workplace, ended, start_cli, workplace

pytestmark = pytest.mark.measured

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """What a real run left: a revision with demonstrations."""
    with workplace(tmp_path_factory.mktemp("export"), Case(OPTIMIZERS["BootstrapFewShot"], dev=12, test=6)) as place:
        done = place.run()
        assert done.code == 0, done.stderr
    return place


@pytest.fixture(scope="module", params=["chat", "json", "xml", "baml"])
def hardest(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Revisions with every type, braces, quotes and scripts that could be mistaken for something."""
    folder = tmp_path_factory.mktemp("hardest")
    for name in ("program.py", "program.json", "prompts.json"):
        shutil.copy(GOLDEN / request.param / f"{name}.golden", folder / name)
    return folder


def export(revision: Path, target: str, file: Path) -> Ended:
    return ended(start_cli("export", str(revision), "--to", target, "-o", str(file)), file.parent)


def prompts_of(revision: Path) -> Mapping[str, Any]:
    folder = revision if (revision / "prompts.json").exists() else revision / "revision"
    document: dict[str, Any] = json.loads((folder / "prompts.json").read_bytes())
    return document


@functools.cache
def libraries() -> Path:
    """A folder with the libraries and nothing of ours; made once, and again when the requirements or Python change."""
    requirements = HERE / "requirements.txt"
    made_of = hashlib.sha256(f"{sys.version}\n{requirements.read_text('utf-8')}".encode()).hexdigest()[:16]
    cache = Path(os.environ.get("DSPY_OPERATOR_CACHE") or Path.home() / ".cache" / "dspy-operator")
    folder = cache / "exports" / made_of
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        uv = shutil.which("uv") or str(cache / "uv" / "bin" / "uv")
        with tempfile.TemporaryDirectory(dir=folder.parent) as making:
            target = Path(making) / "made"
            install = [uv, "pip", "install", "--python", sys.executable, "--target", str(target), "--compile-bytecode"]
            # Elsewhere than here, where pyproject.toml leaves out what DSPy wants and we do not.
            subprocess.run([*install, "--requirements", str(requirements)], check=True, cwd=making)
            with contextlib.suppress(OSError):  # another worker was faster
                target.rename(folder)
    return folder


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
        env={**os.environ, "PYTHONPATH": str(libraries())},
    )
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def messages_of(revision: Path) -> list[Any]:
    vectors = prompts_of(revision)["vectors"]
    assert vectors
    return [vector["messages"] for vector in vectors]


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
    """promptfoo itself (1.9 GB, Node 22) is not part of the suite; that it makes these messages was seen by hand."""
    assert export(place.run_folder, "promptfoo", tmp_path / "promptfooconfig.yaml").code == 0
    config = yaml.safe_load((tmp_path / "promptfooconfig.yaml").read_bytes())
    prompts = prompts_of(place.run_folder)
    assert [test["vars"] for test in config["tests"]] == [vector["inputs"] for vector in prompts["vectors"]]
    (prompt,) = config["prompts"]
    assert prompt["raw"].count('"role"') == len(messages_of(place.run_folder)[0])
    assert config["providers"][0]["config"]["temperature"] == 0.0
