"""What an Ollama endpoint is made of: Deployment, Service, channel, access, cache. Pure; the engine applies what they return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dspy_operator.api.modelendpoint import ModelEndpointSpec, OllamaProvider
from dspy_operator.contract import names
from dspy_operator.contract.canonical import digest
from dspy_operator.contract.resolve import DEFAULT_PARALLEL
from dspy_operator.controllers import runnerpod
from dspy_operator.controllers.runnerpod import Owner
from dspy_operator.engine.plan import Body

PORT = 11434
"""Ollama's."""
LOADER_PORT = 8090
DEFAULT_CONTEXT = 4096
"""Ollama's own choice depends on the memory of the GPU: unpinned, the same endpoint is another one on another node."""
MODELS_FOLDER = "/models"
TOKEN_SECONDS = 3607
"""What the API server gives to pods by default; the kubelet renews it."""
GRACE_SECONDS = 30
"""Ollama ends within 2 s; answers that are on their way get the rest."""
NO_DEADLINE_SECONDS = 2**31 - 1
"""A rollout is as slow as its pull; this value is Kubernetes' word for no deadline."""

_NOT_OF_THE_POD = frozenset({"labels", "annotations", "resources"})
"""Of `podTemplate`: of the pod's metadata, and of one container. The rest of that closed list is about placement."""

MANAGED = frozenset(
    {"Deployment", "Service", "ConfigMap", "ServiceAccount", "Role", "RoleBinding", "PersistentVolumeClaim"}
)
"""Kinds that we make, and remove where they are not wanted any more; pods are the Deployment's."""


@dataclass(frozen=True)
class Images:
    """References of a pod's two images."""

    ollama: str
    loader: str

    @staticmethod
    def of(deployment: Body) -> Images:
        """Those that a Deployment has."""
        spec = deployment["spec"]["template"]["spec"]
        return Images(spec["containers"][0]["image"], spec["initContainers"][0]["image"])


def url(owner: Owner) -> str:
    """Where the endpoint answers. Without the cluster's domain, which a pod's resolver knows and we do not."""
    return f"http://{owner.name}.{owner.namespace}.svc:{PORT}/v1"


def selector(owner: Owner) -> str:
    """Label selector of the pods, as autoscalers want it."""
    return ",".join(f"{key}={value}" for key, value in sorted(_selected(owner).items()))


def _selected(owner: Owner) -> dict[str, str]:
    """A Deployment's selector can never be changed: so nothing of it comes from the spec."""
    return {
        names.LABEL_KIND: owner.kind,
        names.LABEL_NAME: owner.name,
        names.LABEL_COMPONENT: names.Component.SERVER.value,
    }


def digest_of(template: Body) -> str | None:
    """names.ANNOTATION_TEMPLATE of a pod template, or of a pod made from it."""
    found: str | None = (template["metadata"].get("annotations") or {}).get(names.ANNOTATION_TEMPLATE)
    return found


def pod_template(owner: Owner, ollama: OllamaProvider, images: Images, pull_policy: str) -> dict[str, Any]:
    """The pods, with their digest in names.ANNOTATION_TEMPLATE."""
    extra = ollama.pod_template.document() if ollama.pod_template else {}
    made: dict[str, Any] = {
        "metadata": {
            "labels": {**extra.get("labels", {}), **owner.labels(names.Component.SERVER)},
            "annotations": dict(extra.get("annotations", {})),
        },
        "spec": _pod_spec(owner, ollama, images, pull_policy, extra),
    }
    made["metadata"]["annotations"][names.ANNOTATION_TEMPLATE] = digest(made).rpartition(":")[2][:16]
    return made


def deployment(owner: Owner, template: dict[str, Any], replicas: int) -> Body:
    """The Deployment.

    Strategy Recreate: a rolling update holds the model twice in memory, two pods of two nodes wait for each other where
    the cache can be mounted once, and for its time answers come from two models. A run waits through a pause, but not
    through a mixture. `maxSurge: 0` was rejected, since it does not wait until the old pod has left its memory.
    """
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": owner.metadata(names.endpoint_server(owner.name), names.Component.SERVER),
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 1,
            "progressDeadlineSeconds": NO_DEADLINE_SECONDS,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": _selected(owner)},
            "template": template,
        },
    }


