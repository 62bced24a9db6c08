"""Stages: optimizers one after the other, each on what the one before made; the best of what they made is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dspy_operator.api.optimizationrun import OptimizerOptions, Stage
from dspy_operator.runner.optimizers.shape import Counts, Optimizer, Part, Setup, Sizes, Trial
from dspy_operator.runner.program import settled


@dataclass(frozen=True)
class Stages:
    """dspy.BetterTogether, for prompts: what each stage made is scored on the rows that are compared, and the best is kept.

    Where one stage compares on the validation rows, all are compared there, and no other stage learns from them.
    """

    stages: Sequence[tuple[str, Optimizer, OptimizerOptions]]
    """Type, optimizer and options of each."""

    trial: Trial = "Own"

    @property
    def uses_validation(self) -> bool:
        """Whether any stage does."""
        return any(optimizer.uses_validation for _, optimizer, _ in self.stages)

    def parts(self, sizes: Sizes) -> list[Part]:
        """The stages, with the rows that they work on."""
        if self.uses_validation:
            sizes = replace(sizes, dev=sizes.train)
        return [
            Part(type_, optimizer, options, sizes, f"spec.optimizer.stages.stages[{number}].{Stage.MEMBERS[type_]}")
            for number, (type_, optimizer, options) in enumerate(self.stages)
        ]

    def check(self, options: OptimizerOptions, sizes: Sizes) -> str | None:
        """Each stage is checked as a part of its own."""
        return None

    def counts(self, options: OptimizerOptions, sizes: Sizes, calls: int | None) -> Counts:
        """Those of each stage. FitBudget gets an equal share of what the others leave, and what earlier shares left over."""
        parts = self.parts(sizes)
        fitted = sum(part.options.fits_budget for part in parts)
        left = calls
        if left is not None:
            left -= self._scoring(sizes)
            for part in parts:
                if not part.options.fits_budget:
                    left -= part.optimizer.calls(part.optimizer.counts(part.options, part.sizes, None), part.sizes)
        found = []
        for part in parts:
            share = max(0, left // fitted) if left is not None and part.options.fits_budget else None
            found.append(part.optimizer.counts(part.options, part.sizes, share))
            if left is not None and part.options.fits_budget:
                left -= part.optimizer.calls(found[-1], part.sizes)
                fitted -= 1
        return {"stages": found}

    def calls(self, counts: Counts, sizes: Sizes) -> int:
        """Those of each stage, and of scoring what it made."""
        parts = zip(self.parts(sizes), counts["stages"], strict=True)
        return sum(part.optimizer.calls(own, part.sizes) for part, own in parts) + self._scoring(sizes)

    def trials(self, counts: Counts, sizes: Sizes) -> int | None:
        """Progress counts stage by stage."""
        return None

    def compile(self, student: Any, options: OptimizerOptions, counts: Counts, setup: Setup) -> Any:
        """Each stage's compile(), on a new program in the state that the one before came to; on a tie the earlier one is kept."""
        if self.uses_validation:
            setup = replace(setup, dev=setup.train)
        made = [student]
        for number, (part, own) in enumerate(zip(self.parts(setup.sizes), counts["stages"], strict=True), start=1):
            setup.on_stage(part, own, made[-1], f"{number} of {len(self.stages)}: {part.type}")
            made.append(settled(part.optimizer.compile(made[-1], part.options, own, setup)))
            setup.score(made[-1])
        return max(made, key=setup.score)

    def _scoring(self, sizes: Sizes) -> int:
        """Calls for what stages made and did not score; where none uses validation, the last one's are the run's."""
        unscored = sum(not optimizer.uses_validation for _, optimizer, _ in self.stages)
        if self.uses_validation:
            return unscored * sizes.validation * sizes.calls_per_row
        return (unscored - 1) * sizes.dev * sizes.calls_per_row
