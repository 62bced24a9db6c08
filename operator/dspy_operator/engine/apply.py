"""Makes children what a Plan wants: written only where they differ, and never over somebody else's object.

A child that we apply carries the digest of what was applied. Its own fields are compared too, so that one that a
person edited is set back, while what the API server and others add is left alone. Both are read from the object
itself: a restarted operator writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dspy_operator.contract import names
from dspy_operator.contract.canonical import digest
from dspy_operator.engine.cache import FOR_EVER, Cache, is_leaving, version
from dspy_operator.engine.client import AlreadyExists, Client, Conflict, NotFound
from dspy_operator.engine.logs import logger
from dspy_operator.engine.metrics import Metrics
from dspy_operator.engine.plan import Body, Delete, Foreign, Guarded, Ref
from dspy_operator.engine.subset import difference

_OURS = (names.LABEL_KIND, names.LABEL_NAME)


class Busy(Exception):
    """The name is still taken by an object that is on its way out; it comes free by itself."""


class Unlabelled(Exception):
    """A child without the labels that say whose it is: a bug of its builder."""

    def __init__(self, ref: Ref) -> None:
        super().__init__(f"{ref.kind} {ref.namespace}/{ref.name} is planned without the labels {' and '.join(_OURS)}")


class Applier:
    """The one writer of children.

    Args:
        learned: is told every object that an answer showed.
        lost: is told every object that an answer showed to be gone, and by which resourceVersion.
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
        self._spelled: dict[Ref, tuple[str, str]] = {}
        """What the API server will not store as we write it: (digest applied, path where it differs)."""
        self._log = logger(__name__)

    async def child(self, wanted: Body) -> bool:
        """Server-side apply where the child is not as wanted; whether something was written.

        Raises:
            Foreign: the name is somebody else's.
            Busy: it is a former owner's, or being deleted.
        """
        ref = Ref.of(wanted)
        _need_labels(wanted, ref)
        manifest = _signed(wanted)
        live = self._cache.get(ref.kind, ref.namespace, ref.name)
        if live is None:
            live = await self._read(ref)
            if live is None:
                await self._apply(ref, manifest, force=False)  # no force: it would take what appeared since
                return True
        _refuse_foreign(wanted, live, ref)
        self._learned(live)  # not before: the cache must not hold what nobody watches
        why = self._why(ref, manifest, live)
        if why is None:
            return False
        if why != _CHANGED:
            self._log.warning("a child was changed by somebody else and is set back", child=_name(ref), field=why)
            self._metrics.healed.labels(ref.kind).inc()
        guarded = {**manifest, "metadata": {**manifest["metadata"], "uid": live["metadata"]["uid"]}}
        try:
            await self._apply(ref, guarded, force=True)
        except Conflict:
            await self._catch_up(live, ref)
            raise
        return True

    async def create(self, wanted: Body, *, carefully: bool = False) -> bool:
        """Create what is not there; what is there and ours stays as it is. Whether something was written.

        Args:
            carefully: look first; for a name that was somebody else's a moment ago.
        Raises:
            Foreign: the name is somebody else's.
            Busy: it is a former owner's, or being deleted.
        """
        ref = Ref.of(wanted)
        _need_labels(wanted, ref)
        live = self._cache.get(ref.kind, ref.namespace, ref.name)
        if live is None and carefully:
            live = await self._read(ref)
        if live is None:
            try:
                self._learned(await self._client.create(wanted))
            except AlreadyExists:
                live = await self._read(ref)
                if live is None:
                    raise Busy(f"{_name(ref)} went while it was looked at") from None
            else:
                self._count(ref, "create")
                return True
        _refuse_foreign(wanted, live, ref)
        if not _has_labels(live, wanted):
            # Somebody took our labels off, and so it left our watch.
            live = await self._client.merge(ref, {"metadata": {"labels": wanted["metadata"]["labels"]}})
            self._count(ref, "relabel")
            self._learned(live)
            return True
        self._learned(live)
        return False

    async def guarded(self, wanted: Guarded) -> bool:
        """Create, or replace the version that was read; whether something was written.

        Raises:
            Conflict: it is another version, or exists already; the cache knows it now.
            Foreign: it exists already and is somebody else's.
        """
        body, ref = wanted.body, Ref.of(wanted.body)
        if "resourceVersion" not in body["metadata"]:
            try:
                self._learned(await self._client.create(body))
            except AlreadyExists as error:
                live = await self._read(ref)
                if live is not None:
                    _refuse_foreign(body, live, ref)
                    self._learned(live)
                raise Conflict(error.code, "AlreadyExists", error.message) from error
            self._count(ref, "create")
            return True
        live = self._cache.get(ref.kind, ref.namespace, ref.name)
        if live is not None and version(live) == version(body) and live == body:
            return False
        try:
            self._learned(await self._client.replace(body))
        except (Conflict, NotFound):
            await self._catch_up(body, ref)
            raise
        self._count(ref, "replace")
        return True

    async def delete(self, unwanted: Delete) -> bool:
        """Delete one object by its uid; whether something was written. What is gone or going is left."""
        ref = unwanted.ref
        live = self._cache.get(ref.kind, ref.namespace, ref.name)
        if live is not None and live["metadata"]["uid"] == unwanted.uid and is_leaving(live):
            return False
        corpse = {
            "apiVersion": ref.api_version,
            "kind": ref.kind,
            "metadata": {"namespace": ref.namespace, "name": ref.name, "uid": unwanted.uid, "resourceVersion": "0"},
        }
        try:
            answer = await self._client.delete(ref, unwanted.uid)
        except NotFound:
            self._lost(corpse, FOR_EVER)
            return False
        except Conflict:
            self._log.info("not deleted: another object has the name by now", child=_name(ref))
            self._lost(corpse, FOR_EVER)
            return False
        self._count(ref, "delete")
        if _stays_a_while(answer):
            self._learned(answer)
        else:
            self._lost(corpse, FOR_EVER)
        return True

    async def _catch_up(self, outdated: Body, ref: Ref) -> None:
        """Not left to the watch: it may be deaf, and then the key would fail for ever."""
        live = await self._read(ref)
        if live is None:
            self._lost(outdated, FOR_EVER)
        else:
            self._learned(live)

    async def _read(self, ref: Ref) -> Body | None:
        try:
            return await self._client.get(ref)
        except NotFound:
            return None

    async def _apply(self, ref: Ref, manifest: Body, *, force: bool) -> None:
        answer = await self._client.apply(manifest, force=force)
        self._count(ref, "apply")
        self._learned(answer)
        field = difference(_without_uid(manifest), answer)
        if field is None:
            self._spelled.pop(ref, None)
        else:
            self._log.warning(
                "the API server stores a child otherwise than it was written", child=_name(ref), field=field
            )
            self._spelled[ref] = (_signature(manifest), field)

    def _why(self, ref: Ref, manifest: Body, live: Body) -> str | None:
        """What calls for an apply: a path, or that we want something else; None if nothing does."""
        if _signature(live) != _signature(manifest):
            return _CHANGED
        field = difference(manifest, live)
        return None if field is None or self._spelled.get(ref) == (_signature(manifest), field) else field

    def _count(self, ref: Ref, action: str) -> None:
        self._metrics.child_writes.labels(ref.kind, action).inc()


