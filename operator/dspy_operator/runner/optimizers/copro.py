"""COPRO: instructions, improved round by round by a model that reads earlier ones and their scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dspy
from dspy.teleprompt.copro_optimizer import BasicGenerateInstruction
from dspy.utils.exceptions import AdapterParseError

from dspy_operator.api.optimizationrun import OptimizerOptions
from dspy_operator.runner.optimizers.shape import Counts, Setup, Sizes, Trial


class COPRO:
    """Proposals of the prompt model, each scored on all dev rows. Nothing in it is drawn at random but by that model."""

    uses_validation = False
    trial: Trial = "Evaluation"

    def check(self, options: OptimizerOptions, sizes: Sizes) -> str | None:
        """Any rows do."""
        return None

    def counts(self, options: OptimizerOptions, sizes: Sizes, calls: int | None) -> Counts:
        """DSPy's arguments."""
        return {"breadth": options.value("breadth"), "depth": options.value("depth")}

    def calls(self, counts: Counts, sizes: Sizes) -> int:
        """Proposals and evaluations. One of each round of a predictor is of the best program so far, and replays."""
        proposals = (counts["breadth"] * counts["depth"] - 1) * sizes.predictors
        known = 1 if sizes.predictors == 1 else sizes.predictors * int(counts["depth"])
        per_row = sizes.calls_per_change or sizes.calls_per_row
        return int(proposals + (self._evaluations(counts, sizes) - known) * sizes.dev * per_row)

    def trials(self, counts: Counts, sizes: Sizes) -> int | None:
        """Evaluations."""
        return self._evaluations(counts, sizes)

    def compile(self, student: Any, options: OptimizerOptions, counts: Counts, setup: Setup) -> Any:
        """dspy.COPRO(...).compile(student, trainset, eval_kwargs)."""
        optimizer = dspy.COPRO(
            prompt_model=setup.prompt_lm.copy(sieve=_readable),
            metric=setup.metric.for_dspy,
            breadth=counts["breadth"],
            depth=counts["depth"],
            init_temperature=float(options.value("init_temperature")),
        )
        return optimizer.compile(student, trainset=list(setup.dev), eval_kwargs={"num_threads": setup.threads})

    def _evaluations(self, counts: Counts, sizes: Sizes) -> int:
        """Of several predictors each one is tried with every proposal so far, in every round (copro_optimizer.py)."""
        breadth, depth = int(counts["breadth"]), int(counts["depth"])
        if sizes.predictors == 1:
            return breadth * depth
        return sizes.predictors * breadth * depth * (depth + 1) // 2


def _readable(answers: Sequence[Any]) -> Sequence[Any]:
    """The proposals of one request that can be read; all of them where none can, which DSPy then raises.

    DSPy asks for a round's proposals at once: one that does not fit the adapter's format would cost the others, and the run.
    """
    readable = [answer for answer in answers if _is_readable(answer)]
    return readable or answers


def _is_readable(answer: Any) -> bool:
    try:
        # The signatures of all rounds have the same outputs.
        dspy.settings.adapter.parse(BasicGenerateInstruction, answer if isinstance(answer, str) else answer["text"])
    except AdapterParseError:
        return False
    return True
