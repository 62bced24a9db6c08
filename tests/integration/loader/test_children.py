"""An endpoint's children on a real API server: taken as they are written, and its pods let into a restricted namespace."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from dspy_operator.api.objects import ModelEndpoint, parse_object
from dspy_operator.controllers.modelendpoint import children
from dspy_operator.controllers.runnerpod import Owner
from dspy_operator.engine.plan import Body, Ref
from dspy_operator.engine.resources import CHILDREN
from dspy_operator.engine.subset import difference
from tests.controlplane.processes import ControlPlane
from tests.integration.loader.servers import wait_for
from tests.unit.modelendpoint.scene import SETTINGS, ollama

_count = itertools.count(1)

EVERYTHING = {
    "ollama_contextLength": 8192,
    "ollama_parallel": 4,
    "ollama_pull": {"registry": "r.models.svc:5000", "insecure": True},
    "ollama_cache": {
        "type": "PersistentVolumeClaim",
        "persistentVolumeClaim": {"size": "10Gi", "storageClassName": "fast", "accessModes": ["ReadWriteMany"]},
    },
    "ollama_podTemplate": {
        "resources": {"requests": {"cpu": 2, "memory": "4Gi"}, "limits": {"memory": "4096Mi", "nvidia.com/gpu": 1}},
        "nodeSelector": {"gpu": "l4"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
        ],
        "imagePullSecrets": [{"name": "pull"}],
        "labels": {"team": "a"},
        "annotations": {"note": "x"},
    },
}


@pytest.fixture
def namespace(control_plane: ControlPlane) -> str:
    name = f"children-{next(_count)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    code, said = control_plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
    assert code == 201, said
    return name


@pytest.mark.parametrize("changes", [{}, EVERYTHING], ids=["a plain endpoint", "one with everything"])
def test_children_are_stored_as_they_are_written_and_the_pods_are_let_in(
    control_plane: ControlPlane, namespace: str, changes: dict[str, Any]
) -> None:
    for child in _children(namespace, changes):
        answer = _applied(control_plane, child)
        # Else the operator would take it for somebody's edit and write it again, for ever.
        assert difference(child, answer) is None
    pods: list[Body] = []

    def there() -> bool:
        _, deployment = control_plane.request("GET", f"/apis/apps/v1/namespaces/{namespace}/deployments/mep-small")
        refused = [c for c in deployment.get("status", {}).get("conditions", ()) if c["type"] == "ReplicaFailure"]
        assert not refused, refused
        pods[:] = control_plane.request("GET", f"/api/v1/namespaces/{namespace}/pods")[1]["items"]
        return bool(pods)

    wait_for(there, "a pod", 30)
    (pod,) = pods
    (deployment,) = (child for child in _children(namespace, changes) if child["kind"] == "Deployment")
    assert children.digest_of(pod) == children.digest_of(deployment["spec"]["template"])


def _children(namespace: str, changes: dict[str, Any]) -> tuple[Body, ...]:
    metadata = {"name": "small", "namespace": namespace}
    endpoint = parse_object(
        {
            "apiVersion": "dspy-operator.io/v1alpha1",
            "kind": "ModelEndpoint",
            "metadata": metadata,
            "spec": ollama(**changes),
        }
    )
    assert isinstance(endpoint, ModelEndpoint) and endpoint.spec.provider.ollama is not None
    owner = Owner("ModelEndpoint", namespace, "small", "7c0e5a3e-0000-4000-8000-000000000001")
    images = children.Images(SETTINGS.ollama_image, SETTINGS.operator_image)
    template = children.pod_template(owner, endpoint.spec.provider.ollama, images, SETTINGS.image_pull_policy)
    claim = children.cache_claim(owner, endpoint.spec)
    made = (*children.supporting(owner), children.service(owner), children.deployment(owner, template, 1))
    # There is no such endpoint, and the garbage collector would remove what it owns.
    return tuple(_orphaned(child) for child in (*made, *((claim,) if claim else ())))


def _orphaned(child: Body) -> Body:
    return {
        **child,
        "metadata": {name: value for name, value in child["metadata"].items() if name != "ownerReferences"},
    }


def _applied(plane: ControlPlane, child: Body) -> Body:
    ref = Ref.of(child)
    (resource,) = (one for one in CHILDREN if (one.api_version, one.kind) == (ref.api_version, ref.kind))
    path = f"{resource.path(ref.namespace, ref.name)}?fieldManager=test&force=true&fieldValidation=Strict"
    code, said = plane.request("PATCH", path, child, kind="apply-patch+yaml")
    assert code in (200, 201), said
    return dict(said)
