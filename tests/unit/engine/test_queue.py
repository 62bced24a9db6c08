"""Keys wait once, are looked at one at a time, fairly, and come again when they should."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dspy_operator.engine.plan import Key
from dspy_operator.engine.queue import Backoff, Queue
from tests.unit.engine.clocks import TurnedClock

A, B = Key("Run", "team-a", "a"), Key("Run", "team-a", "b")


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture
def queue(clock: TurnedClock) -> Queue:
    return Queue(clock, share=lambda: 1.0, alarm=clock.alarm)


def drained(queue: Queue) -> list[Key]:
    """All that waits now, looked at in turn."""
    keys = []
    while (taken := queue.take()) is not None:
        keys.append(taken[0])
        queue.done(taken[0])
    return keys


def test_a_key_that_is_woken_three_times_is_looked_at_once(queue: Queue) -> None:
    for _ in range(3):
        queue.add(A)
    assert drained(queue) == [A]


def test_a_key_that_is_woken_while_it_is_looked_at_is_looked_at_again_and_not_at_once(queue: Queue) -> None:
    queue.add(A)
    assert queue.take() is not None
    queue.add(A)
    assert queue.take() is None, "the first look is still going on"
    queue.done(A)
    assert drained(queue) == [A]


def test_namespaces_take_turns_whatever_one_of_them_brings(queue: Queue) -> None:
    for number in range(100):
        queue.add(Key("Run", "busy", str(number)))
    queue.add(Key("Run", "calm", "only"))
    assert [key.namespace for key in drained(queue)[:3]] == ["busy", "calm", "busy"]


def test_what_changed_goes_before_what_is_looked_over(queue: Queue) -> None:
    for number in range(100):
        queue.add(Key("Run", "team-a", str(number)), background=True)
    queue.add(A)
    assert drained(queue)[0] == A


def test_a_key_that_is_looked_over_and_changes_moves_to_the_front_and_keeps_its_age(
    queue: Queue, clock: TurnedClock
) -> None:
    queue.add(B, background=True)
    queue.add(A, background=True)
    clock.turn(7)
    queue.add(A)
    assert queue.take() == (A, 7.0)


def test_a_key_comes_again_after_the_delay_that_its_controller_asked_for(queue: Queue, clock: TurnedClock) -> None:
    queue.add_after(A, timedelta(seconds=5))
    clock.turn(4.9)
    assert queue.take() is None
    clock.turn(0.2)
    assert drained(queue) == [A]


def test_a_look_for_another_reason_takes_the_place_of_the_one_that_was_due(queue: Queue, clock: TurnedClock) -> None:
    queue.add_after(A, timedelta(seconds=5))
    queue.add(A)
    assert drained(queue) == [A]
    clock.turn(10)
    assert drained(queue) == []


def test_the_last_delay_that_was_asked_for_counts(queue: Queue, clock: TurnedClock) -> None:
    queue.add_after(A, timedelta(seconds=5))
    queue.add_after(A, timedelta(seconds=60))
    clock.turn(59)
    assert drained(queue) == []
    clock.turn(2)
    assert drained(queue) == [A]


def test_failures_in_a_row_wait_longer_each_time_and_a_success_forgets_them(queue: Queue) -> None:
    waits = [queue.retry(A).total_seconds() for _ in range(13)]
    assert waits[:5] == [0.2, 0.4, 0.8, 1.6, 3.2]
    assert waits[-1] == 300.0
    queue.succeeded(A)
    assert queue.retry(A).total_seconds() == 0.2


def test_an_edit_does_not_wait_for_the_end_of_a_backoff(queue: Queue) -> None:
    for _ in range(13):
        queue.retry(A)
    queue.add(A)
    assert drained(queue) == [A]


def test_a_key_that_is_held_waits_whatever_wakes_it(queue: Queue, clock: TurnedClock) -> None:
    queue.hold(A, timedelta(seconds=30))
    queue.add(A)
    queue.add_after(A, timedelta(seconds=1))
    clock.turn(29)
    assert drained(queue) == []
    clock.turn(2)
    assert drained(queue) == [A]


def test_a_key_whose_object_is_gone_waits_for_nothing(queue: Queue, clock: TurnedClock) -> None:
    queue.add(B)
    queue.add(A)
    queue.add_after(A, timedelta(seconds=5))
    queue.forget(A)
    clock.turn(10)
    assert drained(queue) == [B]


@pytest.mark.parametrize(
    ("share", "seconds"),
    [pytest.param(0.0, 0.1, id="at least half the span"), pytest.param(1.0, 0.2, id="at most all of it")],
)
def test_a_backoff_is_spread(share: float, seconds: float) -> None:
    assert Backoff().delay(1, share).total_seconds() == seconds


def test_ages_are_told(queue: Queue, clock: TurnedClock) -> None:
    queue.add(A)
    clock.turn(3)
    queue.add(B)
    clock.turn(4)
    assert (len(queue), queue.oldest_seconds(), queue.longest_run_seconds()) == (2, 7.0, 0.0)
    queue.take()
    clock.turn(5)
    assert (len(queue), queue.oldest_seconds(), queue.longest_run_seconds()) == (1, 9.0, 5.0)


def test_workers_that_wait_are_called_one_for_each_key(clock: TurnedClock) -> None:
    async def play() -> list[Key]:
        queue = Queue(clock, alarm=clock.alarm)
        workers = [asyncio.create_task(queue.get()) for _ in range(3)]
        await asyncio.sleep(0)
        queue.add(A)
        queue.add(B)
        done, waiting = await asyncio.wait(workers, timeout=0.05)
        assert (len(done), len(waiting)) == (2, 1)
        for task in waiting:
            task.cancel()
        return sorted(task.result()[0] for task in done)

    assert asyncio.run(play()) == [A, B]


def test_a_worker_that_is_cancelled_when_it_was_called_leaves_the_key_to_another(clock: TurnedClock) -> None:
    async def play() -> Key:
        queue = Queue(clock, alarm=clock.alarm)
        first = asyncio.create_task(queue.get())
        second = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        queue.add(A)
        first.cancel()
        return (await asyncio.wait_for(second, 5))[0]

    assert asyncio.run(play()) == A


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order: one look at a time for a key, and no wake is lost."""

    keys = st.sampled_from([Key("Run", namespace, name) for namespace in "ab" for name in "xyz"])

    def __init__(self) -> None:
        super().__init__()
        self.clock = TurnedClock()
        self.queue = Queue(self.clock, alarm=self.clock.alarm)
        self.running = Counter[Key]()
        self.owed = set[Key]()
        """Woken since the begin of their last look."""

    @rule(key=keys, background=st.booleans())
    def wake(self, key: Key, background: bool) -> None:
        self.queue.add(key, background=background)
        self.owed.add(key)

    @rule(key=keys, seconds=st.integers(0, 100))
    def wake_later(self, key: Key, seconds: int) -> None:
        self.queue.add_after(key, timedelta(seconds=seconds))

    @rule(key=keys)
    def fail(self, key: Key) -> None:
        self.queue.retry(key)

    @rule(key=keys, seconds=st.integers(1, 100))
    def hold(self, key: Key, seconds: int) -> None:
        self.queue.hold(key, timedelta(seconds=seconds))

    @rule(seconds=st.integers(1, 1000))
    def turn(self, seconds: int) -> None:
        self.clock.turn(seconds)

    @rule()
    def begin(self) -> None:
        taken = self.queue.take()
        if taken is not None:
            self.running[taken[0]] += 1
            self.owed.discard(taken[0])

    @rule(key=keys)
    def end(self, key: Key) -> None:
        if self.running[key]:
            self.running[key] -= 1
            self.queue.done(key)

    @invariant()
    def one_look_at_a_time(self) -> None:
        assert all(count <= 1 for count in self.running.values())

    def teardown(self) -> None:
        for key, count in self.running.items():
            if count:
                self.queue.done(key)
        self.clock.turn(10_000)
        seen = set(drained(self.queue))
        assert self.owed <= seen
        assert self.queue.idle


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
