"""The documents of the contract: what is written is read back, older readers survive, progress stays small."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dspy_operator.contract.documents import (
    PROGRESS_BYTES,
    Account,
    AccountEntry,
    DatasetReport,
    Estimate,
    GateReport,
    Progress,
    Result,
    Score,
)
from dspy_operator.contract.exits import Outcome, Reason
from dspy_operator.contract.resolve import Surroundings, control_of, resolve, resolve_validation
from dspy_operator.contract.runspec import Control, Document, Incumbent, Paths, RunSpec, Start, Usage
from tests.unit.written import endpoint, program, run

USAGE = Usage(calls=7, replayed=1, failed=2, input_tokens=900, cached_input_tokens=10, output_tokens=80, cost="0.0012")
AROUND = Surroundings(
    data_path="/data/0/data.jsonl",
    paths=Paths(journal="/work/journal.jsonl", out="/work/out", control="/control/control.json"),
    dataset_digest="v1:d",
    incumbent=Incumbent(revision="triage-9a8b7c6d", path="/incumbent"),
    start=Start(revision="triage-1f2e3d4c", digest="v1:1f2e3d4c", path="/start"),
    test_looks=2,
)


def a_run_spec() -> RunSpec:
    of_run = run(
        {
            "optimizer": {"type": "MIPROv2", "miproV2": {"auto": "Light", "initTemperature": "0.5"}},
            "endpoints": {"prompt": {"name": "qwen", "request": {"temperature": "0.9", "stop": ["END"]}}},
            "budget": {"calls": 10, "cost": "1.50"},
            "goal": {"score": "90", "patience": 5},
        }
    )
    of_program = program(
        {
            "adapter": {"type": "JSON", "constrained": "Required"},
            "target.request": {"temperature": "0", "maxTokens": 512},
            "dataset.split": {"type": "Column", "column": {"name": "part"}},
            "dataset.fields": {"ticket": "text"},
            "promotion": {"mode": "Manual", "alpha": "0.01", "minImprovement": "2.0"},
        }
    )
    pricing = {"currency": "USD", "input": "0.15", "output": "0.60"}
    return resolve(of_run, of_program, {"default/qwen": endpoint({"pricing": pricing})}, AROUND)


DOCUMENTS: dict[str, Document] = {
    "run.json": a_run_spec(),
    "run.json of validate": resolve_validation(program(), AROUND),
    "control.json": Control(
        generation=3,
        budget=run({"budget": {"tokens": 5, "wallClock": "2h"}}).spec.budget,
        floor=USAGE,
        slots={"default/qwen": 2},
        stop="Finish",
    ),
    "control.json of a run": control_of(run(), {"default/qwen": endpoint()}),
    "progress.json": Progress.model_validate(
        {"attempt": 2, "try": 3, "trialsPlanned": 9, "best": 50.0, "usage": {"task": USAGE}}
    ),
    "result.json": Result(
        outcome=Outcome.IMPROVED,
        reason=Reason.STOPPED_EARLY,
        path="spec.budget",
        dataset=DatasetReport(rows=3, train=1, validation=1, test=1, dropped=0, digest="v1:d", test_digest="v1:t"),
        scores={"candidate": Score(score=66.6667, rows=3, failed=1)},
        gate=GateReport(p=0.01, alpha=0.05, delta=10.0, passed=True, why="because", look=2),
        usage=USAGE,
        usage_by_role={"task": USAGE},
        resolved={"max_metric_calls": 5},
        estimate=Estimate(calls=5, tokens=10, cost="0.1"),
        candidate="v1:c",
        versions={"dspy": "3.4.1"},
    ),
    "an entry of account.json": AccountEntry(tries=2, used=USAGE, test_looks={"v1:t": 2}),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_is_written_is_read_back(name: str) -> None:
    document = DOCUMENTS[name]
    text = json.dumps(document.document(), ensure_ascii=False)
    assert type(document).model_validate_json(text) == document


@pytest.mark.parametrize("name", DOCUMENTS)
def test_an_older_reader_ignores_what_a_newer_writer_adds(name: str) -> None:
    document = DOCUMENTS[name]
    newer = {**document.document(), "addedLater": {"x": [1]}}
    assert type(document).model_validate_json(json.dumps(newer)) == document


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_names_on_the_wire_are_the_contracts(name: str) -> None:
    names = DOCUMENTS[name].document()
    assert not [each for each in names if "_" in each]
    if name in {"progress.json", "result.json"}:
        assert {"attempt", "try"} <= set(names)


def test_a_part_that_a_newer_writer_adds_deep_inside_is_ignored_too() -> None:
    spec = DOCUMENTS["run.json"]
    newer: dict[str, Any] = spec.document()
    newer["endpoints"]["task"]["region"] = "eu"
    newer["dataset"]["split"]["byDate"] = "day"
    assert RunSpec.model_validate(newer) == spec


def test_another_version_of_the_contract_is_refused() -> None:
    with pytest.raises(ValueError, match="contract"):
        RunSpec.model_validate(DOCUMENTS["run.json"].document() | {"contract": "v2"})


def test_progress_with_many_roles_is_far_from_its_limit() -> None:
    big = Usage(calls=10**9, replayed=10**9, failed=10**9, input_tokens=10**12, output_tokens=10**12, cost="9" * 20)
    progress = Progress(usage={f"role-{number:02d}-{'x' * 40}": big for number in range(64)}, step="preflight")
    assert len(json.dumps(progress.document()).encode()) < PROGRESS_BYTES // 2


def test_an_account_is_one_entry_a_run_and_counts_looks_over_all_of_them() -> None:
    entry = AccountEntry(tries=2, used=USAGE, test_looks={"v1:t": 2, "v1:u": 1})
    account = Account({"fast": entry, "slow": AccountEntry(test_looks={"v1:t": 1})})
    assert Account.model_validate_json(json.dumps(account.document())) == account
    assert set(account.document()) == {"fast", "slow"}
    assert [account.looks(digest) for digest in ("v1:t", "v1:u", "v1:none")] == [3, 1, 0]


def test_tokens_are_input_and_output_together() -> None:
    assert USAGE.tokens == 980
