"""What a pod reports: progress while it runs, the result once, and the account that outlives both."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, RootModel

from dspy_operator.api.optimizationrun import Budget
from dspy_operator.contract.exits import Exit, Outcome, Reason
from dspy_operator.contract.gate import Verdict
from dspy_operator.contract.runspec import Document, RunSpec, Usage

PROGRESS_BYTES = 64 * 1024


class Score(Document):
    """One program on one set of rows."""

    score: float
    """Mean over the rows that are not undecided, 0 to 100."""
    rows: int
    failed: int = 0
    """Rows whose request failed for good, which count as 0, and those that are undecided."""
    undecided: int | None = None
    """Rows whose answer a judge gave no verdict on; no part of the score. Absent where there are none."""
    unreadable: int = 0
    """Rows whose answer did not fit the adapter; they count as 0."""
    repeats: int = 1
    """Answers to each row; where there are several, `failed` and `unreadable` count answers."""
    macro_f1: dict[str, float] | None = None
    """Output -> mean F1 of its classes, 0 to 100; on test, of outputs of type Literal that ExactMatch compares."""


class Progress(Document):
    """progress.json: at most one every 5 s from a pod."""

    attempt: int = 1
    try_: int = Field(default=1, alias="try")
    effective: int = 0
    """Generation of the control document in force."""
    step: str = "load"
    """load | preflight | baseline | optimize | judge | publish"""
    stage: str | None = None
    """Of Stages: "2 of 3: MIPROv2"; trials are those of the stage."""
    trials_done: int = 0
    trials_planned: int | None = None
    percent: int = 0
    eta_seconds: float | None = None
    best: float | None = None
    baseline: float | None = None
    incumbent: float | None = None
    usage: dict[str, Usage] = {}
    failed_examples: int = 0
    heartbeat: str = ""


class DatasetReport(Document):
    """What the rows came to."""

    rows: int
    train: int
    validation: int
    test: int
    dropped: int
    dropped_message: str = ""
    digest: str
    test_digest: str


class CalibrationReport(Document):
    """How far a judge agrees with people."""

    kappa: float | None = None
    """Cohen's, of more than two grades with quadratic weights; absent where it cannot be computed."""
    rows: int
    """Dev rows that a person graded."""
    undecided: int = 0
    """Of them, those that the judge gave no verdict on; no part of kappa."""
    agreed: int = 0
    """Of them, those that both grade alike."""
    min_kappa: str | None = None

    def told(self) -> str:
        """In words: "kappa 0.71, 38 of 40 grades are the same, 2 without a verdict"."""
        kappa = "cannot be computed" if self.kappa is None else f"{self.kappa:.2f}"
        least = f" (minKappa {self.min_kappa})" if self.min_kappa is not None else ""
        undecided = f", {self.undecided} without a verdict" if self.undecided else ""
        return f"kappa {kappa}{least}, {self.agreed} of {self.rows - self.undecided} grades are the same{undecided}"


class GateReport(Document):
    """The verdict on the candidate."""

    p: float | None = None
    alpha: float | None = None
    delta: float | None = None
    passed: bool = False
    """p, minImprovement and failed examples are all good enough."""
    promote: bool = False
    """Passed, and no person has to decide."""
    why: str = ""
    underpowered: bool = False
    smallest_effect: float | None = None
    method: str = ""
    look: int = 1

    @classmethod
    def of(cls, verdict: Verdict, look: int) -> Self:
        """What the gate said at its `look`-th look at the test rows."""
        return cls(
            p=verdict.p,
            alpha=verdict.alpha,
            delta=verdict.delta,
            passed=verdict.passed,
            promote=verdict.promote,
            why=verdict.why,
            underpowered=verdict.underpowered,
            smallest_effect=verdict.smallest_effect,
            method=verdict.method.value,
            look=look,
        )


class Estimate(Document):
    """What a run would spend."""

    calls: int
    tokens: int
    cost: str | None = None
    reserved_calls: int = 0
    optimize_calls: int = 0


class ToolUsage(Document):
    """What one tool of a ReAct was asked."""

    calls: int = 0
    """On the wire."""
    failed: int = 0
    """Calls that the model was told an error for, as nothing else came."""


