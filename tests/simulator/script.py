"""What a simulated pod does: one Play for each try of a run, one Server for an endpoint's pods."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dspy_operator.contract.exits import Reason


class Step(StrEnum):
    """`step` of progress.json, in the runner's order."""

    LOAD = "load"
    PREFLIGHT = "preflight"
    BASELINE = "baseline"
    OPTIMIZE = "optimize"
    JUDGE = "judge"
    PUBLISH = "publish"


class Death(StrEnum):
    """Ways in which a pod ends without a word of its own."""

    OUT_OF_MEMORY = "OOMKilled"
    """The container is killed with 137."""
    EVICTED = "Evicted"
    """The kubelet ends the pod for its node's sake."""
    VANISHED = "Vanished"
    """The pod object is gone, as when its node was removed."""
    PREEMPTED = "Preempted"
    """The scheduler asks for the pod's place: it is deleted with a DisruptionTarget condition, and sees a SIGTERM."""
    NODE_LOST = "NodeLost"
    """The node does not answer: the pod is deleted for it, and stays until `Simulator.release` says that the node is back."""


@dataclass(frozen=True)
class Failure:
    """A typed end: result.json with this reason, and its exit code."""

    reason: Reason
    message: str = ""
    path: str | None = None


@dataclass(frozen=True)
class Crash:
    """An exit code, and no result."""

    code: int


@dataclass(frozen=True)
class Ends:
    """Instead of coming to its own end, a try ends so when it has come to a step."""

    how: Failure | Crash | Death
    at: Step = Step.OPTIMIZE
    after_calls: int = 0
    """Of the calls of that step, how many were answered (and are in the journal)."""


@dataclass(frozen=True)
class Play:
    """One try of a run. As it stands: it optimizes, finds a candidate that is better, and has it judged."""

    calls: int = 40
    """Of the optimization, its preflight and baseline included; the judgement's come on top, by the contract's formula."""
    reports: int = 2
    """Progress documents during the optimization."""
    right_before: int = 50
    """Percent of the test rows that the baseline (and the incumbent) gets right."""
    right_after: int = 90
    """Percent of them that the candidate gets right; the same rows first."""
    waits_at: Step | None = None
    """Stays here, and sends heartbeats, until `Simulator.release`, a stop, or a signal."""
    silent: bool = False
    """Where it waits, it waits without a heartbeat."""
    ends: Ends | None = None


@dataclass(frozen=True)
class Server:
    """What the loader of an endpoint's pods says before it is ready."""

    percents: tuple[int, ...] = (100,)
    waits_at: int | None = None
    """A percent at which the pull stands still until `Simulator.release`."""
    waits_loading: bool = False
    """The model is read into memory until `Simulator.release`."""
    total_bytes: int = 400_000_000
