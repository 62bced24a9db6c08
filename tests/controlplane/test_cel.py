"""The API server refuses what a CRD's CEL rules forbid, with the rule's message: what our own CRDs rely on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .processes import ControlPlane

_GROUP = "controlplane.test"
_WIDGETS = f"/apis/{_GROUP}/v1/namespaces/default/widgets"
_RULES = [
    {"rule": "self.size <= self.max", "message": "size is over max"},
    {"rule": "self.owner == oldSelf.owner", "message": "owner cannot be changed"},
]
_SPEC: dict[str, Any] = {
    "type": "object",
    "required": ["size", "owner"],
    "properties": {
        "size": {"type": "integer", "minimum": 0},
        "max": {"type": "integer", "default": 10},
        "owner": {"type": "string"},
    },
    "x-kubernetes-validations": _RULES,
}
_CRD: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"widgets.{_GROUP}"},
    "spec": {
        "group": _GROUP,
        "scope": "Namespaced",
        "names": {"kind": "Widget", "plural": "widgets", "singular": "widget"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": _SPEC}}},
            }
        ],
    },
}


@pytest.fixture(scope="module")
def widgets(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    code, said = control_plane.request("POST", definitions, _CRD)
    assert code == 201, said
    waited = control_plane.kubectl("wait", f"crd/widgets.{_GROUP}", "--for=condition=Established", "--timeout=30s")
    assert waited.returncode == 0, waited.stderr
    yield control_plane
    control_plane.request("DELETE", f"{definitions}/widgets.{_GROUP}")


def test_an_object_within_the_rules_is_taken(widgets: ControlPlane) -> None:
    code, made = widgets.request("POST", _WIDGETS, _widget("good", size=3, owner="a"))
    assert (code, made["spec"]["max"]) == (201, 10)


def test_a_rule_refuses_with_its_message(widgets: ControlPlane) -> None:
    code, said = widgets.request("POST", _WIDGETS, _widget("big", size=30, owner="a"))
    assert code == 422
    assert "size is over max" in said["message"]


def test_a_transition_rule_refuses_a_change(widgets: ControlPlane) -> None:
    assert widgets.request("POST", _WIDGETS, _widget("kept", size=3, owner="a"))[0] == 201
    change = {"spec": {"owner": "b"}}
    code, said = widgets.request("PATCH", f"{_WIDGETS}/kept", change, kind="merge-patch+json")
    assert code == 422
    assert "owner cannot be changed" in said["message"]


def _widget(name: str, *, size: int, owner: str) -> dict[str, Any]:
    return {
        "apiVersion": f"{_GROUP}/v1",
        "kind": "Widget",
        "metadata": {"name": name},
        "spec": {"size": size, "owner": owner},
    }
