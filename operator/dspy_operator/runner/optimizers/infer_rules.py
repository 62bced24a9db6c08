"""InferRules: demonstrations, and rules in words that a model finds in the rows."""

from __future__ import annotations

import logging
from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError, ContextWindowExceededError, LMError

from dspy_operator.api.optimizationrun import OptimizerOptions
from dspy_operator.runner.optimizers.racing import Race, RacingEvaluate
from dspy_operator.runner.optimizers.shape import NEVER, Counts, Setup, Sizes, Trial, threshold

log = logging.getLogger(__name__)


class InferRules:
    """Bootstraps from the train rows, then scores sets of rules, which the prompt model writes, on the validation rows.

    DSPy's seed is fixed at 0; ours decides the order of the rows.
    """

    uses_validation = True
    trial: Trial = "Evaluation"

    def check(self, options: OptimizerOptions, sizes: Sizes) -> str | None:
        """Any rows do."""
        return None

    def counts(self, options: OptimizerOptions, sizes: Sizes, calls: int | None) -> Counts:
        """DSPy's arguments."""
        return {
            "num_candidates": options.value("num_candidates"),
            "num_rules": options.value("num_rules"),
            "max_bootstrapped_demos": options.value("max_bootstrapped_demos"),
            "max_labeled_demos": options.value("max_labeled_demos"),
            "max_rounds": options.value("max_rounds"),
            "max_errors": options.value("max_errors"),
        }

    def calls(self, counts: Counts, sizes: Sizes) -> int:
        """About two rows for each demonstration; rules and an evaluation for each candidate."""
        bootstrap = min(2 * counts["max_bootstrapped_demos"], sizes.train) * counts["max_rounds"]
        evaluations = counts["num_candidates"] * sizes.validation
        return int((bootstrap + evaluations) * sizes.calls_per_row + counts["num_candidates"] * sizes.predictors)

    def trials(self, counts: Counts, sizes: Sizes) -> int | None:
        """Candidates."""
        return int(counts["num_candidates"])

    def compile(self, student: Any, options: OptimizerOptions, counts: Counts, setup: Setup) -> Any:
        """dspy.InferRules(...).compile(student, trainset, valset).

        `teacher_settings` are those of the rules alone: in the constructor they would be the bootstrap's too.
        """
        at = threshold(options)
        optimizer = _InferRules(
            metric=setup.metric.for_threshold if at is not None else setup.metric.for_dspy,
            metric_threshold=at,
            num_candidates=counts["num_candidates"],
            num_rules=counts["num_rules"],
            num_threads=setup.threads,
            max_bootstrapped_demos=counts["max_bootstrapped_demos"],
            max_labeled_demos=counts["max_labeled_demos"],
            max_rounds=counts["max_rounds"],
            max_errors=counts["max_errors"] or NEVER,
        )
        optimizer.race = Race(setup.on_evaluation) if options.value("racing") else None
        optimizer.rules_induction_program.teacher_settings = {"lm": setup.prompt_lm}
        return optimizer.compile(student, trainset=list(setup.train), valset=list(setup.validation))


class _InferRules(dspy.InferRules):  # type: ignore[misc]  # DSPy is untyped here
    """DSPy's, without two faults of 3.4.1.

    It writes rules into the signature's class, which all copies of a program share: every candidate, and the baseline,
    would end with the rules of the last one. And an answer that cannot be read, or was refused, ends it by an assertion.
    """

    rows_that_fit: int | None = None
    """How many rows the prompt model's context holds; None until it was too small."""
    race: Race | None = None
    """Drops what cannot win any more; None: all are scored on all rows."""

    def induce_natural_language_rules(self, predictor: Any, trainset: list[Any]) -> str:
        """Rules from as many rows as the context holds; "" where no answer can be read."""
        demos = self.get_predictor_demos(trainset, predictor)[: self.rows_that_fit]
        while demos:
            try:
                return str(self.rules_induction_program(self.format_examples(demos, predictor.signature)))
            except ContextWindowExceededError:
                # DSPy drops one row at a time: a refusal for each, and ten in a row look like a model that refuses everything.
                demos = demos[: len(demos) // 2]
                self.rows_that_fit = len(demos)
            except (AdapterParseError, LMError) as error:
                log.warning("a candidate gets no rules: %s", error)
                return ""
        log.warning("no candidate gets rules: not one row fits the context of the prompt model")
        return ""

    def update_program_instructions(self, predictor: Any, natural_language_rules: str) -> None:
        """The rules below the instructions, in a signature of this candidate's own."""
        if natural_language_rules:
            predictor.signature = predictor.signature.with_instructions(predictor.signature.instructions)
            super().update_program_instructions(predictor, natural_language_rules)

    def evaluate_program(self, program: Any, dataset: list[Any]) -> float:
        """The score, 0 to 100."""
        if self.race is None:
            return float(super().evaluate_program(program, dataset))
        evaluate = RacingEvaluate(
            race=self.race, devset=dataset, metric=self.metric, num_threads=self.num_threads, max_errors=self.max_errors
        )
        return float(evaluate(program).score)
