"""What an endpoint says of itself, and when it writes it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from dspy_operator.contract import names
from dspy_operator.contract.documents import LoaderProgress
from dspy_operator.engine.plan import Key, Plan, Ref, Settings
from tests.unit.modelendpoint.scene import DIGEST, MODEL, SETTINGS, Scene, loaded, ollama, openai, pulling

LOADING = LoaderProgress(phase="loading")


def failed(reason: str, message: str) -> LoaderProgress:
    return LoaderProgress(phase="failed", reason=reason, message=message)


def waits(reason: str, message: str = "", *, image: str = "ollama/ollama:9") -> dict[str, Any]:
    """A container that does not start."""
    waiting = {"reason": reason, "message": message}
    return {"containerStatuses": [{"name": "ollama", "image": image, "state": {"waiting": waiting}}]}


def died(reason: str, code: int, *, now: str = "running", restarts: int = 1, said: str = "") -> dict[str, Any]:
    """A container that ended, and is now in another state."""
    state: dict[str, Any] = {"running": {}} if now == "running" else {"waiting": {"reason": now}}
    last = {"terminated": {"reason": reason, "exitCode": code, "message": said}}
    return {"containerStatuses": [{"name": "ollama", "state": state, "lastState": last, "restartCount": restarts}]}


@pytest.mark.parametrize(
    ("progress", "status", "want", "want_message", "want_trio"),
    [
        pytest.param(None, {}, "Starting", "pod a starts", "Reconciling", id="a pod without a word is starting"),
        pytest.param(
            pulling(0), {}, "Pulling", f"pulling {MODEL}: 0 % of 491 MB", "Reconciling", id="a pull tells percent and size"
        ),
        pytest.param(
            pulling(43, eta=100.0), {}, "Pulling", f"pulling {MODEL}: 43 % of 491 MB, about 100s left", "Reconciling",
            id="and how long it still takes",
        ),
        pytest.param(
            pulling(43, eta=3000.0, total=45_200_000_000), {}, "Pulling",
            f"pulling {MODEL}: 43 % of 45 GB, about 50m left", "Reconciling", id="in units that fit",
        ),
        pytest.param(LOADING, {}, "Loading", f"loading {MODEL}", "Reconciling", id="a pulled model is loaded"),
        pytest.param(
            failed("ModelNotFound", "pull of nope:1b: file does not exist"), {}, "ModelNotFound",
            "pull of nope:1b: file does not exist", "Stalled", id="the registry has no such model",
        ),
        pytest.param(failed("PullFailed", "refused"), {}, "PullFailed", "refused", "Stalled", id="the registry is away"),
        pytest.param(failed("StorageFull", "no space"), {}, "StorageFull", "no space", "Stalled", id="the volume is full"),
        pytest.param(failed("LoadFailed", "too big"), {}, "LoadFailed", "too big", "Stalled", id="the memory is too small"),
        pytest.param(
            failed("FromTheFuture", "new words"), {}, "LoadFailed", "new words", "Stalled",
            id="a reason that only a later loader knows keeps its message",
        ),
        pytest.param(
            None, {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]},
            "Unschedulable", "0/1 nodes", "Reconciling", id="no node takes it: one may be on its way",
        ),
        pytest.param(
            None, waits("ErrImagePull", "not found"), "ImagePullFailed", "ollama: ollama/ollama:9: not found", "Stalled",
            id="an image cannot be pulled",
        ),
        pytest.param(
            None, waits("ImagePullBackOff", 'Back-off pulling image "ollama/ollama:9": ErrImagePull: not found'),
            "ImagePullFailed", "ollama: ollama/ollama:9: not found", "Stalled", id="and is said so in the same words later",
        ),
        pytest.param(
            None, waits("CreateContainerConfigError", 'secret "x" not found'), "StartFailed",
            'ollama: CreateContainerConfigError: secret "x" not found', "Stalled", id="the kubelet cannot make a container",
        ),
        pytest.param(None, waits("PodInitializing"), "Starting", "pod a starts", "Reconciling", id="waiting its turn is no trouble"),
        pytest.param(
            LOADING, died("OOMKilled", 137), "OOMKilled",
            "ollama: it needed more memory than its limit (podTemplate.resources.limits.memory)", "Stalled",
            id="the model did not fit, and is loaded anew",
        ),
        pytest.param(
            LOADING, died("OOMKilled", 137, now="CrashLoopBackOff"), "OOMKilled",
            "ollama: it needed more memory than its limit (podTemplate.resources.limits.memory)", "Stalled",
            id="that is said alike while the kubelet waits",
        ),
        pytest.param(
            None, died("Error", 2, now="CrashLoopBackOff", said="panic: no such device\n"), "CrashLoop",
            "ollama: exit code 2: panic: no such device", "Stalled", id="a container that ends again and again",
        ),
        pytest.param(None, died("Error", 2), "Starting", "pod a starts", "Reconciling", id="one end is an accident"),
        pytest.param(None, died("Error", 2, restarts=2), "CrashLoop", "ollama: exit code 2", "Stalled", id="two are none"),
        pytest.param(
            pulling(10), died("Error", 2, restarts=2), "Pulling", f"pulling {MODEL}: 10 % of 491 MB", "Reconciling",
            id="but a pull that goes on is what counts",
        ),
    ],
)  # fmt: skip
def test_a_pod_that_does_not_answer_says_why(
    progress: LoaderProgress | None, status: dict[str, Any], want: str, want_message: str, want_trio: str
) -> None:
    scene = Scene()
    scene.look()
    scene.start_pod("a", progress, **status)
    scene.look()
    assert scene.ready == ("False", want)
    assert scene.message == want_message
    for condition in ("Reconciling", "Stalled"):
        assert scene.condition(condition)[:2] == (str(condition == want_trio), want)
    assert [event.reason for event in scene.plan.events] == ([want] if want != "Starting" else [])
    assert all(event.type == ("Warning" if want_trio == "Stalled" else "Normal") for event in scene.plan.events)


def test_a_model_that_answers() -> None:
    scene = Scene()
    scene.look()
    scene.ready_pod()
    scene.look()
    assert scene.ready == ("True", "ModelLoaded")
    assert scene.condition("Accepted")[:2] == ("True", "Accepted")
    assert scene.condition("Reconciling")[:2] == scene.condition("Stalled")[:2] == ("False", "Settled")
    status = {name: value for name, value in scene.status.items() if name != "conditions"}
    assert status == {
        "observedGeneration": 1,
        "phase": "Ready",
        "url": "http://qwen.models.svc:11434/v1",
        "model": {"digest": DIGEST, "sizeBytes": 491_000_000, "contextLength": 4096, "quantization": "Q4_K_M"},
        "replicas": 1,
        "readyReplicas": 1,
        "selector": "dspy-operator.io/component=server,dspy-operator.io/kind=ModelEndpoint,dspy-operator.io/name=qwen",
        "activeRuns": 0,
        "desiredReplicas": 1,
    }
    before = scene.writes
    scene.passes(hours=1)
    scene.restart()
    assert scene.look().requeue_after is None
    assert scene.writes == before, "nothing changed: nothing is written, by a new operator either"


@pytest.mark.parametrize(
    ("word", "probe"),
    [(LOADING, "True"), (loaded(), "False")],
    ids=["the probe is ahead of the loader's word", "the word is ahead of the probe, or Ollama was killed since"],
)
def test_ready_needs_the_kubelet_and_the_loader(word: LoaderProgress, probe: str) -> None:
    scene = Scene()
    scene.look()
    scene.start_pod("a", word, conditions=[{"type": "Ready", "status": probe}])
    scene.look()
    assert scene.ready == ("False", "Loading")


def test_an_endpoint_is_ready_with_its_first_pod_and_names_the_next() -> None:
    scene = Scene(ollama(replicas=3))
    scene.look()
    scene.ready_pod("a")
    scene.start_pod("b", **waits("ErrImagePull", "not found"))
    scene.start_pod("c", pulling(50))
    scene.look()
    assert scene.ready == ("True", "ModelLoaded")
    assert scene.message == f"1 of 3 pods answer; the next: Pulling: pulling {MODEL}: 50 % of 491 MB"
    assert scene.condition("Reconciling")[:2] == ("True", "Pulling")
    assert scene.status["readyReplicas"] == 1


def test_pods_of_the_former_model_do_not_count() -> None:
    scene = Scene()
    scene.look()
    old = scene.ready_pod()
    scene.look()
    assert scene.ready == ("True", "ModelLoaded")
    scene.edit(ollama(ollama_model="llama3.2:1b"))
    scene.look()
    assert scene.ready == ("False", "Starting"), "the very pass that applies the edit knows that no pod has this model"
    assert "model" not in scene.status
    scene.remove(old)
    scene.ready_pod("new")
    scene.look()
    assert scene.ready == ("True", "ModelLoaded")


@pytest.mark.parametrize(
    "change",
    [{"deletionTimestamp": "2026-11-23T12:00:00Z"}, {"phase": "Failed"}],
    ids=["on its way out", "evicted"],
)
def test_a_pod_that_is_leaving_does_not_count(change: dict[str, str]) -> None:
    scene = Scene()
    scene.look()
    pod = scene.ready_pod()
    pod["metadata" if "deletionTimestamp" in change else "status"] |= change
    scene.look()
    assert scene.ready == ("False", "Starting")


def test_the_model_that_answered_last_is_remembered_at_zero_until_another_is_wanted() -> None:
    scene = Scene(ollama(replicas=1))
    scene.look()
    pod = scene.ready_pod()
    scene.look()
    scene.edit(ollama(replicas=0))
    scene.look()
    scene.remove(pod)
    scene.look()
    assert scene.ready == ("True", "ScaledToZero")
    assert scene.message == "spec.replicas is 0: nothing answers until it is raised"
    assert scene.status["model"]["digest"] == DIGEST
    scene.edit(ollama(replicas=0, ollama_contextLength=8192))
    scene.look()
    assert "model" not in scene.status


def test_a_quota_that_refuses_the_pod_is_quoted() -> None:
    scene = Scene()
    scene.look()
    refused = {"type": "ReplicaFailure", "status": "True", "message": 'pods "mep-qwen-x" is forbidden: exceeded quota'}
    scene.deployment["status"] = {"conditions": [refused]}
    scene.look()
    assert scene.ready == ("False", "StartFailed")
    assert scene.message == 'pods "mep-qwen-x" is forbidden: exceeded quota'


# --- writes while a pull runs ------------------------------------------------------------------------------------------


def test_a_pull_is_told_at_most_every_15_seconds() -> None:
    scene = Scene()
    scene.look()
    scene.start_pod("a", pulling(1))
    scene.look()
    before = scene.writes
    for percent in range(2, 92):  # three minutes, a word every 2 s, as a loader gives them
        scene.passes(seconds=2)
        scene.say("a", pulling(percent))
        scene.look()
    assert scene.writes - before == 180 // 15 - 1  # the steps are of 2 s: every 16th
    assert 84 <= scene.status["pull"]["percent"] <= 91


def test_what_is_held_back_is_told_when_its_time_has_come() -> None:
    scene = Scene()
    scene.look()
    scene.start_pod("a", pulling(1))
    scene.look()
    scene.passes(seconds=4)
    scene.say("a", pulling(30))
    plan = scene.look()
    assert scene.status["pull"]["percent"] == 1
    assert plan.requeue_after == timedelta(seconds=11)
    scene.passes(seconds=11)
    scene.look()
    assert scene.status["pull"]["percent"] == 30
    assert f"{MODEL}: 30 %" in scene.message


def test_a_restarted_operator_does_not_write_at_once() -> None:
    scene = Scene()
    scene.look()
    scene.start_pod("a", pulling(1))
    scene.look()
    before = scene.writes
    scene.passes(seconds=60)
    scene.say("a", pulling(2))
    scene.restart()
    assert scene.look().requeue_after == timedelta(seconds=15)
    assert scene.writes == before
    scene.passes(seconds=15)
    scene.look()
    assert scene.writes == before + 1


def test_whatever_else_changes_takes_the_numbers_along() -> None:
    scene = Scene(ollama(scaling={"maxReplicas": 3}))
    scene.admit("one", 1)
    scene.look()
    scene.start_pod("a", pulling(1))
    scene.look()
    scene.passes(seconds=2)
    scene.say("a", pulling(7))
    scene.admit("two", 1)
    scene.look()
    assert (scene.status["pull"]["percent"], scene.status["activeRuns"]) == (7, 2)


def test_the_end_of_a_pull_is_told_at_once_and_its_numbers_go() -> None:
    scene = Scene()
    scene.look()
    scene.start_pod("a", pulling(99))
    scene.look()
    scene.say("a", LOADING)
    scene.look()
    assert scene.ready == ("False", "Loading")
    assert "pull" not in scene.status


# --- the channel ----------------------------------------------------------------------------------------------------


def test_the_key_of_a_pod_that_is_gone_is_dropped_and_no_other() -> None:
    scene = Scene(ollama(replicas=2))
    scene.look()
    scene.ready_pod("stays")
    scene.remove(scene.ready_pod("goes"))
    scene.channel["data"]["control.json"] = "{}"
    scene.channel["metadata"]["resourceVersion"] = "7"
    scene.look()
    assert set(scene.channel["data"]) == {names.loader_key("stays"), "control.json"}
    (guarded,) = scene.plan.guarded
    assert guarded.body["metadata"]["resourceVersion"] == "7", "a loader that wrote meanwhile must not be overwritten"
    assert scene.look().guarded == ()


def test_a_key_that_is_here_before_its_pod_stays() -> None:
    """Two watches: the cache may know the loader's word before it knows the pod."""
    scene = Scene()
    scene.look()
    pod = scene.start_pod("new", pulling(1))

    class Late(Scene):
        def children(self, owner: Any) -> Any:
            return [body for body in super().children(owner) if body is not pod]

    scene.__class__ = Late
    assert scene.look().guarded == ()


