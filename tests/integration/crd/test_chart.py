"""The chart, installed by Helm on a real API server: what it may do, what it refuses, what it leaves."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dspy_operator.api.resources import RESOURCES
from e2e.cluster import binaries
from tests import yaml_text
from tests.controlplane.processes import ControlPlane, running

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "dspy-operator"
NAMESPACE = "prompts-system"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:dspy-operator"
OURS = [resource.plural for resource in RESOURCES if resource.namespaced]
"""Without quotas, which nobody can make yet."""


def helm(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [binaries.program("helm"), *words], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )


def rendered(*values: str) -> list[dict[str, Any]]:
    done = helm("template", "dspy-operator", str(CHART), "--kube-version=1.34.0", f"--namespace={NAMESPACE}", *values)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml_text.documents(done.stdout) if document]


def of_kind(documents: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [document for document in documents if document["kind"] == kind]


def test_helm_finds_nothing_to_complain_about() -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("values", "want"),
    [
        pytest.param(["--set=imag.tag=1"], "additional properties 'imag' not allowed", id="an unknown value"),
        pytest.param(["--set=workers=0"], "at '/workers': minimum: got 0, want 1", id="no worker"),
        pytest.param(["--set=image.repository="], "at '/image/repository': minLength", id="no image"),
        pytest.param(["--set=logLevel=loud"], "at '/logLevel': value must be one of", id="a level that there is not"),
        pytest.param(["--set-string=crds.install=no"], "at '/crds/install': got string, want boolean", id="a text"),
    ],
)
def test_a_wrong_value_is_refused_before_anything_is_installed(values: list[str], want: str) -> None:
    done = helm("template", "dspy-operator", str(CHART), "--kube-version=1.34.0", *values)
    assert done.returncode == 1
    assert want in done.stderr


def test_every_value_is_described_or_checked_by_the_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml_text.document((CHART / "values.yaml").read_text())
    assert values.keys() == schema["properties"].keys() - {"global"}
    for name, part in schema["properties"].items():
        if "properties" in part and isinstance(values.get(name), dict) and name != "resources":
            assert values[name].keys() == part["properties"].keys(), name


def test_definitions_can_be_left_to_somebody_else() -> None:
    assert len(of_kind(rendered(), "CustomResourceDefinition")) == len(RESOURCES)
    assert of_kind(rendered("--set=crds.install=false"), "CustomResourceDefinition") == []


def test_nothing_of_the_prometheus_operator_is_needed_unless_asked_for() -> None:
    assert of_kind(rendered(), "ServiceMonitor") == []
    (monitor,) = of_kind(rendered("--set=serviceMonitor.enabled=true"), "ServiceMonitor")
    (service,) = of_kind(rendered(), "Service")
    assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()


@pytest.mark.parametrize(
    ("tag", "want"),
    [
        pytest.param("", "dspy-operator/operator:0.1.0.dev0", id="the chart's own version"),
        pytest.param("1.2", "dspy-operator/operator:1.2", id="a tag"),
        pytest.param("sha256:00ff", "dspy-operator/operator@sha256:00ff", id="a digest"),
    ],
)
def test_an_image_is_named_by_tag_or_digest(tag: str, want: str) -> None:
    (deployment,) = of_kind(rendered(f"--set-string=image.tag={tag}"), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == want
    assert {"name": "DSPY_OPERATOR_IMAGE", "value": want} in container["env"]


def test_the_charts_version_is_that_of_the_package() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    app_version = yaml_text.document((CHART / "Chart.yaml").read_text())["appVersion"]
    assert f'\nversion = "{app_version}"\n' in project


def test_each_environment_variable_is_one_that_the_operator_reads() -> None:
    from dspy_operator.main import VARIABLES

    (deployment,) = of_kind(rendered(), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert {entry["name"] for entry in container["env"]} == {variable.name for variable in VARIABLES}


# On a real API server


@pytest.fixture(scope="module")
def installed() -> Iterator[ControlPlane]:
    """An API server on which `helm install` was all that was done, into a namespace that takes restricted pods only."""
    with running() as plane:
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        code, said = plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE, "labels": labels}})
        assert code == 201, said
        done = on(plane, "install")
        assert done.returncode == 0, done.stderr
        assert "kubectl get prompts" in done.stdout
        yield plane


def on(plane: ControlPlane, verb: str, *values: str) -> subprocess.CompletedProcess[str]:
    chart = [] if verb == "uninstall" else [str(CHART)]
    return helm(verb, "dspy-operator", *chart, f"--namespace={NAMESPACE}", f"--kubeconfig={plane.kubeconfig}", *values)


def wait_for(what: str, done: Any) -> None:
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def can(plane: ControlPlane, who: str, verb: str, what: str, namespace: str = "default") -> bool:
    """Whether somebody may; `what` is "secrets", "jobs.batch", "promptprograms.dspy-operator.io/status"."""
    name, _, subresource = what.partition("/")
    resource, _, group = name.partition(".")
    attributes = {
        "verb": verb,
        "group": group,
        "resource": resource,
        "subresource": subresource,
        "namespace": namespace,
    }
    # Whatever a ServiceAccount is given as one of all.
    groups = ["system:serviceaccounts", "system:authenticated"] if who == ACCOUNT else ["system:authenticated"]
    review = {"spec": {"user": who, "groups": groups, "resourceAttributes": attributes}}
    code, said = plane.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    assert code == 201, said
    return bool(said["status"]["allowed"])


def test_the_pod_is_taken_where_only_restricted_pods_are(installed: ControlPlane) -> None:
    """The Deployment's controller makes it; no node is there to run it."""
    wait_for("the pod", lambda: installed.request("GET", f"/api/v1/namespaces/{NAMESPACE}/pods")[1]["items"])
    events = installed.request("GET", f"/api/v1/namespaces/{NAMESPACE}/events")[1]["items"]
    assert [event["message"] for event in events if event["reason"] == "FailedCreate"] == []


