"""What was spent and what may be: usage by role, money by price list, and the limits a request must pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from dspy_operator.api.fields import parse_duration
from dspy_operator.api.modelendpoint import Pricing
from dspy_operator.api.optimizationrun import Budget
from dspy_operator.contract.runspec import Usage

MILLION = Decimal(1_000_000)


@dataclass(frozen=True)
class Tokens:
    """Tokens of one answer, as the server reported them."""

    input: int = 0
    cached: int = 0
    output: int = 0

    @classmethod
    def of(cls, usage: Mapping[str, Any] | None) -> Tokens:
        """From lm15's usage document; what a server does not report counts as 0 (preflight refuses that where it matters)."""
        usage = usage or {}
        return cls(usage.get("input_tokens") or 0, usage.get("cache_read_tokens") or 0, usage.get("output_tokens") or 0)

    @property
    def total(self) -> int:
        """Input and output together."""
        return self.input + self.output


def earlier(known: Usage) -> dict[str, Usage]:
    """What only the account knows of, as a role of its own, so that all roles together are the whole usage; else nothing."""
    return {"earlier": known} if known.calls or known.tokens or Decimal(known.cost) else {}


def price(tokens: Tokens, pricing: Pricing | None) -> Decimal:
    """What these tokens cost, exactly; 0 without a price list."""
    if pricing is None:
        return Decimal(0)
    cached = Decimal(pricing.cached_input) if pricing.cached_input is not None else Decimal(pricing.input)
    uncached = tokens.input - tokens.cached
    return (
        uncached * Decimal(pricing.input) + tokens.cached * cached + tokens.output * Decimal(pricing.output)
    ) / MILLION


@dataclass
class Tally:
    """Spend of one role (or of all)."""

    calls: int = 0
    replayed: int = 0
    failed: int = 0
    answered: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    cost: Decimal = field(default_factory=Decimal)

    @property
    def tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def add(self, tokens: Tokens, cost: Decimal) -> None:
        """One answer."""
        self.answered += 1
        self.input_tokens += tokens.input
        self.cached_input_tokens += tokens.cached
        self.output_tokens += tokens.output
        self.cost += cost

    def document(self) -> Usage:
        """As the contract writes it."""
        return Usage(
            calls=self.calls,
            replayed=self.replayed,
            failed=self.failed,
            input_tokens=self.input_tokens,
            cached_input_tokens=self.cached_input_tokens,
            output_tokens=self.output_tokens,
            cost=f"{self.cost:f}",
        )


def total(tallies: Mapping[str, Tally]) -> Tally:
    """All roles together."""
    out = Tally()
    for tally in tallies.values():
        out = replace(
            out,
            calls=out.calls + tally.calls,
            replayed=out.replayed + tally.replayed,
            failed=out.failed + tally.failed,
            answered=out.answered + tally.answered,
            input_tokens=out.input_tokens + tally.input_tokens,
            cached_input_tokens=out.cached_input_tokens + tally.cached_input_tokens,
            output_tokens=out.output_tokens + tally.output_tokens,
            cost=out.cost + tally.cost,
        )
    return out


@dataclass(frozen=True)
class Limits:
    """A budget as numbers; None is no limit."""

    calls: int | None = None
    tokens: int | None = None
    cost: Decimal | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, budget: Budget) -> Limits:
        """From the API's budget."""
        return cls(
            budget.calls,
            budget.tokens,
            Decimal(budget.cost) if budget.cost is not None else None,
            parse_duration(budget.wall_clock).total_seconds() if budget.wall_clock is not None else None,
        )


@dataclass(frozen=True)
class Reserve:
    """What a phase must leave for the judgement."""

    calls: int = 0
    tokens: int = 0
    cost: Decimal = field(default_factory=Decimal)
    seconds: float = 0.0

    def part(self, calls: int) -> Reserve:
        """What belongs to some of its calls."""
        share = Decimal(calls) / self.calls if self.calls else Decimal(0)
        return Reserve(calls, int(self.tokens * share), self.cost * share, self.seconds * float(share))


@dataclass(frozen=True)
class InFlight:
    """What requests on the wire will probably add: each one the mean of those answered so far."""

    tokens: int = 0
    cost: Decimal = field(default_factory=Decimal)


def exceeded(spent: Tally, seconds: float, in_flight: InFlight, limits: Limits, reserve: Reserve) -> str | None:
    """Why one more request must not be sent, or None.

    Calls are exact: a call counts from the moment it is sent. Tokens and cost are known only from the answer, so requests on
    the wire are counted with their expected size; the overshoot is at most what is in flight.
    """
    kept = " (the rest is kept for the judgement)"
    if limits.calls is not None and spent.calls + 1 > limits.calls - reserve.calls:
        return f"{spent.calls} of {limits.calls} calls used{kept if reserve.calls else ''}"
    if limits.tokens is not None and spent.tokens + in_flight.tokens >= limits.tokens - reserve.tokens:
        return f"{spent.tokens} of {limits.tokens} tokens used{kept if reserve.tokens else ''}"
    if limits.cost is not None and spent.cost + in_flight.cost >= limits.cost - reserve.cost:
        return f"{spent.cost:f} of {limits.cost:f} money used{kept if reserve.cost else ''}"
    if limits.seconds is not None and seconds >= limits.seconds - reserve.seconds:
        return f"{seconds:.0f} of {limits.seconds:.0f} seconds used{kept if reserve.seconds else ''}"
    return None
