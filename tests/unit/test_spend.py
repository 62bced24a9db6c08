"""Spend: what tokens cost to the last digit, and when one more request is one too many."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from dspy_operator.api.modelendpoint import Pricing
from dspy_operator.api.optimizationrun import Budget
from dspy_operator.runner.spend import InFlight, Limits, Reserve, Tally, Tokens, exceeded, price, total

PRICES = {"currency": "USD", "input": "0.15", "output": "0.60"}


@pytest.mark.parametrize(
    ("usage", "want"),
    [
        pytest.param({"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}, Tokens(7, 0, 3), id="as reported"),
        pytest.param(
            {"input_tokens": 7, "cache_read_tokens": 5, "output_tokens": 3}, Tokens(7, 5, 3), id="with a cache"
        ),
        pytest.param({"input_tokens": 7, "cache_read_tokens": None}, Tokens(7), id="what is null is none"),
        pytest.param({}, Tokens(), id="an empty block"),
        pytest.param(None, Tokens(), id="no block"),
    ],
)
def test_tokens_are_what_the_server_reports(usage: dict[str, Any] | None, want: Tokens) -> None:
    assert Tokens.of(usage) == want


@pytest.mark.parametrize(
    ("tokens", "pricing", "want"),
    [
        pytest.param(Tokens(1_000_000), PRICES, "0.15", id="a million input tokens"),
        pytest.param(Tokens(0, 0, 1_000_000), PRICES, "0.60", id="a million output tokens"),
        pytest.param(Tokens(1, 0, 1), PRICES, "0.00000075", id="one of each, exactly"),
        pytest.param(Tokens(100, 40), PRICES, "0.000015", id="cached ones cost the same without a price of their own"),
        pytest.param(Tokens(100, 40), PRICES | {"cachedInput": "0.075"}, "0.000012", id="and less with one"),
        pytest.param(Tokens(100, 100), PRICES | {"cachedInput": "0"}, "0", id="or nothing"),
        pytest.param(Tokens(100, 0, 100), None, "0", id="without a price list everything is free"),
    ],
)
def test_money_is_exact(tokens: Tokens, pricing: dict[str, str] | None, want: str) -> None:
    assert price(tokens, Pricing.model_validate(pricing) if pricing else None) == Decimal(want)


def test_ten_thousand_answers_add_up_without_a_rounding() -> None:
    tally, pricing = Tally(), Pricing.model_validate(PRICES | {"cachedInput": "0.0375"})
    for number in range(10_000):
        tokens = Tokens(number % 97, number % 13, number % 7)
        tally.add(tokens, price(tokens, pricing))
    uncached = tally.input_tokens - tally.cached_input_tokens
    millions = (
        uncached * Decimal("0.15")
        + tally.cached_input_tokens * Decimal("0.0375")
        + tally.output_tokens * Decimal("0.60")
    )
    assert tally.cost == millions / 1_000_000
    assert tally.document().cost == f"{tally.cost:f}"


def test_roles_add_up() -> None:
    task = Tally(
        calls=3,
        replayed=1,
        failed=1,
        answered=2,
        input_tokens=20,
        cached_input_tokens=5,
        output_tokens=4,
        cost=Decimal("0.1"),
    )
    prompt = Tally(calls=1, answered=1, input_tokens=9, output_tokens=8, cost=Decimal("0.02"))
    both = total({"task": task, "prompt": prompt})
    assert both == Tally(4, 1, 1, 3, 29, 5, 12, Decimal("0.12"))
    assert both.tokens == 41
    assert task.calls == 3


SPENT = Tally(calls=10, answered=10, input_tokens=900, output_tokens=100, cost=Decimal("0.5"))


@pytest.mark.parametrize(
    ("limits", "reserve", "in_flight", "want"),
    [
        pytest.param(Limits(), Reserve(), InFlight(), None, id="no limit"),
        pytest.param(Limits(calls=11), Reserve(), InFlight(), None, id="one call is left"),
        pytest.param(Limits(calls=10), Reserve(), InFlight(), "10 of 10 calls used", id="none is left"),
        pytest.param(Limits(calls=9), Reserve(), InFlight(), "10 of 9 calls used", id="the budget was lowered"),
        pytest.param(
            Limits(calls=34),
            Reserve(calls=24),
            InFlight(),
            "10 of 34 calls used (the rest is kept for the judgement)",
            id="what is left is kept for the judgement",
        ),
        pytest.param(Limits(calls=35), Reserve(calls=24), InFlight(), None, id="one more is left beyond that"),
        pytest.param(Limits(tokens=1001), Reserve(), InFlight(), None, id="a token is left"),
        pytest.param(Limits(tokens=1000), Reserve(), InFlight(), "1000 of 1000 tokens used", id="no token is left"),
        pytest.param(
            Limits(tokens=1300),
            Reserve(),
            InFlight(tokens=300),
            "1000 of 1300 tokens used",
            id="what is on the wire counts",
        ),
        pytest.param(Limits(tokens=1301), Reserve(), InFlight(tokens=300), None, id="and no more than that"),
        pytest.param(
            Limits(tokens=1500),
            Reserve(tokens=500),
            InFlight(),
            "1000 of 1500 tokens used (the rest is kept for the judgement)",
            id="tokens are kept for the judgement too",
        ),
        pytest.param(Limits(cost=Decimal("0.51")), Reserve(), InFlight(), None, id="a cent is left"),
        pytest.param(
            Limits(cost=Decimal("0.5")), Reserve(), InFlight(), "0.5 of 0.5 money used", id="no money is left"
        ),
        pytest.param(
            Limits(cost=Decimal("0.6")),
            Reserve(cost=Decimal("0.05")),
            InFlight(cost=Decimal("0.05")),
            "0.5 of 0.6 money used (the rest is kept for the judgement)",
            id="on the wire and kept, together",
        ),
        pytest.param(Limits(seconds=61), Reserve(), InFlight(), None, id="a second is left"),
        pytest.param(Limits(seconds=60), Reserve(), InFlight(), "60 of 60 seconds used", id="no time is left"),
        pytest.param(
            Limits(seconds=90),
            Reserve(seconds=30),
            InFlight(),
            "60 of 90 seconds used (the rest is kept for the judgement)",
            id="time is kept for the judgement too",
        ),
    ],
)
def test_one_more_request_is_refused(limits: Limits, reserve: Reserve, in_flight: InFlight, want: str | None) -> None:
    assert exceeded(SPENT, 60, in_flight, limits, reserve) == want


def test_a_budget_becomes_numbers() -> None:
    budget = Budget.model_validate({"calls": 5, "tokens": 7, "cost": "1.50", "wallClock": "1h30m"})
    assert Limits.of(budget) == Limits(5, 7, Decimal("1.50"), 5400.0)
    assert Limits.of(Budget.model_validate({"calls": 5})) == Limits(calls=5)
