"""The kinds for Python programs: what is read is given back."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from dspy_operator.api import v1alpha1
from dspy_operator.api.objects import KINDS

ROOT = Path(__file__).parents[2]
EXAMPLES = [
    pytest.param(document, id=f"{path.parent.name}-{document['kind']}-{document['metadata']['name']}")
    for path in sorted((ROOT / "examples").rglob("*.yaml"))
    if path.name != "kustomization.yaml"
    for document in yaml.safe_load_all(path.read_text("utf-8"))
    if document["kind"] in KINDS
]


def test_every_kind_is_there() -> None:
    assert set(KINDS) <= set(v1alpha1.__all__)


@pytest.mark.parametrize("document", EXAMPLES)
def test_an_example_comes_back_as_it_was_written(document: dict[str, Any]) -> None:
    document["metadata"]["labels"] = {"team": "a"}
    before = copy.deepcopy(document)
    typed = getattr(v1alpha1, document["kind"]).from_manifest(document)
    assert typed.to_manifest() == before
    assert type(typed).from_manifest(typed.to_manifest()) == typed


def test_a_changed_field_is_all_that_changes() -> None:
    document = yaml.safe_load((ROOT / "examples/sentiment/run.yaml").read_text("utf-8"))
    run = v1alpha1.OptimizationRun.from_manifest(document)
    budget = run.spec.budget.model_copy(update={"calls": 1200})
    spec = run.spec.model_copy(update={"budget": budget})
    document["spec"]["budget"]["calls"] = 1200
    assert run.model_copy(update={"spec": spec}).to_manifest() == document


def test_an_object_needs_no_type_and_keeps_no_status() -> None:
    spec = {"programRef": {"name": "triage"}, "optimizer": {"type": "Evaluate"}, "budget": {"calls": 9}}
    run = v1alpha1.OptimizationRun.model_validate(
        {"metadata": {"name": "fast"}, "spec": spec, "status": {"attempt": 1}}
    )
    assert run.to_manifest() == {
        "apiVersion": "dspy-operator.io/v1alpha1",
        "kind": "OptimizationRun",
        "metadata": {"name": "fast"},
        "spec": spec,
    }


@pytest.mark.parametrize(
    ("change", "want"),
    [
        pytest.param({"kind": "PromptProgram"}, "kind: must be \"OptimizationRun\", found 'PromptProgram'", id="kind"),
        pytest.param({"spec": {}}, "spec.programRef: is required", id="a field"),
    ],
)
def test_what_is_wrong_is_told_with_its_path(change: dict[str, Any], want: str) -> None:
    document = yaml.safe_load((ROOT / "examples/sentiment/run.yaml").read_text("utf-8"))
    with pytest.raises(v1alpha1.InvalidObject) as error:
        v1alpha1.OptimizationRun.from_manifest({**document, **change})
    assert want in map(str, error.value.problems)
