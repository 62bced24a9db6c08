"""The life of a validation: one Job for what is written, a few more where pods are lost, none where nothing changed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dspy_operator.api.reasons import ProgramReason
from dspy_operator.contract import names
from dspy_operator.contract.exits import Reason
from dspy_operator.contract.runspec import RunSpec
from dspy_operator.engine.plan import Settings
from tests.unit.promptprogram.world import ROWS, SETTINGS, Cluster, files_of
from tests.unit.written import REMOVED

EDIT = {"program.single.signature.instructions": "Classify the ticket well."}


def killed(code: int = 137, reason: str = "OOMKilled") -> dict[str, Any]:
    """A container's end."""
    return {"containerStatuses": [{"name": "runner", "state": {"terminated": {"reason": reason, "exitCode": code}}}]}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    """A container that waits."""
    state = {"waiting": {"reason": reason, "message": message}}
    return {"phase": "Pending", "containerStatuses": [{"name": "runner", "state": state}]}


def test_the_pod_gets_run_json_the_rows_and_the_right_to_one_config_map() -> None:
    cluster = Cluster()
    cluster.apply_rows()
    cluster.apply_program(ROWS)
    cluster.settle()

    pod = cluster.job["spec"]["template"]["spec"]
    mounts = {volume["name"]: volume for volume in pod["volumes"]}
    assert mounts["data"]["configMap"]["name"] == "tickets"
    spec = RunSpec.model_validate_json(cluster.objects["ConfigMap", "pp-triage-1-spec"]["data"]["run.json"])
    assert (spec.kind, spec.run.attempt, spec.dataset.path) == ("validate", 1, f"{names.DATA_FOLDER}/data.jsonl")
    assert spec.program.digest == cluster.status["programDigest"]
    assert cluster.job["spec"]["backoffLimit"] == 0
    role = cluster.objects["Role", "pp-triage-pod"]
    assert role["rules"][0]["resourceNames"] == ["pp-triage-pod"]
    for kind, name in (("Job", "pp-triage-1"), ("ConfigMap", "pp-triage-1-spec"), ("ConfigMap", "pp-triage-pod")):
        (owner,) = cluster.objects[kind, name]["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"]) == (cluster.program["metadata"]["uid"], True)
        assert "blockOwnerDeletion" not in owner


def test_inline_rows_lie_beside_run_json() -> None:
    cluster = Cluster()
    cluster.apply_program({"dataset.source.inline.data": '{"ticket": "x"}'})
    cluster.settle()

    data = cluster.objects["ConfigMap", "pp-triage-1-spec"]["data"]
    assert data["inline.jsonl"] == '{"ticket": "x"}'
    assert json.loads(data["run.json"])["dataset"]["path"] == f"{names.DATA_FOLDER}/inline.jsonl"


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        pytest.param(EDIT, True, id="other instructions"),
        pytest.param({"metric.type": "F1"}, True, id="another metric"),
        pytest.param({"dataset.fields": {"label": "category"}}, True, id="other columns"),
        pytest.param({"dataset.limit": 100}, True, id="fewer rows"),
        pytest.param({"dataset.source.inline.data": '{"a": 1}'}, True, id="other rows"),
        pytest.param({"promotion": {"mode": "Manual"}}, False, id="another rule of promotion"),
        pytest.param({"target.endpoint.name": "big"}, False, id="another endpoint"),
        pytest.param({"concurrencyPolicy": "Allow"}, False, id="more runs at a time"),
        pytest.param({}, False, id="the same again"),
    ],
)
def test_only_what_is_computed_is_validated_again(changes: dict[str, Any], again: bool) -> None:
    cluster = Cluster().validated()

    cluster.apply_program(changes)
    cluster.settle()

    assert cluster.jobs() == (["pp-triage-2"] if again else ["pp-triage-1"])
    assert cluster.says("Ready") == (("False", "Validating") if again else ("True", "Serving"))
    assert cluster.status["servedRevision"]["name"], "what was served is served on"
    assert cluster.status["observedGeneration"] == cluster.program["metadata"]["generation"]


