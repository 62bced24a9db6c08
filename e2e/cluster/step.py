"""A step of the way to a cluster, and the loop that goes through them: checks, runs what is missing, prints the table."""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from . import paths
from .command import Failed

# Where nobody watches (CI), one line now and then shows that it is alive without filling the log.
_QUIET_SECONDS_BETWEEN_LINES = 60.0


class Step(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def expected_seconds(self) -> int:
        """From nothing, on two cores."""
        ...

    def check(self) -> bool:
        """Whether it is already done. Quick (all checks together within 5 s) and without effects."""
        ...

    def run(self, log: Path) -> None:
        """Does it, from whatever state an earlier attempt has left. Raises Failed."""
        ...


@dataclass(frozen=True)
class Outcome:
    name: str
    how: str
    seconds: float
    # Of the programs that the step ran, so that a busy machine can be told from a slow step; the Docker daemon's not.
    cpu_seconds: float


def go_through(steps: Sequence[Step]) -> list[Outcome]:
    """Brings every step about, in order. Prints the table also when one fails."""
    outcomes: list[Outcome] = []
    step = steps[0]
    try:
        for number, step in enumerate(steps, 1):
            outcomes.append(_bring_about(step, f"[{number}/{len(steps)}] {step.name}"))
    except BaseException:  # Ctrl-C too: the table names the step, and the error goes on
        outcomes.append(Outcome(step.name, "FAILED", 0, 0))
        raise
    finally:
        print(table(outcomes), flush=True)
    return outcomes


def table(outcomes: Sequence[Outcome]) -> str:
    width = max(len(done.name) for done in outcomes)
    rows = [("step", "seconds", "cpu s", "")]
    rows += [(done.name, f"{done.seconds:.1f}", f"{done.cpu_seconds:.1f}", done.how) for done in outcomes]
    seconds, cpu_seconds = sum(done.seconds for done in outcomes), sum(done.cpu_seconds for done in outcomes)
    rows += [("total", f"{seconds:.1f}", f"{cpu_seconds:.1f}", "")]
    return "\n".join(f"  {name:<{width}} {wall:>8} {cpu:>8}  {how}".rstrip() for name, wall, cpu, how in rows)


def _bring_about(step: Step, title: str) -> Outcome:
    began, cpu_before = time.monotonic(), _cpu_seconds()

    def outcome(how: str) -> Outcome:
        return Outcome(step.name, how, time.monotonic() - began, _cpu_seconds() - cpu_before)

    if step.check():
        return outcome("already there")
    log = paths.logs() / f"{step.name.replace(' ', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("")
    print(f"{title}: about {_minutes(step.expected_seconds)}, log {log}", flush=True)
    with _progress(title, step.expected_seconds, log):
        step.run(log)
    if not step.check():
        raise Failed(f"{step.name}: ended without an error, yet its check still fails; see {log}")
    return outcome("done")


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"


class _progress:
    """Says every so often how long a step runs and what its log last said."""

    def __init__(self, title: str, expected_seconds: int, log: Path) -> None:
        self._title, self._expected, self._log = title, expected_seconds, log
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._speak, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if sys.stdout.isatty():
            print("\r\033[K", end="", flush=True)

    def _speak(self) -> None:
        began = time.monotonic()
        watched = sys.stdout.isatty()
        while not self._over.wait(0.5 if watched else _QUIET_SECONDS_BETWEEN_LINES):
            elapsed = _minutes(time.monotonic() - began)
            lines = self._log.read_text(errors="replace").splitlines()
            saying = f"{self._title}: {elapsed} of about {_minutes(self._expected)}, {len(lines)} lines of log"
            if watched:
                print(f"\r\033[K{saying}: {lines[-1][:60] if lines else ''}", end="", flush=True)
            else:
                print(saying, flush=True)
