"""An object holds what we want of it, or the first place is named where it does not."""

from __future__ import annotations

from typing import Any

import pytest

from dspy_operator.engine.subset import difference


def container(**more: Any) -> dict[str, Any]:
    return {"name": "main", "image": "ollama:1", **more}


def pod(*containers: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"spec": {"containers": list(containers), **more}}


@pytest.mark.parametrize(
    ("wanted", "live"),
    [
        pytest.param({"a": 1}, {"a": 1, "b": 2}, id="what others added"),
        pytest.param({"a": {"b": "x"}}, {"a": {"b": "x", "c": "y"}}, id="what others added deeper"),
        pytest.param(
            pod(container()),
            pod({"name": "sidecar"}, container(imagePullPolicy="Always")),
            id="a container that others added",
        ),
        pytest.param(
            pod(container(env=[{"name": "B", "value": "2"}])),
            pod(container(env=[{"name": "A", "value": "1"}, {"name": "B", "value": "2"}])),
            id="a variable that others added",
        ),
        pytest.param({"limits": {"cpu": "1000m"}}, {"limits": {"cpu": "1"}}, id="1000m is 1"),
        pytest.param({"limits": {"cpu": 1}}, {"limits": {"cpu": "1"}}, id="1 is written as text"),
        pytest.param({"requests": {"memory": "1024Mi"}}, {"requests": {"memory": "1Gi"}}, id="1024Mi is 1Gi"),
        pytest.param({"requests": {"memory": "1.5G"}}, {"requests": {"memory": "1500M"}}, id="1.5G is 1500M"),
        pytest.param(
            {"emptyDir": {"sizeLimit": "0.5Gi"}}, {"emptyDir": {"sizeLimit": "512Mi"}}, id="half a Gi is 512Mi"
        ),
        pytest.param(
            {
                "env": [{"name": "A", "value": ""}],
                "args": [],
                "nodeSelector": {},
                "hostNetwork": False,
                "grace": 0,
                "x": None,
            },
            {"env": [{"name": "A"}]},
            id="empty things that an answer leaves out",
        ),
    ],
)
def test_it_is_as_wanted(wanted: Any, live: Any) -> None:
    assert difference(wanted, live) is None


@pytest.mark.parametrize(
    ("wanted", "live", "where"),
    [
        pytest.param({"a": {"b": 1}}, {"a": {"b": 2}}, "a.b", id="another value"),
        pytest.param({"a": {"b": 1}}, {"a": {}}, "a.b", id="a value that is gone"),
        pytest.param({"a": True}, {"a": 1}, "a", id="true is not 1"),
        pytest.param({"a": "1"}, {"a": 1}, "a", id="text is not a number"),
        pytest.param({"replicas": 0}, {"replicas": 2}, "replicas", id="0 is a wish"),
        pytest.param(
            pod(container()), pod(container(image="ollama:2")), "spec.containers[name=main].image", id="another image"
        ),
        pytest.param(pod(container()), pod({"name": "x"}), "spec.containers[name=main]", id="a container that is gone"),
        pytest.param(
            {"rules": [{"verbs": ["get"]}]},
            {"rules": [{"verbs": ["get"]}, {"verbs": ["*"]}]},
            "rules",
            id="a rule that somebody added to a Role",
        ),
        pytest.param({"args": ["a", "b"]}, {"args": ["b", "a"]}, "args[0]", id="another order"),
        pytest.param(
            {"data": {"limits": "1000m"}}, {"data": {"limits": "1"}}, "data.limits", id="a text is no quantity"
        ),
        pytest.param({"limits": {"cpu": "1"}}, {"limits": {"cpu": "2"}}, "limits.cpu", id="another quantity"),
        pytest.param({"data": {"a": ""}}, {"data": {}}, "data.a", id="an empty text in data is a key"),
        pytest.param({"limits": {"cpu": "1x"}}, {"limits": {"cpu": "1"}}, "limits.cpu", id="no quantity at all"),
        pytest.param({"a": {}}, {"a": "text"}, "a", id="another shape"),
    ],
)
def test_the_place_of_a_difference_is_named(wanted: Any, live: Any, where: str) -> None:
    assert difference(wanted, live) == where
