"""Lists everything: before the first look, when all watches are open, then every few minutes, to find what the watches did
not tell.

kopf has two holes that this closes (measured with 1.45): a deletion during a relist is never told, and an event whose
handling failed is not told again. The first list of a watch is such a relist too: what was deleted between our list and
kopf's first one, a pod of an earlier try for instance, would be there for us until the first period is over.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta

from dspy_operator.contract import names
from dspy_operator.engine.cache import owner, version
from dspy_operator.engine.client import ApiError, Client, Forbidden, Gone, Listed, NotFound, Unreachable
from dspy_operator.engine.clock import Clock
from dspy_operator.engine.logs import logger
from dspy_operator.engine.loop import Loop
from dspy_operator.engine.metrics import Metrics
from dspy_operator.engine.plan import Body, Delete, Ref
from dspy_operator.engine.resources import Resource, Resources

OURS = names.LABEL_KIND
"""Label selector of everything that we made: the label's presence."""
_TRY_AGAIN = (1.0, 2.0, 5.0, 10.0)
"""Seconds between two tries of the first list; the last for as long as it takes."""
_COSTLY = frozenset({"Job", "Deployment"})
"""Kinds that cost something while they run, and go when nobody owns them any more, whoever cut the tie."""


class Resync:
    """The lists.

    Args:
        share: 0 to 1, random.
    """

    def __init__(
        self,
        client: Client,
        resources: Resources,
        loop: Loop,
        metrics: Metrics,
        clock: Clock,
        *,
        period: timedelta,
        share: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._resources = resources
        self._loop = loop
        self._metrics = metrics
        self._clock = clock
        self._period = period
        self._share = share
        self._own = {resource.kind: resource.api_version for resource in resources.own}
        self._suspects: set[str] = set()
        self._log = logger(__name__)

    async def fill(self) -> None:
        """Put everything into the cache before anybody decides; waits for as long as that is not possible, and says why."""
        for resource in self._resources:
            listed = await self._list_patiently(resource)
            for body in listed.items:
                self._loop.learn(body, quietly=True)
        self._loop.look_over()

    async def run(self, watched: asyncio.Event) -> None:
        """For ever: every period, give or take 20 %, so that many operators do not list at once.

        Args:
            watched: set when each watch is open, for the first time.
        """
        await watched.wait()
        await self._warned(self.compare())
        while True:
            await asyncio.sleep(self._period.total_seconds() * (0.8 + 0.4 * self._share()))
            await self._warned(self.once())

    async def once(self) -> None:
        """Compare all lists with the cache, repair what differs, and look over all objects.

        Raises:
            ApiError, Unreachable: a list failed; what was compared until then is repaired.
        """
        started = self._clock.monotonic()
        await self.compare()
        await self._remove_orphans()
        self._loop.cache.forget_the_dead()
        self._loop.look_over()
        self._metrics.resync_seconds.observe(self._clock.monotonic() - started)

    async def compare(self) -> None:
        """Compare all lists with the cache and repair what differs.

        Raises:
            ApiError, Unreachable: a list failed; what was compared until then is repaired.
        """
        for resource in self._resources:
            self._compare(resource, await self._list(resource))

    async def _warned(self, listing: Awaitable[None]) -> None:
        try:
            await listing
        except (ApiError, Unreachable) as error:
            self._log.warning("a resync failed; the next one comes in its time", error=str(error))

    async def _list(self, resource: Resource) -> Listed:
        selector = "" if resource in self._resources.own else OURS
        try:
            return await self._client.list(resource, label_selector=selector)
        except Gone:
            return await self._client.list(resource, label_selector=selector)

    async def _list_patiently(self, resource: Resource) -> Listed:
        tries = 0
        while True:
            try:
                return await self._list(resource)
            except (ApiError, Unreachable) as error:
                self._log.warning("cannot start yet, trying again", why=_why(resource, error), tries=tries + 1)
            await asyncio.sleep(_TRY_AGAIN[min(tries, len(_TRY_AGAIN) - 1)])
            tries += 1

    def _compare(self, resource: Resource, listed: Listed) -> None:
        there = set[tuple[str, str]]()
        for body in listed.items:
            there.add((body["metadata"]["namespace"], body["metadata"]["name"]))
            if self._loop.learn(body):
                self._repaired(resource.kind, "missed")
        for body in list(self._loop.cache.all(resource.kind)):
            at = (body["metadata"]["namespace"], body["metadata"]["name"])
            # Newer than the list: it was made while we listed.
            if (
                at not in there
                and version(body) <= listed.resource_version
                and self._loop.lose(body, listed.resource_version)
            ):
                self._log.info("a deletion that the watch did not tell", object=f"{resource.kind} {at[0]}/{at[1]}")
                self._repaired(resource.kind, "ghost")

    def _repaired(self, kind: str, what: str) -> None:
        self._metrics.resync_found.labels(kind, what).inc()

    async def _remove_orphans(self) -> None:
        """Of those that looked so a resync ago too: until then the garbage collector had its chance."""
        orphans = [
            body
            for resource in self._resources.children
            for body in self._loop.cache.all(resource.kind)
            if self._looks_orphaned(body)
        ]
        suspects, self._suspects = self._suspects, {body["metadata"]["uid"] for body in orphans}
        for body in orphans:
            ref, uid = Ref.of(body), body["metadata"]["uid"]
            if uid in suspects and await self._is_orphan(body):
                self._log.info("a child without an owner is deleted", child=f"{ref.kind} {ref.namespace}/{ref.name}")
                if await self._loop.applier.delete(Delete(ref, uid)):
                    self._repaired(ref.kind, "orphan")

    def _looks_orphaned(self, body: Body) -> bool:
        """By the cache: its owner is gone, and it is not one of those that outlive theirs (account, revisions)."""
        of, tie = owner(body), self._tie(body)
        if of is None or of.kind not in self._own or "deletionTimestamp" in body["metadata"]:
            return False
        there = self._loop.cache.get(*of)
        if tie is None:
            return there is None and body["kind"] in _COSTLY
        return there is None or there["metadata"]["uid"] != tie

    async def _is_orphan(self, body: Body) -> bool:
        """By the API server, since a cache may lag."""
        of, tie = owner(body), self._tie(body)
        assert of is not None
        try:
            there = await self._client.get(Ref(self._own[of.kind], *of))
        except NotFound:
            return True
        return tie is not None and there["metadata"]["uid"] != tie

    def _tie(self, body: Body) -> str | None:
        """uid of the object of our kinds that owns this one."""
        for reference in body["metadata"].get("ownerReferences") or ():
            if self._own.get(reference["kind"]) == reference["apiVersion"]:
                return str(reference["uid"])
        return None


def _why(resource: Resource, error: ApiError | Unreachable) -> str:
    match error:
        case NotFound():
            return (
                f"CustomResourceDefinition {resource.crd} is not installed: "
                "`kubectl apply --server-side -f crds/`, or the chart with crds.install=true"
            )
        case Forbidden():
            return f"may not list {resource.plural}: does the operator's ClusterRole fit its version? ({error.message})"
        case _:
            return str(error)