def service(owner: Owner) -> Body:
    """The Service, with the bare name that URLs have."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": owner.metadata(owner.name, names.Component.SERVER),
        "spec": {
            "selector": _selected(owner),
            "ports": [{"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP", "appProtocol": "http"}],
        },
    }


def supporting(owner: Owner) -> tuple[Body, ...]:
    """The channel, and the right of the pods to get and patch it."""
    channel = names.endpoint_channel(owner.name)
    return (runnerpod.channel(owner, channel), *runnerpod.access(owner, channel))


def cache_claim(owner: Owner, spec: ModelEndpointSpec) -> Body | None:
    """The volume that outlives the pods; None where each pod pulls for itself."""
    cache = spec.provider.ollama.cache if spec.provider.ollama else None
    volume = cache.persistent_volume_claim if cache else None
    if volume is None:
        return None
    wanted: dict[str, Any] = {
        "accessModes": list(volume.access_modes or ["ReadWriteOnce"]),
        "resources": {"requests": {"storage": volume.size}},
    }
    if volume.storage_class_name is not None:
        wanted["storageClassName"] = volume.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": owner.metadata(names.endpoint_server(owner.name), names.Component.SERVER),
        "spec": wanted,
    }


def _pod_spec(
    owner: Owner, ollama: OllamaProvider, images: Images, pull_policy: str, extra: dict[str, Any]
) -> dict[str, Any]:
    claimed = ollama.cache is not None and ollama.cache.persistent_volume_claim is not None
    claim = {"persistentVolumeClaim": {"claimName": names.endpoint_server(owner.name)}}
    return {
        "serviceAccountName": names.endpoint_channel(owner.name),
        # The loader's container mounts the token; Ollama, which parses other people's files, has none.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": runnerpod.USER,
            "runAsGroup": runnerpod.USER,
            "fsGroup": runnerpod.USER,
            "fsGroupChangePolicy": "OnRootMismatch",  # a cache of many gigabytes is not gone through at each start
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [_loader_container(owner, ollama, images.loader, pull_policy)],
        "containers": [_ollama_container(ollama, images.ollama, pull_policy, extra)],
        "volumes": [
            {"name": "models"} | (claim if claimed else {"emptyDir": {}}),
            {"name": "tmp", "emptyDir": {}},
            {"name": "account", "projected": {"sources": _account()}},
        ],
    } | {name: value for name, value in extra.items() if name not in _NOT_OF_THE_POD}


def _ollama_container(ollama: OllamaProvider, image: str, pull_policy: str, extra: dict[str, Any]) -> dict[str, Any]:
    """Without a liveness probe: the process ends when it breaks, and a busy one that is killed loses its pull or its answers."""
    environment = {
        "OLLAMA_HOST": f"0.0.0.0:{PORT}",
        "OLLAMA_MODELS": MODELS_FOLDER,
        "OLLAMA_NUM_PARALLEL": str(ollama.parallel or DEFAULT_PARALLEL),
        "OLLAMA_CONTEXT_LENGTH": str(ollama.context_length or DEFAULT_CONTEXT),
        "OLLAMA_KEEP_ALIVE": "-1",
        "OLLAMA_MAX_LOADED_MODELS": "1",
        "OLLAMA_NO_CLOUD": "1",  # nothing is asked of the outside but the registry
        "OMP_WAIT_POLICY": "passive",  # OpenMP's threads spin else: ten times slower where anything else wants a core
        "HOME": "/tmp",  # for the key pair that it makes at its start
    }
    return {
        "name": "ollama",
        "image": image,
        "imagePullPolicy": pull_policy,
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        # No limits of ours: what a model needs is known to whoever chose it.
        "resources": extra.get("resources", {"requests": {"cpu": "250m", "memory": "512Mi"}}),
        "securityContext": _confined(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "models", "mountPath": MODELS_FOLDER},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }


def _loader_container(owner: Owner, ollama: OllamaProvider, image: str, pull_policy: str) -> dict[str, Any]:
    """A native sidecar: it is there before Ollama and goes after it, and its readiness is the pod's.

    It must have no startup probe: Ollama is started only after that has passed, and the loader waits for Ollama.
    """
    arguments = [
        f"--model={ollama.model}",
        f"--port={LOADER_PORT}",
        f"--namespace={owner.namespace}",
        f"--channel={names.endpoint_channel(owner.name)}",
        "--pod=$(POD_NAME)",
    ]
    if ollama.pull is not None:
        arguments.append(f"--registry={ollama.pull.registry}")
        if ollama.pull.insecure:
            arguments.append("--insecure")
    return {
        "name": "loader",
        "image": image,
        "imagePullPolicy": pull_policy,
        "restartPolicy": "Always",
        "command": ["python", "-m", "dspy_operator.loader"],
        "args": arguments,
        "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "ports": [{"name": "readyz", "containerPort": LOADER_PORT, "protocol": "TCP"}],
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": "readyz"},
            "periodSeconds": 2,
            "timeoutSeconds": 2,
            "failureThreshold": 2,
        },
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "192Mi"}},
        "securityContext": _confined(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "account", "mountPath": names.ACCOUNT_FOLDER, "readOnly": True}],
    }


def _account() -> list[dict[str, Any]]:
    """What the kubelet would mount into every container."""
    return [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
    ]


def _confined() -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
