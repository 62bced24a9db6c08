"""What a person reads while it happens: steps with the minutes to expect, lines with the time, how long each step took."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence


class Telling:
    """One demo's."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._minutes: list[tuple[str, float]] = []

    def line(self, words: str) -> None:
        """With the time since the demo began."""
        seconds = int(time.monotonic() - self._began)
        print(f"  {seconds // 60:2}:{seconds % 60:02}  {words}", flush=True)

    @contextlib.contextmanager
    def step(self, name: str, title: str, expected: str) -> Iterator[None]:
        """A part of the demo.

        Args:
            name: in the list of minutes.
            expected: how long, in words.
        """
        print(f"\n== {title} (about {expected})", flush=True)
        began = time.monotonic()
        yield
        self._minutes.append((name, (time.monotonic() - began) / 60))

    @property
    def minutes(self) -> Sequence[tuple[str, float]]:
        """Of each step that is done."""
        return tuple(self._minutes)
