"""What is stored, and what this version makes of it: how an object is read, and what an operator would write over a state."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn, cast

from dspy_operator.api.objects import ModelEndpoint, OptimizationRun, PromptProgram, parse_object
from dspy_operator.contract.resolve import Surroundings, control_of, program_part, resolve, slots_of
from dspy_operator.contract.runspec import Paths
from dspy_operator.controllers.admission.grants import ADMISSION
from dspy_operator.controllers.admission.slots import capacity
from dspy_operator.engine.apply import Applier
from dspy_operator.engine.cache import Cache
from dspy_operator.engine.client import Client, NotFound
from dspy_operator.engine.conditions import parse_timestamp
from dspy_operator.engine.metrics import Metrics
from dspy_operator.engine.plan import Body, Controller, Key, Plan, Ref, Settings
from dspy_operator.engine.references import References
from dspy_operator.engine.world import CacheWorld
from dspy_operator.main import controllers

HERE = Path(__file__).parent
OURS = ("PromptProgram", "OptimizationRun", "ModelEndpoint", "OptimizationQuota")
WORDS = frozenset({"message"})
"""Fields for people's eyes: a later version may say it better."""
SUMS = "SHA256SUMS"
ROUNDS = 3
"""Passes over everything: one to ask for slots, one to hear the answer, one more."""


def folders() -> list[Path]:
    """One of each version."""
    return sorted(path for path in HERE.iterdir() if path.is_dir() and (path / "states").is_dir())


def sums(folder: Path) -> str:
    """What `sha256sum` prints of all files of a version but SUMS itself."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS and path.suffix != ".pyc")
    lines = (f"{sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n" for path in files)
    return "".join(lines)


# --- objects -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """One object, and what the version that stored it read."""

    name: str
    """The choice that it is there for: `spec.adapter.type: JSON`."""
    body: Body
    reading: Mapping[str, Any]


def choices(folder: Path) -> Iterator[Choice]:
    """All objects of a version."""
    for path in sorted((folder / "objects").glob("*.json")):
        for entry in json.loads(path.read_text("utf-8")):
            yield Choice(entry["choice"], entry["object"], entry["reading"])


def beside(folder: Path) -> dict[str, Body]:
    """Kind -> an object that the others are read together with."""
    return {body["kind"]: body for body in json.loads((folder / "beside.json").read_text("utf-8"))}


def reading(body: Body, others: Mapping[str, Body]) -> dict[str, Any]:
    """What a runner would be told of this object: every default applied, and the digests.

    Args:
        others: kind -> the object that stands in for whatever this one needs.
    """
    bodies = {**others, body["kind"]: body}
    program = cast(PromptProgram, parse_object(bodies["PromptProgram"]))
    run = cast(OptimizationRun, parse_object(bodies["OptimizationRun"]))
    endpoint = cast(ModelEndpoint, parse_object(bodies["ModelEndpoint"]))
    roles = [run.spec.endpoints.task, run.spec.endpoints.prompt] if run.spec.endpoints else []
    references = [program.spec.target.endpoint, *(role for role in roles if role is not None)]
    keys = {f"{reference.namespace or 'default'}/{reference.name}" for reference in references}
    endpoints = dict.fromkeys(keys, endpoint)
    around = Surroundings(
        data_path="rows.jsonl",
        paths=Paths(journal="journal.jsonl", out="out", control="control.json"),
        urls=dict.fromkeys(keys, "http://ollama.example:11434/v1") if endpoint.spec.provider.ollama else {},
        dataset_digest="v1:" + "d" * 64,
    )
    spec = resolve(run, program, endpoints, around).document()
    if body["kind"] == "PromptProgram":
        digest = program_part(program).digest
        return {"programDigest": digest, **{part: spec[part] for part in ("dataset", "gate", "endpoints")}}
    if body["kind"] == "OptimizationRun":
        parts = ("inputDigest", "mode", "seed", "optimizer", "endpoints")
        return {**{part: spec[part] for part in parts}, "control": control_of(run, endpoints).document()}
    return {"endpoints": spec["endpoints"], "slots": [slots_of(endpoint), capacity(endpoint.spec)]}


# --- states --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class State:
    """A namespace at rest, and the moment."""

    name: str
    now: datetime
    settings: Settings
    bodies: tuple[Body, ...]

    @staticmethod
    def read(path: Path) -> State:
        """From a file of `states/`."""
        document = json.loads(path.read_text("utf-8"))
        moment = parse_timestamp(document["now"])
        return State(path.stem, moment, Settings(**document["settings"]), tuple(document["objects"]))

    def of(self, kind: str) -> list[Body]:
        """Objects of a kind."""
        return [body for body in self.bodies if body["kind"] == kind]


def states(folder: Path) -> list[State]:
    """All of a version."""
    return [State.read(path) for path in sorted((folder / "states").glob("*.json"))]


@dataclass(frozen=True)
class Write:
    """What an operator wanted to write."""

    verb: str
    kind: str
    name: str
    field: str = ""
    """Of a status: where it would differ."""


async def writes(state: State) -> list[Write]:
    """What an operator of this version writes over a state, that has just started: with the engine's own eyes for what differs."""
    operator = _Operator(state)
    for _ in range(ROUNDS):
        for body in state.bodies:
            if body["kind"] in OURS:
                await operator.looks(Key(body["kind"], body["metadata"]["namespace"], body["metadata"]["name"]))
        await operator.looks(ADMISSION)
    return sorted(set(operator.wrote), key=str)


