"""Reasons are API: each says when it is set, is spelled as Kubernetes spells them, and none that a pod ends with is unknown."""

from __future__ import annotations

import inspect
import re
from enum import StrEnum

import pytest

from dspy_operator.api import reasons
from dspy_operator.api.reasons import ConditionType, EndpointReason, ProgramReason, RunReason
from dspy_operator.cli.said import said_beside
from dspy_operator.contract.exits import Reason

CLASSES = (ConditionType, ProgramReason, RunReason, EndpointReason)


@pytest.mark.parametrize("enum", CLASSES, ids=lambda enum: enum.__name__)
def test_every_member_is_explained(enum: type[StrEnum]) -> None:
    explained = said_beside(enum)
    assert explained.keys() == enum.__members__.keys()
    pattern = r"Set (when|while|before|on) .*\((.*)\)\." if enum is not ConditionType else r".+\."
    assert [name for name, text in explained.items() if not re.fullmatch(pattern, text)] == []


@pytest.mark.parametrize("enum", CLASSES[1:], ids=lambda enum: enum.__name__)
def test_every_reason_names_a_condition_an_event_or_a_field_of_the_status(enum: type[StrEnum]) -> None:
    known = {type_.value for type_ in ConditionType} | {"Event", "candidates"}
    for name, text in said_beside(enum).items():
        (where,) = re.findall(r"\(([^()]*)\)\.$", text)
        assert {part.split()[0] for part in where.split(", ")} <= known, name


@pytest.mark.parametrize("enum", CLASSES, ids=lambda enum: enum.__name__)
def test_a_reason_is_spelled_in_camel_case(enum: type[StrEnum]) -> None:
    for name, member in enum.__members__.items():
        assert re.fullmatch(r"[A-Z][A-Za-z]+", member.value)
        assert name.replace("_", "").lower() == member.value.lower()


def test_whatever_a_pod_ends_with_is_a_reason_of_a_run() -> None:
    elsewhere = {
        Reason.STOPPED,  # is what spec asked for: Suspended, Cancelled, or a retry
        Reason.VERIFY_FAILED,  # of the command line
        Reason.INVALID_MANIFEST,  # of local mode
    }
    assert {reason.value for reason in Reason} - {reason.value for reason in RunReason} == {
        reason.value for reason in elsewhere
    }


def test_the_module_holds_nothing_else() -> None:
    found = {name for name, member in inspect.getmembers(reasons, inspect.isclass) if member is not StrEnum}
    assert found == {enum.__name__ for enum in CLASSES}
