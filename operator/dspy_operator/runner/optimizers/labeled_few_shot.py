"""LabeledFewShot: labelled rows as demonstrations."""

from __future__ import annotations

from typing import Any

import dspy

from dspy_operator.api.optimizationrun import OptimizerOptions
from dspy_operator.runner.optimizers.shape import Counts, Setup, Sizes, Trial


class LabeledFewShot:
    """No call of the model; DSPy's seed is fixed at 0, so ours decides the order of the rows it samples from."""

    uses_validation = False
    trial: Trial = "Own"

    def check(self, options: OptimizerOptions, sizes: Sizes) -> str | None:
        """Any rows do."""
        return None

    def counts(self, options: OptimizerOptions, sizes: Sizes, calls: int | None) -> Counts:
        """k, at most the rows there are."""
        return {"k": min(options.value("k"), sizes.dev), "sample": options.value("sample")}

    def calls(self, counts: Counts, sizes: Sizes) -> int:
        """None."""
        return 0

    def trials(self, counts: Counts, sizes: Sizes) -> int | None:
        """One."""
        return 1

    def compile(self, student: Any, options: OptimizerOptions, counts: Counts, setup: Setup) -> Any:
        """dspy.LabeledFewShot(k).compile(student, trainset, sample)."""
        program = dspy.LabeledFewShot(k=counts["k"]).compile(student, trainset=list(setup.dev), sample=counts["sample"])
        setup.on_trial(1)
        return program
