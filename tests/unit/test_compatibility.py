"""Earlier versions' objects, states and folders (tests/compatibility), read by this one: they parse, mean and digest the same.

A test that fails here is a change that re-runs, pays for or refuses what users have already: the code is mended, not the fixture.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dspy_operator.api import v1alpha1
from dspy_operator.api.objects import KINDS, ModelEndpoint, OptimizationRun, PromptProgram, parse_object
from dspy_operator.api.signature_types import parse_type
from dspy_operator.api.status import STATUSES
from dspy_operator.contract import names
from dspy_operator.contract.digests import revision_digest
from dspy_operator.contract.documents import Account, AccountEntry, LoaderProgress, Progress, Result
from dspy_operator.contract.runspec import Control, Document, RunSpec
from dspy_operator.controllers.optimizationrun.account import Entry
from dspy_operator.controllers.optimizationrun.inputs import EndpointSeen, freeze, roles_of
from dspy_operator.engine.plan import Body
from dspy_operator.runner.journal import Journal
from dspy_operator.runner.rows import read_rows
from dspy_operator.runner.split import split
from tests.compatibility.stored import (
    OURS,
    SUMS,
    Choice,
    State,
    beside,
    choices,
    difference,
    folders,
    reading,
    states,
    sums,
    writes,
)

WRITTEN_ANEW: Mapping[tuple[str, str, str], str] = {}
"""(version, verb, kind) that a later version has to write over what an earlier one left -> why. Digests have no excuse."""

VERSIONS = folders()
CHOICES = [
    pytest.param(folder, choice, id=f"{folder.name}-{choice.body['kind']}-{choice.name}")
    for folder in VERSIONS
    for choice in choices(folder)
]
STATES = [
    pytest.param(folder, state, id=f"{folder.name}-{state.name}") for folder in VERSIONS for state in states(folder)
]
RUNS = [
    pytest.param(run, id=f"{folder.name}-{run.name}")
    for folder in VERSIONS
    for run in sorted((folder / "runs").iterdir())
]


def test_there_is_a_version_with_objects_of_every_kind_that_it_took() -> None:
    assert VERSIONS
    for folder in VERSIONS:
        assert {choice.body["kind"] for choice in choices(folder)} >= {
            "PromptProgram",
            "OptimizationRun",
            "ModelEndpoint",
        }
        assert states(folder)


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda folder: folder.name)
def test_nobody_has_edited_what_a_version_left(folder: Path) -> None:
    assert sums(folder) == (folder / SUMS).read_text("utf-8")


# --- objects -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("folder", "choice"), CHOICES)
def test_an_object_is_read_as_it_was(folder: Path, choice: Choice) -> None:
    kept = getattr(v1alpha1, choice.body["kind"]).from_manifest(choice.body)
    assert kept.to_manifest()["spec"] == choice.body["spec"]
    assert difference(choice.reading, reading(choice.body, beside(folder))) is None


@pytest.mark.parametrize("kind", KINDS)
def test_each_digest_of_a_choice_is_another_where_it_computes_something_else(kind: str) -> None:
    """Digests that were all the same would prove nothing."""
    for folder in VERSIONS:
        read = [choice.reading for choice in choices(folder) if choice.body["kind"] == kind]
        for digest in ("programDigest", "inputDigest"):
            found = {one[digest] for one in read if digest in one}
            assert len(found) != 1


# --- states --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("folder", "state"), STATES)
def test_an_operator_that_starts_over_a_state_writes_nothing(folder: Path, state: State) -> None:
    found = asyncio.run(writes(state))
    assert [write for write in found if (folder.name, write.verb, write.kind) not in WRITTEN_ANEW] == []


def test_what_is_excused_is_written() -> None:
    found = {
        (folder.name, write.verb, write.kind)
        for folder in VERSIONS
        for state in (states(folder) if WRITTEN_ANEW else ())
        for write in asyncio.run(writes(state))
    }
    assert WRITTEN_ANEW.keys() <= found


@pytest.mark.parametrize(("folder", "state"), STATES)
def test_every_status_fits_the_schema_and_is_read_as_it_was(folder: Path, state: State) -> None:
    for body in state.bodies:
        if body["kind"] in OURS:
            typed = STATUSES[body["kind"]].model_validate(body["status"])
            assert typed.model_dump(mode="json", by_alias=True, exclude_unset=True) == body["status"]


OF_KEY: Mapping[str, type[Document]] = {
    names.KEY_RUN_SPEC: RunSpec,
    names.KEY_CONTROL: Control,
    names.KEY_PROGRESS: Progress,
    names.KEY_RESULT: Result,
}
"""Key of a channel or of a spec -> its type."""


def of_config_maps(state: State) -> Iterator[tuple[str, type[Document], str]]:
    """(where, type, text) of each document of the contract in a state's ConfigMaps."""
    for body in state.of("ConfigMap"):
        component = (body["metadata"].get("labels") or {}).get(names.LABEL_COMPONENT)
        for key, text in (body.get("data") or {}).items():
            where = f"{body['metadata']['name']}/{key}"
            if component == names.Component.ACCOUNT:
                yield where, Entry, text
                yield where, AccountEntry, text
            elif key in OF_KEY:
                yield where, OF_KEY[key], text
            elif key.startswith("progress."):
                yield where, LoaderProgress, text


