"""A run's life between start and end: suspension, budget, edits, stops, and what can happen to its pod."""

from __future__ import annotations

import time
from typing import Any

import pytest

from dspy_operator.contract.exits import Exit, Reason
from tests.integration.acceptance import LONG
from tests.integration.operator.conftest import Spaces
from tests.integration.operator.manifests import a_dataset, a_program, a_run, an_endpoint
from tests.integration.operator.namespace import Namespace, condition_of
from tests.simulator import Crash, Death, Ends, Failure, Play, Step

RUN = "OptimizationRun"
WITH_VOLUME = {"type": "PersistentVolumeClaim"}


@pytest.fixture
def ready(namespace: Namespace) -> Namespace:
    """A namespace with a program that is ready; its runs may run at the same time."""
    namespace.apply(an_endpoint(), a_dataset(), a_program())
    namespace.condition("PromptProgram", "triage", "Ready", "True")
    return namespace


def test_a_suspended_run_has_no_pod_and_goes_on_where_it_was(ready: Namespace) -> None:
    ready.simulator.run_plays(ready.name, "fast", Play(waits_at=Step.JUDGE), Play())
    ready.apply(a_run(journal=WITH_VOLUME))
    ready.phase("fast", "Running", "Judging")

    asked = time.monotonic()
    ready.apply(a_run(journal=WITH_VOLUME, suspend=True))
    ready.condition(RUN, "fast", "Suspended", "True", "Suspended")
    assert time.monotonic() - asked < 10
    left = ready.all("Pod", "dspy-operator.io/name=fast")
    assert {pod["status"]["phase"] for pod in left} <= {"Succeeded", "Failed"}
    ready.until(lambda: ready.all("Pod", "dspy-operator.io/name=fast") == [], "without what the pod left")
    suspended = ready.get(RUN, "fast")
    assert suspended["status"]["phase"] == "Suspended"
    assert condition_of(suspended, "Stalled")["status"] == "False"

    ready.apply(a_run(journal=WITH_VOLUME))
    ready.condition(RUN, "fast", "Complete", "True", "Completed")
    status = ready.get(RUN, "fast")["status"]
    assert (status["attempt"], status["try"], status["usage"]["calls"]) == (1, 2, 160)
    assert status["usage"]["replayed"] == 40
    assert ready.simulator.tries(ready.name, "fast") == [1, 2]


def test_a_run_that_is_applied_suspended_starts_when_it_is_resumed(ready: Namespace) -> None:
    ready.apply(a_run(suspend=True))
    ready.condition(RUN, "fast", "Suspended", "True")
    assert ready.all("Job", "dspy-operator.io/name=fast") == []
    ready.apply(a_run())
    ready.condition(RUN, "fast", "Complete", "True", "Completed")


def test_an_exhausted_run_goes_on_when_its_budget_is_raised(ready: Namespace) -> None:
    ready.apply(a_run(journal=WITH_VOLUME, budget={"calls": 150}))
    ready.condition(RUN, "fast", "Complete", "True", "BudgetExhausted")
    assert ready.get(RUN, "fast")["status"]["usage"]["calls"] == 150

    ready.apply(a_run(journal=WITH_VOLUME, budget={"calls": 1000}))
    ready.condition(RUN, "fast", "Complete", "True", "Completed")
    status = ready.get(RUN, "fast")["status"]
    assert (status["attempt"], status["try"]) == (1, 2)
    assert status["usage"]["calls"] == 160  # the judgement of the same candidate is replayed
    assert ready.account()["fast"]["used"]["calls"] == 160


