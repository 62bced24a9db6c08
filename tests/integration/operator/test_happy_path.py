"""Endpoint, program and run are applied, and each becomes true and says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dspy_operator.contract import names
from dspy_operator.contract.digests import revision_digest
from tests.integration.operator.installation import RUNNER_IMAGE
from tests.integration.operator.manifests import a_dataset, a_program, a_run, an_endpoint, an_ollama_endpoint, rows
from tests.integration.operator.namespace import Namespace, condition_of
from tests.simulator import Play, Server, Step


def test_a_run_makes_a_revision_that_is_promoted_and_served(namespace: Namespace) -> None:
    namespace.apply(an_endpoint(), a_dataset(), a_program(), a_run())

    complete = namespace.condition("OptimizationRun", "fast", "Complete", "True", "Completed")
    run = namespace.wait(
        "OptimizationRun", "fast", lambda body: "name" in body["status"].get("revision", {}), "pointing at its revision"
    )
    status = run["status"]
    assert complete["observedGeneration"] == 1
    assert (status["phase"], status["outcome"], status["attempt"], status["try"]) == ("Succeeded", "Improved", 1, 1)
    assert status["jobName"] == names.run_job("fast", 1)
    assert status["scores"]["test"] == {"baseline": "50", "candidate": "90"}
    assert status["usage"]["calls"] == 160
    assert status["inputs"]["runnerImage"] == RUNNER_IMAGE
    assert condition_of(run, "Ready")["status"] == "True"

    program = namespace.wait(
        "PromptProgram",
        "triage",
        lambda body: body["status"].get("promotedRevision", {}).get("run") == "fast",
        "promoting the candidate",
    )
    served = program["status"]["servedRevision"]
    assert served["name"] == status["revision"]["name"] != program["status"]["baselineRevision"]
    revision = namespace.get("ConfigMap", served["name"])
    files = revision["data"]
    digest = revision_digest(*(files[name].encode() for name in ("program.py", "program.json", "prompts.json")))
    assert revision["immutable"] is True
    assert digest == revision["metadata"]["annotations"][names.ANNOTATION_DIGEST] == status["revision"]["digest"]
    current = namespace.get("ConfigMap", "triage-current")
    assert current["data"] == files
    entry = namespace.account()["fast"]
    assert entry["used"]["calls"] == 160
    assert entry.get("reserved", {}).get("calls", 0) == 0
    assert sum(entry["testLooks"].values()) == 1
    assert namespace.simulator.tries(namespace.name, "fast") == [1]


def test_a_program_alone_serves_its_baseline(namespace: Namespace) -> None:
    namespace.apply(an_endpoint(), a_dataset(), a_program())
    namespace.condition("PromptProgram", "triage", "Ready", "True")
    program = namespace.get("PromptProgram", "triage")
    assert program["status"]["dataset"] | {"digest": 0, "testDigest": 0} == {
        "rows": 180,
        "train": 60,
        "validation": 60,
        "test": 60,
        "dropped": 0,
        "digest": 0,
        "testDigest": 0,
    }
    assert program["status"]["servedRevision"]["name"] == program["status"]["baselineRevision"]
    current = namespace.get("ConfigMap", "triage-current")
    assert current["data"] == namespace.get("ConfigMap", program["status"]["baselineRevision"])["data"]


def test_rows_in_the_manifest_need_no_config_map(namespace: Namespace) -> None:
    source = {"type": "Inline", "inline": {"data": rows()}}
    namespace.apply(an_endpoint(), a_program(dataset__source=source), a_run())
    namespace.condition("OptimizationRun", "fast", "Complete", "True", "Completed")


def test_a_program_follows_its_rows_when_they_change(namespace: Namespace) -> None:
    namespace.apply(an_endpoint(), a_dataset(), a_program())
    namespace.condition("PromptProgram", "triage", "Ready", "True")
    more = a_dataset("more", rows(240))
    source = {"type": "ConfigMap", "configMap": {"name": "more", "key": "data.jsonl"}}
    namespace.apply(more, a_program(dataset__source=source))
    namespace.wait("PromptProgram", "triage", lambda body: body["status"]["dataset"]["rows"] == 240, "seeing the rows")


def test_a_run_waits_for_its_model_and_scales_it_back(namespace: Namespace) -> None:
    scaling = {"minReplicas": 0, "maxReplicas": 1, "scaleDownDelay": "1s"}
    namespace.simulator.endpoint_plays(namespace.name, "qwen", Server(percents=(25, 60), waits_at=60))
    namespace.apply(an_ollama_endpoint(scaling=scaling), a_dataset(), a_program())
    namespace.condition("ModelEndpoint", "qwen", "Ready", "True", "ScaledToZero")
    namespace.condition("PromptProgram", "triage", "Ready", "True")

    namespace.apply(a_run())
    namespace.wait(
        "ModelEndpoint", "qwen", lambda body: body["status"].get("pull", {}).get("percent") == 60, "pulling, at 60 %"
    )
    namespace.phase("fast", "Starting")
    # What only moves is told every 15 s.
    namespace.condition("OptimizationRun", "fast", "Complete", "False", "Starting", words=("qwen", "60 %"))
    assert namespace.simulator.tries(namespace.name, "fast") == []
    namespace.simulator.release(namespace.name, "qwen")

    namespace.condition("OptimizationRun", "fast", "Complete", "True", "Completed")
    inputs = namespace.get("OptimizationRun", "fast")["status"]["inputs"]
    assert inputs["endpoints"]["task"]["modelDigest"].startswith("sha256:")
    namespace.condition("ModelEndpoint", "qwen", "Ready", "True", "ScaledToZero")
    namespace.wait("Deployment", "mep-qwen", lambda body: body["spec"]["replicas"] == 0, "at 0 replicas")


def test_progress_reaches_the_status_of_a_running_run(namespace: Namespace) -> None:
    namespace.simulator.run_plays(namespace.name, "fast", Play(waits_at=Step.JUDGE))
    namespace.apply(an_endpoint(), a_dataset(), a_program(), a_run())
    running = namespace.wait(
        "OptimizationRun",
        "fast",
        lambda body: body.get("status", {}).get("progress", {}).get("step") == "judge",
        "judging",
        seconds=40,  # progress is written at most every 15 s
    )
    assert running["status"]["progress"]["trialsDone"] == 10
    assert running["status"]["phase"] == "Judging"
    namespace.simulator.release(namespace.name, "fast")
    namespace.condition("OptimizationRun", "fast", "Complete", "True", "Completed")


def test_the_same_inputs_are_not_paid_twice(namespace: Namespace) -> None:
    namespace.apply(an_endpoint(), a_dataset(), a_program(promotion={"mode": "Manual"}), a_run("first"))
    namespace.condition("OptimizationRun", "first", "Complete", "True", "Completed")
    namespace.apply(a_run("second"))
    namespace.condition("OptimizationRun", "second", "Complete", "True", "Reused")
    second = namespace.get("OptimizationRun", "second")["status"]
    assert second["outcome"] == "Reused"
    assert second.get("usage", {}).get("calls", 0) == 0
    assert namespace.simulator.tries(namespace.name, "second") == []


def test_an_estimate_calls_no_model(namespace: Namespace) -> None:
    namespace.apply(an_endpoint(), a_dataset(), a_program(), a_run(mode="Estimate"))
    namespace.condition("OptimizationRun", "fast", "Complete", "True", "Estimated")
    status = namespace.get("OptimizationRun", "fast")["status"]
    assert status["estimate"]["calls"] == 160
    assert status.get("usage", {}).get("calls", 0) == 0


def test_a_pin_serves_what_it_names_and_its_end_serves_the_promoted_again(namespace: Namespace) -> None:
    namespace.apply(an_endpoint(), a_dataset(), a_program(), a_run())
    program = namespace.wait(
        "PromptProgram", "triage", lambda body: "promotedRevision" in body.get("status", {}), "promoting"
    )
    promoted, baseline = program["status"]["promotedRevision"]["name"], program["status"]["baselineRevision"]
    assert promoted != baseline

    namespace.apply(a_program(revision={"name": baseline}))
    namespace.wait("PromptProgram", "triage", served(baseline), "serving the baseline")
    namespace.apply(a_program())
    namespace.wait("PromptProgram", "triage", served(promoted), "serving the promoted revision")
    assert namespace.get("ConfigMap", "triage-current")["data"] == namespace.get("ConfigMap", promoted)["data"]


def served(name: str) -> Callable[[dict[str, Any]], bool]:
    return lambda body: bool(body["status"]["servedRevision"]["name"] == name)
