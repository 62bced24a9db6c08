"""The gate of promotion: whether a candidate is better than what is served, or only looks so on these rows.

Both were measured on the same rows, so rows are compared in pairs. One-sided: "not worse" promotes nothing. Every look
at a test set spends a part of alpha, so that all looks together promote by chance with probability alpha at most.
"""

from __future__ import annotations

import math
import operator
import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dspy_operator.contract.runspec import Gate

MOST_FAILED_PERCENT = 2
"""A larger share of examples without an answer blocks promotion: their scores say nothing about the program."""
VISIBLE_SHARE = 10
"""Test rows are too few when not even one in ten of them, won with none lost, could pass."""
EXACT_STEPS = 2**18
"""Work up to which the sign-flip test is exact: always for 18 rows that differ, and for 200 rows whose scores are means
over up to 5 fields or repeats."""
LEAST_FLIPS = 20_000
MOST_FLIPS = 1_000_000
"""They resolve alpha_k up to look 170 at alpha 0.05 (then 1 / flips is above it), in some seconds of pure Python."""

_UNITS = 720_720_000
"""Differences are summed in whole units, so that 1/3 + 2/3 ties with 1: decimals and means of up to 16 are exact."""


class Method(StrEnum):
    """Which test gave p."""

    MCNEMAR = "McNemar"
    """Exact, where every score is 0 or 1."""
    SIGN_FLIP = "SignFlip"
    """Paired permutation, every assignment of signs counted."""
    SIGN_FLIP_SAMPLED = "SignFlipSampled"
    """Paired permutation, assignments of signs drawn from a fixed seed."""


@dataclass(frozen=True)
class Verdict:
    """What the gate says about one candidate."""

    p: float
    """Probability of a gain this large, were candidate and incumbent equally good."""
    alpha: float
    """alpha_k: the largest p that passes at this look."""
    delta: float
    """Gain over the incumbent in points of 0 to 100."""
    passed: bool
    """p, minImprovement and the share of failed examples are all good enough."""
    promote: bool
    """Passed, and no person has to decide: mode Auto and rows enough."""
    why: str
    """One sentence with the numbers."""
    underpowered: bool
    """These rows could not show a gain of 10 points at this look."""
    smallest_effect: float | None
    """Smallest gain in points, won in whole rows, that could pass at this look; None when not even all rows could."""
    method: Method


def alpha_at(alpha: float, look: int) -> float:
    """What look k = 1, 2, ... at one test set may spend: alpha * 6 / (pi^2 k^2); all looks together spend alpha."""
    return alpha * 6 / (math.pi * look) ** 2


def rows_to_win(alpha_k: float) -> int:
    """Fewest rows that pass when all of them are won and none is lost: 2^-w <= alpha_k."""
    rows = 0
    while 0.5**rows > alpha_k:
        rows += 1
    return rows


def smallest_effect(rows: int, alpha_k: float) -> float | None:
    """Smallest gain in points, won in whole rows with none lost, that can pass; None when there is none."""
    wins = rows_to_win(alpha_k)
    return 100 * wins / rows if wins <= rows else None


def is_underpowered(rows: int, alpha_k: float) -> bool:
    """Whether even 10 points won with no row lost could not pass: below 60 rows at look 1 with alpha 0.05."""
    return rows // VISIBLE_SHARE < rows_to_win(alpha_k)


def mcnemar(*, won: int, lost: int) -> float:
    """Exact one-sided McNemar test: P(X >= won) for X binomial over the rows that differ, one half each (McNemar 1947).

    Rows that both got right, or both wrong, say nothing about which is better.
    """
    differing = won + lost
    ways, tail = 1, 0
    for wins in range(differing, won - 1, -1):
        tail += ways
        ways = ways * wins // (differing - wins + 1)
    return tail / (1 << differing)


def sign_flip(differences: Sequence[float], *, flips: int = LEAST_FLIPS) -> tuple[float, Method]:
    """One-sided paired permutation test (Fisher 1935): how often do random signs give a sum at least this large?

    Exact while the sums can be counted, else sampled with p = (1 + hits) / (1 + flips), which is valid for any number
    of flips (Phipson and Smyth 2010). The same differences in any order give the same p.

    Args:
        differences: candidate minus incumbent, row by row, within -1 to 1.
        flips: how many assignments of signs to draw where sampling is needed.
    """
    units = [unit for unit in (round(difference * _UNITS) for difference in differences) if unit]
    # Each difference was rounded by up to half a unit; a tie within that error counts against the candidate.
    reached = sum(units) - len(units)
    sizes = sorted(map(abs, units))
    sums = _sums_of_signs(sizes)
    if sums is None:
        return (1 + _hits(sizes, reached=reached, flips=flips)) / (1 + flips), Method.SIGN_FLIP_SAMPLED
    hits = sum(ways for total, ways in sums.items() if total >= reached)
    return hits / (1 << len(sizes)), Method.SIGN_FLIP


