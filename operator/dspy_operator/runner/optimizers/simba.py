"""SIMBA: rules and demonstrations from the rows on which answers differ most."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import dspy
from dspy.teleprompt import simba

from dspy_operator.api.optimizationrun import OptimizerOptions, SIMBAOptions
from dspy_operator.runner.optimizers.shape import Counts, Setup, Sizes, Trial


class SIMBA:
    """Each step answers a minibatch several times at temperature 1, makes candidates of what differs, and scores these there.

    At the end the winners of the steps are scored on all dev rows. Its threads share nothing that is drawn at random: all
    draws are between two batches, from the run's seed; an answer's rollout is part of its request, and results keep the
    order of the requests.
    """

    uses_validation = False
    trial: Trial = "Own"

    def check(self, options: OptimizerOptions, sizes: Sizes) -> str | None:
        """A minibatch must not be larger than what it is drawn from."""
        assert isinstance(options, SIMBAOptions)
        if options.bsize is not None and options.bsize > sizes.dev:
            return f"bsize {options.bsize} is more than the {sizes.dev} dev rows"
        return None

    def counts(self, options: OptimizerOptions, sizes: Sizes, calls: int | None) -> Counts:
        """DSPy's arguments."""
        return {
            "bsize": min(options.value("bsize"), sizes.dev),
            "num_candidates": options.value("num_candidates"),
            "max_steps": options.value("max_steps"),
            "max_demos": options.value("max_demos"),
        }

    def calls(self, counts: Counts, sizes: Sizes) -> int:
        """Samples, candidates and the rules of half of them; at the end the winners, the first program replays from the baseline."""
        rows, sampled, steps = counts["bsize"], counts["num_candidates"], counts["max_steps"]
        candidates = min(sampled + 1, rows)
        rules = candidates if counts["max_demos"] == 0 else (candidates + 1) // 2
        winners = min(steps, sampled)
        return int((steps * rows * (sampled + candidates) + winners * sizes.dev) * sizes.calls_per_row + steps * rules)

    def trials(self, counts: Counts, sizes: Sizes) -> int | None:
        """Steps, and the choice between their winners."""
        return int(counts["max_steps"]) + 1

    def compile(self, student: Any, options: OptimizerOptions, counts: Counts, setup: Setup) -> Any:
        """dspy.SIMBA(...).compile(student, trainset, seed)."""
        optimizer = dspy.SIMBA(
            metric=setup.metric.for_dspy,
            bsize=counts["bsize"],
            num_candidates=counts["num_candidates"],
            max_steps=counts["max_steps"],
            max_demos=counts["max_demos"],
            prompt_model=setup.prompt_lm,
            demo_input_field_maxlen=options.value("demo_input_field_maxlen"),
            num_threads=setup.threads,
            temperature_for_sampling=float(options.value("temperature_for_sampling")),
            temperature_for_candidates=float(options.value("temperature_for_candidates")),
        )
        done = itertools.count(1)

        def finished(batch: Sequence[_Attempt]) -> None:
            if batch[0].sampled:
                setup.on_bootstrap([attempt.score for attempt in batch])
                return
            for _, attempts in itertools.groupby(batch, key=lambda attempt: id(attempt.program)):
                of_program = list(attempts)
                setup.on_evaluation(
                    of_program[0].program,
                    [attempt.example for attempt in of_program],
                    [attempt.score for attempt in of_program],
                )
            setup.on_trial(next(done))

        with _watched(finished):
            program = optimizer.compile(student, trainset=list(setup.dev), seed=setup.seed)
        setup.on_trial(counts["max_steps"] + 1)
        return program


@dataclass(eq=False)
class _Attempt:
    """A program on one row."""

    program: Any
    example: Any = None
    score: float = 0.0
    is_done: bool = False

    @property
    def sampled(self) -> bool:
        """Whether it is one of a step's samples: those alone have a model of their own, with a rollout."""
        return self.program.predictors()[0].lm is not None


@dataclass
class _Batches:
    """SIMBA emits no events: what it runs is seen where it wraps each program for its threads, all of a batch before any runs.

    A batch is reported by the thread that ends its last row, so that its mark is written before anything is asked that
    follows from it.
    """

    wrap: Callable[[Any, Any], Callable[[Any], dict[str, Any]]]
    """DSPy's own."""
    finished: Callable[[Sequence[_Attempt]], None]
    batch: list[_Attempt] = field(default_factory=list)
    left: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, program: Any, metric: Any) -> Callable[[Any], dict[str, Any]]:
        """In the place of `wrap_program`."""
        run, attempt = self.wrap(program, metric), _Attempt(program)
        with self.lock:
            if self.left == 0:
                self.batch = []
            self.batch.append(attempt)
            self.left += 1

        def watched(example: Any) -> dict[str, Any]:
            outcome = run(example)
            self._ended(attempt, example, float(outcome["score"]))
            return outcome

        return watched

    def _ended(self, attempt: _Attempt, example: Any, score: float) -> None:
        with self.lock:
            if attempt.is_done:  # DSPy gives a row that takes 120 s to a second thread
                return
            attempt.example, attempt.score, attempt.is_done = example, score, True
            self.left -= 1
            if self.left:
                return
            batch = self.batch
        self.finished(batch)


@contextmanager
def _watched(finished: Callable[[Sequence[_Attempt]], None]) -> Iterator[None]:
    """While it holds, SIMBA's batches are reported."""
    original = simba.wrap_program
    simba.wrap_program = _Batches(original, finished)
    try:
        yield
    finally:
        simba.wrap_program = original
