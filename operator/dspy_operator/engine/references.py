"""Who names whom: objects of our kinds that a spec mentions, and the way back."""

from __future__ import annotations

from collections.abc import Iterable

from dspy_operator.engine.plan import Key


class References:
    """The reverse index, so that a program that becomes ready wakes the runs that wait for it."""

    def __init__(self) -> None:
        self._named_by: dict[Key, frozenset[Key]] = {}
        self._namers_of: dict[Key, set[Key]] = {}

    def set(self, key: Key, named: Iterable[Key]) -> None:
        """What an object names now; nothing where it is gone."""
        now = frozenset(named)
        before = self._named_by.get(key, frozenset())
        for gone in before - now:
            namers = self._namers_of[gone]
            namers.discard(key)
            if not namers:
                del self._namers_of[gone]
        for new in now - before:
            self._namers_of.setdefault(new, set()).add(key)
        if now:
            self._named_by[key] = now
        else:
            self._named_by.pop(key, None)

    def named_by(self, key: Key) -> frozenset[Key]:
        """What this object names, whether it exists or not."""
        return self._named_by.get(key, frozenset())

    def referrers(self, key: Key) -> list[Key]:
        """Who names this object, ordered; also while it does not exist."""
        return sorted(self._namers_of.get(key, ()))
