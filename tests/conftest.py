"""The order of all tests, what of them coverage measures, and that no example is judged by its time."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest
from hypothesis import HealthCheck, settings

from tests.processor_time import ProcessorTime

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

MEASURED = "COVERAGE_PROCESS_CONFIG"
"""Coverage tells processes by this variable that they are measured."""
_measured_by = pytest.StashKey[str | None]()


def pytest_configure(config: pytest.Config) -> None:
    """`make test` asks what each module takes of the processors."""
    if folder := os.environ.get("PROCESSOR_TIME"):
        config.pluginmanager.register(ProcessorTime(Path(folder)))
    # Where the tests run, and not where xdist hands them out: its workers are measured.
    runs_tests = hasattr(config, "workerinput") or not getattr(config.option, "numprocesses", None)
    config.stash[_measured_by] = os.environ.pop(MEASURED, None) if runs_tests else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that need more than the usual time-out come first, the longest at the front: none is still at it at the end alone.

    A folder's tests stay together, since they may share a control plane.
    """

    def seconds(item: pytest.Item) -> float:
        mark = item.get_closest_marker("timeout")
        return float(mark.args[0]) if mark is not None and mark.args else 0.0

    longest: defaultdict[Path, float] = defaultdict(float)
    for item in items:
        longest[item.path.parent] = max(longest[item.path.parent], seconds(item))
    folders = list(longest)
    items.sort(key=lambda item: (-longest[item.path.parent], folders.index(item.path.parent), -seconds(item)))


@pytest.fixture(autouse=True)
def _measured(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The marks `measured` and `unmeasured` (pyproject.toml)."""
    by = request.config.stash[_measured_by]
    if by is not None and request.node.get_closest_marker("measured") is not None:
        monkeypatch.setenv(MEASURED, by)
    unmeasured = request.node.get_closest_marker("unmeasured") is not None
    here = coverage.Coverage.current() if unmeasured and by is not None else None
    if here is not None:
        here.stop()
    yield
    if here is not None:
        here.start()
