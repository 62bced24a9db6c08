"""What the API server refuses, with the words that its author reads; and that local mode refuses the same."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import pytest

from dspy_operator.api.objects import InvalidObject, parse_object
from dspy_operator.api.resources import RESOURCES
from dspy_operator.api.unsupported import PREFIX
from tests.controlplane.processes import ControlPlane
from tests.integration.crd.rule_cases import Case, cases

_RESOURCES = {resource.kind: resource for resource in RESOURCES}
CASES = [pytest.param(case, id=f"{case.kind}-{case.id}") for case in cases()]


@pytest.mark.parametrize("case", CASES)
def test_an_object_that_keeps_the_rule_is_taken(cluster: ControlPlane, case: Case) -> None:
    """Or is refused for nothing but that it is not supported yet."""
    code, said = asked(cluster, case.keeps)
    assert code == 201 or only_not_supported_yet(said), said["message"]
    assert is_good(case.keeps) == (code == 201)


@pytest.mark.parametrize("case", CASES)
def test_an_object_that_breaks_the_rule_is_refused_with_the_rules_words(cluster: ControlPlane, case: Case) -> None:
    code, said = asked(cluster, case.breaks) if case.how == "create" else asked_to_change(cluster, case)
    assert (code, said["message"]) == (422 if "is invalid" in case.server else 400, case.server)


def test_a_name_that_the_operator_can_make_children_of_has_at_most_40_characters(cluster: ControlPlane) -> None:
    longest = {**next(case for case in cases() if case.kind == "OptimizationRun").keeps, "metadata": {"name": "a" * 40}}
    assert asked(cluster, longest)[0] == 201


_VALUES: list[Any] = [
    *[None, True, False, 0, 1, -1, 0.5, 2**31, 2**40, 2**60],
    *["", "a", "A", "0", "1", "0.5", "-1", "1e3", "1h", "0s", " ", "x" * 300, "a-b", "é", "self", "None", "Exists"],
    *[[], [1], ["a"], {}, {"a": "b"}, {"type": "Ollama"}, {"name": "a"}, {"Self": "x"}],
]


@pytest.mark.parametrize("seed", range(4))
def test_local_mode_and_the_api_server_take_the_same_objects(cluster: ControlPlane, seed: int) -> None:
    """250 objects, each with one field changed at random or removed.

    Two differences are known, and not looked for: 5.0 is a whole number to the API server, which keeps it as 5; and it drops
    a key of a map whose value is null.
    """
    rng = random.Random(seed)
    good = [case.keeps for case in cases() if is_good(case.keeps)]
    differ = []
    taken = 0
    for _ in range(250):
        changed = copy.deepcopy(rng.choice(good))
        *parents, last = rng.choice(list(paths(changed["spec"])))
        inside = changed["spec"]
        for part in parents:
            inside = inside[part]
        if rng.random() < 0.15:
            del inside[last]
        else:
            inside[last] = rng.choice(_VALUES)
            if inside[last] is None and parents and parents[-1] in ("limits", "requests", "fields", "nodeSelector"):
                continue
        code, said = asked(cluster, changed)
        taken += code == 201
        if (code == 201) != is_good(changed):
            differ.append(
                (changed["kind"], [*parents, last], inside.get(last) if isinstance(inside, dict) else None, said)
            )
    assert differ == []
    assert 5 < taken < 200, "the changes are neither all harmless nor all fatal"


def asked(cluster: ControlPlane, document: dict[str, Any]) -> tuple[int, Any]:
    """The API server's answer, as kubectl would get it: unknown fields are told; nothing is kept."""
    return cluster.request("POST", f"{_collection(document)}?dryRun=All&fieldValidation=Strict", document)


def asked_to_change(cluster: ControlPlane, case: Case) -> tuple[int, Any]:
    """The API server's answer to an edit of the object that keeps the rule."""
    collection = _collection(case.keeps)
    path = f"{collection}/{case.keeps['metadata']['name']}"
    code, there = cluster.request("POST", collection, case.keeps)
    assert code == 201, there
    try:
        edited = copy.deepcopy(case.breaks)
        edited["metadata"]["resourceVersion"] = there["metadata"]["resourceVersion"]
        return cluster.request("PUT", f"{path}?fieldValidation=Strict", edited)
    finally:
        cluster.request("DELETE", path)


def only_not_supported_yet(said: Any) -> bool:
    """Whether a refusal has that cause alone; kubectl's remark that some rules were not looked at is none."""
    return all(PREFIX in cause["message"] for cause in said["details"]["causes"])


def is_good(document: dict[str, Any]) -> bool:
    """To local mode."""
    try:
        parse_object(document)
    except InvalidObject:
        return False
    return True


def paths(part: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of everything inside a document."""
    for key, value in part.items() if isinstance(part, dict) else enumerate(part):
        yield (*before, key)
        if isinstance(value, (dict, list)):
            yield from paths(value, (*before, key))


def _collection(document: dict[str, Any]) -> str:
    resource = _RESOURCES[document["kind"]]
    where = "namespaces/default/" if resource.namespaced else ""
    return f"/apis/dspy-operator.io/v1alpha1/{where}{resource.plural}"
