"""Gathers what `decide` looks at, and hands its Plan to the engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from dspy_operator.contract import names
from dspy_operator.controllers.promptprogram.decide import decide
from dspy_operator.controllers.promptprogram.promotion import has_candidate
from dspy_operator.controllers.promptprogram.revisions import verified_digest
from dspy_operator.controllers.promptprogram.seen import (
    Named,
    ObjectRead,
    RowsRead,
    Seen,
    component_of,
    next_reading,
)
from dspy_operator.controllers.promptprogram.validation import is_result_late
from dspy_operator.controllers.shown import shown
from dspy_operator.engine.conditions import timestamp
from dspy_operator.engine.plan import Body, Key, Plan, Ref, Settings, World

MOST_REMEMBERED = 4096
"""Programs of which something is remembered; a forgotten one costs one read and some hashing."""

_OWN = frozenset({"testUse"})
"""Of the status, for people. A new line of `candidates` is what tells a run that its revision is there."""


@dataclass(frozen=True)
class _Remembered:
    """What need not be asked again for the next pass."""

    generation: int = 0
    wanted: frozenset[Named] = frozenset()
    """What the dataset's sources named."""
    rows: RowsRead | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    """uid -> digest of revisions, which are immutable."""


class PromptProgramController:
    """The room of PromptPrograms."""

    kind = "PromptProgram"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._remembered: dict[Key, _Remembered] = {}

    def references(self, body: Body) -> Iterable[Key]:
        """The target: whether a candidate was measured on its model depends on it."""
        target = _target(body)
        return (target,) if target is not None else ()

    def shown(self, body: Body) -> Any:
        """What runs, programs and endpoints look at; the engine asks."""
        return shown(body, _OWN)

    async def reconcile(self, key: Key, world: World) -> Plan:
        """One pass."""
        body = world.get(*key)
        assert body is not None, "the engine asks for what is in its cache"
        now = world.now()
        before = self._remembered.get(key, _Remembered())
        children = tuple(world.children(key))
        digests = _digests(children, before.digests)
        runs = tuple(_runs(key, world))
        wanted = _named_by_sources(body)
        generation = body["metadata"].get("generation", 1)
        rows = None
        if wanted:
            same = (before.generation, before.wanted) == (generation, wanted)
            rows = before.rows if same else None
            if rows is None or _is_due(rows, body, runs, now):
                rows = await _read(wanted, key.namespace, world, now)
        self._remember(key, _Remembered(generation, wanted, rows, digests))
        target = _target(body)
        seen = Seen(
            body=body,
            now=now,
            settings=self._settings,
            children=children,
            digests=digests,
            rows=rows,
            runs=runs,
            channels=dict(_channels(runs, world)),
            endpoint=world.get(*target) if target is not None else None,
            foreign=frozenset(world.foreign(key)),
        )
        if is_result_late(seen):
            seen = await _with_channel_read(seen, world)
        return decide(seen)

    def _remember(self, key: Key, found: _Remembered) -> None:
        self._remembered.pop(key, None)
        self._remembered[key] = found
        if len(self._remembered) > MOST_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]


def _target(body: Body) -> Key | None:
    endpoint = ((body.get("spec") or {}).get("target") or {}).get("endpoint") or {}
    if not endpoint.get("name"):
        return None
    return Key("ModelEndpoint", endpoint.get("namespace") or body["metadata"]["namespace"], endpoint["name"])


def _named_by_sources(body: Body) -> frozenset[Named]:
    """The objects that hold rows or code; those of a spec that does not parse, as far as they can be told."""
    spec: Any = body.get("spec") or {}
    dataset: Any = spec.get("dataset") or {}
    parts: Any = (dataset.get("split") or {}).get("sources") or {}
    found = set()
    for source in (dataset.get("source"), parts.get("validation"), parts.get("test")):
        for kind, member, name_field in (
            ("ConfigMap", "configMap", "name"),
            ("PersistentVolumeClaim", "persistentVolumeClaim", "claimName"),
        ):
            if name := ((source or {}).get(member) or {}).get(name_field):
                found.add(Named(kind, name))
    for holder in (spec.get("program"), spec.get("metric")):
        found |= {Named("ConfigMap", name) for name in _config_maps_with_code(holder)}
    return frozenset(found)


def _config_maps_with_code(holder: Any) -> Iterable[str]:
    """Names under each `code` of a program or metric, wherever it stands."""
    if isinstance(holder, list):
        for item in holder:
            yield from _config_maps_with_code(item)
    if isinstance(holder, dict):
        code = holder.get("code")
        config_map = code.get("configMap") if isinstance(code, dict) else None
        if isinstance(config_map, dict) and config_map.get("name"):
            yield config_map["name"]
        for value in holder.values():
            yield from _config_maps_with_code(value)


def _is_due(rows: RowsRead, body: Body, runs: Iterable[Body], now: datetime) -> bool:
    """Whether to read again: it is long ago, or a run has come since that would read other rows."""
    if now >= next_reading(rows.read_at, body.get("status") or {}):
        return True
    since = timestamp(rows.read_at)  # as exact as a creationTimestamp, and ordered as a text
    return any(run["metadata"]["creationTimestamp"] >= since for run in runs)


async def _read(wanted: Iterable[Named], namespace: str, world: World, now: datetime) -> RowsRead:
    objects = {}
    for named in wanted:
        found = await world.read(Ref("v1", named.kind, namespace, named.name))
        if found is not None:
            metadata = found["metadata"]
            keys = (*(found.get("data") or {}), *(found.get("binaryData") or {}))
            objects[named] = ObjectRead(metadata["uid"], metadata["resourceVersion"], keys)
    return RowsRead(now, objects)


def _digests(children: Iterable[Body], known: Mapping[str, str]) -> dict[str, str]:
    digests = {}
    for child in children:
        if child["kind"] == "ConfigMap" and component_of(child) == names.Component.REVISION:
            uid = child["metadata"]["uid"]
            if (digest := known.get(uid) or verified_digest(child)) is not None:
                digests[uid] = digest
    return digests


def _runs(key: Key, world: World) -> Iterable[Body]:
    for referrer in world.referrers(key):
        if referrer.kind == "OptimizationRun" and (run := world.get(*referrer)) is not None:
            yield run


def _channels(runs: Iterable[Body], world: World) -> Iterable[tuple[str, Body]]:
    for run in filter(has_candidate, runs):
        name, namespace = run["metadata"]["name"], run["metadata"]["namespace"]
        if (channel := world.get("ConfigMap", namespace, names.run_channel(name))) is not None:
            yield name, channel


async def _with_channel_read(seen: Seen, world: World) -> Seen:
    """With the channel as the API server has it: an end without a result must not be a result that is on its way."""
    name = names.validation_channel(seen.name)
    read = await world.read(Ref("v1", "ConfigMap", seen.namespace, name))
    if read is None:
        return seen
    others = tuple(c for c in seen.children if (c["kind"], c["metadata"]["name"]) != ("ConfigMap", name))
    return replace(seen, children=(*others, read))
