"""What the operator wrote, as the API server counted it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tests.controlplane.audit import AuditLog, Request

NOT_COUNTED = frozenset({"delete", "deletecollection"})
"""Of "writes per run": neither deletes nor Events (contract.md)."""


def counted(writes: Sequence[Request]) -> list[Request]:
    """The writes that the promise of "writes per run" is about; refused ones count too."""
    return [write for write in writes if write.verb not in NOT_COUNTED and write.resource != "events"]


def table(writes: Sequence[Request]) -> str:
    """verb resource/subresource: count, the most frequent first."""
    counts = Counter(
        f"{write.verb} {write.resource}{f'/{write.subresource}' if write.subresource else ''} {write.code}"
        for write in writes
    )
    return "\n".join(f"{count:5}  {what}" for what, count in counts.most_common())


def jobs_created(audit: AuditLog, namespace: str, *, since: int = 0) -> Counter[str]:
    """Job name -> how often the API server made it."""
    return Counter(
        write.name
        for write in audit.writes(since=since, resource="jobs")
        if write.verb == "create" and write.code == 201 and write.namespace == namespace
    )