def test_a_budget_survives_the_deletion_of_its_run(ready: Namespace) -> None:
    ready.apply(a_run(budget={"calls": 150}))
    ready.condition(RUN, "fast", "Complete", "True", "BudgetExhausted")
    ready.remove(RUN, "fast")
    ready.wait_gone(RUN, "fast")
    ready.apply(a_run(budget={"calls": 150}, seed=7))
    run = ready.wait(
        RUN,
        "fast",
        lambda body: any(
            condition["reason"] in ("BudgetExhausted", "BudgetTooSmall")
            for condition in body.get("status", {}).get("conditions", ())
        ),
        "refused, or exhausted",
    )
    assert run["status"].get("usage", {}).get("calls", 150) <= 150
    assert ready.account()["fast"]["used"]["calls"] == 150


def test_a_raised_budget_reaches_a_running_pod(ready: Namespace) -> None:
    ready.simulator.run_plays(ready.name, "fast", Play(waits_at=Step.BASELINE))
    ready.apply(a_run(budget={"calls": 150}))
    ready.phase("fast", "Running")
    ready.apply(a_run(budget={"calls": 1000}))
    ready.wait(RUN, "fast", lambda body: body["status"].get("effective", 0) >= 2, "acknowledged by the pod", 40)
    ready.simulator.release(ready.name, "fast")
    ready.condition(RUN, "fast", "Complete", "True", "Completed")
    assert ready.simulator.tries(ready.name, "fast") == [1]


def test_an_edited_input_is_a_new_attempt(ready: Namespace) -> None:
    ready.apply(a_run(journal=WITH_VOLUME))
    ready.condition(RUN, "fast", "Complete", "True", "Completed")
    before = ready.get(RUN, "fast")["status"]
    ready.apply(a_run(journal=WITH_VOLUME, seed=3))
    after = ready.wait(
        RUN,
        "fast",
        lambda body: body["status"].get("attempt") == 2 and condition_of(body, "Complete").get("status") == "True",
        "complete again",
    )["status"]
    assert after["inputs"]["inputDigest"] != before["inputs"]["inputDigest"]
    assert after["try"] == 2
    assert after["usage"]["calls"] > before["usage"]["calls"]


def test_an_edited_input_ends_the_running_attempt(ready: Namespace) -> None:
    ready.simulator.run_plays(ready.name, "fast", Play(waits_at=Step.OPTIMIZE), Play())
    ready.apply(a_run())
    ready.phase("fast", "Running")
    ready.apply(a_run(seed=3))
    ready.condition(RUN, "fast", "Complete", "True", "Completed")
    status = ready.get(RUN, "fast")["status"]
    assert (status["attempt"], status["try"]) == (2, 2)
    assert ready.simulator.most_at_once[ready.name, RUN, "fast"] == 1


def test_an_edit_of_what_is_no_input_runs_nothing_again(ready: Namespace) -> None:
    ready.apply(a_run())
    ready.condition(RUN, "fast", "Complete", "True", "Completed")
    ready.apply(a_run(retries=2, cleanup={"succeeded": "48h"}, deadlines={"progress": "20m"}))
    ready.condition(RUN, "fast", "Complete", "True", "Completed")
    assert ready.simulator.tries(ready.name, "fast") == [1]


def test_rerun_is_a_new_attempt_of_the_same_inputs(ready: Namespace) -> None:
    ready.apply(a_run())
    ready.condition(RUN, "fast", "Complete", "True", "Completed")
    ready.apply(a_run(rerun="2"))
    ready.wait(RUN, "fast", lambda body: body["status"].get("attempt") == 2, "in its second attempt")
    ready.condition(RUN, "fast", "Complete", "True")


def test_an_edit_of_the_pod_replaces_it_and_keeps_the_attempt(ready: Namespace) -> None:
    ready.simulator.run_plays(ready.name, "fast", Play(waits_at=Step.OPTIMIZE), Play())
    ready.apply(a_run(journal=WITH_VOLUME))
    ready.phase("fast", "Running")
    ready.apply(a_run(journal=WITH_VOLUME, podTemplate={"resources": {"limits": {"memory": "1Gi"}}}))
    ready.condition(RUN, "fast", "Complete", "True", "Completed")
    status = ready.get(RUN, "fast")["status"]
    assert (status["attempt"], status["try"]) == (1, 2)


