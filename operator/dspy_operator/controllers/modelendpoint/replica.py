"""How one Ollama pod is doing: what the kubelet says of its containers, and what its loader says of the model. Pure.

A death is told until the pod is ready again, or pulls: else each restart of a container that dies at once would be two
writes. Words are the kubelet's, the scheduler's and the loader's, without what changes by itself (counters, back-off times).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from dspy_operator.api.reasons import EndpointReason
from dspy_operator.contract import names
from dspy_operator.contract.documents import LoaderProgress
from dspy_operator.controllers.pods import IMAGE_REASONS
from dspy_operator.engine.plan import Body

_NOT_MADE = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreCreateHookError"})
_DEATHS = 2
"""Ends of a container, from which on it is a loop and no accident."""
_WORDS = 400

ON_THE_WAY = (EndpointReason.LOADING, EndpointReason.PULLING, EndpointReason.STARTING, EndpointReason.UNSCHEDULABLE)
"""Reasons of a pod that gets there without anybody's help, the nearest first. A node for it may be on its way too."""


@dataclass(frozen=True)
class Replica:
    """One pod of the template that is wanted now."""

    pod: str
    reason: EndpointReason
    """MODEL_LOADED where it answers."""
    message: str = ""
    progress: LoaderProgress | None = None
    """What its loader said last."""

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        return self.reason is EndpointReason.MODEL_LOADED

    @property
    def rank(self) -> tuple[int, int]:
        """The least is the nearest to being ready."""
        if self.ready:
            return (-1, 0)
        percent = self.progress.percent if self.progress else 0
        return (ON_THE_WAY.index(self.reason) if self.reason in ON_THE_WAY else len(ON_THE_WAY), -percent)


def progress_of(channel: Body | None, pod: str) -> LoaderProgress | None:
    """What a pod's loader said last; None where it said nothing, or nothing that can be read."""
    text = ((channel or {}).get("data") or {}).get(names.loader_key(pod))
    if text is None:
        return None
    try:
        return LoaderProgress.model_validate_json(text)
    except ValidationError:
        return None


def pods_in(channel: Body | None) -> Iterator[str]:
    """Pods that have a key in the channel."""
    before, after = names.loader_key("\n").split("\n")
    for key in (channel or {}).get("data") or {}:
        if key.startswith(before) and key.endswith(after):
            yield key[len(before) : -len(after)]


def look(pod: Body, progress: LoaderProgress | None) -> Replica:
    """How a pod is doing."""
    name = pod["metadata"]["name"]
    status = pod.get("status") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    # Both: the kubelet knows whether it answers now, the loader which model that is, and runs note its digest at their start.
    if conditions.get("Ready", {}).get("status") == "True" and progress is not None and progress.phase == "ready":
        return Replica(name, EndpointReason.MODEL_LOADED, progress=progress)
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return Replica(name, EndpointReason.UNSCHEDULABLE, _cut(scheduled.get("message", "")))
    pulls = progress is not None and progress.phase == "pulling"
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        trouble = _trouble(container, pulls=pulls)
        if trouble is not None:
            return Replica(name, trouble[0], f"{container['name']}: {_cut(trouble[1])}", progress)
    return _by_loader(name, progress)


def _trouble(container: Mapping[str, Any], *, pulls: bool) -> tuple[EndpointReason, str] | None:
    waiting = (container.get("state") or {}).get("waiting") or {}
    reason, words = waiting.get("reason", ""), waiting.get("message", "")
    if reason in IMAGE_REASONS:
        # Back-off and pull take turns, with the same words behind this one.
        return (
            EndpointReason.IMAGE_PULL_FAILED,
            f"{container['image']}: {words.rpartition('ErrImagePull: ')[2] or reason}",
        )
    if reason in _NOT_MADE:
        return EndpointReason.START_FAILED, f"{reason}: {words}"
    running = "running" in (container.get("state") or {})
    died = (container.get("state") or {}).get("terminated") or (container.get("lastState") or {}).get("terminated")
    if died is None or (running and pulls):
        return None
    if died.get("reason") == "OOMKilled":
        return EndpointReason.OOM_KILLED, "it needed more memory than its limit (podTemplate.resources.limits.memory)"
    if reason == "CrashLoopBackOff" or container.get("restartCount", 0) >= _DEATHS:
        said = (died.get("message") or "").strip()
        return EndpointReason.CRASH_LOOP, f"exit code {died.get('exitCode')}{f': {said}' if said else ''}"
    return None


def _by_loader(pod: str, progress: LoaderProgress | None) -> Replica:
    if progress is None:
        return Replica(pod, EndpointReason.STARTING)
    match progress.phase:
        case "pulling":
            return Replica(pod, EndpointReason.PULLING, progress=progress)
        case "failed":
            return Replica(pod, _failure(progress.reason), progress.message, progress)
        case _:  # also "ready", until the kubelet has seen it, and while Ollama starts anew
            return Replica(pod, EndpointReason.LOADING, progress=progress)


def _failure(reason: str | None) -> EndpointReason:
    """A loader of another version may know reasons that we do not; its message says what is wrong all the same."""
    try:
        return EndpointReason(reason or "")
    except ValueError:
        return EndpointReason.LOAD_FAILED


def _cut(words: str) -> str:
    words = " ".join(words.split())
    return words if len(words) <= _WORDS else f"{words[: _WORDS - 3]}..."
