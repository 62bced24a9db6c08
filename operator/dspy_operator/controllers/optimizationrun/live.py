"""A try that has a Job: kept as it is, kept up to date, or taken away. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from dspy_operator.api.reasons import RunReason
from dspy_operator.controllers.admission.grants import Request
from dspy_operator.controllers.optimizationrun import account as accounts
from dspy_operator.controllers.optimizationrun import children, figures
from dspy_operator.controllers.optimizationrun.draft import LOOK_AGAIN, Draft
from dspy_operator.controllers.optimizationrun.facts import Decision, Following
from dspy_operator.controllers.optimizationrun.inputs import execution_digest
from dspy_operator.controllers.optimizationrun.told import Story
from dspy_operator.controllers.optimizationrun.transitions import Phase
from dspy_operator.controllers.optimizationrun.tries import (
    Leaving,
    State,
    Waiting,
    Working,
    has_ended,
    lost_at,
    unfinished,
)
from dspy_operator.controllers.pods import of_try, try_of
from dspy_operator.engine.plan import Body


def with_a_pod(draft: Draft, state: Waiting | Working | Leaving) -> Decision:
    """A try that has a Job: kept as it is, kept up to date, or taken away."""
    job = next(iter(of_try(draft.mine, "Job", draft.entry.tries)), None)
    why = _why_not(draft, job, state)
    slots = draft.slots()
    story = _story(draft, state, why, slots)
    if isinstance(state, Leaving) or (job is not None and why is not None):
        if job is not None and why is not None and "deletionTimestamp" not in job["metadata"]:
            draft.delete(job)
        return Decision(draft.plan(story, requeue=LOOK_AGAIN))
    # Before the pod hears of a raised budget, what it may spend from then on has to be known to somebody; and what it may
    # have spent under a lowered one stays reserved until it is settled.
    reserved = accounts.most(draft.entry.reserved, accounts.left(draft.spec.budget, draft.entry.used))
    if draft.entry.reserved != reserved:
        draft.entry = draft.entry.model_copy(update={"reserved": reserved})
    live = children.control(draft.spec, draft.entry, slots, draft.channel())
    plan = draft.plan(story, requeue=_deadline_ahead(draft, state))
    return Decision(replace(plan, children=children.standing(draft.owner, live)), _request_more(draft, slots))


def _why_not(draft: Draft, job: Body | None, state: State) -> RunReason | None:
    """Why the pod must go, as the spec stands."""
    if draft.spec.suspend:
        return RunReason.SUSPENDING
    if draft.entry.own != draft.own:
        return RunReason.PENDING
    if draft.spec.stop == "Cancel" and not isinstance(state, Working):
        return RunReason.CANCELLED
    if job is not None and children.execution_of(job) != execution_digest(draft.spec):
        return RunReason.STARTING
    return None


def _story(draft: Draft, state: Waiting | Working | Leaving, why: RunReason | None, slots: Mapping[str, int]) -> Story:
    words = {
        RunReason.SUSPENDING: "the pod is on its way out",
        RunReason.PENDING: "the inputs were edited: a new attempt begins when the pod is gone",
        RunReason.CANCELLED: "the pod is on its way out",
        RunReason.STARTING: "the pod is replaced: what it is made from was edited",
    }
    phase, reason, message = Phase.STARTING, RunReason.STARTING, ""
    if isinstance(state, Waiting):
        reason, message = state.reason, state.message
    elif isinstance(state, Working):
        step = state.progress.step if state.progress is not None else ""
        judging = step in ("judge", "publish")
        phase, reason = (Phase.JUDGING, RunReason.JUDGING) if judging else (Phase.RUNNING, RunReason.RUNNING)
        message = f"pod {state.pod} {'judges the candidate' if judging else 'runs'}" if state.pod is not None else ""
    else:
        known = draft.before.get("phase")
        phase = Phase(known) if known in (Phase.RUNNING, Phase.JUDGING) else Phase.STARTING
        reason = RunReason.NODE_LOST if state.lost is not None else RunReason.POD_LEFT
        message = state.message
    if why is not None and not (isinstance(state, Leaving) and state.lost is not None):
        reason, message = why, words[why]
    told = draft.kept() | draft.of_the_try() | {"admission": draft.admission(slots)}
    if isinstance(state, (Waiting, Working)) and state.pod is not None:
        told["podName"] = state.pod
    if isinstance(state, Working) and state.progress is not None:
        heard = state.progress
        told |= {
            "progress": figures.progress(heard),
            "scores": figures.live_scores(heard) or told.get("scores"),
            "effective": heard.effective,
            "usage": draft.usage(heard.usage),
        }
    return Story(phase, reason, message, admitted=True, figures=told)


def _deadline_ahead(draft: Draft, state: State) -> timedelta:
    """When a try that stands still will have stood still too long."""
    if isinstance(state, Waiting):
        ahead = state.since + draft.deadline("pending") - draft.now
    else:
        ahead = draft.deadline("progress")  # counted anew from each sign of life
    lost = lost_at(of_try(draft.mine, "Pod", draft.entry.tries))
    if lost is not None and lost > draft.now:
        ahead = min(ahead, lost - draft.now)
    return max(timedelta(seconds=1), ahead)


def _request_more(draft: Draft, slots: Mapping[str, int]) -> Request | None:
    """What a running run asks for when its `concurrency` was raised."""
    frozen = draft.frozen(draft.entry.attempt)
    request = draft.request(Following(draft.entry, frozen, fresh=False), held=dict(slots))
    more = any(want > slots.get(endpoint, 0) for endpoint, want in request.slots.items() if endpoint in slots)
    return request if more else None


def remove_strays(draft: Draft) -> None:
    """Jobs of tries that are settled and whose pod has not said its last word: hung, lost, or not started in time."""
    told = draft.heard().result is not None
    for job in draft.jobs():
        if try_of(job) == draft.entry.open_try or not unfinished(job) or "deletionTimestamp" in job["metadata"]:
            continue
        pods = of_try(draft.mine, "Pod", try_of(job))
        if (told and try_of(job) == draft.entry.tries) or (pods and all(map(has_ended, pods))):
            continue  # it ends by itself, and leaves a log
        draft.delete(job)
