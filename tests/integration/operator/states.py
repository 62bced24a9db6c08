"""Each typical state of each kind, reached by the operator itself: an object is named for the state that it is in."""

from __future__ import annotations

from functools import partial
from typing import Any

from dspy_operator.contract.exits import Reason
from tests.integration.operator.manifests import (
    a_dataset,
    a_program,
    a_run,
    an_endpoint,
    an_ollama_endpoint,
    changed,
    rows,
)
from tests.integration.operator.namespace import Namespace
from tests.simulator import Ends, Failure, Play, Server, Step

Body = dict[str, Any]
RUN, PROGRAM, ENDPOINT = "OptimizationRun", "PromptProgram", "ModelEndpoint"
PRICES = {"currency": "USD", "input": "0.15", "output": "0.60"}


def reach(space: Namespace) -> None:
    """All of them, in one namespace and at the same time."""
    _endpoints(space)
    _programs(space)
    _runs(space)
    _wait_for_endpoints(space)
    _wait_for_programs(space)
    _wait_for_runs(space)


def _endpoints(space: Namespace) -> None:
    sim, here = space.simulator, space.name
    sim.endpoint_plays(here, "loaded", Server(percents=(), waits_loading=True))
    sim.endpoint_plays(here, "pulling", Server(percents=(41,), waits_at=41))
    sim.model_failures["gone:1b"] = ("ModelNotFound", "pull of gone:1b: pull model manifest: file does not exist")
    sim.model_failures["away:1b"] = (
        "PullFailed",
        "pull of away:1b: dial tcp 10.0.0.9:5000: connect: connection refused",
    )
    on_demand = {"minReplicas": 0, "maxReplicas": 2}
    space.apply(
        an_endpoint("qwen", pricing=PRICES),
        an_endpoint("narrow", limits={"concurrency": 2}),
        changed(an_endpoint("keyed"), provider__openai__apiKeySecret={"name": "keys", "key": "token"}),
        an_ollama_endpoint("loaded"),
        an_ollama_endpoint("idle", scaling=on_demand),
        an_ollama_endpoint("pulling", scaling=on_demand),
        an_ollama_endpoint("stopped", replicas=0),
        an_ollama_endpoint("model-not-found", model="gone:1b"),
        an_ollama_endpoint("pull-failed", model="away:1b"),
    )


def _programs(space: Namespace) -> None:
    space.simulator.validation_plays(space.name, "validating", Play(waits_at=Step.LOAD))
    other_rows = {"name": "absent", "key": "data.jsonl"}
    space.apply(
        a_dataset(),
        a_dataset("half-bad", text="nonsense\n{}\n" + rows()),
        a_program("triage", concurrencyPolicy="Allow"),
        a_program("promoted"),
        a_program("manual", promotion={"mode": "Manual"}),
        a_program("not-improved"),
        a_program("stopped"),
        a_program("queueing"),
        a_program("pinned"),
        a_program("pin-not-found", revision={"name": "pin-not-found-00000000"}),
        a_program("dataset-not-found", dataset__source__configMap=other_rows),
        a_program("invalid-metric", metric__exactMatch={"fields": ["mood"]}),
        a_program("rows-dropped", dataset__source__configMap={"name": "half-bad", "key": "data.jsonl"}),
        a_program("validating"),
    )


def _runs(space: Namespace) -> None:
    sim, here = space.simulator, space.name
    waits = Play(waits_at=Step.OPTIMIZE)
    for name in ("improved", "running", "cancelled", "stopped-early"):
        sim.run_plays(here, name, waits)
    for name in ("judging", "suspended"):
        sim.run_plays(here, name, Play(waits_at=Step.JUDGE))
    sim.run_plays(here, "no-improvement", Play(right_after=52))
    refused = Failure(Reason.AUTHENTICATION_FAILED, f"{here}/qwen answers 401: invalid api key")
    sim.run_plays(here, "failed", Play(waits_at=Step.LOAD, ends=Ends(refused, at=Step.PREFLIGHT)))
    down = Failure(Reason.ENDPOINT_UNAVAILABLE, f"{here}/qwen: 10 requests without an answer, the last 503")
    sim.run_plays(here, "endpoint-unavailable", Play(waits_at=Step.LOAD, ends=Ends(down, at=Step.PREFLIGHT)))
    for name in ("estimated", "secret-missing"):
        sim.run_plays(here, name, Play(waits_at=Step.LOAD))
    space.apply(
        a_run("improved", programRef={"name": "promoted"}),
        a_run("no-improvement", programRef={"name": "not-improved"}),
        a_run("budget-exhausted", programRef={"name": "manual"}, budget={"calls": 150}),
        a_run("stopped-early", programRef={"name": "stopped"}),
        a_run("estimated", mode="Estimate"),
        a_run("failed", seed=1),
        a_run("cancelled", seed=2),
        a_run("suspended", seed=3),
        a_run("running", seed=4, concurrency=2, endpoints={"task": {"name": "narrow"}}),
        a_run("starting", endpoints={"task": {"name": "pulling"}}),
        a_run("judging", programRef={"name": "queueing"}),
        a_run("endpoint-not-ready", endpoints={"task": {"name": "model-not-found"}}),
        a_run("pending", programRef={"name": "invalid-metric"}),
        a_run("program-not-found", programRef={"name": "triaeg"}),
        a_run("budget-too-small", budget={"calls": 100}),
        a_run("endpoint-unavailable", seed=6),
        a_run("secret-missing", endpoints={"task": {"name": "keyed"}}),
    )


