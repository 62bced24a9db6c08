"""The end of a try: what it spent and found goes into the account, and with it what follows. Pure."""

from __future__ import annotations

from dataclasses import replace

from dspy_operator.api.reasons import RunReason
from dspy_operator.contract.documents import Estimate
from dspy_operator.contract.exits import Outcome
from dspy_operator.controllers.optimizationrun import account as accounts
from dspy_operator.controllers.optimizationrun import figures
from dspy_operator.controllers.optimizationrun.account import Backoff, Ended, Entry
from dspy_operator.controllers.optimizationrun.draft import Draft
from dspy_operator.controllers.optimizationrun.endings import DEFAULT_RETRIES, Ending, Kind, pause
from dspy_operator.engine.conditions import timestamp
from dspy_operator.engine.plan import Event


def settle(draft: Draft, ending: Ending) -> None:
    """The try is over: its spend, its look at the test rows, its result, and what follows, in one guarded write."""
    entry, frozen = draft.entry, draft.frozen(draft.entry.attempt)
    advanced = ending.used.calls > entry.used.calls
    entry = accounts.settled(entry, ending.used, ending.seconds)
    if ending.result is not None and frozen is not None:
        whole = accounts.whole(draft.facts.account)
        entry = entry.judged(whole, frozen.spec, ending.result, draft.spec.budget)
    backoff = entry.backoff or Backoff()
    match ending.kind:
        case Kind.COMPLETE | Kind.FAILED:
            entry = accounts.closed(entry, _ended(draft, ending))
        case Kind.RETRY:
            backoff = backoff.model_copy(update={"count": backoff.count + 1, "waits": 0, "since": ""})
            retries = DEFAULT_RETRIES if draft.spec.retries is None else draft.spec.retries
            if backoff.count > retries:
                entry = entry.model_copy(update={"backoff": backoff})
                words = f"{ending.message} ({backoff.count} tries failed, retries: {retries})"
                entry = accounts.closed(entry, _ended(draft, replace(ending, message=words)))
            else:
                entry = _again(draft, entry, backoff, ending, backoff.count)
        case Kind.WAIT:
            waits = 1 if advanced or ending.reason.value != backoff.reason else backoff.waits + 1
            since = timestamp(draft.now) if waits == 1 else backoff.since
            backoff = backoff.model_copy(update={"waits": waits, "since": since})
            entry = _again(draft, entry, backoff, ending, waits)
        case Kind.STOPPED:
            pass  # what follows is what the spec says
    draft.entry = entry


def _ended(draft: Draft, ending: Ending) -> Ended:
    result = ending.result
    complete = ending.kind is Kind.COMPLETE
    outcome = result.outcome.value if result is not None and result.outcome is not None else None
    if complete and outcome is None and result is not None and result.candidate is not None:
        outcome = Outcome.NOT_JUDGED.value
    return Ended(
        reason=ending.reason.value,
        message=_words(ending)[: accounts.MESSAGE_CHARACTERS],
        path=ending.path,
        at=timestamp(draft.now),
        complete=complete,
        outcome=outcome if complete else None,
        candidate=result.candidate if result is not None and complete else None,
        exit=ending.exit,
        budget=draft.spec.budget,
    )


def _again(draft: Draft, entry: Entry, backoff: Backoff, ending: Ending, number: int) -> Entry:
    """Another try follows, after a pause."""
    later = draft.now + pause(ending.reason, ending.kind, number)
    words = f"try {entry.tries}: {ending.message or ending.reason.value}; the next one not before {timestamp(later)}"
    draft.events.append(Event("Warning", ending.reason.value, words))
    update = {
        "reason": ending.reason.value,
        "message": ending.message[: accounts.MESSAGE_CHARACTERS],
        "not_before": timestamp(later),
    }
    return entry.model_copy(update={"backoff": backoff.model_copy(update=update)})


def _words(ending: Ending) -> str:
    """What the pod said; of a judged candidate the verdict, of an estimate its numbers."""
    result = ending.result
    if ending.reason is RunReason.ESTIMATED and result is not None and result.estimate is not None:
        return _estimated(result.estimate)
    if ending.message or result is None or result.outcome is None:
        return ending.message
    return result.outcome.value + (f": {result.gate.why}" if result.gate is not None else "")


def _estimated(of: Estimate) -> str:
    """`about 160 calls (120 of them for the judgement), 8000 tokens, cost 0.12; no model was called`."""
    judgement = f" ({of.reserved_calls} of them for the judgement)" if of.reserved_calls else ""
    cost = f", cost {figures.decimal(of.cost)}" if of.cost is not None else ""
    return f"about {of.calls} calls{judgement}, {of.tokens} tokens{cost}; no model was called"
