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
UNITS = Path(__file__).with_name("unit")


def pytest_configure(config: pytest.Config) -> None:
    """`make test` asks what each module takes of the processors."""
    if folder := os.environ.get("PROCESSOR_TIME"):
        config.pluginmanager.register(ProcessorTime(Path(folder)))
    if hasattr(config, "workerinput") or not getattr(config.option, "numprocesses", None):
        # Where the tests run, and not where xdist hands them out.
        config.pluginmanager.register(Measured(config), "measured")


class Measured:
    """What coverage measures: what is imported to collect the tests, unit tests, and processes of tests that are marked so.

    It takes a process three times its processor, also for what is not the product's: servers and polling of other tests.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._of_processes = os.environ.pop(MEASURED, None)
        self._here = coverage.Coverage.current() if self._of_processes is not None else None
        self._runs = True
        # Each process of xdist imports the same.
        self._measure(getattr(config, "workerinput", {}).get("workerid", "gw0") == "gw0")

    def pytest_collection_finish(self) -> None:
        """What was imported is measured."""
        self._measure(False)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """One test, with its fixtures."""
        self._measure(item.path.is_relative_to(UNITS) and item.get_closest_marker("unmeasured") is None)
        if self._of_processes is not None and item.get_closest_marker("measured") is not None:
            os.environ[MEASURED] = self._of_processes
        try:
            return (yield)
        finally:
            os.environ.pop(MEASURED, None)

    def _measure(self, wanted: bool) -> None:
        if self._here is not None and wanted != self._runs:
            self._runs = wanted
            self._here.start() if wanted else self._here.stop()


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that need more than the usual time-out come first, the longest at the front: none is still at it at the end alone.

    Tests of a folder that share a control plane go to one process: three planes of one folder take three times the processor.
    """

    def seconds(item: pytest.Item) -> float:
        mark = item.get_closest_marker("timeout")
        return float(mark.args[0]) if mark is not None and mark.args else 0.0

    longest: defaultdict[Path, float] = defaultdict(float)
    for item in items:
        longest[item.path.parent] = max(longest[item.path.parent], seconds(item))
        if "control_plane" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group(item.path.parent.name))
    folders = list(longest)
    items.sort(key=lambda item: (-longest[item.path.parent], folders.index(item.path.parent), -seconds(item)))
