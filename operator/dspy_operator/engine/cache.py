"""What the API server showed last, by kind, namespace and name, and by the owner that labels name.

Three writers feed it, in any order: the watch, the answers to our own writes, and lists. The newest resourceVersion
wins, and what was deleted stays deleted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dspy_operator.contract import names
from dspy_operator.engine.clock import Clock
from dspy_operator.engine.plan import Body, Key

TOMBSTONE_SECONDS = 900.0
"""Longer than any event of a deleted object can be late: kopf relists after 70 s of silence."""
FOR_EVER = 2**63
"""A resourceVersion that none will reach: the object's uid is gone for good."""


@dataclass(frozen=True)
class Change:
    """What a new fact did to the cache."""

    before: Body | None
    after: Body | None
    """None is gone."""

    @property
    def body(self) -> Body:
        """The newest that is known of the object."""
        body = self.after if self.after is not None else self.before
        assert body is not None
        return body


def version(body: Body) -> int:
    """An object's resourceVersion. Kubernetes promises that they compare as whole numbers since v1.35; etcd always did."""
    return int(body["metadata"]["resourceVersion"])


def owner(body: Body) -> Key | None:
    """Whom an object's labels name as owner."""
    metadata = body["metadata"]
    labels = metadata.get("labels") or {}
    kind, name = labels.get(names.LABEL_KIND), labels.get(names.LABEL_NAME)
    return Key(kind, metadata.get("namespace", ""), name) if kind and name else None


class Cache:
    """Objects of our kinds, and everything that carries our labels."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kinds: dict[str, dict[tuple[str, str], Body]] = {}
        self._ordered: dict[str, list[tuple[str, str]] | None] = {}
        """Sorted (namespace, name) of a kind; None after one came or went."""
        self._owned: dict[Key, set[Key]] = {}
        self._dead: dict[str, tuple[int, float]] = {}
        """uid -> (resourceVersion of its end, when we heard)."""

    def put(self, body: Body) -> Change | None:
        """Take a fact; None where it is no news: seen already, older than what is known, or of an object that is gone."""
        # managedFields are a third of an object's size, and read by nobody here.
        metadata = {key: value for key, value in body["metadata"].items() if key != "managedFields"}
        body = {**body, "metadata": metadata}
        died, _ = self._dead.get(metadata["uid"], (0, 0.0))
        if version(body) <= died:
            return None
        key = Key(body["kind"], metadata.get("namespace", ""), metadata["name"])
        objects = self._kinds.setdefault(key.kind, {})
        before = objects.get(key[1:])
        if before is not None and version(body) <= version(before):
            return None
        objects[key[1:]] = body
        if before is None:
            self._ordered[key.kind] = None
        self._index(key, before, body)
        return Change(before, body)

    def remove(self, body: Body, *, at: int | None = None) -> Change | None:
        """An object is gone, or carries our label no more; None where that is no news.

        Args:
            body: what is known of it.
            at: the resourceVersion by which it was gone, where that is not `body`'s own; FOR_EVER if it cannot return.
        """
        metadata = body["metadata"]
        end = version(body) if at is None else at
        self._dead[metadata["uid"]] = (end, self._clock.monotonic())
        key = Key(body["kind"], metadata.get("namespace", ""), metadata["name"])
        before = self.get(*key)
        if before is None or before["metadata"]["uid"] != metadata["uid"] or version(before) > end:
            return None
        del self._kinds[key.kind][key[1:]]
        self._ordered[key.kind] = None
        self._index(key, before, None)
        return Change(before, None)

    def get(self, kind: str, namespace: str, name: str) -> Body | None:
        """One object."""
        return self._kinds.get(kind, {}).get((namespace, name))

    def all(self, kind: str, namespace: str | None = None) -> Iterator[Body]:
        """Objects of a kind, ordered by namespace and name."""
        objects = self._kinds.get(kind, {})
        order = self._ordered.get(kind)
        if order is None:
            order = self._ordered[kind] = sorted(objects)
        return (objects[at] for at in list(order) if at in objects and namespace in (None, at[0]))

    def children(self, of: Key) -> Iterator[Body]:
        """Objects whose labels name this owner, ordered by kind and name."""
        found = (self.get(*child) for child in sorted(self._owned.get(of, ())))
        return (body for body in found if body is not None)

    def count(self, kind: str) -> int:
        """Objects of a kind."""
        return len(self._kinds.get(kind, {}))

    def forget_the_dead(self) -> None:
        """Drop tombstones that are too old to matter."""
        horizon = self._clock.monotonic() - TOMBSTONE_SECONDS
        self._dead = {uid: death for uid, death in self._dead.items() if death[1] > horizon}

    def _index(self, key: Key, before: Body | None, after: Body | None) -> None:
        old = owner(before) if before is not None else None
        new = owner(after) if after is not None else None
        if old == new:
            return
        if old is not None:
            self._owned[old].discard(key)
            if not self._owned[old]:
                del self._owned[old]
        if new is not None:
            self._owned.setdefault(new, set()).add(key)


def is_leaving(body: dict[str, Any]) -> bool:
    """Deletion was asked for; the object is there until its finalizers and grace period are over."""
    return "deletionTimestamp" in body["metadata"]
