"""Where the marks of a scatter plot go: score against tokens of an answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 680, 360
LEFT, RIGHT, TOP, BOTTOM = 56, 24, 16, 44
"""Room for the axes, in the units of the view box."""


@dataclass(frozen=True)
class Tick:
    """A line of the grid."""

    at: float
    label: str


@dataclass(frozen=True)
class Dot:
    """A program."""

    x: float
    y: float
    front: bool
    label: str
    """Which arms it is; else empty."""
    anchor: str
    """text-anchor of the label: start, or end near the right edge."""
    title: str


@dataclass(frozen=True)
class Plot:
    """All of it."""

    dots: Sequence[Dot]
    front: str
    """Points of the polyline along the front: steps, since nothing lies between two programs."""
    across: Sequence[Tick]
    up: Sequence[Tick]


def plot(programs: Sequence[Mapping[str, Any]]) -> Plot:
    """Lay out programs, each with `program`, `score`, `tokens`, `front` and maybe `arms`, as report.json has them."""
    tokens, scores = [each["tokens"] for each in programs], [each["score"] for each in programs]
    left, right, across = _scale(min(tokens), max(tokens))
    low, high, up = _scale(min(scores), max(scores), least=0, most=100)

    def x(value: float) -> float:
        return round(LEFT + (value - left) / (right - left) * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    dots = [
        Dot(
            x(each["tokens"]),
            y(each["score"]),
            each["front"],
            ", ".join(each.get("arms", ())),
            "end" if x(each["tokens"]) > 0.7 * WIDTH else "start",
            f"{each['program'][:8]}: {each['score']:.1f} points, {each['tokens']:.0f} tokens an answer",
        )
        for each in programs
    ]
    steps: list[str] = []
    before: Dot | None = None
    for dot in sorted((dot for dot in dots if dot.front), key=lambda dot: dot.x):
        steps += [f"{dot.x},{before.y}"] if before is not None else []
        steps.append(f"{dot.x},{dot.y}")
        before = dot
    return Plot(
        dots,
        " ".join(steps),
        [Tick(x(value), f"{value:,g}") for value in across],
        [Tick(y(value), f"{value:g}") for value in up],
    )


def _scale(
    least_value: float, most_value: float, *, least: float = 0, most: float = math.inf
) -> tuple[float, float, list[float]]:
    """(begin, end, ticks) of an axis that holds two values, in steps of 1, 2 or 5 times a power of ten."""
    span = max(most_value - least_value, abs(most_value) / 20, 1e-9)
    rough = span / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    begin = max(least, math.floor((least_value - span / 20) / step) * step)
    end = min(most, math.ceil((most_value + span / 20) / step) * step)
    count = round((end - begin) / step)
    return begin, end, [round(begin + number * step, 10) for number in range(count + 1)]
