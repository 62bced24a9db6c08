"""Contains: what is expected is somewhere in the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dspy_operator.runner.metrics.exact_match import equal
from dspy_operator.runner.metrics.shape import Comparison, shown


@dataclass(frozen=True)
class Contains(Comparison):
    """A text is part of the answer's text; each item of a list, and each entry of an object, is among the answer's.

    Numbers, truth values and null have no parts, and an empty text, list or object is part of anything: ExactMatch decides.
    """

    ignore_case: bool = False
    """Unicode's case folding: "straße" is in "STRASSE 5"."""

    def score(self, wanted: object, found: object) -> float:
        """0 or 1."""
        if self.ignore_case:
            wanted, found = _folded(wanted), _folded(found)
        return float(_contains(wanted, found))

    def expected(self, wanted: object) -> str:
        """Says that it may be anywhere."""
        return f"{shown(wanted)} somewhere in it"


def _contains(wanted: object, found: object) -> bool:
    if isinstance(wanted, str) and isinstance(found, str) and wanted.strip():
        return wanted.strip() in found
    if isinstance(wanted, (list, tuple)) and isinstance(found, (list, tuple)) and wanted:
        return all(any(equal(item, other) for other in found) for item in wanted)
    if isinstance(wanted, Mapping) and isinstance(found, Mapping) and wanted:
        return all(key in found and equal(item, found[key]) for key, item in wanted.items())
    return equal(wanted, found)


def _folded(value: object) -> object:
    if isinstance(value, str):
        return value.casefold()
    if isinstance(value, (list, tuple)):
        return [_folded(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _folded(item) for key, item in value.items()}
    return value