def test_stop_finish_judges_the_best_so_far(ready: Namespace) -> None:
    ready.simulator.run_plays(ready.name, "fast", Play(waits_at=Step.OPTIMIZE))
    ready.apply(a_run())
    ready.phase("fast", "Running")
    ready.apply(a_run(stop="Finish"))
    ready.condition(RUN, "fast", "Complete", "True", "StoppedEarly")
    assert ready.get(RUN, "fast")["status"]["outcome"] == "Improved"


def test_stop_cancel_fails_the_run_so_that_nobody_waits(ready: Namespace) -> None:
    ready.simulator.run_plays(ready.name, "fast", Play(waits_at=Step.OPTIMIZE))
    ready.apply(a_run())
    ready.phase("fast", "Running")
    ready.apply(a_run(stop="Cancel"))
    ready.condition(RUN, "fast", "Failed", "True", "Cancelled")
    assert ready.get(RUN, "fast")["status"]["phase"] == "Cancelled"


LOSSES: dict[str, Death | Crash] = {
    "is killed for its memory": Death.OUT_OF_MEMORY,
    "is evicted": Death.EVICTED,
    "vanishes": Death.VANISHED,
    "is preempted": Death.PREEMPTED,
    "has a bug": Crash(Exit.INTERNAL_ERROR),
    "is killed": Crash(137),
}


@pytest.fixture(scope="module")
def losses(spaces: Spaces) -> Namespace:
    """One run for each loss, all at the same time: each waits 10 s before it tries again."""
    space = spaces.new("losses")
    space.apply(an_endpoint(), a_dataset(), a_program(concurrencyPolicy="Allow", promotion={"mode": "Manual"}))
    for seed, how in enumerate(LOSSES.values()):
        space.simulator.run_plays(space.name, f"run-{seed}", Play(ends=Ends(how, after_calls=20)), Play())
        space.apply(a_run(f"run-{seed}", seed=seed, journal=WITH_VOLUME))
    return space


@pytest.mark.parametrize("seed", [pytest.param(seed, id=how) for seed, how in enumerate(LOSSES)])
def test_a_run_survives_a_pod_that(losses: Namespace, seed: int) -> None:
    name = f"run-{seed}"
    losses.condition(RUN, name, "Complete", "True", "Completed", seconds=60)
    status = losses.get(RUN, name)["status"]
    assert (status["attempt"], status["try"], status["usage"]["calls"]) == (1, 2, 160)
    assert losses.simulator.most_at_once[losses.name, RUN, name] == 1


if LONG:  # a node counts as lost after 70 s

    def test_no_second_pod_runs_while_one_is_left_on_a_lost_node(ready: Namespace) -> None:
        ready.simulator.run_plays(ready.name, "fast", Play(ends=Ends(Death.NODE_LOST, after_calls=20)), Play())
        ready.apply(a_run(journal=WITH_VOLUME))
        ready.condition(RUN, "fast", "Complete", "False", "NodeLost", words=("orun-fast-1",), seconds=120)
        ready.simulator.release(ready.name, "fast")
        ready.condition(RUN, "fast", "Complete", "True", "Completed", seconds=60)
        assert ready.simulator.tries(ready.name, "fast") == [1, 2]


@pytest.mark.parametrize(
    ("reason", "terminal"),
    [
        pytest.param(Reason.REPLAY_DIVERGED, "ReplayDiverged", id="a replay that diverges"),
        pytest.param(Reason.JOURNAL_CORRUPT, "JournalCorrupt", id="a corrupt journal"),
        pytest.param(Reason.JOURNAL_FULL, "JournalFull", id="a full journal"),
        pytest.param(Reason.INVALID_DATASET, "InvalidDataset", id="rows that changed"),
        pytest.param(Reason.SPLIT_EMPTY, "SplitEmpty", id="a split too small for the optimizer"),
    ],
)
def test_a_typed_failure_is_final_and_an_edit_leaves_it(ready: Namespace, reason: Reason, terminal: str) -> None:
    failure = Ends(Failure(reason, "in words"), at=Step.PREFLIGHT)
    ready.simulator.run_plays(ready.name, "fast", Play(ends=failure), Play())
    ready.apply(a_run())
    said = ready.condition(RUN, "fast", "Failed", "True", terminal)
    assert "in words" in said["message"]
    ready.apply(a_run(rerun="2"))
    ready.condition(RUN, "fast", "Complete", "True", "Completed")


