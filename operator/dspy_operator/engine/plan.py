"""What a controller asks for: the words between `decide` and the engine. Pure data.

A controller gathers, its pure `decide` returns a Plan, and the engine carries it out in this order: guarded writes,
children, creates, deletes, events, and the status last. Whatever fails ends the pass; the key comes again with backoff, and since
a Plan is made from what is true, carrying it out twice does what once does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, Protocol

Body = dict[str, Any]
"""A Kubernetes object as the API server gives it. Never changed in place: the cache holds the same dict."""


class Key(NamedTuple):
    """An object that is kept true; what the queue holds."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


class Ref(NamedTuple):
    """Any object, by what its URL needs."""

    api_version: str
    kind: str
    namespace: str
    name: str

    @staticmethod
    def of(body: Mapping[str, Any]) -> Ref:
        """Of an object, or of a manifest."""
        metadata = body["metadata"]
        return Ref(body["apiVersion"], body["kind"], metadata.get("namespace", ""), metadata["name"])


@dataclass(frozen=True)
class Guarded:
    """Create an object, or replace the one that was read: for what other writers write too (the account).

    Refused by the API server (409) when it changed since; the key then comes again and decides from what is there.
    """

    body: Body
    """With `metadata.resourceVersion` of what was read; without it the object is created."""


@dataclass(frozen=True)
class Delete:
    """Remove one object, and nothing else that has its name meanwhile."""

    ref: Ref
    uid: str
    """Precondition."""


@dataclass(frozen=True)
class Event:
    """What people see under `kubectl describe`; the same one again within an hour is not written again."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class Plan:
    """What is wanted now."""

    guarded: tuple[Guarded, ...] = ()
    children: tuple[Body, ...] = ()
    """Server-side applied, in this order, where what is there differs from them. Whole manifests of what is ours."""
    creates: tuple[Body, ...] = ()
    """Created where absent, in this order, and never changed: Jobs, immutable ConfigMaps, volumes. One that is there and
    has our labels for this owner is success; any other is Foreign."""
    deletes: tuple[Delete, ...] = ()
    events: tuple[Event, ...] = ()
    status: Mapping[str, Any] | None = None
    """The whole status; written only where it differs in meaning, guarded by resourceVersion. None leaves it."""
    requeue_after: timedelta | None = None
    """Look again, when nothing else wakes the key before."""
    wake: tuple[Key, ...] = ()
    """Keys that should look again now."""


class Foreign(Exception):
    """An object under a name that we need belongs to somebody else; `decide` says NameConflict."""

    def __init__(self, ref: Ref) -> None:
        super().__init__(f"{ref.kind} {ref.namespace}/{ref.name} exists and is not ours")
        self.ref = ref


class World(Protocol):
    """What a controller may look at. The cache holds our kinds and everything that carries our labels."""

    def now(self) -> datetime:
        """UTC."""

    def get(self, kind: str, namespace: str, name: str) -> Body | None:
        """From the cache."""

    def all(self, kind: str, namespace: str | None = None) -> Iterable[Body]:
        """From the cache, ordered by namespace and name."""

    def children(self, owner: Key) -> Iterable[Body]:
        """Objects of any kind whose labels name this owner, from the cache."""

    def referrers(self, key: Key) -> Iterable[Key]:
        """Whose `references` name this key."""

    def foreign(self, key: Key) -> Iterable[Ref]:
        """Names that a plan of this key needed and that somebody else's objects have, as far as is known."""

    async def read(self, ref: Ref) -> Body | None:
        """From the API server, for objects that nobody watches (a user's ConfigMap); None where there is none."""


class Controller(Protocol):
    """One kind's room, as the engine sees it.

    It may have `shown(body) -> Any` besides: what those who are tied to an object by references look at of it. While that
    stays the same, the object's changes wake none of them.
    """

    kind: str
    """Of the objects that are kept true; also a made-up one for a singleton, woken by `Plan.wake` alone."""

    def references(self, body: Body) -> Iterable[Key]:
        """Objects of our kinds that this one names. When either changes, both are looked at again."""

    async def reconcile(self, key: Key, world: World) -> Plan:
        """Gather, and decide. Called only for objects in the cache that are not being deleted, and for singletons."""


@dataclass(frozen=True)
class Settings:
    """How this operator was installed; read once from its environment."""

    runner_image: str
    operator_image: str
    """Of the loader too."""
    ollama_image: str = "ollama/ollama:0.34.2"
    image_pull_policy: str = "IfNotPresent"
    resync: timedelta = timedelta(minutes=7)
    workers: int = 8
