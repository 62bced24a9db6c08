"""Our kinds as people meet them: kubectl apply, explain, get, scale, wait; and GitOps, which applies again and again."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dspy_operator.api.resources import RESOURCES
from tests.controlplane.processes import ControlPlane

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted({path.parent for path in (ROOT / "examples").rglob("*.yaml")} - {ROOT / "examples" / "app"})
"""All but the application, which has nothing of ours: the demo applies it."""
KINDS = [resource.kind for resource in RESOURCES]

_numbers = itertools.count(1)


@pytest.fixture
def namespace(cluster: ControlPlane) -> str:
    name = f"people-{next(_numbers)}"
    assert cluster.kubectl("create", "namespace", name).returncode == 0
    return name


def told(cluster: ControlPlane, *words: str, stdin: str | None = None) -> str:
    done = cluster.kubectl(*words, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(cluster: ControlPlane, *words: str, stdin: str | None = None) -> str:
    done = cluster.kubectl(*words, stdin=stdin)
    assert done.returncode == 1, done.stdout
    return done.stderr


def source(folder: Path) -> list[str]:
    return ["-k" if (folder / "kustomization.yaml").exists() else "-f", str(folder)]


@pytest.mark.parametrize("how", [pytest.param([], id="client-side"), pytest.param(["--server-side"], id="server-side")])
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda folder: folder.name)
def test_an_example_applied_twice_is_changed_once(
    cluster: ControlPlane, namespace: str, example: Path, how: list[str]
) -> None:
    apply = ["apply", "-n", namespace, *how, *source(example)]
    told(cluster, *apply)
    first = versions(cluster, namespace)
    assert first
    again = told(cluster, *apply)
    if not how:
        assert {line.rsplit(" ", 1)[-1] for line in again.splitlines()} == {"unchanged"}
    assert versions(cluster, namespace) == first
    # What Argo CD and Flux ask: is there a difference to Git?
    assert told(cluster, "diff", "-n", namespace, *how, *source(example)) == ""


def versions(cluster: ControlPlane, namespace: str) -> dict[str, tuple[int, str]]:
    """Generation and version of each object of ours."""
    found = json.loads(told(cluster, "get", "prompts", "-n", namespace, "-o", "json"))["items"]
    return {
        f"{one['kind']}/{one['metadata']['name']}": (one["metadata"]["generation"], one["metadata"]["resourceVersion"])
        for one in found
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_explained(cluster: ControlPlane, kind: str) -> None:
    """In the schema that the API server publishes, which is what `kubectl explain` reads."""
    code, published = cluster.request("GET", "/openapi/v3/apis/dspy-operator.io/v1alpha1")
    assert code == 200
    schema = published["components"]["schemas"][f"io.dspy-operator.v1alpha1.{kind}"]
    fields = list(fields_of(schema, kind.lower()))
    assert len(fields) > (40 if kind == "OptimizationQuota" else 60)
    assert [path for path, field in fields if not field.get("description")] == []
    shown = told(cluster, "explain", f"{kind.lower()}.spec", "--recursive")
    names = {path.rsplit(".", 1)[-1] for path, _ in fields if path.startswith(f"{kind.lower()}.spec.")}
    assert {name for name in names if name not in shown} == set()
    assert "<no description>" not in told(cluster, "explain", kind.lower())


def fields_of(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(path, schema) of everything that has a name; `metadata` is Kubernetes' own."""
    for name, field in schema.get("properties", {}).items():
        if name == "metadata" and path.count(".") == 0:
            continue
        yield f"{path}.{name}", field
        yield from fields_of(field, f"{path}.{name}")
    for inner in ("items", "additionalProperties"):
        if isinstance(schema.get(inner), dict):
            yield from fields_of(schema[inner], path)


def test_an_unknown_field_is_refused_by_kubectls_default(cluster: ControlPlane, namespace: str) -> None:
    written = (ROOT / "examples/sentiment/run.yaml").read_text().replace("concurrency:", "concurency:")
    said = refused(cluster, "apply", "-n", namespace, "-f", "-", stdin=written)
    assert 'strict decoding error: unknown field "spec.concurency"' in said
    assert versions(cluster, namespace) == {}