def test_the_last_job_stays_for_its_log_until_the_next_content() -> None:
    cluster = Cluster().validated()
    assert cluster.jobs() == ["pp-triage-1"]

    cluster.apply_program(EDIT)
    cluster.settle()

    assert cluster.jobs() == ["pp-triage-2"]
    assert cluster.config_map("pp-triage-1-spec") is None


def test_an_edit_in_the_middle_waits_for_the_old_pod_and_ignores_its_words() -> None:
    cluster = Cluster()
    cluster.apply_program()
    cluster.settle()
    pod = cluster.put_pod(cluster.job, {"phase": "Running"})
    late = cluster.answer()

    cluster.apply_program(EDIT)
    cluster.settle()
    assert cluster.jobs() == [], "the pod still runs, and has the same channel"

    channel = cluster.objects["ConfigMap", "pp-triage-pod"]
    cluster.put({**channel, "data": late})
    cluster.remove("Pod", pod["metadata"]["name"])
    cluster.settle()
    assert cluster.jobs() == ["pp-triage-2"]
    assert cluster.says("Ready") == ("False", "Validating")

    cluster.pod_reports()
    cluster.settle()
    assert cluster.says("Ready") == ("True", "Serving")


def test_a_pod_on_a_lost_node_is_not_waited_for() -> None:
    cluster = Cluster()
    cluster.apply_program()
    cluster.settle()
    cluster.put_pod(cluster.job, {"phase": "Running"})
    cluster.apply_program(EDIT)
    cluster.settle()
    assert cluster.jobs() == []

    cluster.pass_time(seconds=61)
    cluster.settle()

    assert cluster.jobs() == ["pp-triage-2"]


@pytest.mark.parametrize(
    ("end", "words"),
    [
        pytest.param(killed(), "OOMKilled, exit code 137", id="killed for its memory"),
        pytest.param({"reason": "Evicted", "message": "low on disk"}, "Evicted: low on disk", id="evicted"),
        pytest.param({"reason": "NodeLost"}, "NodeLost", id="its node is gone"),
        pytest.param(killed(1, "Error"), "exit code 1", id="a crash without a word"),
        pytest.param({}, "the pod left nothing behind", id="no pod at all"),
    ],
)
def test_an_accident_is_told_and_tried_again_after_a_pause(end: dict[str, Any], words: str) -> None:
    cluster = Cluster()
    cluster.apply_program()
    cluster.settle()

    cluster.job_ends(complete=False, **end)
    cluster.settle()

    assert cluster.jobs() == ["pp-triage-1"]
    assert cluster.condition("Accepted") == (
        "Unknown",
        "Validating",
        f"try 1 failed: {words}; the next follows in 10 s",
    )
    assert cluster.plan.requeue_after is not None
    assert cluster.plan.requeue_after.total_seconds() == 10

    cluster.pass_time(seconds=10)
    cluster.settle()
    assert cluster.jobs() == ["pp-triage-2"]
    assert cluster.status["validation"] == {
        "try": 2,
        "jobName": "pp-triage-2",
        "source": cluster.status["validation"]["source"],
    }
    labels = cluster.job["metadata"]["labels"]
    assert (labels[names.LABEL_ATTEMPT], labels[names.LABEL_TRY]) == ("1", "2")

    cluster.pod_reports()
    cluster.job_ends()
    cluster.settle()
    assert cluster.says("Ready") == ("True", "Serving")