@pytest.mark.parametrize(("folder", "state"), STATES)
def test_documents_in_config_maps_are_read_as_they_were(folder: Path, state: State) -> None:
    for where, of, text in of_config_maps(state):
        found = of.model_validate_json(text).document()
        known = {key: value for key, value in json.loads(text).items() if of is not AccountEntry or key in found}
        assert difference(known, found) is None, where


def frozen_now(state: State, run: Body) -> RunSpec | None:
    """run.json of an attempt that would begin now; None where the run's program or endpoint is not there, or not ready."""
    typed = parse_object(run)
    assert isinstance(typed, OptimizationRun)
    body = next((of for of in state.of("PromptProgram") if of["metadata"]["name"] == typed.spec.program_ref.name), None)
    program = parse_object(body) if body is not None else None
    if body is None or not isinstance(program, PromptProgram) or "dataset" not in body["status"]:
        return None
    endpoints = {}
    for of in state.of("ModelEndpoint"):
        endpoint = parse_object(of)
        assert isinstance(endpoint, ModelEndpoint)
        endpoints[endpoint.key] = EndpointSeen(endpoint, of)
    if not set(roles_of(typed, program).values()) <= endpoints.keys():
        return None
    image = state.settings.runner_image
    attempt = run["status"].get("attempt", 1)
    return freeze(typed, program, body["status"], endpoints, attempt=attempt, looks=0, image=image, revisions={}).spec


@pytest.mark.parametrize(("folder", "state"), STATES)
def test_an_attempt_that_begins_now_computes_what_it_computed(folder: Path, state: State) -> None:
    """With the same defaults: the whole of run.json, but for what depends on what was served and looked at meanwhile."""
    compared = 0
    for run in state.of("OptimizationRun"):
        now = frozen_now(state, run)
        told = run["status"].get("inputs") or {}
        if now is None or "inputDigest" not in told:
            continue
        assert now.input_digest == told["inputDigest"]
        name = names.run_spec(run["metadata"]["name"], run["status"]["attempt"])
        for body in state.of("ConfigMap"):
            if body["metadata"]["name"] == name:
                stored = json.loads(body["data"][names.KEY_RUN_SPEC])
                kept = {key: value for key, value in stored.items() if key not in ("testLooks", "incumbent")}
                assert difference(kept, now.document()) is None
                compared += 1
    assert compared > 0 or state.name == "models"


@pytest.mark.parametrize(("folder", "state"), STATES)
def test_files_of_revisions_have_the_digests_that_they_are_known_by(folder: Path, state: State) -> None:
    for body in state.of("ConfigMap"):
        component = (body["metadata"].get("labels") or {}).get(names.LABEL_COMPONENT)
        if component in (names.Component.REVISION, names.Component.CURRENT):
            digest = revision_digest(*(body["data"][name].encode() for name in names.REVISION_PROGRAM))
            assert digest == body["metadata"]["annotations"][names.ANNOTATION_DIGEST]


def edited(state: State, kind: str, change: Mapping[str, Any]) -> State:
    """As after a person's edit of the first object of a kind."""

    def one(body: Body) -> Body:
        generation = body["metadata"]["generation"] + 1
        metadata = {**body["metadata"], "generation": generation}
        return {**body, "metadata": metadata, "spec": {**body["spec"], **change}}

    first = state.of(kind)[0]
    return replace(state, bodies=tuple(one(body) if body is first else body for body in state.bodies))


