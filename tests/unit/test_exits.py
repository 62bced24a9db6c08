"""The reasons and exit codes: complete, documented, and the numbers that other engines and scripts rely on."""

from __future__ import annotations

import inspect
from collections import Counter

import pytest

from dspy_operator.cli.said import said_beside
from dspy_operator.contract import exits
from dspy_operator.contract.exits import EXIT_OF, Exit, Outcome, Reason, RunFailed
from dspy_operator.runner.stop import RunStop

TABLE = {
    0: {"Completed", "StoppedEarly", "GoalReached", "OptimizerGaveUp"},
    40: {"InvalidProgram", "CodeNotFound"},
    41: {"InvalidDataset", "DatasetNotFound", "SplitEmpty", "RevisionTooLarge"},
    42: {"InvalidMetric"},
    43: {"BudgetTooSmall", "PricingMissing"},
    44: {"BudgetExhausted"},
    45: {"EndpointUnavailable"},
    46: {"AuthenticationFailed"},
    47: {"SecretMissing"},
    48: {"ReplayDiverged"},
    49: {"JournalCorrupt"},
    50: {"JournalFull"},
    51: {"Stopped"},
    52: {"VerifyFailed"},
    53: {"ModelAnswersUnusable"},
    64: {"InvalidManifest", "ProgramNotFound", "EndpointNotFound", "EndpointNotAllowed"},
    70: {"InternalError"},
}
"""The contract's table; a number never changes its meaning."""


def test_every_reason_ends_with_the_code_of_the_contract() -> None:
    found: dict[int, set[str]] = {}
    for reason in Reason:
        found.setdefault(int(EXIT_OF[reason]), set()).add(reason.value)
    assert found == TABLE


def test_every_code_has_a_reason_and_is_none_of_the_shells_or_clicks() -> None:
    assert set(EXIT_OF.values()) == set(Exit)
    assert not {int(code) for code in Exit} & {1, 2, *range(126, 256)}


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_says_when_it_is_set(reason: Reason) -> None:
    said = said_beside(Reason).get(reason.name, "")
    assert said.startswith("Set ") and said.endswith(".")
    assert max(Counter(said_beside(Reason).values()).values()) == 1


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_says_what_it_means(outcome: Outcome) -> None:
    assert said_beside(Outcome).get(outcome.name, "").endswith(".")


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_is_a_word_in_camel_case(reason: Reason) -> None:
    assert reason.value == reason.name.title().replace("_", "")


@pytest.mark.parametrize("end", [RunFailed, RunStop])
def test_a_typed_end_carries_its_code_and_its_field(end: type[RunFailed] | type[RunStop]) -> None:
    raised = end(Reason.SPLIT_EMPTY, "no row", path="spec.dataset.split")
    assert (raised.exit, raised.message, raised.path, str(raised)) == (
        Exit.INVALID_DATASET,
        "no row",
        "spec.dataset.split",
        "no row",
    )


def test_what_ends_a_run_inside_dspy_is_no_exception_that_an_optimizer_could_swallow() -> None:
    assert not issubclass(RunStop, Exception)
    assert {reason for reason in Reason if RunStop(reason, "").keeps_result} == {
        Reason.BUDGET_EXHAUSTED,
        Reason.STOPPED_EARLY,
        Reason.GOAL_REACHED,
        Reason.OPTIMIZER_GAVE_UP,
    }
    assert inspect.getmodule(RunFailed) is exits
