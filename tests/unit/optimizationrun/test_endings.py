"""What the end of a pod means: the contract's table of exit codes, and ends without a word."""

from __future__ import annotations

import inspect
from datetime import timedelta
from typing import Any

import pytest

from dspy_operator.api.reasons import RunReason
from dspy_operator.contract.documents import Progress, Result
from dspy_operator.contract.exits import EXIT_OF, Exit, Reason
from dspy_operator.contract.runspec import Usage
from dspy_operator.controllers.optimizationrun import endings
from dspy_operator.controllers.optimizationrun.account import Entry
from dspy_operator.controllers.optimizationrun.endings import Ending, Kind, kind_of, pause, reason_in, reason_of
from dspy_operator.controllers.optimizationrun.tries import Channel, Leaving, Limits, Over, Waiting, Working, observe
from dspy_operator.engine.conditions import timestamp
from dspy_operator.engine.plan import Body
from tests.unit.optimizationrun.cluster import START

NOW = START + timedelta(minutes=5)
STARTED = timestamp(START + timedelta(minutes=1))


def a_job(**status: Any) -> Body:
    return {
        "kind": "Job",
        "metadata": {
            "name": "orun-fast-1",
            "creationTimestamp": timestamp(START),
            "labels": {"dspy-operator.io/try": "1"},
        },
        "status": status,
    }


def a_pod(**status: Any) -> Body:
    return {
        "kind": "Pod",
        "metadata": {"name": "p", "creationTimestamp": timestamp(START), "labels": {"dspy-operator.io/try": "1"}},
        "spec": {"containers": [{"resources": {"limits": {"memory": "64Mi"}}}], "nodeName": "n1"},
        "status": status,
    }


def ended(code: int, reason: str = "Error") -> dict[str, Any]:
    state = {"exitCode": code, "reason": reason, "startedAt": STARTED, "finishedAt": timestamp(NOW)}
    return {"phase": "Failed", "containerStatuses": [{"state": {"terminated": state}}]}


RUNS = {"phase": "Running", "containerStatuses": [{"state": {"running": {"startedAt": STARTED}}}]}
EVICTED = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
DISRUPTED = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "preempted"}
FAILED = [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "backoff limit"}]


def seen(*children: Body, channel: Channel | None = None, keeps: bool = True, named: bool = True) -> Any:
    limits = Limits(timedelta(hours=24), timedelta(minutes=15), keeps_journal=keeps, slots=4)
    entry = Entry(tries=1, used=Usage(calls=10))
    return observe(entry, children, channel or Channel(), limits, NOW, seen=named)


def ending(*children: Body, **more: Any) -> Ending:
    state = seen(*children, **more)
    assert isinstance(state, Over), state
    return state.ending


@pytest.mark.parametrize("code", list(Exit), ids=lambda code: f"{int(code)} {code.name}")
def test_every_exit_code_of_the_contract_has_its_answer(code: Exit) -> None:
    """The table of contract.md, row by row."""
    want = {
        Exit.COMPLETED: Kind.COMPLETE,
        Exit.BUDGET_EXHAUSTED: Kind.COMPLETE,
        Exit.ENDPOINT_UNAVAILABLE: Kind.WAIT,
        Exit.SECRET_MISSING: Kind.WAIT,
        Exit.STOPPED: Kind.STOPPED,
        Exit.VERIFY_FAILED: Kind.RETRY,
        Exit.INTERNAL_ERROR: Kind.RETRY,
        Exit.USAGE: Kind.RETRY,
    }
    assert kind_of(code) is want.get(code, Kind.FAILED)


@pytest.mark.parametrize("reason", list(Reason))
def test_a_result_tells_the_exact_reason(reason: Reason) -> None:
    told = reason_in(Result(reason=reason, exit=int(EXIT_OF[reason])))
    if reason.value in set(RunReason):
        assert told == reason.value
    else:
        assert told is (RunReason.PREEMPTED if reason is Reason.STOPPED else reason_of(EXIT_OF[reason]))


@pytest.mark.parametrize(
    ("status", "want", "says"),
    [
        pytest.param(
            ended(137, "OOMKilled"), (Kind.RETRY, "OOMKilled"), "its memory limit of 64Mi", id="out of memory"
        ),
        pytest.param(ended(137), (Kind.RETRY, "PodLost"), "was killed by signal 9", id="killed"),
        pytest.param(ended(143), (Kind.RETRY, "PodLost"), "was killed by signal 15", id="terminated"),
        pytest.param(EVICTED, (Kind.RETRY, "Preempted"), "low on resource: memory", id="evicted"),
        pytest.param(
            ended(137) | {"conditions": [DISRUPTED]}, (Kind.RETRY, "Preempted"), "evicted: preempted", id="preempted"
        ),
        pytest.param({"phase": "Failed", "reason": "NodeLost"}, (Kind.RETRY, "NodeLost"), "", id="its node was lost"),
        pytest.param(
            ended(1), (Kind.RETRY, "InternalError"), "ended with exit code 1 and left no result", id="a crash"
        ),
        pytest.param(ended(70), (Kind.RETRY, "InternalError"), "exit code 70", id="a bug of ours"),
        pytest.param(
            ended(46), (Kind.FAILED, "AuthenticationFailed"), "exit code 46", id="a typed end whose words were lost"
        ),
        pytest.param(
            ended(45), (Kind.WAIT, "EndpointUnavailable"), "exit code 45", id="an outage whose words were lost"
        ),
        pytest.param(
            ended(0), (Kind.RETRY, "PodLost"), "exit code 0 and left no result", id="success without a result"
        ),
        pytest.param(
            ended(44), (Kind.RETRY, "InternalError"), "exit code 44", id="an exhausted budget without a result"
        ),
        pytest.param(
            {"phase": "Failed", "message": "why"}, (Kind.RETRY, "PodLost"), "the pod failed: why", id="no container"
        ),
    ],
)
def test_a_pod_without_last_words(status: dict[str, Any], want: tuple[Kind, str], says: str) -> None:
    found = ending(a_job(), a_pod(**status))
    assert (found.kind, found.reason.value) == want
    assert says in found.message