def test_words_that_cannot_be_read_are_no_words() -> None:
    scene = Scene()
    scene.look()
    scene.start_pod("a")
    scene.channel["data"] = {names.loader_key("a"): '{"phase": "dancing"}'}
    scene.look()
    assert scene.ready == ("False", "Starting")


# --- what cannot be ---------------------------------------------------------------------------------------------------


def test_a_spec_that_cannot_be_read_is_rejected_with_its_path_and_takes_nothing_away() -> None:
    scene = Scene()
    scene.look()
    scene.ready_pod()
    scene.look()
    there = scene.kinds
    scene.edit(ollama(ollama_parallel=0))
    scene.look()
    assert scene.condition("Accepted")[:2] == ("False", "InvalidSpec")
    assert scene.condition("Accepted")[2].startswith("spec.provider.ollama.parallel: must be")
    assert scene.ready == ("False", "InvalidSpec")
    assert scene.status["phase"] == "Rejected"
    assert scene.kinds == there
    assert scene.plan.deletes == ()
    assert scene.status["desiredReplicas"] == 1, "what was known is known"
    scene.edit(ollama())
    scene.look()
    assert scene.ready == ("True", "ModelLoaded"), "the edit is all that recovery needs"


def test_somebody_elses_object_under_our_name_is_named_and_left() -> None:
    scene = Scene()
    scene.taken = {Ref("v1", "Service", "models", "qwen")}
    scene.look()
    assert scene.ready == ("False", "NameConflict")
    assert scene.message == "Service models/qwen is there and not ours: remove it, or give the endpoint another name"
    assert scene.condition("Stalled")[:2] == ("True", "NameConflict")
    assert any(child["kind"] == "Service" for child in scene.plan.children), "this is how the engine sees it go"
    scene.taken = set()
    scene.look()
    assert scene.ready == ("False", "Starting")


