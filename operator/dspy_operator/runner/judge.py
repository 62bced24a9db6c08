"""The judgement: every different arm answers the same held-out rows, and the gate compares."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import dspy
from dspy.utils.exceptions import AdapterParseError, LMError

from dspy_operator.contract.canonical import row_digest
from dspy_operator.contract.documents import Score
from dspy_operator.runner.attempts import Ungraded
from dspy_operator.runner.metric import UNDECIDED, Assessment, ScoredMetric
from dspy_operator.runner.optimizers.shape import NEVER
from dspy_operator.runner.rows import Row, example_key
from dspy_operator.runner.took import Took
from dspy_operator.runner.tools import tool_failed
from dspy_operator.runner.values import for_dspy, input_fields, plain, plain_fields

FailureClass = Literal["right", "wrong", "tool", "parse", "truncated", "request", "judge"]
_WORSE = get_args(FailureClass)


@dataclass(frozen=True)
class Judged:
    """One row's answer by one program."""

    row: Row
    score: float
    outputs: Mapping[str, Any]
    feedback: str
    failure: FailureClass
    """request: never answered. parse: the answer did not fit the adapter. truncated: nor could it, cut off at maxTokens.
    judge: a judge gave no verdict on it. tool: a score below 1 where a tool had no answer. wrong: any other score below 1."""
    took: Took = field(default_factory=Took)


@dataclass(frozen=True)
class Arm:
    """One program on all the rows."""

    rows: tuple[Judged, ...]
    """Where each was asked several times, all of them once, then all of them again."""
    repeats: int = 1

    @property
    def by_row(self) -> tuple[tuple[Judged, ...], ...]:
        """The answers to each row."""
        rows = len(self.rows) // self.repeats
        return tuple(self.rows[place::rows] for place in range(rows))

    @property
    def scores(self) -> tuple[float, ...]:
        """0 to 1, in the order of the rows; the mean of a row's answers that are decided, UNDECIDED where none is."""
        decided = ([judged.score for judged in answers if judged.failure != "judge"] for answers in self.by_row)
        return tuple(sum(scores) / len(scores) if scores else UNDECIDED for scores in decided)

    def score(self) -> Score:
        """As the contract writes it."""
        decided = [judged.score for judged in self.rows if judged.failure != "judge"]
        undecided = len(self.rows) - len(decided)
        return Score(
            score=round(100 * sum(decided) / max(1, len(decided)), 4),
            rows=len(self.rows) // self.repeats,
            repeats=self.repeats,
            failed=sum(judged.failure == "request" for judged in self.rows) + undecided,
            undecided=undecided or None,
            unreadable=sum(judged.failure in ("parse", "truncated") for judged in self.rows),
        )


@dataclass
class Attempt:
    """A program that says why it has no answer, where dspy.Evaluate only shows an empty prediction."""

    judged: Any
    """The module."""
    taken: Callable[[], Took] = Took
    """What the answers to this thread took until now."""
    failures: dict[str, FailureClass] = field(default_factory=dict)
    took: dict[str, Took] = field(default_factory=dict)
    """Digest of the inputs -> what their answer took."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, **inputs: Any) -> Any:
        """The module's prediction; without fields where the answer cannot be read or never came."""
        before = self.taken()
        try:
            return self.judged(**inputs)
        except (AdapterParseError, UnicodeEncodeError):  # the second of XMLAdapter, where half a surrogate pair came
            return self._failed("truncated" if dspy.settings.lm.engine.truncated else "parse", inputs)
        except Ungraded:
            return self._failed("judge", inputs)
        except LMError:
            return self._failed("request", inputs)
        finally:
            with self._lock:
                self.took[row_digest(plain(inputs))] = self.taken() - before

    def failure_of(self, inputs: Mapping[str, Any]) -> FailureClass | None:
        """Why these inputs, as a row has them, have no answer."""
        return self.failures.get(row_digest(inputs))

    def took_of(self, inputs: Mapping[str, Any]) -> Took:
        """What the answer to these inputs took; nothing where they were never asked."""
        return self.took.get(row_digest(inputs), Took())

    def _failed(self, why: FailureClass, inputs: Mapping[str, Any]) -> Any:
        with self._lock:
            self.failures[row_digest(plain(inputs))] = why
        return dspy.Prediction()


def examples(rows: Sequence[Row], program: Any) -> list[Any]:
    """Rows as DSPy's examples for a program."""
    fields = input_fields(program)
    return [dspy.Example(**for_dspy(fields, row.inputs), **row.outputs).with_inputs(*row.inputs) for row in rows]


def worst(answers: Sequence[Judged]) -> FailureClass:
    """What to say of a row in one word."""
    return max((judged.failure for judged in answers), key=_WORSE.index)


def answer_repeatedly(
    program: Any, rows: Sequence[Row], metric: ScoredMetric, threads: int, *, repeats: int, first: int = 0
) -> Arm:
    """Let a program answer rows several times, each time anew where its model samples; an evaluate event each.

    Args:
        repeats: how often.
        first: number of the first answer; what was asked under a number before is what it gives again.
    """
    answers: list[Judged] = []
    for repeat in range(first, first + repeats):
        engine = dspy.settings.lm.engine
        with dspy.context(lm=engine.ledger.lm(engine.role, engine.epoch, repeat=repeat)):
            answers += answer_all(program, rows, metric, threads).rows
    return Arm(tuple(answers), repeats)


def answer_all(program: Any, rows: Sequence[Row], metric: ScoredMetric, threads: int) -> Arm:
    """Let a program answer rows, in the surrounding dspy.context; one evaluate event."""
    attempt = Attempt(program, dspy.settings.lm.engine.ledger.taken)
    found: dict[str, Assessment] = {}

    def assess(example: Any, prediction: Any, trace: Any = None) -> float:
        row = example_key(example)
        found[row] = metric.of_example(example, prediction, row)
        return found[row].score

    evaluate = dspy.Evaluate(devset=examples(rows, program), metric=assess, num_threads=threads, max_errors=NEVER)
    # An incumbent may speak another adapter than the program that the run is about (`speaking`).
    with dspy.context(adapter=getattr(program, "spoken", None) or dspy.settings.adapter):
        results = evaluate(attempt).results
    judged = []
    for row, (_, prediction, score) in zip(rows, results, strict=True):
        outputs = plain_fields(prediction) if hasattr(prediction, "items") else {}
        said = found.get(row.digest) or metric.assess(
            {**row.inputs, **row.outputs}, {}, row.digest
        )  # where the program itself raised
        failure: FailureClass | None = attempt.failure_of(row.inputs) or ("judge" if said.undecided else None)
        failure = failure or ("right" if float(score) == 1 else "tool" if tool_failed(prediction) else "wrong")
        judged.append(Judged(row, float(score), outputs, said.feedback, failure, attempt.took_of(row.inputs)))
    return Arm(tuple(judged))
