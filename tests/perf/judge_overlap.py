"""What it saves of the wall that a judge with an endpoint of its own grades while the task's endpoint answers.

Run: python -m tests.perf.judge_overlap

An evaluation, each request answered after 100 ms, 4 at a time for each endpoint. The same judge at the task's own endpoint shares its
slots, so that its calls come on top: that is what it would be to answer first and grade afterwards.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from tests.integration.graded import Graded
from tests.integration.harness import OPTIMIZERS, workplace

ROWS, LATENCY_MS, PAIRS = 200, 100, 5


def seconds(folder: Path, *, own: bool) -> float:
    """Of one run, which asks ROWS times in each role."""
    judge = {"name": "grader"} if own else None
    case = Graded(OPTIMIZERS["Evaluate"], dev=4, test=ROWS, concurrency=4, judge=judge, timeout="60s")
    with workplace(folder, case, latency_ms=LATENCY_MS) as place:
        began = time.perf_counter()
        done = place.run(*(["--endpoint", f"grader={place.server.url}"] if own else []))
        took = time.perf_counter() - began
        assert done.code == 0, done.stderr
        assert place.server.counts()["requests"] >= 2 * ROWS
    return took


def main() -> None:
    """Pairs, in turns; prints a line of docs/benchmarks.md."""
    found: dict[bool, list[float]] = {True: [], False: []}
    for pair in range(PAIRS):
        for own in (True, False) if pair % 2 else (False, True):
            with tempfile.TemporaryDirectory() as folder:
                found[own].append(seconds(Path(folder), own=own))
    ratio = statistics.median(own / shared for own, shared in zip(found[True], found[False], strict=True))
    print(
        f"seconds: {statistics.median(found[False]):.1f} at one endpoint, {statistics.median(found[True]):.1f} at two; ratio {ratio:.2f}"
    )


if __name__ == "__main__":
    main()