class Result(Document):
    """result.json: once a try."""

    attempt: int = 1
    try_: int = Field(default=1, alias="try")
    outcome: Outcome | None = None
    exit: int = 0
    reason: Reason = Reason.COMPLETED
    message: str = ""
    path: str | None = None
    dataset: DatasetReport | None = None
    code: dict[str, str] | None = None
    """Path of code in the program -> sha256 of its file; absent where it has none."""
    scores: dict[str, Score] = {}
    """baseline, incumbent, candidate on test; devBaseline, devBest on the rows the optimizer scored; devAgain the chosen one on them, asked anew."""
    gate: GateReport | None = None
    calibration: dict[str, CalibrationReport] | None = None
    """Path of a judge in the program -> how far it agrees with people; absent where nobody graded anything."""
    usage: Usage = Usage()
    usage_by_role: dict[str, Usage] = {}
    tools: dict[str, ToolUsage] | None = None
    """By name; of a program that has some. They are no calls of a model, and no budget counts them."""
    resolved: dict[str, Any] = {}
    estimate: Estimate | None = None
    candidate: str | None = None
    """Digest of the published revision."""
    runner_image: str = ""
    versions: dict[str, str] = {}
    seconds: float = 0.0


class KeptResult(Document):
    """What the account keeps of a finished attempt: enough to say "the same inputs gave this", with no call."""

    outcome: Outcome
    candidate: str
    scores: dict[str, Score] = {}
    budget: Budget
    """A result of `auto: FitBudget` counts for the same budget only: its sizes came from it."""
    resolved: dict[str, Any] = {}


class AccountEntry(Document):
    """What outlives one run's object: its spend, its results, its looks at test sets. One data key a run name."""

    attempt: int = 1
    tries: int = 0
    rerun: str | None = None
    inputs: dict[str, KeptResult] = {}
    """inputDigest -> what it gave; only of runs that ended with exit 0."""
    used: Usage = Usage()
    reserved: Usage = Usage()
    """A reservation that was never settled counts as spent."""
    test_looks: dict[str, int] = {}
    """Digest of a test set -> this run's looks at it."""

    def judged(self, account: Account, spec: RunSpec, result: Result, budget: Budget) -> Self:
        """With the result's look at the test rows, and the result itself where it may be used again.

        Args:
            account: all runs of the program, this one as it was before.
            budget: in force at the end.
        """
        looks, inputs = dict(self.test_looks), dict(self.inputs)
        if result.dataset is not None and result.gate is not None and result.gate.p is not None:
            # The same judgement settled twice is one look; of other runs that looked meanwhile none is lost.
            digest = result.dataset.test_digest
            mine, look = looks.get(digest, 0), result.gate.look
            others = account.looks(digest) - mine
            looks[digest] = max(mine, look - others, look - spec.test_looks)
        if (
            result.exit == Exit.COMPLETED
            and spec.mode == "Run"
            and result.outcome is not None
            and result.candidate is not None
        ):
            inputs[spec.input_digest] = KeptResult(
                outcome=result.outcome,
                candidate=result.candidate,
                scores=result.scores,
                budget=budget,
                resolved=result.resolved,
            )
        return self.model_copy(update={"test_looks": looks, "inputs": inputs})


class Account(RootModel[dict[str, AccountEntry]]):
    """`<program>-account`: run name -> entry. In local mode the file `OUT/<program>.account.json`."""

    def looks(self, test_digest: str) -> int:
        """Looks at a test set, over all runs of the program."""
        return sum(entry.test_looks.get(test_digest, 0) for entry in self.root.values())

    def document(self) -> dict[str, Any]:
        """The wire form."""
        return {name: entry.document() for name, entry in self.root.items()}


class LoadedModel(Document):
    """The model that an Ollama pod has loaded."""

    name: str
    digest: str = ""
    size_bytes: int = 0
    context_length: int = 0
    quantization: str = ""


class LoaderProgress(Document):
    """`progress.<pod>.json` of `mep-<endpoint>-pod`: how far the loader of one replica is."""

    phase: Literal["pulling", "loading", "ready", "failed"]
    completed: int = 0
    """Bytes."""
    total: int = 0
    percent: int = 0
    eta: float | None = None
    """Seconds."""
    model: LoadedModel | None = None
    reason: str | None = None
    message: str = ""
