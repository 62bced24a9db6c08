"""GEPA: instructions, evolved by a model that reads feedback on failures."""

from __future__ import annotations

from typing import Any

import dspy

from dspy_operator.api.optimizationrun import OptimizerOptions
from dspy_operator.runner.optimizers.shape import Counts, Setup, Sizes, Trial

AUTO_CANDIDATES = {"Light": 6, "Medium": 12, "Heavy": 18}
"""n of DSPy's `auto` (AUTO_RUN_SETTINGS in gepa.py); its formula turns n into metric calls."""
STRATEGIES = {"Pareto": "pareto", "CurrentBest": "current_best"}
SELECTORS = {"RoundRobin": "round_robin", "All": "all"}


class GEPA:
    """Sized in metric calls, that is scored rows; a reflection is one call more for each two minibatches.

    GEPA may pass its size by up to one set of validation rows; the run's budget is exact all the same.
    """

    uses_validation = True
    trial: Trial = "Row"

    def check(self, options: OptimizerOptions, sizes: Sizes) -> str | None:
        """A reflection needs its minibatch."""
        size = options.value("reflection_minibatch_size")
        if size > sizes.train:
            return f"reflectionMinibatchSize {size} is more than the {sizes.train} train rows"
        return None

    def counts(self, options: OptimizerOptions, sizes: Sizes, calls: int | None) -> Counts:
        """maxMetricCalls as written, from full evaluations, from DSPy's auto, or as many as the budget pays for."""
        if options.value("max_metric_calls") is not None:
            return {"max_metric_calls": options.value("max_metric_calls")}
        if options.value("max_full_evals") is not None:
            return {"max_metric_calls": options.value("max_full_evals") * (sizes.train + sizes.validation)}
        auto = options.value("auto") or "FitBudget"
        if auto == "FitBudget" and calls is not None:
            size = options.value("reflection_minibatch_size")
            share = 2 * size / (2 * size + 1)  # each proposal: two minibatches scored, one reflection
            # The seed's evaluation is a metric call that replays from the baseline.
            return {
                "max_metric_calls": max(
                    sizes.validation + 2 * size, int(calls / sizes.calls_per_row * share) + sizes.validation
                )
            }
        sized = dspy.GEPA.auto_budget(
            None,
            num_preds=sizes.predictors,
            num_candidates=AUTO_CANDIDATES.get(auto, AUTO_CANDIDATES["Light"]),
            valset_size=sizes.validation,
        )
        return {"max_metric_calls": int(sized)}

    def calls(self, counts: Counts, sizes: Sizes) -> int:
        """Metric calls and their reflections, the seed's evaluation replayed, one set of validation rows more at the end."""
        scored = max(0, counts["max_metric_calls"] - sizes.validation)
        return int((scored + sizes.validation) * sizes.calls_per_row + scored // 6)

    def trials(self, counts: Counts, sizes: Sizes) -> int | None:
        """Scored rows."""
        return int(counts["max_metric_calls"])

    def compile(self, student: Any, options: OptimizerOptions, counts: Counts, setup: Setup) -> Any:
        """dspy.GEPA(max_metric_calls, ...).compile(student, trainset, valset)."""
        optimizer = dspy.GEPA(
            metric=setup.metric.for_gepa,
            max_metric_calls=counts["max_metric_calls"],
            reflection_minibatch_size=options.value("reflection_minibatch_size"),
            candidate_selection_strategy=STRATEGIES[options.value("candidate_selection_strategy")],
            reflection_lm=setup.prompt_lm,
            skip_perfect_score=options.value("skip_perfect_score"),
            add_format_failure_as_feedback=options.value("add_format_failure_as_feedback"),
            component_selector=SELECTORS[options.value("component_selector")],
            use_merge=options.value("use_merge"),
            max_merge_invocations=options.value("max_merge_invocations"),
            num_threads=setup.threads,
            seed=setup.seed,
        )
        return optimizer.compile(student, trainset=list(setup.train), valset=list(setup.validation))
