"""Writes a status where it differs in meaning, over exactly the version that was decided about."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from dspy_operator.engine.cache import FOR_EVER, Cache, version
from dspy_operator.engine.client import Client, Conflict, NotFound
from dspy_operator.engine.logs import logger
from dspy_operator.engine.metrics import Metrics
from dspy_operator.engine.plan import Body, Ref
from dspy_operator.engine.subset import difference

STATUS_BYTES = 16 * 1024
"""A status is read whole by every list and watch of its kind."""


class TooLarge(Exception):
    """A status over STATUS_BYTES: a bug of the controller, whose lists must be bounded."""


class StatusWriter:
    """The one writer of statuses.

    Args:
        learned: is told every object that an answer showed.
        lost: is told every object that an answer showed to be gone.
    """

    def __init__(
        self,
        client: Client,
        cache: Cache,
        metrics: Metrics,
        *,
        learned: Callable[[Body], object],
        lost: Callable[[Body, int], object],
    ) -> None:
        self._client = client
        self._cache = cache
        self._metrics = metrics
        self._learned = learned
        self._lost = lost
        self._pruned: dict[Ref, tuple[Any, Any]] = {}
        """What was sent and what the API server kept of it, where that differs."""
        self._log = logger(__name__)

    def differs(self, body: Body, status: Mapping[str, Any]) -> bool:
        """Whether the object says something else than this status."""
        wanted, live = _without_none(status), body.get("status") or {}
        return wanted != live and self._pruned.get(Ref.of(body)) != (wanted, live)

    async def write(self, body: Body, status: Mapping[str, Any]) -> bool:
        """Make the status be this one; whether something was written.

        Args:
            body: the object as it was decided about.
            status: all of it; keys that are None are left out.
        Raises:
            Conflict: the object changed since; the cache knows its newest version.
            TooLarge: nobody could read it.
        """
        if not self.differs(body, status):
            return False
        wanted, ref = _without_none(status), Ref.of(body)
        size = len(json.dumps(wanted, ensure_ascii=False, separators=(",", ":")).encode())
        if size > STATUS_BYTES:
            raise TooLarge(
                f"the status of {ref.kind} {ref.namespace}/{ref.name} has {size} bytes, {STATUS_BYTES} allowed"
            )
        newest = self._cache.get(ref.kind, ref.namespace, ref.name)
        if newest is not None and version(newest) != version(body):
            raise Conflict(409, "Conflict", "the object changed while it was decided about")  # no need to ask
        try:
            answer = await self._client.replace_status({**body, "status": wanted})
        except Conflict:
            await self._catch_up(body, ref)
            raise
        except NotFound:
            await self._catch_up(body, ref)
            return False
        self._metrics.status_writes.labels(ref.kind).inc()
        kept = answer.get("status") or {}
        if kept == wanted:
            self._pruned.pop(ref, None)
        else:
            self._pruned[ref] = (wanted, kept)
            self._metrics.status_pruned.labels(ref.kind).inc()
            self._log.error(
                "the API server did not keep the whole status: are the CRDs of this operator's version installed?",
                field=difference(wanted, kept),
            )
        self._learned(answer)
        return True

    async def _catch_up(self, body: Body, ref: Ref) -> None:
        """Not left to the watch: it may be deaf, and then the key would fail for ever."""
        try:
            self._learned(await self._client.get(ref))
        except NotFound:
            self._lost(body, FOR_EVER)


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_without_none(item) for item in value]
    return value
