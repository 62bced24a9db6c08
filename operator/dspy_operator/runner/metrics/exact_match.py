"""ExactMatch: equal or not."""

from __future__ import annotations

from collections.abc import Mapping

from dspy_operator.runner.metrics.shape import Comparison


class ExactMatch(Comparison):
    """Texts are equal but for white space around them; numbers by value (1 is 1.0), a bool only equals a bool; lists and
    objects item by item by the same rule. Case counts: applications compare labels with `==`.
    """

    def score(self, wanted: object, found: object) -> float:
        """0 or 1."""
        return float(equal(wanted, found))


def equal(gold: object, predicted: object) -> bool:
    """Whether two typed values are the same answer."""
    if isinstance(gold, str) and isinstance(predicted, str):
        return gold.strip() == predicted.strip()
    if isinstance(gold, bool) or isinstance(predicted, bool):
        return gold is predicted
    if isinstance(gold, (list, tuple)) and isinstance(predicted, (list, tuple)):
        return len(gold) == len(predicted) and all(map(equal, gold, predicted))
    if isinstance(gold, Mapping) and isinstance(predicted, Mapping):
        return gold.keys() == predicted.keys() and all(equal(gold[key], predicted[key]) for key in gold)
    return bool(gold == predicted)