def test_retries_end(ready: Namespace) -> None:
    ready.simulator.run_plays(ready.name, "fast", Play(ends=Ends(Crash(Exit.INTERNAL_ERROR), at=Step.LOAD)))
    ready.apply(a_run(retries=0))
    ready.condition(RUN, "fast", "Failed", "True", "InternalError")
    assert ready.simulator.tries(ready.name, "fast") == [1]


def test_a_pod_without_a_sign_of_life_is_replaced(ready: Namespace) -> None:
    ready.simulator.run_plays(ready.name, "fast", Play(waits_at=Step.OPTIMIZE, silent=True), Play())
    ready.apply(a_run(journal=WITH_VOLUME, deadlines={"progress": "2s"}))
    ready.condition(RUN, "fast", "Complete", "True", "Completed", seconds=60)
    assert ready.simulator.tries(ready.name, "fast") == [1, 2]


def test_a_lost_status_pays_nothing_again(ready: Namespace) -> None:
    ready.apply(a_run())
    ready.condition(RUN, "fast", "Complete", "True", "Completed")
    path = f"/apis/dspy-operator.io/v1alpha1/namespaces/{ready.name}/optimizationruns/fast/status"

    def lose() -> bool:
        body: dict[str, Any] = ready.get(RUN, "fast")
        del body["status"]
        code, said = ready.plane.request("PUT", path, body)
        assert code in (200, 409), said  # the operator may just be pointing it at its revision
        return code == 200

    ready.until(lose, "without its status")
    ready.condition(RUN, "fast", "Complete", "True")
    assert ready.simulator.tries(ready.name, "fast") == [1]
    assert ready.account()["fast"]["used"]["calls"] == 160


def test_a_finished_run_is_tidied_up_and_stays(ready: Namespace) -> None:
    ready.apply(a_run(journal=WITH_VOLUME, cleanup={"succeeded": "0s"}))
    ready.condition(RUN, "fast", "Complete", "True", "Completed")
    for kind, name in (
        ("Job", "orun-fast-1"),
        ("PersistentVolumeClaim", "orun-fast-journal"),
        ("ConfigMap", "orun-fast-pod"),
    ):
        ready.wait_gone(kind, name)
    run = ready.wait(RUN, "fast", lambda body: "name" in body["status"]["revision"], "pointing at its revision")
    assert run["status"]["phase"] == "Succeeded"
    assert ready.get("ConfigMap", run["status"]["revision"]["name"])["immutable"]


def test_one_run_at_a_time_where_the_program_queues(ready: Namespace) -> None:
    ready.simulator.run_plays(ready.name, "first", Play(waits_at=Step.OPTIMIZE))
    ready.apply(a_run("first", seed=1))
    ready.phase("first", "Running")
    ready.apply(a_run("second", seed=2))
    said = ready.condition(RUN, "second", "Admitted", "False", "Queued")
    assert "first" in said["message"]
    ready.simulator.release(ready.name, "first")
    ready.condition(RUN, "second", "Complete", "True", "Completed")


def test_a_changed_program_outdates_a_run_and_runs_nothing(ready: Namespace) -> None:
    ready.apply(a_run())
    ready.condition(RUN, "fast", "Complete", "True", "Completed")
    ready.apply(a_program(metric__accept="0.5"))
    ready.condition(RUN, "fast", "InputsOutdated", "True", "ProgramChanged")
    assert ready.simulator.tries(ready.name, "fast") == [1]