def test_a_job_past_its_deadline_is_an_accident() -> None:
    cluster = Cluster()
    cluster.apply_program()
    cluster.settle()
    cluster.job_ends(complete=False, job_reason="DeadlineExceeded")
    cluster.settle()

    assert "DeadlineExceeded" in cluster.condition("Accepted")[2]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({"reason": Reason.INTERNAL_ERROR, "message": "a bug"}, id="a bug of ours (exit 70)"),
        pytest.param({"reason": Reason.STOPPED, "message": "a signal"}, id="preempted (exit 51)"),
        pytest.param(
            {"reason": Reason.DATASET_NOT_FOUND, "message": "no file"}, id="its node had not heard of the rows"
        ),
        pytest.param({"reason": Reason.CODE_NOT_FOUND, "message": "no file"}, id="its node had not heard of the code"),
    ],
)
def test_an_end_that_is_nobodys_fault_is_tried_again(answer: dict[str, Any]) -> None:
    cluster = Cluster()
    cluster.apply_program()
    cluster.settle()
    cluster.pod_reports(**answer)
    cluster.settle()
    assert cluster.jobs() == ["pp-triage-1"], "its Job has not ended yet"

    cluster.job_ends(complete=False)
    cluster.settle()
    assert f"{answer['reason'].value}: {answer['message']}" in cluster.condition("Accepted")[2]

    cluster.pass_time(seconds=10)
    cluster.settle()
    assert cluster.jobs() == ["pp-triage-2"]
    assert [event.reason for event in cluster.events] == [ProgramReason.VALIDATION_FAILED]


def test_a_vanished_job_is_an_accident() -> None:
    cluster = Cluster()
    cluster.apply_program()
    cluster.settle()

    cluster.remove("Job", "pp-triage-1")
    cluster.settle()

    assert cluster.jobs() == ["pp-triage-2"]
    assert cluster.condition("Accepted")[2] == "a pod checks program, rows and metric, try 2"


def test_files_that_are_not_what_the_pod_said_are_an_accident() -> None:
    cluster = Cluster()
    cluster.apply_program()
    cluster.settle()
    cluster.pod_reports()
    channel = cluster.objects["ConfigMap", "pp-triage-pod"]
    cluster.put({**channel, "data": {**channel["data"], "revision.program.py": "# torn"}})
    cluster.job_ends()
    cluster.settle()

    assert cluster.revisions() == []
    assert "the files of the baseline revision are not what the pod said" in cluster.condition("Accepted")[2]


@pytest.mark.parametrize("text", ["{", "[]", '{"try": "x"}'])
def test_a_torn_result_is_as_if_the_pod_had_said_nothing(text: str) -> None:
    cluster = Cluster()
    cluster.apply_program()
    cluster.settle()
    channel = cluster.objects["ConfigMap", "pp-triage-pod"]
    cluster.put({**channel, "data": {names.KEY_RESULT: text}})
    cluster.settle()
    assert cluster.says("Accepted") == ("Unknown", "Validating")


def test_tries_end_and_their_pauses_grow() -> None:
    cluster = Cluster()
    cluster.apply_program()
    pauses = []
    for _ in range(4):
        cluster.settle()
        cluster.job_ends(complete=False, **killed())
        cluster.settle()
        if cluster.plan.requeue_after is not None:
            pauses.append(cluster.plan.requeue_after.total_seconds())
            cluster.pass_time(seconds=pauses[-1])

    assert pauses == [10, 60, 300]
    assert cluster.says("Accepted") == ("Unknown", "ValidationFailed")
    assert cluster.says("Stalled") == ("True", "ValidationFailed")
    cluster.pass_time(days=30)
    assert cluster.settle() == 0
    cluster.restart()
    assert cluster.settle() == 0


def test_a_refused_program_is_checked_again_by_another_runner() -> None:
    cluster = Cluster()
    cluster.apply_program()
    cluster.settle()
    cluster.pod_reports(reason=Reason.INVALID_PROGRAM, message="no Enum types yet")
    cluster.job_ends(complete=False)
    cluster.settle()
    cluster.restart(SETTINGS)
    assert cluster.settle() == 0, "by the same one it is not"

    cluster.restart(Settings(runner_image="runner:2", operator_image="operator:2"))
    cluster.settle()

    assert cluster.job["spec"]["template"]["spec"]["containers"][0]["image"] == "runner:2"


