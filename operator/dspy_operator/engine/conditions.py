"""Conditions of a status: a list by type, whose times move only when a condition's status does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

MESSAGE_BYTES = 1024
"""A status is for reading; longer words belong into the log."""


@dataclass(frozen=True)
class Condition:
    """One condition as `decide` wants it."""

    type: str
    status: bool | None
    """None is Unknown."""
    reason: str
    message: str = ""


def merged(
    before: Iterable[Mapping[str, Any]], wanted: Iterable[Condition], *, generation: int, now: datetime
) -> list[dict[str, Any]]:
    """The list for `status.conditions`, sorted by type; what is not wanted is gone.

    Args:
        before: the list as it is, for `lastTransitionTime` of what did not flip.
        generation: `metadata.generation` that was decided about.
    """
    known = {condition["type"]: condition for condition in before}
    return [_merged(known.get(condition.type), condition, generation, now) for condition in sorted(wanted, key=_type)]


def _type(condition: Condition) -> str:
    return condition.type


def _merged(before: Mapping[str, Any] | None, wanted: Condition, generation: int, now: datetime) -> dict[str, Any]:
    status = "Unknown" if wanted.status is None else str(wanted.status)
    same = before is not None and before.get("status") == status
    since = before["lastTransitionTime"] if before is not None and same else timestamp(now)
    return {
        "type": wanted.type,
        "status": status,
        "reason": wanted.reason,
        "message": _cut(wanted.message),
        "observedGeneration": generation,
        "lastTransitionTime": since,
    }


def _cut(message: str) -> str:
    raw = message.encode()
    return message if len(raw) <= MESSAGE_BYTES else raw[: MESSAGE_BYTES - 3].decode(errors="ignore") + "..."


def is_true(body: Mapping[str, Any] | None, condition: str) -> bool:
    """Whether an object's status has this condition as True, for its present generation."""
    found = find(body, condition)
    return found is not None and found["status"] == "True"


def find(body: Mapping[str, Any] | None, condition: str) -> Mapping[str, Any] | None:
    """A condition of an object, as long as it is about the object's present generation."""
    if body is None:
        return None
    for found in (body.get("status") or {}).get("conditions", ()):
        if found["type"] == condition and found.get("observedGeneration") == body["metadata"].get("generation"):
            return dict(found)
    return None


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC, to the second, as Kubernetes writes times."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_timestamp(text: str) -> datetime:
    """The moment that a Kubernetes timestamp means."""
    return datetime.fromisoformat(text)
