"""BootstrapFewShot: demonstrations that the program solved itself."""

from __future__ import annotations

from typing import Any

import dspy

from dspy_operator.api.optimizationrun import OptimizerOptions
from dspy_operator.runner.optimizers.shape import NEVER, Counts, Setup, Sizes, Trial, threshold


class BootstrapFewShot:
    """Sequential and without evaluate events, so progress and the replay's mark come from the metric.

    DSPy's seed is fixed at 0; ours decides the order of the rows.
    """

    uses_validation = False
    trial: Trial = "Own"

    def check(self, options: OptimizerOptions, sizes: Sizes) -> str | None:
        """Something must be asked for."""
        if options.value("max_bootstrapped_demos") == 0 and options.value("max_labeled_demos") == 0:
            return "maxBootstrappedDemos and maxLabeledDemos are both 0: there would be no demonstration"
        return None

    def counts(self, options: OptimizerOptions, sizes: Sizes, calls: int | None) -> Counts:
        """DSPy's arguments."""
        return {
            "max_bootstrapped_demos": options.value("max_bootstrapped_demos"),
            "max_labeled_demos": options.value("max_labeled_demos"),
            "max_rounds": options.value("max_rounds"),
            "max_errors": options.value("max_errors"),
        }

    def calls(self, counts: Counts, sizes: Sizes) -> int:
        """About two rows for each demonstration, at most every row in every round."""
        wanted = 2 * counts["max_bootstrapped_demos"] * counts["max_rounds"]
        return int(min(wanted, sizes.dev * counts["max_rounds"])) * sizes.calls_per_row

    def trials(self, counts: Counts, sizes: Sizes) -> int | None:
        """The rows it may have to try."""
        return sizes.dev

    def compile(self, student: Any, options: OptimizerOptions, counts: Counts, setup: Setup) -> Any:
        """dspy.BootstrapFewShot(...).compile(student, trainset)."""
        scores: list[float] = []

        def metric(example: Any, prediction: Any, trace: Any = None) -> Any:
            score = setup.metric.for_threshold(example, prediction, trace)
            scores.append(max(0.0, score))
            setup.on_trial(len(scores))
            return score if threshold(options) is not None else setup.metric.accepts(score)

        optimizer = dspy.BootstrapFewShot(
            metric=metric,
            metric_threshold=threshold(options),
            max_bootstrapped_demos=counts["max_bootstrapped_demos"],
            max_labeled_demos=counts["max_labeled_demos"],
            max_rounds=counts["max_rounds"],
            max_errors=counts["max_errors"] or NEVER,
        )
        program = optimizer.compile(student, trainset=list(setup.dev))
        setup.on_bootstrap(scores)
        return program
