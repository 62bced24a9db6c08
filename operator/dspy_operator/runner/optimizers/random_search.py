"""BootstrapFewShotWithRandomSearch: many sets of demonstrations, each scored; the best one is kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import dspy
from dspy.teleprompt import random_search

from dspy_operator.api.optimizationrun import OptimizerOptions
from dspy_operator.runner.optimizers.racing import Race, RacingEvaluate
from dspy_operator.runner.optimizers.shape import NEVER, Counts, Setup, Sizes, Trial, threshold

FIXED_CANDIDATES = 3
"""Beside the seeded ones (random_search.py, seeds -3 to -1): no demonstrations, labelled rows alone, rows as they come."""


class BootstrapFewShotWithRandomSearch:
    """Each candidate is bootstrapped one row after the other from the train rows, and scored on the validation rows.

    DSPy's seeds are the numbers of the candidates; ours decides the order of the rows that they shuffle.
    """

    uses_validation = True
    trial: Trial = "Evaluation"

    def check(self, options: OptimizerOptions, sizes: Sizes) -> str | None:
        """Any rows do."""
        return None

    def counts(self, options: OptimizerOptions, sizes: Sizes, calls: int | None) -> Counts:
        """DSPy's arguments."""
        return {
            "num_candidate_programs": options.value("num_candidate_programs"),
            "max_bootstrapped_demos": options.value("max_bootstrapped_demos"),
            "max_labeled_demos": options.value("max_labeled_demos"),
            "max_rounds": options.value("max_rounds"),
            "max_errors": options.value("max_errors"),
        }

    def calls(self, counts: Counts, sizes: Sizes) -> int:
        """Bootstraps and evaluations; the candidate without demonstrations replays from the baseline.

        About two rows for each demonstration; a seeded set has half of the most, on average.
        """
        most, seeded = counts["max_bootstrapped_demos"], counts["num_candidate_programs"]
        rounds = counts["max_rounds"]
        tried = [min(sizes.train, 2 * most) * rounds, min(sizes.train, most + 1) * rounds * seeded]
        evaluations = (seeded + FIXED_CANDIDATES - 1) * sizes.validation
        return int(sum(tried) + evaluations) * sizes.calls_per_row

    def trials(self, counts: Counts, sizes: Sizes) -> int | None:
        """Candidates."""
        return int(counts["num_candidate_programs"]) + FIXED_CANDIDATES

    def compile(self, student: Any, options: OptimizerOptions, counts: Counts, setup: Setup) -> Any:
        """dspy.BootstrapFewShotWithRandomSearch(...).compile(student, trainset, valset, labeled_sample)."""
        at, stop_at = threshold(options), options.value("stop_at_score")
        optimizer = dspy.BootstrapFewShotWithRandomSearch(
            metric=setup.metric.for_threshold if at is not None else setup.metric.for_dspy,
            metric_threshold=at,
            max_bootstrapped_demos=counts["max_bootstrapped_demos"],
            max_labeled_demos=counts["max_labeled_demos"],
            max_rounds=counts["max_rounds"],
            num_candidate_programs=counts["num_candidate_programs"],
            num_threads=setup.threads,
            max_errors=counts["max_errors"] or NEVER,
            stop_at_score=float(stop_at) if stop_at is not None else None,
        )
        with _racing(Race(setup.on_evaluation)) if options.value("racing") else nullcontext():
            return optimizer.compile(
                student,
                trainset=list(setup.train),
                valset=list(setup.validation),
                labeled_sample=options.value("labeled_sample"),
            )


@contextmanager
def _racing(race: Race) -> Iterator[None]:
    """While it holds, DSPy's evaluations are of the race: it makes them inside compile(), of the class that its module names."""
    original = random_search.Evaluate
    random_search.Evaluate = partial(RacingEvaluate, race=race)
    try:
        yield
    finally:
        random_search.Evaluate = original
