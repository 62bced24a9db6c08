"""Rows on a volume and behind a URL, with the operator's own rights on a real API server, in a namespace with restricted pods."""

from __future__ import annotations

from typing import Any

from tests.integration.operator.manifests import a_dataset, a_program, an_endpoint
from tests.integration.operator.namespace import Namespace

ON_A_VOLUME = {"type": "PersistentVolumeClaim", "persistentVolumeClaim": {"claimName": "tickets", "path": "a.csv.gz"}}
OVER_HTTP = {"type": "HTTP", "http": {"url": "https://data.example/test.csv", "headersSecret": {"name": "token"}}}


def a_claim(name: str) -> dict[str, Any]:
    spec = {"accessModes": ["ReadOnlyMany"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def test_a_volume_is_waited_for_and_mounted_beside_the_other_sources(namespace: Namespace) -> None:
    sources = {
        "validation": {"type": "ConfigMap", "configMap": {"name": "held-out", "key": "v.csv"}},
        "test": OVER_HTTP,
    }
    program = a_program(
        dataset__source=ON_A_VOLUME, dataset__format="CSV", dataset__split={"type": "Sources", "sources": sources}
    )
    namespace.apply(an_endpoint(), a_dataset("held-out", "text,category\n", key="v.csv"), program)
    told = namespace.condition("PromptProgram", "triage", "Accepted", "False", "DatasetNotFound")
    assert told["message"].startswith(
        "spec.dataset.source.persistentVolumeClaim.claimName: PersistentVolumeClaim "
        f"{namespace.name}/tickets does not exist"
    )
    namespace.apply(a_claim("tickets"))
    namespace.condition("PromptProgram", "triage", "Accepted", "Unknown", "Validating")
    job = namespace.wait("Job", "pp-triage-1", lambda body: True, "there")
    pod = job["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounted = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    assert volumes["data"]["persistentVolumeClaim"] == {"claimName": "tickets", "readOnly": True}
    assert volumes["data-1"]["configMap"]["name"] == "held-out"
    assert volumes["headers-2"]["secret"]["secretName"] == "token"
    where = {name: (mounted[name]["mountPath"], mounted[name]["readOnly"]) for name in ("data", "data-1", "headers-2")}
    assert where == {
        "data": ("/data/0", True),
        "data-1": ("/data/1", True),
        "headers-2": ("/secrets/data-2", True),
    }
    namespace.until(lambda: bool(namespace.all("Pod")), "a pod that restricted admission takes")
