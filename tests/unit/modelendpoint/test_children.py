"""What an Ollama endpoint is made of: the parts that somebody relies on."""

from __future__ import annotations

from typing import Any

import pytest

from dspy_operator.contract import names
from dspy_operator.engine.plan import Body, Ref
from dspy_operator.loader.__main__ import parser
from tests.unit.modelendpoint.scene import MODEL, SETTINGS, Scene, ollama

CLAIMED = {"type": "PersistentVolumeClaim", "persistentVolumeClaim": {"size": "10Gi", "storageClassName": "fast"}}


def made(**changes: Any) -> dict[str, Body]:
    """Kind -> child."""
    scene = Scene(ollama(**changes))
    scene.look()
    return {child["kind"]: child for child in (*scene.plan.children, *scene.plan.creates)}


def pod(**changes: Any) -> Body:
    template: Body = made(**changes)["Deployment"]["spec"]["template"]
    return template


def ollama_container(**changes: Any) -> Body:
    (container,) = pod(**changes)["spec"]["containers"]
    return dict(container)


def loader_container(**changes: Any) -> Body:
    (container,) = pod(**changes)["spec"]["initContainers"]
    return dict(container)


def test_every_child_is_named_labelled_and_owned() -> None:
    children = made(ollama_cache=CLAIMED)
    assert {kind: child["metadata"]["name"] for kind, child in children.items()} == {
        "Deployment": "mep-qwen",
        "Service": "qwen",
        "ConfigMap": "mep-qwen-pod",
        "ServiceAccount": "mep-qwen-pod",
        "Role": "mep-qwen-pod",
        "RoleBinding": "mep-qwen-pod",
        "PersistentVolumeClaim": "mep-qwen",
    }
    for child in children.values():
        labels = child["metadata"]["labels"]
        assert labels["app.kubernetes.io/managed-by"] == "dspy-operator"
        assert (labels[names.LABEL_KIND], labels[names.LABEL_NAME]) == ("ModelEndpoint", "qwen")
        (owner,) = child["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"]) == ("uid-of-qwen", True)
        assert "blockOwnerDeletion" not in owner, "that needs a right on finalizers"


