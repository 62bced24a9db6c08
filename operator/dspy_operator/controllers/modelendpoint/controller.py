"""Gathers what `decide` needs of an endpoint and hands its Plan to the engine."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from dspy_operator.contract import names
from dspy_operator.controllers.modelendpoint import replica
from dspy_operator.controllers.modelendpoint.decide import Seen, decide
from dspy_operator.controllers.modelendpoint.demand import Claim, claims_on
from dspy_operator.controllers.shown import shown
from dspy_operator.engine.plan import Body, Key, Plan, Ref, Settings, World

_OWN = frozenset({"activeRuns", "desiredReplicas", "lastScale", "replicas", "readyReplicas"})
"""Of the status, for people: it changes with every run that starts or ends."""


class ModelEndpointController:
    """The room of the kind ModelEndpoint."""

    kind = "ModelEndpoint"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._told: dict[Key, datetime] = {}
        """When the status last told how far a pull is. Kept here, since a time in the status would be a write of its own."""

    def references(self, body: Body) -> Iterable[Key]:
        """None: runs and programs name endpoints."""
        return ()

    def shown(self, body: Body) -> Any:
        """What runs, programs and endpoints look at; the engine asks."""
        return shown(body, _OWN)

    async def reconcile(self, key: Key, world: World) -> Plan:
        """One decision."""
        body = world.get(*key)
        if body is None:
            self._told.pop(key, None)
            return Plan()
        now = world.now()
        children = tuple(world.children(key))
        seen = Seen(
            body=body,
            children=children,
            claims=_claims(key, world),
            gone=await _gone(key, children, world),
            foreign=tuple(world.foreign(key)),
            told_at=self._told.setdefault(key, now) if _tells_pull(body) else None,
        )
        plan = decide(seen, self._settings, now)
        self._remember(key, body, plan, now)
        return plan

    def _remember(self, key: Key, body: Body, plan: Plan, now: datetime) -> None:
        before, after = (body.get("status") or {}).get("pull"), (plan.status or {}).get("pull")
        if after is None:
            self._told.pop(key, None)
        elif after != before:
            self._told[key] = now


def _tells_pull(body: Body) -> bool:
    return "pull" in (body.get("status") or {})


def _claims(key: Key, world: World) -> tuple[Claim, ...]:
    runs = (world.get(*other) for other in world.referrers(key) if other.kind == "OptimizationRun")
    return claims_on(f"{key.namespace}/{key.name}", (run for run in runs if run is not None))


async def _gone(key: Key, children: tuple[Body, ...], world: World) -> frozenset[str]:
    """Pods that have a key in the channel and are no more.

    The API server is asked: the key of a new pod may reach the cache before the pod does, and its loader, which has
    nothing new to say, would not write it again for minutes.
    """
    channel = next(
        (
            body
            for body in children
            if body["kind"] == "ConfigMap" and body["metadata"]["name"] == names.endpoint_channel(key.name)
        ),
        None,
    )
    known = {body["metadata"]["name"] for body in children if body["kind"] == "Pod"}
    unknown = [pod for pod in replica.pods_in(channel) if pod not in known]
    return frozenset([pod for pod in unknown if await world.read(Ref("v1", "Pod", key.namespace, pod)) is None])