@pytest.mark.parametrize(
    ("kind", "change", "want"),
    [
        pytest.param("PromptProgram", {"metric": {"type": "F1"}}, "ConfigMap", id="a program is validated again"),
        pytest.param("OptimizationRun", {"seed": 3}, "OptimizationRun", id="a run begins anew"),
        pytest.param("ModelEndpoint", {"limits": {"concurrency": 2}}, "ModelEndpoint", id="an endpoint is read again"),
    ],
)
def test_an_edit_is_seen_so_that_silence_proves_something(kind: str, change: dict[str, Any], want: str) -> None:
    state = next(state for state in states(VERSIONS[0]) if state.name == "promoted")
    assert asyncio.run(writes(state)) == []
    assert want in {write.kind for write in asyncio.run(writes(edited(state, kind, change)))}


@pytest.mark.parametrize(
    ("kind", "write"),
    [
        pytest.param("Job", None, id="a Job of an ended run is not made again"),
        pytest.param("ConfigMap", "apply", id="what is served is made again"),
    ],
)
def test_what_is_lost_is_made_again_where_it_must_be(kind: str, write: str | None) -> None:
    state = next(state for state in states(VERSIONS[0]) if state.name == "promoted")

    def lost(body: Body) -> bool:
        return body["kind"] == kind and (kind == "Job" or body["metadata"]["name"] == "triage-current")

    assert any(map(lost, state.bodies))
    found = asyncio.run(writes(replace(state, bodies=tuple(body for body in state.bodies if not lost(body)))))
    assert {one.verb for one in found if one.kind == kind} == ({write} if write else set())


def test_a_digest_that_moved_is_told_with_its_place() -> None:
    folder = VERSIONS[0]
    choice = next(choice for choice in choices(folder) if choice.body["kind"] == "OptimizationRun")
    other = copy.deepcopy(dict(choice.reading)) | {"inputDigest": "v1:moved"}
    assert (difference(other, reading(choice.body, beside(folder))) or "").startswith("inputDigest: 'v1:moved', 'v1:")


# --- folders of runs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", RUNS)
def test_documents_of_a_run_are_read_as_they_were(run: Path) -> None:
    for name, of in (("run", RunSpec), ("control", Control), ("progress", Progress), ("result", Result)):
        text = (run / f"{name}.json").read_text("utf-8")
        assert difference(json.loads(text), of.model_validate_json(text).document()) is None, name
    text = (run / "account.json").read_text("utf-8")
    assert difference(json.loads(text), Account.model_validate_json(text).document()) is None


@pytest.mark.parametrize("run", RUNS)
def test_rows_are_divided_and_digested_as_they_were(run: Path) -> None:
    spec = RunSpec.model_validate_json((run / "run.json").read_text("utf-8"))
    result = Result.model_validate_json((run / "result.json").read_text("utf-8"))
    assert spec.program.program.single is not None and result.dataset is not None
    signature = spec.program.program.single.signature
    types = {field.name: parse_type(field.type) for field in (*signature.inputs, *signature.outputs)}
    inputs, outputs = ([field.name for field in side] for side in (signature.inputs, signature.outputs))
    part = spec.dataset.model_copy(update={"path": str(run / "data" / Path(spec.dataset.path).name)})
    rows = read_rows(part, inputs=inputs, outputs=outputs, coerce=lambda name, value: types[name].coerce(value))
    parts = split(rows.rows, part.split)
    told = result.dataset
    assert (parts.digest, parts.test_digest) == (told.digest, told.test_digest)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (told.train, told.validation, told.test)


@pytest.mark.parametrize("run", RUNS)
def test_every_answer_of_a_journal_is_found(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "journal.jsonl").read_text("utf-8").splitlines()]
    journal = Journal(run / "journal.jsonl", read_only=True)
    try:
        recorded = journal.recorded
        done = {line["key"]: line for line in lines if line["kind"] == "done"}
        assert recorded.calls == sum(line["kind"] == "start" for line in lines) > 20
        assert recorded.answers.keys() == done.keys()
        assert len(recorded.marks) + len(recorded.judgements) > 0
        assert not recorded.torn and recorded.opened is not None
        assert all(journal.request_of(key) for key in list(done)[:5])
    finally:
        journal.close()


@pytest.mark.parametrize("run", RUNS)
def test_the_candidate_has_the_digest_that_was_told(run: Path) -> None:
    result = json.loads((run / "result.json").read_text("utf-8"))
    files = [(run / "revision" / name).read_bytes() for name in names.REVISION_PROGRAM]
    assert revision_digest(*files) == result["candidate"]
