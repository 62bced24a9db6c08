"""The pods of the proof: an unprivileged Python on Debian, from a fixture image that every cluster has."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from .. import kubectl
from ..fixtures.images import REGISTRY

NAMESPACE = "cluster-proof"
RESTRICTED = "cluster-proof-restricted"
IMAGE = REGISTRY.name
NONROOT = 65532


def pod_spec(
    script: str, *, image: str = IMAGE, memory: str = "64Mi", claim: str | None = None, restart: str = "Never"
) -> dict[str, Any]:
    """A shell script as user 65532, allowed by the restricted Pod Security level; a claim's volume is at /data."""
    container: dict[str, Any] = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", script],
        "resources": {"limits": {"memory": memory}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec: dict[str, Any] = {
        "restartPolicy": restart,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsNonRoot": True, "runAsUser": NONROOT, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    if claim:
        container["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
        spec["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]
    return spec


def make(kind: str, name: str, spec: dict[str, Any], *, version: str = "v1", namespace: str = NAMESPACE) -> None:
    kubectl.apply(
        {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec}
    )


def in_namespace(*words: str) -> str:
    return kubectl.kubectl("-n", NAMESPACE, *words)


def output_of_pod(name: str, spec: dict[str, Any]) -> str:
    """Runs a pod to its end, and gives what it wrote."""
    make("Pod", name, spec)
    in_namespace("wait", f"pod/{name}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    return in_namespace("logs", name)


def eventually(what: str, done: Callable[[], bool], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.2)
