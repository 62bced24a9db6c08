"""A run that is over: what its status tells for good, and when what it left is removed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from dspy_operator.api.fields import parse_duration
from dspy_operator.api.reasons import RunReason
from dspy_operator.contract import names
from dspy_operator.controllers.optimizationrun import account as accounts
from dspy_operator.controllers.optimizationrun import figures
from dspy_operator.controllers.optimizationrun.account import Ended
from dspy_operator.controllers.optimizationrun.draft import Draft, component
from dspy_operator.controllers.optimizationrun.facts import Decision, Following
from dspy_operator.controllers.optimizationrun.told import Story
from dspy_operator.controllers.optimizationrun.transitions import Phase
from dspy_operator.engine.conditions import parse_timestamp, timestamp
from dspy_operator.engine.plan import Body

CLEANUP_SUCCEEDED = timedelta(hours=24)
CLEANUP_FAILED = timedelta(hours=168)


def end_here(
    draft: Draft,
    following: Following,
    reason: RunReason,
    message: str,
    *,
    complete: bool,
    outcome: str | None = None,
    candidate: str | None = None,
    told: Mapping[str, Any] | None = None,
) -> Decision:
    """An end that needs no pod.

    Args:
        told: figures that the status tells of it.
    """
    ended = Ended(
        reason=reason.value,
        message=message[: accounts.MESSAGE_CHARACTERS],
        at=timestamp(draft.now),
        complete=complete,
        outcome=outcome,
        candidate=candidate,
        budget=draft.spec.budget,
    )
    entry = following.entry.model_copy(update={"uid": draft.uid, "settled": following.entry.tries})
    draft.entry = accounts.closed(entry, ended)
    return ended_decision(draft, ended, told)


def ended_decision(draft: Draft, ended: Ended, told_here: Mapping[str, Any] | None = None) -> Decision:
    """Over: the result is told, and what the try left is removed in time."""
    told = draft.kept() | draft.of_the_try() | dict(told_here or {})
    heard = draft.heard()
    result = heard.result
    if result is not None and ended.exit == result.exit:
        told["usage"] = draft.usage(result.usage_by_role)
        told["scores"] = figures.final_scores(result.scores) or told.get("scores")
        told["resolved"] = dict(result.resolved) or None
        if result.gate is not None:
            told["gate"] = figures.gate(result.gate)
        if result.calibration is not None:
            told["calibration"] = figures.calibration(result.calibration)
        if result.estimate is not None:
            told["estimate"] = figures.estimate(result.estimate)
    if heard.progress is not None:
        told["effective"] = heard.progress.effective
        told["progress"] = figures.progress(heard.progress, ended=True)
        if ended.complete and ended.exit is not None:
            told["progress"]["percent"] = 100
    told["outcome"] = ended.outcome
    told["completionTime"] = ended.at
    told["revision"] = _revision(draft, ended)
    phase = Phase.SUCCEEDED if ended.complete else Phase.FAILED
    if ended.reason in (RunReason.BUDGET_EXHAUSTED, RunReason.CANCELLED):
        phase = Phase(ended.reason)
    story = Story(phase, RunReason(ended.reason), ended.message, ended=ended, figures=told)
    return Decision(draft.plan(story, requeue=_clean_up(draft, ended)))


def _revision(draft: Draft, ended: Ended) -> dict[str, Any] | None:
    if ended.candidate is None:
        return None
    name = draft.facts.revisions.get(ended.candidate)
    return {"digest": ended.candidate} | ({"name": name} if name else {})


def _clean_up(draft: Draft, ended: Ended) -> timedelta | None:
    """Remove Job, pod, journal and channel when it is time; else when that is."""
    good = ended.complete and ended.reason != RunReason.BUDGET_EXHAUSTED
    written = draft.spec.cleanup
    duration = (written.succeeded if good else written.failed) if written is not None else None
    default = CLEANUP_SUCCEEDED if good else CLEANUP_FAILED
    due = parse_timestamp(ended.at) + (parse_duration(duration) if duration is not None else default)
    left = [child for child in draft.mine if _goes(child) and "deletionTimestamp" not in child["metadata"]]
    if not left or draft.spec.suspend:
        return None
    if due > draft.now:
        return due - draft.now
    if ended.candidate is not None and draft.facts.program is not None and ended.candidate not in draft.facts.revisions:
        return None  # its files are in the channel alone; the program wakes us when it has them
    for child in left:
        draft.delete(child)
    return None


def _goes(child: Body) -> bool:
    """Whether a child goes at cleanup. The frozen inputs stay: a raised budget goes on with them."""
    return child["kind"] != "Pod" and component(child) != names.Component.SPEC
