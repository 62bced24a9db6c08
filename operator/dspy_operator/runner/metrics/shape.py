"""What every metric is: fields that it looks at, a score for an answer that has them, and words for what was wrong."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

_SHOWN_CHARACTERS = 1000

Fields = Mapping[str, object]
"""Output -> value."""


class Comparison(ABC):
    """How the value of one field is scored; a metric's own module says what is right."""

    @abstractmethod
    def score(self, wanted: object, found: object) -> float:
        """0 to 1."""

    def expected(self, wanted: object) -> str:
        """What an answer should have been, as feedback says it."""
        return shown(wanted)

    def got(self, found: object) -> str:
        """What it was, and what is wrong with it whatever was expected."""
        return shown(found)

    def refusal(self, wanted: object) -> str | None:
        """Why no answer could ever be right by this label, or None."""
        return None


class NoVerdict(Exception):
    """Whoever grades gave no grade that can be used: the answer is neither good nor bad."""


@dataclass(frozen=True)
class Opinion:
    """What a metric says of an answer that has all that it looks at."""

    score: float
    """0 to 1."""
    complaints: Iterable[str]
    """A line for each thing that is wrong; made when it is asked for."""
    said: str | None = None
    """Feedback of the metric's own, also on an answer that is right."""


class Measure(Protocol):
    """A metric of one type, with its options."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Outputs that it looks at."""

    def opinion(self, gold: Fields, predicted: Fields) -> Opinion:
        """Of an answer that has all of `fields`.

        Args:
            gold: inputs and outputs of the row.
        Raises:
            NoVerdict: a judge gave none.
        """

    def complaints(self, gold: Fields, predicted: Fields) -> Iterator[str]:
        """A line for each thing that is wrong with an answer that lacks some of `fields`."""

    def refusal(self, gold: Fields) -> tuple[str, str] | None:
        """(path of the metric, why no answer could ever be right by these labels), or None."""


@dataclass(frozen=True)
class FieldWise:
    """The mean of one comparison over some fields."""

    path: str
    """Of the metric in the program: "spec.metric"."""
    fields: tuple[str, ...]
    comparison: Comparison

    def opinion(self, gold: Fields, predicted: Fields) -> Opinion:
        """The mean, and the fields that are not wholly right."""
        scores = [self.comparison.score(gold[field], predicted[field]) for field in self.fields]
        return Opinion(math.fsum(scores) / len(scores), self.complaints(gold, predicted))

    def complaints(self, gold: Fields, predicted: Fields) -> Iterator[str]:
        """`label: expected "billing", got "bug"`."""
        for field in self.fields:
            wanted = self.comparison.expected(gold[field])
            if field not in predicted:
                yield f"{field}: expected {wanted}, got no answer that can be read"
            elif self._score_of(field, gold, predicted) != 1:
                yield f"{field}: expected {wanted}, got {self.comparison.got(predicted[field])}"

    def refusal(self, gold: Fields) -> tuple[str, str] | None:
        """The first field whose label is of no use."""
        for field in self.fields:
            if (why := self.comparison.refusal(gold[field])) is not None:
                return f"{self.path}.type", f"{field}: {why}"
        return None

    def _score_of(self, field: str, gold: Fields, predicted: Fields) -> float:
        return self.comparison.score(gold[field], predicted[field])


def unanswered(fields: Iterable[str], predicted: Fields) -> Iterator[str]:
    """A line for each output that an answer lacks, of a metric that expects nothing of it."""
    for field in fields:
        if field not in predicted:
            yield f"{field}: got no answer that can be read"


def shown(value: object) -> str:
    """A value as JSON, its first 1000 characters."""
    return shortened(json.dumps(value, ensure_ascii=False, default=str))


def shortened(text: str) -> str:
    """Its first 1000 characters."""
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
