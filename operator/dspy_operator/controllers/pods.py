"""What every room reads of a Job's or Deployment's pods in the same way. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from dspy_operator.contract import names
from dspy_operator.engine.plan import Body

LOST_AFTER = timedelta(seconds=60)
"""A pod that should have ended this long ago is on a node that nobody reaches: a kubelet that works needs seconds."""
IMAGE_REASONS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
    }
)
"""A container waits with one of these where the kubelet cannot get its image."""
ON_ITS_WAY = frozenset({"ContainerCreating", "PodInitializing"})
"""A container waits with one of these where nothing is wrong."""


def attempt_of(child: Body) -> int:
    """The attempt that a child is of; 0 where its label does not tell."""
    return _number(child, names.LABEL_ATTEMPT)


def try_of(child: Body) -> int:
    """The try that a Job or pod is of; 0 where its label does not tell."""
    return _number(child, names.LABEL_TRY)


def of_try(children: Iterable[Body], kind: str, try_: int) -> list[Body]:
    """Jobs or pods of one try."""
    return [child for child in children if child["kind"] == kind and try_of(child) == try_]


def _number(child: Body, label: str) -> int:
    text = (child["metadata"].get("labels") or {}).get(label, "")
    return int(text) if text.isdecimal() else 0