def test_a_definition_is_kept_when_the_release_goes_and_taken_up_when_it_comes_back(installed: ControlPlane) -> None:
    run = "/apis/dspy-operator.io/v1alpha1/namespaces/default/optimizationruns"
    manifest = {
        "apiVersion": "dspy-operator.io/v1alpha1",
        "kind": "OptimizationRun",
        "metadata": {"name": "kept"},
        "spec": {"programRef": {"name": "triage"}, "optimizer": {"type": "Evaluate"}, "budget": {"calls": 9}},
    }
    assert installed.request("POST", run, manifest)[0] == 201
    assert on(installed, "uninstall").returncode == 0
    assert installed.request("GET", f"{run}/kept")[0] == 200
    again = on(installed, "install")
    assert again.returncode == 0, again.stderr
    upgraded = on(installed, "upgrade", "--set=logLevel=debug")
    assert upgraded.returncode == 0, upgraded.stderr
    assert installed.request("GET", f"{run}/kept")[1]["metadata"]["generation"] == 1


@pytest.mark.parametrize("verb", ["get", "list", "watch", "create", "update", "patch", "delete"])
def test_the_operator_has_no_secret(installed: ControlPlane, verb: str) -> None:
    assert not can(installed, ACCOUNT, verb, "secrets")
    assert not can(installed, ACCOUNT, verb, "secrets", NAMESPACE)


@pytest.mark.parametrize("kind", OURS)
def test_the_operator_writes_status_and_nothing_else_of_our_kinds(installed: ControlPlane, kind: str) -> None:
    may = {verb for verb in _VERBS if can(installed, ACCOUNT, verb, f"{kind}.dspy-operator.io")}
    assert may == {"get", "list", "watch"}
    assert can(installed, ACCOUNT, "update", f"{kind}.dspy-operator.io/status")
    assert not can(installed, ACCOUNT, "update", f"{kind}.dspy-operator.io/finalizers")


_VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")


def test_the_operator_may_do_this_and_no_more(installed: ControlPlane) -> None:
    """The whole list, so that a right is given on purpose."""
    rules = of_kind(rendered(), "ClusterRole")
    (own,) = [role for role in rules if role["metadata"]["name"] == "dspy-operator"]
    granted = {
        (group, resource): "".join(sorted(verb[0] for verb in rule["verbs"]))
        for rule in own["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    watched, kept = "glw", "cdglpuw"
    assert granted == {
        **{("dspy-operator.io", kind): watched for kind in OURS},
        **{("dspy-operator.io", f"{kind}/status"): "gpu" for kind in OURS},
        **{("", kind): kept for kind in ("configmaps", "services", "serviceaccounts", "persistentvolumeclaims")},
        ("batch", "jobs"): kept,
        ("apps", "deployments"): kept,
        ("rbac.authorization.k8s.io", "roles"): kept,
        ("rbac.authorization.k8s.io", "rolebindings"): kept,
        ("", "pods"): watched,
        ("", "events"): "cgp",
    }
    assert not can(installed, ACCOUNT, "create", "leases.coordination.k8s.io")
    assert can(installed, ACCOUNT, "create", "leases.coordination.k8s.io", NAMESPACE)


def test_the_operator_can_let_a_pod_patch_its_channel_and_can_let_nobody_do_more(installed: ControlPlane) -> None:
    """Kubernetes lets nobody grant what he has not."""

    def role(resource: str, verbs: list[str]) -> dict[str, Any]:
        rule = {"apiGroups": [""], "resources": [resource], "resourceNames": ["orun-fast-pod"], "verbs": verbs}
        return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "orun-fast-pod"}, "rules": [rule]}  # fmt: skip

    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "orun-fast-pod"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "orun-fast-pod"},
        "subjects": [{"kind": "ServiceAccount", "name": "orun-fast-pod", "namespace": "default"}],
    }
    as_operator = ["--server-side", f"--as={ACCOUNT}", "-f", "-"]
    for taken in (role("configmaps", ["get", "patch"]), binding):
        done = installed.kubectl("apply", *as_operator, stdin=json.dumps(taken))
        assert done.returncode == 0, done.stderr
    refused = installed.kubectl("apply", *as_operator, "--force-conflicts", stdin=json.dumps(role("secrets", ["get"])))
    assert "is attempting to grant RBAC permissions not currently held" in refused.stderr


@pytest.mark.parametrize(
    ("role", "want"),
    [
        pytest.param("view", {"get", "list", "watch"}, id="view"),
        pytest.param("edit", set(_VERBS), id="edit"),
        pytest.param("admin", set(_VERBS), id="admin"),
    ],
)
def test_the_stock_roles_know_our_kinds(installed: ControlPlane, role: str, want: set[str]) -> None:
    bound = installed.kubectl("create", "rolebinding", f"ann-{role}", f"--clusterrole={role}", f"--user=ann-{role}")
    assert bound.returncode == 0, bound.stderr

    def may(what: str) -> set[str]:
        return {verb for verb in _VERBS if can(installed, f"ann-{role}", verb, what)}

    wait_for("the controller that aggregates roles", lambda: can(installed, f"ann-{role}", "list", "promptprograms.dspy-operator.io"))  # fmt: skip
    assert {kind: may(f"{kind}.dspy-operator.io") for kind in OURS} == dict.fromkeys(OURS, want)
    assert can(installed, f"ann-{role}", "update", "modelendpoints.dspy-operator.io/scale") == (role != "view")
    assert not can(installed, f"ann-{role}", "update", "promptprograms.dspy-operator.io/status")