def _wait_for_endpoints(space: Namespace) -> None:
    for name, reason in (("qwen", "External"), ("idle", "ScaledToZero"), ("stopped", "ScaledToZero")):
        space.condition(ENDPOINT, name, "Ready", "True", reason)
    for name, reason in (("model-not-found", "ModelNotFound"), ("pull-failed", "PullFailed")):
        space.condition(ENDPOINT, name, "Ready", "False", reason)
    space.condition(ENDPOINT, "pulling", "Ready", "False", "Pulling", words=("41 %",))
    space.condition(ENDPOINT, "loaded", "Ready", "False", "Loading")
    space.simulator.release(space.name, "loaded")
    space.condition(ENDPOINT, "loaded", "Ready", "True", "ModelLoaded")


def _wait_for_programs(space: Namespace) -> None:
    space.condition(PROGRAM, "pinned", "Ready", "True")
    baseline = space.get(PROGRAM, "pinned")["status"]["baselineRevision"]
    space.apply(a_program("pinned", revision={"name": baseline}))
    space.condition(PROGRAM, "pinned", "Ready", "True", "Pinned")
    for name, reason in (
        ("dataset-not-found", "DatasetNotFound"),
        ("invalid-metric", "InvalidMetric"),
        ("pin-not-found", "RevisionNotFound"),
        ("validating", "Validating"),
    ):
        space.condition(PROGRAM, name, "Ready", "False", reason)
    space.condition(PROGRAM, "rows-dropped", "Accepted", "True", "RowsDropped")


def _wait_for_runs(space: Namespace) -> None:
    sim, here = space.simulator, space.name
    for name in ("improved", "stopped-early", "cancelled", "failed", "estimated", "running"):
        space.phase(name, "Running")
    space.apply(a_run("cancelled", seed=2, stop="Cancel"))
    space.apply(a_run("stopped-early", programRef={"name": "stopped"}, stop="Finish"))
    for name in ("improved", "failed", "estimated"):
        sim.release(here, name)
    for name in ("suspended", "judging"):
        space.wait(RUN, name, _judges, "judging, and told so")
    space.apply(a_run("suspended", seed=3, suspend=True))
    space.phase("suspended", "Suspended")
    for name, reason in (
        ("improved", "Completed"),
        ("no-improvement", "Completed"),
        ("budget-exhausted", "BudgetExhausted"),
        ("stopped-early", "StoppedEarly"),
        ("estimated", "Estimated"),
    ):
        space.condition(RUN, name, "Complete", "True", reason)
    for name, reason in (("failed", "AuthenticationFailed"), ("cancelled", "Cancelled")):
        space.condition(RUN, name, "Failed", "True", reason)
    for name in ("improved", "no-improvement", "budget-exhausted", "stopped-early"):
        space.wait(RUN, name, lambda body: "name" in body["status"]["revision"], "pointing at its revision")
    for program in ("promoted", "stopped"):
        space.wait(PROGRAM, program, lambda body: "promotedRevision" in body["status"], "promoting")
    for program in ("manual", "not-improved"):
        space.wait(PROGRAM, program, lambda body: "candidates" in body["status"], "told of its candidate")
    space.apply(
        a_run("reused", programRef={"name": "not-improved"}),
        a_run("queued", programRef={"name": "queueing"}, seed=1),
        a_run("endpoint-busy", seed=5, concurrency=2, endpoints={"task": {"name": "narrow"}}),
    )
    space.condition(RUN, "reused", "Complete", "True", "Reused")
    space.condition(RUN, "queued", "Admitted", "False", "Queued")
    space.condition(RUN, "endpoint-busy", "Admitted", "False", "EndpointBusy")
    space.condition(RUN, "endpoint-not-ready", "Admitted", "False", "EndpointNotReady")
    space.condition(RUN, "pending", "Admitted", "False", "ProgramNotReady")
    space.condition(RUN, "budget-too-small", "Accepted", "False", "BudgetTooSmall")
    space.phase("starting", "Starting")
    space.wait(RUN, "running", _tells_how_far_it_is, "told how far it is")
    _wait_for_the_clock(space)


def _wait_for_the_clock(space: Namespace) -> None:
    """What waits for a time to come ends last: these two try again after 30 s and 60 s."""
    for name in ("endpoint-unavailable", "secret-missing"):
        space.wait(RUN, name, _tells_how_far_it_is, "told how far it is")
        space.simulator.release(space.name, name)
    space.condition(RUN, "endpoint-unavailable", "Admitted", "False", "EndpointUnavailable")
    space.condition(RUN, "secret-missing", "Admitted", "False", "SecretMissing")
    space.until(lambda: warned(space, "program-not-found"), "warned of a program that stays absent")
    for name, runs in (("qwen", 1), ("narrow", 1), ("pulling", 1), ("keyed", 0)):
        space.wait(ENDPOINT, name, partial(_is_used_by, runs), f"used by {runs} runs")


def _is_used_by(runs: int, endpoint: Body) -> bool:
    return bool(endpoint["status"]["activeRuns"] == runs)


def warned(space: Namespace, name: str) -> bool:
    """Whether an Event of type Warning is about an object of this name."""
    return any(event["involvedObject"]["name"] == name and event["type"] == "Warning" for event in space.all("Event"))


def _tells_how_far_it_is(body: Body) -> bool:
    return "progress" in body.get("status", {})


def _judges(body: Body) -> bool:
    status = body.get("status", {})
    return status.get("phase") == "Judging" and "best" in status.get("scores", {})
