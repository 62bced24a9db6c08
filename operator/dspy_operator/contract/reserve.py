"""What a run keeps back so that its result can be judged."""

from __future__ import annotations

import math
from decimal import Decimal

MARGIN = Decimal("1.25")
"""Room over the best-so-far's mean on dev: test rows differ, prompts do not."""


def judgement_calls(test_rows: int, arms: int, calls_per_row: int = 1, repeats: int = 1) -> int:
    """Calls of a judgement: each different arm answers each test row.

    Args:
        test_rows: rows of the test part.
        arms: programs that differ: baseline and candidate, and the incumbent where it is neither.
        calls_per_row: the most that one answer and its score cost: `contract/calls.py`.
        repeats: answers to each row, above 1 only where the model samples.
    """
    return test_rows * arms * calls_per_row * repeats


def judgement_amount(calls: int, mean: Decimal | float) -> Decimal:
    """Tokens or money of a judgement, from the mean of the best-so-far's calls on dev."""
    return calls * Decimal(mean) * MARGIN


def whole(amount: Decimal) -> int:
    """Rounded up: a reserve is never short by a fraction."""
    return math.ceil(amount)
