"""How often a status is written: what only moves is told at most every 15 s, what changes is told at once. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from dspy_operator.controllers.optimizationrun.transitions import Phase

LIVE_INTERVAL = timedelta(seconds=15)
"""A pod reports every 5 s; 1,000 runs at one write each 15 s are 67 writes/s, which an API server carries."""
WAITING_INTERVAL = timedelta(seconds=60)
"""Each start moves the place of everybody behind it."""

_MOVES = frozenset(
    {"progress", "scores", "usage", "effective", "queue", "jobName", "podName", "try", "startTime", "estimate"}
)
"""Fields that tell how far something is. Job and pod come with the next write: until the pod runs, they are of no use."""


def held_back(before: Mapping[str, Any], wanted: Mapping[str, Any], last: datetime, now: datetime) -> timedelta | None:
    """How long to keep the status as it is; None to write.

    Args:
        before: the status as it is.
        last: when it was last written, or first seen.
    """
    if before == wanted or _settled(before) != _settled(wanted):
        return None
    interval = WAITING_INTERVAL if wanted.get("phase") == Phase.QUEUED else LIVE_INTERVAL
    wait = last + interval - now
    return wait if wait > timedelta() else None


def _settled(status: Mapping[str, Any]) -> dict[str, Any]:
    """What is told at once."""
    kept = {name: value for name, value in status.items() if name not in _MOVES}
    if kept.get("phase") == Phase.JUDGING:
        kept["phase"] = Phase.RUNNING.value
    kept["conditions"] = [
        {name: value for name, value in condition.items() if name not in ("message", "lastTransitionTime")}
        | {"reason": _same(condition["reason"])}
        for condition in status.get("conditions", ())
    ]
    return kept


def _same(reason: str) -> str:
    return Phase.RUNNING.value if reason == Phase.JUDGING else reason
