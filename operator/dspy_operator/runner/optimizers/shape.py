"""What every optimizer is: checked, sized, estimated, compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from dspy_operator.api.optimizationrun import OptimizerOptions
from dspy_operator.runner.metric import ScoredMetric

Counts = Mapping[str, Any]
"""The sizes of a run as the optimizer takes them, every default and every FitBudget resolved; frozen in the journal."""


Trial = Literal["Evaluation", "Row", "Own"]
"""What a finished trial is, for progress."""


@dataclass(frozen=True)
class Sizes:
    """How many rows there are, and how many calls one row costs."""

    train: int
    validation: int
    dev: int
    predictors: int = 1
    """What an optimizer makes proposals for."""
    calls_per_row: int = 1
    """Usual calls for one answer and its score: `contract/calls.py`."""
    calls_per_change: int | None = None
    """The same where one predictor was changed; None: as many as for any answer."""


@dataclass(frozen=True)
class Part:
    """One optimizer with its options: a run's whole, or a stage of it."""

    type: str
    optimizer: Optimizer
    options: OptimizerOptions
    sizes: Sizes
    """Of the rows that it works on."""
    path: str = "spec.optimizer"


@dataclass(frozen=True)
class Setup:
    """What an optimizer works with. Examples are dspy.Example; LMs are the Ledger's."""

    train: Sequence[Any]
    validation: Sequence[Any]
    dev: Sequence[Any]
    metric: ScoredMetric
    task_lm: Any
    prompt_lm: Any
    threads: int
    seed: int
    sizes: Sizes
    score: Callable[[Any], float]
    """A program's score on the rows that are compared, 0 to 100; asked for where it is not known."""
    on_stage: Callable[[Part, Counts, Any, str], None]
    """Called before a stage with its counts, the program that it begins with, and what it is called in progress."""
    on_trial: Callable[[int], None]
    """Called with the number of finished trials, for optimizers that DSPy gives no events for."""
    on_bootstrap: Callable[[Sequence[float]], None]
    """Called with the scores of a bootstrap or a sampling, which are of no one program, in order: its mark."""
    on_evaluation: Callable[..., None]
    """Watcher.evaluated: called with a program, rows and their scores, where DSPy scores programs without an evaluate event."""


class Optimizer(Protocol):
    """One optimizer of DSPy."""

    @property
    def uses_validation(self) -> bool:
        """Whether candidates are scored on the validation rows only (train is for learning), or on all of dev."""

    @property
    def trial(self) -> Trial:
        """What progress counts: evaluations by DSPy, rows that it scored, or what the optimizer itself says to `on_trial`."""

    def check(self, options: OptimizerOptions, sizes: Sizes) -> str | None:
        """Why these rows cannot serve these options, or None; asked before any call is paid."""

    def counts(self, options: OptimizerOptions, sizes: Sizes, calls: int | None) -> Counts:
        """Resolve defaults, and FitBudget from the calls that are left (None: no limit known, DSPy's Light)."""

    def calls(self, counts: Counts, sizes: Sizes) -> int:
        """Estimate of the calls that the optimization makes, those that replay from the baseline not counted."""

    def trials(self, counts: Counts, sizes: Sizes) -> int | None:
        """How many trials progress counts to, or None where there is no such number."""

    def compile(self, student: Any, options: OptimizerOptions, counts: Counts, setup: Setup) -> Any:
        """Run DSPy's optimizer; the compiled module."""


def threshold(options: OptimizerOptions) -> float | None:
    """`metricThreshold` as DSPy takes it."""
    written = options.value("metric_threshold")
    return float(written) if written is not None else None


NEVER = 10**9
"""`max_errors` that never ends an evaluation: unreadable answers are counted, and DSPy loses the cause when it stops for them."""