def test_an_accepted_program_is_not_checked_again_by_another_runner() -> None:
    cluster = Cluster().validated()
    cluster.restart(Settings(runner_image="runner:2", operator_image="operator:2"))
    assert cluster.settle() == 0


@pytest.mark.parametrize(
    ("status", "words"),
    [
        pytest.param(
            {
                "phase": "Pending",
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes: cpu"}
                ],
            },
            "Unschedulable: 0/1 nodes: cpu",
            id="no node takes it",
        ),
        pytest.param(waiting("CreateContainerError", "no space"), "CreateContainerError: no space", id="no container"),
        pytest.param(waiting("ContainerCreating"), "a pod checks program, rows and metric", id="it is on its way"),
    ],
)
def test_a_pod_that_does_not_start_is_told(status: dict[str, Any], words: str) -> None:
    cluster = Cluster()
    cluster.apply_program()
    cluster.settle()
    cluster.put_pod(cluster.job, status)
    cluster.settle()

    assert cluster.condition("Accepted") == ("Unknown", "Validating", words)


@pytest.mark.parametrize("said", [{"try_": 7}, {"try_": 10**9}])
def test_the_words_of_another_try_are_ignored(said: dict[str, int]) -> None:
    cluster = Cluster()
    cluster.apply_program()
    cluster.settle()
    cluster.pod_reports(**said)
    cluster.settle()
    assert cluster.says("Accepted") == ("Unknown", "Validating")

    cluster.apply_program(EDIT)
    cluster.settle()
    assert cluster.status["validation"]["try"] <= 8
    assert cluster.says("Accepted") == ("Unknown", "Validating")


def test_the_result_counts_before_the_job_controller_has_spoken() -> None:
    cluster = Cluster()
    cluster.apply_program()
    cluster.settle()
    cluster.pod_reports()
    cluster.settle()

    assert cluster.says("Ready") == ("True", "Serving")


def test_a_result_that_the_watch_is_late_with_is_read() -> None:
    cluster = Cluster()
    cluster.apply_program()
    cluster.settle()
    at = ("ConfigMap", "pp-triage-pod")
    before = cluster.objects[at]
    cluster.pod_reports()
    cluster.job_ends()
    cluster.late[at], cluster.objects[at] = cluster.objects[at], before

    cluster.settle()

    assert cluster.says("Ready") == ("True", "Serving")


def test_a_status_lost_in_the_middle_starts_no_second_pod() -> None:
    cluster = Cluster()
    cluster.apply_program()
    cluster.settle()
    cluster.lose_status()
    cluster.restart()
    cluster.settle()

    assert cluster.jobs() == ["pp-triage-1"]
    assert cluster.status["validation"]["try"] == 1


def test_a_program_made_anew_waits_until_the_old_ones_objects_are_gone() -> None:
    cluster = Cluster().validated()
    old = dict(cluster.objects)
    cluster.remove("PromptProgram", "triage")
    for at in (("Job", "pp-triage-1"), ("ConfigMap", "pp-triage-1-spec"), ("ConfigMap", "pp-triage-pod")):
        cluster.objects[at] = old[at]  # the garbage collector has not come yet
    cluster.apply_program(EDIT)
    cluster.settle()
    assert cluster.condition("Accepted")[2] == "objects of an earlier program of this name are being removed"

    for at in (("Job", "pp-triage-1"), ("ConfigMap", "pp-triage-1-spec"), ("ConfigMap", "pp-triage-pod")):
        cluster.remove(*at)
    cluster.settle()

    assert cluster.says("Accepted") == ("Unknown", "Validating")
    assert len(cluster.jobs()) == 1


