"""What a controller sees, and how long a foreign name is remembered."""

from __future__ import annotations

import asyncio

import pytest

from dspy_operator.engine.cache import Cache
from dspy_operator.engine.plan import Body, Key, Ref, World
from dspy_operator.engine.references import References
from dspy_operator.engine.world import CacheWorld, ForeignMemory
from tests.unit.engine.clocks import TurnedClock, an_object

RUN = Key("Run", "team-a", "mine")
TAKEN = Ref("v1", "ConfigMap", "team-a", "mine-current")


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


async def nothing(ref: Ref) -> Body | None:
    return None


def test_it_shows_the_cache(clock: TurnedClock) -> None:
    cache, references = Cache(clock), References()
    cache.put(an_object("mine", 1, kind="Run"))
    cache.put(an_object("child", 2, of=RUN))
    references.set(RUN, [Key("Program", "team-a", "p")])
    world: World = CacheWorld(cache, references, clock, nothing)

    assert world.now() == clock.now()
    assert [body["metadata"]["name"] for body in world.all("Run")] == ["mine"]
    assert world.get("Run", "team-a", "mine") is not None
    assert world.get("Run", "team-b", "mine") is None
    assert [body["metadata"]["name"] for body in world.children(RUN)] == ["child"]
    assert list(world.referrers(Key("Program", "team-a", "p"))) == [RUN]
    assert asyncio.run(world.read(TAKEN)) is None
    assert list(world.foreign(RUN)) == []


def test_a_foreign_name_is_news_once_and_known_then(clock: TurnedClock) -> None:
    memory = ForeignMemory(clock, seconds=90)
    assert memory.found(RUN, TAKEN)
    assert memory.of(RUN) == (TAKEN,)
    clock.turn(60)
    assert not memory.found(RUN, TAKEN)


def test_a_foreign_name_that_nobody_met_again_is_forgotten(clock: TurnedClock) -> None:
    memory = ForeignMemory(clock, seconds=90)
    memory.found(RUN, TAKEN)
    clock.turn(91)
    assert memory.of(RUN) == ()
    assert memory.found(RUN, TAKEN), "news again"


def test_a_name_that_became_free_is_told_once(clock: TurnedClock) -> None:
    memory = ForeignMemory(clock)
    memory.found(RUN, TAKEN)
    assert memory.free(RUN, [TAKEN])
    assert not memory.free(RUN, [TAKEN])
    assert memory.of(RUN) == ()
