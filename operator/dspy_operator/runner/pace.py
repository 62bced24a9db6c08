"""How many requests an endpoint is asked at once: additive increase, multiplicative decrease, as TCP does (Chiu and Jain 1989)."""

from __future__ import annotations

import math


class Pace:
    """Half as many at once after a 429, and one more after as many answers as there are requests at a time.

    Without it every slot is full again at once, and what a server cannot take costs a call of the budget each time
    (decision 021). Not thread-safe: the Ledger holds its lock around every call.
    """

    def __init__(self) -> None:
        self._most = math.inf
        self._cut_at = -math.inf

    def limited(self, sent_at: float, now: float, on_wire: int) -> None:
        """A 429 came. What was on the wire when the pace was halved says nothing of the new one.

        Args:
            sent_at: when the request was sent (monotonic).
            on_wire: requests at that endpoint, this one included.
        """
        if sent_at >= self._cut_at:
            self._most = max(1.0, min(self._most, on_wire) / 2)
            self._cut_at = now

    def answered(self) -> None:
        """An answer came."""
        self._most += 1 / self._most

    def limit(self, slots: int) -> int:
        """How many of the endpoint's slots may be used now, at least one of them."""
        return slots if self._most >= slots else max(1, int(self._most))
