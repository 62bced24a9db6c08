"""95 % intervals of a mean score and of a gain, over rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_Z = 1.959963984540054
_RESAMPLES = 10_000


def of_mean(scores: Sequence[float]) -> tuple[float, float]:
    """Of a mean score, in points of 0 to 100.

    Where every score is 0 or 1 Wilson's (1927), which holds for few rows and near 0 and 100; else the percentile bootstrap
    over rows (Efron 1979), from a fixed seed.

    Args:
        scores: 0 to 1, at least one.
    """
    if not set(scores) <= {0, 1}:
        return _resampled(scores)
    rows, share, square = len(scores), sum(scores) / len(scores), _Z**2
    middle = (share + square / (2 * rows)) / (1 + square / rows)
    half = _Z * math.sqrt(share * (1 - share) / rows + square / (4 * rows**2)) / (1 + square / rows)
    return 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)


def of_gain(differences: Sequence[float]) -> tuple[float, float]:
    """Of a mean difference of paired scores, in points.

    Where every difference is -1, 0 or 1 as Agresti and Min (2005): Wald's, with half a row more in each cell; else the
    percentile bootstrap over rows, from a fixed seed.

    Args:
        differences: within -1 to 1, at least one.
    """
    if not set(differences) <= {-1, 0, 1}:
        return _resampled(differences)
    rows = len(differences) + 2
    won = sum(difference > 0 for difference in differences) + 0.5
    lost = sum(difference < 0 for difference in differences) + 0.5
    gain = (won - lost) / rows
    half = _Z * math.sqrt((won + lost) - (won - lost) ** 2 / rows) / rows
    return 100 * max(-1.0, gain - half), 100 * min(1.0, gain + half)


def _resampled(values: Sequence[float]) -> tuple[float, float]:
    found, draw = np.asarray(values, dtype=float), np.random.default_rng(0)
    means = [found[draw.integers(0, len(found), len(found))].mean() for _ in range(_RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return 100 * float(low), 100 * float(high)