def test_a_baseline_without_exported_rows_is_another_content() -> None:
    cluster = Cluster().validated()
    first = cluster.status["baselineRevision"]
    cluster.apply_program({"dataset.exportRows": False})
    cluster.settle()
    cluster.pod_reports(files=files_of("without rows"))
    cluster.settle()

    assert cluster.status["baselineRevision"] != first
    assert cluster.status["servedRevision"]["name"] == cluster.status["baselineRevision"]


# --- rows in a ConfigMap ----------------------------------------------------------------------------------------------


def test_a_missing_config_map_is_looked_for_ever_more_seldom() -> None:
    cluster = Cluster()
    cluster.apply_program(ROWS)
    waits = []
    for _ in range(8):
        cluster.settle()
        assert cluster.plan.requeue_after is not None
        waits.append(cluster.plan.requeue_after.total_seconds())
        cluster.pass_time(seconds=waits[-1])

    assert waits == [5, 5, 10, 20, 40, 60, 60, 60]
    assert cluster.jobs() == []


def test_edited_rows_are_noticed_within_five_minutes() -> None:
    cluster = Cluster()
    cluster.apply_rows("{}")
    cluster.validated(ROWS)
    cluster.apply_rows("{}\n{}")
    cluster.settle()
    assert cluster.jobs() == ["pp-triage-1"], "nobody watches users' ConfigMaps"

    assert cluster.plan.requeue_after is not None
    cluster.pass_time(seconds=cluster.plan.requeue_after.total_seconds())
    cluster.settle()

    assert cluster.jobs() == ["pp-triage-2"]
    assert cluster.says("Ready") == ("False", "Validating")


def test_mended_rows_are_noticed_soon() -> None:
    cluster = Cluster()
    cluster.apply_rows()
    cluster.apply_program(ROWS)
    cluster.settle()
    cluster.pod_reports(reason=Reason.INVALID_DATASET, message="no column")
    cluster.job_ends(complete=False)
    cluster.settle()
    assert cluster.plan.requeue_after is not None
    assert cluster.plan.requeue_after.total_seconds() == 5
    cluster.pass_time(days=2)
    cluster.settle()
    assert cluster.plan.requeue_after.total_seconds() == 60

    cluster.apply_rows("{}\n{}")
    cluster.pass_time(seconds=60)
    cluster.settle()

    assert cluster.jobs() == ["pp-triage-2"]


def test_a_new_run_makes_us_look_at_the_rows_at_once() -> None:
    cluster = Cluster()
    cluster.apply_rows("{}")
    cluster.validated(ROWS)
    cluster.pass_time(seconds=30)
    cluster.apply_rows("{}\n{}")
    cluster.put({"apiVersion": "v1", "kind": "OptimizationRun", "metadata": {"name": "fast"}, "spec": {}})
    cluster.settle()

    assert cluster.jobs() == ["pp-triage-2"]


def test_rows_are_not_read_at_each_word_of_a_run() -> None:
    cluster = Cluster()
    cluster.apply_rows("{}")
    cluster.validated(ROWS)
    cluster.pass_time(seconds=5)
    run = cluster.put({"apiVersion": "v1", "kind": "OptimizationRun", "metadata": {"name": "fast"}, "spec": {}})
    cluster.pass_time(seconds=5)
    cluster.settle()
    cluster.reads.clear()

    for percent in range(50):
        run = cluster.put({**run, "status": {"progress": {"percent": percent}}})
        cluster.pass_time(seconds=2)
        cluster.look()

    assert cluster.reads == []


def test_an_edit_reads_the_rows_again() -> None:
    cluster = Cluster()
    cluster.apply_rows("{}")
    cluster.validated(ROWS)
    version = cluster.apply_rows("{}\n{}")["metadata"]["resourceVersion"]
    cluster.apply_program(ROWS | EDIT)
    cluster.settle()

    assert cluster.status["validation"]["source"].endswith(f"/{version}")


