"""Racing: the winner that scoring every candidate on every row would have, for no more rows and usually far fewer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import dspy
import pytest

from dspy_operator.runner.optimizers.racing import Race, RacingEvaluate

ROWS, CANDIDATES = 40, 12


def candidates(seed: int, grades: Sequence[float], correlated: bool) -> list[list[float]]:
    """Score of each candidate on each row; correlated: some rows are hard for all of them."""
    draw = random.Random(seed)
    hardness = [draw.random() for _ in range(ROWS)]
    level = [draw.uniform(0.4, 0.95) for _ in range(CANDIDATES)]
    return [
        [
            grades[-1] if (hardness[row] if correlated else draw.random()) + draw.gauss(0, 0.15) < of else grades[0]
            for row in range(ROWS)
        ]
        for of in level
    ]


def winner(scores: Sequence[float]) -> int:
    """As DSPy picks it: the first of the best."""
    return scores.index(max(scores))


def raced(table: list[list[float]], threads: int = 1) -> tuple[list[float], list[int], list[list[int]]]:
    """Scores as DSPy sees them, rows asked of each, and the rows in the order of the set that the race told of each."""
    told: list[list[int]] = []
    race = Race(lambda program, rows, scores, dropped: told.append([row.number for row in rows]))
    rows = [dspy.Example(number=number).with_inputs("number") for number in range(ROWS)]
    scores, asked = [], []
    for candidate in table:
        calls: list[int] = []

        def program(number: int, calls: list[int] = calls) -> Any:
            calls.append(number)
            return dspy.Prediction(number=number)

        def metric(example: Any, prediction: Any, trace: Any = None, candidate: list[float] = candidate) -> float:
            return candidate[int(prediction.number)]

        result = RacingEvaluate(race=race, devset=rows, metric=metric, num_threads=threads)(program)
        scores.append(result.score)
        asked.append(len(calls))
        assert sorted(calls) == told[-1]
    return scores, asked, told


@pytest.mark.parametrize("correlated", [True, False])
@pytest.mark.parametrize("grades", [(0.0, 1.0), (0.3, 0.7)])
@pytest.mark.parametrize("seed", range(5))
def test_the_winner_is_that_of_the_whole_and_nothing_is_asked_twice(
    seed: int, grades: tuple[float, float], correlated: bool
) -> None:
    table = candidates(seed, grades, correlated)
    whole = [round(100 * sum(scores) / ROWS, 2) for scores in table]
    scores, asked, _ = raced(table)
    assert winner(scores) == winner(whole)
    assert scores[winner(whole)] == max(whole)
    assert all(
        count == ROWS or score <= max(scores[:place])
        for place, (score, count) in enumerate(zip(scores, asked, strict=True))
        if place
    )
    assert asked[0] == ROWS


def test_what_is_dropped_depends_on_the_scores_alone() -> None:
    table = candidates(7, (0.0, 1.0), True)
    assert raced(table, threads=1) == raced(table, threads=8)


def test_rows_that_others_got_wrong_are_asked_first() -> None:
    race = Race(lambda program, rows, scores, dropped: None)
    race.ended(None, ["a", "b", "c", "d"], {0: 1.0, 1: 0.0, 2: 1.0, 3: 0.5})
    assert race.order(4) == [1, 3, 0, 2]


def test_a_tie_is_lost_for_the_first_of_the_best_stays() -> None:
    race = Race(lambda program, rows, scores, dropped: None)
    race.ended(None, [1, 2, 3, 4], {0: 1.0, 1: 1.0, 2: 1.0, 3: 0.0})
    assert race.is_lost([0.0], 4)
    assert not race.is_lost([1.0], 4)
