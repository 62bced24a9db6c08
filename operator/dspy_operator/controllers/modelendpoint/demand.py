"""How many pods the runs need, and how many there should be: up at once, down after a delay. Pure.

A run that has its slots (`status.admission`) and has not ended claims them, whether its pod is up or not: so the model is
loaded before the first call, and stays until the last. What is remembered between two looks is in the endpoint's status.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from dspy_operator.api.fields import parse_duration
from dspy_operator.api.modelendpoint import ModelEndpointSpec
from dspy_operator.contract.resolve import DEFAULT_PARALLEL

DEFAULT_SCALE_DOWN_DELAY = timedelta(minutes=5)
"""Longer than people need between two runs, shorter than what a pull of a large model takes: about what KEDA waits (300 s)."""
DEFAULT_REPLICAS = 1


@dataclass(frozen=True)
class Claim:
    """What one active run holds of an endpoint."""

    run: str
    """`namespace/name`."""
    slots: int


def claims_on(endpoint: str, runs: Iterable[Mapping[str, Any]]) -> tuple[Claim, ...]:
    """What the active ones among these runs hold of an endpoint, ordered by run.

    Args:
        endpoint: `namespace/name`.
    """
    found = []
    for run in runs:
        status = run.get("status") or {}
        slots = ((status.get("admission") or {}).get("slots") or {}).get(endpoint, 0)
        if slots > 0 and not _ended(status) and "deletionTimestamp" not in run["metadata"]:
            found.append(Claim(f"{run['metadata']['namespace']}/{run['metadata']['name']}", slots))
    return tuple(sorted(found, key=lambda claim: claim.run))


def _ended(status: Mapping[str, Any]) -> bool:
    """Of the status that holds the admission, whatever generation it is about: an edit must not wake an ended run's claim."""
    return any(
        condition["type"] in ("Complete", "Failed") and condition["status"] == "True"
        for condition in status.get("conditions", ())
    )


@dataclass(frozen=True)
class Demand:
    """How many pods there should be, and what has to be remembered of it."""

    replicas: int
    idle_since: datetime | None = None
    """Since when fewer would do."""
    changed_from: int | None = None
    """How many there should have been before, where that changed."""
    why: str = ""
    """Of the change."""
    look_again: timedelta | None = None


def most_replicas(spec: ModelEndpointSpec) -> int:
    """How many pods there can ever be, as the spec stands."""
    if spec.scaling is not None:
        return spec.scaling.max_replicas
    return DEFAULT_REPLICAS if spec.replicas is None else spec.replicas


def needed(spec: ModelEndpointSpec, claims: Iterable[Claim]) -> int:
    """How many pods the claims need, between what `scaling` allows."""
    assert spec.scaling is not None
    parallel = (spec.provider.ollama.parallel if spec.provider.ollama else None) or DEFAULT_PARALLEL
    slots = sum(claim.slots for claim in claims)
    return min(max(-(-slots // parallel), spec.scaling.min_replicas or 0), spec.scaling.max_replicas)


def demand(
    spec: ModelEndpointSpec,
    claims: tuple[Claim, ...],
    *,
    before: int | None,
    idle_since: datetime | None,
    now: datetime,
) -> Demand:
    """How many pods there should be.

    Args:
        before: how many there should have been until now; None for a new endpoint.
        idle_since: as it was remembered.
    """
    if spec.scaling is None:
        wanted = DEFAULT_REPLICAS if spec.replicas is None else spec.replicas
        return _settled(wanted, before, f"spec.replicas is {wanted}")
    need = needed(spec, claims)
    if before is None or before <= need:
        return _settled(need, before, _why(need, spec, claims))
    # A limit that was lowered is no idle pod: it holds at once.
    present = min(before, spec.scaling.max_replicas)
    if present <= need:
        return _settled(present, before, f"spec.scaling.maxReplicas is {spec.scaling.max_replicas}")
    delay = spec.scaling.scale_down_delay
    wait = parse_duration(delay) if delay is not None else DEFAULT_SCALE_DOWN_DELAY
    since = min(idle_since or now, now)
    if now - since >= wait:
        return _settled(need, before, f"{_why(need, spec, claims)} for {_shown(wait)}")
    changed = before if present != before else None
    why = f"spec.scaling.maxReplicas is {spec.scaling.max_replicas}" if changed is not None else ""
    return Demand(present, since, changed, why, wait - (now - since))


def _settled(replicas: int, before: int | None, why: str) -> Demand:
    changed = before is not None and before != replicas
    return Demand(replicas, changed_from=before if changed else None, why=why if changed else "")


def _why(need: int, spec: ModelEndpointSpec, claims: tuple[Claim, ...]) -> str:
    assert spec.scaling is not None
    if not claims:
        return f"spec.scaling.minReplicas is {need}" if need else "no run needs it"
    slots = sum(claim.slots for claim in claims)
    more = f" and {len(claims) - 1} more" if len(claims) > 1 else ""
    return f"{slots} slot{'s' if slots > 1 else ''} for {claims[0].run}{more}"


def _shown(wait: timedelta) -> str:
    seconds = int(wait.total_seconds())
    return f"{seconds // 60}m" if seconds % 60 == 0 and seconds else f"{seconds}s"
