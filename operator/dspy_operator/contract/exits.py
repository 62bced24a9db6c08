"""How a runner ends: the exit codes, the reasons behind each, and what the operator does."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class Reason(StrEnum):
    """Why a run ended as it did. Reasons are API."""

    COMPLETED = "Completed"
    """Set when the optimizer came to its end and the candidate was judged."""
    STOPPED_EARLY = "StoppedEarly"
    """Set when `stop: Finish` ended the optimization; the best-so-far was judged and published."""
    GOAL_REACHED = "GoalReached"
    """Set when `goal` ended the optimization; the best-so-far was judged and published."""
    OPTIMIZER_GAVE_UP = "OptimizerGaveUp"
    """Set when the optimizer, or a stage, could not go on without an answer, after it had found something; the best-so-far was judged and published."""
    INVALID_PROGRAM = "InvalidProgram"
    """Set when a type lies outside the grammar, the program cannot be built, or what it looks things up in refuses its queries."""
    INVALID_DATASET = "InvalidDataset"
    """Set when a mapped column is absent, no row can be read, or the rows differ from those that were validated."""
    DATASET_NOT_FOUND = "DatasetNotFound"
    """Set when the object or key that `dataset.source` names does not exist."""
    CODE_NOT_FOUND = "CodeNotFound"
    """Set when the ConfigMap, key or module that a `code` of program or metric names does not exist."""
    SPLIT_EMPTY = "SplitEmpty"
    """Set when the split leaves dev or test without a row, or too few for the optimizer."""
    REVISION_TOO_LARGE = "RevisionTooLarge"
    """Set when a revision's files do not fit one ConfigMap (900 KiB): the message says what to cut."""
    INVALID_METRIC = "InvalidMetric"
    """Set when the metric names no output, has a wrong pattern, template or column, cannot use a label, or gives what is no score."""
    BUDGET_TOO_SMALL = "BudgetTooSmall"
    """Set when the budget cannot pay for its own judgement."""
    PRICING_MISSING = "PricingMissing"
    """Set when a cost budget meets an endpoint without pricing."""
    BUDGET_EXHAUSTED = "BudgetExhausted"
    """Set when a limit stopped the optimization; the best-so-far was judged and published."""
    ENDPOINT_UNAVAILABLE = "EndpointUnavailable"
    """Set when the breaker of an endpoint opened: no answer to 10 requests in a row, or 429 for 5 minutes; or the server of the rows did not answer."""
    AUTHENTICATION_FAILED = "AuthenticationFailed"
    """Set when an endpoint answers 401 or 403, or says that the account cannot pay."""
    SECRET_MISSING = "SecretMissing"
    """Set when the file of an API key is absent or empty, or the headers or credentials that the rows are asked for with."""
    REPLAY_DIVERGED = "ReplayDiverged"
    """Set when a replay asks for something else, or scores something else, than the journal recorded."""
    JOURNAL_CORRUPT = "JournalCorrupt"
    """Set when a line of the journal fails its checksum."""
    JOURNAL_FULL = "JournalFull"
    """Set when the journal's volume takes no more."""
    STOPPED = "Stopped"
    """Set on SIGTERM, SIGINT, suspend, or `stop: Cancel`."""
    VERIFY_FAILED = "VerifyFailed"
    """Set when `verify` needs a call that the journal does not hold, or ends in another digest."""
    MODEL_ANSWERS_UNUSABLE = "ModelAnswersUnusable"
    """Set when an endpoint's answers can never be read: no completion in them, or not one that fits the adapter."""
    ENDPOINT_NOT_FOUND = "EndpointNotFound"
    """Set when an endpoint that a run or program names does not exist, or knows no such model."""
    ENDPOINT_NOT_ALLOWED = "EndpointNotAllowed"
    """Set by `validate` when an endpoint that a run or program names does not let its namespace in."""
    PROGRAM_NOT_FOUND = "ProgramNotFound"
    """Set when the program that a run names does not exist."""
    INVALID_MANIFEST = "InvalidManifest"
    """Set in local mode when a manifest cannot be read or the schema refuses it."""
    INTERNAL_ERROR = "InternalError"
    """Set on a bug of ours: the traceback is in the log, a short message in the result."""


