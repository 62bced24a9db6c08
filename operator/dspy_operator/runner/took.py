"""What answers took, in tokens and seconds, and which programs give the best score for their tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MOST_PROGRAMS = 200
"""More are not told one by one: the report lies in a ConfigMap."""
PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Took:
    """Calls of the task model for one answer or several, as the journal has them: the same where they are replayed."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    milliseconds: int = 0
    """From request to answer, one call after the other; without waiting for a slot, and without attempts that failed.

    Whole, so that a sum is the same in whatever order threads add."""

    @property
    def tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Took) -> Took:
        return Took(
            self.calls + other.calls,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.milliseconds + other.milliseconds,
        )

    def __sub__(self, other: Took) -> Took:
        return Took(
            self.calls - other.calls,
            self.input_tokens - other.input_tokens,
            self.output_tokens - other.output_tokens,
            self.milliseconds - other.milliseconds,
        )

    def document(self) -> dict[str, Any]:
        """As examples.jsonl.zst has it."""
        return {
            "calls": self.calls,
            "inputTokens": self.input_tokens,
            "outputTokens": self.output_tokens,
            "seconds": self.milliseconds / 1000,
        }


@dataclass(frozen=True)
class Point:
    """A program that was scored on all rows that count."""

    program: str
    """Its hash."""
    score: float
    """0 to 100."""
    took: Took
    """All its answers together."""
    rows: int
    """Answers that `took` is of."""

    @property
    def tokens(self) -> float:
        """Mean of an answer."""
        return self.took.tokens / self.rows


def distribution(answers: Sequence[Took]) -> dict[str, Any]:
    """Mean, percentiles (nearest rank: values that some answer had) and most of calls, tokens and seconds.

    Args:
        answers: one of each row that was answered; at least one.
    """
    documents = [answer.document() for answer in answers]

    def of(name: str) -> dict[str, Any]:
        values = sorted(document[name] for document in documents)
        ranked = {f"p{percent}": values[math.ceil(percent / 100 * len(values)) - 1] for percent in PERCENTILES}
        return {"mean": round(math.fsum(values) / len(values), 4), **ranked, "max": values[-1]}

    return {"answers": len(documents), **{name: of(name) for name in documents[0]}}


def front(points: Sequence[Point]) -> set[str]:
    """Hashes of the programs on the Pareto front: no other has at least their score for fewer tokens, or more for as many."""
    found: set[str] = set()
    last: Point | None = None
    for point in sorted(points, key=lambda point: (point.tokens, -point.score)):
        if last is None or point.score > last.score or (point.score, point.tokens) == (last.score, last.tokens):
            found.add(point.program)
            last = point
    return found


def programs_document(points: Sequence[Point], arms: Mapping[str, str]) -> dict[str, Any]:
    """Score against tokens of an answer, of every program that was scored, in the order in which they were.

    Args:
        points: of the same rows.
        arms: name -> hash of the program that was judged.
    """
    on_front = front(points)
    judged = set(arms.values())

    def worth(point: Point) -> tuple[bool, bool, float]:
        return point.program in judged, point.program in on_front, point.score

    shown = {point.program for point in sorted(points, key=worth, reverse=True)[:MOST_PROGRAMS]}
    return {
        "scored": len(points),
        "shown": [
            {
                "program": point.program,
                "score": round(point.score, 4),
                "tokens": round(point.tokens, 2),
                "seconds": round(point.took.milliseconds / point.rows / 1000, 3),
                "front": point.program in on_front,
                **(
                    {"arms": named}
                    if (named := [name for name, hashed in arms.items() if hashed == point.program])
                    else {}
                ),
            }
            for point in points
            if point.program in shown
        ],
    }
