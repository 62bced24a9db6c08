"""A run's life as its owner sees it: what is written when, what is paid, what an edit does, and what is left in the end."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import Any

import pytest

from dspy_operator.api.status import OptimizationRunStatus
from dspy_operator.contract import names
from dspy_operator.contract.documents import AccountEntry, CalibrationReport
from dspy_operator.contract.exits import Outcome, Reason
from dspy_operator.contract.runspec import RunSpec
from dspy_operator.controllers.admission.grants import ADMISSION
from dspy_operator.controllers.optimizationrun.transitions import TRANSITIONS, Phase
from dspy_operator.engine.plan import Key
from tests.unit.optimizationrun.builders import (
    a_cluster,
    a_program_is,
    a_revision_is,
    a_run_is,
    an_endpoint_is,
    running,
)
from tests.unit.optimizationrun.cluster import CANDIDATE, NAMESPACE, TEST_DIGEST, Cluster, Killed, spent

KEPT: dict[str, Any] = {"journal": {"type": "PersistentVolumeClaim"}}


def frozen(cluster: Cluster, attempt: int = 1) -> RunSpec:
    config_map = cluster.server["ConfigMap", NAMESPACE, names.run_spec("fast", attempt)]
    return RunSpec.model_validate_json(config_map["data"][names.KEY_RUN_SPEC])


def a_run_that_ended(cluster: Cluster, reason: Reason = Reason.COMPLETED, **more: Any) -> None:
    a_run_is(cluster)
    running(cluster)
    cluster.ends("fast", reason, **more)
    cluster.settle()


# --- starting ------------------------------------------------------------------------------------------------------


def test_the_write_that_admits_makes_no_job_and_the_next_pass_makes_one() -> None:
    cluster = a_cluster()
    a_run_is(cluster)
    cluster.look("fast")
    assert cluster.writes == {"status": 1}
    admission = cluster.status("fast")["admission"]
    assert (admission["slots"], admission["reserved"]) == ({"team-a/qwen": 4}, {"calls": 100})
    cluster.look("fast")
    assert cluster.jobs("fast") == ["orun-fast-1"]
    assert cluster.writes["status"] == 1


def test_the_account_reserves_before_the_job_exists() -> None:
    cluster = a_cluster()
    a_run_is(cluster)
    cluster.look("fast")
    with pytest.raises(Killed):
        cluster.look("fast", kill_after=1)
    assert cluster.entry("fast")["reserved"] == {"calls": 100}
    assert cluster.jobs("fast") == []


@pytest.mark.parametrize("writes", range(8))
def test_an_operator_that_dies_on_the_way_to_a_job_makes_the_same_job_after_its_restart(writes: int) -> None:
    cluster = a_cluster()
    a_run_is(cluster)
    cluster.look("fast")
    with contextlib.suppress(Killed):
        cluster.look("fast", kill_after=writes)
    cluster.restart()
    cluster.settle()
    assert cluster.jobs_made == ["orun-fast-1"]
    assert (cluster.entry("fast")["tries"], cluster.status("fast")["attempt"]) == (1, 1)


def test_what_was_reserved_for_a_job_that_was_never_made_is_given_back() -> None:
    cluster = a_cluster()
    a_run_is(cluster)
    cluster.look("fast")
    with pytest.raises(Killed):
        cluster.look("fast", kill_after=1)
    cluster.edit("fast", suspend=True)
    cluster.restart()
    cluster.settle()
    assert cluster.status("fast")["phase"] == Phase.SUSPENDED
    assert "reserved" not in cluster.entry("fast")
    assert cluster.jobs_made == []


def test_a_run_of_eleven_writes() -> None:
    cluster = a_cluster()
    a_run_that_ended(cluster)
    assert cluster.writes.total() == 11  # contract.md: at most 15, the program's own three included


def test_a_run_waits_for_its_model_and_says_how_far_it_is() -> None:
    cluster = a_cluster(endpoint="ScaledToZero")
    a_run_is(cluster)
    cluster.settle()
    an_endpoint_is(cluster, "Pulling", pull={"percent": 43})
    cluster.pass_time(seconds=15)
    cluster.settle()
    assert cluster.status("fast")["phase"] == Phase.STARTING
    assert cluster.message("fast", "Complete") == "ModelEndpoint team-a/qwen: Pulling 43 %: words of Pulling"
    assert cluster.jobs("fast") == []
    an_endpoint_is(cluster, "ModelLoaded")
    cluster.settle()
    assert cluster.jobs("fast") == ["orun-fast-1"]


def test_an_estimate_takes_no_slots_and_waits_for_nobody() -> None:
    cluster = a_cluster(endpoint="ScaledToZero", slots=1)
    a_run_is(cluster, {"concurrency": 1}, name="first")
    a_run_is(cluster, {"mode": "Estimate"})
    running(cluster)
    assert cluster.status("fast")["admission"]["slots"] == {}
    cluster.ends(
        "fast",
        outcome=None,
        candidate=None,
        estimate={"calls": 90, "tokens": 4500, "cost": "0.12", "reserved_calls": 60},
    )
    cluster.settle()
    assert cluster.condition("fast", "Complete") == ("True", "Estimated")
    words = "about 90 calls (60 of them for the judgement), 4500 tokens, cost 0.12; no model was called"
    assert cluster.message("fast", "Complete") == cluster.events[-1].message == words
    assert cluster.status("fast")["estimate"] == {"calls": 90, "tokens": 4500, "cost": "0.12"}
    assert "revision" not in cluster.status("fast")


def test_inputs_are_frozen_and_a_later_change_of_the_program_only_says_so() -> None:
    cluster = a_cluster()
    a_run_is(cluster)
    running(cluster)
    before = frozen(cluster)
    a_program_is(cluster, changes={"metric.type": "F1"})
    cluster.settle()
    assert cluster.condition("fast", "InputsOutdated") == ("True", "ProgramChanged")
    cluster.exits("fast", 137)
    cluster.settle()
    cluster.pass_time(seconds=10)
    cluster.settle()
    assert cluster.jobs("fast") == ["orun-fast-2"]
    assert frozen(cluster) == before


def test_the_journal_of_a_run_whose_answers_are_taken_is_mounted_read_only() -> None:
    cluster = a_cluster()
    a_run_is(cluster, {"journal": {"type": "PersistentVolumeClaim"}}, name="first")
    running(cluster, "first")
    cluster.ends("first", Reason.COMPLETED)
    cluster.settle()
    a_run_is(cluster, {"seed": 1, "answersFrom": {"runs": ["first"]}})
    cluster.settle()
    pod = cluster.job("fast")["spec"]["template"]["spec"]
    claim = {"claimName": "orun-first-journal", "readOnly": True}
    assert {"name": "answers-0", "persistentVolumeClaim": claim} in pod["volumes"]
    mounts = pod["containers"][0]["volumeMounts"]
    assert {"name": "answers-0", "mountPath": "/answers/first", "readOnly": True} in mounts


def test_a_journal_that_is_gone_by_the_next_try_is_not_missed() -> None:
    cluster = a_cluster()
    a_run_is(cluster, {"journal": {"type": "PersistentVolumeClaim"}}, name="first")
    running(cluster, "first")
    cluster.ends("first", Reason.COMPLETED)
    cluster.settle()
    a_run_is(cluster, {"seed": 1, "answersFrom": {"runs": ["first"]}})
    running(cluster)
    cluster.remove("OptimizationRun", "first")
    cluster.exits("fast", 137)
    cluster.settle()
    cluster.pass_time(seconds=10)
    cluster.settle()
    assert cluster.jobs("fast") == ["orun-fast-2"]
    assert "answers-0" not in {volume["name"] for volume in cluster.job("fast")["spec"]["template"]["spec"]["volumes"]}


def test_the_runner_image_is_frozen_with_the_inputs() -> None:
    cluster = a_cluster()
    a_run_is(cluster)
    running(cluster)
    cluster.restart()
    cluster.operator.runs._settings = cluster.operator.runs._settings.__class__(
        runner_image="runner:2", operator_image="operator:2"
    )
    cluster.exits("fast", 137)
    cluster.settle()
    cluster.pass_time(seconds=10)
    cluster.settle()
    (container,) = cluster.job("fast")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "runner:1"
    assert cluster.status("fast")["inputs"]["runnerImage"] == "runner:1"


def test_the_incumbent_is_what_is_served_unless_that_is_the_baseline() -> None:
    cluster = a_cluster()
    a_program_is(cluster, servedRevision={"name": "triage-0badcafe", "digest": "v1:0badcafe"})
    a_run_is(cluster)
    cluster.settle()
    incumbent = frozen(cluster).incumbent
    assert incumbent is not None
    assert incumbent.revision == "triage-0badcafe"
    volumes = cluster.job("fast")["spec"]["template"]["spec"]["volumes"]
    assert {"name": "incumbent", "configMap": {"name": "triage-0badcafe"}} in volumes


@pytest.mark.parametrize(
    ("start", "served", "want"),
    [
        pytest.param(None, "triage-0badcafe", None, id="the baseline, where nothing is said"),
        pytest.param({"type": "Baseline"}, "triage-0badcafe", None, id="the baseline"),
        pytest.param({"type": "Current"}, "triage-0badcafe", "triage-0badcafe", id="what is served"),
        pytest.param({"type": "Current"}, "triage-base0000", None, id="what is served, which is the baseline"),
        pytest.param(
            {"type": "Revision", "revision": {"name": "triage-0ddba115"}},
            "triage-0badcafe",
            "triage-0ddba115",
            id="a revision by name",
        ),
    ],
)
def test_what_a_run_starts_from_is_looked_up_once_and_mounted(
    start: dict[str, Any] | None, served: str, want: str | None
) -> None:
    cluster = a_cluster()
    for name in ("triage-0badcafe", "triage-0ddba115"):
        a_revision_is(cluster, name)
    a_program_is(cluster, servedRevision={"name": served, "digest": "v1:served"})
    a_run_is(cluster, {"startFrom": start, "budget": {"calls": 200}})
    running(cluster)
    begun = frozen(cluster).start_from
    assert (begun.revision if begun else None) == want
    assert cluster.status("fast")["inputs"].get("startFrom") == want
    OptimizationRunStatus.model_validate(cluster.status("fast"))
    volumes = cluster.job("fast")["spec"]["template"]["spec"]["volumes"]
    mounted = [volume["configMap"]["name"] for volume in volumes if volume["name"] == "start"]
    assert mounted == ([want] if want else [])
    if begun is not None:
        assert (begun.digest, begun.path) == (f"v1:{want}", "/start")
    a_program_is(cluster, servedRevision={"name": "triage-0ddba115", "digest": "v1:later"})
    cluster.exits("fast", 137)
    cluster.settle()
    cluster.pass_time(seconds=10)
    cluster.settle()
    assert (cluster.status("fast")["attempt"], cluster.status("fast")["inputs"].get("startFrom")) == (1, want)
    again = cluster.job("fast")["spec"]["template"]["spec"]["volumes"]
    assert [volume["configMap"]["name"] for volume in again if volume["name"] == "start"] == mounted


def test_a_start_from_another_revision_is_another_attempt() -> None:
    cluster = a_cluster()
    a_revision_is(cluster, "triage-0badcafe")
    a_run_that_ended(cluster)
    before = cluster.status("fast")["inputs"]["inputDigest"]
    cluster.edit("fast", startFrom={"type": "Baseline"})
    cluster.settle()
    assert cluster.status("fast")["attempt"] == 1
    cluster.edit("fast", startFrom={"type": "Revision", "revision": {"name": "triage-0badcafe"}})
    cluster.settle()
    assert cluster.status("fast")["attempt"] == 2
    assert cluster.status("fast")["inputs"]["inputDigest"] != before


def test_an_object_of_somebody_else_under_a_name_of_ours_is_told_and_left_alone() -> None:
    from dspy_operator.engine.plan import Ref

    cluster = a_cluster()
    a_run_is(cluster)
    cluster.look("fast")
    cluster._foreign = {Ref("v1", "ConfigMap", NAMESPACE, "orun-fast-pod")}
    cluster.settle()
    assert cluster.condition("fast", "Stalled") == ("True", "NameConflict")
    assert "ConfigMap team-a/orun-fast-pod belongs to somebody else" in cluster.message("fast", "Stalled")


# --- while it runs ---------------------------------------------------------------------------------------------------


def test_progress_is_told_at_most_every_15_seconds() -> None:
    cluster = a_cluster()
    a_run_is(cluster)
    running(cluster)
    writes = cluster.writes["status"]
    for calls in range(5, 100, 5):
        cluster.pass_time(seconds=5)
        cluster.reports("fast", calls=calls, percent=calls)
        cluster.settle()
    assert cluster.writes["status"] - writes == 6  # of 19 reports in 95 s
    assert cluster.status("fast")["progress"]["percent"] >= 80


def test_what_was_held_back_is_told_when_its_time_comes() -> None:
    cluster = a_cluster()
    a_run_is(cluster)
    running(cluster)
    cluster.reports("fast", calls=7, percent=7)
    plan = cluster.look("fast")
    assert plan is not None
    assert plan.status is None
    assert plan.requeue_after is not None
    cluster.time += plan.requeue_after
    cluster.settle()
    assert cluster.status("fast")["usage"]["calls"] == 7


def test_a_restarted_operator_writes_nothing() -> None:
    cluster = a_cluster()
    a_run_that_ended(cluster)
    a_run_is(cluster, {"seed": 1}, name="second")
    running(cluster, "second", calls=5)
    cluster.pass_time(seconds=20)
    cluster.settle()
    before = cluster.writes.total()
    cluster.restart()
    cluster.settle()
    assert cluster.writes.total() == before


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        pytest.param({"budget": {"calls": 500}}, {"budget": {"calls": 500}}, id="a raised budget"),
        pytest.param(
            {"concurrency": 2}, {"concurrency": 2, "slots": {"team-a/qwen": 2}}, id="fewer requests at a time"
        ),
        pytest.param(
            {"concurrency": 6}, {"concurrency": 6, "slots": {"team-a/qwen": 6}}, id="more, where there are slots"
        ),
        pytest.param({"concurrency": 9}, {"concurrency": 9, "slots": {"team-a/qwen": 8}}, id="as many as there are"),
        pytest.param({"pacing": "Fixed"}, {"pacing": "Fixed"}, id="another pace"),
        pytest.param({"stop": "Finish"}, {"stop": "Finish"}, id="an early end"),
    ],
)
def test_a_live_edit_reaches_the_pod_as_the_next_generation(changes: dict[str, Any], want: dict[str, Any]) -> None:
    cluster = a_cluster(slots=8)
    a_run_is(cluster)
    running(cluster)
    uid = cluster.job("fast")["metadata"]["uid"]
    cluster.edit("fast", **changes)
    cluster.settle()
    control = cluster.control("fast")
    document = control.document()
    assert {name: document[name] for name in want} == want
    assert control.generation > 1
    assert cluster.job("fast")["metadata"]["uid"] == uid
    cluster.reports("fast", calls=1)
    cluster.pass_time(seconds=15)
    cluster.settle()
    assert cluster.status("fast")["effective"] == control.generation
    assert cluster.status("fast")["admission"]["slots"] == control.slots


def test_a_raised_budget_is_reserved_before_the_pod_hears_of_it() -> None:
    cluster = a_cluster()
    a_run_is(cluster)
    running(cluster)
    cluster.edit("fast", budget={"calls": 500})
    cluster.settle()
    assert cluster.entry("fast")["reserved"]["calls"] == 500


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"podTemplate": {"nodeSelector": {"disk": "ssd"}}}, id="podTemplate"),
        pytest.param({"priorityClassName": "batch-high"}, id="priorityClassName"),
        pytest.param({"journal": {"type": "EmptyDir"}}, id="journal"),
        pytest.param({"deadlines": {"progress": "1h"}}, id="deadlines"),
        pytest.param({"retries": 3}, id="retries"),
    ],
)
def test_an_execution_edit_replaces_the_pod_in_the_same_attempt(changes: dict[str, Any]) -> None:
    cluster = a_cluster()
    a_run_is(cluster, KEPT)
    running(cluster, calls=5)
    cluster.edit("fast", **changes)
    cluster.settle()
    assert cluster.jobs("fast") == []
    cluster.leaves("fast", calls=6)
    cluster.settle()
    assert cluster.jobs("fast") == ["orun-fast-2"]
    assert cluster.status("fast")["attempt"] == 1
    assert cluster.control("fast").floor.calls == 6


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"readyWhen": "Finished"}, id="readyWhen"),
        pytest.param({"cleanup": {"succeeded": "1h"}}, id="cleanup"),
        pytest.param({"rerun": "2"}, id="rerun, which waits for the end"),
    ],
)
def test_a_control_edit_touches_no_pod(changes: dict[str, Any]) -> None:
    cluster = a_cluster()
    a_run_is(cluster)
    running(cluster)
    writes = cluster.writes.copy()
    cluster.edit("fast", **changes)
    cluster.settle()
    assert {name: count - writes[name] for name, count in cluster.writes.items() if count != writes[name]} == {
        "status": 1
    }


# --- the end of a try ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "want_calls"),
    [
        pytest.param(KEPT, 30, id="with a journal the next try counts what was on the wire"),
        pytest.param({}, 34, id="without one, what may have been on the wire counts as spent"),
    ],
)
def test_a_pod_that_dies_without_a_word_has_spent_what_it_told_last(changes: dict[str, Any], want_calls: int) -> None:
    cluster = a_cluster()
    a_run_is(cluster, changes)
    running(cluster)
    cluster.reports("fast", calls=30)
    cluster.exits("fast", 137, reason="OOMKilled")
    cluster.settle()
    assert cluster.entry("fast")["used"]["calls"] == want_calls
    cluster.pass_time(seconds=10)
    cluster.settle()
    assert cluster.control("fast").floor.calls == want_calls
    assert cluster.entry("fast")["reserved"]["calls"] == 100 - want_calls


def test_a_try_that_got_further_begins_the_waits_anew() -> None:
    cluster = a_cluster()
    a_run_is(cluster)
    waits = []
    for calls in (0, 0, 0, 20, 20):
        running(cluster)
        cluster.ends("fast", Reason.ENDPOINT_UNAVAILABLE, calls=calls)
        cluster.settle()
        waits.append(cluster.status("fast")["retry"]["waits"])
        cluster.pass_time(minutes=10)
    assert waits == [1, 2, 3, 1, 2]


@pytest.mark.parametrize("how", ["ends", "waits", "is suspended"])
def test_whoever_gives_slots_back_wakes_admission(how: str) -> None:
    cluster = a_cluster()
    a_run_is(cluster)
    running(cluster)
    if how == "is suspended":
        cluster.edit("fast", suspend=True)
        cluster.settle()
        cluster.leaves("fast")
    else:
        cluster.ends("fast", Reason.COMPLETED if how == "ends" else Reason.ENDPOINT_UNAVAILABLE)
    plan = cluster.look("fast")
    assert plan is not None
    assert ADMISSION in plan.wake


def test_spend_never_shrinks_whatever_the_last_words_are() -> None:
    cluster = a_cluster()
    a_run_is(cluster)
    running(cluster)
    cluster.ends("fast", Reason.ENDPOINT_UNAVAILABLE, calls=20)
    cluster.settle()
    cluster.pass_time(seconds=30)
    running(cluster)
    cluster.ends("fast", Reason.INVALID_DATASET, calls=0)  # it ended before it had read its journal
    cluster.settle()
    assert cluster.entry("fast")["used"]["calls"] == 20


def test_a_lowered_budget_gives_nothing_back_before_it_is_known_what_was_spent() -> None:
    cluster = a_cluster()
    a_run_is(cluster)
    running(cluster, calls=80)
    cluster.edit("fast", budget={"calls": 50})
    cluster.settle()
    assert cluster.control("fast").budget.calls == 50
    assert cluster.entry("fast")["reserved"]["calls"] == 100
    cluster.remove("OptimizationRun", "fast")
    a_run_is(cluster, {"budget": {"calls": 150}})
    running(cluster)
    assert cluster.control("fast").floor.calls == 100


def test_retries_back_off_are_counted_and_end() -> None:
    cluster = a_cluster()
    a_run_is(cluster, {"retries": 3})
    pauses = []
    for _ in range(3):
        running(cluster)
        cluster.exits("fast", 137)
        plan = cluster.look("fast")
        assert plan is not None
        pauses.append(cluster.due[next(iter(cluster.due))] - cluster.time)
        cluster.settle()
        assert cluster.status("fast")["phase"] == Phase.QUEUED
        assert "admission" not in cluster.status("fast")
        cluster.time += pauses[-1]
    assert [pause.total_seconds() for pause in pauses] == [10, 20, 40]
    running(cluster)
    cluster.exits("fast", 137)
    cluster.settle()
    assert cluster.condition("fast", "Failed") == ("True", "PodLost")
    assert cluster.status("fast")["retry"]["count"] == 4
    assert cluster.jobs_made == [f"orun-fast-{number}" for number in (1, 2, 3, 4)]


@pytest.mark.parametrize("reason", [Reason.ENDPOINT_UNAVAILABLE, Reason.SECRET_MISSING])
def test_what_is_not_the_runs_fault_consumes_no_retry(reason: Reason) -> None:
    cluster = a_cluster()
    a_run_is(cluster, {"retries": 0})
    for _ in range(5):
        running(cluster)
        cluster.ends("fast", reason, calls=0)
        cluster.settle()
        cluster.pass_time(minutes=10)
    assert cluster.status("fast")["retry"] == {
        "count": 0,
        "waits": 5,
        "notBefore": cluster.status("fast")["retry"]["notBefore"],
    }
    running(cluster)
    cluster.ends("fast")
    cluster.settle()
    assert cluster.status("fast")["phase"] == Phase.SUCCEEDED


@pytest.mark.parametrize("changes", [pytest.param(KEPT, id="with a journal"), pytest.param({}, id="without one")])
def test_no_job_is_made_while_a_pod_of_an_earlier_try_is_left(changes: dict[str, Any]) -> None:
    cluster = a_cluster()
    a_run_is(cluster, changes)
    running(cluster)
    cluster.pass_time(minutes=15)
    cluster.settle()
    assert cluster.condition("fast", "Admitted") == ("False", "BackingOff")
    cluster.pass_time(seconds=30)
    cluster.settle()
    assert (cluster.jobs("fast"), len(cluster.pods("fast"))) == ([], 1)
    assert cluster.condition("fast", "Complete")[1] == "PodLeft"
    assert "of try 1 is still there" in cluster.message("fast", "Complete")
    cluster.leaves("fast", says_so=False)
    cluster.settle()
    assert cluster.jobs("fast") == ["orun-fast-2"]


def test_a_pod_on_a_lost_node_holds_up_a_run_with_a_journal_and_no_other() -> None:
    for changes, want in ((KEPT, []), ({}, ["orun-fast-2"])):
        cluster = a_cluster()
        a_run_is(cluster, changes)
        running(cluster)
        cluster.pod_is_cut_off("fast")
        cluster.pass_time(seconds=61)
        cluster.settle()
        cluster.pass_time(seconds=10)
        cluster.settle()
        assert [job for job in cluster.jobs("fast") if job != "orun-fast-1"] == want


def test_last_words_that_the_cache_has_not_seen_are_asked_for() -> None:
    cluster = a_cluster()
    a_run_is(cluster)
    running(cluster)
    cluster.fall_behind()
    cluster.ends("fast", calls=12)
    pod = cluster.pods("fast")[0]
    cluster.cache["Pod", NAMESPACE, pod["metadata"]["name"]] = pod  # the end of the pod is known, its result is not
    cluster.settle()
    assert cluster.status("fast")["phase"] == Phase.SUCCEEDED
    assert cluster.status("fast")["usage"]["calls"] == 12


def test_a_result_of_an_earlier_try_is_not_taken_for_the_end_of_this_one() -> None:
    cluster = a_cluster()
    a_run_is(cluster)
    running(cluster)
    cluster.ends("fast", Reason.ENDPOINT_UNAVAILABLE)
    cluster.settle()
    cluster.pass_time(seconds=30)
    running(cluster)
    assert cluster.status("fast")["phase"] == Phase.RUNNING
    assert cluster.status("fast")["try"] == 2


# --- suspend, stop, budget --------------------------------------------------------------------------------------------


def test_suspend_ends_the_pod_and_resume_is_a_new_try_of_the_same_attempt() -> None:
    cluster = a_cluster()
    a_run_is(cluster, KEPT)
    running(cluster, calls=20)
    cluster.edit("fast", suspend=True)
    cluster.settle()
    assert cluster.jobs("fast") == []
    assert cluster.condition("fast", "Suspended") == ("False", "Suspending")
    cluster.leaves("fast", calls=21)
    cluster.settle()
    assert cluster.condition("fast", "Suspended") == ("True", "Suspended")
    assert cluster.condition("fast", "Ready") == ("True", "Suspended")
    assert "admission" not in cluster.status("fast")
    assert cluster.entry("fast")["used"]["calls"] == 21
    assert "reserved" not in cluster.entry("fast")
    cluster.edit("fast", suspend=False)
    running(cluster)
    assert cluster.status("fast")["attempt"] == 1
    assert cluster.jobs("fast") == ["orun-fast-2"]


def test_a_suspended_run_is_cancelled_without_a_pod() -> None:
    cluster = a_cluster()
    a_run_is(cluster, {"suspend": True})
    cluster.settle()
    cluster.edit("fast", stop="Cancel")
    cluster.settle()
    assert cluster.condition("fast", "Failed") == ("True", "Cancelled")
    assert cluster.jobs_made == []


def test_finish_before_anything_was_called_ends_without_a_pod() -> None:
    cluster = a_cluster()
    a_run_is(cluster, {"stop": "Finish"})
    cluster.settle()
    assert cluster.condition("fast", "Complete") == ("True", "StoppedEarly")
    assert cluster.jobs_made == []


def test_a_cancelled_pod_that_does_not_run_yet_is_taken_away() -> None:
    cluster = a_cluster()
    a_run_is(cluster)
    cluster.settle()
    cluster.pod_of("fast", pending=True)
    cluster.edit("fast", stop="Cancel")
    cluster.settle()
    assert cluster.status("fast")["phase"] == Phase.CANCELLED
    assert cluster.jobs("fast") == []


def test_a_raised_limit_resumes_an_exhausted_run_where_it_stopped() -> None:
    cluster = a_cluster()
    a_run_is(cluster, KEPT)
    running(cluster)
    cluster.ends("fast", Reason.BUDGET_EXHAUSTED, calls=100, outcome=Outcome.NOT_JUDGED)
    cluster.settle()
    assert cluster.status("fast")["phase"] == Phase.BUDGET_EXHAUSTED
    cluster.edit("fast", budget={"calls": 90})
    cluster.settle()
    assert cluster.jobs_made == ["orun-fast-1"]  # a lowered limit resumes nothing
    cluster.edit("fast", budget={"calls": 300})
    running(cluster)
    assert cluster.status("fast")["attempt"] == 1
    assert cluster.control("fast").floor == spent(100)
    assert cluster.entry("fast")["reserved"]["calls"] == 200
    cluster.ends("fast", calls=250)
    cluster.settle()
    assert cluster.status("fast")["phase"] == Phase.SUCCEEDED
    assert cluster.status("fast")["usage"]["calls"] == 250


# --- attempts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"seed": 1}, id="seed"),
        pytest.param({"optimizer": {"type": "LabeledFewShot"}}, id="optimizer"),
        pytest.param({"endpoints": {"task": {"name": "qwen", "request": {"topP": "0.5"}}}}, id="endpoints"),
        pytest.param({"mode": "Estimate"}, id="mode"),
    ],
)
def test_an_input_edit_is_a_new_attempt_whether_the_run_is_live_or_over(changes: dict[str, Any]) -> None:
    for over in (False, True):
        cluster = a_cluster()
        a_run_is(cluster)
        running(cluster, calls=20)
        if over:
            cluster.ends("fast", calls=20)
            cluster.settle()
        cluster.edit("fast", **changes)
        cluster.settle()
        cluster.leaves("fast", calls=20)
        running(cluster)
        assert cluster.status("fast")["attempt"] == 2
        assert cluster.jobs("fast") == ["orun-fast-2"]
        assert cluster.control("fast").floor.calls == 20
        assert frozen(cluster, 2).run.attempt == 2


def test_other_endpoints_are_other_slots() -> None:
    cluster = a_cluster()
    an_endpoint_is(cluster, name="big", slots=2)
    a_run_is(cluster)
    running(cluster)
    cluster.edit("fast", endpoints={"task": {"name": "big"}})
    cluster.settle()
    cluster.leaves("fast")
    cluster.settle()
    assert cluster.status("fast")["admission"]["slots"] == {"team-a/big": 2}
    assert cluster.control("fast").slots == {"team-a/big": 2}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"seed": 0}, id="a default that is written out"),
        pytest.param({"mode": "Run"}, id="the default mode"),
        pytest.param({"optimizer": {"type": "Evaluate"}}, id="the same again"),
    ],
)
def test_unset_is_the_same_as_its_default(changes: dict[str, Any]) -> None:
    cluster = a_cluster()
    a_run_that_ended(cluster)
    cluster.edit("fast", **changes)
    cluster.settle()
    assert cluster.jobs_made == ["orun-fast-1"]
    assert cluster.status("fast")["phase"] == Phase.SUCCEEDED


def test_each_set_of_inputs_has_a_journal_of_its_own_and_an_edit_taken_back_finds_it_again() -> None:
    cluster = a_cluster()
    a_run_is(cluster, KEPT)
    journals = []
    for attempt, seed in enumerate((0, 1, 0), 1):
        cluster.edit("fast", seed=seed)
        running(cluster)
        journals.append(frozen(cluster, attempt).paths.journal)
        cluster.ends("fast", Reason.AUTHENTICATION_FAILED)
        cluster.settle()
    assert journals[0] == journals[2] != journals[1]


def test_rerun_is_a_new_attempt_of_the_same_inputs_with_the_same_journal_and_is_not_answered_by_a_kept_result() -> None:
    cluster = a_cluster()
    a_run_is(cluster, KEPT)
    running(cluster)
    cluster.ends("fast", calls=20)
    cluster.settle()
    first = frozen(cluster)
    cluster.edit("fast", rerun="2")
    running(cluster)
    again = frozen(cluster, 2)
    assert (again.input_digest, again.paths) == (first.input_digest, first.paths)
    assert cluster.status("fast")["rerun"] == "2"
    cluster.ends("fast", calls=20)
    cluster.settle()
    cluster.edit("fast", rerun=None)
    cluster.settle()
    assert cluster.jobs_made == ["orun-fast-1", "orun-fast-2"]


def test_a_program_put_right_is_enough_for_a_run_that_failed_for_it() -> None:
    cluster = a_cluster()
    a_run_that_ended(cluster, Reason.INVALID_DATASET, calls=0)
    a_program_is(cluster, "InvalidDataset")
    cluster.settle()
    assert cluster.status("fast")["phase"] == Phase.FAILED
    a_program_is(cluster, dataset={"digest": "v1:new", "test": 40, "testDigest": TEST_DIGEST})
    running(cluster)
    assert cluster.status("fast")["attempt"] == 2
    assert frozen(cluster, 2).dataset.digest == "v1:new"


def test_nothing_else_runs_an_ended_run_again() -> None:
    cluster = a_cluster()
    a_run_that_ended(cluster)
    a_program_is(cluster, changes={"metric.type": "F1"})
    an_endpoint_is(cluster, model={"digest": "sha256:new"})
    cluster.restart()
    cluster.pass_time(days=30)
    cluster.settle()
    assert cluster.jobs_made == ["orun-fast-1"]
    assert cluster.condition("fast", "Complete") == ("True", "Completed")


# --- the account ------------------------------------------------------------------------------------------------------


def test_the_account_is_the_contracts_and_keeps_result_spend_and_looks() -> None:
    cluster = a_cluster()
    a_run_that_ended(cluster, calls=60)
    entry = AccountEntry.model_validate(cluster.entry("fast"))
    assert (entry.attempt, entry.tries, entry.used, entry.reserved.calls) == (1, 1, spent(60), 0)
    (kept,) = entry.inputs.values()
    assert (kept.outcome, kept.candidate) == (Outcome.IMPROVED, CANDIDATE)
    assert entry.test_looks == {TEST_DIGEST: 1}


def test_looks_of_all_runs_of_a_program_are_counted() -> None:
    cluster = a_cluster()
    a_run_that_ended(cluster)
    a_run_is(cluster, {"seed": 1}, name="second")
    running(cluster, "second")
    spec = cluster.server["ConfigMap", NAMESPACE, "orun-second-1-spec"]["data"][names.KEY_RUN_SPEC]
    assert RunSpec.model_validate_json(spec).test_looks == 1
    cluster.ends("second")
    cluster.settle()
    assert cluster.entry("second")["testLooks"] == {TEST_DIGEST: 1}


def test_each_judgement_is_a_look_also_a_second_one_of_the_same_run() -> None:
    cluster = a_cluster()
    a_run_that_ended(cluster)
    cluster.edit("fast", rerun="2")
    running(cluster)
    assert frozen(cluster, 2).test_looks == 1
    cluster.ends("fast")
    cluster.settle()
    assert cluster.entry("fast")["testLooks"] == {TEST_DIGEST: 2}


def test_a_deaf_watch_does_not_make_a_pod_seem_silent() -> None:
    cluster = a_cluster()
    a_run_is(cluster)
    running(cluster)
    cluster.fall_behind()
    for _ in range(4):
        cluster.pass_time(minutes=5)
        cluster.reports("fast", calls=10)
    cluster.settle()
    assert cluster.jobs("fast") == ["orun-fast-1"]
    assert cluster.status("fast")["phase"] == Phase.RUNNING


@pytest.mark.parametrize(
    ("optimizer", "budget", "want"),
    [
        pytest.param({"type": "Evaluate"}, {"calls": 200}, True, id="the same inputs"),
        pytest.param({"type": "MIPROv2"}, {"calls": 100}, True, id="sizes from the same budget"),
        pytest.param({"type": "MIPROv2"}, {"calls": 200}, False, id="sizes from another budget"),
        pytest.param({"type": "MIPROv2", "miproV2": {"auto": "Light"}}, {"calls": 200}, True, id="sizes of their own"),
        pytest.param({"type": "GEPA", "gepa": {"maxMetricCalls": 50}}, {"calls": 200}, True, id="a count of their own"),
        pytest.param(
            {"type": "Stages", "stages": {"stages": [{"type": "BootstrapFewShot"}, {"type": "MIPROv2"}]}},
            {"calls": 200},
            False,
            id="a stage with sizes from another budget",
        ),
    ],
)
def test_a_kept_result_of_the_same_inputs_is_reused_with_no_call(
    optimizer: dict[str, Any], budget: dict[str, Any], want: bool
) -> None:
    cluster = a_cluster()
    a_run_is(cluster, {"optimizer": optimizer})
    running(cluster)
    cluster.ends("fast", calls=60)
    cluster.settle()
    a_run_is(cluster, {"optimizer": optimizer, "budget": budget}, name="second")
    cluster.settle()
    assert (cluster.jobs("second") == []) is want
    if want:
        status = cluster.status("second")
        assert (status["outcome"], status["revision"]["digest"]) == ("Reused", CANDIDATE)
        assert status["scores"]["test"] == {"baseline": "50", "candidate": "80"}
        assert "usage" not in status
        OptimizationRunStatus.model_validate(status)


def test_a_run_that_reuses_nothing_computes_the_same_inputs_again() -> None:
    cluster = a_cluster()
    a_run_that_ended(cluster)
    a_run_is(cluster, {"reuse": "Never"}, name="second")
    running(cluster, "second")
    cluster.ends("second", calls=60)
    cluster.settle()
    assert cluster.status("second")["usage"]["calls"] == 60
    a_run_is(cluster, name="third")
    cluster.settle()
    assert cluster.status("third")["outcome"] == "Reused"


def test_a_run_that_reached_its_goal_is_complete_and_its_result_is_kept() -> None:
    cluster, goal = a_cluster(), {"optimizer": {"type": "MIPROv2"}, "goal": {"score": "90"}}
    a_run_is(cluster, goal)
    running(cluster)
    cluster.ends("fast", Reason.GOAL_REACHED, calls=60)
    cluster.settle()
    assert cluster.condition("fast", "Complete") == ("True", "GoalReached")
    a_run_is(cluster, goal, name="second")
    a_run_is(cluster, {**goal, "goal": {"score": "95"}}, name="third")
    cluster.settle()
    assert cluster.status("second")["outcome"] == "Reused"
    assert cluster.jobs("third")
    cluster.edit("fast", goal={"score": "95"})
    cluster.settle()
    assert cluster.status("fast")["attempt"] == 2


@pytest.mark.parametrize("reason", [Reason.COMPLETED, Reason.INVALID_METRIC])
def test_a_run_tells_how_far_its_judge_agrees_with_people(reason: Reason) -> None:
    cluster = a_cluster()
    a_run_is(cluster)
    running(cluster)
    reports = {"spec.metric.judge": CalibrationReport(kappa=0.6667, rows=9, undecided=1, agreed=7)}
    cluster.ends("fast", reason, calibration=reports)
    cluster.settle()
    told = {"spec.metric.judge": {"kappa": "0.6667", "rows": 9, "agreed": 7, "undecided": 1}}
    assert cluster.status("fast")["calibration"] == told


def test_a_reused_result_is_told_without_the_figures_of_an_earlier_attempt() -> None:
    cluster = a_cluster()
    a_run_is(cluster, {"seed": 1}, name="second")
    running(cluster, "second")
    cluster.ends("second", calls=60)
    cluster.settle()
    a_run_that_ended(cluster)
    assert {"gate", "startTime"} <= cluster.status("fast").keys()
    cluster.edit("fast", seed=1)
    cluster.settle()
    status = cluster.status("fast")
    assert (status["outcome"], status["attempt"]) == ("Reused", 2)
    assert not {"gate", "progress", "startTime", "effective"} & status.keys()


def test_a_deleted_and_recreated_run_goes_on_with_the_budget_that_is_left() -> None:
    cluster = a_cluster()
    a_run_that_ended(cluster, Reason.AUTHENTICATION_FAILED, calls=60)
    cluster.remove("OptimizationRun", "fast")
    a_run_is(cluster)
    running(cluster)
    assert cluster.control("fast").floor.calls == 60
    assert cluster.jobs_made == ["orun-fast-1", "orun-fast-2"]
    assert cluster.status("fast")["attempt"] == 2


def test_a_reservation_that_nobody_settled_counts_as_spent() -> None:
    cluster = a_cluster()
    a_run_is(cluster)
    running(cluster, calls=10)
    cluster.remove("OptimizationRun", "fast")
    a_run_is(cluster, {"budget": {"calls": 150}})
    running(cluster)
    assert cluster.control("fast").floor.calls == 100


def test_a_new_object_waits_until_what_its_predecessor_owned_is_gone() -> None:
    cluster = a_cluster()
    a_run_is(cluster)
    running(cluster)
    old = {at: body for at, body in cluster.server.items() if at[2].startswith("orun-fast")}
    cluster.remove("OptimizationRun", "fast")
    cluster.server |= old  # garbage collection has not come to them yet
    cluster.catch_up()
    a_run_is(cluster)
    cluster.settle()
    assert cluster.jobs_made == ["orun-fast-1"]
    for at in old:
        cluster.server.pop(at, None)
    cluster.catch_up()
    cluster.settle()
    assert cluster.jobs_made == ["orun-fast-1", "orun-fast-2"]


def test_a_new_object_waits_for_the_last_config_map_of_its_predecessor() -> None:
    cluster = a_cluster()
    a_run_that_ended(cluster, Reason.AUTHENTICATION_FAILED)
    channel = ("ConfigMap", NAMESPACE, "orun-fast-pod")
    old = cluster.server[channel]
    cluster.remove("OptimizationRun", "fast")
    cluster.server[channel] = old
    cluster.catch_up()
    a_run_is(cluster)
    cluster.settle()
    assert cluster.condition("fast", "Complete") == ("False", "PodLeft")
    assert cluster.message("fast", "Complete") == "ConfigMap orun-fast-pod is on its way out"


def test_an_attempts_name_is_never_used_for_other_inputs_though_account_and_status_were_lost() -> None:
    cluster = a_cluster()
    a_run_is(cluster)
    running(cluster)
    cluster.edit("fast", suspend=True)
    cluster.settle()
    cluster.leaves("fast")
    cluster.settle()
    cluster.remove("ConfigMap", names.program_account("triage"))
    cluster.lose_status("fast")
    cluster.edit("fast", suspend=False, seed=1)
    cluster.settle()
    assert frozen(cluster, 2).seed == 1
    assert cluster.job("fast")["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"] == "orun-fast-2-spec"


@pytest.mark.parametrize("reason", [Reason.COMPLETED, Reason.BUDGET_EXHAUSTED, Reason.INVALID_METRIC])
def test_a_lost_status_of_an_ended_run_is_told_again_and_nothing_is_paid(reason: Reason) -> None:
    cluster = a_cluster()
    a_run_that_ended(cluster, reason, calls=60)
    told = cluster.status("fast")
    cluster.lose_status("fast")
    cluster.settle()
    again = cluster.status("fast")
    for status in (told, again):
        for condition in status["conditions"]:
            condition.pop("lastTransitionTime")
    gone = {"podName"}  # only eyes had use for it
    assert again == {name: value for name, value in told.items() if name not in gone}
    assert cluster.jobs_made == ["orun-fast-1"]


def test_a_lost_status_of_a_live_run_leaves_its_pod_alone() -> None:
    cluster = a_cluster()
    a_run_is(cluster)
    running(cluster, calls=20)
    uid = cluster.job("fast")["metadata"]["uid"]
    cluster.lose_status("fast")
    cluster.settle()
    status = cluster.status("fast")
    assert cluster.job("fast")["metadata"]["uid"] == uid
    assert (status["phase"], status["attempt"], status["try"]) == (Phase.RUNNING, 1, 1)
    assert status["admission"]["slots"] == {"team-a/qwen": 4}


@pytest.mark.parametrize("reason", [Reason.COMPLETED, Reason.AUTHENTICATION_FAILED])
def test_a_lost_account_runs_nothing_again(reason: Reason) -> None:
    cluster = a_cluster()
    a_run_that_ended(cluster, reason, calls=60)
    told = cluster.status("fast")
    cluster.remove("ConfigMap", names.program_account("triage"))
    cluster.settle()
    cluster.remove("PromptProgram", "triage")
    cluster.settle()
    assert cluster.jobs_made == ["orun-fast-1"]
    assert cluster.status("fast")["phase"] == told["phase"]
    assert cluster.status("fast")["completionTime"] == told["completionTime"]


# --- afterwards -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "changes", "kept_hours"),
    [
        pytest.param(Reason.COMPLETED, {}, 24, id="a success is kept for a day"),
        pytest.param(Reason.STOPPED_EARLY, {}, 24, id="an early end too"),
        pytest.param(Reason.BUDGET_EXHAUSTED, {}, 168, id="an exhausted budget for a week"),
        pytest.param(Reason.AUTHENTICATION_FAILED, {}, 168, id="a failure too"),
        pytest.param(Reason.COMPLETED, {"cleanup": {"succeeded": "2h"}}, 2, id="as long as is written"),
    ],
)
def test_what_a_run_left_is_removed_in_time_and_its_inputs_and_status_stay(
    reason: Reason, changes: dict[str, Any], kept_hours: int
) -> None:
    cluster = a_cluster()
    a_run_is(cluster, changes | KEPT)
    running(cluster)
    cluster.ends("fast", reason)
    cluster.settle()
    _publish(cluster)
    cluster.settle()
    told = cluster.status("fast")
    cluster.pass_time(hours=kept_hours, seconds=-1)
    cluster.settle()
    assert cluster.jobs("fast") == ["orun-fast-1"]
    cluster.pass_time(seconds=1)
    cluster.settle()
    left = sorted(f"{kind} {name}" for kind, _, name in cluster.server if name.startswith("orun-fast"))
    assert left == ["ConfigMap orun-fast-1-spec"]
    assert cluster.status("fast") == told


def test_nothing_is_removed_before_the_program_has_the_revision() -> None:
    cluster = a_cluster()
    a_run_that_ended(cluster)
    cluster.pass_time(days=30)
    cluster.settle()
    assert cluster.jobs("fast") == ["orun-fast-1"]
    assert cluster.status("fast")["revision"] == {"digest": CANDIDATE}
    _publish(cluster)
    cluster.settle()
    assert cluster.status("fast")["revision"] == {"digest": CANDIDATE, "name": "triage-cccccccc"}
    assert cluster.jobs("fast") == []


def test_an_exhausted_run_that_was_cleaned_up_still_goes_on_with_its_frozen_inputs() -> None:
    cluster = a_cluster()
    a_run_is(cluster, KEPT)
    running(cluster)
    cluster.ends("fast", Reason.BUDGET_EXHAUSTED, calls=100)
    cluster.settle()
    _publish(cluster)
    cluster.pass_time(days=8)
    cluster.settle()
    a_program_is(cluster, changes={"metric.type": "F1"})
    cluster.edit("fast", budget={"calls": 300})
    running(cluster)
    assert cluster.status("fast")["attempt"] == 1
    assert cluster.control("fast").floor.calls == 100


@pytest.mark.parametrize(
    ("ready_when", "moment", "want"),
    [
        pytest.param("Accepted", "running", ("True", "False", "False"), id="a run that goes on holds up nobody"),
        pytest.param("Finished", "running", ("False", "True", "False"), id="unless it is waited for"),
        pytest.param("Finished", "done", ("True", "False", "False"), id="then its end is"),
        pytest.param("Accepted", "failed", ("False", "False", "True"), id="a failure is never ready"),
        pytest.param("Accepted", "waiting", ("False", "True", "False"), id="what may still appear is in progress"),
        pytest.param("Accepted", "refused", ("False", "False", "True"), id="what has to be edited is stalled"),
    ],
)
def test_the_kstatus_trio(ready_when: str, moment: str, want: tuple[str, str, str]) -> None:
    cluster = a_cluster()
    changes: dict[str, Any] = {"readyWhen": ready_when}
    if moment == "waiting":
        changes["programRef"] = {"name": "later"}
    if moment == "refused":
        changes["budget"] = {"calls": 1}
    a_run_is(cluster, changes)
    cluster.settle()
    if moment in ("running", "done", "failed"):
        running(cluster)
    if moment in ("done", "failed"):
        cluster.ends("fast", Reason.COMPLETED if moment == "done" else Reason.AUTHENTICATION_FAILED)
    cluster.settle()
    assert tuple(cluster.condition("fast", of)[0] for of in ("Ready", "Reconciling", "Stalled")) == want


def test_events_tell_the_way_once() -> None:
    cluster = a_cluster()
    a_run_is(cluster)
    running(cluster)
    cluster.ends("fast", Reason.ENDPOINT_UNAVAILABLE, calls=3, message="no answer")
    cluster.settle()
    cluster.pass_time(seconds=30)
    running(cluster)
    cluster.ends("fast", message="well done")
    cluster.settle()
    assert [(event.type, event.reason, event.message) for event in cluster.events] == [
        ("Normal", "Admitted", "4 requests at a time on team-a/qwen"),
        ("Normal", "Running", "try 1: the pod runs"),
        ("Warning", "EndpointUnavailable", "try 1: no answer; the next one not before 2026-11-23T12:00:30Z"),
        ("Normal", "Admitted", "4 requests at a time on team-a/qwen"),
        ("Normal", "Running", "try 2: the pod runs"),
        ("Normal", "Completed", "well done"),
    ]


def test_a_run_whose_account_is_lost_waits_as_it_is_and_goes_on_as_another_attempt() -> None:
    """As while a namespace goes: no pass may write what the next one writes over."""
    cluster = a_cluster()
    a_run_is(cluster)
    running(cluster, calls=40)
    cluster.edit("fast", suspend=True)
    cluster.settle()
    cluster.leaves("fast", calls=40)
    cluster.settle()
    cluster.remove("ConfigMap", names.program_account("triage"))
    cluster.settle()
    status = cluster.status("fast")
    assert (status["phase"], status["attempt"], status["usage"]["calls"]) == ("Suspended", 1, 40)
    an_endpoint_is(cluster, "ModelNotFound")
    cluster.edit("fast", suspend=None)
    cluster.settle()
    status = cluster.status("fast")
    assert (status["phase"], status["attempt"], status["usage"]["calls"]) == ("Queued", 2, 40)
    an_endpoint_is(cluster)
    running(cluster)
    status = cluster.status("fast")
    assert (status["attempt"], status["try"], cluster.entry("fast")["used"]["calls"]) == (2, 2, 40)


@pytest.mark.parametrize(
    "prices", [pytest.param({"input": "1", "output": "2"}, id="priced"), pytest.param(None, id="unpriced")]
)
def test_what_is_not_counted_is_not_said_to_cost_nothing(prices: dict[str, str] | None) -> None:
    cluster = a_cluster()
    an_endpoint_is(cluster, changes={"pricing": {"currency": "USD", **prices}} if prices else None)
    a_run_is(cluster)
    running(cluster)
    cluster.ends("fast", Reason.AUTHENTICATION_FAILED, calls=0)
    cluster.settle()
    usage = cluster.status("fast")["usage"]
    assert usage["calls"] == usage["byRole"]["task"]["calls"] == 0
    assert (usage.get("cost"), usage["byRole"]["task"].get("cost")) == (("0", "0") if prices else (None, None))


def test_a_run_that_arrives_before_its_program_warns_of_nothing() -> None:
    """Kustomize applies the run first. The condition says at once how it stands, and nobody who looks later sees a Warning."""
    cluster = a_cluster()
    cluster.remove("PromptProgram", "triage")
    a_run_is(cluster)
    cluster.settle()
    assert cluster.condition("fast", "Accepted") == ("False", "ProgramNotFound")
    cluster.pass_time(seconds=2)
    a_program_is(cluster)
    cluster.settle()
    assert [event.reason for event in cluster.events] == ["Admitted"]


@pytest.mark.parametrize("absent", ["ProgramNotFound", "EndpointNotFound"])
def test_what_stays_absent_is_warned_of_when_a_run_has_arrived(absent: str) -> None:
    cluster = a_cluster()
    if absent == "ProgramNotFound":
        cluster.remove("PromptProgram", "triage")
    else:
        cluster.remove("ModelEndpoint", "qwen")
    a_run_is(cluster)
    cluster.settle()
    assert cluster.events == []
    key = Key("OptimizationRun", NAMESPACE, "fast")
    assert cluster.due[key] - cluster.time == timedelta(seconds=10)
    cluster.time = cluster.due[key]
    cluster.look("fast")
    assert [(event.type, event.reason) for event in cluster.events] == [("Warning", absent)]
    cluster.pass_time(minutes=90)
    cluster.look("fast")
    assert len(cluster.events) == 1


def test_what_goes_away_later_is_warned_of_at_once() -> None:
    cluster = a_cluster()
    a_run_is(cluster, {"suspend": True})
    cluster.settle()
    cluster.pass_time(minutes=5)
    cluster.remove("PromptProgram", "triage")
    cluster.edit("fast", suspend=None)
    cluster.settle()
    assert [(event.type, event.reason) for event in cluster.events][-1] == ("Warning", "ProgramNotFound")


def test_every_phase_has_its_ways_out_and_running_comes_only_after_starting() -> None:
    assert set(TRANSITIONS) == {None, *Phase}
    into_running = {before for before, after in TRANSITIONS.items() if Phase.RUNNING in after}
    assert into_running == {None, Phase.STARTING, Phase.RUNNING, Phase.JUDGING}


def _publish(cluster: Cluster) -> None:
    """The program's room makes the revision's ConfigMap."""
    if cluster.status("fast").get("revision") is None:
        return
    a_revision_is(cluster, names.program_revision("triage", CANDIDATE), CANDIDATE)
