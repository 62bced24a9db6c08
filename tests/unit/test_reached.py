"""Every reason, condition and phase is reached: what the kinds' own tests have the real controllers say, against what is declared.

Nothing is set up here. The tests of a kind's room run again while somebody listens (heard.py), and each member of an enum of
reasons must have been said in every place that its docstring names, with the status that it names. Whoever adds a member
adds a test that reaches it, or a line to UNREACHED.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from dspy_operator import controllers
from dspy_operator.api import reasons
from dspy_operator.api.reasons import ConditionType, EndpointReason, ProgramReason, RunReason
from dspy_operator.cli.said import said_beside
from dspy_operator.cli.troubleshooting import PHASES
from dspy_operator.contract.exits import Outcome
from tests.unit.heard import Heard, cases, listening
from tests.unit.modelendpoint import test_decide, test_scaling
from tests.unit.optimizationrun import test_life
from tests.unit.optimizationrun import test_reasons as run_reasons
from tests.unit.promptprogram import test_promotion, test_serving, test_validation
from tests.unit.promptprogram import test_reasons as program_reasons

pytestmark = pytest.mark.unmeasured

UNREACHED: Mapping[str, str] = {}
"""`RunReason.NAME` that no test can have a controller say yet -> why. One that is said by now must go from here."""


@dataclass(frozen=True)
class Kind:
    """A kind, its reasons, and the tests that reach them."""

    name: str
    reasons: type[StrEnum]
    tests: tuple[ModuleType, ...]


KINDS = (
    Kind("PromptProgram", ProgramReason, (program_reasons, test_validation, test_promotion, test_serving)),
    Kind("OptimizationRun", RunReason, (run_reasons, test_life)),
    Kind("ModelEndpoint", EndpointReason, (test_decide, test_scaling)),
)
LACK = frozenset({ConditionType.ACCEPTED, ConditionType.ADMITTED, ConditionType.READY})
"""Conditions whose reasons say what is missing: False where a docstring names no status."""


@cache
def heard(kind: Kind) -> Heard:
    """All that is said of it in its tests."""
    with listening(kind.name) as found:
        for module in kind.tests:
            for case in cases(module):
                case()
    return found


def places(reason: StrEnum, text: str) -> Iterator[str]:
    """The places that a docstring names, as said(): "Ready False", "Event", "candidates"."""
    (where,) = re.findall(r"\(([^()]*)\)\.$", text)
    for place in where.split(", "):
        name, *status = place.partition(" after ")[0].split()
        if name in set(ConditionType):
            expected = "False" if name in LACK and name != reason.value else "True"
            yield f"{name} {status[0] if status else expected}"
        else:
            yield name


def said(found: Heard, reason: str) -> set[str]:
    """Where a reason was heard."""
    return (
        {f"{type_} {status}" for type_, status, why in found.conditions if why == reason}
        | ({"Event"} if reason in found.events else set())
        | ({"candidates"} if reason in found.verdicts else set())
    )


def missing(enum: type[StrEnum], docstrings: Mapping[str, str], found: Heard) -> dict[str, list[str]]:
    """Member -> places that its docstring names and where nobody heard it."""
    unheard = {
        reason.name: [place for place in places(reason, docstrings[reason.name]) if place not in said(found, reason)]
        for reason in enum
        if f"{enum.__name__}.{reason.name}" not in UNREACHED
    }
    return {name: unsaid for name, unsaid in unheard.items() if unsaid}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_reason_is_said_wherever_its_docstring_names_it(kind: Kind) -> None:
    assert missing(kind.reasons, said_beside(kind.reasons), heard(kind)) == {}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_no_controller_says_a_word_that_is_not_declared(kind: Kind) -> None:
    found = heard(kind)
    words = {reason for _, _, reason in found.conditions} | found.events | found.verdicts
    assert words - set(kind.reasons) == set()
    assert {type_ for type_, _, _ in found.conditions} - set(ConditionType) == set()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_phase_is_reached_and_no_other(kind: Kind) -> None:
    assert heard(kind).phases == PHASES[kind.name].keys()


def test_every_outcome_of_a_run_is_reached() -> None:
    found = {kind.name: heard(kind).outcomes for kind in KINDS if heard(kind).outcomes}
    assert found == {"OptimizationRun": set(Outcome) | {"Reused"}}


def test_every_type_of_a_condition_is_there_and_can_turn() -> None:
    turned: dict[str, set[str]] = {type_: set() for type_ in ConditionType}
    for kind in KINDS:
        for type_, status, _ in heard(kind).conditions:
            turned[type_].add(status)
    one_sided = {type_: statuses for type_, statuses in turned.items() if not {"True", "False"} <= statuses}
    # Both go: where nothing is ignored, and where the budget can be held to.
    assert one_sided == {"ScaleIgnored": {"True"}, "BudgetEnforced": {"False"}}


def test_what_is_listed_as_unreached_is_unreached_and_says_why() -> None:
    members = {f"{kind.reasons.__name__}.{reason.name}": (kind, reason) for kind in KINDS for reason in kind.reasons}
    assert UNREACHED.keys() - members.keys() == set()
    assert {name for name in UNREACHED if said(heard(members[name][0]), members[name][1])} == set()
    assert [why for why in UNREACHED.values() if len(why.split()) < 4] == []


def test_a_new_member_without_a_way_to_reach_it_is_found() -> None:
    found = Heard(conditions={("Ready", "False", "Known"), ("Stalled", "True", "Half")}, events={"Known"})

    class Reasons(StrEnum):
        KNOWN = "Known"
        HALF = "Half"
        NEW = "New"

    docstrings = {
        "KNOWN": "Set when it is known (Ready, Event).",
        "HALF": "Set when it is (Accepted Unknown, Stalled).",
        "NEW": "Set never (Admitted, Failed after `deadlines.pending`, candidates).",
    }
    assert missing(Reasons, docstrings, found) == {
        "HALF": ["Accepted Unknown"],
        "NEW": ["Admitted False", "Failed True", "candidates"],
    }


def test_no_room_and_no_enum_of_reasons_is_left_out() -> None:
    rooms = {path.parent.name for path in Path(controllers.__path__[0]).glob("*/controller.py")}
    assert rooms - {"admission"} == {kind.name.lower() for kind in KINDS}  # admission has no object of its own
    declared = {enum for _, enum in inspect.getmembers(reasons, inspect.isclass) if enum is not StrEnum}
    assert declared - {ConditionType} == {kind.reasons for kind in KINDS}
