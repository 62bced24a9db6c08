"""The status of a program: what was found, told in conditions, and what changed, told in Events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from dspy_operator.api.reasons import ConditionType, ProgramReason
from dspy_operator.controllers.promptprogram.seen import Seen
from dspy_operator.engine.conditions import Condition, merged
from dspy_operator.engine.plan import Event

WORTH_AN_EVENT = frozenset(
    {
        ProgramReason.MANUAL_PROMOTION,
        ProgramReason.GATE_NOT_PASSED,
        ProgramReason.NOT_JUDGED,
        ProgramReason.INCUMBENT_CHANGED,
        ProgramReason.DIFFERENT_MODEL,
        ProgramReason.PROGRAM_CHANGED,
        ProgramReason.TEST_UNDERPOWERED,
        ProgramReason.TEST_WORN,
        ProgramReason.REVISION_TOO_LARGE,
        ProgramReason.REVISION_DAMAGED,
    }
)
"""Verdicts on candidates. A promotion is told by what is promoted, that one was superseded by the next promotion."""
_NORMAL = frozenset({ProgramReason.GATE_NOT_PASSED, ProgramReason.NOT_JUDGED, ProgramReason.MANUAL_PROMOTION})


class Phase(StrEnum):
    """Where a program is, for eyes only; derived last."""

    PENDING = "Pending"
    VALIDATING = "Validating"
    READY = "Ready"
    REJECTED = "Rejected"


@dataclass(frozen=True)
class Fact:
    """A condition's value: True, False or, with None, Unknown; why; and the words for people."""

    holds: bool | None
    reason: ProgramReason
    message: str = ""


@dataclass(frozen=True)
class Report:
    """What a pass found."""

    accepted: Fact
    ready: Fact
    moving: bool
    """Something goes on without anybody's doing; else, unless it is ready, somebody has to change something."""
    accident: bool = False
    """`accepted` tells of a pod that was lost."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """The rest of the status; what is not known is None."""


def status_of(seen: Seen, report: Report) -> dict[str, Any]:
    """The whole status."""
    settled = Fact(False, ProgramReason.SETTLED)
    why = Fact(True, report.ready.reason, report.ready.message)
    stalled = report.ready.holds is not True and not report.moving
    wanted = {
        ConditionType.ACCEPTED: report.accepted,
        ConditionType.READY: report.ready,
        ConditionType.RECONCILING: why if report.moving else settled,
        ConditionType.STALLED: why if stalled else settled,
    }
    generation = seen.body["metadata"].get("generation", 1)
    conditions = merged(
        seen.status.get("conditions", ()),
        [Condition(kind.value, fact.holds, fact.reason.value, fact.message) for kind, fact in wanted.items()],
        generation=generation,
        now=seen.now,
    )
    status = {"observedGeneration": generation, "phase": _phase(report).value, "conditions": conditions}
    return status | {name: value for name, value in report.fields.items() if value is not None}


def _phase(report: Report) -> Phase:
    if report.ready.holds:
        return Phase.READY
    if report.accepted.holds is False:
        return Phase.REJECTED
    return Phase.VALIDATING if report.moving and report.accepted.holds is None else Phase.PENDING


def events(before: Mapping[str, Any], after: Mapping[str, Any], report: Report) -> tuple[Event, ...]:
    """What changed from one status to the next; of a status that was lost only how it stands."""
    if not before:
        return tuple(_flips(before, after))
    told = _condition(before, ConditionType.ACCEPTED).get("message")
    accident = report.accident and report.accepted.message != told
    lost = Event("Warning", ProgramReason.VALIDATION_FAILED.value, report.accepted.message)
    return (
        *((lost,) if accident else ()),
        *_flips(before, after),
        *_promotion(before, after),
        *_verdicts(before, after),
    )


def _flips(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[Event]:
    """Accepted and Ready, where their status or the reason for a False one is another."""
    for kind in (ConditionType.ACCEPTED, ConditionType.READY):
        was, now = _condition(before, kind), _condition(after, kind)
        if (was.get("status"), was.get("reason")) == (now["status"], now["reason"]):
            continue
        if kind is ConditionType.READY and now["status"] != "True" and now["reason"] == _accepted_reason(after):
            continue  # told by Accepted
        if now["status"] == "Unknown" and now["reason"] == ProgramReason.VALIDATING:
            continue  # the Job has Events of its own
        yield Event("Normal" if now["status"] == "True" else "Warning", now["reason"], now["message"])


def _promotion(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[Event]:
    was, now = before.get("promotedRevision") or {}, after.get("promotedRevision") or {}
    if now and (was.get("name"), was.get("run")) != (now.get("name"), now.get("run")):
        score = f", {now['score']} on the test rows" if now.get("score") else ""
        words = f"{now['name']} of run {now.get('run', '?')} is promoted{score}"
        yield Event("Normal", ProgramReason.PROMOTED.value, words)


def _verdicts(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[Event]:
    known = {(entry.get("run"), entry.get("revision"), entry.get("verdict")) for entry in before.get("candidates", ())}
    for entry in reversed(after.get("candidates", ())):
        if (entry.get("run"), entry.get("revision"), entry["verdict"]) in known:
            continue
        if entry["verdict"] in WORTH_AN_EVENT:
            words = f"{entry['revision']} of run {entry['run']}: {entry.get('message', '')}".rstrip(": ")
            yield Event("Normal" if entry["verdict"] in _NORMAL else "Warning", entry["verdict"], words)


def _condition(status: Mapping[str, Any], kind: ConditionType) -> Mapping[str, Any]:
    return next((found for found in status.get("conditions", ()) if found["type"] == kind), {})


def _accepted_reason(status: Mapping[str, Any]) -> str:
    return str(_condition(status, ConditionType.ACCEPTED).get("reason", ""))
