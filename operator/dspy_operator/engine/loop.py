"""The loop: a change wakes keys, a worker looks at a key, its controller decides, the plan is carried out.

Every change wakes its key and whoever is tied to it, our own writes too: a key that wrote something is looked at once
more, and rests when a look finds nothing to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from dspy_operator.engine.apply import Applier, Busy
from dspy_operator.engine.cache import Cache, Change, is_leaving, owner
from dspy_operator.engine.client import ApiError, Client, Conflict, Forbidden, NotFound, TooMany, Unreachable
from dspy_operator.engine.clock import Clock
from dspy_operator.engine.events import Events
from dspy_operator.engine.logs import about, logger
from dspy_operator.engine.metrics import Metrics
from dspy_operator.engine.plan import Body, Controller, Foreign, Key, Plan, Ref
from dspy_operator.engine.queue import Backoff, Queue
from dspy_operator.engine.references import References
from dspy_operator.engine.status import StatusWriter
from dspy_operator.engine.world import CacheWorld, ForeignMemory

PASS_SECONDS = 60.0
"""A pass is a few requests; one that takes longer is stuck, and must not keep a worker."""
FOREIGN_AGAIN = timedelta(seconds=60)
"""Nobody watches somebody else's object: whether the name is free is looked at this often."""
RESTLESS_PASSES = 20
"""Passes in a row that wrote something before a key is held back. The busiest honest life, a run's, writes 15 times."""
BUSY_HOLD = timedelta(seconds=1)
"""Of a restless key that others keep changing, an endpoint at which runs come and go: one write a second tells enough."""
WAR_HOLD = Backoff(first=timedelta(seconds=10))
"""Of a restless key that nobody but its own passes wakes."""

_looked_at: ContextVar[Key | None] = ContextVar("looked_at", default=None)
"""Whose pass this is."""


class Result(StrEnum):
    """How a pass ended."""

    QUIET = "quiet"
    WROTE = "wrote"
    FOREIGN = "foreign"
    CONFLICT = "conflict"
    BUSY = "busy"
    ERROR = "error"


@dataclass
class _Tally:
    """Of one pass, also of one that failed."""

    woken_by_others: bool
    writes: int = 0


