"""MIPROv2: instructions and demonstrations, searched together."""

from __future__ import annotations

import math
from typing import Any

import dspy

from dspy_operator.api.optimizationrun import OptimizerOptions
from dspy_operator.runner.optimizers.shape import NEVER, Counts, Setup, Sizes, Trial, threshold

DSPY_SIZES = {"Light": (6, 100), "Medium": (12, 300), "Heavy": (18, 1000)}
"""(n, most validation rows) of DSPy's `auto` (AUTO_RUN_SETTINGS in mipro_optimizer_v2.py)."""
MINIBATCH_ABOVE = 50
"""Validation rows above which DSPy's auto uses minibatches (MIN_MINIBATCH_SIZE)."""
SUMMARY_CALLS = 10


class MIPROv2:
    """`auto` is never handed to DSPy: its sizes are resolved here, so that they can be frozen, shown and fitted to the budget."""

    uses_validation = True
    trial: Trial = "Evaluation"

    def check(self, options: OptimizerOptions, sizes: Sizes) -> str | None:
        """A minibatch must not be larger than what it is drawn from."""
        if options.value("minibatch") and options.value("minibatch_size") > sizes.validation:
            return (
                f"minibatchSize {options.value('minibatch_size')} is more than the {sizes.validation} validation rows"
            )
        return None

    def counts(self, options: OptimizerOptions, sizes: Sizes, calls: int | None) -> Counts:
        """numCandidates and numTrials as written, as DSPy's auto sizes, or as many as the budget pays for."""
        minibatch = options.value("minibatch")
        if minibatch is None:
            minibatch = sizes.validation > MINIBATCH_ABOVE
        fixed = {
            "minibatch": minibatch,
            "minibatch_size": min(options.value("minibatch_size"), sizes.validation),
            "minibatch_full_eval_steps": options.value("minibatch_full_eval_steps"),
            "max_bootstrapped_demos": options.value("max_bootstrapped_demos"),
            "max_labeled_demos": options.value("max_labeled_demos"),
            "max_errors": options.value("max_errors"),
            "validation_rows": sizes.validation,
        }
        if options.value("num_candidates") is not None:
            n = options.value("num_candidates")
            return fixed | {
                "num_instruct_candidates": n,
                "num_fewshot_candidates": n,
                "num_trials": options.value("num_trials"),
            }
        auto = options.value("auto") or "FitBudget"
        if auto == "FitBudget" and calls is None:
            auto = "Light"
        if auto != "FitBudget":
            n, most_rows = DSPY_SIZES[auto]
            rows = min(sizes.validation, most_rows)
            automatic = fixed | {"validation_rows": rows, "minibatch_size": min(fixed["minibatch_size"], rows)}
            return automatic | _sized(n, fixed, sizes)
        assert calls is not None
        fitting = [
            counts for n in range(3, 19) if self.calls(counts := fixed | _sized(n, fixed, sizes), sizes) <= calls
        ]
        counts = fitting[-1] if fitting else fixed | _sized(2, fixed, sizes) | {"num_trials": 1}
        while self.calls(longer := counts | {"num_trials": counts["num_trials"] + 1}, sizes) <= calls and longer[
            "num_trials"
        ] <= 3 * _trials(18, fixed, sizes):
            counts = longer
        return counts

    def calls(self, counts: Counts, sizes: Sizes) -> int:
        """Bootstrap, proposals and evaluations; the default program's own evaluation replays from the baseline."""
        sets = max(0, counts["num_fewshot_candidates"] - 2)
        demos = counts["max_bootstrapped_demos"] or 3
        bootstrap = sets * min(sizes.train, math.ceil(1.5 * demos)) * sizes.calls_per_row
        proposals = SUMMARY_CALLS + counts["num_instruct_candidates"] * sizes.predictors + 2 * sizes.predictors
        trials, rows = counts["num_trials"], counts["validation_rows"]
        if counts["minibatch"]:
            full = trials // counts["minibatch_full_eval_steps"] + 1
            evaluations = trials * counts["minibatch_size"] + full * rows
        else:
            evaluations = trials * rows
        return int(bootstrap + proposals + evaluations * sizes.calls_per_row)

    def trials(self, counts: Counts, sizes: Sizes) -> int | None:
        """Evaluations of the search: the default program, each trial, and the full evaluations between minibatches."""
        trials = int(counts["num_trials"])
        if not counts["minibatch"]:
            return trials + 1
        return trials + trials // int(counts["minibatch_full_eval_steps"]) + 2

    def compile(self, student: Any, options: OptimizerOptions, counts: Counts, setup: Setup) -> Any:
        """dspy.MIPROv2(auto=None, ...).compile(student, trainset, valset, num_trials, ...).

        The seed goes to the constructor: `compile(seed=0)` silently means 9 (dspy #10321).
        """
        at = threshold(options)
        optimizer = dspy.MIPROv2(
            metric=setup.metric.for_threshold if at is not None else setup.metric.for_dspy,
            metric_threshold=at,
            prompt_model=setup.prompt_lm,
            task_model=setup.task_lm,
            max_bootstrapped_demos=counts["max_bootstrapped_demos"],
            max_labeled_demos=counts["max_labeled_demos"],
            auto=None,
            num_candidates=counts["num_fewshot_candidates"],
            num_threads=setup.threads,
            max_errors=counts.get("max_errors") or NEVER,
            seed=setup.seed,
            init_temperature=float(options.value("init_temperature")),
            track_stats=False,
        )
        # DSPy's own auto proposes half as many instructions as demonstration sets; the constructor has one number for both.
        optimizer.num_instruct_candidates = counts["num_instruct_candidates"]
        return optimizer.compile(
            student,
            trainset=list(setup.train),
            valset=list(setup.validation)[: counts["validation_rows"]],
            num_trials=counts["num_trials"],
            minibatch=counts["minibatch"],
            minibatch_size=counts["minibatch_size"],
            minibatch_full_eval_steps=counts["minibatch_full_eval_steps"],
            program_aware_proposer=options.value("program_aware_proposer"),
            data_aware_proposer=options.value("data_aware_proposer"),
            view_data_batch_size=options.value("view_data_batch_size"),
            tip_aware_proposer=options.value("tip_aware_proposer"),
            fewshot_aware_proposer=options.value("fewshot_aware_proposer"),
        )


def _zero_shot(fixed: Counts) -> bool:
    return bool(fixed["max_bootstrapped_demos"] == 0 and fixed["max_labeled_demos"] == 0)


def _trials(n: int, fixed: Counts, sizes: Sizes) -> int:
    """DSPy's `_set_num_trials_from_num_candidates`."""
    variables = sizes.predictors * (1 if _zero_shot(fixed) else 2)
    return int(max(2 * variables * math.log2(n), 1.5 * n))


def _sized(n: int, fixed: Counts, sizes: Sizes) -> dict[str, int]:
    """DSPy's `_set_hyperparams_from_run_mode` for a size n."""
    instructions = n if _zero_shot(fixed) else max(1, n // 2)
    return {
        "num_instruct_candidates": instructions,
        "num_fewshot_candidates": n,
        "num_trials": _trials(n, fixed, sizes),
    }
