"""From a parsed document to a typed object: every problem at once, each with its path, what was found and what is allowed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_operator.api.objects import KINDS, InvalidObject, Problem, field_path, parse_object
from tests.unit.written import REMOVED, a_program, a_run, an_endpoint, changed, complaints, program, run


@pytest.mark.parametrize("document", [a_program(), a_run(), an_endpoint()], ids=lambda document: document["kind"])
def test_an_object_is_typed_by_its_kind(document: dict[str, Any]) -> None:
    found = parse_object(document)
    assert type(found) is KINDS[document["kind"]]
    assert found.spec.document() == document["spec"]


def test_a_namespace_that_is_not_written_is_default() -> None:
    assert run().key == "default/fast"
    assert parse_object(changed(a_run(), "metadata.namespace", "team-a")).key == "team-a/fast"


def test_metadata_and_status_belong_to_kubernetes() -> None:
    document = changed(a_run(), "metadata.annotations", {"a": "b"})
    document = changed(document, "metadata.ownerReferences", [])
    assert complaints(changed(document, "status", {"phase": "Running"})) == []


@pytest.mark.parametrize(
    ("path", "value", "want"),
    [
        pytest.param(
            "apiVersion",
            "dspy-operator.io/v1",
            ['apiVersion: must be "dspy-operator.io/v1alpha1", found "dspy-operator.io/v1"'],
            id="another version",
        ),
        pytest.param(
            "apiVersion",
            REMOVED,
            ['apiVersion: must be "dspy-operator.io/v1alpha1", found nothing'],
            id="no version",
        ),
        pytest.param("metadata.name", REMOVED, ["metadata.name: is required"], id="no name"),
        pytest.param(
            "metadata.name",
            "qwen2.5",
            ['metadata.name: must match ^[a-z]([-a-z0-9]*[a-z0-9])?$, found "qwen2.5"'],
            id="a name that no Service can have",
        ),
        pytest.param(
            "metadata.name",
            "a" * 41,
            [f'metadata.name: must have at most 40 characters, found "{"a" * 41}"'],
            id="a name too long for the names of children",
        ),
        pytest.param("spec", REMOVED, ["spec: is required"], id="no spec"),
        pytest.param("spec", None, ["spec: must be a mapping, found nothing"], id="an empty spec"),
        pytest.param("spec.budget", [], ["spec.budget: must be a mapping, found []"], id="a list for a mapping"),
        pytest.param(
            "spec.optimizer.type", True, ["spec.optimizer.type: must be one of Evaluate, LabeledFewShot, BootstrapFewShot, BootstrapFewShotWithRandomSearch, MIPROv2, GEPA, COPRO, SIMBA, InferRules, Stages, found true"], id="a boolean, as YAML writes it"
        ),
        pytest.param(
            "spec.concurency",
            4,
            [
                "spec.concurency: unknown field; allowed: "
                "answersFrom, budget, cleanup, concurrency, deadlines, endpoints, goal, journal, mode, optimizer, pacing, podTemplate, "
                "priorityClassName, programRef, readyWhen, repeats, rerun, retries, reuse, seed, startFrom, stop, "
                "suspend, ttlAfterFinished"
            ],
            id="an unknown field",
        ),
        pytest.param(
            "spec.program_ref",
            {},
            [
                "spec.program_ref: unknown field; allowed: "
                "answersFrom, budget, cleanup, concurrency, deadlines, endpoints, goal, journal, mode, optimizer, pacing, podTemplate, "
                "priorityClassName, programRef, readyWhen, repeats, rerun, retries, reuse, seed, startFrom, stop, "
                "suspend, ttlAfterFinished"
            ],
            id="Python's own spelling is no second one",
        ),
        pytest.param("spec.budget.call", 1, ["spec.budget.call: unknown field; allowed: calls, cost, tokens, wallClock"], id="one deeper"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_path(path: str, value: Any, want: list[str]) -> None:
    assert complaints(changed(a_run(), path, value)) == want


def test_an_unknown_field_inside_a_list_is_told_what_is_allowed_there() -> None:
    broken = changed(a_program(), "spec.program.single.signature.inputs.0.desc", "text")
    want = "spec.program.single.signature.inputs[0].desc: unknown field; allowed: description, name, type"
    assert complaints(broken) == [want]


def test_all_problems_are_told_at_once() -> None:
    broken = changed(changed(changed(a_run(), "spec.seed", "1"), "spec.budget.calls", 0), "spec.mode", "run")
    assert complaints(broken) == [
        'spec.seed: must be a whole number, found "1"',
        "spec.budget.calls: must be greater than or equal to 1, found 0",
        'spec.mode: must be one of Run, Estimate, found "run"',
    ]
    with pytest.raises(InvalidObject) as refused:
        parse_object(broken)
    assert str(refused.value) == "; ".join(complaints(broken))


def test_what_was_found_is_shortened() -> None:
    (told,) = complaints(changed(a_run(), "spec.mode", "x" * 500))
    assert told.endswith("x...") and len(told) < 160


@pytest.mark.parametrize(
    ("path", "want"),
    [
        pytest.param(("spec", "outputs", 0, "type"), "spec.outputs[0].type", id="a place in a list"),
        pytest.param(("spec",), "spec", id="the root's field"),
        pytest.param((), "", id="the root"),
    ],
)
def test_a_path_is_written_as_people_write_it(path: tuple[str | int, ...], want: str) -> None:
    assert field_path(path) == Problem(path, "").field == want


def test_an_object_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        program().spec.target = program().spec.target


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
PATHS = (
    "spec",
    "spec.budget",
    "spec.optimizer",
    "spec.optimizer.gepa",
    "spec.endpoints.prompt",
    "metadata",
    "spec.seed",
)


@given(path=st.sampled_from(PATHS), value=JSON)
@settings(max_examples=200, deadline=None)
def test_no_value_anywhere_is_answered_with_anything_but_problems(path: str, value: Any) -> None:
    assert all(": " in told and "Traceback" not in told for told in complaints(changed(a_run(), path, value)))
