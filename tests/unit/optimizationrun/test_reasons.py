"""Each reason of a run: what sets it, what it says, and what recovers from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from dspy_operator.api.reasons import RunReason
from dspy_operator.api.status import OptimizationRunStatus
from dspy_operator.contract import names
from dspy_operator.contract.exits import Outcome, Reason
from tests.unit.optimizationrun.builders import (
    a_cluster,
    a_program_is,
    a_revision_is,
    a_run_is,
    an_endpoint_is,
    running,
)
from tests.unit.optimizationrun.cluster import NAMESPACE, Cluster

Hands = Callable[[Cluster], Any]
A_KEY = {"provider.openai.apiKeySecret": {"name": "openai", "key": "token"}}
AWAITED = {"readyWhen": "Finished"}
"""Of a run that is in progress, for kstatus, until it is over."""
PRICED = {"pricing": {"currency": "USD", "input": "0.15", "output": "0.60"}}


@dataclass(frozen=True)
class Row:
    """One reason's life."""

    reason: RunReason
    happens: Hands
    condition: tuple[str, str]
    """Type and status of the condition that shows it."""
    says: str
    """Part of its message."""
    phase: str
    stalled: bool = False
    """Whether it waits for somebody's hand."""
    recovers: Hands | None = None
    """All that a person, or time, has to do until the run has its slots, or its pod."""


CALIBRATED_JUDGE = {
    "type": "Judge",
    "judge": {"instructions": "Is the label right?", "calibration": {"answer": "said", "grade": "human"}},
}


def _react(effects: str) -> dict[str, Any]:
    tool = {"name": "pay", "description": "Pays a bill.", "http": {"url": "http://pay/now"}, "effects": effects}
    return {"type": "ReAct", "react": {"maxIters": 2, "tools": [tool]}}


def _refused(changes: dict[str, Any], *, setup: Hands = lambda cluster: None) -> Hands:
    def happens(cluster: Cluster) -> None:
        setup(cluster)
        a_run_is(cluster, changes)
        cluster.settle()

    return happens


def _pod(*steps: Hands, changes: dict[str, Any] | None = None) -> Hands:
    """A run whose pod is up, and then what befalls it."""

    def happens(cluster: Cluster) -> None:
        a_run_is(cluster, changes)
        running(cluster)
        for step in steps:
            step(cluster)
            cluster.settle()

    return happens


def _ends(reason: Reason, **more: Any) -> Hands:
    return lambda cluster: cluster.ends("fast", reason, message=f"words of {reason}", **more)


def _rerun(cluster: Cluster) -> None:
    cluster.edit("fast", rerun="again")


def _busy(cluster: Cluster) -> None:
    a_run_is(cluster, {"programRef": {"name": "triage"}}, name="first")
    cluster.settle()
    a_program_is(cluster, changes={"concurrencyPolicy": "Allow"})
    cluster.pass_time(seconds=1)
    a_run_is(cluster)
    cluster.settle()


def _pending(status: dict[str, Any], changes: dict[str, Any] | None = None) -> Hands:
    def happens(cluster: Cluster) -> None:
        a_run_is(cluster, changes)
        cluster.settle()
        cluster.pod_of("fast", pending=True)
        cluster.pod_says("fast", status)
        cluster.pass_time(seconds=16)
        cluster.settle()

    return happens


def _waits(reason: str, message: str = "") -> dict[str, Any]:
    waiting = {"reason": reason, "message": message}
    return {"containerStatuses": [{"name": "runner", "image": "runner:1", "state": {"waiting": waiting}}]}


def _later(**duration: float) -> Hands:
    return lambda cluster: cluster.pass_time(**duration)


def _both(*hands: Hands) -> Hands:
    def happens(cluster: Cluster) -> None:
        for hand in hands:
            hand(cluster)
            cluster.settle()

    return happens


def _account_damaged(cluster: Cluster) -> None:
    at = ("ConfigMap", NAMESPACE, names.program_account("triage"))
    body = cluster.server[at]
    cluster.apply({**body, "data": {"fast": "{nonsense"}})


def _retried_out(cluster: Cluster) -> None:
    a_run_is(cluster, {"retries": 1})
    for _ in range(2):
        running(cluster)
        cluster.exits("fast", 137, reason="OOMKilled")
        cluster.settle()
        cluster.pass_time(minutes=6)


