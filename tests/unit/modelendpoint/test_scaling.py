"""How many pods: up at once when a run is admitted, held while it is active, down after the delay. Nothing is forgotten by a restart."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from dspy_operator.api.modelendpoint import ModelEndpointSpec
from dspy_operator.controllers.modelendpoint.demand import Claim, claims_on, demand
from tests.unit.modelendpoint.scene import START, Scene, ollama

ELASTIC = {"minReplicas": 0, "maxReplicas": 3}


def spec(**changes: Any) -> ModelEndpointSpec:
    return ModelEndpointSpec.model_validate(ollama(**changes))


def claims(*slots: int) -> tuple[Claim, ...]:
    return tuple(Claim(f"team-a/run-{number}", count) for number, count in enumerate(slots))


@pytest.mark.parametrize(
    ("changes", "slots", "want"),
    [
        pytest.param({}, (), 1, id="without scaling there is one pod"),
        pytest.param({"replicas": 3}, (), 3, id="or as many as replicas says"),
        pytest.param({"replicas": 0}, (8,), 0, id="and none where it says so, whoever waits"),
        pytest.param({"scaling": ELASTIC}, (), 0, id="with scaling there is none while no run needs one"),
        pytest.param({"scaling": {**ELASTIC, "minReplicas": 1}}, (), 1, id="but the least that scaling wants"),
        pytest.param({"scaling": ELASTIC}, (1,), 1, id="one slot needs one pod"),
        pytest.param({"scaling": ELASTIC, "ollama_parallel": 4}, (4,), 1, id="a pod has as many slots as it answers in parallel"),
        pytest.param({"scaling": ELASTIC, "ollama_parallel": 4}, (5,), 2, id="one more slot needs another pod"),
        pytest.param({"scaling": ELASTIC, "ollama_parallel": 4}, (3, 3), 2, id="slots of all runs count together"),
        pytest.param({"scaling": ELASTIC}, (64,), 3, id="never more than scaling allows"),
        pytest.param({"scaling": ELASTIC, "replicas": 2}, (), 0, id="scaling rules where replicas is written too"),
    ],
)  # fmt: skip
def test_a_new_endpoint_gets_what_it_needs(changes: dict[str, Any], slots: tuple[int, ...], want: int) -> None:
    found = demand(spec(**changes), claims(*slots), before=None, idle_since=None, now=START)
    assert found.replicas == want
    assert found.changed_from is None


@pytest.mark.parametrize(
    ("before", "idle_minutes", "slots", "want", "want_idle_minutes", "want_again"),
    [
        pytest.param(0, None, (2,), 2, None, None, id="more are needed: at once"),
        pytest.param(2, 3, (2,), 2, None, None, id="as many as there are: idle time is forgotten"),
        pytest.param(2, None, (1,), 2, 0, 5, id="fewer are needed: the clock starts"),
        pytest.param(2, 3, (1,), 2, 3, 2, id="the clock runs: two minutes are left"),
        pytest.param(3, 3, (2,), 3, 3, 2, id="the need changes below what there is: the clock runs on"),
        pytest.param(2, 5, (1,), 1, None, None, id="the clock is down: as many as are needed now"),
        pytest.param(2, 60, (), 0, None, None, id="an operator that was away for an hour does not wait again"),
        pytest.param(5, None, (), 3, 0, 5, id="a limit that was lowered holds at once, and the clock starts"),
        pytest.param(5, None, (3,), 3, None, None, id="a limit that was lowered to the need"),
    ],
)
def test_the_number_follows_the_need(
    before: int, idle_minutes: int | None, slots: tuple[int, ...], want: int, want_idle_minutes: int | None, want_again: int | None
) -> None:  # fmt: skip
    since = None if idle_minutes is None else START - timedelta(minutes=idle_minutes)
    found = demand(spec(scaling=ELASTIC), claims(*slots), before=before, idle_since=since, now=START)
    assert found.replicas == want
    assert found.idle_since == (None if want_idle_minutes is None else START - timedelta(minutes=want_idle_minutes))
    assert found.look_again == (None if want_again is None else timedelta(minutes=want_again))
    assert found.changed_from == (before if want != before else None)


def test_a_clock_that_was_set_back_does_not_hold_a_pod_for_longer() -> None:
    found = demand(spec(scaling=ELASTIC), (), before=1, idle_since=START + timedelta(hours=3), now=START)
    assert found.look_again == timedelta(minutes=5)


def test_only_active_runs_of_this_endpoint_claim_slots() -> None:
    scene = Scene()
    runs = [
        scene.admit("runs", 2),
        scene.admit("elsewhere", 2, endpoint="models/other"),
        scene.admit("of-another-namespaces-endpoint", 2, endpoint="team-a/qwen"),
        {"metadata": {"name": "waits", "namespace": "team-a"}, "status": {}},
        {"metadata": {"name": "new", "namespace": "team-a"}},
    ]
    for name, condition in (("done", "Complete"), ("broke", "Failed")):
        run = scene.admit(name, 2)
        scene.end(run, condition)
        run["metadata"]["generation"] = 7  # edited since: its admission is as old as its end
        runs.append(run)
    leaving = scene.admit("leaving", 2)
    leaving["metadata"]["deletionTimestamp"] = "2026-11-23T12:00:00Z"
    assert claims_on("models/qwen", [*runs, leaving]) == (Claim("team-a/runs", 2),)


def test_from_zero_to_one_for_a_run_and_back_after_the_delay() -> None:
    scene = Scene(ollama(scaling={"maxReplicas": 3, "scaleDownDelay": "2m"}, ollama_parallel=2))
    scene.look()
    assert scene.ready == ("True", "ScaledToZero")
    assert scene.deployment["spec"]["replicas"] == 0

    run = scene.admit("triage", slots=2)
    scene.look()
    assert scene.deployment["spec"]["replicas"] == 1
    assert scene.ready == ("False", "Starting")
    assert scene.status["lastScale"] == {
        "time": "2026-11-23T12:00:00Z", "from": 0, "to": 1, "why": "2 slots for team-a/triage",
    }  # fmt: skip
    assert [(event.reason, event.message) for event in scene.plan.events] == [
        ("Scaled", "from 0 to 1: 2 slots for team-a/triage"),
        ("Starting", "waiting for its pod"),
    ]
    scene.ready_pod()
    scene.look()
    assert scene.ready == ("True", "ModelLoaded")
    assert (scene.status["activeRuns"], scene.status["desiredReplicas"]) == (1, 1)

    scene.passes(hours=5)
    scene.look()
    assert scene.deployment["spec"]["replicas"] == 1, "held for as long as the run is active"

    scene.end(run)
    plan = scene.look()
    assert scene.deployment["spec"]["replicas"] == 1
    assert (scene.status["activeRuns"], scene.status["idleSince"]) == (0, "2026-11-23T17:00:00Z")
    assert plan.requeue_after == timedelta(minutes=2)

    scene.passes(minutes=1)
    scene.restart()
    assert scene.look().requeue_after == timedelta(minutes=1), "a restarted operator goes on with the same clock"
    scene.passes(minutes=1)
    scene.look()
    assert scene.deployment["spec"]["replicas"] == 0
    assert scene.ready == ("True", "ScaledToZero")
    assert scene.status["lastScale"]["why"] == "no run needs it for 2m"
    assert "idleSince" not in scene.status


def test_the_next_run_within_the_delay_finds_the_model_loaded() -> None:
    scene = Scene(ollama(scaling={"maxReplicas": 1}))
    scene.look()
    first = scene.admit("first", 1)
    scene.look()
    scene.ready_pod()
    scene.look()
    scene.end(first)
    scene.look()
    scene.passes(minutes=4)
    scene.admit("second", 1)
    scene.look()
    assert "idleSince" not in scene.status
    scene.passes(minutes=30)
    scene.look()
    assert scene.deployment["spec"]["replicas"] == 1


def test_a_lost_status_does_not_take_pods_away() -> None:
    scene = Scene(ollama(scaling={"maxReplicas": 3}))
    scene.look()
    scene.admit("triage", 3)
    scene.look()
    for name in "abc":
        scene.ready_pod(name)
    scene.look()
    scene.objects = {ref: body for ref, body in scene.objects.items() if ref.kind != "OptimizationRun"}
    del scene.body["status"]
    scene.look()
    assert scene.deployment["spec"]["replicas"] == 3
    assert scene.status["idleSince"] == "2026-11-23T12:00:00Z"


def test_a_hand_on_the_deployment_is_no_demand() -> None:
    scene = Scene(ollama(scaling={"maxReplicas": 3}))
    scene.look()
    scene.deployment["spec"]["replicas"] = 3
    scene.look()
    assert scene.deployment["spec"]["replicas"] == 0


@pytest.mark.parametrize("replicas", [0, 2])
def test_kubectl_scale_works_without_scaling(replicas: int) -> None:
    scene = Scene()
    scene.look()
    scene.edit(ollama(replicas=replicas))
    scene.look()
    assert scene.deployment["spec"]["replicas"] == replicas
    assert scene.status["lastScale"]["why"] == f"spec.replicas is {replicas}"
    assert "ScaleIgnored" not in {one["type"] for one in scene.status["conditions"]}


def test_replicas_beside_scaling_is_ignored_aloud() -> None:
    scene = Scene(ollama(replicas=2, scaling={"maxReplicas": 3}))
    scene.look()
    assert scene.condition("ScaleIgnored") == (
        "True", "ScalingRules", "spec.replicas is 2, but spec.scaling rules: remove one of them",
    )  # fmt: skip
    scene.edit(ollama(replicas=1, scaling={"maxReplicas": 3}))
    scene.look()
    assert "ScaleIgnored" not in {one["type"] for one in scene.status["conditions"]}, "1 is what the schema fills in"
