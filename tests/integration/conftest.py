"""What tests of the CLI share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries wait milliseconds instead of seconds: no count depends on it."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).with_name("bystander")))
    monkeypatch.setenv("BYSTANDER_BACKOFF_SECONDS", "0.01,0.1")
