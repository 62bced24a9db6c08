"""Telling a bad moment from an outage, for one endpoint."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from dspy_operator.contract.exits import Reason

UNANSWERED_IN_A_ROW = 10
"""Requests in a row without an answer, over all threads, that open the breaker. At 20 % random 500s a run of 10 has
probability 1e-7; an outage is found within 10 + threads requests (DSPy alone: 202 to 344 requests, all scored 0)."""
LIMITED_SECONDS = 300.0
"""How long an endpoint may answer 429 only."""
REFUSED_IN_A_ROW = 10
"""Requests in a row refused as invalid (HTTP 400) that end the run: then it is not one bad row but every request."""
TIMEOUTS_OF_ONE_KEY = 3
FAILURES_OF_ONE_KEY = 8
"""Time-outs, or other transient failures, of one request after which it is given up while others succeed. At 20 % random
500s a request fails 8 times in a row once in 400,000."""
BACKOFF_SECONDS = (0.25, 20.0)
"""Base and cap of the exponential backoff, full jitter."""


class Trouble(StrEnum):
    """Why a request was not answered."""

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    SERVER = "server error"
    GARBAGE = "no completion in the answer"
    LIMITED = "rate limit"


@dataclass
class Breaker:
    """State of one endpoint. Not thread-safe: the Ledger holds its lock around every call."""

    endpoint: str
    in_a_row: int = 0
    kinds: Counter[Trouble] = field(default_factory=Counter)
    refused_in_a_row: int = 0
    limited_since: float | None = None
    answered_to: float | None = None
    """When the latest of the requests that were answered was sent (monotonic); None before the first answer."""
    last_words: str = ""
    not_before: float = 0.0
    """monotonic time before which nothing is sent, as Retry-After asked."""

    def answered(self, sent_at: float) -> None:
        """An answer came to a request that was sent then."""
        self.answered_to = sent_at if self.answered_to is None else max(sent_at, self.answered_to)
        self.in_a_row = 0
        self.kinds.clear()
        self.refused_in_a_row = 0
        self.limited_since = None

    def refused(self, words: str) -> tuple[Reason, str] | None:
        """A request was refused as invalid; the endpoint is alive."""
        self.in_a_row = 0
        self.refused_in_a_row += 1
        if self.refused_in_a_row >= REFUSED_IN_A_ROW:
            return (
                Reason.MODEL_ANSWERS_UNUSABLE,
                f"{self.endpoint} refused {self.refused_in_a_row} requests in a row: {words}",
            )
        return None

    def failed(self, trouble: Trouble, words: str, now: float) -> tuple[Reason, str] | None:
        """A request went unanswered. Returns why the run must stop, once the breaker opens."""
        self.last_words = words
        if trouble is Trouble.LIMITED:
            self.limited_since = self.limited_since if self.limited_since is not None else now
            if now - self.limited_since >= LIMITED_SECONDS:
                return (
                    Reason.ENDPOINT_UNAVAILABLE,
                    f"{self.endpoint} answered 429 only for {now - self.limited_since:.0f} s: {words}",
                )
            return None
        self.in_a_row += 1
        self.kinds[trouble] += 1
        if self.in_a_row < UNANSWERED_IN_A_ROW:
            return None
        kind, _ = self.kinds.most_common(1)[0]
        reason = Reason.MODEL_ANSWERS_UNUSABLE if kind is Trouble.GARBAGE else Reason.ENDPOINT_UNAVAILABLE
        return reason, f"{self.endpoint} left {self.in_a_row} requests in a row unanswered ({kind.value}): {words}"

    def hold_back(self, retry_after: float | None, now: float) -> None:
        """Honour Retry-After for the whole endpoint."""
        if retry_after is not None:
            self.not_before = max(self.not_before, now + min(retry_after, LIMITED_SECONDS))


@dataclass
class KeyTroubles:
    """Failures of one request, to find the one that can never be answered."""

    timeouts: int = 0
    others: int = 0
    first_at: float = 0.0
    """When this request first failed (monotonic): only what was sent later shows that the endpoint answers others."""

    def count(self, trouble: Trouble) -> None:
        """One more."""
        if trouble is Trouble.TIMEOUT:
            self.timeouts += 1
        elif trouble is not Trouble.LIMITED:
            self.others += 1

    @property
    def suspect(self) -> bool:
        """Whether this request failed often enough to be given up, if the endpoint answers others."""
        return self.timeouts >= TIMEOUTS_OF_ONE_KEY or self.timeouts + self.others >= FAILURES_OF_ONE_KEY


def backoff_seconds(attempt: int, jitter: random.Random) -> float:
    """Full-jitter exponential backoff: uniform in 0 .. min(cap, base x 2^attempt)."""
    base, cap = BACKOFF_SECONDS
    return jitter.uniform(0.0, min(cap, base * 2.0 ** min(attempt, 10)))


def monotonic() -> float:
    """Seconds on a clock that never jumps."""
    return time.monotonic()
