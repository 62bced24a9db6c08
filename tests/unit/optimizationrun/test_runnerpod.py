"""The pod of a run: restricted, without any right but its channel, and with everything where the contract says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dspy_operator.api.dataset import Dataset
from dspy_operator.contract import names
from dspy_operator.contract.runspec import RunSpec
from dspy_operator.controllers import rowsources, runnerpod
from dspy_operator.controllers.runnerpod import DataMount, KeyRef, Mounts, Owner, Pod
from tests.unit.optimizationrun.builders import a_cluster, a_run_is, an_endpoint_is
from tests.unit.optimizationrun.cluster import NAMESPACE, Cluster

OWNER = Owner("OptimizationRun", NAMESPACE, "fast", "uid-1")


def pod_spec(**changes: Any) -> dict[str, Any]:
    pod = Pod(1, 2, "orun-fast-1-spec", "orun-fast-pod", changes.pop("mounts", Mounts(image="runner:1")), **changes)
    spec: dict[str, Any] = runnerpod.job(OWNER, "orun-fast-2", pod)["spec"]["template"]["spec"]
    return spec


def mounts_of(spec: dict[str, Any]) -> dict[str, str]:
    return {mount["name"]: mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]}


def volume(spec: dict[str, Any], name: str) -> dict[str, Any]:
    return next(
        {key: value for key, value in found.items() if key != "name"}
        for found in spec["volumes"]
        if found["name"] == name
    )


def test_the_pod_is_restricted() -> None:
    spec = pod_spec()
    (container,) = spec["containers"]
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/work", "/tmp"}


def test_the_pod_may_get_and_patch_its_channel_and_nothing_else() -> None:
    account, role, binding = runnerpod.access(OWNER, "orun-fast-pod")
    assert role["rules"] == [
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["orun-fast-pod"], "verbs": ["get", "patch"]}
    ]
    assert account["automountServiceAccountToken"] is False
    assert binding["roleRef"]["name"] == role["metadata"]["name"] == "orun-fast-pod"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "orun-fast-pod", "namespace": NAMESPACE}]
    assert pod_spec()["serviceAccountName"] == "orun-fast-pod"


def test_everything_is_where_the_contract_says() -> None:
    mounts = Mounts(
        data=(DataMount(file="data.jsonl", config_map="tickets"),),
        incumbent="triage-0badcafe",
        start="triage-0ddba115",
        keys={"task": KeyRef(name="openai", key="token")},
        image="runner:1",
    )
    spec = pod_spec(mounts=mounts, journal_claim="orun-fast-journal")
    assert mounts_of(spec) == {
        "spec": "/etc/dspy-operator",
        "data": "/data/0",
        "work": "/work",
        "tmp": "/tmp",
        "incumbent": "/incumbent",
        "start": "/start",
        "key-task": "/secrets/task",
    }
    assert volume(spec, "spec")["configMap"]["items"] == [{"key": "run.json", "path": "run.json"}]
    assert volume(spec, "data") == {
        "configMap": {"name": "tickets", "items": [{"key": "data.jsonl", "path": "data.jsonl"}], "optional": True}
    }
    assert mounts.data_path == "/data/0/data.jsonl"
    assert volume(spec, "work") == {"persistentVolumeClaim": {"claimName": "orun-fast-journal"}}
    assert volume(spec, "key-task") == {
        "secret": {"secretName": "openai", "items": [{"key": "token", "path": "api-key"}], "optional": True}
    }
    assert names.key_file("task") == "/secrets/task/api-key"


def test_rows_of_the_manifest_itself_lie_in_the_spec_config_map() -> None:
    spec = pod_spec()
    assert volume(spec, "data")["configMap"]["name"] == "orun-fast-1-spec"
    assert Mounts().data_path == "/data/0/inline.jsonl"
    assert volume(spec, "work") == {"emptyDir": {}}


def test_each_source_has_a_folder_of_its_own_and_a_volume_is_never_written_to() -> None:
    data = (
        DataMount(file="2026/train.csv.gz", claim="tickets"),
        DataMount(file="inline-1.csv"),
        DataMount(file="test.csv", config_map="held-out"),
    )
    spec = pod_spec(mounts=Mounts(data=data))
    mounted = {mount["name"]: mount for mount in spec["containers"][0]["volumeMounts"]}
    where = {name: (mounted[name]["mountPath"], mounted[name]["readOnly"]) for name in ("data", "data-1", "data-2")}
    assert where == {"data": ("/data/0", True), "data-1": ("/data/1", True), "data-2": ("/data/2", True)}
    assert volume(spec, "data") == {"persistentVolumeClaim": {"claimName": "tickets", "readOnly": True}}
    assert volume(spec, "data-1")["configMap"]["name"] == "orun-fast-1-spec"
    assert volume(spec, "data-2")["configMap"]["name"] == "held-out"
    assert Mounts(data=data).data_path == "/data/0/2026/train.csv.gz"


def test_what_an_earlier_operator_froze_is_still_understood() -> None:
    earlier = Mounts.model_validate_json('{"rows": {"name": "tickets", "key": "data.jsonl"}, "image": "runner:1"}')
    assert earlier == Mounts(data=(DataMount(file="data.jsonl", config_map="tickets"),), image="runner:1")
    assert Mounts.model_validate_json('{"image": "runner:1"}').data_path == "/data/0/inline.jsonl"


def test_the_environment_names_try_channel_and_image_and_the_image_says_how_it_is_run() -> None:
    (container,) = pod_spec()["containers"]
    assert {entry["name"]: entry["value"] for entry in container["env"]} == {
        "DSPY_OPERATOR_TRY": "2",
        "DSPY_OPERATOR_CHANNEL": "orun-fast-pod",
        "DSPY_OPERATOR_IMAGE": "runner:1",
    }
    assert not {"command", "args"} & container.keys()


def test_kubernetes_never_starts_a_try_again_by_itself() -> None:
    job = runnerpod.job(OWNER, "orun-fast-2", Pod(1, 2, "s", "c", Mounts()))
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    assert job["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] <= 10


def test_the_closed_list_of_pod_template_is_taken_and_our_labels_win() -> None:
    template = {
        "resources": {"limits": {"memory": "2Gi"}},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": [{"maxSkew": 1}],
        "runtimeClassName": "gvisor",
        "imagePullSecrets": [{"name": "registry"}],
        "labels": {"team": "a", names.LABEL_TRY: "99"},
        "annotations": {"note": "x"},
    }
    job = runnerpod.job(OWNER, "orun-fast-2", Pod(1, 2, "s", "c", Mounts(), template=template, priority_class="high"))
    pod = job["spec"]["template"]
    assert pod["metadata"]["labels"]["team"] == "a"
    assert pod["metadata"]["labels"][names.LABEL_TRY] == "2"
    assert pod["metadata"]["annotations"] == {"note": "x"}
    assert pod["spec"]["priorityClassName"] == "high"
    assert pod["spec"]["containers"][0]["resources"] == template["resources"]
    placed = {
        "nodeSelector",
        "tolerations",
        "affinity",
        "topologySpreadConstraints",
        "runtimeClassName",
        "imagePullSecrets",
    }
    assert {name: pod["spec"][name] for name in placed} == {name: template[name] for name in placed}
    assert "team" not in job["metadata"]["labels"]


@pytest.mark.parametrize("made", ["spec", "channel", "access", "journal", "job"])
def test_every_child_goes_with_its_owner_and_is_found_by_its_labels(made: str) -> None:
    cluster = a_cluster()
    a_run_is(cluster, {"journal": {"type": "PersistentVolumeClaim", "persistentVolumeClaim": {"size": "2Gi"}}})
    cluster.settle()
    found = [body for body in cluster.server.values() if _component(body) == made]
    assert found
    uid = cluster.server["OptimizationRun", NAMESPACE, "fast"]["metadata"]["uid"]
    for body in found:
        (reference,) = body["metadata"]["ownerReferences"]
        assert (reference["uid"], reference["controller"]) == (uid, True)
        assert "blockOwnerDeletion" not in reference
        assert body["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "dspy-operator"
    if made == "journal":
        assert found[0]["spec"]["resources"]["requests"]["storage"] == "2Gi"


def test_what_a_later_try_needs_is_frozen_beside_run_json() -> None:
    cluster = a_cluster()
    an_endpoint_is(cluster, changes={"provider.openai.apiKeySecret": {"name": "openai", "key": "token"}})
    a_run_is(cluster)
    cluster.settle()
    data = _spec(cluster)["data"]
    spec = RunSpec.model_validate_json(data["run.json"])
    mounts = Mounts.model_validate_json(data["mounts.json"])
    assert _spec(cluster)["immutable"] is True
    assert spec.dataset.path == mounts.data_path
    assert data["inline.jsonl"] == "{}"
    assert mounts.keys == {"task": KeyRef(name="openai", key="token")}
    assert spec.endpoints["task"].api_key_file == names.key_file("task")
    assert json.loads(data["mounts.json"])["image"] == "runner:1"


def _spec(cluster: Cluster) -> dict[str, Any]:
    return cluster.server["ConfigMap", NAMESPACE, "orun-fast-1-spec"]


def _component(body: dict[str, Any]) -> str:
    return str((body["metadata"].get("labels") or {}).get(names.LABEL_COMPONENT, ""))


def test_a_snapshot_of_a_url_is_of_the_rows_that_were_validated() -> None:
    """Other rows from the same URL lie elsewhere on the journal's volume; the same ones are found there again."""
    http = {"url": "https://data.example/rows.jsonl"}
    dataset = Dataset.model_validate({"source": {"type": "HTTP", "http": http}, "format": "JSONL"})
    mounts = rowsources.mounts_of(dataset)
    first, same, other = (
        rowsources.files_of(dataset, mounts, digest=digest)[""].path for digest in ("v1:a", "v1:a", "v1:b")
    )
    assert first == same != other
    assert first.startswith("/work/rows/") and first.endswith("/rows.jsonl")


@pytest.mark.parametrize(
    ("url", "want"),
    [
        ("https://a.example/x/rows.csv.gz?token=1", "rows.csv.gz"),
        ("https://a.example", "a.example"),
        ("https://a.example/x/%2e%2e/..", "rows"),
        ("https://a.example/a%2Fb", "a_2Fb"),
        ("https://a.example/x/", "x"),
    ],
)
def test_a_snapshot_is_named_as_the_url_ends(url: str, want: str) -> None:
    assert names.url_file(url) == want
