"""Each choice that the API offers is taken, or refused as not supported yet: none is taken by one reader and refused by another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dspy_operator.api.resources import RESOURCES
from dspy_operator.api.unsupported import PREFIX
from dspy_operator.cli import crdgen
from tests.controlplane.processes import ControlPlane
from tests.integration.crd.choices import choices
from tests.integration.crd.test_rules import asked, is_good

ROOT = Path(__file__).parents[3]
TABLE = ROOT / "build" / "choices.md"


def test_each_choice_is_taken_or_not_supported_yet(cluster: ControlPlane) -> None:
    """The table that it writes is build/choices.md."""
    lines, silent = [], []
    for kind, choice, manifest in choices():
        code, said = asked(cluster, manifest)
        causes = [f"{cause['field']}: {cause['message']}" for cause in said.get("details", {}).get("causes", ())]
        refused = [cause for cause in causes if PREFIX in cause]
        if (code == 201) != is_good(manifest) or (code != 201 and refused != causes):
            silent.append((kind, choice, code, causes or said))
        answer = "taken" if code == 201 else "; ".join(cause.partition(PREFIX)[2] for cause in refused)
        lines.append(f"| {kind} | `{choice}` | {answer if code == 201 else f'{PREFIX}{answer}'} |")
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text("\n".join(["| kind | choice | |", "|---|---|---|", *lines, ""]), encoding="utf-8")
    assert silent == []


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.kind)
def test_there_is_a_manifest_for_each_value_of_each_enum_of_the_schema(resource: Any) -> None:
    schema = crdgen.definition(resource)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    wanted = set(values(schema["properties"]["spec"], "spec"))
    assert wanted == {choice for kind, choice, _ in choices() if kind == resource.kind}
    assert wanted


def values(schema: dict[str, Any], path: str) -> list[str]:
    """ "path: value" of each enum inside; lists and maps leave no trace in a path."""
    found = [f"{path}: {value}" for value in schema.get("enum", ())]
    for name, inner in schema.get("properties", {}).items():
        found += values(inner, f"{path}.{name}")
    for keyword in ("items", "additionalProperties"):
        if keyword in schema:
            found += values(schema[keyword], path)
    return found
