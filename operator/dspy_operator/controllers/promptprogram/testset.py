"""How worn the test rows are, and what they still can show."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from dspy_operator.api.promptprogram import Promotion
from dspy_operator.api.reasons import ProgramReason
from dspy_operator.contract.gate import alpha_at, is_underpowered, smallest_effect
from dspy_operator.engine.plan import Body

DEFAULT_ALPHA = "0.05"
MOST_DECIMALS = 9


@dataclass(frozen=True)
class Use:
    """What was done with a program's test rows."""

    looks: int
    """Judgements of all its runs."""
    alpha: float
    """What p the next one has to reach."""

    def document(self) -> dict[str, Any]:
        """For `status.testUse`."""
        return {"looks": self.looks, "alphaLeft": decimal_text(self.alpha)}


def use_of(dataset: dict[str, Any] | None, account: Body | None, promotion: Promotion | None) -> Use | None:
    """None before the rows were validated."""
    if dataset is None or not dataset.get("testDigest"):
        return None
    looks = looks_at(account, dataset["testDigest"])
    return Use(looks, alpha_at(alpha_of(promotion), looks + 1))


def looks_at(account: Body | None, test_digest: str) -> int:
    """Looks at a test set, over all runs: `contract.documents.Account.looks` without the rest of a thousand entries."""
    entries = ((account or {}).get("data") or {}).values()
    looks = 0
    for text in entries:
        if test_digest in text:
            looks += int((json.loads(text).get("testLooks") or {}).get(test_digest, 0))
    return looks


def alpha_of(promotion: Promotion | None) -> float:
    """The probability of promoting by chance that all looks share."""
    return float((promotion.alpha if promotion else None) or DEFAULT_ALPHA)


def too_few(rows: int, promotion: Promotion | None) -> ProgramReason:
    """Why rows cannot show a gain of 10 points any more: too few from the start, or looked at too often."""
    first = alpha_at(alpha_of(promotion), 1)
    return ProgramReason.TEST_UNDERPOWERED if is_underpowered(rows, first) else ProgramReason.TEST_WORN


def remark(rows: int, use: Use, promotion: Promotion | None) -> str:
    """What the next candidate should know before it is paid for; "" where the rows are good enough."""
    if not is_underpowered(rows, use.alpha):
        return ""
    effect = smallest_effect(rows, use.alpha)
    least = f"a gain of {effect:.3g} points is the smallest that can pass" if effect else "no gain can pass"
    reason = too_few(rows, promotion)
    if reason is ProgramReason.TEST_WORN:
        times = "once" if use.looks == 1 else f"{use.looks} times"
        fresh = "a smaller one needs fresh rows" if effect else "fresh rows are needed"
        return f"; {reason}: {rows} test rows were looked at {times}, {least} now: {fresh}"
    return f"; {reason}: with {rows} test rows {least}, and a person has to decide"


def decimal_text(number: float) -> str:
    """A decimal string without an exponent, to four significant digits where nine decimals hold them."""
    text = f"{float(f'{number:.4g}'):.{MOST_DECIMALS}f}"
    return text.rstrip("0").rstrip(".")