class _Wrote(Exception):
    """A write got as far as the API server."""


class _Api:
    """An API server that shows what is stored, and takes nothing."""

    def __init__(self, bodies: Iterable[Body]) -> None:
        self._bodies = {Ref.of(body): body for body in bodies}

    async def get(self, ref: Ref) -> Body:
        """An object.

        Raises:
            NotFound: there is none.
        """
        if ref not in self._bodies:
            raise NotFound(404, "NotFound", f"{ref.kind} {ref.name}")
        return self._bodies[ref]

    async def _take(self, *_: object, **__: object) -> NoReturn:
        raise _Wrote

    create = apply = replace = merge = delete = _take


class _Clock:
    def __init__(self, now: datetime) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return 0.0


class _Operator:
    """Everything between a Plan and the API server that decides whether something is written."""

    def __init__(self, state: State) -> None:
        clock = _Clock(state.now)
        self._cache, references = Cache(clock), References()
        self._rooms: dict[str, Controller] = {room.kind: room for room in controllers(state.settings)}
        for body in state.bodies:
            if body["kind"] in OURS or "dspy-operator.io/kind" in (body["metadata"].get("labels") or {}):
                self._cache.put(body)
            if body["kind"] in self._rooms:
                key = Key(body["kind"], body["metadata"]["namespace"], body["metadata"]["name"])
                references.set(key, self._rooms[body["kind"]].references(body))
        self._api = _Api(state.bodies)
        self._world = CacheWorld(self._cache, references, clock, self._read)
        self._applier = Applier(
            cast(Client, self._api), self._cache, Metrics(), learned=lambda body: None, lost=lambda body, at: None
        )
        self.wrote: list[Write] = []

    async def looks(self, key: Key) -> None:
        """One pass."""
        plan = await self._rooms[key.kind].reconcile(key, self._world)
        for guarded in plan.guarded:
            await self._does("replace", Ref.of(guarded.body), self._applier.guarded(guarded))
        for child in plan.children:
            await self._does("apply", Ref.of(child), self._applier.child(child))
        for new in plan.creates:
            await self._does("create", Ref.of(new), self._applier.create(new))
        for unwanted in plan.deletes:
            await self._does("delete", unwanted.ref, self._applier.delete(unwanted))
        self._says(key, plan)

    def _says(self, key: Key, plan: Plan) -> None:
        if plan.status is not None:
            kept = (self._world.get(*key) or {}).get("status") or {}
            told = json.loads(json.dumps(_without_none(plan.status)))  # as it goes over the wire
            if (field := difference(kept, told) or difference(told, kept)) is not None:
                self.wrote.append(Write("status", key.kind, key.name, field))
        self.wrote += [Write("event", key.kind, key.name, event.reason) for event in plan.events]

    async def _does(self, verb: str, ref: Ref, write: Any) -> None:
        try:
            await write
        except _Wrote:
            self.wrote.append(Write(verb, ref.kind, ref.name))

    async def _read(self, ref: Ref) -> Body | None:
        try:
            return await self._api.get(ref)
        except NotFound:
            return None


# --- comparing -----------------------------------------------------------------------------------------------------


def difference(stored: Any, now: Any, path: str = "") -> str | None:
    """Where `now` has not what was stored; None if nowhere. It may have more, and other words."""
    if isinstance(stored, Mapping) and isinstance(now, Mapping):
        for key, value in stored.items():
            below = None if key in WORDS else difference(value, now.get(key), f"{path}.{key}".lstrip("."))
            if below is not None:
                return below
        return None
    if isinstance(stored, list) and isinstance(now, Sequence) and not isinstance(now, str):
        if len(stored) != len(now):
            return path
        pairs = zip(_ordered(stored), _ordered(now), strict=True)
        found = (difference(one, other, f"{path}[{at}]") for at, (one, other) in enumerate(pairs))
        return next((below for below in found if below is not None), None)
    return None if type(stored) is type(now) and stored == now else f"{path}: {stored!r}, {now!r}"


def _ordered(items: Sequence[Any]) -> list[Any]:
    """Conditions by type, everything else as it is."""
    if all(isinstance(item, Mapping) and "lastTransitionTime" in item for item in items):
        return sorted(items, key=lambda item: str(item["type"]))
    return list(items)


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value
