"""What a run leaves beside its revision: report.json, and a line of examples.jsonl.zst for each row."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from dspy_operator.contract.documents import DatasetReport, GateReport, Score, ToolUsage
from dspy_operator.contract.exits import Outcome, Reason
from dspy_operator.contract.runspec import Document, Usage


class Spread(Document):
    """One number of all answers: percentiles by nearest rank, so that some answer had each."""

    mean: float
    p50: float
    p90: float
    p99: float
    max: float


class AnswerCost(Document):
    """What an answer of one program takes, on the test rows: the task role's calls as the journal has them."""

    answers: int
    """How many there are; rows whose request failed for good have none."""
    calls: Spread
    input_tokens: Spread
    output_tokens: Spread
    seconds: Spread
    """From request to answer, all calls of a row one after the other; without waiting, and without attempts that failed."""


class ScoredProgram(Document):
    """A program that was scored on all rows that the optimizer compares on."""

    program: str
    """Its hash."""
    score: float
    """Of 0 to 100."""
    tokens: float
    """Mean of an answer, input and output."""
    seconds: float
    """Mean of an answer."""
    front: bool
    """Whether no other has at least its score for fewer tokens, or more for as many."""
    arms: list[str] = []
    """What it was judged as."""


class ScoredPrograms(Document):
    """Score against tokens."""

    scored: int
    """All of them."""
    shown: list[ScoredProgram]
    """In the order in which they were scored; of more than 200 the judged, the front and the best."""


class ClassScore(Document):
    """One value of an output, of 0 to 100."""

    precision: float
    recall: float
    f1: float
    support: int
    """Test rows that have it."""


class ClassScores(Document):
    """An output of type Literal under ExactMatch."""

    macro_f1: float
    """Mean of the F1 of each class."""
    classes: dict[str, ClassScore] = {}
    """By value; none of more than 100."""


class RowScore(Document):
    """One program on one row."""

    score: float
    """0 to 1; of several answers their mean."""
    class_: str = Field(alias="class")
    """right, wrong (a score below 1), tool (the same where a tool had no answer), or why there is no answer: parse (it does not fit the adapter), truncated (cut off at maxTokens), request (none ever came). Of several answers the worst."""
    scores: list[float] | None = None
    """Of each answer, where there are several."""


class ReportRow(Document):
    """A test row, without its text."""

    line: int
    """Of the dataset."""
    digest: str
    baseline: RowScore | None = None
    incumbent: RowScore | None = None
    candidate: RowScore | None = None


class Report(Document):
    """report.json, beside each revision."""

    revision: str | None = None
    """Its digest."""
    arms: dict[str, str] = {}
    """baseline, incumbent, candidate -> digest of the revision that was judged, as far as it is known."""
    outcome: Outcome | None = None
    reason: Reason
    message: str = ""
    scores: dict[str, Score] = {}
    """As of Result."""
    gate: GateReport | None = None
    dataset: DatasetReport | None = None
    usage: Usage = Usage()
    usage_by_role: dict[str, Usage] = {}
    tools: dict[str, ToolUsage] | None = None
    """As of Result."""
    resolved: dict[str, Any] = {}
    """Sizes of the optimizer, every default and every FitBudget settled."""
    seconds: float = 0.0
    classes: dict[str, dict[str, ClassScores]] | None = None
    """Arm -> output -> its classes."""
    answers: dict[str, AnswerCost] | None = None
    """By arm."""
    programs: ScoredPrograms | None = None
    rows: list[ReportRow] = []
    """Empty where dataset.exportRows is false."""


class Answer(Document):
    """One answer, as examples.jsonl.zst has it."""

    outputs: dict[str, Any]
    """Empty where it cannot be read or never came."""
    score: float
    feedback: str
    class_: str = Field(alias="class")
    calls: int
    input_tokens: int
    output_tokens: int
    seconds: float


class Answers(Document):
    """Several answers of one program to one row, where it samples."""

    score: float
    """Their mean."""
    class_: str = Field(alias="class")
    """The worst."""
    answers: list[Answer]


class Example(Document):
    """A line of examples.jsonl.zst."""

    line: int
    """Of the dataset."""
    split: Literal["train", "validation", "test"]
    inputs: dict[str, Any]
    expected: dict[str, Any]
    arms: dict[str, Answer | Answers]
    """baseline, incumbent, candidate, as far as they were asked."""
