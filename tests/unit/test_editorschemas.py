"""JSON Schemas for editors: what the examples need is allowed, what the API server refuses by schema is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from dspy_operator.api.objects import KINDS
from dspy_operator.cli.editorschemas import ALL, files, write
from tests import yaml_text
from tests.integration.crd.rule_cases import Case, cases

ROOT = Path(__file__).parents[2]
EXAMPLES = [
    pytest.param(document, id=f"{path.parent.name}-{document['kind']}-{document['metadata']['name']}")
    for path in sorted((ROOT / "examples").rglob("*.yaml"))
    if path.name != "kustomization.yaml"
    for document in yaml_text.documents(path.read_text("utf-8"))
]
SCHEMAS = files()
CASES = [pytest.param(case, id=f"{case.kind}-{case.id}") for case in cases()]


def problems(document: dict[str, Any], file: str) -> list[str]:
    validator = jsonschema.Draft7Validator(SCHEMAS[file])
    return [f"{'.'.join(map(str, each.absolute_path))}: {each.message}" for each in validator.iter_errors(document)]


def of(document: dict[str, Any]) -> str:
    return f"{document['kind'].lower()}_v1alpha1.json"


@pytest.mark.parametrize("file", SCHEMAS)
def test_a_schema_is_one(file: str) -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMAS[file])
    assert "$defs" not in json.dumps(SCHEMAS[file])


@pytest.mark.parametrize("document", EXAMPLES)
def test_an_example_is_good(document: dict[str, Any]) -> None:
    assert problems(document, ALL) == []
    if document["kind"] in KINDS:
        assert problems(document, of(document)) == []


@pytest.mark.parametrize("case", CASES)
def test_an_object_that_keeps_a_rule_is_good(case: Case) -> None:
    assert problems(case.keeps, of(case.keeps)) == problems(case.keeps, ALL) == []


BROKEN = [
    pytest.param(case, id=f"{case.kind}-{case.id}")
    for case in cases()
    if case.how == "create" and (case.id.startswith("schema-") or case.id.endswith(("-of-its-type", "-required")))
]


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_object_is_refused_where_a_schema_can_know(case: Case) -> None:
    assert problems(case.breaks, of(case.breaks)) != []
    assert problems(case.breaks, ALL) != []


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_field_is_refused_at_every_level(kind: str) -> None:
    good = next(case.keeps for case in cases() if case.kind == kind)
    top = {**good, "speck": {}}
    inside = copy.deepcopy(good)
    inside["spec"]["oops"] = 1
    assert "'speck' was unexpected" in problems(top, of(good))[0]
    assert problems(inside, of(good)) == ["spec: Additional properties are not allowed ('oops' was unexpected)"]
    assert problems(top, ALL) and problems(inside, ALL)


def test_a_file_of_all_kinds_takes_what_is_not_ours_and_no_other_version_of_ours() -> None:
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "b"}}
    assert problems(config_map, ALL) == []
    assert problems({**config_map, "apiVersion": "dspy-operator.io/v1"}, ALL) != []


def test_each_field_says_what_it_is_for() -> None:
    for name, schema in SCHEMAS.items():
        if name == ALL:
            continue
        for model, definition in schema["definitions"].items():
            if model == "Metadata":
                continue
            for field, inner in definition.get("properties", {}).items():
                assert "description" in inner or "allOf" in inner, f"{name} {model}.{field}"


def test_they_are_written_where_they_are_wanted(tmp_path: Path) -> None:
    assert {path.name for path in write(tmp_path / "new" / "schemas")} == set(SCHEMAS)
    assert json.loads((tmp_path / "new" / "schemas" / ALL).read_text("utf-8")) == SCHEMAS[ALL]
