"""How often the gate promotes when candidate and incumbent are equally good, and when they are not.

    PYTHONPATH=operator python -m tests.perf.gate_simulation

prints a table and exits with 1 when a null effect passes more often than alpha (5 %), binomial noise included. 20,000
series, because among 500 a true rate of 4.8 % exceeds 5 % by chance every third time.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from dspy_operator.contract.gate import Verdict, judge
from dspy_operator.contract.runspec import Gate

Counts = NDArray[np.int64]

SERIES = 20_000
ALPHA = 0.05
GATE = Gate(mode="Auto", alpha=str(ALPHA), min_improvement="0")
STANDARD_ERRORS = 3.3
"""One-sided 99.95 %: over the 36 rows of the table a false alarm in some 50 runs, were the true rate 5 % everywhere."""


@dataclass(frozen=True)
class Null:
    """Candidates as good as what is served, judged one after the other on one test set.

    Half of the rows are easy, half hard (accuracy +- 0.1). A candidate repeats the incumbent's answer with probability
    `correlation`, and answers anew otherwise; so both are exchangeable on each row, and all looks share the incumbent.
    """

    rows: int
    accuracy: float
    correlation: float
    looks: int

    def __str__(self) -> str:
        return f"{self.rows} rows, accuracy {self.accuracy}, correlation {self.correlation}, looks: {self.looks}"


@dataclass(frozen=True)
class Rates:
    """What became of a number of series."""

    series: int
    passed: int
    """Series in which some look had p <= alpha_k, also those where a person would have had to decide."""
    promoted: int

    @property
    def upper_bound(self) -> float:
        """The rate of passed series and its sampling error."""
        rate = self.passed / self.series
        return rate + STANDARD_ERRORS * math.sqrt(rate * (1 - rate) / self.series)


NULLS = [
    Null(rows=rows, accuracy=accuracy, correlation=correlation, looks=looks)
    for rows in (60, 100, 160)
    for accuracy in (0.3, 0.6, 0.85)
    for correlation in (0.0, 0.7)
    for looks in (1, 20)
]


def run_null(null: Null, *, series: int, seed: int) -> Rates:
    """Judge `series` test sets, each `null.looks` times."""
    random = np.random.default_rng(seed)
    won = np.zeros((series, null.looks), dtype=np.int64)
    lost = np.zeros_like(won)
    for rows, accuracy in ((null.rows // 2, null.accuracy - 0.1), (null.rows - null.rows // 2, null.accuracy + 0.1)):
        right = random.binomial(rows, accuracy, size=(series, 1))
        anew = 1 - null.correlation
        won += random.binomial(rows - right, anew * accuracy, size=won.shape)
        lost += random.binomial(right, anew * (1 - accuracy), size=lost.shape)
    return _rates(null.rows, won, lost)


def run_effect(*, rows: int, points: float, discordant: float, series: int, seed: int) -> Rates:
    """Judge once a candidate that is truly better by `points`, where `discordant` of the rows differ."""
    random = np.random.default_rng(seed)
    wins, losses = (discordant + points / 100) / 2, (discordant - points / 100) / 2
    outcomes = random.multinomial(rows, [wins, losses, 1 - wins - losses], size=series)
    return _rates(rows, outcomes[:, :1], outcomes[:, 1:2])


def run_graded_null(*, rows: int, fields: int, series: int, seed: int) -> Rates:
    """Judge once a candidate as good as what is served, where a score is the mean over `fields` equal-or-not fields."""
    random = np.random.default_rng(seed)
    verdicts = (
        _graded(tuple(sorted(ours - theirs)), fields)
        for ours, theirs in zip(
            random.binomial(fields, 0.6, size=(series, rows)),
            random.binomial(fields, 0.6, size=(series, rows)),
            strict=True,
        )
    )
    return _counted(verdicts, series)


def run_continuous_null(*, rows: int, series: int, seed: int) -> Rates:
    """Judge once a candidate as good as what is served, where scores are as various as those of F1."""
    random = np.random.default_rng(seed)
    draws = (random.beta(2, 1, size=(2, rows)) for _ in range(series))
    return _counted((judge(ours.tolist(), theirs.tolist(), GATE, 0) for ours, theirs in draws), series)


def _rates(rows: int, won: Counts, lost: Counts) -> Rates:
    passed = np.zeros(won.shape, dtype=bool)
    promoted = np.zeros(won.shape, dtype=bool)
    for look in range(won.shape[1]):
        pairs, which = np.unique(np.stack([won[:, look], lost[:, look]], axis=1), axis=0, return_inverse=True)
        verdicts = [_binary(rows, int(wins), int(losses), look) for wins, losses in pairs]
        passed[:, look] = np.array([verdict.passed for verdict in verdicts])[which.ravel()]
        promoted[:, look] = np.array([verdict.promote for verdict in verdicts])[which.ravel()]
    return Rates(series=len(won), passed=int(passed.any(axis=1).sum()), promoted=int(promoted.any(axis=1).sum()))


@cache
def _binary(rows: int, won: int, lost: int, looks_before: int) -> Verdict:
    """The verdict depends on rows won and lost only, so each pair is judged once."""
    same = [1] * (rows - won - lost)
    return judge([1] * won + [0] * lost + same, [0] * won + [1] * lost + same, GATE, looks_before)


@cache
def _graded(differences: Sequence[int], fields: int) -> Verdict:
    ours = [max(0, int(difference)) / fields for difference in differences]
    theirs = [max(0, -int(difference)) / fields for difference in differences]
    return judge(ours, theirs, GATE, 0)


def _counted(verdicts: Iterator[Verdict], series: int) -> Rates:
    seen = list(verdicts)
    return Rates(series, sum(verdict.passed for verdict in seen), sum(verdict.promote for verdict in seen))


def main() -> int:
    """Print the table; 1 when a null effect passes too often."""
    nulls: list[tuple[str, Rates]] = []
    for seed, null in enumerate(NULLS):
        nulls.append((str(null), run_null(null, series=SERIES, seed=seed)))
    for seed, fields in enumerate((2, 3)):
        name = f"100 rows, mean over {fields} fields, looks: 1"
        nulls.append((name, run_graded_null(rows=100, fields=fields, series=SERIES // 4, seed=seed)))
    nulls.append(("100 rows, F1-like scores, looks: 1", run_continuous_null(rows=100, series=1_000, seed=0)))
    issue = Null(rows=160, accuracy=0.6, correlation=0.0, looks=1)
    nulls.append((f"500 runs: {issue}", run_null(issue, series=500, seed=0)))
    effects = [
        (f"+{points} points, {rows} rows", run_effect(rows=rows, points=points, discordant=0.35, series=SERIES, seed=0))
        for rows in (60, 100, 160, 200)
        for points in (5, 10, 15, 20)
    ]
    print(f"{'null effect':58}  series  promoted  passed  upper bound")
    for name, rates in nulls:
        promoted, passed = rates.promoted / rates.series, rates.passed / rates.series
        print(f"{name:58}  {rates.series:6}  {promoted:8.2%}  {passed:6.2%}  {rates.upper_bound:11.2%}")
    print(f"\n{'true effect (35 % of the rows differ), 1 look':58}  series  promoted")
    for name, rates in effects:
        print(f"{name:58}  {rates.series:6}  {rates.promoted / rates.series:8.2%}")
    too_often = [name for name, rates in nulls if rates.upper_bound > ALPHA]
    for name in too_often:
        print(f"passes too often: {name}")
    return 1 if too_often else 0


if __name__ == "__main__":
    sys.exit(main())
