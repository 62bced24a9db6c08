"""The operator from its chart, with the images of this tree."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from e2e.cluster import binaries, paths
from e2e.cluster.command import Failed, output_of
from e2e.cluster.wheelhouse import ROOT
from e2e.demo.apiserver import ApiServer
from e2e.demo.supply import Supply
from e2e.demo.waiting import until

CHART = ROOT / "charts" / "dspy-operator"
NAME = NAMESPACE = "dspy-operator"
_ROLLOUT_SECONDS = 180


def install(api: ApiServer, supply: Supply, tell: Callable[[str], None]) -> None:
    """`helm upgrade --install`, then the operator answers."""
    values = [word for name, value in _flat(supply.chart_values()) for word in ("--set-string", f"{name}={value}")]
    words = ["upgrade", "--install", NAME, _short(CHART), "--namespace", NAMESPACE, "--create-namespace", *values]
    tell(f"$ helm {' '.join(words)}")
    output_of([*_helm(), *words], timeout_seconds=120)

    def answers() -> bool:
        deployment = api.find(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{NAME}")
        if deployment is None:
            raise Failed(f"there is no Deployment {NAME} in namespace {NAMESPACE}: helm has installed something else")
        status = deployment.get("status", {})
        return (
            status.get("observedGeneration") == deployment["metadata"]["generation"]
            and status.get("updatedReplicas", 0) >= 1
            and status.get("availableReplicas", 0) >= 1
            and not status.get("unavailableReplicas")
        )

    until("the operator's pod is ready", answers, seconds=_ROLLOUT_SECONDS, why_not=lambda: _pods(api))


def uninstall() -> str:
    """What helm said."""
    return output_of([*_helm(), "uninstall", NAME, "--namespace", NAMESPACE, "--ignore-not-found", "--wait"]).strip()


def _helm() -> list[str]:
    return [str(binaries.program("helm")), f"--kubeconfig={paths.kubeconfig()}"]


def _flat(values: dict[str, object], prefix: str = "") -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for name, value in values.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
    return found


def _short(path: Path) -> str:
    return os.path.relpath(path)


def _pods(api: ApiServer) -> str:
    pods = api.items(f"/api/v1/namespaces/{NAMESPACE}/pods")
    return json.dumps([{"name": pod["metadata"]["name"], "status": pod.get("status")} for pod in pods])[:3000]
