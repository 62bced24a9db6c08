"""The examples as the demo applies them: a kustomization that names them and changes what this cluster needs otherwise. Pure."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from e2e.cluster.wheelhouse import ROOT
from e2e.demo.supply import QWEN, Supply

EXAMPLES = ROOT / "examples"
APPLIED = ("sentiment", "sentiment-constrained", "app")
SCALE_DOWN_SECONDS = 30
"""Short enough to be waited for. The two runs follow each other at once, so that the model stays up between them."""


def kustomization(folder: Path, supply: Supply, *, namespace: str, model: str, seed: int = 0) -> dict[str, Any]:
    """What a folder's kustomization.yaml holds.

    Args:
        folder: where it will be; kustomize takes no absolute paths.
    """
    made: dict[str, Any] = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": namespace,
        "resources": [os.path.relpath(EXAMPLES / example, folder) for example in APPLIED],
        "patches": [_patch("ModelEndpoint", "qwen", _endpoint(supply, model))],
    }
    if seed:
        made["patches"].append(
            _patch("OptimizationRun", "sentiment-bootstrap", [{"op": "replace", "path": "/spec/seed", "value": seed}])
        )
    if model != QWEN:
        made["patches"].append(_patch("Deployment", "app", _asks_for(model)))
    if supply.app_image:
        repository, _, tag = supply.app_image.rpartition(":")
        made["images"] = [{"name": "python", "newName": repository, "newTag": tag}]
    return made


def write(folder: Path, made: dict[str, Any]) -> None:
    """For `kubectl apply -k`. JSON is YAML."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kustomization.yaml").write_text(json.dumps(made, indent=2) + "\n")


def _endpoint(supply: Supply, model: str) -> list[dict[str, Any]]:
    """At zero replicas until a run needs the model."""
    scaling = {"minReplicas": 0, "maxReplicas": 1, "scaleDownDelay": f"{SCALE_DOWN_SECONDS}s"}
    changes: list[dict[str, Any]] = [{"op": "add", "path": "/spec/scaling", "value": scaling}]
    if model != QWEN:
        changes.append({"op": "replace", "path": "/spec/provider/ollama/model", "value": model})
    if supply.pull:
        changes.append({"op": "add", "path": "/spec/provider/ollama/pull", "value": supply.pull})
    return changes


def _asks_for(model: str) -> dict[str, Any]:
    container = {"name": "app", "env": [{"name": "MODEL", "value": model}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "app"},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }


def _patch(kind: str, name: str, patch: object) -> dict[str, Any]:
    return {"target": {"kind": kind, "name": name}, "patch": json.dumps(patch)}
