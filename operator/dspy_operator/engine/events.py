"""Kubernetes Events: what people see under `kubectl describe`. Best effort: no pass fails for one."""

from __future__ import annotations

import hashlib
from datetime import timedelta

from dspy_operator.engine.client import AlreadyExists, ApiError, Client, Forbidden, NotFound, Unreachable
from dspy_operator.engine.clock import Clock
from dspy_operator.engine.conditions import timestamp
from dspy_operator.engine.logs import logger
from dspy_operator.engine.metrics import Metrics
from dspy_operator.engine.plan import Body, Event, Ref

SILENCE = timedelta(hours=1)
"""How long the API server keeps an Event by default: a name is free again when we would say it again."""
MESSAGE_BYTES = 1024
"""The API server refuses longer ones."""
_REMEMBERED = 10_000


class Events:
    """Writes each Event once an hour. Its name is made from what it says, so also across a restart.

    Args:
        instance: which operator says it: the pod's name.
    """

    def __init__(self, client: Client, clock: Clock, metrics: Metrics, *, instance: str) -> None:
        self._client = client
        self._clock = clock
        self._metrics = metrics
        self._instance = instance
        self._said: dict[str, float] = {}
        self._log = logger(__name__)

    async def say(self, about: Body, event: Event, *, carefully: bool) -> bool:
        """Write an Event about an object; whether it was written.

        Args:
            carefully: look first whether it was said before this process began, so that a restart writes nothing.
        """
        name = _name(about, event)
        now = self._clock.monotonic()
        if now - self._said.get(name, float("-inf")) < SILENCE.total_seconds():
            return False
        self._forget_old(now)
        try:
            if carefully and await self._was_said(Ref("v1", "Event", about["metadata"]["namespace"], name)):
                self._said[name] = now
                return False
            await self._client.create(self._body(name, about, event))
        except AlreadyExists:
            self._said[name] = now
            return False
        except (ApiError, Unreachable) as error:
            self._log.warning("an Event was not written", reason=event.reason, error=str(error))
            return False
        self._said[name] = now
        self._metrics.events.labels(about["kind"], event.type).inc()
        return True

    async def _was_said(self, ref: Ref) -> bool:
        try:
            await self._client.get(ref)
        except (NotFound, Forbidden):  # without the verb `get` a repeated create tells the same
            return False
        return True

    def _forget_old(self, now: float) -> None:
        if len(self._said) >= _REMEMBERED:
            silence = SILENCE.total_seconds()
            recent = {name: at for name, at in self._said.items() if now - at < silence}
            self._said = recent if len(recent) < _REMEMBERED else {}

    def _body(self, name: str, about: Body, event: Event) -> Body:
        metadata, at = about["metadata"], timestamp(self._clock.now())
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": metadata["namespace"]},
            "involvedObject": {
                "apiVersion": about["apiVersion"],
                "kind": about["kind"],
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
            "type": event.type,
            "reason": event.reason,
            "message": event.message.encode()[:MESSAGE_BYTES].decode(errors="ignore"),
            "source": {"component": "dspy-operator"},
            "reportingComponent": "dspy-operator",
            "reportingInstance": self._instance,
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
        }


def _name(about: Body, event: Event) -> str:
    said = "\0".join((about["metadata"]["uid"], event.type, event.reason, event.message))
    return f"{about['metadata']['name']}.{hashlib.sha256(said.encode()).hexdigest()[:16]}"
