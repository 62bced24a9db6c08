"""What one room reads past the cache, all others see from then on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dspy_operator.engine.client import NotFound
from dspy_operator.engine.loop import Loop
from dspy_operator.engine.metrics import Metrics
from dspy_operator.engine.plan import Body, Key, Plan, Ref, World
from tests.unit.engine.clocks import TurnedClock, an_object

RUN = Key("Run", "team-a", "mine")
CHANNEL = Ref("v1", "ConfigMap", "team-a", "mine-pod")


class Server:
    """Has objects that no watch has told of."""

    def __init__(self, *objects: Body) -> None:
        self._objects = {body["metadata"]["name"]: body for body in objects}

    async def get(self, ref: Ref) -> Body:
        if ref.name not in self._objects:
            raise NotFound(404, "NotFound", ref.name)
        return self._objects[ref.name]


class Runs:
    kind = "Run"

    def references(self, body: Body) -> tuple[Key, ...]:
        return ()

    async def reconcile(self, key: Key, world: World) -> Plan:
        raise AssertionError("nobody works here")


def a_loop(*objects: Body) -> Loop:
    server: Any = Server(*objects)
    loop = Loop(server, [Runs()], own=["Run"], clock=TurnedClock(), metrics=Metrics())
    loop.learn(an_object("mine", 1, kind="Run"), quietly=True)
    return loop


def test_what_was_read_is_what_everybody_sees_and_its_owner_is_woken() -> None:
    """A run ends by what it read of its channel, and its program looks into the channel at once: the watch may be late."""
    loop = a_loop(an_object("mine-pod", 5, of=RUN, data={"result.json": "{}"}))
    loop.learn(an_object("mine-pod", 3, of=RUN, data={}), quietly=True)
    assert asyncio.run(loop.world.read(CHANNEL)) is not None
    seen = loop.world.get("ConfigMap", "team-a", "mine-pod")
    assert seen is not None and seen["data"] == {"result.json": "{}"}
    assert asyncio.run(loop.queue.get())[0] == RUN


@pytest.mark.parametrize("there", [True, False])
def test_what_is_not_ours_is_read_and_not_kept(there: bool) -> None:
    loop = a_loop(*[an_object("mine-pod", 5)] * there)
    assert (asyncio.run(loop.world.read(CHANNEL)) is not None) == there
    assert loop.world.get("ConfigMap", "team-a", "mine-pod") is None


def test_an_answer_that_is_older_than_what_is_known_changes_nothing() -> None:
    loop = a_loop(an_object("mine-pod", 3, of=RUN, data={}))
    loop.learn(an_object("mine-pod", 5, of=RUN, data={"result.json": "{}"}), quietly=True)
    asyncio.run(loop.world.read(CHANNEL))
    seen = loop.world.get("ConfigMap", "team-a", "mine-pod")
    assert seen is not None and seen["metadata"]["resourceVersion"] == "5"
