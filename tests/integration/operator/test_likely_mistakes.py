"""Likely mistakes, told by each reader that can know them: in these words, with the field's path, what was found, what is allowed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dspy_operator.api.resources import RESOURCES
from tests.controlplane.processes import ControlPlane
from tests.integration.operator.conftest import Spaces
from tests.integration.operator.likely import Likely, likely, table, validated
from tests.integration.operator.manifests import Body, a_run
from tests.integration.operator.mistakes import assert_nothing_was_paid
from tests.integration.operator.namespace import Namespace

ROOT = Path(__file__).parents[3]
TABLE = ROOT / "build" / "mistakes.md"
EACH = pytest.mark.parametrize("mistake", likely(), ids=lambda mistake: mistake.id)
_LATER = re.compile(r" \(not supported yet: [^)]*\)")
"""Which values of a choice are refused next changes with each release: a unit test looks at it."""
_RESOURCES = {resource.kind: resource for resource in RESOURCES}


@EACH
def test_validate_tells_it(mistake: Likely, tmp_path: Path) -> None:
    assert [_LATER.sub("", line) for line in validated(mistake, tmp_path)] == [
        _LATER.sub("", line) for line in mistake.validate
    ]


@EACH
def test_the_cluster_tells_it(mistake: Likely, spaces: Spaces) -> None:
    """The API server, or where it takes the objects, the operator before a call is paid."""
    namespace = spaces.new(mistake.id)
    namespace.apply(*mistake.others, *([a_run()] if mistake.edits else []))
    answers = [_sent(namespace, body, edits=mistake.edits) for body in mistake.bodies]
    refused = [said["message"] for code, said in answers if code not in (200, 201)]
    assert list(map(causes, refused)) == ([] if mistake.server is None else [causes(mistake.server)])
    if (told := mistake.cluster) is not None:
        namespace.condition(
            told.kind,
            told.name,
            told.type,
            told.status,
            told.reason,
            words=(told.says.replace("NAMESPACE", namespace.name),),
        )
    if not mistake.edits:
        assert_nothing_was_paid(namespace)


@EACH
def test_path_found_and_allowed_are_named(mistake: Likely) -> None:
    """Each reader that speaks up names the path; one of them also what was found, and what is allowed."""
    answers = [message for _, message in answers_to(mistake)]
    assert answers
    # An entry of a map is the map's to the API server; a row's place is told by its line.
    assert [message for message in answers if mistake.path not in message] == []
    assert any(mistake.found in message and mistake.allowed in message for message in answers)


def test_the_table_of_likely_mistakes_is_written() -> None:
    """build/mistakes.md, for the reader."""
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(table((mistake, answers_to(mistake)) for mistake in likely()), encoding="utf-8")
    assert len({mistake.id.partition("-")[0] for mistake in likely()}) >= 30


def causes(message: str) -> list[str]:
    """Of a refusal, sorted: the API server tells several in any order."""
    head, said, listed = message.partition(" is invalid: ")
    return [head, said, *sorted(re.split(r", (?=(?:spec|metadata|<nil>)[^ ]*: )", listed.strip("[]")))]


def answers_to(mistake: Likely) -> list[tuple[str, str]]:
    """(reader, message) of those that speak up."""
    answers = [("validate", "; ".join(mistake.validate))] if mistake.validate else []
    if mistake.server is not None:
        answers.append(("API server", mistake.server))
    if mistake.cluster is not None:
        answers.append((f"status, {mistake.cluster.reason}", mistake.cluster.says))
    return answers


def _sent(space: Namespace, body: Body, *, edits: bool) -> tuple[int, Body]:
    """The API server's answer to kubectl, which asks to be told of unknown fields."""
    plane: ControlPlane = space.plane
    kind, metadata = body["kind"], body["metadata"]
    where = metadata.get("namespace", space.name)
    if where != space.name:
        plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": where}})
    if kind in _RESOURCES:
        resource = _RESOURCES[kind]
        inside = f"namespaces/{where}/" if resource.namespaced else ""
        path = f"/apis/dspy-operator.io/v1alpha1/{inside}{resource.plural}"
    else:
        path = f"/api/v1/namespaces/{where}/configmaps"
    if not edits:
        return plane.request("POST", f"{path}?fieldValidation=Strict", body)
    return plane.request("PATCH", f"{path}/{metadata['name']}?fieldValidation=Strict", body, kind="merge-patch+json")