_CHANGED = ""


def _signed(wanted: Body) -> Body:
    metadata = wanted["metadata"]
    annotations = {**(metadata.get("annotations") or {}), names.ANNOTATION_APPLIED: digest(wanted)}
    return {**wanted, "metadata": {**metadata, "annotations": annotations}}


def _signature(body: Mapping[str, Any]) -> str:
    return str((body["metadata"].get("annotations") or {}).get(names.ANNOTATION_APPLIED, ""))


def _without_uid(manifest: Body) -> Body:
    return {**manifest, "metadata": {key: value for key, value in manifest["metadata"].items() if key != "uid"}}


def _labels(body: Mapping[str, Any]) -> tuple[Any, ...]:
    labels = body["metadata"].get("labels") or {}
    return tuple(labels.get(label) for label in _OURS)


def _need_labels(wanted: Body, ref: Ref) -> None:
    if None in _labels(wanted):
        raise Unlabelled(ref)


def _has_labels(live: Body, wanted: Body) -> bool:
    return _labels(live) == _labels(wanted)


def _controller(body: Mapping[str, Any]) -> str | None:
    """uid of the owner that manages an object."""
    for reference in body["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            return str(reference["uid"])
    return None


def _refuse_foreign(wanted: Body, live: Body, ref: Ref) -> None:
    """Ours is what our owner's uid manages, or what has our labels and no manager (the owner was deleted and left it).

    Raises:
        Foreign: it is not ours.
        Busy: it was made for a former object of our owner's name, or is being deleted: it will go.
    """
    owner, manager = _controller(wanted), _controller(live)
    ours = manager == owner if owner is not None and manager is not None else _has_labels(live, wanted)
    if not ours:
        if _has_labels(live, wanted):
            raise Busy(f"{_name(ref)} belongs to a former object of the same name and waits for garbage collection")
        raise Foreign(ref)
    if is_leaving(live):
        raise Busy(f"{_name(ref)} is being deleted")


def _stays_a_while(answer: Body) -> bool:
    """Some kinds answer a delete with the object as it was, others with what still is there, or with a Status."""
    metadata = answer.get("metadata") or {}
    return "deletionTimestamp" in metadata and bool(
        metadata.get("finalizers") or metadata.get("deletionGracePeriodSeconds")
    )


def _name(ref: Ref) -> str:
    return f"{ref.kind} {ref.namespace}/{ref.name}"