# --- external -----------------------------------------------------------------------------------------------------------


def test_an_external_endpoint_is_said_to_be_ready_and_has_nothing() -> None:
    scene = Scene(openai(apiKeySecret={"name": "key", "key": "token"}))
    scene.admit("triage", 4)
    plan = scene.look()
    assert scene.ready == ("True", "External")
    assert (scene.status["url"], scene.status["activeRuns"]) == ("https://api.example/v1", 1)
    assert scene.kinds == []
    assert (plan.children, plan.creates, plan.guarded, plan.requeue_after) == ((), (), (), None)


def test_an_endpoint_that_becomes_external_gives_back_what_it_had() -> None:
    scene = Scene(ollama(ollama_cache={"type": "PersistentVolumeClaim", "persistentVolumeClaim": {"size": "1Gi"}}))
    scene.look()
    assert "PersistentVolumeClaim" in scene.kinds
    stranger = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "mine", "namespace": "models", "uid": "u"},
    }
    scene.objects[Ref.of(stranger)] = stranger
    scene.edit(openai())
    scene.look()
    assert scene.kinds == ["ConfigMap"], "what has our labels without being ours stays"
    assert "desiredReplicas" not in scene.status
    scene.edit(ollama())
    scene.look()
    assert "Deployment" in scene.kinds


