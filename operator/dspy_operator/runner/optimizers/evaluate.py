"""Evaluate: nothing is optimized; the program is judged as it is."""

from __future__ import annotations

from typing import Any

from dspy_operator.api.optimizationrun import OptimizerOptions
from dspy_operator.runner.optimizers.shape import Counts, Setup, Sizes, Trial


class Evaluate:
    """A judged score, for gates in CI and for a change of model."""

    uses_validation = False
    trial: Trial = "Own"

    def check(self, options: OptimizerOptions, sizes: Sizes) -> str | None:
        """Any rows do."""
        return None

    def counts(self, options: OptimizerOptions, sizes: Sizes, calls: int | None) -> Counts:
        """Nothing to size."""
        return {}

    def calls(self, counts: Counts, sizes: Sizes) -> int:
        """None."""
        return 0

    def trials(self, counts: Counts, sizes: Sizes) -> int | None:
        """None."""
        return None

    def compile(self, student: Any, options: OptimizerOptions, counts: Counts, setup: Setup) -> Any:
        """The program itself."""
        return student
