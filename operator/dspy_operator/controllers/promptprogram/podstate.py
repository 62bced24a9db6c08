"""What a validation's pod says by its status: why it does not start, or how it ended without a word."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from dspy_operator.controllers.pods import IMAGE_REASONS, LOST_AFTER, ON_ITS_WAY
from dspy_operator.engine.conditions import parse_timestamp
from dspy_operator.engine.plan import Body


def finished_at(job: Body) -> datetime | None:
    """When a Job ended, well or not; None while it has not."""
    for condition in (job.get("status") or {}).get("conditions", ()):
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            return parse_timestamp(condition["lastTransitionTime"])
    return None


def is_in_the_way(pod: Body, now: datetime) -> bool:
    """Whether a pod of another try may still patch the channel.

    A validation has no journal: what a lost pod may yet say is of another try, and ignored.
    """
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return False
    leaving = pod["metadata"].get("deletionTimestamp")
    return leaving is None or parse_timestamp(leaving) + LOST_AFTER > now


def image_trouble(pods: Iterable[Body]) -> str | None:
    """The kubelet's words where it cannot get the image."""
    return next((words for reason, words in _waiting(pods) if reason in IMAGE_REASONS), None)


def container_trouble(pods: Iterable[Body]) -> str | None:
    """The kubelet's words where it cannot start the container."""
    return next((words for reason, words in _waiting(pods) if reason not in ON_ITS_WAY), None)


def unschedulable(pods: Iterable[Body]) -> str | None:
    """The scheduler's words where no node takes the pod."""
    for pod in pods:
        for condition in (pod.get("status") or {}).get("conditions", ()):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                return f"{condition.get('reason', 'Unschedulable')}: {condition.get('message', '')}".rstrip(": ")
    return None


def silent_end(job: Body, pods: Iterable[Body]) -> str:
    """Why a Job ended without a result, in words."""
    pods = list(pods)
    for pod in pods:
        status = pod.get("status") or {}
        if status.get("reason"):  # Evicted, NodeLost, Shutdown: of the pod as a whole
            return f"{status['reason']}: {status.get('message', '')}".rstrip(": ")
    for terminated in (status.get("state", {}).get("terminated") for status in _containers(pods)):
        if terminated is not None:
            why = terminated.get("reason", "")
            return f"{'' if why in ('', 'Error', 'Completed') else why + ', '}exit code {terminated['exitCode']}"
    for condition in (job.get("status") or {}).get("conditions", ()):
        if condition["type"] == "Failed" and condition.get("reason") not in (None, "BackoffLimitExceeded"):
            return f"{condition['reason']}: {condition.get('message', '')}".rstrip(": ")
    return "the pod left nothing behind"


def _waiting(pods: Iterable[Body]) -> Iterator[tuple[str, str]]:
    """(reason, in words) of each container that waits."""
    for status in _containers(pods):
        waiting = status.get("state", {}).get("waiting") or {}
        if reason := waiting.get("reason"):
            yield reason, f"{reason}: {waiting.get('message', '')}".rstrip(": ")


def _containers(pods: Iterable[Body]) -> Iterator[dict[str, Any]]:
    for pod in pods:
        yield from (pod.get("status") or {}).get("containerStatuses", ())
