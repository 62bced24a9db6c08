"""What became of a try: read from its Job, its pod and its channel, in the order in which they can be trusted. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from dspy_operator.api.reasons import RunReason
from dspy_operator.contract import names
from dspy_operator.contract.documents import Progress, Result
from dspy_operator.contract.runspec import Usage
from dspy_operator.controllers.optimizationrun.account import Entry, most, plus, total
from dspy_operator.controllers.optimizationrun.endings import Ending, Kind, kind_of, overdue, reason_in, reason_of
from dspy_operator.controllers.pods import IMAGE_REASONS, LOST_AFTER, ON_ITS_WAY, of_try
from dspy_operator.engine.conditions import parse_timestamp
from dspy_operator.engine.plan import Body


@dataclass(frozen=True)
class Absent:
    """The try was opened, and nobody has seen its Job."""


@dataclass(frozen=True)
class Waiting:
    """The Job is there, and its pod does not run yet."""

    since: datetime
    message: str
    reason: RunReason = RunReason.STARTING
    pod: str | None = None


@dataclass(frozen=True)
class Working:
    """The pod runs."""

    since: datetime
    pod: str
    progress: Progress | None


@dataclass(frozen=True)
class Leaving:
    """Job or pod is being deleted."""

    message: str
    lost: Ending | None = None
    """What it comes to if nobody waits any longer: the pod has taken longer than a node that answers would."""


@dataclass(frozen=True)
class Over:
    """The try has ended."""

    ending: Ending


State = Absent | Waiting | Working | Leaving | Over


@dataclass(frozen=True)
class Limits:
    """How long a try may stand still, and what it may lose."""

    pending: timedelta
    progress: timedelta
    keeps_journal: bool
    """Whether the journal outlives the pod."""
    slots: int
    """Requests that it may have had on the wire."""


@dataclass(frozen=True)
class Channel:
    """What a pod has told, as far as it is about the try that was asked for."""

    progress: Progress | None = None
    result: Result | None = None

    @staticmethod
    def of(body: Body | None, attempt: int, try_: int) -> Channel:
        """Documents of any other attempt or try are of an earlier pod, and are passed over; so is what cannot be read."""
        data = (body or {}).get("data") or {}
        progress = _document(Progress, data.get(names.KEY_PROGRESS))
        result = _document(Result, data.get(names.KEY_RESULT))
        return Channel(
            progress if progress is not None and (progress.attempt, progress.try_) == (attempt, try_) else None,
            result if result is not None and (result.attempt, result.try_) == (attempt, try_) else None,
        )


def last_told(body: Body | None) -> int:
    """The highest try that a channel has a word of, of any attempt; 0 without one."""
    data = (body or {}).get("data") or {}
    found = (_document(Progress, data.get(names.KEY_PROGRESS)), _document(Result, data.get(names.KEY_RESULT)))
    return max((int(document.try_) for document in found if document is not None), default=0)


def _document(model: type[Any], text: str | None) -> Any:
    if text is None:
        return None
    try:
        return model.model_validate_json(text)
    except ValidationError:
        return None


def unfinished(job: Body) -> bool:
    """Whether a Job may still have a pod that runs."""
    conditions = (job.get("status") or {}).get("conditions") or ()
    return not any(found["type"] in ("Complete", "Failed") and found["status"] == "True" for found in conditions)


def has_ended(pod: Body) -> bool:
    """Whether its containers have all ended."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed") or _terminated(pod) is not None


def is_lost(pod: Body, now: datetime) -> bool:
    """Whether a pod that is to go has outstayed what a node that answers would take."""
    going = pod["metadata"].get("deletionTimestamp")
    return going is not None and not has_ended(pod) and now - parse_timestamp(going) >= LOST_AFTER


def lost_at(pods: Iterable[Body]) -> datetime | None:
    """When a pod that is to go will count as lost; None where none is to go. Nothing else wakes the run then."""
    going = [pod["metadata"]["deletionTimestamp"] for pod in pods if "deletionTimestamp" in pod["metadata"]]
    return min(map(parse_timestamp, going)) + LOST_AFTER if going else None


