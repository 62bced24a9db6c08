"""What each module of tests takes of the processors: a plugin that notes it, and a table of it (`python -m tests.processor_time FOLDER`).

Seconds of the tests' own process and of those that it has waited for; servers that live longer than a test count where they end.
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

SHOWN = 24


class ProcessorTime:
    """Notes it for one process of pytest, as `FOLDER/<pid>.json`: module -> seconds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seconds: defaultdict[str, float] = defaultdict(float)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """One test, with its fixtures."""
        before = _spent()
        try:
            return (yield)
        finally:
            self._seconds[item.nodeid.partition("::")[0]] += _spent() - before

    def pytest_sessionfinish(self) -> None:
        """Write it down."""
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / f"{os.getpid()}.json").write_text(json.dumps(self._seconds), encoding="utf-8")


def table(folder: Path) -> str:
    """The modules that took most, in seconds, and the sum of all."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for path in folder.glob("*.json"):
        for module, spent in json.loads(path.read_text("utf-8")).items():
            seconds[module] += spent
    ordered = sorted(seconds, key=seconds.__getitem__, reverse=True)
    lines = [f"{seconds[module]:8.0f}  {module}" for module in ordered[:SHOWN]]
    others = ordered[SHOWN:]
    lines.append(f"{sum(seconds[module] for module in others):8.0f}  {len(others)} others")
    return "\n".join([*lines, f"{sum(seconds.values()):8.0f}  all"])


def _spent() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


if __name__ == "__main__":
    print(table(Path(sys.argv[1])))