# --- an upgrade of the operator ----------------------------------------------------------------------------------------

UPGRADED = Settings(runner_image="registry.example/runner:2", operator_image="registry.example/operator:2")


def loader_image(scene: Scene) -> str:
    return str(scene.deployment["spec"]["template"]["spec"]["initContainers"][0]["image"])


def test_an_upgrade_does_not_take_the_model_from_under_a_run() -> None:
    scene = Scene(ollama(scaling={"maxReplicas": 1}))
    run = scene.admit("triage", 1)
    scene.look()
    scene.ready_pod()
    scene.look()
    scene.restart(UPGRADED)
    scene.look()
    assert loader_image(scene) == SETTINGS.operator_image
    assert scene.ready == ("True", "ModelLoaded")
    scene.end(run)
    scene.look()
    assert loader_image(scene) == UPGRADED.operator_image


def test_an_edit_brings_the_new_images_too() -> None:
    scene = Scene(ollama(scaling={"maxReplicas": 1}))
    scene.admit("triage", 1)
    scene.look()
    scene.restart(UPGRADED)
    scene.edit(ollama(scaling={"maxReplicas": 1}, ollama_parallel=2))
    scene.look()
    assert loader_image(scene) == UPGRADED.operator_image


def test_an_object_that_is_gone_plans_nothing() -> None:
    scene = Scene()
    assert asyncio.run(scene.room.reconcile(Key("ModelEndpoint", "models", "other"), scene)) == Plan()
