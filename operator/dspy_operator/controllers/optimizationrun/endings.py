"""What the end of a try means: the exit codes of the contract, and ends without a word of the pod's own. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from dspy_operator.api.reasons import RunReason
from dspy_operator.contract.documents import Result
from dspy_operator.contract.exits import Exit, Reason
from dspy_operator.contract.runspec import Usage


class Kind(StrEnum):
    """What the operator does about an end."""

    COMPLETE = "Complete"
    """Complete=True."""
    FAILED = "Failed"
    """Failed=True until an edit or `rerun`."""
    RETRY = "Retry"
    """Another try with the same journal, at most `retries` times."""
    WAIT = "Wait"
    """Another try as often as it takes: nothing of the run's own is to blame."""
    STOPPED = "Stopped"
    """Somebody asked for it; what follows is what the spec says."""


@dataclass(frozen=True)
class Ending:
    """How a try ended."""

    kind: Kind
    reason: RunReason
    message: str
    used: Usage
    """Over the run's whole life, as far as anybody knows."""
    seconds: float
    """Run time over all tries."""
    path: str | None = None
    exit: int | None = None
    result: Result | None = None


_KINDS: dict[int, Kind] = {
    Exit.COMPLETED: Kind.COMPLETE,
    Exit.BUDGET_EXHAUSTED: Kind.COMPLETE,
    Exit.ENDPOINT_UNAVAILABLE: Kind.WAIT,
    Exit.SECRET_MISSING: Kind.WAIT,
    Exit.STOPPED: Kind.STOPPED,
    Exit.VERIFY_FAILED: Kind.RETRY,
    Exit.INTERNAL_ERROR: Kind.RETRY,
    Exit.USAGE: Kind.RETRY,
    Exit.INVALID_PROGRAM: Kind.FAILED,
    Exit.INVALID_DATASET: Kind.FAILED,
    Exit.INVALID_METRIC: Kind.FAILED,
    Exit.BUDGET_TOO_SMALL: Kind.FAILED,
    Exit.AUTHENTICATION_FAILED: Kind.FAILED,
    Exit.REPLAY_DIVERGED: Kind.FAILED,
    Exit.JOURNAL_CORRUPT: Kind.FAILED,
    Exit.JOURNAL_FULL: Kind.FAILED,
    Exit.MODEL_ANSWERS_UNUSABLE: Kind.FAILED,
}
"""Exit code -> what is done (contract.md, the table of exit codes)."""

_REASONS: dict[int, RunReason] = {
    Exit.COMPLETED: RunReason.COMPLETED,
    Exit.BUDGET_EXHAUSTED: RunReason.BUDGET_EXHAUSTED,
    Exit.ENDPOINT_UNAVAILABLE: RunReason.ENDPOINT_UNAVAILABLE,
    Exit.SECRET_MISSING: RunReason.SECRET_MISSING,
    Exit.STOPPED: RunReason.PREEMPTED,
    Exit.INVALID_PROGRAM: RunReason.INVALID_PROGRAM,
    Exit.INVALID_DATASET: RunReason.INVALID_DATASET,
    Exit.INVALID_METRIC: RunReason.INVALID_METRIC,
    Exit.BUDGET_TOO_SMALL: RunReason.BUDGET_TOO_SMALL,
    Exit.AUTHENTICATION_FAILED: RunReason.AUTHENTICATION_FAILED,
    Exit.REPLAY_DIVERGED: RunReason.REPLAY_DIVERGED,
    Exit.JOURNAL_CORRUPT: RunReason.JOURNAL_CORRUPT,
    Exit.JOURNAL_FULL: RunReason.JOURNAL_FULL,
    Exit.MODEL_ANSWERS_UNUSABLE: RunReason.MODEL_ANSWERS_UNUSABLE,
}
"""Where no result.json tells the exact reason; any other code is InternalError."""


def kind_of(code: int) -> Kind | None:
    """What an exit code of the contract asks for; None for a code that it does not know."""
    return _KINDS.get(code)


def reason_of(code: int) -> RunReason:
    """The reason that a bare exit code stands for."""
    return _REASONS.get(code, RunReason.INTERNAL_ERROR)


def reason_in(result: Result) -> RunReason:
    """The exact reason that a result tells, as the API spells it."""
    if result.exit == Exit.COMPLETED and result.estimate is not None and result.outcome is None:
        return RunReason.ESTIMATED
    if result.reason is Reason.STOPPED:
        return RunReason.PREEMPTED
    try:
        return RunReason(result.reason.value)
    except ValueError:
        return reason_of(result.exit)


# --- waiting for the next try --------------------------------------------------------------------------------------

DEFAULT_RETRIES = 6
RETRY_SECONDS, MOST_RETRY_SECONDS = 10, 300
"""As Kubernetes backs off a failing Job's pods, but capped lower: six retries end within 11 minutes."""
OUTAGE_SECONDS, MOST_OUTAGE_SECONDS = 30, 600
"""The breaker of the pod has waited through 10 requests already; an hour's outage costs some ten short pods."""
SECRET_SECONDS, MOST_SECRET_SECONDS = 60, 300
"""contract.md: every 1-5 min. A Secret cannot be watched without rights on Secrets."""


def pause(reason: RunReason, kind: Kind, number: int) -> timedelta:
    """How long to wait before the next try.

    Args:
        number: of failures (Retry) or waits (Wait) in a row, from 1.
    """
    if kind is Kind.RETRY:
        first, longest = RETRY_SECONDS, MOST_RETRY_SECONDS
    elif reason is RunReason.SECRET_MISSING:
        first, longest = SECRET_SECONDS, MOST_SECRET_SECONDS
    else:
        first, longest = OUTAGE_SECONDS, MOST_OUTAGE_SECONDS
    return timedelta(seconds=min(longest, first * 2 ** min(number - 1, 20)))


def overdue(since: datetime, deadline: timedelta, now: datetime) -> bool:
    """Whether a wait that began at `since` is longer than it may be."""
    return now - since >= deadline