class Loop:
    """All controllers, one queue, some workers.

    A controller may have `shown(body) -> Any` besides: what others look at of an object of its kind. While that stays the
    same, an object's changes wake nobody who is tied to it by references.

    Args:
        instance: this operator's name in Events.
    """

    def __init__(
        self,
        client: Client,
        controllers: Iterable[Controller],
        *,
        own: Iterable[str],
        clock: Clock,
        metrics: Metrics,
        instance: str = "",
        backoff: Backoff | None = None,
    ) -> None:
        self.cache = Cache(clock)
        self.queue = Queue(clock, backoff=backoff)
        self._clock = clock
        self._metrics = metrics
        self._controllers: Mapping[str, Controller] = {controller.kind: controller for controller in controllers}
        self._own = frozenset(own)
        self._references = References()
        self._foreign = ForeignMemory(clock, seconds=1.5 * FOREIGN_AGAIN.total_seconds())
        self._client = client
        self.world = CacheWorld(self.cache, self._references, clock, self._read, self._foreign)
        self.applier = Applier(client, self.cache, metrics, learned=self.learn, lost=self.lose)
        self._statuses = StatusWriter(client, self.cache, metrics, learned=self.learn, lost=self.lose)
        self._events = Events(client, clock, metrics, instance=instance)
        self._singletons: set[Key] = set()
        self._restless: dict[Key, int] = {}
        self._woken_by_others: set[Key] = set()
        self._workers: set[asyncio.Task[None]] = set()
        self._passing: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._log = logger(__name__)

    # --- what is true -----------------------------------------------------------------------------------------------

    def learn(self, body: Body, *, quietly: bool = False) -> bool:
        """An object as somebody saw it; whether that was news.

        Args:
            quietly: wake nobody; while the cache is filled for the first time.
        """
        change = self.cache.put(body)
        if change is not None:
            self._note(change, quietly=quietly)
        return change is not None

    def lose(self, body: Body, at: int | None = None) -> bool:
        """An object is gone; whether that was news.

        Args:
            at: the resourceVersion by which it was, where that is not `body`'s own.
        """
        change = self.cache.remove(body, at=at)
        if change is not None:
            self._note(change, quietly=False)
        return change is not None

    def look_over(self) -> None:
        """Look at every object of our kinds once more, when nothing else is to do."""
        for kind in self._own & self._controllers.keys():
            for body in self.cache.all(kind):
                self.queue.add(_key(body), background=True)

    def _note(self, change: Change, *, quietly: bool) -> None:
        key, woken = _key(change.body), set[Key]()
        self._metrics.cached.labels(key.kind).set(self.cache.count(key.kind))
        if key.kind in self._own:
            woken.add(key)
            ties = {*self._references.named_by(key), *self._references.referrers(key)}
            self._references.set(key, self._named_by(change.after))
            ties |= self._references.named_by(key)
            if self._shows_news(change):
                woken |= ties
            if change.after is None:
                woken |= self._singletons  # a singleton sees all objects, and the one that is gone cannot wake it
        woken |= {of for body in (change.before, change.after) if body is not None and (of := owner(body)) is not None}
        if not quietly:
            for other in woken:
                self._wake(other)

    def _shows_news(self, change: Change) -> bool:
        """Whether those who are tied to an object see a difference, as far as its controller says what they look at.

        Else each of a thousand runs that starts would have the thousand others looked at, for its endpoint's status
        counts them.
        """
        shown = getattr(self._controllers.get(change.body["kind"]), "shown", None)
        if shown is None or change.before is None or change.after is None:
            return True
        try:
            return bool(shown(change.before) != shown(change.after))
        except Exception:  # of a room; looking once too often is harmless
            self._log.exception("what others look at could not be read", object=str(_key(change.body)))
            return True

    def _named_by(self, body: Body | None) -> Iterable[Key]:
        controller = self._controllers.get(body["kind"]) if body is not None else None
        if body is None or controller is None:
            return ()
        try:
            return tuple(controller.references(body))
        except Exception:  # of a room; its object is looked at and says what is wrong, and others' objects go on
            self._log.exception("references could not be read", object=str(_key(body)))
            return ()

    def _wake(self, key: Key) -> None:
        if key.kind in self._controllers:
            if key.kind not in self._own:
                self._singletons.add(key)
            if key != _looked_at.get():
                self._woken_by_others.add(key)
            self.queue.add(key)

    async def _read(self, ref: Ref) -> Body | None:
        try:
            found = await self._client.get(ref)
        except NotFound:
            return None
        if self.cache.get(ref.kind, ref.namespace, ref.name) is not None:
            # What one room acts on, another must not see later: a run that ended by what it read wakes its program, which
            # looks here for the revision, and is woken by nothing else when the watch brings it.
            self.learn(found)
        return found

    # --- workers ----------------------------------------------------------------------------------------------------

    def start(self, workers: int) -> None:
        """Begin to work."""
        for number in range(workers):
            task = asyncio.create_task(self._work(), name=f"worker {number}")
            self._workers.add(task)

    async def stop(self, *, grace_seconds: float = 2.0) -> None:
        """Take no new keys; passes that are going on may end within the grace, then they are cut."""
        self._stopping = True
        for task in self._workers - self._passing:
            task.cancel()
        if self._workers:
            await asyncio.wait(self._workers, timeout=grace_seconds)
        for task in self._workers:
            task.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    async def _work(self) -> None:
        me = asyncio.current_task()
        assert me is not None
        while not self._stopping:
            key, waited_seconds = await self.queue.get()
            self._metrics.queue_wait.observe(waited_seconds)
            self._passing.add(me)
            try:
                await self.look(key)
            finally:
                self._passing.discard(me)
                self.queue.done(key)

    # --- one pass ---------------------------------------------------------------------------------------------------

    async def look(self, key: Key) -> Result | None:
        """One pass over one key; None where there is nothing to look at. Raises nothing but cancellation."""
        body = self.cache.get(*key) if key.kind in self._own else None
        if key.kind in self._own and (body is None or is_leaving(body)):
            self._forget(key)
            return None
        started, tally = self._clock.monotonic(), _Tally(woken_by_others=key in self._woken_by_others)
        self._woken_by_others.discard(key)
        token = _looked_at.set(key)
        try:
            with about(key, body):
                result = await self._guarded_pass(key, body, tally)
        finally:
            _looked_at.reset(token)
        self._metrics.passes.labels(key.kind, result.value).inc()
        self._metrics.pass_seconds.labels(key.kind).observe(self._clock.monotonic() - started)
        self._hold_if_restless(key, tally)
        return result

    async def _guarded_pass(self, key: Key, body: Body | None, tally: _Tally) -> Result:
        """A pass, and what its failure means for the key."""
        try:
            async with asyncio.timeout(PASS_SECONDS):
                return await self._pass(key, body, tally)
        except Foreign as error:
            self._log.warning("a needed name is taken", foreign=str(error))
            self._metrics.foreign.labels(key.kind).inc()
            self.queue.add(key)  # `decide` knows it now
            return Result.FOREIGN
        except Conflict as error:
            self._log.info("decided about an old version, looking again", error=str(error))
            self._retry(key)
            return Result.CONFLICT
        except Busy as error:
            self._log.info("waiting for a name", error=str(error))
            self._retry(key)
            return Result.BUSY
        except TooMany as error:
            self._log.warning("the API server asks us to wait", seconds=error.retry_after_seconds)
            self._metrics.requeues.labels(key.kind, "held").inc()
            self.queue.hold(key, timedelta(seconds=error.retry_after_seconds))
            return Result.BUSY
        except Forbidden as error:
            if error.terminating:
                self._log.info("the namespace is being deleted")
                self._retry(key)
                return Result.BUSY
            self._log.error("not allowed: does the operator's ClusterRole fit its version?", error=str(error))
        except NotFound as error:
            self._log.info("what was written to is gone, its namespace perhaps", error=str(error))
            self._retry(key)
            return Result.BUSY
        except (ApiError, Unreachable, TimeoutError) as error:
            self._log.warning("a pass failed and comes again", error=f"{type(error).__name__}: {error}")
        except Exception:  # a bug in one room, at one object: it must not stop the others
            self._log.exception("a pass failed by a bug and comes again")
        self._retry(key)
        return Result.ERROR

    async def _pass(self, key: Key, body: Body | None, tally: _Tally) -> Result:
        plan = await self._controllers[key.kind].reconcile(key, self.world)
        try:
            foreign = await self._carry_out(key, body, plan, tally)
        finally:
            for other in plan.wake:  # also where a write failed: the controller may plan this wake only once
                self._wake(other)
        self.queue.succeeded(key)
        again = plan.requeue_after
        if self._foreign.of(key):
            again = min(again or FOREIGN_AGAIN, FOREIGN_AGAIN)
        if again is not None:
            self._metrics.requeues.labels(key.kind, "later").inc()
            self.queue.add_after(key, again)
        if foreign:
            return Result.FOREIGN
        return Result.WROTE if tally.writes else Result.QUIET

    async def _carry_out(self, key: Key, body: Body | None, plan: Plan, tally: _Tally) -> bool:
        """Whether it was cut short by a name that `decide` knows to be somebody else's.

        Raises:
            Foreign: a name that `decide` does not know of yet.
        """
        foreign = False
        free: list[Ref] = []
        known = self._foreign.of(key)
        try:
            for guarded in plan.guarded:
                tally.writes += await self.applier.guarded(guarded)
                free.append(Ref.of(guarded.body))
            for child in plan.children:
                tally.writes += await self.applier.child(child)
                free.append(Ref.of(child))
            for new in plan.creates:
                tally.writes += await self.applier.create(new, carefully=Ref.of(new) in known)
                free.append(Ref.of(new))
            for unwanted in plan.deletes:
                tally.writes += await self.applier.delete(unwanted)
        except Foreign as error:
            if self._foreign.found(key, error.ref):
                raise
            foreign = True
        finally:
            if self._foreign.free(key, free):
                self.queue.add(key)
        if body is not None:
            is_transition = tally.writes > 0 or (plan.status is not None and self._statuses.differs(body, plan.status))
            for event in plan.events:
                tally.writes += await self._events.say(body, event, carefully=not is_transition)
            if plan.status is not None:
                tally.writes += await self._statuses.write(body, plan.status)
        return foreign

    def _retry(self, key: Key) -> None:
        self._metrics.requeues.labels(key.kind, "backoff").inc()
        self.queue.retry(key)

    def _hold_if_restless(self, key: Key, tally: _Tally) -> None:
        """A key that writes in every pass is busy, or at war with another writer or itself: slowed, not stopped."""
        if not tally.writes:
            self._restless.pop(key, None)
            return
        passes = self._restless[key] = self._restless.get(key, 0) + 1
        if passes < RESTLESS_PASSES:
            return
        delay = BUSY_HOLD
        if not tally.woken_by_others:
            delay = WAR_HOLD.delay(passes - RESTLESS_PASSES + 1, 1.0)
            self._log.error("every pass writes something; held back", object=str(key), seconds=delay.seconds)
            self._metrics.unsettled.labels(key.kind).inc()
        self._metrics.requeues.labels(key.kind, "held").inc()
        self.queue.hold(key, delay)

    def _forget(self, key: Key) -> None:
        self.queue.forget(key)
        self._foreign.forget(key)
        self._restless.pop(key, None)
        self._woken_by_others.discard(key)


def _key(body: Body) -> Key:
    metadata = body["metadata"]
    return Key(body["kind"], metadata.get("namespace", ""), metadata["name"])