def judge(
    candidate_scores: Sequence[float],
    incumbent_scores: Sequence[float],
    gate: Gate,
    looks_before: int,
    *,
    failed_examples: int = 0,
    total: int | None = None,
    repeats: int = 1,
) -> Verdict:
    """Decide about a candidate; the same scores always give the same verdict.

    Args:
        candidate_scores: one score of 0 to 1 per test row (the mean where a row was measured more than once).
        incumbent_scores: the scores of what is served, on the same rows in the same order.
        gate: mode, alpha and minImprovement.
        looks_before: how often this test set was looked at before.
        failed_examples: rows without an answer, in the arm that has more of them.
        total: answers that were asked for; unset means one of each test row.
        repeats: answers that each score is the mean of.
    Raises:
        ValueError: no rows, rows that do not pair up, or a score outside 0 to 1.
    """
    _check(candidate_scores, incumbent_scores, looks_before)
    rows, look = len(candidate_scores), looks_before + 1
    alpha_k = alpha_at(float(gate.alpha), look)
    differences = list(map(operator.sub, candidate_scores, incumbent_scores))
    won, lost = sum(difference > 0 for difference in differences), sum(difference < 0 for difference in differences)
    if {*candidate_scores, *incumbent_scores} <= {0, 1}:
        p, method = mcnemar(won=won, lost=lost), Method.MCNEMAR
    else:
        p, method = sign_flip(differences, flips=_flips_for(alpha_k))
    delta = round(100 * math.fsum(differences) / rows, 9)
    total = rows if total is None else total

    underpowered, effect = is_underpowered(rows, alpha_k), smallest_effect(rows, alpha_k)
    could = (
        f"the smallest gain in whole rows that could is {_points(effect)} points" if effect else "not even all could"
    )
    too_few = f"10 points won with no row lost could not pass at this look, {could}"
    passed, promote = False, False
    if 100 * failed_examples > MOST_FAILED_PERCENT * total:
        end = f"not promoted, since {failed_examples} of {total} examples failed (at most {MOST_FAILED_PERCENT} % may)"
    elif p > alpha_k:
        end = "not promoted, since that may be chance" + (f", and {too_few}" if underpowered else "")
    elif delta < float(gate.min_improvement):
        end = f"not promoted, since minImprovement asks for {gate.min_improvement} points"
    elif gate.mode == "Manual":
        passed, end = True, "passed, and waits for a person, since promotion is Manual"
    elif underpowered:
        passed, end = True, f"passed, and waits for a person, since {too_few}"
    else:
        passed, promote, end = True, True, "promoted"
    asked = f" asked {repeats} times" if repeats > 1 else ""
    found = f"{_points(delta, '+')} points on {rows} rows{asked} ({won} won, {lost} lost)"
    return Verdict(
        p=p,
        alpha=alpha_k,
        delta=delta,
        passed=passed,
        promote=promote,
        why=f"{found}, p = {p:.3g} where look {look} asks for at most {alpha_k:.3g}: {end}",
        underpowered=underpowered,
        smallest_effect=effect,
        method=method,
    )


def _check(candidate_scores: Sequence[float], incumbent_scores: Sequence[float], looks_before: int) -> None:
    ours, theirs = len(candidate_scores), len(incumbent_scores)
    if not ours or ours != theirs:
        raise ValueError(f"scores do not pair up: {ours} of the candidate, {theirs} of the incumbent")
    for score in (*candidate_scores, *incumbent_scores):
        if not 0 <= score <= 1:  # also refuses NaN
            raise ValueError(f"a score is 0 to 1, not {score}")
    if looks_before < 0:
        raise ValueError(f"looks_before is {looks_before}")


def _sums_of_signs(sizes: Sequence[int]) -> dict[int, int] | None:
    """Every sum that signs can give -> in how many ways; None when that is too much work."""
    sums, steps = {0: 1}, 0
    for size in sizes:
        steps += len(sums)
        if steps > EXACT_STEPS:
            return None
        wider: dict[int, int] = {}
        for total, ways in sums.items():
            wider[total + size] = wider.get(total + size, 0) + ways
            wider[total - size] = wider.get(total - size, 0) + ways
        sums = wider
    return sums


def _flips_for(alpha_k: float) -> int:
    """Flips that give some 20 hits where p is just alpha_k, so that sampling does not decide."""
    return min(MOST_FLIPS, max(LEAST_FLIPS, math.ceil(20 / alpha_k)))


def _hits(sizes: Sequence[int], *, reached: int, flips: int) -> int:
    """How many random assignments of signs reach a sum: a byte draws 8 signs, a table holds what they add up to."""
    tables = []
    for start in range(0, len(sizes), 8):
        positives = [0]
        for size in [*sizes[start : start + 8], *[0] * 8][:8]:
            positives += [positive + size for positive in positives]
        tables.append(positives)
    draw = random.Random(0).randbytes
    needed = sum(sizes) + reached  # sum of signs = 2 x positives - all
    return sum(2 * sum(map(operator.getitem, tables, draw(len(tables)))) >= needed for _ in range(flips))


def _points(points: float, sign: str = "") -> str:
    return f"{points:{sign}.2f}".removesuffix("0").removesuffix(".0")
