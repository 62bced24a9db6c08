"""F1: overlap of words."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from dspy_operator.runner.metrics.exact_match import equal
from dspy_operator.runner.metrics.shape import Comparison


class F1(Comparison):
    """Overlap of words after SQuAD's normalization (`dspy.evaluate.metrics.f1_score`), lists joined by spaces.

    Where one side has no word left ("A" is an article), ExactMatch decides: DSPy would score a right "A" 0.
    """

    def score(self, wanted: object, found: object) -> float:
        """0 to 1."""
        metrics = importlib.import_module("dspy.evaluate.metrics")
        gold, predicted = _words(wanted), _words(found)
        if not metrics.normalize_text(gold) or not metrics.normalize_text(predicted):
            return float(equal(wanted, found))
        return float(metrics.f1_score(predicted, gold))


def _words(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(_words, value))
    if isinstance(value, Mapping):
        return " ".join(f"{key} {_words(item)}" for key, item in value.items())
    return str(value)