def test_last_words_count_more_than_how_the_pod_ended() -> None:
    result = Result(reason=Reason.AUTHENTICATION_FAILED, exit=46, message="401", usage=Usage(calls=12), seconds=7)
    found = ending(a_job(), a_pod(**ended(137, "OOMKilled")), channel=Channel(result=result))
    assert (found.kind, found.reason, found.message) == (Kind.FAILED, RunReason.AUTHENTICATION_FAILED, "401")
    assert (found.used.calls, found.seconds) == (12, 7)


def test_a_pod_that_was_preempted_says_stopped_and_its_condition_says_why() -> None:
    result = Result(reason=Reason.STOPPED, exit=51)
    by_us = ending(a_job(), a_pod(**ended(51)), channel=Channel(result=result))
    preempted = ending(a_job(), a_pod(**ended(51), conditions=[DISRUPTED]), channel=Channel(result=result))
    assert (by_us.kind, preempted.kind, preempted.reason) == (Kind.STOPPED, Kind.RETRY, RunReason.PREEMPTED)


def test_a_pod_that_had_to_go_and_was_killed_was_not_at_fault() -> None:
    assert ending(a_pod(**ended(137))).kind is Kind.STOPPED
    assert ending(a_job(conditions=FAILED), a_pod(**ended(137))).kind is Kind.RETRY


@pytest.mark.parametrize(
    ("children", "want"),
    [
        pytest.param([a_job()], Waiting, id="a Job without a pod"),
        pytest.param([a_job(), a_pod(phase="Pending")], Waiting, id="a pod that waits"),
        pytest.param([a_job(), a_pod(**RUNS)], Working, id="a pod that runs"),
        pytest.param([a_pod(**RUNS)], Leaving, id="a pod whose Job is gone"),
        pytest.param([a_job(conditions=FAILED)], Over, id="a Job that failed for a pod that is gone"),
        pytest.param([], Over, id="a Job that was seen and is gone"),
    ],
)
def test_where_a_try_is(children: list[Body], want: type) -> None:
    assert isinstance(seen(*children), want)


@pytest.mark.parametrize(
    ("children", "progress", "keeps", "want"),
    [
        pytest.param([a_job(), a_pod(**ended(137))], 30, True, 30, id="what it told last"),
        pytest.param(
            [a_job(), a_pod(**ended(137))], 30, False, 34, id="and what was on the wire, where no journal knows it"
        ),
        pytest.param([a_job(), a_pod(**ended(137))], 5, True, 10, id="never less than is known"),
        pytest.param([a_job(), a_pod(**ended(137))], None, False, 14, id="a pod that ran and told nothing"),
        pytest.param([], None, False, 14, id="a pod that nobody saw may have run"),
        pytest.param([a_job(), a_pod(phase="Failed")], None, False, 10, id="one that never started has spent nothing"),
    ],
)
def test_what_a_silent_pod_has_spent(children: list[Body], progress: int | None, keeps: bool, want: int) -> None:
    told = Channel(progress=Progress(usage={"task": Usage(calls=progress)})) if progress is not None else Channel()
    assert ending(*children, channel=told, keeps=keeps).used.calls == want


def test_documents_of_another_try_are_passed_over_and_so_is_what_cannot_be_read() -> None:
    good = Result(exit=0).model_copy(update={"attempt": 2, "try_": 3})
    body = {"data": {"result.json": good.model_dump_json(by_alias=True), "progress.json": "{nonsense"}}
    assert Channel.of(body, 2, 3) == Channel(result=good)
    assert Channel.of(body, 2, 4) == Channel.of(body, 1, 3) == Channel.of(None, 2, 3) == Channel()
    progress = Progress(percent=7).model_copy(update={"attempt": 2, "try_": 3})
    body = {"data": {"progress.json": progress.model_dump_json(by_alias=True), "result.json": "{nonsense"}}
    assert Channel.of(body, 2, 3) == Channel(progress=progress)
    assert Channel.of(body, 2, 2) == Channel.of(body, 3, 3) == Channel()


@pytest.mark.parametrize(
    ("reason", "kind", "want"),
    [
        pytest.param(RunReason.OOM_KILLED, Kind.RETRY, [10, 20, 40, 80, 160, 300, 300], id="a failure of its own"),
        pytest.param(RunReason.ENDPOINT_UNAVAILABLE, Kind.WAIT, [30, 60, 120, 240, 480, 600, 600], id="an outage"),
        pytest.param(RunReason.SECRET_MISSING, Kind.WAIT, [60, 120, 240, 300, 300, 300, 300], id="a missing Secret"),
    ],
)
def test_pauses_double_up_to_their_longest(reason: RunReason, kind: Kind, want: list[int]) -> None:
    assert [pause(reason, kind, number).total_seconds() for number in range(1, 8)] == want
    assert pause(reason, kind, 10**6).total_seconds() == want[-1]


def test_nothing_here_looks_at_a_clock() -> None:
    assert "now()" not in inspect.getsource(endings)