def observe(
    entry: Entry,
    children: Iterable[Body],
    channel: Channel,
    limits: Limits,
    now: datetime,
    *,
    seen: bool,
) -> State:
    """What became of the open try.

    Args:
        seen: whether an earlier pass saw its Job: then a Job that is not there was deleted, and never comes again.
    """
    try_ = entry.open_try
    assert try_ is not None
    children = list(children)
    job = next(iter(of_try(children, "Job", try_)), None)
    pods = of_try(children, "Pod", try_)
    pod = max(pods, key=lambda found: (not has_ended(found), found["metadata"]["creationTimestamp"]), default=None)
    ends = _Ends(entry, channel, limits, now, pod)
    if channel.result is not None:
        return Over(ends.told(channel.result))
    if pod is not None and has_ended(pod):
        return Over(ends.by_pod(pod, asked=job is None or "deletionTimestamp" in job["metadata"]))
    if pod is not None and is_lost(pod, now):
        message = f"pod {pod['metadata']['name']} is on node {pod['spec'].get('nodeName', '')}, which does not answer"
        if limits.keeps_journal:
            # Two pods must never write one journal: the pod has to be confirmed gone.
            words = f"{message}; its journal's volume is not free until the pod is confirmed gone"
            return Leaving(words, ends.untold(Kind.STOPPED, RunReason.NODE_LOST, message))
        return Over(ends.untold(Kind.RETRY, RunReason.NODE_LOST, message))
    if job is None and pod is None:
        if not seen and channel.progress is None:
            return Absent()
        return Over(ends.untold(Kind.STOPPED, RunReason.POD_LOST, "the Job is gone and left no result"))
    if job is None or "deletionTimestamp" in job["metadata"]:
        return Leaving("the pod is on its way out" if pod is not None else "the Job is being deleted")
    if pod is None:
        if not unfinished(job):
            return Over(ends.untold(Kind.RETRY, RunReason.POD_LOST, f"the pod is gone and left no result{_why(job)}"))
        return ends.pending(job, None)
    if _started(pod) is None:
        return ends.pending(job, pod)
    return ends.alive(pod)


class _Ends:
    """Endings of one try, with what it spent."""

    def __init__(self, entry: Entry, channel: Channel, limits: Limits, now: datetime, pod: Body | None) -> None:
        self._entry = entry
        self._channel = channel
        self._limits = limits
        self._now = now
        self._started = _started(pod) if pod is not None else None
        self._pod = pod
        self._no_pod_yet = False

    def told(self, result: Result) -> Ending:
        kind = kind_of(result.exit)
        if kind is Kind.STOPPED and self._pod is not None and _disruption(self._pod):
            return self._ending(Kind.RETRY, RunReason.PREEMPTED, self._disrupted(), result)
        return self._ending(kind or Kind.RETRY, reason_in(result), result.message, result)

    def by_pod(self, pod: Body, *, asked: bool) -> Ending:
        """Of a pod without last words.

        Args:
            asked: its Job was deleted, so that it had to go.
        """
        status = pod.get("status") or {}
        ended = _terminated(pod) or {}
        code = ended.get("exitCode")
        if ended.get("reason") == "OOMKilled":
            limit = _memory_limit(pod)
            return self.untold(
                Kind.RETRY, RunReason.OOM_KILLED, f"the pod needed more than its memory limit{limit}", code
            )
        if asked:
            return self.untold(
                Kind.STOPPED, RunReason.POD_LOST, "the Job was deleted, and its pod left no result", code
            )
        if _disruption(pod) or status.get("reason") in ("Evicted", "Preempting", "NodeShutdown", "Terminated"):
            return self.untold(Kind.RETRY, RunReason.PREEMPTED, self._disrupted(), code)
        if status.get("reason") == "NodeLost":
            return self.untold(Kind.RETRY, RunReason.NODE_LOST, str(status.get("message", "")), code)
        if code == 0:
            return self.untold(
                Kind.RETRY, RunReason.POD_LOST, "the pod ended with exit code 0 and left no result", code
            )
        if code is None:
            return self.untold(
                Kind.RETRY, RunReason.POD_LOST, f"the pod failed: {status.get('message', 'no reason given')}"
            )
        kind = kind_of(code)
        if kind is None or kind is Kind.COMPLETE:
            how = f"was killed by signal {code - 128}" if code > 128 else f"ended with exit code {code}"
            reason = RunReason.POD_LOST if code > 128 else RunReason.INTERNAL_ERROR
            return self.untold(Kind.RETRY, reason, f"the pod {how} and left no result", code)
        return self.untold(kind, reason_of(code), f"the pod ended with exit code {code} and left no result", code)

    def untold(self, kind: Kind, reason: RunReason, message: str, code: int | None = None) -> Ending:
        return self._ending(kind, reason, message, None, code)

    def pending(self, job: Body, pod: Body | None) -> State:
        since = parse_timestamp(job["metadata"]["creationTimestamp"])
        self._no_pod_yet = pod is None
        reason, message = _why_not(pod)
        if overdue(since, self._limits.pending, self._now):
            failed = RunReason.DEADLINE_EXCEEDED if reason is RunReason.STARTING else reason
            words = f"{message}, for longer than deadlines.pending ({int(self._limits.pending.total_seconds())} s)"
            return Over(self.untold(Kind.FAILED, failed, words))
        return Waiting(since, message, reason, pod["metadata"]["name"] if pod is not None else None)

    def alive(self, pod: Body) -> State:
        assert self._started is not None
        progress = self._channel.progress
        heard = self._started
        if progress is not None and progress.heartbeat:
            heard = max(heard, _moment(progress.heartbeat) or heard)
        if overdue(heard, self._limits.progress, self._now):
            seconds = int((self._now - heard).total_seconds())
            return Over(self.untold(Kind.RETRY, RunReason.NO_PROGRESS, f"the pod gave no sign of life for {seconds} s"))
        return Working(self._started, pod["metadata"]["name"], progress)

    def _ending(
        self, kind: Kind, reason: RunReason, message: str, result: Result | None, code: int | None = None
    ) -> Ending:
        used, seconds = self._spent(result)
        return Ending(
            kind=kind,
            reason=reason,
            message=message,
            used=used,
            seconds=seconds,
            path=result.path if result is not None else None,
            exit=result.exit if result is not None else code,
            result=result,
        )

    def _spent(self, result: Result | None) -> tuple[Usage, float]:
        """From the pod's last words; where it had none, what it told before, and what it may have had on the wire."""
        if result is not None:
            return result.usage, result.seconds
        used, seconds = self._entry.used, self._entry.seconds
        progress = self._channel.progress
        if progress is not None:
            used = most(used, total(progress.usage))
        if self._started is not None:
            seconds += max(0.0, (_ended_at(self._pod, self._now) - self._started).total_seconds())
        # A pod that is gone may have run; only one that is there and never started surely has not.
        may_have_run = progress is not None or self._started is not None or (self._pod is None and not self._no_pod_yet)
        if may_have_run and not self._limits.keeps_journal:
            # With a journal the next try counts them exactly; without one nobody ever will.
            used = plus(used, Usage(calls=self._limits.slots))
        return used, seconds

    def _disrupted(self) -> str:
        status = (self._pod or {}).get("status") or {}
        words = _disruption(self._pod) if self._pod is not None else ""
        return f"the pod was evicted: {words or status.get('message') or status.get('reason', '')}"


