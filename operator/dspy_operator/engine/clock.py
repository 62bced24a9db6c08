"""Time, as an argument: what decides by the clock is tested without waiting."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """The two times that the engine knows."""

    def now(self) -> datetime:
        """UTC; for what people read."""

    def monotonic(self) -> float:
        """Seconds that only grow; for what waits."""


class SystemClock:
    """The machine's."""

    def now(self) -> datetime:
        """UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()
