"""Watches DSPy's evaluations: a mark for each, the best-so-far, unreadable answers, and trials for the progress bar."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dspy.utils.callback import BaseCallback
from dspy.utils.exceptions import AdapterParseError

from dspy_operator.contract.canonical import dataset_digest
from dspy_operator.contract.exits import Reason
from dspy_operator.runner.journal import is_full
from dspy_operator.runner.ledger import Ledger, Mark
from dspy_operator.runner.program import program_hash, state_document
from dspy_operator.runner.rows import Row
from dspy_operator.runner.stop import RunStop


@dataclass(frozen=True)
class Candidate:
    """A program that was scored on all rows that count."""

    hash: str
    score: float
    """0 to 100."""
    state: Mapping[str, Any]


@dataclass
class Best:
    """The best-so-far; ties stay with the first, as in DSPy's optimizers."""

    candidate: Candidate | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def offer(self, candidate: Candidate) -> bool:
        """Take it if it is better; whether it was."""
        with self._lock:
            if self.candidate is not None and candidate.score <= self.candidate.score:
                return False
            self.candidate = candidate
            return True


@dataclass
class Unreadable:
    """Answers of the task model that did not fit the adapter, in a row; ends a run whose model can never answer."""

    most: int
    in_a_row: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def parsed(self, error: BaseException | None) -> None:
        """Count one answer.

        Raises:
            RunStop: ModelAnswersUnusable.
        """
        if isinstance(error, AdapterParseError):
            self.unreadable(str(error.lm_response))
            return
        with self._lock:
            self.in_a_row = 0

    def unreadable(self, answer: str) -> None:
        """Count one that cannot be read.

        Raises:
            RunStop: ModelAnswersUnusable.
        """
        with self._lock:
            self.in_a_row += 1
            if self.in_a_row < self.most:
                return
        answer = answer.strip().replace("\n", " ")[:200]
        raise RunStop(
            Reason.MODEL_ANSWERS_UNUSABLE,
            f"{self.in_a_row} answers in a row do not fit the format that the adapter asks for; the last one: {answer!r}",
        )


class Watcher(BaseCallback):  # type: ignore[misc]
    """The callback that sees every evaluation of a phase.

    DSPy logs and forgets an Exception that a callback raises; RunStop is a BaseException and gets through.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        kind: str,
        rows: Mapping[str, Row],
        scored: Sequence[Row],
        best: Best,
        unreadable: Unreadable,
        on_evaluation: Callable[[int, float, bool], None],
    ) -> None:
        self._ledger = ledger
        self._kind = kind
        self._rows = rows
        self._scored = dataset_digest((row.digest, "") for row in sorted(scored, key=lambda row: row.digest))
        self._best = best
        self._unreadable = unreadable
        self._on_evaluation = on_evaluation
        self._running: dict[str, tuple[Any, Sequence[Any]]] = {}

    def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Remember what is evaluated."""
        self._running[call_id] = (inputs["program"], inputs.get("devset") or instance.devset)

    def on_evaluate_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """Mark it, and keep it if it is the best on all scored rows."""
        program, devset = self._running.pop(call_id)
        if exception is not None or outputs is None:
            return
        try:
            self._evaluated(
                getattr(program, "judged", program), devset, [score_of(score) for *_, score in outputs.results]
            )
        except Exception as error:  # left alone, DSPy makes a warning of it, and the run goes on unrecorded
            if is_full(error):
                raise RunStop(Reason.JOURNAL_FULL, f"the volume is full: {error}") from error
            raise RunStop(Reason.INTERNAL_ERROR, f"an evaluation could not be recorded: {error}") from error

    def on_lm_end(self, call_id: str, outputs: Sequence[Any] | None, exception: BaseException | None = None) -> None:
        """Count empty answers: DSPy refuses them before the adapter's parser, which would tell us."""
        if outputs and all(answer == "" for answer in outputs):
            self._unreadable.unreadable("")

    def on_adapter_parse_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """Count answers that cannot be read."""
        self._unreadable.parsed(exception)

    def _evaluated(self, program: Any, devset: Sequence[Any], scores: list[float]) -> None:
        rows = [self._rows[example_key(example)] for example in devset]
        digest = dataset_digest((row.digest, "") for row in rows)
        hashed = program_hash(program)
        mark = Mark(self._kind, hashed, digest, tuple(scores), tuple(f"line {row.line}" for row in rows))
        self._ledger.mark(mark)
        mean = 100 * sum(scores) / len(scores)
        whole = dataset_digest((row.digest, "") for row in sorted(rows, key=lambda row: row.digest)) == self._scored
        if whole:
            self._best.offer(Candidate(hashed, mean, state_document(program)))
        self._on_evaluation(len(scores), mean, whole)


def score_of(value: Any) -> float:
    """The score in what a metric gave: a float, a bool, or GEPA's Prediction(score=, feedback=)."""
    return float(getattr(value, "score", value))


def example_key(example: Any) -> str:
    """Finds an example's row again: DSPy copies examples, so their identity does not hold."""
    from dspy_operator.contract.canonical import row_digest
    from dspy_operator.runner.values import plain_fields

    return row_digest(plain_fields(example))
