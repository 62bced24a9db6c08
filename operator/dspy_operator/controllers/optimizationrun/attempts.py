"""Attempts: when what is over begins anew, and what a new one computes with. Pure."""

from __future__ import annotations

from dataclasses import replace

from dspy_operator.api.reasons import RunReason
from dspy_operator.contract.documents import KeptResult
from dspy_operator.contract.exits import Exit, RunFailed
from dspy_operator.controllers.optimizationrun import accept, figures
from dspy_operator.controllers.optimizationrun import account as accounts
from dspy_operator.controllers.optimizationrun.accept import Refusal
from dspy_operator.controllers.optimizationrun.account import Ended
from dspy_operator.controllers.optimizationrun.draft import Draft
from dspy_operator.controllers.optimizationrun.facts import Decision, Following
from dspy_operator.controllers.optimizationrun.inputs import freeze, start_revision
from dspy_operator.controllers.optimizationrun.over import end_here
from dspy_operator.controllers.optimizationrun.transitions import Phase
from dspy_operator.controllers.pods import attempt_of

VALIDATED = frozenset({Exit.INVALID_PROGRAM, Exit.INVALID_DATASET, Exit.INVALID_METRIC})
"""Ends that the program is to blame for: nothing was called, and a program put right is enough."""


def reopened(draft: Draft, ended: Ended) -> bool:
    """Whether what is over begins anew."""
    if draft.entry.own != draft.own or _rerun_asked(draft):
        return True
    if ended.reason == RunReason.BUDGET_EXHAUSTED:
        return accounts.raised(ended.budget, draft.spec.budget)
    if ended.reason == RunReason.BUDGET_TOO_SMALL:
        return not accounts.same_budget(ended.budget, draft.spec.budget)
    return ended.exit in VALIDATED and _revalidated(draft)


def _rerun_asked(draft: Draft) -> bool:
    return draft.spec.rerun is not None and draft.spec.rerun != draft.entry.rerun


def _revalidated(draft: Draft) -> bool:
    """Whether the program that a run failed for is another one by now, and validated."""
    changed = draft.outdated(draft.inputs())
    return (
        changed is not None
        and changed.reason in (RunReason.PROGRAM_CHANGED, RunReason.DATASET_CHANGED)
        and draft.facts.program is not None
        and accept.program_not_ready(draft.facts.program, draft.facts.program_typed) is None
    )


def following_of(draft: Draft, *, created: bool) -> Following:
    """The attempt that goes on, or the one that begins."""
    entry = draft.entry
    rerun = bool(entry.own) and _rerun_asked(draft) and (entry.ended is not None)
    edited = entry.own != draft.own
    failed_for = entry.ended is not None and entry.ended.exit in VALIDATED
    frozen = draft.frozen(entry.attempt) if entry.own else None
    if not (edited or rerun or failed_for) and (frozen is not None or not created):
        going_on = entry.model_copy(update={"ended": None, "backoff": None if entry.ended else entry.backoff})
        return Following(going_on, frozen, fresh=frozen is None)
    begun = accounts.begun(entry, uid=draft.uid, own=draft.own, input_digest="", rerun=draft.spec.rerun or entry.rerun)
    taken = max((attempt_of(child) for child in draft.facts.children), default=0)
    begun = begun.model_copy(update={"attempt": max(begun.attempt, taken + 1)})
    return Following(begun, None, fresh=True, rerun=rerun)


def refused(draft: Draft, following: Following) -> Refusal | None:
    """Why the run cannot be worked with: what it names is not there, or closed to it."""
    if draft.facts.program is None:
        return accept.program_missing(draft.run, draft.facts.known_programs)
    refusal = accept.endpoints_allowed(
        draft.run, draft.roles(following), draft.facts.endpoints, draft.facts.known_endpoints
    )
    if refusal is None and following.fresh:
        # Later they may be gone: this run's own journal has what it took.
        refusal = accept.answers_missing(draft.run, draft.facts.journals)
    return refusal


def froze(draft: Draft, following: Following) -> Following | Decision:
    """The inputs of a new attempt as they are now, or why they are not known or not good."""
    assert draft.facts.program is not None
    refusal = accept.program_not_ready(draft.facts.program, draft.facts.program_typed)
    if refusal is not None:
        return draft.waits(Phase.PENDING, refusal.reason, refusal.message, refusal.waiting_for, following)
    assert draft.facts.program_typed is not None
    program_status = draft.facts.program.get("status") or {}
    dataset = program_status["dataset"]
    whole = accounts.whole(draft.facts.account)
    start = start_revision(draft.run, program_status)
    if start is not None:
        refusal = accept.revision_missing(draft.run, start, draft.facts.revision_digests)
        if refusal is not None:
            return draft.refuses(refusal, following)
    try:
        frozen = freeze(
            draft.run,
            draft.facts.program_typed,
            program_status,
            draft.endpoints(following),
            attempt=following.entry.attempt,
            looks=whole.looks(dataset.get("testDigest", "")),
            image=draft.facts.image,
            revisions=draft.facts.revision_digests,
        )
    except RunFailed as failure:
        return draft.refuses(accept.refused_inputs(failure, draft.endpoints(following)), following)
    refusal = accept.tool_refused(draft.run, frozen.spec) or accept.budget_too_small(draft.run, frozen.spec, dataset)
    if refusal is not None:
        return draft.refuses(refusal, following)
    digest = frozen.spec.input_digest
    following = replace(following, frozen=frozen, entry=following.entry.model_copy(update={"input_digest": digest}))
    if frozen.spec.mode == "Run" and not following.rerun and draft.spec.reuse != "Never":
        kept = accounts.kept_result(whole, digest, draft.spec)
        if kept is not None:
            return _reuse(draft, following, *kept)
    return following


def _reuse(draft: Draft, following: Following, of: str, kept: KeptResult) -> Decision:
    """The same inputs gave a result before: it is this run's, and nothing is called."""
    told = {
        "inputs": draft.inputs(following),
        "scores": figures.final_scores(kept.scores),
        "resolved": dict(kept.resolved),
    }
    words = f"run {of} had the same inputs; nothing was called"
    return end_here(
        draft, following, RunReason.REUSED, words, complete=True, outcome="Reused", candidate=kept.candidate, told=told
    )
