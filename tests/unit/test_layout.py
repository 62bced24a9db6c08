"""What a part may drag in: who only reads a manifest does not wait for DSPy, and a pod knows no cluster client."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"dspy", "gepa", "optuna", "numpy", "httpx", "litellm", "openai"}
CLUSTER = {"kopf", "kubernetes", "kubernetes_asyncio"}
SURFACE = {"typer", "rich", "yaml"}


def loaded_by(*modules: str) -> set[str]:
    """Top-level names that a fresh interpreter holds after importing these."""
    code = (
        f"import sys, json, {', '.join(modules)}; print(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "operator", capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def modules_of(package: str) -> list[str]:
    folder = ROOT / "operator" / "dspy_operator" / package
    return [f"dspy_operator.{package}.{path.stem}" for path in sorted(folder.glob("*.py")) if path.stem != "__init__"]


@pytest.mark.parametrize("package", ["api", "contract"])
def test_api_and_contract_need_pydantic_and_the_standard_library_alone(package: str) -> None:
    assert loaded_by(*modules_of(package)) & (HEAVY | CLUSTER | SURFACE) == set()


@pytest.mark.parametrize(
    "module",
    [
        pytest.param("dspy_operator.cli.manifests", id="reading manifests"),
        pytest.param("dspy_operator.cli.local", id="laying a run out"),
        pytest.param("dspy_operator.cli.main", id="the command line itself"),
        pytest.param("dspy_operator.runner.logs", id="writing logs"),
        pytest.param("dspy_operator.runner.progress", id="writing files"),
    ],
)
def test_a_mistake_in_a_manifest_is_told_without_waiting_for_dspy(module: str) -> None:
    assert loaded_by(module) & (HEAVY | CLUSTER) == set()


def test_the_runner_knows_no_cluster_and_no_screen() -> None:
    loaded = loaded_by(*modules_of("runner"))
    assert "dspy" in loaded
    assert loaded & (CLUSTER | {"typer"}) == set()


def test_the_folder_operator_is_no_package() -> None:
    """As one it would hide the standard library's `operator` from everything that runs in the repository."""
    assert not (ROOT / "operator" / "__init__.py").exists()
    done = subprocess.run(
        [sys.executable, "-c", "import operator; print(operator.add(1, 2))"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "3"), done.stderr
