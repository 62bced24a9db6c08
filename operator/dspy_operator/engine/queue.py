"""Which object is looked at next: each key at most once in it, never twice at a time, no namespace before the others.

Two lanes: what changed goes ahead of what is only looked over (a start, a resync), so that an edit is answered within
a moment also while thousands of finished runs are checked.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from dspy_operator.engine.clock import Clock
from dspy_operator.engine.plan import Key

Alarm = Callable[[float, Callable[[], None]], object]
"""Call something in so many seconds, like asyncio's `call_later`."""


@dataclass(frozen=True)
class Backoff:
    """How long a key waits after its n-th failure in a row: doubled each time, the same span full of jitter.

    Jitter is 50 to 100 % of the span: full jitter could retry at once, and what fails is most often somebody else's
    outage.
    """

    first: timedelta = timedelta(milliseconds=200)
    longest: timedelta = timedelta(minutes=5)

    def delay(self, failures: int, share: float) -> timedelta:
        """Of the n-th failure, n >= 1.

        Args:
            failures: in a row.
            share: 0 to 1, random.
        """
        doubled = self.first * (1 << min(failures - 1, 30))
        span = min(self.longest, doubled)
        return span * (0.5 + share / 2)


def _call_later(seconds: float, call: Callable[[], None]) -> object:
    return asyncio.get_running_loop().call_later(seconds, call)


class _Lane:
    """Keys by namespace; namespaces take turns."""

    def __init__(self) -> None:
        self._namespaces: dict[str, OrderedDict[Key, float]] = {}
        self._turns: deque[str] = deque()

    def __contains__(self, key: Key) -> bool:
        return key in self._namespaces.get(key.namespace, ())

    def push(self, key: Key, since: float) -> None:
        if key.namespace not in self._namespaces:
            self._namespaces[key.namespace] = OrderedDict()
            self._turns.append(key.namespace)
        self._namespaces[key.namespace][key] = since

    def pop(self) -> tuple[Key, float] | None:
        if not self._turns:
            return None
        namespace = self._turns[0]
        key, since = self._namespaces[namespace].popitem(last=False)
        self._turns.rotate(-1)
        self._drop_if_empty(namespace)
        return key, since

    def discard(self, key: Key) -> float | None:
        keys = self._namespaces.get(key.namespace)
        if keys is None or key not in keys:
            return None
        since = keys.pop(key)
        self._drop_if_empty(key.namespace)
        return since

    def _drop_if_empty(self, namespace: str) -> None:
        if not self._namespaces[namespace]:
            del self._namespaces[namespace]
            self._turns.remove(namespace)

    def __len__(self) -> int:
        return sum(map(len, self._namespaces.values()))

    def oldest(self) -> float | None:
        """Keys of a namespace are in the order they came."""
        return min((next(iter(keys.values())) for keys in self._namespaces.values()), default=None)


