"""Every reason of the runner has a test in which the real runner ends with it. That test is named here, and looked for in its source.

A run of DSPy takes seconds and has no place among unit tests: what is checked is that the named test is there, drives the real
command line or calls the runner's own code, and speaks of the reason. That it passes is for `make test`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from dspy_operator.contract.exits import Reason

TESTS = Path(__file__).parents[1]
MISTAKE = "integration/test_bad_input.py::test_a_mistake_is_told_with_its_reason_place_and_field_and_costs_nothing"

REACHED_BY: Mapping[Reason, str] = {
    Reason.COMPLETED: "integration/test_run.py::test_a_run_ends_with_a_judged_revision_and_verifies",
    Reason.STOPPED_EARLY: "integration/test_usage.py::test_finish_ends_the_optimization_and_judges_what_there_is",
    Reason.GOAL_REACHED: "integration/test_goal.py::test_a_goal_ends_the_search_and_is_judged",
    Reason.OPTIMIZER_GAVE_UP: "integration/test_stages.py::test_what_earlier_stages_made_is_judged_where_one_gives_up",
    Reason.INVALID_PROGRAM: MISTAKE,
    Reason.INVALID_DATASET: MISTAKE,
    Reason.DATASET_NOT_FOUND: MISTAKE,
    Reason.CODE_NOT_FOUND: MISTAKE,
    Reason.SPLIT_EMPTY: MISTAKE,
    Reason.REVISION_TOO_LARGE: "unit/test_channel.py::test_a_larger_revision_is_a_failure_that_says_what_to_cut",
    Reason.INVALID_METRIC: "integration/test_faults.py::test_a_broken_metric_ends_the_run_before_the_fourth_call",
    Reason.BUDGET_TOO_SMALL: "integration/test_budget.py::test_a_budget_below_its_own_judgement_is_refused_unpaid",
    Reason.PRICING_MISSING: MISTAKE,
    Reason.BUDGET_EXHAUSTED: (
        "integration/test_budget.py::test_80_calls_stop_a_run_that_wants_300_and_raising_them_pays_nothing_twice"
    ),
    Reason.ENDPOINT_UNAVAILABLE: "integration/test_faults.py::test_nobody_listens",
    Reason.AUTHENTICATION_FAILED: "integration/test_usage.py::test_a_wrong_api_key_is_told_and_written_nowhere",
    Reason.SECRET_MISSING: "integration/test_channel.py::test_an_absent_secret_is_a_typed_exit_with_its_name",
    Reason.REPLAY_DIVERGED: (
        "integration/test_verify.py::test_an_edited_answer_that_becomes_a_prompt_is_found_with_the_difference"
    ),
    Reason.JOURNAL_CORRUPT: "integration/test_verify.py::test_a_flipped_bit_ends_with_49_and_the_line",
    Reason.JOURNAL_FULL: "integration/test_verify.py::test_a_full_volume_ends_with_50_and_resumes_with_more_room",
    Reason.STOPPED: "integration/test_channel.py::test_stop_cancel_ends_the_run_with_51",
    Reason.VERIFY_FAILED: "integration/test_bad_input.py::test_verify_of_what_is_no_finished_run_says_what_is_missing",
    Reason.MODEL_ANSWERS_UNUSABLE: "integration/test_faults.py::test_a_model_whose_answers_never_parse_ends_the_run",
    Reason.ENDPOINT_NOT_FOUND: MISTAKE,
    Reason.ENDPOINT_NOT_ALLOWED: "integration/test_validate.py::test_an_endpoint_of_another_namespace_lets_the_run_in",
    Reason.PROGRAM_NOT_FOUND: MISTAKE,
    Reason.INVALID_MANIFEST: "integration/test_bad_input.py::test_all_mistakes_of_a_manifest_are_told_at_once",
    Reason.INTERNAL_ERROR: "integration/test_channel.py::test_without_a_control_document_nothing_starts",
}
"""Reason -> the test that shows it best; many have more."""


def defined(tree: ast.Module) -> dict[str, ast.stmt]:
    """Name -> function, class or table of a module."""
    found: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = node
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            if isinstance(target, ast.Name):
                found[target.id] = node
    return found


def parts(name: str, known: Mapping[str, ast.stmt]) -> Iterable[ast.AST]:
    """What a test is made of: itself, and what it uses of its module."""
    names, ahead = {name}, [name]
    while ahead:
        used = {node.id for node in ast.walk(known[ahead.pop()]) if isinstance(node, ast.Name)}
        ahead += (used & known.keys()) - names
        names |= used & known.keys()
    return (node for used in names for node in ast.walk(known[used]))


def speaks_of(reason: Reason, nodes: Iterable[ast.AST]) -> bool:
    """The member, its word, or a line of output that begins with it (it may be a pattern)."""
    for node in nodes:
        if isinstance(node, ast.Attribute) and ast.unparse(node) == f"Reason.{reason.name}":
            return True
        word = node.value if isinstance(node, ast.Constant) else None
        if isinstance(word, str) and re.match(rf"\^?{reason.value}(:|$)", word):
            return True
    return False


@pytest.mark.parametrize("reason", Reason)
def test_a_test_of_the_real_runner_ends_with_the_reason(reason: Reason) -> None:
    file, _, test = REACHED_BY[reason].partition("::")
    text = (TESTS / file).read_text("utf-8")
    known = defined(ast.parse(text))
    assert re.search(r"^from (tests\.integration\.(harness|pod)|dspy_operator\.runner\S*) import", text, re.MULTILINE)
    assert test in known
    assert speaks_of(reason, parts(test, known))


def test_a_test_that_speaks_of_another_reason_is_no_proof() -> None:
    known = defined(ast.parse('TABLE = ("Stopped",)\ndef test_it():\n    assert run() in TABLE, Reason.JOURNAL_FULL\n'))
    told = {reason for reason in Reason if speaks_of(reason, parts("test_it", known))}
    assert told == {Reason.STOPPED, Reason.JOURNAL_FULL}