IN_PYTHON = {
    "type": "Code",
    "code": {
        "configMap": {"name": "code", "key": "program.py"},
        "entrypoint": "program:build",
        "inputs": [{"name": "ticket", "type": "str"}],
        "outputs": [{"name": "label", "type": "str"}],
    },
}
ROWS = (
    Row(
        RunReason.PROGRAM_NOT_FOUND,
        _refused({"programRef": {"name": "nope"}}),
        ("Accepted", "False"),
        "spec.programRef.name: PromptProgram team-a/nope does not exist (there are: triage)",
        "Rejected",
    ),
    Row(
        RunReason.ENDPOINT_NOT_FOUND,
        _refused({"endpoints": {"task": {"name": "big"}}}),
        ("Accepted", "False"),
        "spec.endpoints.task.name: ModelEndpoint team-a/big does not exist (there are: team-a/qwen)",
        "Rejected",
        recovers=lambda cluster: an_endpoint_is(cluster, name="big"),
    ),
    Row(
        RunReason.REVISION_NOT_FOUND,
        _refused(
            {"startFrom": {"type": "Revision", "revision": {"name": "triage-1f2e3d4c"}}},
            setup=lambda cluster: a_revision_is(cluster, "triage-0badcafe"),
        ),
        ("Accepted", "False"),
        "spec.startFrom.revision.name: PromptProgram team-a/triage has no revision triage-1f2e3d4c (there are: triage-0badcafe)",
        "Rejected",
        recovers=lambda cluster: a_revision_is(cluster, "triage-1f2e3d4c"),
    ),
    Row(
        RunReason.ENDPOINT_NOT_ALLOWED,
        _refused(
            {"endpoints": {"task": {"name": "big", "namespace": "models"}}},
            setup=lambda cluster: an_endpoint_is(cluster, name="big", namespace="models"),
        ),
        ("Accepted", "False"),
        "may be used from its own namespace only; spec.access.namespaces.from: All opens it to team-a",
        "Rejected",
        recovers=lambda cluster: an_endpoint_is(
            cluster, name="big", namespace="models", changes={"access": {"namespaces": {"from": "All"}}}
        ),
    ),
    Row(
        RunReason.ENDPOINT_NOT_ALLOWED,
        _refused(
            {"endpoints": {"task": {"name": "big", "namespace": "models"}}},
            setup=lambda cluster: an_endpoint_is(
                cluster, name="big", namespace="models", changes={"access": {"namespaces": {"from": "All"}}} | A_KEY
            ),
        ),
        ("Accepted", "False"),
        "needs an API key, which no pod of namespace team-a can mount",
        "Rejected",
    ),
    Row(
        RunReason.BUDGET_TOO_SMALL,
        _refused({"budget.calls": 40}),
        ("Accepted", "False"),
        "spec.budget.calls: 41 calls are needed (judgement 40: 40 test rows x 1 programs; preflight 1), given 40",
        "Rejected",
        stalled=True,
        recovers=lambda cluster: cluster.edit("fast", budget={"calls": 41}),
    ),
    Row(
        RunReason.BUDGET_TOO_SMALL,
        _refused(
            {
                "budget.calls": 500,
                "optimizer": {"type": "MIPROv2"},
                "endpoints.task": {"name": "qwen", "request": {"temperature": "0.7"}},
                "repeats": 4,
            }
        ),
        ("Accepted", "False"),
        "calls are needed (judgement 320: 40 test rows x 2 programs x 4 repeats; choice between the best ",
        "Rejected",
        stalled=True,
        recovers=lambda cluster: cluster.edit("fast", repeats=1),
    ),
    Row(
        RunReason.BUDGET_TOO_SMALL,
        _refused(
            {"budget.calls": 82}, setup=lambda cluster: a_program_is(cluster, changes={"adapter": {"type": "Auto"}})
        ),
        ("Accepted", "False"),
        "spec.budget.calls: 83 calls are needed (judgement 80: 40 test rows x 2 programs; preflight 3), given 82",
        "Rejected",
        stalled=True,
        recovers=lambda cluster: cluster.edit("fast", budget={"calls": 83}),
    ),
    Row(
        RunReason.BUDGET_TOO_SMALL,
        _refused(
            {"budget.calls": 83}, setup=lambda cluster: a_program_is(cluster, changes={"metric": CALIBRATED_JUDGE})
        ),
        ("Accepted", "False"),
        "spec.budget.calls: 84 calls are needed (judgement 80: 40 test rows x 1 programs x 2 calls; preflight 2; calibration at least 2), given 83",
        "Rejected",
        stalled=True,
        recovers=lambda cluster: cluster.edit("fast", budget={"calls": 84}),
    ),
    Row(
        RunReason.BUDGET_TOO_SMALL,
        _refused({"budget": {"tokens": 79}}),
        ("Accepted", "False"),
        "spec.budget.tokens: at least 80 tokens are needed (40 calls of the judgement, each of a token sent and one answered at least), given 79",
        "Rejected",
        stalled=True,
        recovers=lambda cluster: cluster.edit("fast", budget={"tokens": 80}),
    ),
    Row(
        RunReason.INVALID_PROGRAM,
        _refused(
            {"budget.calls": 500},
            setup=lambda cluster: a_program_is(cluster, changes={"program.single.module": _react("Unsafe")}),
        ),
        ("Accepted", "False"),
        'PromptProgram team-a/triage: spec.program.single.module.react.tools[0].effects: the tool "pay" is Unsafe: a run calls',
        "Rejected",
        recovers=lambda cluster: a_program_is(cluster, changes={"program.single.module": _react("Safe")}),
    ),
    Row(
        RunReason.PRICING_MISSING,
        _refused({"budget": {"cost": "4.00"}}),
        ("Accepted", "False"),
        "spec.budget.cost: a cost budget needs spec.pricing on every endpoint of the run; team-a/qwen (task) has none",
        "Rejected",
        stalled=True,
        recovers=lambda cluster: an_endpoint_is(cluster, changes=PRICED),
    ),
    Row(
        RunReason.ANSWERS_NOT_FOUND,
        _refused({"answersFrom": {"runs": ["first"]}}),
        ("Accepted", "False"),
        "spec.answersFrom.runs[0]: OptimizationRun team-a/first has no journal: it does not exist, never ran, or was cleaned up",
        "Rejected",
        recovers=lambda cluster: cluster.edit("fast", answersFrom=None),
    ),
    Row(
        RunReason.PROGRAM_NOT_READY,
        _refused({}, setup=lambda cluster: a_program_is(cluster, "InvalidDataset", {"metric.type": "F1"})),
        ("Admitted", "False"),
        "PromptProgram team-a/triage is not ready: InvalidDataset: words of InvalidDataset",
        "Pending",
        recovers=lambda cluster: a_program_is(cluster, changes={"metric.type": "F1"}),
    ),
    Row(
        RunReason.PROGRAM_NOT_READY,
        _refused({}, setup=lambda cluster: a_program_is(cluster, "New", {"metric.type": "F1"})),
        ("Admitted", "False"),
        "PromptProgram team-a/triage was not looked at yet",
        "Pending",
        recovers=lambda cluster: a_program_is(cluster, changes={"metric.type": "F1"}),
    ),
    Row(
        RunReason.ENDPOINT_NOT_READY,
        _refused({}, setup=lambda cluster: an_endpoint_is(cluster, "PullFailed")),
        ("Admitted", "False"),
        "ModelEndpoint team-a/qwen is not ready: PullFailed: words of PullFailed",
        "Queued",
        recovers=an_endpoint_is,
    ),
    Row(
        RunReason.ENDPOINT_BUSY,
        _busy,
        ("Admitted", "False"),
        "0 of 4 slots free on team-a/qwen, 4 wanted, 0 ahead of you",
        "Queued",
        recovers=lambda cluster: cluster.remove("OptimizationRun", "first"),
    ),
    Row(
        RunReason.QUEUED,
        _both(lambda cluster: a_run_is(cluster, name="first"), a_run_is),
        ("Admitted", "False"),
        "first runs for PromptProgram team-a/triage, which takes one run at a time; 0 ahead of you",
        "Queued",
        recovers=lambda cluster: cluster.remove("OptimizationRun", "first"),
    ),
    Row(
        RunReason.SECRET_MISSING,
        _pod(_ends(Reason.SECRET_MISSING)),
        ("Admitted", "False"),
        "words of SecretMissing; the next try not before 2026-11-23T12:01:00Z",
        "Queued",
        recovers=_later(seconds=60),
    ),
    Row(
        RunReason.ENDPOINT_UNAVAILABLE,
        _pod(_ends(Reason.ENDPOINT_UNAVAILABLE)),
        ("Admitted", "False"),
        "words of EndpointUnavailable; the next try not before 2026-11-23T12:00:30Z",
        "Queued",
        recovers=_later(seconds=30),
    ),
    Row(
        RunReason.BACKING_OFF,
        _pod(lambda cluster: cluster.exits("fast", 137, reason="OOMKilled")),
        ("Admitted", "False"),
        "OOMKilled: the pod needed more than its memory limit; the next try not before 2026-11-23T12:00:10Z",
        "Queued",
        recovers=_later(seconds=10),
    ),
    Row(
        RunReason.DEADLINE_EXCEEDED,
        _pod(
            _ends(Reason.SECRET_MISSING),
            _later(seconds=61),
            changes={"deadlines": {"pending": "60s"}},
        ),
        ("Failed", "True"),
        "SecretMissing since 2026-11-23T12:00:00Z, longer than deadlines.pending: words of SecretMissing",
        "Failed",
        stalled=True,
        recovers=_rerun,
    ),
    Row(
        RunReason.DEADLINE_EXCEEDED,
        _both(
            _pending({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]}),
            _later(hours=24),
        ),
        ("Failed", "True"),
        "no node takes the pod: 0/1 nodes, for longer than deadlines.pending (86400 s)",
        "Failed",
        stalled=True,
        recovers=_rerun,
    ),
    Row(
        RunReason.DEADLINE_EXCEEDED,
        _both(
            _refused({}, setup=lambda cluster: an_endpoint_is(cluster, "ScaledToZero")),
            lambda cluster: an_endpoint_is(cluster, "Pulling"),
            _later(hours=24),
        ),
        ("Failed", "True"),
        "ModelEndpoint team-a/qwen: Pulling: words of Pulling, for longer than deadlines.pending (24h)",
        "Failed",
        stalled=True,
        recovers=_both(lambda cluster: an_endpoint_is(cluster), _rerun),
    ),
    Row(
        RunReason.RUNNER_IMAGE_UNAVAILABLE,
        _pending(_waits("ImagePullBackOff", "not found")),
        ("Complete", "False"),
        "runner:1 cannot be pulled: not found",
        "Starting",
    ),
    Row(
        RunReason.RUNNER_IMAGE_UNAVAILABLE,
        _pending(_waits("ImagePullBackOff", "not found"), AWAITED),
        ("Reconciling", "True"),
        "runner:1 cannot be pulled: not found",
        "Starting",
    ),
    Row(
        RunReason.RUNNER_IMAGE_UNAVAILABLE,
        _both(_pending(_waits("ErrImagePull", "no route")), _later(hours=24)),
        ("Failed", "True"),
        "runner:1 cannot be pulled: no route, for longer than deadlines.pending",
        "Failed",
        stalled=True,
        recovers=_rerun,
    ),
    Row(
        RunReason.NO_PROGRESS,
        _pod(_later(minutes=15), changes={"retries": 0}),
        ("Failed", "True"),
        "the pod gave no sign of life for 900 s (1 tries failed, retries: 0)",
        "Failed",
        stalled=True,
    ),
    Row(
        RunReason.OOM_KILLED,
        _retried_out,
        ("Failed", "True"),
        "the pod needed more than its memory limit (2 tries failed, retries: 1)",
        "Failed",
        stalled=True,
        recovers=_rerun,
    ),
    Row(
        RunReason.PREEMPTED,
        _pod(
            lambda cluster: cluster.pod_says(
                "fast", {"phase": "Failed", "reason": "Evicted", "message": "low on memory"}
            ),
            changes={"retries": 0},
        ),
        ("Failed", "True"),
        "the pod was evicted: low on memory",
        "Failed",
        stalled=True,
        recovers=_rerun,
    ),
    Row(
        RunReason.POD_LOST,
        _pod(lambda cluster: cluster.pod_vanishes("fast"), changes={"retries": 0}),
        ("Failed", "True"),
        "the pod is gone and left no result",
        "Failed",
        stalled=True,
        recovers=_rerun,
    ),
    Row(
        RunReason.POD_LOST,
        _pod(lambda cluster: cluster.exits("fast", 0), changes={"retries": 0}),
        ("Failed", "True"),
        "the pod ended with exit code 0 and left no result",
        "Failed",
        stalled=True,
    ),
    Row(
        RunReason.NODE_LOST,
        _pod(
            lambda cluster: cluster.pod_is_cut_off("fast"),
            _later(seconds=61),
            changes={"journal": {"type": "PersistentVolumeClaim"}} | AWAITED,
        ),
        ("Reconciling", "True"),
        "is on node node-1, which does not answer; its journal's volume is not free until the pod is confirmed gone",
        "Running",
    ),
    Row(
        RunReason.INTERNAL_ERROR,
        _pod(_ends(Reason.INTERNAL_ERROR), changes={"retries": 0}),
        ("Failed", "True"),
        "words of InternalError (1 tries failed, retries: 0)",
        "Failed",
        stalled=True,
        recovers=_rerun,
    ),
    *(
        Row(
            RunReason(reason.value),
            _pod(_ends(reason)),
            ("Failed", "True"),
            f"words of {reason}",
            "Failed",
            stalled=True,
            recovers=_rerun,
        )
        for reason in (
            Reason.INVALID_PROGRAM,
            Reason.INVALID_DATASET,
            Reason.DATASET_NOT_FOUND,
            Reason.CODE_NOT_FOUND,
            Reason.SPLIT_EMPTY,
            Reason.INVALID_METRIC,
            Reason.AUTHENTICATION_FAILED,
            Reason.MODEL_ANSWERS_UNUSABLE,
            Reason.REPLAY_DIVERGED,
            Reason.JOURNAL_CORRUPT,
            Reason.JOURNAL_FULL,
            Reason.REVISION_TOO_LARGE,
        )
    ),
    Row(
        RunReason.BUDGET_TOO_SMALL,
        _pod(_ends(Reason.BUDGET_TOO_SMALL)),
        ("Failed", "True"),
        "words of BudgetTooSmall",
        "Failed",
        stalled=True,
        recovers=lambda cluster: cluster.edit("fast", budget={"calls": 101}),
    ),
    Row(
        RunReason.CANCELLED,
        _pod(
            lambda cluster: cluster.edit("fast", stop="Cancel"),
            lambda cluster: cluster.ends("fast", Reason.STOPPED),
        ),
        ("Failed", "True"),
        "spec.stop: Cancel",
        "Cancelled",
        stalled=True,
        recovers=lambda cluster: cluster.edit("fast", stop=None, rerun="again"),
    ),
    Row(RunReason.COMPLETED, _pod(_ends(Reason.COMPLETED)), ("Complete", "True"), "words of Completed", "Succeeded"),
    Row(
        RunReason.COMPLETED,
        _pod(_ends(Reason.COMPLETED, outcome=Outcome.NO_IMPROVEMENT)),
        ("Complete", "True"),
        "words of Completed",
        "Succeeded",
    ),
    Row(
        RunReason.STOPPED_EARLY,
        _pod(lambda cluster: cluster.edit("fast", stop="Finish"), _ends(Reason.STOPPED_EARLY)),
        ("Complete", "True"),
        "words of StoppedEarly",
        "Succeeded",
    ),
    Row(
        RunReason.GOAL_REACHED,
        _pod(_ends(Reason.GOAL_REACHED)),
        ("Complete", "True"),
        "words of GoalReached",
        "Succeeded",
    ),
    Row(
        RunReason.OPTIMIZER_GAVE_UP,
        _pod(_ends(Reason.OPTIMIZER_GAVE_UP)),
        ("Complete", "True"),
        "words of OptimizerGaveUp",
        "Succeeded",
    ),
    Row(
        RunReason.BUDGET_EXHAUSTED,
        _pod(_ends(Reason.BUDGET_EXHAUSTED, calls=100)),
        ("Complete", "True"),
        "words of BudgetExhausted",
        "BudgetExhausted",
        recovers=lambda cluster: cluster.edit("fast", budget={"calls": 200}),
    ),
    Row(
        RunReason.REUSED,
        _both(
            _pod(_ends(Reason.COMPLETED)),
            lambda cluster: cluster.remove("OptimizationRun", "fast"),
            a_run_is,
        ),
        ("Complete", "True"),
        "run fast had the same inputs; nothing was called",
        "Succeeded",
    ),
    Row(
        RunReason.SUSPENDED,
        _refused({"suspend": True}),
        ("Suspended", "True"),
        "",
        "Suspended",
        recovers=lambda cluster: cluster.edit("fast", suspend=False),
    ),
    Row(
        RunReason.SUSPENDING,
        _pod(lambda cluster: cluster.edit("fast", suspend=True)),
        ("Suspended", "False"),
        "the pod is on its way out",
        "Running",
        recovers=_both(lambda cluster: cluster.leaves("fast"), lambda cluster: cluster.edit("fast", suspend=False)),
    ),
    Row(RunReason.NOT_SUSPENDED, _refused({}), ("Suspended", "False"), "", "Starting"),
    Row(RunReason.ACCEPTED, _refused({}), ("Accepted", "True"), "", "Starting"),
    Row(RunReason.ADMITTED, _refused({}), ("Admitted", "True"), "", "Starting"),
    Row(RunReason.STARTING, _refused({}), ("Complete", "False"), "", "Starting"),
    Row(
        RunReason.PENDING,
        _pod(lambda cluster: cluster.edit("fast", seed=1), changes=AWAITED),
        ("Reconciling", "True"),
        "the inputs were edited: a new attempt begins when the pod is gone",
        "Running",
        recovers=lambda cluster: cluster.leaves("fast"),
    ),
    Row(RunReason.RUNNING, _pod(), ("Complete", "False"), "", "Running"),
    Row(
        RunReason.JUDGING,
        _pod(lambda cluster: cluster.reports("fast", step="judge"), _later(seconds=15), changes=AWAITED),
        ("Reconciling", "True"),
        "",
        "Judging",
    ),
    Row(RunReason.ENDED, _pod(_ends(Reason.COMPLETED)), ("Admitted", "False"), "", "Succeeded"),
    Row(RunReason.SETTLED, _refused({}), ("Stalled", "False"), "", "Starting"),
    Row(
        RunReason.POD_LEFT,
        _pod(lambda cluster: cluster.job_is_deleted("fast"), changes=AWAITED),
        ("Reconciling", "True"),
        "the pod is on its way out",
        "Running",
        recovers=lambda cluster: cluster.leaves("fast"),
    ),
    Row(
        RunReason.ACCOUNT_DAMAGED,
        _pod(_ends(Reason.COMPLETED), _account_damaged),
        ("Stalled", "True"),
        "ConfigMap triage-account, key fast:",
        "Succeeded",
        stalled=True,
    ),
    Row(
        RunReason.INVALID_SPEC,
        _both(lambda cluster: a_run_is(cluster, {"budget": {"wallClock": "2h"}})),
        ("Accepted", "False"),
        "spec.budget: at least one of calls, tokens, cost is required",
        "Rejected",
        stalled=True,
        recovers=lambda cluster: cluster.edit("fast", budget={"calls": 100}),
    ),
    Row(
        RunReason.PROGRAM_CHANGED,
        _pod(lambda cluster: a_program_is(cluster, changes={"metric.type": "F1"})),
        ("InputsOutdated", "True"),
        "the program changed since this attempt began; `rerun` takes the new one",
        "Running",
    ),
    Row(
        RunReason.DATASET_CHANGED,
        _pod(lambda cluster: a_program_is(cluster, dataset={"digest": "v1:other"})),
        ("InputsOutdated", "True"),
        "the rows changed since this attempt began",
        "Running",
    ),
    Row(
        RunReason.MODEL_CHANGED,
        _both(
            lambda cluster: an_endpoint_is(cluster, "ModelLoaded", model={"digest": "sha256:1"}),
            _pod(lambda cluster: an_endpoint_is(cluster, "ModelLoaded", model={"digest": "sha256:2"})),
        ),
        ("InputsOutdated", "True"),
        "the model of team-a/qwen changed since this attempt began",
        "Running",
    ),
    Row(RunReason.UP_TO_DATE, _pod(), ("InputsOutdated", "False"), "", "Running"),
    Row(
        RunReason.CODE_ASKS_BY_ITSELF,
        _pod(lambda cluster: a_program_is(cluster, changes={"program": IN_PYTHON})),
        ("BudgetEnforced", "False"),
        "the program is code: what it asks a model without dspy.LM is not counted",
        "Running",
    ),
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.reason} in {row.condition[0]} ({row.phase})")
def test_a_reason_is_set_says_why_and_is_left_by_the_smallest_thing_that_helps(row: Row) -> None:
    cluster = a_cluster()
    row.happens(cluster)
    cluster.settle()
    of, holds = row.condition
    assert cluster.condition("fast", of) == (holds, row.reason.value)
    assert row.says in cluster.message("fast", of)
    assert cluster.status("fast")["phase"] == row.phase
    assert cluster.condition("fast", "Stalled")[0] == str(row.stalled)
    OptimizationRunStatus.model_validate(cluster.status("fast"))
    if row.recovers is None:
        return
    row.recovers(cluster)
    cluster.settle()
    assert cluster.condition("fast", "Accepted") == ("True", "Accepted")
    assert cluster.condition("fast", "Admitted") == ("True", "Admitted")
    assert cluster.condition("fast", "Stalled")[0] == "False"
    assert cluster.jobs("fast")


def test_every_reason_of_a_run_has_its_row() -> None:
    elsewhere = {RunReason.NAME_CONFLICT, RunReason.ESTIMATED}  # test_life
    assert set(RunReason) - {row.reason for row in ROWS} == elsewhere