def _started(pod: Body) -> datetime | None:
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        state = container.get("state") or {}
        for word in ("running", "terminated"):
            if (moment := (state.get(word) or {}).get("startedAt")) is not None:
                return parse_timestamp(moment)
    return None


def _terminated(pod: Body) -> Mapping[str, Any] | None:
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        if (ended := (container.get("state") or {}).get("terminated")) is not None:
            return dict(ended)
    return None


def _ended_at(pod: Body | None, now: datetime) -> datetime:
    ended = (_terminated(pod) or {}).get("finishedAt") if pod is not None else None
    return parse_timestamp(ended) if ended is not None else now


def _disruption(pod: Body) -> str:
    """Why Kubernetes itself took the pod away, or nothing."""
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            return str(condition.get("message") or condition.get("reason") or "DisruptionTarget")
    return ""


def _why_not(pod: Body | None) -> tuple[RunReason, str]:
    """What a pod that does not run waits for."""
    if pod is None:
        return RunReason.STARTING, "waiting for the Job's pod"
    status = pod.get("status") or {}
    for container in status.get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in IMAGE_REASONS:
            words = waiting.get("message") or waiting["reason"]
            return (
                RunReason.RUNNER_IMAGE_UNAVAILABLE,
                f"{container.get('image', 'the image')} cannot be pulled: {words}",
            )
        if waiting.get("reason") not in (None, *ON_ITS_WAY):
            return RunReason.STARTING, f"the pod waits: {waiting['reason']} {waiting.get('message', '')}".rstrip()
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return RunReason.STARTING, f"no node takes the pod: {condition.get('message', condition.get('reason', ''))}"
    return RunReason.STARTING, "the pod is starting"


def _why(job: Body) -> str:
    for condition in (job.get("status") or {}).get("conditions") or ():
        if condition["type"] == "Failed" and condition.get("message"):
            return f" ({condition['message']})"
    return ""


def _memory_limit(pod: Body) -> str:
    limits = (pod["spec"]["containers"][0].get("resources") or {}).get("limits") or {}
    return f" of {limits['memory']}" if "memory" in limits else ""


def _moment(text: str) -> datetime | None:
    try:
        moment = parse_timestamp(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
