"""Acceptance counts: which seeded points run, what they are compared with, and where they are written down.

`make test` runs a slice of the points, `make test-long` (DSPY_OPERATOR_LONG=1) all of them; their seeds are in the test ids.
Each point appends a line to build/acceptance/<name>.jsonl. The long form can be interrupted: a point that is on record as
passed for the same sources is not run again.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import OPTIMIZERS, Case, Workplace, workplace

LONG = os.environ.get("DSPY_OPERATOR_LONG") == "1"
ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "operator" / "dspy_operator"
RESULTS = ROOT / "build" / "acceptance"
PHASES = ("baseline",) * 3 + ("optimize",) * 9 + ("judge",) * 4 + ("publish",) * 4
"""The phase of each of the 20 seeds."""
REVISION = ("program.py", "program.json", "prompts.json")
"""The files that the revision digest covers."""


@dataclass(frozen=True)
class Point:
    """One seeded moment of one optimizer's run."""

    optimizer: str
    seed: int
    phase: str
    program: str = "Predict"

    @property
    def id(self) -> str:
        """For test ids and results."""
        program = "" if self.program == "Predict" else f"-{self.program}"
        return f"{self.optimizer}{program}-{self.phase}-seed{self.seed}"

    def draw(self) -> random.Random:
        """The point's own random numbers."""
        return random.Random(f"{self.optimizer}/{self.seed}")


def points(optimizers: Sequence[str], programs: Sequence[str]) -> list[Any]:
    """The points to run now, as parameters: all, or for each optimizer one of its calls and a later one, of one program.

    The programs go round with the seeds, and in the slice with the optimizers.
    """
    chosen: list[Point] = []
    for number, optimizer in enumerate(optimizers):
        every = [Point(optimizer, seed, phase, programs[seed % len(programs)]) for seed, phase in enumerate(PHASES)]
        if not LONG:
            draw, program = random.Random(f"slice/{optimizer}"), programs[number % len(programs)]
            every = [
                draw.choice([point for point in every if point.phase in phases and point.program == program])
                for phases in (("optimize",), ("judge", "publish"))
            ]
        chosen += every
    return [pytest.param(point, id=point.id) for point in chosen]


@dataclass(frozen=True)
class Reference:
    """An uninterrupted run of a case, to compare with."""

    folder: Path
    result: dict[str, Any]
    requests: int
    repeated_keys: int
    optimize_from: int
    """Ordinal of the first request after the baseline."""
    judge_from: int
    """Ordinal of the judgement's first request."""
    evaluations: tuple[int, ...]
    """How many requests had been sent at the end of each evaluation of the optimization."""

    @property
    def out(self) -> Path:
        """What `--output` named."""
        return self.folder / "out"

    @property
    def run_folder(self) -> Path:
        """The run's own folder."""
        return self.out / "run"

    def ordinals(self, phase: str) -> range:
        """The requests of a phase."""
        return {
            "baseline": range(1, self.optimize_from),
            "optimize": range(self.optimize_from, self.judge_from),
            "judge": range(self.judge_from, self.requests + 1),
        }[phase]

    def whole_set_from(self, rows: int) -> int:
        """Ordinal of the first request of the last evaluation that had to ask for this many rows."""
        ends = self.evaluations
        return max(before + 1 for before, after in itertools.pairwise(ends) if after - before == rows)

    def files(self) -> dict[str, bytes]:
        """The revision's files."""
        return revision_files(self.run_folder)


@functools.cache
def reference(folder: Path, optimizer: str) -> Reference:
    """The harness's case of an optimizer, run once for all tests of a process."""
    return uninterrupted(folder / f"reference-{optimizer}", Case(OPTIMIZERS[optimizer]))


def uninterrupted(
    folder: Path, case: Case, *, codes: tuple[int, ...] = (0,), arguments: tuple[str, ...] = ()
) -> Reference:
    """Run a case to its end, and look at it."""
    with workplace(folder, case, latency_ms=3) as place:
        done = place.run(*arguments)
        assert done.code in codes, done.stderr
        counts = place.server.counts()
        starts = judged = 0
        evaluations: list[int] = []
        for entry in place.journal():
            starts += entry["kind"] == "start"
            if entry["kind"] == "mark" and entry["mark"] == "evaluate":
                evaluations.append(starts)
            judged += len(entry["scores"]) if entry["kind"] == "mark" and entry["mark"] == "judge" else 0
        assert starts == counts["requests"] == done.result["usage"]["calls"]
        return Reference(
            folder,
            done.result,
            starts,
            counts["repeated_keys"],
            optimize_from=evaluations[0] + 1 if evaluations else 1,
            judge_from=starts - judged + 1,
            evaluations=tuple(evaluations),
        )


def revision_files(run_folder: Path) -> dict[str, bytes]:
    """The files that the digest covers, as bytes."""
    return {name: (run_folder / "revision" / name).read_bytes() for name in REVISION}


def unanswered(place: Workplace) -> int:
    """Requests that the journal shows on the wire and not answered: what was in flight when the process died."""
    open_starts: Counter[str] = Counter()
    path = place.run_folder / "journal.jsonl"
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # torn
        if entry["kind"] == "start":
            open_starts[entry["key"]] += 1
        elif entry["kind"] in {"done", "fail"}:
            open_starts[entry["key"]] -= 1
    return sum(count for count in open_starts.values() if count > 0)


def resumed_to_the_same(place: Workplace, whole: Reference, in_flight: int, *, arguments: tuple[str, ...] = ()) -> None:
    """--resume ends as the uninterrupted run did, and repeats at most what was in flight."""
    done = place.run("--resume", *arguments)
    assert done.code == 0, done.stderr
    result, counts = done.result, place.server.counts()
    assert result["candidate"] == whole.result["candidate"]
    assert revision_files(place.run_folder) == whole.files()
    assert result["gate"] == whole.result["gate"]
    assert result["scores"] == whole.result["scores"]
    assert counts["requests"] <= result["usage"]["calls"] <= whole.requests + in_flight
    assert counts["repeated_keys"] <= whole.repeated_keys + in_flight


@functools.cache
def source_digest() -> str:
    """sha256 over the product's sources."""
    hashed = hashlib.sha256()
    for path in sorted(SOURCES.rglob("*.py")):
        hashed.update(str(path.relative_to(SOURCES)).encode() + b"\0" + path.read_bytes() + b"\0")
    return hashed.hexdigest()


def passed_before(name: str, point: Point) -> bool:
    """Whether the long form has this point on record for these very sources."""
    path = RESULTS / f"{name}.jsonl"
    if not LONG or not path.is_file():
        return False
    entries = (json.loads(line) for line in path.read_text("utf-8").splitlines())
    return any(
        entry["point"] == point.id and entry["sources"] == source_digest() and entry["passed"] for entry in entries
    )


def record(name: str, point: Point, **seen: Any) -> None:
    """Append one line; O_APPEND keeps the lines of parallel workers whole."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    entry = {
        "point": point.id,
        "seed": point.seed,
        "optimizer": point.optimizer,
        "program": point.program,
        "phase": point.phase,
        **seen,
        "passed": True,
        "sources": source_digest(),
    }
    with (RESULTS / f"{name}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
