"""Alive is who hears every watch and gets through his queue."""

from __future__ import annotations

import pytest

from dspy_operator.engine.health import DEAF_SECONDS, STUCK_SECONDS, Health
from dspy_operator.engine.metrics import Metrics
from dspy_operator.engine.plan import Key
from dspy_operator.engine.queue import Queue
from tests.unit.engine.clocks import TurnedClock

KEY = Key("Run", "team-a", "a")


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture
def queue(clock: TurnedClock) -> Queue:
    return Queue(clock, alarm=clock.alarm)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def health(clock: TurnedClock, queue: Queue, metrics: Metrics) -> Health:
    return Health(queue, metrics, clock, ["Run", "Job"])


def test_who_waits_for_the_api_server_to_start_is_alive_and_not_ready(health: Health, clock: TurnedClock) -> None:
    clock.turn(10 * DEAF_SECONDS)
    assert (health.problems(), health.is_ready) == ([], False)


def test_one_silent_watch_among_others_is_named(health: Health, clock: TurnedClock) -> None:
    health.started()
    clock.turn(DEAF_SECONDS - 1)
    health.heard("Run")
    assert (health.problems(), health.is_ready) == ([], True)
    clock.turn(2)
    assert health.problems() == [f"the watch of Job was last heard {DEAF_SECONDS + 1:.0f} s ago"]


def test_an_object_that_nobody_looks_at_is_a_problem(health: Health, queue: Queue, clock: TurnedClock) -> None:
    queue.add(KEY)
    clock.turn(STUCK_SECONDS + 1)
    assert health.problems() == ["an object has waited 301 s for a worker"]


def test_a_pass_that_does_not_end_is_a_problem(health: Health, queue: Queue, clock: TurnedClock) -> None:
    queue.add(KEY)
    queue.take()
    clock.turn(STUCK_SECONDS + 1)
    assert health.problems() == ["a pass has lasted 301 s"]


def test_an_object_that_waits_out_its_backoff_is_none(health: Health, queue: Queue, clock: TurnedClock) -> None:
    for _ in range(20):
        queue.retry(KEY)
    clock.turn(200)
    assert health.problems() == []


def test_the_ages_are_measured(health: Health, queue: Queue, clock: TurnedClock, metrics: Metrics) -> None:
    health.started()
    queue.add(KEY)
    clock.turn(5)
    health.measure()
    sample = metrics.registry.get_sample_value
    assert sample("dspy_operator_queue_depth") == 1
    assert sample("dspy_operator_queue_oldest_seconds") == 5
    assert sample("dspy_operator_watch_age_seconds", {"kind": "Job"}) == 5
