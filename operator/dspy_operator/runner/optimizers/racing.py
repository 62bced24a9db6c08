"""Evaluations that end as soon as their program cannot become the best any more: the same winner, for fewer calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import dspy

from dspy_operator.runner.watch import score_of

_BLOCKS = 8
"""In how many parts the rows are asked at most; by the rows alone, so that other threads, or a resume, drop the same."""
_LEAST = 8
"""Rows of a part: fewer would leave threads idle."""


class Race:
    """The candidates of one optimization that keeps the first of those with the highest score.

    Rows that earlier candidates got wrong are asked first: what cannot win shows early.

    Args:
        on_evaluation: told a candidate, the rows that it was asked, their scores and whether it was dropped, once for each.
    """

    def __init__(self, on_evaluation: Callable[..., None]) -> None:
        self._on_evaluation = on_evaluation
        self._best = -1.0
        self._seen: dict[int, list[float]] = {}

    def order(self, rows: int) -> list[int]:
        """The rows' places, the hardest first."""

        def mean(row: int) -> float:
            scores = self._seen.get(row, [])
            return sum(scores) / len(scores) if scores else 1.0

        return sorted(range(rows), key=mean)

    def is_lost(self, scores: Sequence[float], rows: int) -> bool:
        """Whether the rest of the rows, were it all right, would not make it better than the best; DSPy rounds so."""
        most = sum(scores) + rows - len(scores)
        return round(100 * most / rows + 1e-9, 2) <= self._best

    def ended(self, program: Any, rows: Sequence[Any], scores: dict[int, float]) -> float:
        """Take what a candidate came to.

        Args:
            rows: all of them.
            scores: by the place of the row; of a candidate that was dropped, those that it was asked.

        Returns:
            Its score as DSPy rounds it, 0 to 100; a dropped one counts as wrong on what it was not asked.
        """
        for place, score in scores.items():
            self._seen.setdefault(place, []).append(score)
        score = round(100 * sum(scores.values()) / len(rows), 2)
        self._best = max(self._best, score)
        asked = [rows[place] for place in scores]
        self._on_evaluation(program, asked, list(scores.values()), dropped=len(asked) < len(rows))
        return score


class RacingEvaluate(dspy.Evaluate):  # type: ignore[misc]  # DSPy is untyped here
    """dspy.Evaluate of one candidate in a race."""

    marks_itself = True
    """The race tells each candidate once; the evaluations of its parts are no candidates."""

    def __init__(self, *, race: Race, **options: Any) -> None:
        super().__init__(**options)
        self._race = race

    def __call__(self, program: Any, metric: Any = None, **options: Any) -> Any:
        """The results of the rows that were asked, in the order of the set."""
        rows = self.devset
        results: dict[int, Any] = {}
        order, size = self._race.order(len(rows)), max(_LEAST, -(-len(rows) // _BLOCKS))
        for start in range(0, len(rows), size):
            part = order[start : start + size]
            asked = super().__call__(program, metric=metric, devset=[rows[place] for place in part], **options)
            results.update(zip(part, asked.results, strict=True))
            if self._race.is_lost([score_of(score) for *_, score in results.values()], len(rows)):
                break
        in_order = {place: results[place] for place in sorted(results)}
        score = self._race.ended(program, rows, {place: score_of(result[2]) for place, result in in_order.items()})
        return dspy.evaluate.EvaluationResult(score=score, results=list(in_order.values()))
