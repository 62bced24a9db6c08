"""Runs that earlier versions left (tests/compatibility) replay with this one to the same digest, and nothing is sent."""

from __future__ import annotations

import html
import importlib.metadata
import json
import shutil
from pathlib import Path

import pytest

from dspy_operator.cli.report import report as report_of
from tests.compatibility.stored import folders
from tests.integration.harness import ended, intruder, start_cli

RUNS = [
    pytest.param(run, id=f"{folder.name}-{run.name}")
    for folder in folders()
    for run in sorted((folder / "runs").iterdir())
]


@pytest.mark.parametrize("run", RUNS)
def test_a_stored_run_is_reported(tmp_path: Path, run: Path) -> None:
    """What its version did not write is told to be absent."""
    report = json.loads((run / "revision" / "report.json").read_bytes())
    page = report_of(str(run)).decode()
    assert html.escape(report["gate"]["why"]) in page
    assert page.count("<tr data-kinds=") == len(report["rows"]) > 0
    assert "This report.json does not say." in page or report.get("answers")


@pytest.mark.parametrize("run", RUNS)
def test_a_stored_run_replays_to_its_digest(tmp_path: Path, run: Path) -> None:
    result = json.loads((run / "result.json").read_bytes())
    recorded, installed = result["versions"]["dspy"], importlib.metadata.version("dspy")
    if recorded.rpartition(".")[0] != installed.rpartition(".")[0]:
        pytest.skip(f"DSPy {recorded} put the requests, and {installed} is installed: another minor puts others")
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    environment = intruder(denied=tmp_path / "attempts")
    verified = ended(start_cli("verify", str(folder), environment=environment), folder)
    assert verified.code == 0, verified.stderr
    assert verified.stdout.startswith(f"verified: {result['candidate']}, ")
    assert not (tmp_path / "attempts").exists()
