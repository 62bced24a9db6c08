"""Objects that are deleted, made again, or were there before: what stays, what goes, and what is left alone."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.operator.manifests import a_dataset, a_program, a_run, an_endpoint, rows
from tests.integration.operator.namespace import Namespace, condition_of
from tests.simulator import Play, Step

RUN, PROGRAM = "OptimizationRun", "PromptProgram"
COLLECTED_SECONDS = 90
"""The garbage collector looks for new kinds every 30 s, and ours may be that new here."""
CHILDREN = ("Job", "Pod", "ConfigMap", "Role", "RoleBinding", "ServiceAccount")


@pytest.fixture
def ready(namespace: Namespace) -> Namespace:
    """A namespace with a program that is ready."""
    namespace.apply(an_endpoint(), a_dataset(), a_program())
    namespace.condition(PROGRAM, "triage", "Ready", "True")
    return namespace


def test_a_deleted_run_leaves_only_what_it_spent(ready: Namespace) -> None:
    ready.simulator.run_plays(ready.name, "fast", Play(waits_at=Step.JUDGE))
    ready.apply(a_run())
    ready.phase("fast", "Running", "Judging")
    ready.remove(RUN, "fast")
    ready.until(
        lambda: not any(ready.all(kind, "dspy-operator.io/kind=OptimizationRun") for kind in CHILDREN),
        "without its children",
        seconds=COLLECTED_SECONDS,
    )
    entry = ready.account()["fast"]
    # What its pod spent was not told any more, so that all that was reserved for it counts as spent.
    assert (entry["tries"], entry["reserved"]["calls"]) == (1, 1000)
    assert ready.simulator.tries(ready.name, "fast") == [1]


def test_a_run_of_the_same_name_knows_what_was_spent(ready: Namespace) -> None:
    ready.apply(a_run())
    ready.condition(RUN, "fast", "Complete", "True", "Completed")
    ready.remove(RUN, "fast")
    ready.wait_gone(RUN, "fast")
    ready.apply(a_run(seed=5, journal={"type": "PersistentVolumeClaim"}))
    ready.condition(RUN, "fast", "Complete", "True", "Completed")
    assert ready.account()["fast"]["used"]["calls"] > 160
    assert ready.simulator.tries(ready.name, "fast") == [1, 2]


def test_a_program_that_comes_back_serves_what_was_promoted(ready: Namespace) -> None:
    ready.apply(a_run())
    body = ready.wait(PROGRAM, "triage", lambda body: "promotedRevision" in body["status"], "promoting")
    promoted = body["status"]["promotedRevision"]["name"]
    served = ready.get("ConfigMap", "triage-current")["data"]
    ready.remove(RUN, "fast")
    ready.remove(PROGRAM, "triage")
    ready.wait_gone(PROGRAM, "triage")
    assert ready.get("ConfigMap", "triage-current")["data"] == served

    ready.apply(a_program())

    back = ready.wait(
        PROGRAM,
        "triage",
        lambda body: condition_of(body, "Ready").get("status") == "True" and "promotedRevision" in body["status"],
        "ready, and promoted as before",
        seconds=COLLECTED_SECONDS,
    )
    assert back["status"]["servedRevision"]["name"] == promoted
    assert ready.get("ConfigMap", "triage-current")["data"] == served


def test_a_program_may_take_everything_with_it(namespace: Namespace) -> None:
    namespace.apply(an_endpoint(), a_dataset(), a_program(deletionPolicy="Delete"))
    namespace.condition(PROGRAM, "triage", "Ready", "True")
    assert namespace.find("ConfigMap", "triage-current") is not None
    namespace.remove(PROGRAM, "triage")
    namespace.until(
        lambda: (
            [
                found["metadata"]["name"]
                for found in namespace.all("ConfigMap", "dspy-operator.io/kind=PromptProgram")
                if found["metadata"]["name"] != "triage-account"
            ]
            == []
        ),
        "without its ConfigMaps",
        seconds=COLLECTED_SECONDS,
    )


def test_somebody_elses_object_is_left_alone(namespace: Namespace) -> None:
    mine = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "triage-current"}, "data": {"mine": "1"}}
    namespace.apply(mine, an_endpoint(), a_dataset(), a_program())
    namespace.condition(PROGRAM, "triage", "Ready", "False", "NameConflict", words=("triage-current",))
    assert namespace.get("ConfigMap", "triage-current")["data"] == {"mine": "1"}


def test_a_run_leaves_somebody_elses_job_alone(ready: Namespace) -> None:
    container = {
        "name": "mine",
        "image": "mine",
        "securityContext": {
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "orun-fast-1"},
        "spec": {"suspend": True, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
    }
    ready.apply(job, a_run())
    ready.condition(RUN, "fast", "Stalled", "True", "NameConflict", words=("orun-fast-1",))
    assert ready.get("Job", "orun-fast-1")["spec"]["template"]["spec"]["containers"][0]["image"] == "mine"


@pytest.mark.parametrize(
    ("program", "run", "data", "verdict"),
    [
        pytest.param({"promotion": {"mode": "Manual"}}, {}, rows(), "ManualPromotion", id="promotion is manual"),
        pytest.param(
            {},
            {"endpoints": {"task": {"name": "other"}}},
            rows(),
            "DifferentModel",
            id="it was measured on another model",
        ),
        pytest.param({}, {}, rows(60), "TestUnderpowered", id="the test rows are too few"),
    ],
)
def test_a_candidate_waits_for_a_person_where(
    namespace: Namespace, program: dict[str, Any], run: dict[str, Any], data: str, verdict: str
) -> None:
    provider = {"type": "OpenAI", "openai": {"baseURL": "http://models.example/v1", "model": "other"}}
    namespace.apply(an_endpoint(), an_endpoint("other", provider=provider), a_dataset(text=data))
    namespace.apply(a_program(**program), a_run(**run))
    namespace.condition(RUN, "fast", "Complete", "True", "Completed")
    body = namespace.wait(PROGRAM, "triage", lambda body: body["status"].get("candidates"), "telling its candidate")
    candidate = body["status"]["candidates"][0]
    assert (candidate["run"], candidate["verdict"]) == ("fast", verdict), candidate
    assert body["status"]["servedRevision"]["name"] == body["status"]["baselineRevision"]

    # A person decides by a pin.
    namespace.apply(a_program(**program, revision={"name": candidate["revision"]}))
    namespace.condition(PROGRAM, "triage", "Ready", "True", "Pinned")
    assert namespace.get(PROGRAM, "triage")["status"]["servedRevision"]["name"] == candidate["revision"]


def test_a_run_is_ready_when_it_is_asked_to_be(ready: Namespace) -> None:
    ready.simulator.run_plays(ready.name, "fast", Play(waits_at=Step.OPTIMIZE))
    ready.apply(a_run(readyWhen="Finished"))
    ready.phase("fast", "Running")
    ready.condition(RUN, "fast", "Ready", "False")
    ready.simulator.release(ready.name, "fast")
    ready.condition(RUN, "fast", "Ready", "True")