def test_the_service_finds_the_pods_and_nothing_of_the_selector_can_change() -> None:
    children = made()
    selected = children["Service"]["spec"]["selector"]
    assert children["Deployment"]["spec"]["selector"] == {"matchLabels": selected}
    assert selected.items() <= children["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    other = made(ollama_model="llama3.2:1b", ollama_podTemplate={"labels": {"team": "a"}})
    assert other["Deployment"]["spec"]["selector"] == {"matchLabels": selected}


def test_the_pod_keeps_the_restricted_pod_security_standard() -> None:
    spec = pod()["spec"]
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    for container in (*spec["containers"], *spec["initContainers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    assert {kind for volume in spec["volumes"] for kind in volume} == {"name", "emptyDir", "projected"}


def test_only_the_loader_has_a_token_and_it_opens_one_object() -> None:
    spec = pod()["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["serviceAccountName"] == "mep-qwen-pod"
    assert [mount["name"] for mount in spec["containers"][0]["volumeMounts"]] == ["models", "tmp"]
    assert [mount["name"] for mount in spec["initContainers"][0]["volumeMounts"]] == ["account"]
    assert made()["Role"]["rules"] == [
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["mep-qwen-pod"], "verbs": ["get", "patch"]}
    ]


def test_nothing_kills_a_slow_pull() -> None:
    loader = loader_container()
    assert loader["restartPolicy"] == "Always", "a native sidecar"
    assert loader["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "readyz"}
    for container in (ollama_container(), loader):
        assert "livenessProbe" not in container
        assert "startupProbe" not in container, "Ollama is started only after a sidecar's has passed"
    assert made()["Deployment"]["spec"]["progressDeadlineSeconds"] == 2**31 - 1


def test_memory_holds_one_model_at_a_time() -> None:
    assert made()["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}
    environment = {entry["name"]: entry["value"] for entry in ollama_container(ollama_parallel=4)["env"]}
    assert environment == {
        "OLLAMA_HOST": "0.0.0.0:11434",
        "OLLAMA_MODELS": "/models",
        "OLLAMA_NUM_PARALLEL": "4",
        "OLLAMA_CONTEXT_LENGTH": "4096",
        "OLLAMA_KEEP_ALIVE": "-1",
        "OLLAMA_MAX_LOADED_MODELS": "1",
        "OLLAMA_NO_CLOUD": "1",
        "OMP_WAIT_POLICY": "passive",
        "HOME": "/tmp",
    }


@pytest.mark.parametrize(
    ("changes", "registry", "insecure"),
    [
        pytest.param({}, None, False, id="Ollama's own registry"),
        pytest.param({"ollama_pull": {"registry": "r.models.svc:5000"}}, "r.models.svc:5000", False, id="another"),
        pytest.param({"ollama_pull": {"registry": "r:5000", "insecure": True}}, "r:5000", True, id="another, without TLS"),
    ],
)  # fmt: skip
def test_the_loader_understands_its_arguments(changes: dict[str, Any], registry: str | None, insecure: bool) -> None:
    container = loader_container(**changes)
    assert container["image"] == SETTINGS.operator_image
    assert container["command"] == ["python", "-m", "dspy_operator.loader"]
    assert container["env"] == [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    given = parser().parse_args([argument.replace("$(POD_NAME)", "mep-qwen-x") for argument in container["args"]])
    assert (given.model, given.registry, given.insecure) == (MODEL, registry, insecure)
    assert (given.namespace, given.channel, given.pod) == ("models", "mep-qwen-pod", "mep-qwen-x")
    assert given.port == container["ports"][0]["containerPort"]
    assert str(given.service_account) == container["volumeMounts"][0]["mountPath"]


def test_a_pod_template_goes_where_it_belongs() -> None:
    template = {
        "resources": {"limits": {"nvidia.com/gpu": "1"}},
        "nodeSelector": {"gpu": "l4"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": []}},
        "runtimeClassName": "nvidia",
        "imagePullSecrets": [{"name": "pull"}],
        "labels": {"team": "a", "app.kubernetes.io/managed-by": "somebody-else"},
        "annotations": {"note": "x"},
    }
    made_pod = pod(ollama_podTemplate=template)
    for name in ("nodeSelector", "tolerations", "affinity", "runtimeClassName", "imagePullSecrets"):
        assert made_pod["spec"][name] == template[name]
    assert made_pod["spec"]["containers"][0]["resources"] == template["resources"]
    assert "nvidia.com/gpu" not in str(made_pod["spec"]["initContainers"][0]["resources"])
    assert made_pod["metadata"]["labels"]["team"] == "a"
    assert made_pod["metadata"]["labels"][names.LABEL_NAME] == "qwen", (
        "our labels are ours: the Service selects by them"
    )
    assert made_pod["metadata"]["annotations"]["note"] == "x"


def test_a_users_labels_on_the_endpoint_are_not_copied() -> None:
    scene = Scene()
    scene.body["metadata"]["labels"] = {"argocd.argoproj.io/instance": "app"}
    scene.look()
    assert "argocd" not in str(scene.plan.children)


@pytest.mark.parametrize(
    ("volume", "want"),
    [
        ({"size": "10Gi"}, {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}}),
        (
            {"size": "10Gi", "storageClassName": "fast", "accessModes": ["ReadWriteMany"]},
            {
                "accessModes": ["ReadWriteMany"],
                "resources": {"requests": {"storage": "10Gi"}},
                "storageClassName": "fast",
            },
        ),
    ],
    ids=["as little as can be said", "all that can be said"],
)
def test_a_cache_that_outlives_the_pod(volume: dict[str, Any], want: dict[str, Any]) -> None:
    scene = Scene(ollama(ollama_cache={"type": "PersistentVolumeClaim", "persistentVolumeClaim": volume}))
    scene.look()
    (claim,) = scene.plan.creates
    assert claim["spec"] == want
    models = scene.deployment["spec"]["template"]["spec"]["volumes"][0]
    assert models == {"name": "models", "persistentVolumeClaim": {"claimName": "mep-qwen"}}
    scene.edit(ollama(ollama_cache={"type": "EmptyDir"}))
    scene.look()
    assert "PersistentVolumeClaim" not in scene.kinds
    assert scene.deployment["spec"]["template"]["spec"]["volumes"][0] == {"name": "models", "emptyDir": {}}


def test_a_claim_that_was_edited_stays_and_that_is_said() -> None:
    scene = Scene(ollama(ollama_cache=CLAIMED))
    scene.look()
    claim = scene.objects[Ref("v1", "PersistentVolumeClaim", "models", "mep-qwen")]
    claim["spec"]["resources"]["requests"]["storage"] = "10240Mi"  # the same, in other words
    scene.look()
    assert scene.condition("Accepted")[2] == ""
    larger = {"type": "PersistentVolumeClaim", "persistentVolumeClaim": {"size": "20Gi", "storageClassName": "fast"}}
    scene.edit(ollama(ollama_cache=larger))
    scene.look()
    assert scene.condition("Accepted") == (
        "True",
        "Accepted",
        "PersistentVolumeClaim mep-qwen stays as it was claimed (resources.requests.storage differs): "
        "remove it, and it is claimed anew",
    )


def test_the_same_spec_makes_the_same_pods() -> None:
    assert pod() == pod()
    assert (
        pod()["metadata"]["annotations"][names.ANNOTATION_TEMPLATE]
        != (pod(ollama_parallel=2)["metadata"]["annotations"][names.ANNOTATION_TEMPLATE])
    )
