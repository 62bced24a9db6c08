"""From which phase to which a run may go. For eyes and for tests: nothing is ever decided by a phase."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Phase(StrEnum):
    """`status.phase` of an OptimizationRun."""

    PENDING = "Pending"
    """Its program is not ready, so that its inputs are not known yet."""
    REJECTED = "Rejected"
    """Accepted=False; recovers when what is wrong is put right."""
    QUEUED = "Queued"
    """Waits for slots, an endpoint, a Secret, or its next try."""
    STARTING = "Starting"
    """Has its slots; the endpoint's model or the pod is not up yet."""
    RUNNING = "Running"
    JUDGING = "Judging"
    """The candidate is measured on the test rows, or published."""
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    BUDGET_EXHAUSTED = "BudgetExhausted"
    CANCELLED = "Cancelled"


ENDED = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.BUDGET_EXHAUSTED, Phase.CANCELLED})
"""Left only by an Input edit, `rerun`, or a raised limit."""

_WAITING = frozenset({Phase.PENDING, Phase.REJECTED, Phase.QUEUED, Phase.SUSPENDED})
_LIVE = frozenset({Phase.STARTING, Phase.RUNNING, Phase.JUDGING})
_WITHOUT_A_POD = frozenset({Phase.SUCCEEDED, Phase.CANCELLED})
"""Ends that need no pod: Reused, `stop` before anything was called."""

TRANSITIONS: Mapping[Phase | None, frozenset[Phase]] = {
    None: frozenset(Phase),
    # Running is never the first word after waiting: the write that admits comes one pass before the Job.
    Phase.PENDING: _WAITING | _WITHOUT_A_POD | {Phase.STARTING},
    Phase.REJECTED: _WAITING | _WITHOUT_A_POD | {Phase.STARTING},
    Phase.QUEUED: _WAITING | _WITHOUT_A_POD | {Phase.STARTING, Phase.FAILED},
    Phase.SUSPENDED: _WAITING | _WITHOUT_A_POD | {Phase.STARTING, Phase.FAILED},
    # Between two looks a pod may come to its end, be lost, or be replaced.
    Phase.STARTING: _WAITING | _LIVE | ENDED,
    Phase.RUNNING: _WAITING | _LIVE | ENDED,
    Phase.JUDGING: _WAITING | _LIVE | ENDED,
    # An Input edit, `rerun` or a raised limit begins anew, and may be over at once.
    **{ended: _WAITING | _WITHOUT_A_POD | {Phase.STARTING, ended} for ended in ENDED},
}
"""Phase that a status shows -> phases that the next one may show. None: no status yet, or a lost one."""
