"""What to do about a run now. Pure: from the spec, the children and the account; never from the phase before.

A pass goes the same way each time. The try that is open is looked at and, where it is over, settled. What is open then is
kept running; what is not is over, suspended, refused, waiting, or about to start: the first of these that holds.
"""

from __future__ import annotations

from dataclasses import replace

from dspy_operator.api.reasons import RunReason
from dspy_operator.contract import names
from dspy_operator.controllers.optimizationrun import account as accounts
from dspy_operator.controllers.optimizationrun import children
from dspy_operator.controllers.optimizationrun.account import AccountDamaged, Entry
from dspy_operator.controllers.optimizationrun.attempts import following_of, froze, refused, reopened
from dspy_operator.controllers.optimizationrun.draft import Draft
from dspy_operator.controllers.optimizationrun.facts import Decision, Facts, Following
from dspy_operator.controllers.optimizationrun.live import remove_strays, with_a_pod
from dspy_operator.controllers.optimizationrun.over import end_here, ended_decision
from dspy_operator.controllers.optimizationrun.settle import settle
from dspy_operator.controllers.optimizationrun.start import admit_or_start, held_up
from dspy_operator.controllers.optimizationrun.told import Story, stuck
from dspy_operator.controllers.optimizationrun.transitions import Phase
from dspy_operator.controllers.optimizationrun.tries import Absent, Leaving, Limits, Over, State, observe
from dspy_operator.engine.plan import Guarded


def decide(facts: Facts) -> Decision:
    """One pass."""
    draft = Draft(facts)
    try:
        known = draft.entry = _known(draft)
        decision = _decide(draft)
    except AccountDamaged as damaged:
        return Decision(stuck(facts.body, RunReason.ACCOUNT_DAMAGED, str(damaged), facts.now))
    if draft.entry == known:
        return decision  # an adoption is written with the first try
    if facts.program is None and facts.account is None:
        return decision  # nothing can have been spent, and nobody would ever remove the account
    program = draft.spec.program_ref.name
    body = accounts.account_body(facts.account, draft.namespace, program, draft.name, draft.entry)
    return replace(decision, plan=replace(decision.plan, guarded=(Guarded(body),)))


def unheard(facts: Facts) -> bool:
    """Whether the open try is over as far as these facts show, and its pod's last words are not among them."""
    draft = Draft(facts)
    try:
        draft.entry = _known(draft)
    except AccountDamaged:
        return False
    state = _open_state(draft)
    return isinstance(state, Over) and state.ending.result is None


def _known(draft: Draft) -> Entry:
    """What the account knows of this object; what the status does where the account has no word of it.

    Raises:
        AccountDamaged: it cannot be read.
    """
    entry = accounts.entry_of(draft.facts.account, draft.name)
    if entry is None:
        return accounts.recovered(draft.before, uid=draft.uid, own=draft.own, budget=draft.spec.budget)
    return accounts.adopted(entry, draft.uid)


def _decide(draft: Draft) -> Decision:
    state = _open_state(draft)
    if isinstance(state, Leaving) and state.lost is not None and draft.spec.stop == "Cancel":
        state = Over(state.lost)  # nothing will start that could meet the pod, and `kubectl wait` must not hang
    if isinstance(state, Over):
        settle(draft, state.ending)
        state = None
    remove_strays(draft)
    if state is None or isinstance(state, Absent):
        return _without_a_pod(draft, created=not isinstance(state, Absent))
    return with_a_pod(draft, state)


def _open_state(draft: Draft) -> State | None:
    try_ = draft.entry.open_try
    if try_ is None:
        return None
    limits = Limits(
        pending=draft.deadline("pending"),
        progress=draft.deadline("progress"),
        keeps_journal=children.keeps_journal(draft.spec),
        slots=draft.on_the_wire(),
    )
    seen = draft.before.get("jobName") == names.run_job(draft.name, try_)
    return observe(draft.entry, draft.mine, draft.heard(), limits, draft.now, seen=seen)


def _without_a_pod(draft: Draft, *, created: bool) -> Decision:
    """Over, suspended, refused, waiting, or about to start.

    Args:
        created: False where a try was opened and its Job never made: the next one takes its number.
    """
    open_entry = draft.entry
    if not created:
        # Nobody runs it. Where it does not start now, what it reserved is given back.
        draft.entry = accounts.unopened(draft.entry)
    if draft.entry.ended is not None and not reopened(draft, draft.entry.ended):
        return ended_decision(draft, draft.entry.ended)
    following = following_of(draft, created=created)
    if draft.spec.stop == "Cancel":
        return end_here(draft, following, RunReason.CANCELLED, "spec.stop: Cancel", complete=False)
    if draft.spec.suspend:
        story = Story(Phase.SUSPENDED, RunReason.SUSPENDED, suspended=True, figures=draft.kept() | draft.of_the_try())
        return Decision(draft.plan(story))
    if draft.spec.stop == "Finish" and following.fresh:
        words = "spec.stop: Finish, before anything was called"
        return end_here(draft, following, RunReason.STOPPED_EARLY, words, complete=True)
    refusal = refused(draft, following)
    if refusal is not None:
        return draft.refuses(refusal, following)
    if following.fresh:
        ready = froze(draft, following)
        if not isinstance(ready, Following):
            return ready
        following = ready
    return held_up(draft, following) or admit_or_start(draft, following, None if created else open_entry)
