"""`<program>-current`: what applications mount, and the truth about what is promoted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dspy_operator.contract import names
from dspy_operator.controllers.promptprogram.revisions import Revision, digest_of
from dspy_operator.controllers.runnerpod import Owner
from dspy_operator.engine.plan import Body


@dataclass(frozen=True)
class Promoted:
    """The revision that passed the gate last."""

    name: str
    digest: str
    run: str
    score: str
    """On the test rows, 0 to 100; "" where the run did not say."""
    at: str
    """When the run that proved it ended: the one moment that every pass sees alike, however often it is written."""

    def document(self) -> dict[str, Any]:
        """For `status.promotedRevision`."""
        found = {"name": self.name, "run": self.run, "score": self.score, "promotedAt": self.at}
        return {key: value for key, value in found.items() if value}


@dataclass(frozen=True)
class Current:
    """What `<program>-current` says."""

    revision: str
    digest: str
    pinned: bool
    promoted: Promoted | None
    files: Mapping[str, str]

    @property
    def is_whole(self) -> bool:
        """Whether its files still are what it says, so that a lost revision can be made from them."""
        return digest_of(self.files) == self.digest


def read(body: Body | None) -> Current | None:
    """What it says; None where there is none, or it says nothing."""
    if body is None:
        return None
    notes = body["metadata"].get("annotations") or {}
    if not notes.get(names.ANNOTATION_REVISION):
        return None
    return Current(
        revision=notes[names.ANNOTATION_REVISION],
        digest=notes.get(names.ANNOTATION_DIGEST, ""),
        pinned=notes.get(names.ANNOTATION_PINNED) == "true",
        promoted=_promoted(notes),
        files=body.get("data") or {},
    )


def _promoted(notes: Mapping[str, str]) -> Promoted | None:
    if not notes.get(names.ANNOTATION_PROMOTED):
        return None
    return Promoted(
        name=notes[names.ANNOTATION_PROMOTED],
        digest=notes.get(names.ANNOTATION_PROMOTED_DIGEST, ""),
        run=notes.get(names.ANNOTATION_PROMOTED_RUN, ""),
        score=notes.get(names.ANNOTATION_PROMOTED_SCORE, ""),
        at=notes.get(names.ANNOTATION_PROMOTED_AT, ""),
    )


def promoted_in(status: Mapping[str, Any], digest: str) -> Promoted | None:
    """What the status remembers, for the case that somebody deleted `<program>-current`.

    Args:
        digest: of the revision that the status names.
    """
    found = status.get("promotedRevision") or {}
    if not found.get("name"):
        return None
    return Promoted(found["name"], digest, found.get("run", ""), found.get("score", ""), found.get("promotedAt", ""))


def config_map(
    owner: Owner, served: Revision, promoted: Promoted | None, *, pinned: bool, goes_with_owner: bool
) -> Body:
    """The ConfigMap as it should be."""
    metadata = owner.metadata(names.program_current(owner.name), names.Component.CURRENT)
    if not goes_with_owner:
        del metadata["ownerReferences"]
    notes = {
        names.ANNOTATION_REVISION: served.name,
        names.ANNOTATION_DIGEST: served.digest,
        names.ANNOTATION_PINNED: "true" if pinned else "false",
    }
    if promoted is not None:
        notes |= {
            names.ANNOTATION_PROMOTED: promoted.name,
            names.ANNOTATION_PROMOTED_DIGEST: promoted.digest,
            names.ANNOTATION_PROMOTED_RUN: promoted.run,
            names.ANNOTATION_PROMOTED_SCORE: promoted.score,
            names.ANNOTATION_PROMOTED_AT: promoted.at,
        }
    metadata["annotations"] = notes
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(served.files)}
