"""Exports a revision, and what has to come out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.integration.harness import Ended, ended, start_cli

GOLDEN = Path(__file__).parents[1] / "golden"


def export(revision: Path, target: str, file: Path) -> Ended:
    return ended(start_cli("export", str(revision), "--to", target, "-o", str(file)), file.parent)


def prompts_of(revision: Path) -> Mapping[str, Any]:
    folder = revision if (revision / "prompts.json").exists() else revision / "revision"
    document: dict[str, Any] = json.loads((folder / "prompts.json").read_bytes())
    return document


def messages_of(revision: Path) -> list[Any]:
    vectors = prompts_of(revision)["vectors"]
    assert vectors
    return [vector["messages"] for vector in vectors]
