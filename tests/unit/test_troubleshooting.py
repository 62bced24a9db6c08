"""The generated pages: no reason that somebody has to act on is without a remedy, no phase without a meaning."""

from __future__ import annotations

import re
from enum import StrEnum

import pytest

from dspy_operator.api.reasons import EndpointReason, ProgramReason, RunReason
from dspy_operator.cli import crdgen, documents, remedies, troubleshooting
from dspy_operator.cli.said import said_beside
from dspy_operator.contract.documents import GateReport, Progress, Result
from dspy_operator.contract.exits import EXIT_OF, Exit, Reason
from dspy_operator.contract.runspec import Control, Document, Endpoint, RunSpec
from dspy_operator.controllers.modelendpoint.decide import READY
from dspy_operator.controllers.modelendpoint.replica import ON_THE_WAY
from dspy_operator.controllers.optimizationrun.transitions import Phase as RunPhase
from dspy_operator.controllers.promptprogram.promotion import WAITS
from dspy_operator.controllers.promptprogram.report import Phase as ProgramPhase


def shows_in(reason: StrEnum) -> set[str]:
    """The places in brackets, as `Failed` or `Stalled False`."""
    (where,) = re.findall(r"\(([^()]*)\)\.$", said_beside(type(reason))[reason.name])
    return set(where.split(", "))


def test_a_reason_that_stalls_or_refuses_a_program_has_a_remedy() -> None:
    wants = {reason for reason in ProgramReason if "Stalled" in shows_in(reason)} | WAITS
    refuses = {reason for reason in ProgramReason if "Accepted" in shows_in(reason)} - {ProgramReason.ACCEPTED}
    assert wants | refuses <= remedies.PROGRAM.keys()
    assert len(wants | refuses) > 15


def test_a_reason_that_fails_stalls_or_refuses_a_run_has_a_remedy() -> None:
    wants = {
        reason
        for reason in RunReason
        if {part.split(" after ")[0] for part in shows_in(reason)} & {"Failed", "Stalled", "Accepted"}
    } - {RunReason.ACCEPTED}
    assert wants <= remedies.RUN.keys()
    assert len(wants) > 25


def test_a_reason_that_keeps_an_endpoint_from_being_ready_has_a_remedy() -> None:
    wants = {reason for reason in EndpointReason if "Ready" in shows_in(reason)} - READY - set(ON_THE_WAY)
    assert wants <= remedies.ENDPOINT.keys()
    assert len(wants) > 8


def test_whatever_ends_a_command_otherwise_than_well_has_a_remedy() -> None:
    assert remedies.LOCAL.keys() == {reason for reason in Reason if EXIT_OF[reason] is not Exit.COMPLETED}


@pytest.mark.parametrize(
    ("enum", "known"),
    [
        pytest.param(ProgramReason, remedies.PROGRAM, id="PromptProgram"),
        pytest.param(RunReason, remedies.RUN, id="OptimizationRun"),
        pytest.param(EndpointReason, remedies.ENDPOINT, id="ModelEndpoint"),
    ],
)
def test_every_reason_is_on_the_page_once_and_a_remedy_is_a_sentence(
    enum: type[StrEnum], known: dict[StrEnum, str]
) -> None:
    kind = {ProgramReason: "PromptProgram", RunReason: "OptimizationRun", EndpointReason: "ModelEndpoint"}[enum]
    part = troubleshooting.troubleshooting().partition(f"## {kind} (")[2].partition("\n## ")[0]
    told = [line.split("`")[1] for line in part.splitlines() if line.startswith("| `")]
    assert sorted(told) == sorted(enum)
    assert [text for text in known.values() if not text.endswith(".") or " " not in text] == []


def test_every_phase_that_a_controller_writes_has_a_meaning() -> None:
    assert troubleshooting.PHASES["PromptProgram"].keys() == set(ProgramPhase)
    assert troubleshooting.PHASES["OptimizationRun"].keys() == set(RunPhase)
    # modelendpoint.decide: its own words, and the reasons of pods on their way
    assert troubleshooting.PHASES["ModelEndpoint"].keys() == {"Ready", "ScaledToZero", "Rejected", "Failed"} | set(
        ON_THE_WAY
    )


def test_every_exit_code_is_on_the_page() -> None:
    rows = troubleshooting.states().partition("## Exit codes")[2].splitlines()
    told = [int(line.split("|")[1]) for line in rows if re.match(r"\| \d", line)]
    assert set(told) == set(Exit)
    assert len(told) == len(Reason)


def test_the_pages_are_among_the_files_whose_drift_fails() -> None:
    assert {troubleshooting.TROUBLESHOOTING, troubleshooting.STATES} <= crdgen.files().keys()


@pytest.mark.parametrize("model", [RunSpec, Control, Progress, Result, Endpoint, GateReport], ids=lambda m: m.__name__)
def test_the_contract_page_has_every_field_of_a_document(model: type[Document]) -> None:
    page = documents.text().partition(f"# {model.__name__}\n")[2].partition("\n##")[0]
    told = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert told == [field.alias or name for name, field in model.model_fields.items()]
