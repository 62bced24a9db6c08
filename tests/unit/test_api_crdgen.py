"""The generated CustomResourceDefinitions: up to date, structural, described, small, and without defaults that would look like edits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dspy_operator.api.fields import ApiModel, FieldClass, spec_field
from dspy_operator.api.objects import KINDS
from dspy_operator.api.promptprogram import INPUT
from dspy_operator.api.resources import RESOURCES, Resource
from dspy_operator.api.rules import texts_of
from dspy_operator.api.unsupported import PREFIX
from dspy_operator.cli import crdgen, reference
from dspy_operator.cli.main import app
from tests import yaml_text

ROOT = Path(__file__).parents[2]
KIBIBYTES = 1024
EACH_KIND = pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.kind)


def schema_of(resource: Resource) -> dict[str, Any]:
    schema: dict[str, Any] = crdgen.definition(resource)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(path, schema) of the schema and everything inside."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    for keyword in ("items", "additionalProperties"):
        if keyword in schema:
            yield from nodes(schema[keyword], f"{path}[]")


def test_the_files_in_the_tree_are_what_the_models_say() -> None:
    assert crdgen.drift(ROOT) == [], "run `dspy-operator crdgen`"


def test_a_file_that_was_edited_by_hand_or_is_of_no_kind_any_more_is_drift(tmp_path: Path) -> None:
    crdgen.write(tmp_path)
    edited, gone = crdgen.CRDS / "promptprograms.yaml", crdgen.CRDS / "optimizationquotas.yaml"
    (tmp_path / edited).write_text((tmp_path / edited).read_text().replace("maximum: 100\n", "maximum: 200\n"))
    (tmp_path / gone).write_text("")
    assert set(crdgen.drift(tmp_path)) == {edited, gone}
    assert set(crdgen.write(tmp_path)) == {edited, gone}
    assert crdgen.drift(tmp_path) == []


def test_the_command_says_what_is_not_up_to_date_and_fails(tmp_path: Path) -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["crdgen", "--check", "--root", str(tmp_path)]).exit_code == 1
    assert list(tmp_path.iterdir()) == []
    assert runner.invoke(app, ["crdgen", "--root", str(tmp_path)]).exit_code == 0
    assert runner.invoke(app, ["crdgen", "--check", "--root", str(tmp_path)]).exit_code == 0


@EACH_KIND
def test_the_reference_tells_every_field_with_its_class(resource: Resource) -> None:
    page = reference.text().partition(f"## {resource.kind} (")[2].partition("\n## ")[0]
    rows = {line.split("`")[1].replace(".*", "[]"): line for line in page.splitlines() if line.startswith("| `")}
    for path, node in nodes(schema_of(resource)):
        if path.startswith((".spec.", ".status.")) and not path.endswith("[]"):
            row = rows[path.removeprefix(".")]
            assert node["description"].replace("|", "\\|") in row
            if path.startswith(".spec."):
                assert any(f" | {class_.value} | " in row for class_ in FieldClass), path


def test_the_chart_keeps_the_definitions_when_it_goes() -> None:
    for resource in RESOURCES:
        plain = crdgen.files()[crdgen.CRDS / f"{resource.plural}.yaml"]
        charted = crdgen.files()[crdgen.CHART_CRDS / f"{resource.plural}.yaml"].splitlines(keepends=True)
        assert (charted[0], charted[-1]) == ("{{- if .Values.crds.install }}\n", "{{- end }}\n")
        inside = yaml_text.document("".join(charted[1:-1]))
        assert inside["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
        assert inside == yaml_text.document(plain)


@EACH_KIND
def test_a_definition_is_small_enough_for_kubectl_apply(resource: Resource) -> None:
    """Client-side apply keeps a copy in an annotation, which may have 256 KiB."""
    assert len(crdgen.files()[crdgen.CRDS / f"{resource.plural}.yaml"].encode()) < 200 * KIBIBYTES


@EACH_KIND
def test_every_field_is_described(resource: Resource) -> None:
    bare = [
        path
        for path, node in nodes(schema_of(resource))
        if not path.startswith(".metadata") and not path.endswith("[]") and "description" not in node
    ]
    assert bare == []


@EACH_KIND
def test_the_one_default_is_what_the_scale_subresource_needs(resource: Resource) -> None:
    defaults = {path: node["default"] for path, node in nodes(schema_of(resource)) if "default" in node}
    assert defaults == ({".spec.replicas": 1} if resource.scale else {})


@EACH_KIND
def test_every_node_has_a_type_and_no_keyword_that_a_structural_schema_has_not(resource: Resource) -> None:
    for path, node in nodes(schema_of(resource)):
        assert "type" in node or node.get("x-kubernetes-int-or-string"), path
        assert not {"$ref", "title", "const", "oneOf", "patternProperties", "uniqueItems"} & node.keys(), path
        assert node.get("additionalProperties") is not False, path


@EACH_KIND
def test_a_list_is_replaced_whole_unless_it_is_that_of_the_conditions(resource: Resource) -> None:
    """The order of fields and of stop texts reaches a prompt; a merge of two people's lists would be nobody's."""
    kinds = {path: node["x-kubernetes-list-type"] for path, node in nodes(schema_of(resource)) if "items" in node}
    assert kinds.pop(".status.conditions") == "map"
    assert set(kinds.values()) <= {"atomic"}


@EACH_KIND
def test_a_column_finds_a_condition_by_its_type_and_anything_else_in_the_schema(resource: Resource) -> None:
    known = {path for path, _ in nodes(schema_of(resource))} | {".metadata.creationTimestamp"}
    for column in resource.columns:
        # The first of a list; and of a union the one member that there is.
        pattern = re.escape(column.path.replace("[0]", "[]")).replace(r"\*", r"\w+")
        found = any(re.fullmatch(pattern, path) for path in known)
        assert "?(@.type==" in column.path if ".conditions" in column.path else found, column
    if resource.scale:
        assert {resource.scale.spec_replicas, resource.scale.status_replicas, resource.scale.selector} <= known


class Either(ApiModel):
    """A model with a field that no structural schema can say."""

    value: list[int] | str = spec_field(INPUT, "Either.")


class Open(ApiModel):
    """A model with a field whose schema has a keyword that we do not know."""

    value: str = spec_field(INPUT, "A text.", examples=["a"])


@pytest.mark.parametrize(
    ("model", "want"),
    [
        pytest.param(Either, "spec.value: a union of 2 types", id="a union of two types"),
        pytest.param(Open, "spec.value: examples: ['a']", id="a keyword that we do not know"),
    ],
)
def test_what_cannot_be_said_is_an_error_with_its_path(model: type[ApiModel], want: str) -> None:
    schema = model.model_json_schema()
    with pytest.raises(crdgen.NotStructural) as refused:
        crdgen.structural(schema, schema.get("$defs", {}), "spec")
    assert str(refused.value) == want


def test_the_reference_has_each_rule_in_the_words_of_its_refusal() -> None:
    """Those that tell what a member of a choice goes with are told once, above the tables."""
    page = reference.text()
    rules = [rule for kind in KINDS for rule in crdgen.rules_of(kind)]
    said = {rule["message"] for rule in rules if "message" in rule}
    said |= {
        "...".join(texts_of(made)) for rule in rules if " ? " not in (made := rule.get("messageExpression", " ? "))
    }
    elsewhere = rf"^{PREFIX}|^type is \w+: \w+ is required$|^\w+ is set, but type is "
    said = {message for message in said if not re.search(elsewhere, message)}
    assert len(said) > 50
    assert {message for message in said if f"`{message}`".replace("|", "\\|") not in page} == set()