def test_deleted_rows_leave_what_is_served() -> None:
    cluster = Cluster()
    cluster.apply_rows()
    cluster.validated(ROWS)
    served = cluster.status["servedRevision"]
    del cluster.unwatched["ConfigMap", "tickets"]
    cluster.pass_time(minutes=5)
    cluster.settle()

    assert cluster.says("Accepted") == ("False", "DatasetNotFound")
    assert cluster.status["servedRevision"] == served
    assert cluster.status["dataset"]["rows"] == 200

    cluster.apply_rows()
    cluster.pass_time(seconds=60)
    cluster.settle()
    assert cluster.jobs() == ["pp-triage-2"], "another object may hold other rows"


def test_a_spec_that_does_not_parse_leaves_what_is_served() -> None:
    cluster = Cluster().validated()
    served = cluster.status["servedRevision"]
    cluster.apply_program({"metric.type": REMOVED})
    cluster.settle()

    assert cluster.condition("Accepted") == ("False", "InvalidMetric", "spec.metric.type: is required")
    assert cluster.status["servedRevision"] == served
    assert cluster.current["data"]
    cluster.lose_status()
    cluster.settle()
    assert cluster.status["servedRevision"] == served


def test_every_end_is_told_once() -> None:
    cluster = Cluster().validated()
    assert [event.reason for event in cluster.events] == [ProgramReason.ACCEPTED, ProgramReason.SERVING]
    cluster.restart()
    cluster.pass_time(minutes=7)
    cluster.settle()
    assert len(cluster.events) == 2


# --- volumes, and parts with sources of their own ---------------------------------------------------------------------

ON_A_VOLUME = {
    "dataset.source": {
        "type": "PersistentVolumeClaim",
        "persistentVolumeClaim": {"claimName": "tickets", "path": "2026/rows.csv.gz"},
    },
    "dataset.format": "CSV",
}
THREE_SOURCES = {
    **ROWS,
    "dataset.split": {
        "type": "Sources",
        "sources": {
            "validation": {"type": "Inline", "inline": {"data": "{}"}},
            "test": {"type": "ConfigMap", "configMap": {"name": "held-out", "key": "data.jsonl"}},
        },
    },
}


def test_rows_on_a_volume_wait_for_it_and_are_mounted_read_only() -> None:
    cluster = Cluster()
    cluster.apply_program(ON_A_VOLUME)
    cluster.settle()
    assert cluster.says("Accepted") == ("False", ProgramReason.DATASET_NOT_FOUND)
    assert cluster.condition("Accepted")[2] == (
        "spec.dataset.source.persistentVolumeClaim.claimName: PersistentVolumeClaim team-a/tickets does not exist; "
        "creating it is enough"
    )
    cluster.put_foreign("PersistentVolumeClaim", "tickets")
    cluster.pass_time(seconds=60)
    cluster.settle()
    spec = RunSpec.model_validate_json(cluster.objects["ConfigMap", "pp-triage-1-spec"]["data"]["run.json"])
    assert (spec.dataset.path, spec.dataset.root) == ("/data/0/2026/rows.csv.gz", "/data/0")
    pod = cluster.job["spec"]["template"]["spec"]
    assert {volume["name"]: volume for volume in pod["volumes"]}["data"] == {
        "name": "data",
        "persistentVolumeClaim": {"claimName": "tickets", "readOnly": True},
    }


def test_a_volume_that_changes_its_labels_is_not_validated_again_but_another_one_of_its_name_is() -> None:
    cluster = Cluster()
    cluster.put_foreign("PersistentVolumeClaim", "tickets")
    cluster.validated(ON_A_VOLUME)
    claim = cluster.unwatched["PersistentVolumeClaim", "tickets"]
    claim["metadata"] = {**claim["metadata"], "resourceVersion": "2"}
    cluster.pass_time(minutes=10)
    cluster.settle()
    assert cluster.jobs() == ["pp-triage-1"]
    claim["metadata"] = {**claim["metadata"], "uid": "another"}
    cluster.pass_time(minutes=10)
    cluster.settle()
    assert cluster.jobs()[-1] == "pp-triage-2"