class Queue:
    """Of keys, for one event loop."""

    def __init__(
        self,
        clock: Clock,
        *,
        backoff: Backoff | None = None,
        share: Callable[[], float] = random.random,
        alarm: Alarm = _call_later,
    ) -> None:
        self._clock = clock
        self._backoff = backoff or Backoff()
        self._share = share
        self._alarm = alarm
        self._front, self._back = _Lane(), _Lane()
        self._running: dict[Key, float] = {}
        self._again: dict[Key, tuple[float, bool]] = {}
        """Woken while running: since when, and whether only to be looked over."""
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []
        self._armed_for = float("inf")
        self._held: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()

    # --- waking -----------------------------------------------------------------------------------------------------

    def add(self, key: Key, *, background: bool = False) -> None:
        """Look at a key as soon as there is a worker; after it is done, where it is being looked at."""
        now = self._clock.monotonic()
        if self._held.get(key, 0.0) > now:
            self._wake_at(key, self._held[key])
        elif key in self._running:
            since, only_over = self._again.get(key, (now, True))
            self._again[key] = (since, only_over and background)
        elif key in self._front or (background and key in self._back):
            return
        else:
            since_before = self._back.discard(key)
            lane = self._back if background else self._front
            lane.push(key, now if since_before is None else since_before)
            self._call_a_worker()

    def add_after(self, key: Key, delay: timedelta) -> None:
        """Look at a key again when nothing woke it before; a later call replaces an earlier one."""
        self._due.pop(key, None)
        self._wake_at(key, self._clock.monotonic() + delay.total_seconds())

    def retry(self, key: Key) -> timedelta:
        """A look failed: again after a growing delay, or when something wakes the key before. Tells the delay."""
        self._failures[key] = self._failures.get(key, 0) + 1
        delay = self._backoff.delay(self._failures[key], self._share())
        self.add_after(key, delay)
        return delay

    def hold(self, key: Key, delay: timedelta) -> None:
        """Look at a key again after a delay, and not before, whatever wakes it: the server asked for it, or we loop."""
        self._held[key] = self._clock.monotonic() + delay.total_seconds()
        self._wake_at(key, self._held[key])

    def succeeded(self, key: Key) -> None:
        """The next failure is a first one again."""
        self._failures.pop(key, None)

    def forget(self, key: Key) -> None:
        """The object is gone: nothing waits for it any more."""
        for memory in (self._due, self._failures, self._held, self._again):
            memory.pop(key, None)
        self._front.discard(key)
        self._back.discard(key)

    # --- working ----------------------------------------------------------------------------------------------------

    async def get(self) -> tuple[Key, float]:
        """The next key, and how many seconds it waited; `done` must follow."""
        while (taken := self.take()) is None:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._call_a_worker()  # the call was for us, and somebody must come
                raise
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
        return taken

    def take(self) -> tuple[Key, float] | None:
        """The next key that waits, if one does."""
        popped = self._front.pop() or self._back.pop()
        if popped is None:
            return None
        key, since = popped
        now = self._clock.monotonic()
        self._running[key] = now
        self._due.pop(key, None)
        self._held.pop(key, None)
        return key, now - since

    def done(self, key: Key) -> None:
        """The look is over; if the key was woken meanwhile, it is looked at again."""
        del self._running[key]
        if key in self._again:
            _, background = self._again.pop(key)
            self.add(key, background=background)

    def tick(self) -> None:
        """Move to the lanes what is due; called by the alarm."""
        self._armed_for = float("inf")
        now = self._clock.monotonic()
        while self._heap and self._heap[0][0] <= now:
            due, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                del self._due[key]
                if self._held.get(key, 0.0) <= now:
                    self._held.pop(key, None)
                self.add(key)
        self._arm()

    # --- health -----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Keys that could be looked at now."""
        return len(self._front) + len(self._back)

    def oldest_seconds(self) -> float:
        """How long the longest-waiting key has waited for a worker; 0 if none waits."""
        waiting = [since for since in (self._front.oldest(), self._back.oldest()) if since is not None]
        return self._clock.monotonic() - min(waiting) if waiting else 0.0

    def longest_run_seconds(self) -> float:
        """How long the longest look has lasted that is still going on."""
        return self._clock.monotonic() - min(self._running.values()) if self._running else 0.0

    @property
    def idle(self) -> bool:
        """Nothing waits for a worker and none works; timers may be pending."""
        return not len(self) and not self._running

    # ----------------------------------------------------------------------------------------------------------------

    def _wake_at(self, key: Key, due: float) -> None:
        due = min(due, self._due.get(key, float("inf")))
        if self._due.get(key) != due:
            self._due[key] = due
            heapq.heappush(self._heap, (due, key))
        self._arm()

    def _arm(self) -> None:
        if self._heap and self._heap[0][0] < self._armed_for:
            self._armed_for = self._heap[0][0]
            self._alarm(max(0.0, self._armed_for - self._clock.monotonic()), self.tick)

    def _call_a_worker(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
