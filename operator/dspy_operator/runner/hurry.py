"""How long the end of a process may still take once a signal has come."""

from __future__ import annotations

import math
import threading
import time

from dspy_operator.runner.breaker import monotonic

SIGNAL_SECONDS = 1.3
"""From a signal to the last moment at which anything is waited for. The process has 2 s, of which its exit takes a part."""
_PAUSE_SECONDS = 0.1


class Hurry:
    """Begun by a signal; from then on everything that the end still waits for shares one deadline."""

    def __init__(self) -> None:
        self._begun = threading.Event()
        self._deadline = math.inf

    def begin(self) -> None:
        """The signal is here. A second one does not put the deadline off."""
        self._deadline = min(self._deadline, monotonic() + SIGNAL_SECONDS)
        self._begun.set()

    def left(self, until: float) -> float:
        """Seconds until a moment of the monotonic clock, or until the deadline where that is earlier; negative when past."""
        return min(until, self._deadline) - monotonic()

    def pause(self, seconds: float) -> None:
        """Wait before another attempt: as long as asked for, but only for a moment once there is hurry."""
        if self._begun.is_set():
            time.sleep(min(seconds, _PAUSE_SECONDS))
        else:
            self._begun.wait(seconds)
