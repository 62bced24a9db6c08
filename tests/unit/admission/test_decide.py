"""Who starts next, over all waiting runs: oldest first, endpoints full to their last slot and no further, nobody starved."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_operator.api.reasons import RunReason
from dspy_operator.controllers.admission.decide import Active, decide
from dspy_operator.controllers.admission.grants import Answer, Granted, Grants, Request, Waits
from dspy_operator.controllers.admission.slots import capacity, wanted
from dspy_operator.engine.plan import Key
from tests.unit.written import endpoint

QWEN, BIG = "team-a/qwen", "models/big"


def run(name: str) -> Key:
    return Key("OptimizationRun", "team-a", name)


def asks(age: int, *, program: str | None = None, held: dict[str, int] | None = None, **slots: int | None) -> Request:
    """A request for slots; the larger `age`, the older. `qwen=2, qwen_of=4` wants 2 of 4."""
    of = {"qwen": QWEN, "big": BIG}
    return Request(
        created=f"2026-11-23T12:00:{59 - age:02d}Z",
        slots={of[name]: want for name, want in slots.items() if name in of and want is not None},
        capacities={of[name]: slots.get(f"{name}_of") for name in slots if name in of},
        program=program,
        held=held,
    )


def holds(program: str = "", eta: str = "", **slots: int) -> Active:
    return Active(slots={f"team-a/{name}": count for name, count in slots.items()}, program=program, eta=eta)


def started(answers: dict[Key, Answer]) -> set[str]:
    return {key.name for key, answer in answers.items() if isinstance(answer, Granted)}


@pytest.mark.parametrize(
    ("requests", "active", "want"),
    [
        pytest.param({"a": asks(1, qwen=4, qwen_of=4)}, {}, {"a"}, id="free slots are given"),
        pytest.param({"a": asks(1, qwen=3, qwen_of=4)}, {"x": holds(qwen=2)}, set(), id="a run waits until all fit"),
        pytest.param({"a": asks(1, qwen=2, qwen_of=4)}, {"x": holds(qwen=2)}, {"a"}, id="the last slot is used"),
        pytest.param(
            {"a": asks(1, qwen=64)}, {"x": holds(qwen=999)}, {"a"}, id="an endpoint without a limit takes all"
        ),
        pytest.param(
            {"young": asks(1, qwen=2, qwen_of=4), "old": asks(2, qwen=2, qwen_of=4), "mid": asks(2, qwen=1, qwen_of=4)},
            {"x": holds(qwen=1)},
            {"old", "mid"},
            id="the oldest go first, as far as the slots reach",
        ),
        pytest.param(
            {"large": asks(2, qwen=4, qwen_of=4), "small": asks(1, qwen=1, qwen_of=4)},
            {"x": holds(qwen=1)},
            set(),
            id="a large run is not starved by small ones behind it",
        ),
        pytest.param(
            {"large": asks(2, qwen=4, qwen_of=4), "other": asks(1, big=1, big_of=1)},
            {"x": holds(qwen=1)},
            {"other"},
            id="nobody on another endpoint is held back",
        ),
        pytest.param(
            {"both": asks(2, qwen=4, qwen_of=4, big=1, big_of=1), "other": asks(1, big=1, big_of=1)},
            {"x": holds(qwen=1)},
            {"other"},
            id="nor on an endpoint that the large one could have had",
        ),
        pytest.param(
            {"a": asks(2, qwen=1, qwen_of=4, program="team-a/p"), "b": asks(1, qwen=1, qwen_of=4, program="team-a/p")},
            {},
            {"a"},
            id="a program takes one run at a time",
        ),
        pytest.param(
            {"a": asks(1, qwen=1, qwen_of=4, program="team-a/p")},
            {"x": holds("team-a/p")},
            set(),
            id="also with one that runs",
        ),
        pytest.param(
            {"a": asks(1, qwen=1, qwen_of=4)}, {"x": holds("team-a/p", qwen=1)}, {"a"}, id="unless it allows more"
        ),
        pytest.param({"a": asks(1)}, {"x": holds(qwen=9)}, {"a"}, id="who needs no slot waits for none"),
    ],
)
def test_who_starts(requests: dict[str, Request], active: dict[str, Active], want: set[str]) -> None:
    answers = decide(
        {run(name): request for name, request in requests.items()}, {run(name): of for name, of in active.items()}, {}
    )
    assert started(answers) == want
    assert answers.keys() == {run(name) for name in requests}


def test_waiting_is_explained_with_numbers() -> None:
    requests = {run(f"r{age}"): asks(age, qwen=2, qwen_of=4) for age in (9, 8, 7)}
    active = {run("x"): holds(qwen=3, eta="12m"), run("y"): holds(eta="3m")}
    answers = decide(requests, active, {})
    first, second = answers[run("r9")], answers[run("r8")]
    assert isinstance(first, Waits)
    assert isinstance(second, Waits)
    assert (first.reason, first.waiting_for, first.position) == (RunReason.ENDPOINT_BUSY, f"ModelEndpoint {QWEN}", 1)
    words = "1 of 4 slots free on team-a/qwen, 2 wanted, {} ahead of you; the runs that have it need about 12m"
    assert (first.message, second.message) == (words.format(0), words.format(1))
    assert second.position == 2


def test_places_are_told_for_the_first_twenty() -> None:
    requests = {run(f"r{age}"): asks(age, qwen=1, qwen_of=1) for age in range(30)}
    answers = decide(requests, {run("x"): holds(qwen=1)}, {})
    places = [answer.position for answer in answers.values() if isinstance(answer, Waits)]
    assert places == [*range(1, 21), *[None] * 10]


def test_a_grant_that_is_not_in_a_status_yet_counts_and_stays() -> None:
    requests = {run("a"): asks(1, qwen=3, qwen_of=4), run("b"): asks(2, qwen=3, qwen_of=4)}
    answers = decide(requests, {}, {run("a"): {QWEN: 3}})
    assert started(answers) == {"a"}


def test_a_running_run_gets_more_slots_when_nobody_waits_for_them() -> None:
    more = asks(1, qwen=4, qwen_of=4, held={QWEN: 1})
    alone = decide({run("a"): more}, {run("a"): holds(qwen=1)}, {})
    assert alone == {run("a"): Granted({QWEN: 4})}
    again = decide({run("a"): more}, {run("a"): holds(qwen=1)}, {run("a"): {QWEN: 4}})
    assert again == alone
    waited_for = {run("a"): more, run("b"): asks(0, qwen=4, qwen_of=4)}
    assert decide(waited_for, {run("a"): holds(qwen=1)}, {})[run("a")] == Granted({QWEN: 1})
    shared = {run("a"): more, run("b"): asks(0, qwen=2, qwen_of=4)}
    assert decide(shared, {run("a"): holds(qwen=1)}, {})[run("a")] == Granted({QWEN: 2})


_requests = st.dictionaries(
    st.sampled_from([run(name) for name in "abcdefgh"]),
    st.builds(
        lambda age, qwen, big, program: asks(
            age, program=program, qwen=qwen, qwen_of=4, **({"big": big, "big_of": 3} if big else {})
        ),
        st.integers(0, 50), st.integers(1, 4), st.integers(0, 3), st.sampled_from([None, "team-a/p"]),
    ),
)  # fmt: skip


@given(requests=_requests, taken=st.integers(0, 4), given_before=st.sets(st.sampled_from("abcdefgh"), max_size=1))
def test_no_slot_is_given_twice_and_the_oldest_that_fits_is_never_passed_by(
    requests: dict[Key, Request], taken: int, given_before: set[str]
) -> None:
    active = {run("x"): holds(qwen=taken)}
    granted = {run(name): {QWEN: 1} for name in given_before if run(name) in requests and taken < 4}
    answers = decide(requests, active, granted)
    used = {QWEN: taken, BIG: 0}
    for answer in answers.values():
        if isinstance(answer, Granted):
            for endpoint_, slots in answer.slots.items():
                used[endpoint_] += slots
    assert used[QWEN] <= 4
    assert used[BIG] <= 3
    assert sum(
        requests[key].program is not None for key, answer in answers.items() if isinstance(answer, Granted)
    ) <= 1 + len(granted)
    for older, request in requests.items():
        for younger, other in requests.items():
            same = request.slots.keys() & other.slots.keys()
            passed = (
                isinstance(answers[older], Waits) and isinstance(answers[younger], Granted) and younger not in granted
            )
            answer = answers[older]
            if (
                passed
                and request.created < other.created
                and isinstance(answer, Waits)
                and answer.reason == RunReason.ENDPOINT_BUSY
            ):
                assert answer.waiting_for.removeprefix("ModelEndpoint ") not in same


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        pytest.param({}, None, id="an external endpoint has no limit of ours"),
        pytest.param({"limits.concurrency": 8}, 8, id="but what is written"),
        pytest.param({"provider": {"type": "Ollama", "ollama": {"model": "m"}}}, 1, id="one pod, one request"),
        pytest.param(
            {"provider": {"type": "Ollama", "ollama": {"model": "m", "parallel": 4}}}, 4, id="as many as a pod answers"
        ),
        pytest.param(
            {"provider": {"type": "Ollama", "ollama": {"model": "m", "parallel": 4}}, "replicas": 3},
            12,
            id="in each pod",
        ),
        pytest.param(
            {"provider": {"type": "Ollama", "ollama": {"model": "m", "parallel": 2}}, "scaling": {"maxReplicas": 5}},
            10,
            id="as many pods as there can be",
        ),
        pytest.param(
            {"provider": {"type": "Ollama", "ollama": {"model": "m", "parallel": 4}}, "limits.concurrency": 3},
            3,
            id="the smaller one",
        ),
        pytest.param(
            {"provider": {"type": "Ollama", "ollama": {"model": "m"}}, "replicas": 0}, 0, id="no pod, no slot"
        ),
    ],
)
def test_slots_of_an_endpoint(changes: dict[str, Any], want: int | None) -> None:
    assert capacity(endpoint(changes).spec) == want


def test_a_run_wants_min_of_concurrency_and_slots_and_at_least_one() -> None:
    assert wanted(4, {"a": 8, "b": 2, "c": None, "d": 0}) == {"a": 4, "b": 2, "c": 4, "d": 1}


def test_an_endpoint_without_pods_admits_nobody() -> None:
    answers = decide({run("a"): asks(1, qwen=1, qwen_of=0)}, {}, {})
    (answer,) = answers.values()
    assert isinstance(answer, Waits)
    assert answer.message.startswith("0 of 0 slots free on team-a/qwen")


def test_grants_wake_only_those_whose_answer_changed() -> None:
    grants, a = Grants(), run("a")
    request = asks(1, qwen=1, qwen_of=1)
    assert grants.ask(a, request)
    assert not grants.ask(a, request)
    assert grants.settle({a: Granted({QWEN: 1})}) == (a,)
    assert grants.settle({a: Granted({QWEN: 1})}) == ()
    assert grants.answer(a) == Granted({QWEN: 1})
    assert grants.ask(a, asks(1, qwen=1, qwen_of=2))
    assert grants.answer(a) is None
    assert grants.ask(a, None)
    assert not grants.ask(a, None)
    assert grants.granted() == {}


def test_a_request_of_a_run_that_is_gone_is_forgotten_and_slots_of_statuses_survive_a_restart() -> None:
    from dspy_operator.controllers.admission.controller import AdmissionController
    from dspy_operator.controllers.admission.grants import ADMISSION
    from tests.unit.optimizationrun.builders import a_cluster, a_run_is

    cluster = a_cluster(slots=4)
    a_run_is(cluster, {"programRef": {"name": "other"}}, name="first")
    first = cluster.server["OptimizationRun", "team-a", "first"]
    cluster.set_status("OptimizationRun", "first", {"admission": {"slots": {QWEN: 3}}})
    a_run_is(cluster, name="second")
    grants = Grants()
    grants.ask(run("gone"), asks(9, qwen=1, qwen_of=4))
    grants.ask(run("second"), asks(1, qwen=2, qwen_of=4))
    room = AdmissionController(grants)
    plan = asyncio.run(room.reconcile(ADMISSION, cluster))
    assert plan.wake == (run("second"),)
    assert plan.requeue_after is not None
    assert [key for key, _ in grants.requests()] == [run("second")]
    assert isinstance(grants.answer(run("second")), Waits)
    cluster.set_status("OptimizationRun", first["metadata"]["name"], {})
    asyncio.run(room.reconcile(ADMISSION, cluster))
    assert grants.answer(run("second")) == Granted({QWEN: 2})