def test_each_source_is_waited_for_mounted_and_noticed_when_it_changes() -> None:
    cluster = Cluster()
    cluster.apply_rows()
    cluster.apply_program(THREE_SOURCES)
    cluster.settle()
    assert cluster.condition("Accepted")[2].startswith(
        "spec.dataset.split.sources.test.configMap.name: ConfigMap team-a/held-out does not exist"
    )
    cluster.apply_rows(name="held-out")
    cluster.pass_time(seconds=60)
    cluster.settle()
    data = cluster.objects["ConfigMap", "pp-triage-1-spec"]["data"]
    dataset = RunSpec.model_validate_json(data["run.json"]).dataset
    assert dataset.split.validation is not None and dataset.split.test is not None
    paths = (dataset.path, dataset.split.validation.path, dataset.split.test.path)
    assert paths == ("/data/0/data.jsonl", "/data/1/inline-1.jsonl", "/data/2/data.jsonl")
    assert data["inline-1.jsonl"] == "{}"
    pod = cluster.job["spec"]["template"]["spec"]
    mounted = {volume["name"]: volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume}
    assert mounted == {
        "spec": "pp-triage-1-spec",
        "data": "tickets",
        "data-1": "pp-triage-1-spec",
        "data-2": "held-out",
    }
    cluster.pod_reports()
    cluster.job_ends()
    cluster.settle()
    assert cluster.says("Accepted") == ("True", ProgramReason.ACCEPTED)
    cluster.apply_rows("{}\n{}", name="held-out")
    cluster.pass_time(minutes=10)
    cluster.settle()
    assert cluster.jobs()[-1] == "pp-triage-2"


OVER_HTTP = {
    "dataset.source": {
        "type": "HTTP",
        "http": {"url": "https://data.example/t/rows.csv.gz?x=1", "headersSecret": {"name": "token"}},
    },
    "dataset.format": "CSV",
}


def test_rows_of_a_url_are_fetched_by_the_pod_with_the_secrets_headers_as_files() -> None:
    cluster = Cluster()
    cluster.apply_program(OVER_HTTP)
    cluster.settle()
    spec = RunSpec.model_validate_json(cluster.objects["ConfigMap", "pp-triage-1-spec"]["data"]["run.json"])
    assert spec.dataset.path.startswith("/work/rows/") and spec.dataset.path.endswith("/rows.csv.gz")
    assert spec.dataset.http is not None
    assert (spec.dataset.http.headers_folder, spec.dataset.http.headers_secret) == ("/secrets/data-0", "token")
    pod = cluster.job["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert "data" not in volumes
    assert volumes["headers-0"]["secret"] == {"secretName": "token", "optional": True}
    (mount,) = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "headers-0"]
    assert mount == {"name": "headers-0", "mountPath": "/secrets/data-0", "readOnly": True}


def test_headers_of_tools_are_mounted_from_their_secret_which_is_validated_anew_where_it_is_another() -> None:
    cluster = Cluster()
    retrieve = {"http": {"url": "http://search.example/query", "headersSecret": {"name": "token"}}}
    program = {
        "type": "Graph",
        "graph": {
            "inputs": [{"name": "text", "type": "str"}],
            "nodes": {"found": {"retrieve": retrieve, "inputs": {"query": "inputs.text"}}},
            "output": {"label": "found.passages"},
        },
    }
    cluster.apply_program({"program": program})
    cluster.settle()
    spec = RunSpec.model_validate_json(cluster.objects["ConfigMap", "pp-triage-1-spec"]["data"]["run.json"])
    assert spec.headers == {"token": "/secrets/headers/token"}
    pod = cluster.job["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["program-headers-0"]["secret"] == {"secretName": "token", "optional": True}
    (mount,) = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "program-headers-0"]
    assert mount == {"name": "program-headers-0", "mountPath": "/secrets/headers/token", "readOnly": True}
    retrieve["http"] = {**retrieve["http"], "headersSecret": {"name": "other"}}
    cluster.apply_program({"program": program})
    cluster.settle()
    assert cluster.jobs()[-1] == "pp-triage-2"


