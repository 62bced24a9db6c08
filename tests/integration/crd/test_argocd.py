"""The health checks on their way into Argo CD's ConfigMap, by the words of docs/tasks/argo-cd.md."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

from dspy_operator.api.resources import RESOURCES
from e2e.cluster import binaries
from tests import yaml_text

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs/tasks/argo-cd.md"
THEIRS: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "argocd-cm", "labels": {"app.kubernetes.io/part-of": "argocd"}},
    "data": {"url": "https://argocd.example"},
}


def test_a_kustomization_of_argo_cd_gets_the_checks_beside_its_own_keys(tmp_path: Path) -> None:
    written = DOCS.read_text().partition("```yaml\n# kustomization.yaml\n")[2].partition("```")[0]
    kustomization = yaml_text.document(written)
    kustomization["components"] = [os.path.relpath(ROOT / "argocd", tmp_path)]
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    (tmp_path / "install.yaml").write_text(yaml.safe_dump(THEIRS))
    done = subprocess.run(
        [binaries.program("kubectl"), "kustomize", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (made,) = yaml_text.documents(done.stdout)
    assert made["metadata"] == {**THEIRS["metadata"], "namespace": "argocd"}
    checks = {
        f"resource.customizations.health.dspy-operator.io_{resource.kind}": (
            ROOT / f"argocd/resource_customizations/dspy-operator.io/{resource.kind}/health.lua"
        ).read_text()
        for resource in RESOURCES
    }
    assert made["data"] == {**THEIRS["data"], **checks}
