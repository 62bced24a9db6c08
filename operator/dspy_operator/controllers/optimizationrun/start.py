"""From waiting to a Job: backoff, endpoints, admission, and a place that is free of what earlier tries left. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from dspy_operator.api.reasons import RunReason
from dspy_operator.contract import names
from dspy_operator.controllers.admission.grants import Granted, Waits
from dspy_operator.controllers.optimizationrun import accept, children, figures
from dspy_operator.controllers.optimizationrun import account as accounts
from dspy_operator.controllers.optimizationrun.account import Entry
from dspy_operator.controllers.optimizationrun.draft import LOOK_AGAIN, Draft, component
from dspy_operator.controllers.optimizationrun.endings import overdue
from dspy_operator.controllers.optimizationrun.facts import Decision, Following
from dspy_operator.controllers.optimizationrun.over import end_here
from dspy_operator.controllers.optimizationrun.told import Story, granted_words
from dspy_operator.controllers.optimizationrun.transitions import Phase
from dspy_operator.controllers.optimizationrun.tries import is_lost
from dspy_operator.controllers.pods import attempt_of, try_of
from dspy_operator.controllers.runnerpod import owned_by
from dspy_operator.engine.conditions import parse_timestamp, timestamp
from dspy_operator.engine.plan import Event, Plan


def held_up(draft: Draft, following: Following) -> Decision | None:
    """What keeps an accepted run from asking for slots."""
    backoff = following.entry.backoff
    if backoff is not None and backoff.not_before:
        pending = draft.deadline("pending")
        if backoff.waits and overdue(parse_timestamp(backoff.since), pending, draft.now):
            words = f"{backoff.reason} since {backoff.since}, longer than deadlines.pending: {backoff.message}"
            return end_here(draft, following, RunReason.DEADLINE_EXCEEDED, words, complete=False)
        ahead = parse_timestamp(backoff.not_before) - draft.now
        if ahead > timedelta():
            waits = backoff.waits > 0
            reason = RunReason(backoff.reason) if waits else RunReason.BACKING_OFF
            told = [backoff.message or backoff.reason] if waits else [backoff.reason, backoff.message]
            words = ": ".join(filter(None, told)) + f"; the next try not before {backoff.not_before}"
            return draft.waits(Phase.QUEUED, reason, words, "", following, requeue=ahead)
    if draft.held() or draft.spec.mode == "Estimate":
        return None
    refusal = accept.endpoint_not_ready(draft.endpoints(following))
    if refusal is None:
        return None
    return draft.waits(Phase.QUEUED, refusal.reason, refusal.message, refusal.waiting_for, following)


def admit_or_start(draft: Draft, following: Following, opened: Entry | None) -> Decision:
    """Admitted, as its status says, a run starts; else it asks, and waits or writes what it was granted.

    Args:
        opened: the entry with a try whose Job was never made; the Job takes its number.
    """
    admission = draft.before.get("admission")
    if admission is not None:
        if (admission.get("slots") or {}).keys() == draft.request(following).slots.keys():
            return _start(draft, following, admission, opened)
        # The inputs name other endpoints by now. What is held is given back before anything else is asked for.
        return draft.waits(Phase.QUEUED, RunReason.QUEUED, "waiting for admission", "", following)
    _clear_away(draft)  # while it waits: a start finds the place free
    request = draft.request(following)
    answer = draft.facts.answer
    if isinstance(answer, Granted):
        # This write plans no Job: the next pass makes it, from what is recorded.
        draft.events.append(Event("Normal", RunReason.ADMITTED.value, granted_words(answer.slots)))
        granted = {
            "time": timestamp(draft.now),
            "slots": dict(answer.slots),
            "reserved": figures.reserved(accounts.left(draft.spec.budget, following.entry.used), draft.spec.budget),
        }
        told = draft.kept(following) | {"admission": granted}
        message = accept.not_loaded(draft.endpoints(following)) or "admitted"
        story = Story(Phase.STARTING, RunReason.STARTING, message, admitted=True, figures=told)
        return Decision(draft.plan(story), request)
    if isinstance(answer, Waits):
        decision = draft.waits(
            Phase.QUEUED, answer.reason, answer.message, answer.waiting_for, following, position=answer.position
        )
        return replace(decision, request=request)
    # Admission has not looked yet, and does in a moment: what was told before stays until then, and a write is saved.
    plan = Plan(deletes=tuple(draft.deletes), events=tuple(draft.events), requeue_after=LOOK_AGAIN)
    return Decision(plan, request)


def _start(draft: Draft, following: Following, admission: Mapping[str, Any], opened: Entry | None) -> Decision:
    """Admitted, as the status says: the Job, as soon as nothing stands in its way."""
    slots = draft.slots()
    told = draft.kept(following) | {"admission": draft.admission(slots)}
    left = _clear_away(draft)
    if left is not None:
        story = Story(Phase.STARTING, left[0], left[1], admitted=True, figures=told)
        return Decision(draft.plan(story, requeue=LOOK_AGAIN))
    endpoints = {} if draft.spec.mode == "Estimate" else draft.endpoints(following)
    message = accept.not_loaded(endpoints)
    if message is not None:
        since, pending = parse_timestamp(admission["time"]), draft.deadline("pending")
        if overdue(since, pending, draft.now):
            words = f"{message}, for longer than deadlines.pending ({figures.span(pending.total_seconds())})"
            return end_here(draft, following, RunReason.DEADLINE_EXCEEDED, words, complete=False)
        story = Story(Phase.STARTING, RunReason.STARTING, message, admitted=True, figures=told)
        ahead = since + pending - draft.now
        return Decision(draft.plan(story, requeue=min(ahead, LOOK_AGAIN)))
    assert following.frozen is not None
    try_ = opened.tries if opened is not None else draft.last_try() + 1
    entry = accounts.opened(following.entry, try_, draft.spec.budget).model_copy(update={"uid": draft.uid})
    draft.entry = entry
    for child in draft.mine:
        if component(child) == names.Component.SPEC and attempt_of(child) != entry.attempt:
            draft.delete(child)
    live = children.control(draft.spec, entry, slots, draft.channel())
    story = Story(Phase.STARTING, RunReason.STARTING, "the pod is starting", admitted=True, figures=told)
    plan = draft.plan(story)
    return Decision(
        replace(
            plan,
            children=children.standing(draft.owner, live),
            creates=children.starting(
                draft.owner,
                draft.spec,
                entry,
                following.frozen,
                draft.facts.pull_policy,
                answers=draft.facts.journals,
            ),
        )
    )


def _clear_away(draft: Draft) -> tuple[RunReason, str] | None:
    """What earlier tries, or an earlier object of this name, left: taken away where it may be, and told where it stays."""
    for job in draft.jobs():
        if "deletionTimestamp" not in job["metadata"]:
            draft.delete(job)
    keeps = children.keeps_journal(draft.spec)
    for child in draft.facts.children:
        name = f"{child['kind']} {child['metadata']['name']}"
        if child["kind"] == "Pod":
            if not is_lost(child, draft.now):
                return RunReason.POD_LEFT, f"{name} of try {try_of(child)} is still there"
            if keeps:
                node = child["spec"].get("nodeName", "")
                return RunReason.NODE_LOST, f"{name} is on node {node}, which does not answer"
        elif child["kind"] == "Job":
            return RunReason.POD_LEFT, f"{name} is still there"
        elif "deletionTimestamp" in child["metadata"] or not owned_by(child, draft.uid):
            return RunReason.POD_LEFT, f"{name} is on its way out"
    return None
