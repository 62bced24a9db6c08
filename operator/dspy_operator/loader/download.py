"""How far a pull is: its lines folded into bytes, percent and the time that is left. Pure: whoever has a clock says the time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from dspy_operator.contract.documents import LoaderProgress
from dspy_operator.loader.ollama import PullLine

WINDOW_SECONDS = 30.0
"""Of the rate: registries throttle and links share, so that the mean since the start says little of the next minute."""
SAMPLE_SECONDS = 0.5


@dataclass
class _Layer:
    total: int
    completed: int


class Download:
    """One attempt of a pull.

    Ollama fetches layer by layer and tells a layer's size only when it comes to it. The first is the weights, so that the
    whole is known from the first line to within a per mille; percent never goes back, and is 100 only at the end.
    """

    def __init__(self, started_at: float) -> None:
        self.moved_at = started_at
        """When the last byte came."""
        self._layers: dict[str, _Layer] = {}
        self._received = 0
        self._samples: deque[tuple[float, int]] = deque()
        self._percent = 0

    @property
    def completed(self) -> int:
        """Bytes that are on disk, of all attempts."""
        return sum(layer.completed for layer in self._layers.values())

    @property
    def total(self) -> int:
        """Bytes of the layers seen so far."""
        return sum(layer.total for layer in self._layers.values())

    def add(self, line: PullLine, at: float) -> None:
        """Take a line in.

        Args:
            at: seconds of any clock that does not go back.
        """
        if not line.digest or line.total <= 0:
            return
        layer = self._layers.get(line.digest)
        if layer is None:
            # What is there at the first line was not downloaded by this attempt: it must not count for the rate.
            self._layers[line.digest] = _Layer(line.total, line.completed)
            self.moved_at = at
        elif line.completed != layer.completed:
            self._received += max(0, line.completed - layer.completed)
            layer.completed = line.completed
            self.moved_at = at
        self._sample(at)
        self._percent = max(self._percent, min(99, 100 * self.completed // self.total))

    def progress(self) -> LoaderProgress:
        """As the channel has it."""
        return LoaderProgress(
            phase="pulling",
            completed=self.completed,
            total=self.total,
            percent=self._percent,
            eta=self._seconds_left(),
        )

    def _sample(self, at: float) -> None:
        if not self._samples or at - self._samples[-1][0] >= SAMPLE_SECONDS:
            self._samples.append((at, self._received))
        while len(self._samples) > 2 and at - self._samples[0][0] > WINDOW_SECONDS:
            self._samples.popleft()

    def _seconds_left(self) -> float | None:
        if len(self._samples) < 2:
            return None
        (since, before), (until, now) = self._samples[0], self._samples[-1]
        if now <= before:
            return None
        return round((self.total - self.completed) * (until - since) / (now - before), 1)