IN_A_BUCKET = {
    "dataset.source": {
        "type": "S3",
        "s3": {
            "endpoint": "http://minio.storage.svc:9000",
            "bucket": "tickets",
            "key": "2026/rows.csv.gz",
            "credentialsSecret": {"name": "bucket"},
        },
    },
    "dataset.format": "CSV",
}


def test_rows_of_a_bucket_are_fetched_by_the_pod_with_the_secrets_credentials_as_files() -> None:
    cluster = Cluster()
    cluster.apply_program(IN_A_BUCKET)
    cluster.settle()
    spec = RunSpec.model_validate_json(cluster.objects["ConfigMap", "pp-triage-1-spec"]["data"]["run.json"])
    assert spec.dataset.path.startswith("/work/rows/") and spec.dataset.path.endswith("/rows.csv.gz")
    assert spec.dataset.http is None and spec.dataset.s3 is not None
    assert (spec.dataset.s3.bucket, spec.dataset.s3.key) == ("tickets", "2026/rows.csv.gz")
    assert (spec.dataset.s3.credentials_folder, spec.dataset.s3.credentials_secret) == ("/secrets/data-0", "bucket")
    pod = cluster.job["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert "data" not in volumes
    assert volumes["credentials-0"]["secret"] == {"secretName": "bucket", "optional": True}
    (mount,) = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "credentials-0"]
    assert mount == {"name": "credentials-0", "mountPath": "/secrets/data-0", "readOnly": True}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"key": "2027/rows.csv.gz"}, id="another object"),
        pytest.param({"bucket": "others"}, id="another bucket"),
        pytest.param({"sha256": "0" * 64}, id="another checksum"),
        pytest.param({"endpoint": "http://other.storage.svc:9000"}, id="another server, which may hold other rows"),
    ],
)
def test_rows_of_another_place_are_validated_anew(change: dict[str, str]) -> None:
    cluster = Cluster()
    cluster.apply_program(IN_A_BUCKET)
    cluster.settle()
    cluster.pod_reports()
    cluster.job_ends()
    cluster.settle()
    assert cluster.says("Accepted") == ("True", ProgramReason.ACCEPTED)
    source: dict[str, Any] = IN_A_BUCKET["dataset.source"]  # type: ignore[assignment]
    cluster.apply_program(IN_A_BUCKET | {"dataset.source": {"type": "S3", "s3": source["s3"] | change}})
    cluster.settle()
    assert cluster.says("Accepted") == ("Unknown", ProgramReason.VALIDATING)


@pytest.mark.parametrize(
    "reason",
    [Reason.SECRET_MISSING, Reason.DATASET_NOT_FOUND, Reason.ENDPOINT_UNAVAILABLE, Reason.AUTHENTICATION_FAILED],
)
def test_what_only_a_pod_can_see_is_waited_for_without_an_end(reason: Reason) -> None:
    cluster = Cluster()
    cluster.apply_program(OVER_HTTP)
    cluster.settle()
    for tries in range(1, 8):
        cluster.pod_reports(reason=reason, message="not there")
        cluster.job_ends(complete=False)
        cluster.settle()
        assert cluster.condition("Accepted")[:2] == ("Unknown", ProgramReason.VALIDATING)
        assert f"try {tries} failed: {reason}: not there; the next follows in " in cluster.condition("Accepted")[2]
        cluster.pass_time(minutes=5)
        cluster.settle()
        assert cluster.jobs() == [f"pp-triage-{tries + 1}"]
    cluster.pod_reports()
    cluster.job_ends()
    cluster.settle()
    assert cluster.says("Accepted") == ("True", ProgramReason.ACCEPTED)
