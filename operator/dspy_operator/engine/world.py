"""The World that controllers look at, from the cache."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime

from dspy_operator.engine.cache import Cache
from dspy_operator.engine.clock import Clock
from dspy_operator.engine.plan import Body, Key, Ref
from dspy_operator.engine.references import References

Read = Callable[[Ref], Awaitable[Body | None]]


class ForeignMemory:
    """Names that an object of somebody else has, by whose pass found them.

    A pass that finds one ends there and the key comes again at once, so that `decide` can say NameConflict; it must go
    on planning that object, for this is how the engine sees the name become free.
    """

    def __init__(self, clock: Clock, *, seconds: float = 60.0) -> None:
        self._clock = clock
        self._seconds = seconds
        self._found: dict[Key, dict[Ref, float]] = {}

    def of(self, key: Key) -> tuple[Ref, ...]:
        """What was found within the last minute, ordered."""
        horizon = self._clock.monotonic() - self._seconds
        return tuple(sorted(ref for ref, at in self._found.get(key, {}).items() if at > horizon))

    def found(self, key: Key, ref: Ref) -> bool:
        """Remember one; whether `decide` did not know it yet."""
        known = ref in self.of(key)
        self._found.setdefault(key, {})[ref] = self._clock.monotonic()
        return not known

    def free(self, key: Key, refs: Iterable[Ref]) -> bool:
        """These were carried out; whether one of them had been found foreign."""
        found = self._found.get(key, {})
        freed = [ref for ref in refs if found.pop(ref, None) is not None]
        if not found:
            self._found.pop(key, None)
        return bool(freed)

    def forget(self, key: Key) -> None:
        """The object is gone."""
        self._found.pop(key, None)


class CacheWorld:
    """World, and `foreign`."""

    def __init__(
        self, cache: Cache, references: References, clock: Clock, read: Read, foreign: ForeignMemory | None = None
    ) -> None:
        self._cache = cache
        self._references = references
        self._clock = clock
        self._read = read
        self._foreign = foreign or ForeignMemory(clock)

    def now(self) -> datetime:
        """UTC."""
        return self._clock.now()

    def get(self, kind: str, namespace: str, name: str) -> Body | None:
        """From the cache."""
        return self._cache.get(kind, namespace, name)

    def all(self, kind: str, namespace: str | None = None) -> Iterable[Body]:
        """From the cache, ordered by namespace and name."""
        return self._cache.all(kind, namespace)

    def children(self, owner: Key) -> Iterable[Body]:
        """Objects of any kind whose labels name this owner, from the cache, ordered by kind and name."""
        return self._cache.children(owner)

    def referrers(self, key: Key) -> Iterable[Key]:
        """Whose `references` name this key, ordered."""
        return self._references.referrers(key)

    async def read(self, ref: Ref) -> Body | None:
        """From the API server; None where there is none."""
        return await self._read(ref)

    def foreign(self, key: Key) -> tuple[Ref, ...]:
        """Names that this key needs and that objects of somebody else have: NameConflict."""
        return self._foreign.of(key)
