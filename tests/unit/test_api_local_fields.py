"""The same manifests in a cluster and without one: what only a cluster needs is taken by local mode, and changes nothing that is computed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dspy_operator.api.fields import FieldClass
from dspy_operator.api.optimizationrun import OptimizationRunSpec
from dspy_operator.api.unsupported import NOT_YET
from dspy_operator.contract.resolve import Surroundings, resolve
from dspy_operator.contract.runspec import Paths
from tests.unit.written import a_run, complaints, endpoint, program, run

POD: dict[str, Any] = {
    "resources": {"requests": {"cpu": "500m"}, "limits": {"memory": "1Gi", "nvidia.com/gpu": 1}},
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
    "runtimeClassName": "gvisor",
    "imagePullSecrets": [{"name": "registry"}],
    "labels": {"kueue.x-k8s.io/queue-name": "research"},
    "annotations": {"example.com/note": "any text"},
}
RUN: dict[str, Any] = {
    "suspend": False,
    "stop": "Finish",
    "rerun": "2",
    "readyWhen": "Finished",
    "priorityClassName": "batch-high",
    "deadlines": {"pending": "24h", "progress": "15m"},
    "retries": 6,
    "reuse": "Never",
    "cleanup": {"succeeded": "24h", "failed": "168h"},
    "journal": {"type": "PersistentVolumeClaim", "persistentVolumeClaim": {"size": "1Gi", "storageClassName": "fast"}},
    "answersFrom": {"runs": ["first"]},
    "podTemplate": POD,
}
PROGRAM: dict[str, Any] = {
    "concurrencyPolicy": "Allow",
    "revision": {"name": "triage-1f2e3d4c"},
    "revisionHistoryLimit": 3,
    "deletionPolicy": "Delete",
}
ENDPOINT: dict[str, Any] = {
    "access": {"namespaces": {"from": "All"}},
    "replicas": 2,
}


def resolved(
    run_changes: dict[str, Any], program_changes: dict[str, Any], endpoint_changes: dict[str, Any]
) -> dict[str, Any]:
    around = Surroundings(
        "/data",
        Paths(journal="j", out="o", control="c"),
        dataset_digest="sha256:0",
        urls={"default/qwen": "http://models.example/v1"},
    )
    made = resolve(run(run_changes), program(program_changes), {"default/qwen": endpoint(endpoint_changes)}, around)
    return made.document()


def test_what_only_a_cluster_needs_changes_nothing_that_is_computed() -> None:
    assert resolved(RUN, PROGRAM, ENDPOINT) == resolved({}, {}, {})
    pods = {"provider": {"type": "Ollama", "ollama": {"model": "qwen2.5-coder:0.5b"}}}
    scaling = {"minReplicas": 0, "maxReplicas": 3, "scaleDownDelay": "5m"}
    assert resolved({}, {}, {**pods, "scaling": scaling}) == resolved({}, {}, pods)


def test_every_field_of_a_run_that_decides_nothing_is_among_them() -> None:
    deciding = {"budget", "concurrency", "pacing"}  # live: they reach the pod through control.json
    others = {
        field.alias
        for field in OptimizationRunSpec.model_fields.values()
        if isinstance(field.json_schema_extra, dict)
        and field.json_schema_extra["x-field-class"] not in (FieldClass.INPUT, FieldClass.IMMUTABLE)
    }
    refused = {entry.field for entry in NOT_YET if entry.model == "OptimizationRunSpec" and not entry.values}
    assert others - deciding - refused == RUN.keys()


def test_a_pod_template_stays_as_it_was_written() -> None:
    """Its parts are plain mappings: what goes into a pod's manifest."""
    template = run({"podTemplate": POD}).spec.pod_template
    assert template is not None
    assert template.document() == POD
    assert template.resources == POD["resources"]
    assert template.tolerations == POD["tolerations"]


@pytest.mark.parametrize(
    ("amount", "good"),
    [
        (0, True),
        (2**63 - 1, True),
        (2**63, False),
        (-1, False),
        (True, False),
        (1.5, False),
        ("1.5", True),
        ("1,5", False),
    ],
)
def test_an_amount_is_a_quantity_or_a_whole_number_of_64_bits(amount: object, good: bool) -> None:
    """A larger number is no integer to the API server (found by the fuzzer)."""
    said = complaints(a_run({"podTemplate": {"resources": {"limits": {"nvidia.com/gpu": amount}}}}))
    want = 'spec.podTemplate.resources.limits.nvidia.com/gpu: must be a quantity, for example "500m", "1Gi" or 2'
    assert said == ([] if good else [f"{want}, found {str(amount).lower() if amount is True else json.dumps(amount)}"])
