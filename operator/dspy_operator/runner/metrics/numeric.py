"""Numeric: numbers that are near enough."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from dspy_operator.runner.metrics.shape import Comparison, shown

_NUMBER = re.compile(r"[+-]?([0-9]{1,999}(\.[0-9]{0,999})?|\.[0-9]{1,999})([eE][+-]?[0-9]{1,3})?")
"""Bounded: Decimal raises above 10^999999."""


@dataclass(frozen=True)
class Numeric(Comparison):
    """A number is right if it is off by at most `tolerance`, or by at most `relative` times what is expected.

    Compared in decimal: 0.3 and 0.4 are 0.1 apart, which in binary they are not quite. A text counts as the number that
    it is, with white space around it; one with a unit, a currency or a thousands separator is no number, and neither are
    NaN and infinity. Lists and objects are right if each of their items is. null is only null.
    """

    tolerance: Decimal = Decimal(0)
    relative: Decimal = Decimal(0)

    def score(self, wanted: object, found: object) -> float:
        """0 or 1."""
        return float(self._near(wanted, found))

    def expected(self, wanted: object) -> str:
        """With what it may be off."""
        if self.tolerance == self.relative == 0:
            return shown(wanted)
        allowed = [_plain(self.tolerance)] * (self.tolerance > 0) + [f"{_plain(100 * self.relative)} %"] * (
            self.relative > 0
        )
        return f"{shown(wanted)} (off by at most {' or '.join(allowed)})"

    def got(self, found: object) -> str:
        """Says what is no number."""
        why = self.refusal(found)
        return shown(found) if why is None else f"{shown(found)}, where {why}"

    def refusal(self, wanted: object) -> str | None:
        """What is no number."""
        if isinstance(wanted, (list, tuple)):
            return next(filter(None, map(self.refusal, wanted)), None)
        if isinstance(wanted, Mapping):
            return next(filter(None, map(self.refusal, wanted.values())), None)
        return None if wanted is None or _number(wanted) is not None else f"{shown(wanted)} is no number"

    def _near(self, wanted: object, found: object) -> bool:
        if isinstance(wanted, (list, tuple)) and isinstance(found, (list, tuple)):
            return len(wanted) == len(found) and all(map(self._near, wanted, found))
        if isinstance(wanted, Mapping) and isinstance(found, Mapping):
            return wanted.keys() == found.keys() and all(self._near(wanted[key], found[key]) for key in wanted)
        if wanted is None or found is None:
            return wanted is found
        gold, number = _number(wanted), _number(found)
        return (
            gold is not None
            and number is not None
            and abs(gold - number) <= max(self.tolerance, self.relative * abs(gold))
        )


def _number(value: object) -> Decimal | None:
    """The exact number, None for what is none; a float by its shortest text."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    text = value.strip() if isinstance(value, str) else repr(value) if isinstance(value, float) else None
    if text is None:
        return Decimal(value)
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def _plain(number: Decimal) -> str:
    return f"{number.normalize():f}"
