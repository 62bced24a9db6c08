"""What is exported, and what of these tests is for the long form alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.integration.acceptance import LONG
from tests.integration.export.exported import GOLDEN
from tests.integration.harness import OPTIMIZERS, Case, Workplace, workplace

collect_ignore = [] if LONG else ["test_promptfoo.py"]
"""It installs 370 MB with npm."""


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
