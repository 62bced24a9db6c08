"""Watches DSPy's evaluations: a mark for each, the best-so-far, unreadable answers, and trials for the progress bar."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import dspy
from dspy.utils.callback import BaseCallback
from dspy.utils.exceptions import AdapterParseError

from dspy_operator.contract.canonical import dataset_digest
from dspy_operator.contract.exits import Reason
from dspy_operator.contract.repeats import LEADING
from dspy_operator.runner.journal import is_full
from dspy_operator.runner.ledger import Ledger, Mark
from dspy_operator.runner.program import program_hash, state_document
from dspy_operator.runner.rows import Row, example_key
from dspy_operator.runner.stop import RunStop
from dspy_operator.runner.took import Point, Took


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

    whole: Candidate | None = None
    """Of those scored on all rows."""
    scores: dict[str, float] = field(default_factory=dict)
    """Hash of each program that was scored on all rows -> its score, 0 to 100."""
    leading: list[Candidate] = field(default_factory=list)
    """The LEADING best of them, the best first."""
    points: list[Point] = field(default_factory=list)
    """The same programs with what their answers took, of those that had some."""
    beaten: set[str] = field(default_factory=set)
    """Hashes of the programs that came after the best and are not better: scored on all rows, or dropped from a race."""
    begun_with: int = 1
    """How many different programs are scored before the optimization: the baseline, and what it starts from."""
    _first: Mapping[str, float] = field(default_factory=dict)
    """Row -> score of the best of those, 0 to 1."""
    _promising: Candidate | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def candidate(self) -> Candidate | None:
        """The best. While none but the first ones was scored on all rows, the one that leads these most on a part of them.

        SIMBA scores all rows at its very end, and a stop before that would otherwise always leave the baseline. What a
        part of the rows promises is judged like any other candidate.
        """
        with self._lock:
            return self._promising or self.whole

    def offer(self, candidate: Candidate, by_row: Mapping[str, float], point: Point | None = None) -> None:
        """Take one that was scored on all rows, if it is better."""
        with self._lock:
            known = candidate.hash in self.scores
            if point is not None and not known:
                self.points.append(point)
            if not known and len(self.scores) >= self.begun_with:
                self._promising = None
            if candidate.hash not in self.scores:
                self.leading = sorted([*self.leading, candidate], key=lambda each: -each.score)[:LEADING]
            self.scores.setdefault(candidate.hash, candidate.score)
            if self.whole is None or candidate.score > self.whole.score:
                self.whole = candidate
                self.beaten.clear()
                if len(self.scores) <= self.begun_with:
                    self._first = by_row
            elif not known:
                self.beaten.add(candidate.hash)

    def offer_on_part(self, hashed: str, state: Mapping[str, Any], by_row: Mapping[str, float]) -> None:
        """Take one that was scored on a part of the rows, if it promises more; its score is what it promises."""
        with self._lock:
            if self.whole is None or len(self.scores) > self.begun_with or not by_row.keys() <= self._first.keys():
                return
            lead = sum(score - self._first[row] for row, score in by_row.items()) / len(by_row)
            promised = self.whole.score + 100 * lead
            if promised > (self._promising or self.whole).score:
                self._promising = Candidate(hashed, promised, state)


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
        """Evaluations, but for those that say themselves what they came to."""
        self.on_failure: Callable[[BaseException], None] | None = None
        """Told why an evaluation has no score, before its optimizer makes one of it: MIPROv2 takes a 0 for it (dspy/teleprompt/utils.py)."""
        self._answering = threading.local()
        self._took: WeakKeyDictionary[Any, tuple[int, Took]] = WeakKeyDictionary()
        """Program -> answers since its last evaluation, and what they took."""
        self._lock = threading.Lock()

    def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Remember what is evaluated."""
        if not getattr(instance, "marks_itself", False):
            program = inputs["program"]
            self._running[call_id] = (program, inputs.get("devset") or instance.devset)
            with self._lock:
                self._took.pop(getattr(program, "judged", program), None)

    def on_evaluate_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """Mark it, and keep it if it is the best on all scored rows."""
        program, devset = self._running.pop(call_id, (None, ()))
        if exception is not None and self.on_failure is not None:
            self.on_failure(exception)
        if program is None or exception is not None or outputs is None:
            return
        self.evaluated(getattr(program, "judged", program), devset, [score_of(score) for *_, score in outputs.results])

    def evaluated(self, program: Any, devset: Sequence[Any], scores: Sequence[float], *, dropped: bool = False) -> None:
        """Mark an evaluation, and keep its program if it is the best.

        Args:
            dropped: before its end, because it could not become the best any more.
        Raises:
            RunStop: ReplayDiverged, JournalFull or InternalError; GoalReached.
        """
        try:
            self._evaluated(program, devset, scores, dropped=dropped)
        except Exception as error:  # left alone, DSPy makes a warning of it, and the run goes on unrecorded
            if is_full(error):
                raise RunStop(Reason.JOURNAL_FULL, f"the volume is full: {error}") from error
            raise RunStop(Reason.INTERNAL_ERROR, f"an evaluation could not be recorded: {error}") from error

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """A program begins to answer, where it is not asked by another."""
        self._answering.depth = getattr(self._answering, "depth", 0) + 1
        if self._answering.depth == 1:
            self._answering.program, self._answering.before = instance, self._ledger.taken()

    def on_module_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """Count what its answer took."""
        self._answering.depth -= 1
        if self._answering.depth == 0:
            program, took = self._answering.program, self._ledger.taken() - self._answering.before
            del self._answering.program
            with self._lock:
                answers, before = self._took.get(program, (0, Took()))
                self._took[program] = (answers + 1, before + took)

    def on_lm_end(self, call_id: str, outputs: Sequence[Any] | None, exception: BaseException | None = None) -> None:
        """Count empty answers: DSPy refuses them before the adapter's parser, which would tell us."""
        if outputs and all(answer == "" for answer in outputs):
            self._unreadable.unreadable("")

    def on_adapter_parse_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """Count answers that cannot be read."""
        self._unreadable.parsed(exception)

    def _evaluated(self, program: Any, devset: Sequence[Any], scores: Sequence[float], *, dropped: bool) -> None:
        rows = [self._rows[example_key(example)] for example in devset]
        digest = dataset_digest((row.digest, "") for row in rows)
        hashed = program_hash(program)
        repeat = dspy.settings.lm.engine.repeat if self._kind == "judge" else 0
        mark = Mark(self._kind, hashed, digest, tuple(scores), tuple(row.place for row in rows), repeat)
        self._ledger.mark(mark)
        mean = 100 * sum(scores) / len(scores)
        with self._lock:
            answers, took = self._took.pop(program, (0, Took()))
        whole = dataset_digest((row.digest, "") for row in sorted(rows, key=lambda row: row.digest)) == self._scored
        by_row = {row.digest: score for row, score in zip(rows, scores, strict=True)}
        if whole:
            point = Point(hashed, mean, took, answers) if answers else None
            self._best.offer(Candidate(hashed, mean, state_document(program)), by_row, point)
        else:
            self._best.offer_on_part(hashed, state_document(program), by_row)
            if dropped and hashed not in self._best.scores:
                self._best.beaten.add(hashed)
        self._on_evaluation(len(scores), mean, whole)


def score_of(value: Any) -> float:
    """The score in what a metric gave: a float, a bool, or GEPA's Prediction(score=, feedback=)."""
    return float(getattr(value, "score", value))