class Exit(IntEnum):
    """Exit codes of the runner; the operator acts on the code, people read the reason."""

    COMPLETED = 0
    INVALID_PROGRAM = 40
    INVALID_DATASET = 41
    INVALID_METRIC = 42
    BUDGET_TOO_SMALL = 43
    BUDGET_EXHAUSTED = 44
    ENDPOINT_UNAVAILABLE = 45
    AUTHENTICATION_FAILED = 46
    SECRET_MISSING = 47
    REPLAY_DIVERGED = 48
    JOURNAL_CORRUPT = 49
    JOURNAL_FULL = 50
    STOPPED = 51
    VERIFY_FAILED = 52
    MODEL_ANSWERS_UNUSABLE = 53
    USAGE = 64
    INTERNAL_ERROR = 70


EXIT_OF: dict[Reason, Exit] = {
    Reason.COMPLETED: Exit.COMPLETED,
    Reason.STOPPED_EARLY: Exit.COMPLETED,
    Reason.GOAL_REACHED: Exit.COMPLETED,
    Reason.OPTIMIZER_GAVE_UP: Exit.COMPLETED,
    Reason.INVALID_PROGRAM: Exit.INVALID_PROGRAM,
    Reason.INVALID_DATASET: Exit.INVALID_DATASET,
    Reason.DATASET_NOT_FOUND: Exit.INVALID_DATASET,
    Reason.CODE_NOT_FOUND: Exit.INVALID_PROGRAM,
    Reason.SPLIT_EMPTY: Exit.INVALID_DATASET,
    Reason.REVISION_TOO_LARGE: Exit.INVALID_DATASET,
    Reason.INVALID_METRIC: Exit.INVALID_METRIC,
    Reason.BUDGET_TOO_SMALL: Exit.BUDGET_TOO_SMALL,
    Reason.PRICING_MISSING: Exit.BUDGET_TOO_SMALL,
    Reason.BUDGET_EXHAUSTED: Exit.BUDGET_EXHAUSTED,
    Reason.ENDPOINT_UNAVAILABLE: Exit.ENDPOINT_UNAVAILABLE,
    Reason.AUTHENTICATION_FAILED: Exit.AUTHENTICATION_FAILED,
    Reason.SECRET_MISSING: Exit.SECRET_MISSING,
    Reason.REPLAY_DIVERGED: Exit.REPLAY_DIVERGED,
    Reason.JOURNAL_CORRUPT: Exit.JOURNAL_CORRUPT,
    Reason.JOURNAL_FULL: Exit.JOURNAL_FULL,
    Reason.STOPPED: Exit.STOPPED,
    Reason.VERIFY_FAILED: Exit.VERIFY_FAILED,
    Reason.MODEL_ANSWERS_UNUSABLE: Exit.MODEL_ANSWERS_UNUSABLE,
    Reason.ENDPOINT_NOT_FOUND: Exit.USAGE,
    Reason.ENDPOINT_NOT_ALLOWED: Exit.USAGE,
    Reason.PROGRAM_NOT_FOUND: Exit.USAGE,
    Reason.INVALID_MANIFEST: Exit.USAGE,
    Reason.INTERNAL_ERROR: Exit.INTERNAL_ERROR,
}
"""The exit code of each reason."""


class Outcome(StrEnum):
    """What a finished run found."""

    IMPROVED = "Improved"
    """The candidate passed the gate against the incumbent."""
    NO_IMPROVEMENT = "NoImprovement"
    """The candidate was judged and did not pass."""
    NOT_JUDGED = "NotJudged"
    """The budget or a stop left the candidate without a judgement."""


class RunFailed(Exception):
    """A typed end of a run, raised outside of DSPy's code (inside, see runner.stop: only BaseException gets through)."""

    def __init__(self, reason: Reason, message: str, *, path: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.path = path

    @property
    def exit(self) -> Exit:
        """The code of its reason."""
        return EXIT_OF[self.reason]
