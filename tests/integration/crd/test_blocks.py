"""Whole manifests with everything that the API has: each is taken and kept as it is written, or refused as not supported yet.

`blocks/<kind>.yaml` are what the design of the API shows, in our own manifests. What is refused is taken away field by field, so
that the refusal of one part hides nothing about the rest.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dspy_operator.api.objects import KINDS
from dspy_operator.api.unsupported import PREFIX
from tests import yaml_text
from tests.controlplane.processes import ControlPlane
from tests.integration.crd.test_rules import asked, is_good
from tests.unit.written import complaints

FOLDER = Path(__file__).parent / "blocks"
TABLE = Path(__file__).parents[3] / "build" / "blocks.md"

Document = dict[str, Any]


def blocks() -> list[Document]:
    return [block for path in sorted(FOLDER.glob("*.yaml")) for block in yaml_text.documents(path.read_text("utf-8"))]


@pytest.mark.parametrize(
    "block", [pytest.param(each, id=f"{each['kind']}-{each['metadata']['name']}") for each in blocks()]
)
def test_a_block_is_taken_or_not_supported_yet(cluster: ControlPlane, block: Document) -> None:
    causes, left = refused(cluster, block)
    assert [cause for cause in causes if PREFIX not in cause] == []
    assert set(complaints(block)) <= set(causes), "local mode says the same, if not all of it at once"
    assert is_good(block) == (causes == [])
    if left is not None:
        code, said = asked(cluster, left)
        assert (code, is_good(left)) == (201, True), said
        filled_in = {"replicas": 1} if left["kind"] == "ModelEndpoint" else {}
        assert said["spec"] == filled_in | left["spec"], "what is written is kept"


def test_each_kind_has_a_block_with_every_field_at_its_top() -> None:
    for kind, model in KINDS.items():
        spec = model.model_fields["spec"].annotation
        assert spec is not None
        (whole,) = (block for block in blocks() if (block["kind"], block["metadata"]["name"]) == (kind, "whole"))
        assert set(whole["spec"]) == {field.alias for field in spec.model_fields.values()}


def test_the_table_of_blocks_is_written(cluster: ControlPlane) -> None:
    """build/blocks.md"""
    lines = ["| kind | block | |", "|---|---|---|"]
    for block in blocks():
        causes, left = refused(cluster, block)
        answer = "taken" if not causes else "; ".join(causes)
        rest = "" if not causes else " (the rest is taken)" if left is not None else " (it needs that)"
        lines.append(f"| {block['kind']} | {block['metadata']['name']} | {answer}{rest} |")
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text("\n".join([*lines, ""]), encoding="utf-8")


def refused(cluster: ControlPlane, block: Document) -> tuple[list[str], Document | None]:
    """(`path: why` of each thing that is refused, what is left without those); None where it needs one of them."""
    causes: list[str] = []
    left = copy.deepcopy(block)
    while True:
        code, said = asked(cluster, left)
        if code == 201:
            return causes, left
        told = {plainly(cause): str(cause["field"]) for cause in said["details"]["causes"]}
        if not all(PREFIX in cause for cause in told):
            # A field that is required cannot be taken away.
            return causes or list(told), None
        causes += told
        for path in told.values():
            if not _taken_away(left, path):
                return causes, None


def plainly(cause: Document) -> str:
    """Without what the API server thinks of it: `Forbidden`, `Invalid value`."""
    message = str(cause["message"])
    return f"{cause['field']}: {message[max(message.find(PREFIX), 0) :]}"


def _taken_away(block: Document, path: str) -> bool:
    """Whether there is such a field; of a choice it is the whole that goes."""
    *parents, last = _steps(path)
    if last in ("type", "from") and len(parents) > 1:
        *parents, last = parents
    if len(parents) == 0:
        return False
    here: Any = block
    for step in parents:
        here = here.get(step) if isinstance(here, dict) else None
    return isinstance(here, dict) and here.pop(last, None) is not None


def _steps(path: str) -> Iterator[str]:
    return iter(re.split(r"[.\[\]]+", path.strip("]")))