def test_all_kinds_are_got_together_and_by_short_name(cluster: ControlPlane, namespace: str) -> None:
    told(cluster, "apply", "-n", namespace, *source(ROOT / "examples/sentiment"))
    assert set(versions(cluster, namespace)) == {
        "ModelEndpoint/qwen",
        "OptimizationRun/sentiment-bootstrap",
        "PromptProgram/sentiment",
    }
    for resource in (each for each in RESOURCES if each.namespaced):
        by_short = told(cluster, "get", resource.short, "-n", namespace)
        heads = [column.name.upper() for column in resource.columns if not column.wide]
        assert by_short.splitlines()[0].split() == ["NAME", *heads]


def test_columns_find_conditions_by_type(cluster: ControlPlane, namespace: str) -> None:
    told(cluster, "apply", "-n", namespace, *source(ROOT / "examples/sentiment"))
    since = "2026-11-23T20:00:00Z"
    conditions = [
        {"type": type_, "status": status, "reason": reason, "message": "", "lastTransitionTime": since}
        for type_, status, reason in (("Accepted", "True", "Accepted"), ("Ready", "False", "Pulling"))
    ]
    status = {"conditions": conditions, "pull": {"percent": 41}, "readyReplicas": 0, "activeRuns": 2}
    patched = told(
        cluster, "patch", "mep", "qwen", "-n", namespace, "--subresource=status", "--type=merge", "-p",
        json.dumps({"status": status}), "-o", "json",
    )  # fmt: skip
    assert json.loads(patched)["status"] == status
    (_, row) = told(cluster, "get", "mep", "-n", namespace).splitlines()
    assert row.split()[:8] == ["qwen", "Ollama", "qwen2.5-coder:0.5b", "False", "Pulling", "41", "0", "2"]
    told(cluster, "wait", "mep/qwen", "-n", namespace, "--for=condition=Accepted", "--timeout=5s")


def test_an_endpoint_is_scaled_as_a_deployment_is(cluster: ControlPlane, namespace: str) -> None:
    told(cluster, "apply", "-n", namespace, "-f", str(ROOT / "examples/sentiment/endpoint.yaml"))
    told(cluster, "scale", "mep/qwen", "-n", namespace, "--replicas=3", "--current-replicas=1")
    told(cluster, "patch", "mep", "qwen", "-n", namespace, "--subresource=status", "--type=merge", "-p",
         '{"status": {"replicas": 2, "selector": "app=qwen"}}')  # fmt: skip
    path = f"/apis/dspy-operator.io/v1alpha1/namespaces/{namespace}/modelendpoints/qwen/scale"
    code, scale = cluster.request("GET", path)
    assert (code, scale["spec"], scale["status"]) == (200, {"replicas": 3}, {"replicas": 2, "selector": "app=qwen"})
    said = refused(cluster, "scale", "mep/qwen", "-n", namespace, "--replicas=65")
    assert "spec.replicas in body should be less than or equal to 64" in said


def test_a_status_is_kept_from_the_spec(cluster: ControlPlane, namespace: str) -> None:
    """An apply that holds a status does not touch it, and a status write does not touch the generation."""
    path = f"/apis/dspy-operator.io/v1alpha1/namespaces/{namespace}/optimizationruns"
    run = {
        "apiVersion": "dspy-operator.io/v1alpha1",
        "kind": "OptimizationRun",
        "metadata": {"name": "fast"},
        "spec": {"programRef": {"name": "triage"}, "optimizer": {"type": "Evaluate"}, "budget": {"calls": 9}},
        "status": {"attempt": 7},
    }
    code, made = cluster.request("POST", path, run)
    assert (code, "status" in made) == (201, False)
    code, after = cluster.request("PATCH", f"{path}/fast/status", {"status": {"attempt": 1}}, kind="merge-patch+json")
    assert (code, after["status"], after["metadata"]["generation"]) == (200, {"attempt": 1}, 1)
