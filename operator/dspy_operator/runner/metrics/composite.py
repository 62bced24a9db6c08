"""Composite: several metrics together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from dspy_operator.runner.metrics.shape import Fields, Measure, Opinion


@dataclass(frozen=True)
class Part:
    """One of them."""

    name: str
    """What its feedback begins with."""
    weight: Fraction
    measure: Measure


@dataclass(frozen=True)
class Composite:
    """The weighted mean of its parts; exact, so that an answer that all find right scores 1 and no less."""

    parts: Sequence[Part]

    @property
    def fields(self) -> tuple[str, ...]:
        """Those of all parts."""
        return tuple(dict.fromkeys(field for part in self.parts for field in part.measure.fields))

    def opinion(self, gold: Fields, predicted: Fields) -> Opinion:
        """The mean, and what each part complains of: `F1: label: expected "billing", got "bug"`."""
        opinions = [part.measure.opinion(gold, predicted) for part in self.parts]
        got = sum(part.weight * Fraction(of.score) for part, of in zip(self.parts, opinions, strict=True))
        said = (f"{part.name}: {line}" for part, of in zip(self.parts, opinions, strict=True) for line in of.complaints)
        return Opinion(float(got / sum(part.weight for part in self.parts)), said)

    def complaints(self, gold: Fields, predicted: Fields) -> Iterator[str]:
        """Those of its parts."""
        for part in self.parts:
            for complaint in part.measure.complaints(gold, predicted):
                yield f"{part.name}: {complaint}"

    def refusal(self, gold: Fields) -> tuple[str, str] | None:
        """The first part's that has one."""
        return next((why for part in self.parts if (why := part.measure.refusal(gold)) is not None), None)
