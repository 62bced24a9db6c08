"""A refusal without a place is found: the check is itself checked."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fuzz.refusals import NOT_CHECKED, pathless_causes

DOCUMENT = {
    "kind": "X",
    "metadata": {"name": "a"},
    "spec": {"list": [{"a": 1}], "map": {"nvidia.com/gpu": "1", "b": {"c": 1}}, "text": "x"},
}


def refused(*fields: str | None, message: str = "is wrong") -> dict[str, Any]:
    causes = [{"field": each, "message": message} if each is not None else {"message": message} for each in fields]
    return {"message": "X is invalid", "details": {"causes": causes}}


@pytest.mark.parametrize(
    "field",
    [
        *("spec", "spec.list", "spec.list[0]", "spec.list[0].a", "spec.list[0].absent", "spec.absent", "metadata.name"),
        *("spec.map.nvidia.com/gpu", "spec.map[nvidia.com/gpu]", "spec.map[b].c", "spec.map[new]", ".spec.text.inside"),
    ],
)
def test_a_place_in_the_object_or_in_a_parent_is_one(field: str) -> None:
    assert pathless_causes(DOCUMENT, refused(field)) == []


@pytest.mark.parametrize("field", [None, "", "<nil>", "spec.absent.more", "spec.list[1].a", "elsewhere", "spec.lis.a"])
def test_any_other_is_none(field: str | None) -> None:
    assert len(pathless_causes(DOCUMENT, refused(field))) == 1
    assert len(pathless_causes(DOCUMENT, refused("spec", field, "spec.text"))) == 1


def test_the_remark_beside_other_causes_needs_no_place_and_is_none_alone() -> None:
    remark = {"field": "<nil>", "message": f"Invalid value: null: {NOT_CHECKED}"}
    both = {"message": "X is invalid", "details": {"causes": [{"field": "spec", "message": "is wrong"}, remark]}}
    assert pathless_causes(DOCUMENT, both) == []
    assert pathless_causes(DOCUMENT, {**both, "details": {"causes": [remark]}}) != []


def test_a_number_that_is_neither_integer_nor_text_has_its_place_in_the_message() -> None:
    """Of `x-kubernetes-int-or-string`, beside the cause that has a field."""
    said = refused(
        "<nil>", message='Invalid value: "": "spec.map.nvidia.com/gpu" must validate at least one schema (anyOf)'
    )
    assert pathless_causes(DOCUMENT, said) == []
    said = refused("<nil>", message='Invalid value: "": "spec.gone.gpu" must validate at least one schema (anyOf)')
    assert len(pathless_causes(DOCUMENT, said)) == 1


@pytest.mark.parametrize(
    ("message", "want"),
    [
        ('X cannot be handled: strict decoding error: unknown field "spec.a", unknown field "spec.b"', True),
        ('X cannot be handled: strict decoding error: unknown field ""', False),
        ("X cannot be handled: strict decoding error", False),
        ("metadata.name: a lowercase RFC 1123 subdomain", True),
        ("something is wrong", False),
    ],
)
def test_a_refusal_without_causes_has_its_place_in_the_message(message: str, want: bool) -> None:
    assert (pathless_causes(DOCUMENT, {"message": message}) == []) == want
