"""A clock that a test turns, and objects to put into a cache."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from dspy_operator.contract import names
from dspy_operator.engine.plan import Body, Key


class TurnedClock:
    """Time passes when a test says so."""

    def __init__(self) -> None:
        self._seconds = 1000.0
        self._alarms: list[tuple[float, Callable[[], None]]] = []

    def now(self) -> datetime:
        return datetime(2026, 11, 23, tzinfo=UTC) + timedelta(seconds=self._seconds)

    def monotonic(self) -> float:
        return self._seconds

    def alarm(self, seconds: float, call: Callable[[], None]) -> None:
        self._alarms.append((self._seconds + seconds, call))

    def turn(self, seconds: float) -> None:
        """Lets time pass, and rings what is due on the way."""
        end = self._seconds + seconds
        while due := sorted((at for at, _ in self._alarms if at <= end)):
            self._seconds = max(self._seconds, due[0])
            ringing = [call for at, call in self._alarms if at <= due[0]]
            self._alarms = [(at, call) for at, call in self._alarms if at > due[0]]
            for call in ringing:
                call()
        self._seconds = end


def an_object(
    name: str,
    version: int,
    *,
    kind: str = "ConfigMap",
    namespace: str = "team-a",
    uid: str = "",
    of: Key | None = None,
    **rest: Any,
) -> Body:
    labels = {names.LABEL_KIND: of.kind, names.LABEL_NAME: of.name} if of is not None else {}
    metadata = {
        "name": name,
        "namespace": namespace,
        "uid": uid or f"uid-of-{name}",
        "resourceVersion": str(version),
        "labels": labels,
    }
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **rest}
