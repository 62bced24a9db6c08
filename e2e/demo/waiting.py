"""Waits for conditions, with a deadline and with words for what was seen instead."""

from __future__ import annotations

import time
from collections.abc import Callable

from e2e.cluster.command import Failed

SECONDS_BETWEEN_LOOKS = 1.0


def until(what: str, holds: Callable[[], bool], *, seconds: float, why_not: Callable[[], str]) -> None:
    """Raises Failed where it does not hold in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise Failed(f"not within {seconds:.0f} s: {what}\n{why_not()}")
        time.sleep(SECONDS_BETWEEN_LOOKS)
