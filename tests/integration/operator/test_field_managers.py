"""Git, people, autoscalers and the operator write one object: who collides with whom, and that nobody sees a difference to Git."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from tests.controlplane.processes import ControlPlane
from tests.integration.operator.conftest import Spaces
from tests.integration.operator.manifests import API, a_dataset, a_program, a_run, an_endpoint, an_ollama_endpoint
from tests.integration.operator.namespace import Namespace

Body = dict[str, Any]
_PLURALS = {"OptimizationRun": "optimizationruns", "PromptProgram": "promptprograms", "ModelEndpoint": "modelendpoints"}
_count = itertools.count(1)


@dataclass(frozen=True)
class Case:
    """What one manager has, what another one applies besides, and at which fields they collide."""

    sentence: str
    first: Body
    second: Body
    """Of `spec`, or with `metadata` for the whole object."""
    collide_at: tuple[str, ...] = ()


TEMPLATE = {
    "nodeSelector": {"disk": "fast"},
    "resources": {"limits": {"memory": "1Gi"}},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
}
RUN, PROGRAM, ENDPOINT = a_run(podTemplate=TEMPLATE), a_program(), an_endpoint(limits={"concurrency": 4})
TICKET = {"name": "ticket", "type": "str"}

CASES = [
    Case("different fields of a run", RUN, {"suspend": True}),
    Case("different limits of a budget", RUN, {"budget": {"tokens": 10_000}}),
    Case("the same limit of a budget", RUN, {"budget": {"calls": 2000}}, (".spec.budget.calls",)),
    Case("the same limit with the same value", RUN, {"budget": {"calls": 1000}}),
    Case("the type of a union", RUN, {"optimizer": {"type": "Evaluate"}}, (".spec.optimizer.type",)),
    Case("the options of a union's type", RUN, {"optimizer": {"bootstrapFewShot": {"maxRounds": 2}}}),
    Case(
        "an endpoint for another role",
        a_run(endpoints={"task": {"name": "qwen"}}),
        {"endpoints": {"prompt": {"name": "big"}}},
    ),
    Case("another key of a map", RUN, {"podTemplate": {"nodeSelector": {"zone": "a"}}}),
    Case(
        "the same key of a map",
        RUN,
        {"podTemplate": {"nodeSelector": {"disk": "slow"}}},
        (".spec.podTemplate.nodeSelector.disk",),
    ),
    Case("another resource of the pod", RUN, {"podTemplate": {"resources": {"limits": {"cpu": "2"}}}}),
    Case(
        "a list, which is one value",
        RUN,
        {"podTemplate": {"tolerations": [{"key": "spot", "operator": "Exists"}]}},
        (".spec.podTemplate.tolerations",),
    ),
    Case("another column", PROGRAM, {"dataset": {"fields": {"note": "remark"}}}),
    Case("the same column", PROGRAM, {"dataset": {"fields": {"label": "kind"}}}, (".spec.dataset.fields.label",)),
    Case(
        "a list whose order reaches a prompt",
        PROGRAM,
        {"program": {"single": {"signature": {"inputs": [TICKET, {"name": "note", "type": "str"}]}}}},
        (".spec.program.single.signature.inputs",),
    ),
    Case("such a list with the same items", PROGRAM, {"program": {"single": {"signature": {"inputs": [TICKET]}}}}),
    Case("a pin of the served revision", PROGRAM, {"revision": {"name": "triage-1f2e3d4c"}}),
    Case("prices and limits of an endpoint", ENDPOINT, {"pricing": {"currency": "USD", "input": "1", "output": "2"}}),
    Case("the same limit of an endpoint", ENDPOINT, {"limits": {"concurrency": 8}}, (".spec.limits.concurrency",)),
    Case("the number of pods, which is not written", an_ollama_endpoint(), {"replicas": 2}),
    Case("the number of pods, which is written", an_ollama_endpoint(replicas=1), {"replicas": 2}, (".spec.replicas",)),
    Case("labels and annotations", RUN, {"metadata": {"labels": {"team": "a"}, "annotations": {"why": "try"}}}),
]


@pytest.fixture(scope="module")
def shared(spaces: Spaces) -> Namespace:
    """For objects that live for a moment."""
    return spaces.new("shared")


@pytest.mark.parametrize("case", [pytest.param(case, id=case.sentence) for case in CASES])
def test_two_managers_collide_only_where_both_mean_the_same_field(shared: Namespace, case: Case) -> None:
    name = f"shared-{next(_count)}"
    kind = case.first["kind"]
    body = {**case.first, "metadata": {"name": name}}
    assert applied(shared.plane, shared.name, body, "git")[0] == 201
    try:
        metadata = {"name": name, **case.second.get("metadata", {})}
        more = {} if "metadata" in case.second else {"spec": case.second}
        other = {"apiVersion": API, "kind": kind, "metadata": metadata, **more}
        code, said = applied(shared.plane, shared.name, other, "person")
        causes = said.get("details", {}).get("causes", []) if code == 409 else []
        assert (code, tuple(cause["field"] for cause in causes)) == (
            409 if case.collide_at else 200,
            case.collide_at,
        ), said
        if code == 200:  # neither takes from the other what is not his
            assert applied(shared.plane, shared.name, body, "git")[0] == 200
    finally:
        shared.remove(kind, name)


def test_the_operator_owns_the_status_and_nothing_else(namespace: Namespace) -> None:
    """So that whoever owns the spec never collides with it."""
    written = [an_endpoint(), a_dataset(), a_program(), a_run()]
    namespace.apply(*written)
    namespace.condition("OptimizationRun", "fast", "Complete", "True")
    for body in (each for each in written if each["kind"] in _PLURALS):
        kind, name = body["kind"], body["metadata"]["name"]
        managers = namespace.get(kind, name)["metadata"]["managedFields"]
        ours = [entry for entry in managers if entry["manager"] == "dspy-operator"]
        assert [(entry["subresource"], set(entry["fieldsV1"])) for entry in ours] == [("status", {"f:status"})]
        assert {entry["manager"] for entry in managers} == {"dspy-operator", "person"}
        assert applied(namespace.plane, namespace.name, body, "person")[0] == 200
    edited = a_run(budget={"calls": 2000}, retries=1)
    assert applied(namespace.plane, namespace.name, edited, "person")[0] == 200


@pytest.mark.parametrize("how", [pytest.param([], id="client side"), pytest.param(["--server-side"], id="server side")])
def test_there_is_no_difference_to_git_when_the_operator_has_written(namespace: Namespace, how: list[str]) -> None:
    manifests = yaml.safe_dump_all([an_endpoint(), an_ollama_endpoint("local"), a_dataset(), a_program(), a_run()])
    here = f"--namespace={namespace.name}"
    made = namespace.plane.kubectl("apply", here, *how, "-f", "-", stdin=manifests)
    assert made.returncode == 0, made.stderr
    namespace.condition("OptimizationRun", "fast", "Complete", "True")
    namespace.condition("ModelEndpoint", "local", "Ready", "True")

    def diff(written: str) -> tuple[int, str, str]:
        done = namespace.plane.kubectl("diff", here, *how, "-f", "-", stdin=written)
        return done.returncode, done.stdout, done.stderr

    # kubectl asks twice, and shows what is written in between: the last words of a status.
    namespace.until(lambda: diff(manifests) == (0, "", ""), "as Git says")
    edited = manifests.replace("calls: 1000", "calls: 1001")
    code, shown, _ = diff(edited)
    changed = [line for line in shown.splitlines() if line.startswith(("+  ", "-  "))]
    assert (code, [line for line in changed if "generation:" not in line]) == (
        1,
        ["-    calls: 1000", "+    calls: 1001"],
    )


def test_an_autoscaler_and_git_share_an_endpoint(namespace: Namespace) -> None:
    """Git leaves `replicas` out, an autoscaler writes it, and no apply takes it back."""
    unscaled, scaled = an_ollama_endpoint(), an_ollama_endpoint(replicas=1)
    for how in ([], ["--server-side"]):
        assert apply(namespace, unscaled, *how) == ""
        scale(namespace, 2)
        assert apply(namespace, unscaled, *how) == ""
        assert namespace.get("ModelEndpoint", "qwen")["spec"]["replicas"] == 2
    namespace.wait("ModelEndpoint", "qwen", lambda body: body["status"].get("readyReplicas") == 2, "at 2 pods")

    refused = apply(namespace, scaled, "--server-side")
    assert 'conflict with "kubectl" with subresource "scale" using dspy-operator.io/v1alpha1: .spec.replicas' in refused
    assert namespace.get("ModelEndpoint", "qwen")["spec"]["replicas"] == 2


def test_git_takes_the_number_of_pods_back_where_nobody_had_written_it_before_it_was_scaled(
    namespace: Namespace,
) -> None:
    """Why the description of `replicas` says to leave it out: the API server begins to keep owners of a custom resource's
    scale only where `replicas` had one before, so that here nothing collides."""
    assert apply(namespace, an_ollama_endpoint(), "--server-side") == ""
    scale(namespace, 2)
    assert apply(namespace, an_ollama_endpoint(replicas=1), "--server-side") == ""
    assert namespace.get("ModelEndpoint", "qwen")["spec"]["replicas"] == 1


def apply(space: Namespace, body: Body, *how: str) -> str:
    """What kubectl refuses with; empty where it does not."""
    done = space.plane.kubectl("apply", f"--namespace={space.name}", *how, "-f", "-", stdin=yaml.safe_dump(body))
    return done.stderr if done.returncode else ""


def scale(space: Namespace, replicas: int) -> None:
    done = space.plane.kubectl("scale", "mep/qwen", f"--namespace={space.name}", f"--replicas={replicas}")
    assert done.returncode == 0, done.stderr


def applied(plane: ControlPlane, namespace: str, body: Body, manager: str) -> tuple[int, Any]:
    """Server-side apply without force."""
    path = f"{_path(namespace, body['kind'], body['metadata']['name'])}?fieldManager={manager}"
    return plane.request("PATCH", path, body, kind="apply-patch+yaml")


def _path(namespace: str, kind: str, name: str = "") -> str:
    if kind == "ConfigMap":
        return f"/api/v1/namespaces/{namespace}/configmaps/{name}".rstrip("/")
    return f"/apis/dspy-operator.io/v1alpha1/namespaces/{namespace}/{_PLURALS[kind]}/{name}".rstrip("/")
