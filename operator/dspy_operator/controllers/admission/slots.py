"""How many requests an endpoint answers at a time, and how many of these one run takes."""

from __future__ import annotations

from collections.abc import Mapping

from dspy_operator.api.modelendpoint import ModelEndpointSpec
from dspy_operator.contract.resolve import DEFAULT_PARALLEL


def capacity(spec: ModelEndpointSpec) -> int | None:
    """Slots of an endpoint: min(limits.concurrency, parallel x most replicas); None where nothing says so."""
    limit = spec.limits.concurrency if spec.limits else None
    ollama = spec.provider.ollama
    if ollama is None:
        return limit
    most = spec.scaling.max_replicas if spec.scaling else 1 if spec.replicas is None else spec.replicas
    served = (ollama.parallel or DEFAULT_PARALLEL) * most
    return served if limit is None else min(served, limit)


def wanted(concurrency: int, capacities: Mapping[str, int | None]) -> dict[str, int]:
    """What a run asks for: min(concurrency, slots) of each endpoint, at least one.

    Args:
        capacities: `namespace/name` -> its slots, None without a limit.
    """
    return {
        endpoint: concurrency if slots is None else max(1, min(concurrency, slots))
        for endpoint, slots in capacities.items()
    }
