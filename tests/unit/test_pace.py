"""How many requests at once: half after a 429, slowly more again, and never none."""

from __future__ import annotations

import pytest

from dspy_operator.runner.pace import Pace


def test_until_a_429_every_slot_is_used() -> None:
    pace = Pace()
    pace.answered()
    assert pace.limit(256) == 256


@pytest.mark.parametrize(("on_wire", "want"), [(16, 8), (5, 2), (1, 1)])
def test_a_429_halves_what_was_on_the_wire(on_wire: int, want: int) -> None:
    pace = Pace()
    pace.limited(sent_at=1.0, now=2.0, on_wire=on_wire)
    assert pace.limit(16) == want


def test_the_429s_of_one_burst_halve_once() -> None:
    pace = Pace()
    for sent_at in (1.0, 1.1, 1.2):
        pace.limited(sent_at, now=2.0, on_wire=16)
    assert pace.limit(16) == 8
    pace.limited(sent_at=2.1, now=3.0, on_wire=8)
    assert pace.limit(16) == 4


def test_many_429s_leave_one_at_a_time() -> None:
    pace = Pace()
    for second in range(10):
        pace.limited(sent_at=second, now=second, on_wire=16)
    assert pace.limit(16) == 1


def test_as_many_answers_as_requests_at_a_time_allow_one_more_up_to_the_slots() -> None:
    pace = Pace()
    pace.limited(sent_at=1.0, now=2.0, on_wire=8)
    limits = []
    for _ in range(100):
        pace.answered()
        limits.append(pace.limit(8))
    assert limits[3] == 4 and limits[4] == 5  # 4 + 1/4 + 1/4.25 + ...
    assert limits == sorted(limits) and limits[-1] == 8
