"""What happens to the demo's objects: a line whenever something changed that a person would want to know."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from e2e.cluster.command import Failed
from e2e.demo.apiserver import GROUP, ApiServer

Body = Mapping[str, Any]
PLURALS = {
    "ModelEndpoint": "modelendpoints",
    "PromptProgram": "promptprograms",
    "OptimizationRun": "optimizationruns",
}
_SHORT_NAMES = {"ModelEndpoint": "mep", "PromptProgram": "pp", "OptimizationRun": "orun"}
PAUSE_SECONDS = 1.0
NUMBERS_SECONDS = 15.0
"""Between two lines of a run that differ in numbers only; a pull's percents come as they are seen."""
SILENCE_MINUTES = 15.0
"""Nothing at all changes for so long only where nothing will: the longest step that tells nothing is a slow image pull."""


@dataclass(frozen=True)
class Line:
    """What is to be said of one object."""

    who: str
    what: str
    """A change of it is told at once."""
    numbers: str = ""
    """A change of them alone is told now and then."""
    every_seconds: float = NUMBERS_SECONDS

    def __str__(self) -> str:
        return f"{self.who:<27} {self.what}{f': {self.numbers}' if self.numbers else ''}"


class Follower:
    """Looks once a second, and tells.

    Args:
        tell: takes a line.
    """

    def __init__(self, api: ApiServer, namespace: str, tell: Callable[[str], None]) -> None:
        self._api = api
        self._namespace = namespace
        self._tell = tell
        self._told: dict[str, tuple[Line, float]] = {}
        self._seen: dict[tuple[str, str], Body] = {}
        self._changed = time.monotonic()

    def look(self) -> None:
        """Once."""
        bodies: list[Body] = []
        for kind, plural in PLURALS.items():
            found = self._api.items(f"{GROUP}/namespaces/{self._namespace}/{plural}")
            bodies += [{"kind": kind, **body} for body in found]  # the items of a list do not say their kind
        self._seen = {(body["kind"], body["metadata"]["name"]): body for body in bodies}
        now = time.monotonic()
        for line in lines(bodies):
            before, when = self._told.get(line.who, (None, now))
            numbers_only = before is not None and before.what == line.what
            if line == before or (numbers_only and now - when < line.every_seconds):
                continue
            self._told[line.who] = (line, now)
            self._changed = now
            self._tell(str(line))

    def until(self, what: str, holds: Callable[[], bool]) -> None:
        """Look until something is so.

        Raises:
            Failed: nothing changed for SILENCE_MINUTES.
        """
        self._changed = time.monotonic()
        while True:
            self.look()
            if holds():
                return
            if time.monotonic() - self._changed > 60 * SILENCE_MINUTES:
                raise Failed(f"nothing has changed for {SILENCE_MINUTES:.0f} minutes, and still not: {what}")
            time.sleep(PAUSE_SECONDS)

    def body(self, kind: str, name: str) -> Body:
        """An object as of the last look; empty where there is none."""
        return self._seen.get((kind, name), {})

    def status(self, kind: str, name: str) -> Body:
        """Its status; empty before it has one."""
        found: Body = self.body(kind, name).get("status") or {}
        return found


def is_true(status: Body, type_: str) -> bool:
    """Whether a condition holds."""
    return condition(status, type_).get("status") == "True"


def condition(status: Body, type_: str) -> Body:
    """Of a status; empty where it has none of this type."""
    return next((found for found in status.get("conditions") or () if found["type"] == type_), {})


def is_over(status: Body) -> bool:
    """Whether a run has ended, well or not."""
    return is_true(status, "Complete") or is_true(status, "Failed")


def lines(bodies: Iterable[Body]) -> Iterator[Line]:
    """One for each object that has a status."""
    tellers = {"ModelEndpoint": _endpoint, "PromptProgram": _program, "OptimizationRun": _run}
    for body in bodies:
        if status := body.get("status"):
            who = f"{_SHORT_NAMES[body['kind']]}/{body['metadata']['name']}"
            yield tellers[body["kind"]](who, status)


def _endpoint(who: str, status: Body) -> Line:
    ready, pull = condition(status, "Ready"), status.get("pull") or {}
    reason = ready.get("reason", "")
    if reason == "Pulling" and pull.get("totalBytes"):
        eta = f", about {pull['eta']} left" if pull.get("eta") else ""
        return Line(who, reason, f"{pull['percent']} % of {pull['totalBytes'] / 1e6:.0f} MB{eta}", every_seconds=2)
    pods = f"{status.get('readyReplicas', 0)} of {status.get('desiredReplicas', 0)} pods"
    broken = reason.endswith(("Failed", "NotFound", "Full", "Killed", "Loop")) or reason == "Unschedulable"
    return Line(who, f"{reason} ({pods}): {ready.get('message')}" if broken else f"{reason} ({pods})")


def _program(who: str, status: Body) -> Line:
    phase, accepted = status.get("phase", ""), condition(status, "Accepted")
    if accepted.get("status") == "False":
        return Line(who, f"{phase} ({accepted.get('reason')}): {accepted.get('message')}")
    rows = status.get("dataset") or {}
    told = [phase]
    told += [f"{rows['rows']} rows, {rows['test']} of them held out"] if rows.get("rows") else []
    told += [f"serves {name}"] if (name := (status.get("servedRevision") or {}).get("name")) else []
    return Line(who, ", ".join(told))


def _run(who: str, status: Body) -> Line:
    phase = status.get("phase", "")
    # What a run waits for is a reason of another condition than what it came to.
    waits = {"Pending": "Admitted", "Queued": "Admitted", "Rejected": "Accepted", "Failed": "Failed"}
    why = condition(status, waits.get(phase, "Complete"))
    told = phase
    if why.get("reason", phase) not in (phase, "Admitted"):
        told += f" ({why['reason']})"
    if phase in ("Rejected", "Failed"):
        told += f": {why.get('message')}"
    if status.get("outcome"):
        told += f", {status['outcome']}"
    return Line(who, told, "" if is_over(status) else _numbers(status))


def _numbers(status: Body) -> str:
    progress, calls = status.get("progress") or {}, (status.get("usage") or {}).get("calls")
    if status.get("phase") not in ("Running", "Judging") or not calls:
        return ""
    told = [f"{progress.get('percent', 0)} %", f"{calls} calls"]
    best = (status.get("scores") or {}).get("best")
    told += [f"best so far {best} on the rows to learn from"] if best is not None else []
    told += [f"about {progress['eta']} left"] if progress.get("eta") else []
    return ", ".join(told)
