"""What a run keeps back so that its result can be judged."""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import Decimal

from dspy_operator.api.modelendpoint import Pricing
from dspy_operator.api.optimizationrun import Budget

MARGIN = Decimal("1.25")
"""Room over the best-so-far's mean on dev: test rows differ, prompts do not."""
LEAST_TOKENS = 2
"""Of a call, whatever the model: one is sent and one comes back. Nothing else is certain before a server has counted."""


def judgement_calls(test_rows: int, arms: int, calls_per_row: int = 1, repeats: int = 1) -> int:
    """Calls of a judgement: each different arm answers each test row.

    Args:
        test_rows: rows of the test part.
        arms: programs that differ: baseline and candidate, and the incumbent where it is neither.
        calls_per_row: the most that one answer and its score cost: `contract/calls.py`.
        repeats: answers to each row, above 1 only where the model samples.
    """
    return test_rows * arms * calls_per_row * repeats


def judgement_amount(calls: int, mean: Decimal | float) -> Decimal:
    """Tokens or money of a judgement, from the mean of the best-so-far's calls on dev."""
    return calls * Decimal(mean) * MARGIN


def whole(amount: Decimal) -> int:
    """Rounded up: a reserve is never short by a fraction."""
    return math.ceil(amount)


def too_small(
    budget: Budget, needed: int, made_of: str, *, least: int, prices: Iterable[Pricing | None]
) -> tuple[str, str] | None:
    """The limit that cannot pay for the judgement, as far as that is certain: its path, and what is needed and given.

    Args:
        budget: of the run.
        needed: calls that it must be able to pay.
        made_of: what these are, for the message.
        least: calls that the judgement takes, however few its answers take.
        prices: of the endpoints that may be asked; the cheapest counts.
    """
    if budget.calls is not None and budget.calls < needed:
        return "spec.budget.calls", f"{needed} calls are needed ({made_of}), given {budget.calls}"
    tokens, why = (
        least * LEAST_TOKENS,
        f"{least} calls of the judgement, each of a token sent and one answered at least",
    )
    if budget.tokens is not None and budget.tokens < tokens:
        return "spec.budget.tokens", f"at least {tokens} tokens are needed ({why}), given {budget.tokens}"
    cost = least * min((_least_price(pricing) for pricing in prices), default=Decimal(0))
    if budget.cost is not None and Decimal(budget.cost) < cost:
        return "spec.budget.cost", f"at least {cost.normalize():f} is needed ({why}), given {budget.cost}"
    return None


def _least_price(pricing: Pricing | None) -> Decimal:
    """Of one token that is sent and one that comes back."""
    if pricing is None:
        return Decimal(0)
    sent = min(Decimal(price) for price in (pricing.input, pricing.cached_input) if price is not None)
    return (sent + Decimal(pricing.output)) / 1_000_000
