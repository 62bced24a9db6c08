"""The order of all tests, and whose processes coverage measures."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that need more than the usual time-out come first, the longest at the front: none is still at it at the end alone."""

    def seconds(item: pytest.Item) -> float:
        mark = item.get_closest_marker("timeout")
        return float(mark.args[0]) if mark is not None and mark.args else 0.0

    items.sort(key=seconds, reverse=True)


@pytest.fixture(autouse=True)
def _measured(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Coverage tells processes by this variable that they are measured."""
    if request.node.get_closest_marker("unmeasured") is not None:
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
