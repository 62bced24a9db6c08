"""The Ledger with a real journal and a wire that counts: what is sent, what is replayed, what ends a run.

The wire stands in the place of DSPy's native engine. It gives what a test says, and every request on it is counted.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from dspy import lm15
from dspy._vendor.lm15.serde import response_from_dict
from dspy.utils.exceptions import ContextWindowExceededError, LMError

from dspy_operator.contract.exits import Reason
from dspy_operator.contract.runspec import Control, Endpoint
from dspy_operator.runner import breaker, ledger
from dspy_operator.runner.journal import Journal, answers_in
from dspy_operator.runner.ledger import Ledger, Mark, Role
from dspy_operator.runner.spend import Reserve
from dspy_operator.runner.stop import RunStop

DEADLINE_SECONDS = 30.0
"""For what another thread does; reached only where the test fails."""
TOKENS = 110
"""Of each answer: 100 in, 10 out."""

Behaviour = Callable[[int, str], "str | BaseException"]


def timeout() -> BaseException:
    error: BaseException = lm15.TimeoutError("timed out")
    return error


def server_error() -> BaseException:
    error: BaseException = lm15.ServerError("The server had an error.", status=500)
    return error


def too_long() -> BaseException:
    error: BaseException = lm15.ContextLengthError("too long", status=400, provider_code="context_length_exceeded")
    return error


def limited(retry_after: float | None = None) -> BaseException:
    error: BaseException = lm15.RateLimitError("Rate limit reached.", status=429, retry_after=retry_after)
    return error


class Wire:
    """An endpoint in memory. `behaves(ordinal, text)` gives an answer's text, or what is raised instead."""

    def __init__(self) -> None:
        self.behaves: Behaviour = lambda ordinal, text: f"answer to {text}"
        self.texts: list[str] = []
        self.times: list[float] = []
        self.most_in_flight = 0
        self._in_flight = 0
        self._lock = threading.Lock()

    @property
    def requests(self) -> int:
        return len(self.texts)

    def complete(self, request: lm15.Request) -> lm15.Response:
        text = request.messages[-1].parts[0].text
        with self._lock:
            self.texts.append(text)
            self.times.append(time.monotonic())
            ordinal = len(self.texts)
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            outcome = self.behaves(ordinal, text)
        finally:
            with self._lock:
                self._in_flight -= 1
        if isinstance(outcome, BaseException):
            raise outcome
        return response_from_dict(
            {
                "id": "1",
                "model": request.model,
                "message": {"role": "assistant", "parts": [{"type": "text", "text": outcome}]},
                "finish_reason": "stop",
                "usage": {"input_tokens": 100, "output_tokens": 10, "total_tokens": TOKENS},
            }
        )

    def reached(self, requests: int) -> None:
        """Wait until so many requests have come."""
        wait_until(lambda: self.requests >= requests)


class Held:
    """A behaviour that answers only after `release`."""

    def __init__(self, behaves: Behaviour | None = None) -> None:
        self._released = threading.Event()
        self._behaves = behaves or (lambda ordinal, text: f"answer to {text}")

    def __call__(self, ordinal: int, text: str) -> str | BaseException:
        assert self._released.wait(DEADLINE_SECONDS)
        return self._behaves(ordinal, text)

    def release(self) -> None:
        self._released.set()


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    """The wire of every ledger of the test; retries wait milliseconds."""
    made = Wire()
    monkeypatch.setattr(ledger, "_wire", lambda endpoint: made)
    monkeypatch.setattr(breaker, "BACKOFF_SECONDS", (0.001, 0.01))
    return made


def an_endpoint(**more: Any) -> Endpoint:
    given: dict[str, Any] = {
        "name": "default/fake",
        "type": "OpenAI",
        "url": "http://127.0.0.1:9/v1",
        "model": "fake",
        "pricing": {"currency": "USD", "input": "1", "output": "10"},
        "request": {"temperature": "0", "maxTokens": 64},
    }
    return Endpoint.model_validate(given | more)


def a_control(*, concurrency: int = 8, **more: Any) -> Control:
    return Control.model_validate({"budget": {"calls": 1000}, "concurrency": concurrency, **more})


@contextmanager
def a_ledger(
    folder: Path,
    control: Control | None = None,
    *,
    endpoints: Mapping[Role, Endpoint] | None = None,
    seed: int = 0,
    offline: bool = False,
    others: Sequence[Path] = (),
) -> Iterator[Ledger]:
    """A try of a run; a second one in the same folder resumes the first."""
    journal = Journal(folder / "journal.jsonl")
    try:
        yield Ledger(
            journal,
            endpoints or {"task": an_endpoint()},
            control or a_control(),
            seed=seed,
            offline=offline,
            others=answers_in(other / "journal.jsonl" for other in others),
        )
    finally:
        journal.close()


def lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    entries = map(json.loads, (folder / "journal.jsonl").read_text("utf-8").splitlines())
    return [entry for entry in entries if entry["kind"] == kind]


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.002)


def outcome(ask: Callable[[], Any]) -> Any:
    """What a call gives: its text, or what it raises."""
    try:
        return ask()[0]
    except (LMError, RunStop) as error:
        return error


def each(lm: Any, texts: list[str], threads: int = 8) -> list[Any]:
    """The outcomes of several calls at a time."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda text: outcome(lambda: lm(text)), texts))


def reasons(outcomes: list[Any]) -> set[Reason]:
    return {each.reason for each in outcomes if isinstance(each, RunStop)}


# One request at a time for each key


def test_two_threads_with_the_same_request_send_one(tmp_path: Path, wire: Wire) -> None:
    wire.behaves = held = Held()
    with a_ledger(tmp_path) as made, ThreadPoolExecutor(2) as pool:
        lm = made.lm("task", made.open_epoch("optimize"))
        both = [pool.submit(lm, "hello") for _ in range(2)]
        wire.reached(1)
        held.release()
        assert [each.result() for each in both] == [["answer to hello"]] * 2
        assert (wire.requests, made.usage().calls, made.usage().replayed) == (1, 1, 1)


def test_who_waited_for_a_request_that_fails_for_ever_fails_with_it(tmp_path: Path, wire: Wire) -> None:
    wire.behaves = held = Held(lambda ordinal, text: too_long())
    with a_ledger(tmp_path) as made, ThreadPoolExecutor(2) as pool:
        lm = made.lm("task", made.open_epoch("optimize"))
        both = [pool.submit(outcome, lambda: lm("hello")) for _ in range(2)]
        wire.reached(1)
        held.release()
        assert all(isinstance(each.result(), LMError) and "too long" in str(each.result()) for each in both)
        assert wire.requests == 1


def test_a_key_is_released_when_its_thread_dies(tmp_path: Path, wire: Wire) -> None:
    wire.behaves = lambda ordinal, text: KeyboardInterrupt() if ordinal == 1 else "at last"
    with a_ledger(tmp_path) as made:
        lm = made.lm("task", made.open_epoch("optimize"))
        with pytest.raises(KeyboardInterrupt):
            lm("hello")
        assert made.in_flight() == 0
        assert lm("hello") == ["at last"]
        assert wire.requests == made.usage().calls == 2


@pytest.mark.parametrize(("temperature", "want"), [("0", 1), ("0.7", 3)])
def test_a_repeat_is_another_answer_where_the_model_samples(
    tmp_path: Path, wire: Wire, temperature: str, want: int
) -> None:
    wire.behaves = lambda ordinal, text: f"answer {ordinal}"
    endpoints: Mapping[Role, Endpoint] = {"task": an_endpoint(request={"temperature": temperature})}
    for _ in range(2):  # the second time all is replayed
        with a_ledger(tmp_path, endpoints=endpoints) as made:
            epoch = made.open_epoch("judge")
            found = [made.lm("task", epoch, repeat=repeat)("hello") for repeat in (0, 1, 2, 1)]
        assert len({text for (text,) in found}) == want
        assert found[3] == found[1]
        assert wire.requests == want


# Answers of other runs


def test_what_another_run_was_answered_at_temperature_0_is_not_asked_again(tmp_path: Path, wire: Wire) -> None:
    with a_ledger(tmp_path / "first") as made:
        made.lm("task", made.open_epoch("optimize"))("hello")
    with a_ledger(tmp_path / "second", seed=7, others=[tmp_path / "first"]) as made:
        lm = made.lm("task", made.open_epoch("optimize"))
        assert each(lm, ["hello", "hello", "world"]) == ["answer to hello", "answer to hello", "answer to world"]
        usage = made.usage()
        assert (wire.requests, usage.calls, usage.replayed, usage.tokens) == (2, 1, 2, TOKENS)
        assert made.served().tokens == 3 * TOKENS, "sizes that follow from tokens are those of a run that asked"
    with a_ledger(tmp_path / "second", seed=7) as made:  # the other journal may be gone by now
        lm = made.lm("task", made.open_epoch("optimize"))
        assert each(lm, ["hello", "world"]) == ["answer to hello", "answer to world"]
        usage = made.usage()
        assert (wire.requests, usage.calls, usage.failed, usage.tokens) == (2, 1, 0, TOKENS)


def test_another_run_answers_nothing_that_is_sampled_and_nothing_for_another_model(tmp_path: Path, wire: Wire) -> None:
    sampled: Mapping[Role, Endpoint] = {"task": an_endpoint(request={"temperature": "0.7"})}
    with a_ledger(tmp_path / "first", endpoints=sampled) as made:
        made.lm("task", made.open_epoch("optimize"))("hello")
    with a_ledger(tmp_path / "second", endpoints=sampled, others=[tmp_path / "first"]) as made:
        made.lm("task", made.open_epoch("optimize"))("hello")
    with a_ledger(tmp_path / "third") as made:
        made.lm("task", made.open_epoch("optimize"))("hello")
    other: Mapping[Role, Endpoint] = {"task": an_endpoint(modelDigest="sha256:other")}
    with a_ledger(tmp_path / "fourth", endpoints=other, others=[tmp_path / "third"]) as made:
        made.lm("task", made.open_epoch("optimize"))("hello")
    assert wire.requests == 4


def test_a_request_of_a_crash_that_another_run_answered_counts_as_one_call_that_failed(
    tmp_path: Path, wire: Wire
) -> None:
    with a_ledger(tmp_path / "first") as made:
        made.lm("task", made.open_epoch("optimize"))("hello")
    wire.behaves = lambda ordinal, text: KeyboardInterrupt()
    with a_ledger(tmp_path / "second") as made, pytest.raises(KeyboardInterrupt):
        made.lm("task", made.open_epoch("optimize"))("hello")
    for others in ([tmp_path / "first"], []):
        with a_ledger(tmp_path / "second", others=others) as made:
            assert made.lm("task", made.open_epoch("optimize"))("hello") == ["answer to hello"]
            usage = made.usage()
            assert (usage.calls, usage.failed, usage.tokens) == (1, 1, 0)


# Ends


def test_a_thread_of_an_ended_phase_sends_nothing_and_the_next_phase_does(tmp_path: Path, wire: Wire) -> None:
    with a_ledger(tmp_path) as made:
        epoch = made.open_epoch("optimize")
        late = made.lm("task", epoch)
        made.end(epoch, RunStop(Reason.BUDGET_EXHAUSTED, "used"))
        assert reasons([outcome(lambda: late("hello"))]) == {Reason.BUDGET_EXHAUSTED}
        assert wire.requests == 0
        assert made.lm("task", made.open_epoch("judge"))("hello") == ["answer to hello"]


def test_an_end_reaches_threads_that_wait_for_a_slot_a_retry_or_another_thread(tmp_path: Path, wire: Wire) -> None:
    wire.behaves = held = Held()
    with a_ledger(tmp_path, a_control(concurrency=1)) as made, ThreadPoolExecutor(3) as pool:
        lm = made.lm("task", made.open_epoch("optimize"))
        sent = pool.submit(outcome, lambda: lm("sent"))
        wire.reached(1)
        waiting = [pool.submit(outcome, lambda: lm("sent")), pool.submit(outcome, lambda: lm("no slot"))]
        wait_until(lambda: made.in_flight() == 2)
        made.halt(RunStop(Reason.STOPPED, "a signal"))
        assert reasons([each.result(DEADLINE_SECONDS) for each in waiting]) == {Reason.STOPPED}
        held.release()
        assert sent.result(DEADLINE_SECONDS) == "answer to sent"
        assert wire.requests == 1
        assert lines(tmp_path, "done")  # it was paid for, so it is kept


def test_an_end_reaches_a_thread_that_waits_to_retry(
    tmp_path: Path, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "BACKOFF_SECONDS", (3600.0, 3600.0))
    wire.behaves = lambda ordinal, text: server_error()
    with a_ledger(tmp_path) as made, ThreadPoolExecutor(1) as pool:
        lm = made.lm("task", made.open_epoch("optimize"))
        waiting = pool.submit(outcome, lambda: lm("hello"))
        wait_until(lambda: made.usage().failed == 1)
        made.halt(RunStop(Reason.STOPPED, "a signal"))
        assert reasons([waiting.result(DEADLINE_SECONDS)]) == {Reason.STOPPED}
        assert wire.requests == 1


def test_after_a_halt_no_phase_begins_but_after_a_limit_the_judgement_does(tmp_path: Path, wire: Wire) -> None:
    with a_ledger(tmp_path) as made:
        made.halt(RunStop(Reason.BUDGET_EXHAUSTED, "used"))
        assert made.open_epoch("judge").stop is None
        made.halt(RunStop(Reason.STOPPED, "a signal"))
        assert reasons([outcome(lambda: made.lm("task", made.open_epoch("judge"))("hello"))]) == {Reason.STOPPED}
        assert wire.requests == 0


@pytest.mark.parametrize(
    ("stop", "optimize", "judge"),
    [
        pytest.param("Finish", Reason.STOPPED_EARLY, None, id="Finish ends the optimization alone"),
        pytest.param("Cancel", Reason.STOPPED, Reason.STOPPED, id="Cancel ends everything"),
    ],
)
@pytest.mark.parametrize("when", ["before this try", "meanwhile"])
def test_a_stop_that_is_asked_for(
    tmp_path: Path, wire: Wire, stop: str, optimize: Reason, judge: Reason | None, when: str
) -> None:
    asked = a_control(stop=stop)
    with a_ledger(tmp_path, asked if when == "before this try" else None) as made:
        if when == "before this try":
            made.update(asked)  # as the flow does where it finds one
        lm = made.lm("task", made.open_epoch("optimize"))
        if when == "meanwhile":
            assert lm("hello") == ["answer to hello"]
            made.update(asked)
        sent = wire.requests
        assert reasons([outcome(lambda: lm("world"))]) == {optimize}
        assert wire.requests == sent
        judged = outcome(lambda: made.lm("task", made.open_epoch("judge"))("world"))
        assert (judged.reason if isinstance(judged, RunStop) else None) == judge


def test_finish_before_a_resume_still_replays_what_was_paid_for(tmp_path: Path, wire: Wire) -> None:
    mark = Mark("evaluate", "p" * 64, "r" * 64, (1.0, 0.0))
    with a_ledger(tmp_path) as made:
        lm = made.lm("task", made.open_epoch("optimize"))
        each(lm, ["a", "b"])
        made.mark(mark)
    with a_ledger(tmp_path, a_control(stop="Finish")) as made:
        lm = made.lm("task", made.open_epoch("optimize"))
        assert each(lm, ["a", "b"]) == ["answer to a", "answer to b"]
        made.mark(mark)
        assert reasons([outcome(lambda: lm("c"))]) == {Reason.STOPPED_EARLY}
        assert wire.requests == 2


# The budget


def test_calls_are_exact_at_eight_threads(tmp_path: Path, wire: Wire) -> None:
    with a_ledger(tmp_path, a_control(budget={"calls": 20})) as made:
        epoch = made.open_epoch("optimize", Reserve(calls=5))
        outcomes = each(made.lm("task", epoch), [f"row {number}" for number in range(40)])
        assert (wire.requests, made.usage().calls) == (15, 15)
        assert sum(isinstance(one, str) for one in outcomes) == 15
        assert (
            epoch.stop is not None and epoch.stop.message == "15 of 20 calls used (the rest is kept for the judgement)"
        )
        judge = made.lm("task", made.open_epoch("judge"))
        assert reasons(each(judge, [f"test {number}" for number in range(8)])) == {Reason.BUDGET_EXHAUSTED}
        assert wire.requests == len(lines(tmp_path, "start")) == 20


def test_a_retry_is_a_call_too(tmp_path: Path, wire: Wire) -> None:
    wire.behaves = lambda ordinal, text: server_error()
    with a_ledger(tmp_path, a_control(budget={"calls": 4})) as made:
        lm = made.lm("task", made.open_epoch("optimize"))
        assert reasons([outcome(lambda: lm("hello"))]) == {Reason.BUDGET_EXHAUSTED}
        assert (wire.requests, made.usage().calls, made.usage().failed) == (4, 4, 4)


def test_tokens_and_money_overshoot_by_what_is_in_flight_at_most(tmp_path: Path, wire: Wire) -> None:
    for folder, budget, most in (
        ("tokens", {"tokens": 10 * TOKENS}, 10),
        ("money", {"cost": "0.002"}, 10),  # an answer costs 100 x 1 + 10 x 10 millionths
    ):
        wire.texts.clear()
        with a_ledger(tmp_path / folder, a_control(budget=budget)) as made:
            lm = made.lm("task", made.open_epoch("optimize"))
            each(lm, [f"row {number}" for number in range(100)])
            assert most - 8 <= wire.requests < most + 8
            assert made.usage().tokens == TOKENS * wire.requests
            assert Decimal(made.usage().cost) == Decimal("0.0002") * wire.requests


@pytest.mark.parametrize(
    ("recorded", "account", "want"),
    [
        pytest.param(0, 7, 3, id="a lost journal: what the account knows is spent"),
        pytest.param(7, 7, 3, id="a kept journal is not counted twice"),
        pytest.param(7, 4, 3, id="an account that lags behind changes nothing"),
        pytest.param(4, 7, 3, id="a part of the journal was lost"),
    ],
)
def test_the_accounts_floor(tmp_path: Path, wire: Wire, recorded: int, account: int, want: int) -> None:
    if recorded:
        with a_ledger(tmp_path) as made:
            each(made.lm("task", made.open_epoch("optimize")), [f"old {number}" for number in range(recorded)])
    wire.texts.clear()
    floor = {
        "calls": account,
        "inputTokens": 100 * account,
        "outputTokens": 10 * account,
        "cost": f"{account * 0.0002:.4f}",
    }
    with a_ledger(tmp_path, a_control(budget={"calls": 10}, floor=floor)) as made:
        known = max(recorded, account)
        assert made.usage().calls == known
        assert made.usage().tokens == TOKENS * known
        assert Decimal(made.usage().cost) == Decimal("0.0002") * known
        each(made.lm("task", made.open_epoch("optimize")), [f"new {number}" for number in range(20)])
        assert wire.requests == want


def test_all_roles_and_what_came_earlier_are_the_whole_usage(tmp_path: Path, wire: Wire) -> None:
    floor = {"calls": 7, "inputTokens": 700, "outputTokens": 70, "cost": "0.0014"}
    with a_ledger(tmp_path, a_control(floor=floor)) as made:
        each(made.lm("task", made.open_epoch("optimize")), ["a", "b"])
        roles = made.usage_by_role()
        assert {role: usage.calls for role, usage in roles.items()} == {"task": 2, "earlier": 7}
        assert sum(usage.tokens for usage in roles.values()) == made.usage().tokens
        assert sum(Decimal(usage.cost) for usage in roles.values()) == Decimal(made.usage().cost)
    with a_ledger(tmp_path / "new", a_control()) as made:
        assert "earlier" not in made.usage_by_role()


def test_a_raised_budget_counts_from_the_next_request_on(tmp_path: Path, wire: Wire) -> None:
    with a_ledger(tmp_path, a_control(budget={"calls": 2})) as made:
        epoch = made.open_epoch("optimize")
        lm = made.lm("task", epoch)
        assert lm("a") and lm("b")
        made.update(a_control(budget={"calls": 3}))
        assert lm("c")
        assert reasons([outcome(lambda: lm("d"))]) == {Reason.BUDGET_EXHAUSTED}
        assert wire.requests == 3


# Slots


def test_no_more_requests_at_a_time_than_slots_and_a_change_counts_at_once(tmp_path: Path, wire: Wire) -> None:
    wire.behaves = held = Held()
    with a_ledger(tmp_path, a_control(slots={"default/fake": 2})) as made, ThreadPoolExecutor(8) as pool:
        lm = made.lm("task", made.open_epoch("optimize"))
        answers = [pool.submit(lm, f"row {number}") for number in range(8)]
        wait_until(lambda: made.in_flight() == 8)
        wire.reached(2)
        assert wire.most_in_flight == 2
        made.update(a_control(slots={"default/fake": 5}))
        wire.reached(5)
        held.release()
        assert all(each.result() for each in answers)
        assert wire.most_in_flight == 5


def test_two_roles_of_one_endpoint_share_its_slots(tmp_path: Path, wire: Wire) -> None:
    endpoints: dict[Role, Endpoint] = {"task": an_endpoint(), "prompt": an_endpoint(request={"temperature": "1"})}

    def slow(ordinal: int, text: str) -> str:
        time.sleep(0.005)
        return text

    wire.behaves = slow
    with a_ledger(tmp_path, a_control(concurrency=3), endpoints=endpoints) as made, ThreadPoolExecutor(8) as pool:
        epoch = made.open_epoch("optimize")
        lms = (made.lm("task", epoch), made.lm("prompt", epoch))
        list(pool.map(lambda number: lms[number % 2](f"row {number}"), range(24)))
        assert wire.requests == 24
        assert wire.most_in_flight == 3
        assert {role: usage.calls for role, usage in made.usage_by_role().items()} == {"task": 12, "prompt": 12}


# Failures


def test_retry_after_holds_every_thread_back(tmp_path: Path, wire: Wire) -> None:
    wire.behaves = lambda ordinal, text: limited(0.3) if ordinal == 1 else text
    with a_ledger(tmp_path) as made:
        lm = made.lm("task", made.open_epoch("optimize"))
        with ThreadPoolExecutor(8) as pool:
            first = pool.submit(lm, "row 0")
            wait_until(lambda: made.usage().failed == 1)
            others = [pool.submit(lm, f"row {number}") for number in range(1, 8)]
            assert [each.result() for each in (first, *others)] == [[f"row {number}"] for number in range(8)]
        assert wire.requests == 9
        assert min(wire.times[1:]) - wire.times[0] >= 0.3
        assert lines(tmp_path, "fail") == []


def test_a_rate_limit_never_costs_a_row(tmp_path: Path, wire: Wire) -> None:
    wire.behaves = lambda ordinal, text: limited() if ordinal <= 60 else text
    with a_ledger(tmp_path) as made:
        rows = [f"row {number}" for number in range(4)]
        assert each(made.lm("task", made.open_epoch("optimize")), rows, threads=4) == rows
        assert (wire.requests, made.failed_requests) == (64, 0)


@pytest.mark.parametrize(
    ("pacing", "at_once"), [(None, range(1, 5)), ("Adaptive", range(1, 5)), ("Fixed", range(8, 9))]
)
def test_after_a_429_fewer_are_asked_at_a_time_unless_the_pace_is_fixed(
    tmp_path: Path, wire: Wire, pacing: str | None, at_once: range
) -> None:
    burst, held = Held(lambda ordinal, text: limited()), Held()
    wire.behaves = lambda ordinal, text: (burst if ordinal <= 8 else held)(ordinal, text)
    with a_ledger(tmp_path, a_control(pacing=pacing)) as made, ThreadPoolExecutor(8) as pool:
        lm = made.lm("task", made.open_epoch("optimize"))
        answers = [pool.submit(lm, f"row {number}") for number in range(8)]
        wire.reached(8)
        burst.release()
        wait_until(lambda: made.usage().failed == 8)
        wire.reached(8 + at_once[0])
        time.sleep(0.1)  # backoffs are over after 0.01 s; what is sent beyond the pace would come now
        assert wire.requests - 8 in at_once
        held.release()
        assert all(each.result() for each in answers)
        assert wire.requests == 16


@pytest.mark.parametrize("threads", [1, 4, 8, 16])
def test_an_outage_ends_the_run_within_ten_requests_and_those_in_flight(
    tmp_path: Path, wire: Wire, threads: int
) -> None:
    with a_ledger(tmp_path, a_control(concurrency=threads)) as made:

        def behaves(ordinal: int, text: str) -> str | BaseException:
            if ordinal <= 30:
                return text
            wait_until(lambda: made.answered_requests == 30)  # a late answer would begin the count anew
            return server_error()

        wire.behaves = behaves
        lm = made.lm("task", made.open_epoch("optimize"))
        outcomes = each(lm, [f"row {number}" for number in range(200)], threads)
        assert reasons(outcomes) == {Reason.ENDPOINT_UNAVAILABLE}
        assert sum(isinstance(one, str) for one in outcomes) == 30
        assert wire.requests - 30 <= 10 + threads - 1 + (1 if threads == 1 else 0)  # one thread alone probes once
        assert lines(tmp_path, "fail") == []  # no row is to blame


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        pytest.param(lambda: lm15.AuthError("no", status=401), Reason.AUTHENTICATION_FAILED, id="401"),
        pytest.param(lambda: lm15.AuthError("no", status=403), Reason.AUTHENTICATION_FAILED, id="403"),
        pytest.param(lambda: lm15.BillingError("no", status=429), Reason.AUTHENTICATION_FAILED, id="billing"),
        pytest.param(
            lambda: lm15.UnsupportedModelError("no", status=404), Reason.ENDPOINT_UNAVAILABLE, id="no such model"
        ),
        pytest.param(
            lambda: lm15.InvalidRequestError("no", status=404), Reason.ENDPOINT_UNAVAILABLE, id="no such path"
        ),
    ],
)
def test_what_no_retry_repairs_ends_every_phase_at_once(
    tmp_path: Path, wire: Wire, error: Callable[[], BaseException], reason: Reason
) -> None:
    wire.behaves = lambda ordinal, text: error()
    with a_ledger(tmp_path, a_control(concurrency=4)) as made:
        optimize, other = made.open_epoch("optimize"), made.open_epoch("judge")
        assert reasons(each(made.lm("task", optimize), [f"row {number}" for number in range(40)])) == {reason}
        assert wire.requests <= 4
        sent = wire.requests
        assert reasons([outcome(lambda: made.lm("task", other)("hello"))]) == {reason}
        assert wire.requests == sent
        assert lines(tmp_path, "fail") == []


def test_a_refused_request_is_recorded_and_refused_again_for_nothing(tmp_path: Path, wire: Wire) -> None:
    wire.behaves = lambda ordinal, text: too_long() if text == "long" else text
    for sent in (2, 2):
        with a_ledger(tmp_path) as made:
            lm = made.lm("task", made.open_epoch("optimize"))
            assert each(lm, ["short", "long"])[0] == "short"
            with pytest.raises(ContextWindowExceededError, match="too long"):
                lm("long")
            assert made.failed_requests == 1
        assert wire.requests == sent
    assert [entry["code"] for entry in lines(tmp_path, "fail")] == ["context_length_exceeded"]


def test_ten_refusals_in_a_row_end_the_run(tmp_path: Path, wire: Wire) -> None:
    wire.behaves = lambda ordinal, text: too_long()
    with a_ledger(tmp_path) as made:
        lm = made.lm("task", made.open_epoch("optimize"))
        outcomes = each(lm, [f"row {number}" for number in range(50)], threads=1)
        assert reasons(outcomes) == {Reason.MODEL_ANSWERS_UNUSABLE}
        assert wire.requests == 10


def test_a_request_that_always_times_out_is_given_up_after_three_while_others_are_answered(
    tmp_path: Path, wire: Wire
) -> None:
    with a_ledger(tmp_path) as made, ThreadPoolExecutor(2) as pool:

        def behaves(ordinal: int, text: str) -> str | BaseException:
            if text == "good":
                return text
            if wire.texts.count("poison") == 2:
                wait_until(lambda: made.answered_requests == 1)
            return timeout()

        wire.behaves = behaves
        lm = made.lm("task", made.open_epoch("optimize"))
        poison = pool.submit(outcome, lambda: lm("poison"))
        wire.reached(2)
        assert lm("good") == ["good"]
        assert isinstance(poison.result(), LMError)
        assert wire.texts.count("poison") == 3
        assert [entry["code"] for entry in lines(tmp_path, "fail")] == ["timeout"]


def test_an_answer_to_what_was_sent_before_an_outage_gives_nothing_up(tmp_path: Path, wire: Wire) -> None:
    with a_ledger(tmp_path) as made, ThreadPoolExecutor(2) as pool:

        def behaves(ordinal: int, text: str) -> str | BaseException:
            if text == "slow" and wire.texts.count("slow") == 1:
                wait_until(lambda: wire.texts.count("hit") >= 3)
                return text
            if wire.texts.count("hit") == 4:
                wait_until(lambda: made.answered_requests == 1)
            return server_error()

        wire.behaves = behaves
        lm = made.lm("task", made.open_epoch("optimize"))
        slow = pool.submit(outcome, lambda: lm("slow"))
        wire.reached(1)
        assert reasons([outcome(lambda: lm("hit"))]) == {Reason.ENDPOINT_UNAVAILABLE}
        assert slow.result() == "slow"
        assert lines(tmp_path, "fail") == []


def test_where_nobody_else_asks_a_known_request_probes_whether_the_endpoint_answers(tmp_path: Path, wire: Wire) -> None:
    wire.behaves = lambda ordinal, text: timeout() if text == "poison" else text
    with a_ledger(tmp_path) as made:
        lm = made.lm("task", made.open_epoch("optimize"))
        assert lm("good") == ["good"]
        assert isinstance(outcome(lambda: lm("poison")), LMError)
        assert wire.texts == ["good", *["poison"] * 3, "good"]
        assert made.usage().calls == 5 == len(lines(tmp_path, "start"))
        assert made.usage().tokens == 2 * TOKENS
        assert made.served().answered == 1  # nothing is derived from a probe: a replay needs none
    with a_ledger(tmp_path) as made:
        lm = made.lm("task", made.open_epoch("optimize"))
        assert lm("good") == ["good"]
        assert isinstance(outcome(lambda: lm("poison")), LMError)
        assert wire.requests == 5
        assert (made.usage().calls, made.usage().tokens, made.served().answered) == (5, 2 * TOKENS, 1)


def test_several_probes_at_a_time_are_all_paid_and_all_recorded(tmp_path: Path, wire: Wire) -> None:
    wire.behaves = lambda ordinal, text: timeout() if text.startswith("poison") else text
    with a_ledger(tmp_path) as made:
        lm = made.lm("task", made.open_epoch("optimize"))
        lm("good")
        outcomes = each(lm, [f"poison {number}" for number in range(3)])
        assert all(isinstance(one, LMError) for one in outcomes)
        spent = made.usage()
        assert spent.tokens == TOKENS * wire.texts.count("good")
    with a_ledger(tmp_path) as made:
        assert (made.usage().calls, made.usage().tokens, made.usage().cost) == (spent.calls, spent.tokens, spent.cost)


def test_where_the_probe_fails_too_it_is_the_endpoint_and_no_row(tmp_path: Path, wire: Wire) -> None:
    wire.behaves = lambda ordinal, text: text if ordinal == 1 else timeout()
    with a_ledger(tmp_path) as made:
        lm = made.lm("task", made.open_epoch("optimize"))
        lm("good")
        assert reasons([outcome(lambda: lm("row"))]) == {Reason.ENDPOINT_UNAVAILABLE}
        assert wire.requests == 11
        assert lines(tmp_path, "fail") == []


def test_an_answer_that_the_engine_stumbles_over_is_no_failed_row(tmp_path: Path, wire: Wire) -> None:
    wire.behaves = lambda ordinal, text: TypeError("'NoneType' object is not iterable") if ordinal == 1 else text
    with a_ledger(tmp_path) as made:
        assert made.lm("task", made.open_epoch("optimize"))("hello") == ["hello"]
    wire.behaves = lambda ordinal, text: TypeError("'NoneType' object is not iterable")
    with a_ledger(tmp_path / "always") as made:
        stopped = outcome(lambda: made.lm("task", made.open_epoch("optimize"))("hello"))
        assert reasons([stopped]) == {Reason.MODEL_ANSWERS_UNUSABLE}
        assert "'NoneType' object is not iterable" in stopped.message


def test_a_journal_that_cannot_be_written_ends_the_run(
    tmp_path: Path, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(kind: str, **fields: Any) -> None:
        raise OSError(5, "Input/output error")

    with a_ledger(tmp_path) as made:
        lm = made.lm("task", made.open_epoch("optimize"))
        monkeypatch.setattr(Journal, "append", lambda self, kind, **fields: broken(kind, **fields))
        stopped = outcome(lambda: lm("hello"))
        assert reasons([stopped]) == {Reason.INTERNAL_ERROR}
        assert "Input/output error" in stopped.message
        assert wire.requests == 0


# Replay


def asked(
    folder: Path,
    wire: Wire,
    *,
    endpoint: Endpoint | None = None,
    role: Role = "task",
    seed: int = 0,
    text: str = "hello",
    **options: Any,
) -> int:
    """Ask once in a try of its own; how many requests that took."""
    before = wire.requests
    endpoints: dict[Role, Endpoint] = {"task": endpoint or an_endpoint(), "prompt": endpoint or an_endpoint()}
    with a_ledger(folder, endpoints=endpoints, seed=seed) as made:
        made.lm(role, made.open_epoch("optimize"))(text, **options)
    return wire.requests - before


def hot(**more: Any) -> Endpoint:
    return an_endpoint(request={"temperature": "1", "maxTokens": 64}, **more)


@pytest.mark.filterwarnings("ignore:rollout_id has no effect")
@pytest.mark.parametrize(
    ("first", "second", "want"),
    [
        pytest.param({}, {}, 0, id="the same"),
        pytest.param({}, {"endpoint": an_endpoint(timeoutSeconds=600)}, 0, id="another time-out"),
        pytest.param({}, {"endpoint": an_endpoint(url="http://127.0.0.1:10/v1")}, 0, id="another URL"),
        pytest.param({}, {"endpoint": an_endpoint(pricing=None)}, 0, id="another price"),
        pytest.param({}, {"endpoint": an_endpoint(apiKeySource="a Secret")}, 0, id="another Secret"),
        pytest.param({}, {"role": "prompt"}, 0, id="another role of the same endpoint"),
        pytest.param({}, {"rollout_id": 1}, 0, id="another rollout, where nothing is sampled"),
        pytest.param({}, {"seed": 1}, 0, id="another seed, where nothing is sampled"),
        pytest.param({}, {"text": "hello!"}, 1, id="another text"),
        pytest.param({}, {"temperature": 0.5}, 1, id="another temperature"),
        pytest.param({}, {"max_tokens": 65}, 1, id="more tokens to answer in"),
        pytest.param({}, {"stop": ["."]}, 1, id="another stop"),
        pytest.param({}, {"top_p": 0.5}, 1, id="another top_p"),
        pytest.param({}, {"endpoint": an_endpoint(model="other")}, 1, id="another model"),
        pytest.param({}, {"endpoint": an_endpoint(name="default/other")}, 1, id="another endpoint"),
        pytest.param({}, {"endpoint": an_endpoint(modelDigest="sha256:1")}, 1, id="a model whose digest is known"),
        pytest.param(
            {"endpoint": an_endpoint(modelDigest="sha256:1")},
            {"endpoint": an_endpoint(modelDigest="sha256:1", name="default/other")},
            0,
            id="the same digest at another endpoint",
        ),
        pytest.param({"endpoint": hot()}, {"endpoint": hot()}, 0, id="sampled, the same"),
        pytest.param({"endpoint": hot()}, {"endpoint": hot(), "rollout_id": 1}, 1, id="sampled, another rollout"),
        pytest.param({"endpoint": hot()}, {"endpoint": hot(), "seed": 1}, 1, id="sampled, another seed"),
        pytest.param({"endpoint": hot()}, {"endpoint": hot(), "n": 2}, 1, id="sampled, one answer more"),
    ],
)
def test_what_replays_is_what_the_model_would_see_and_how_it_would_sample(
    tmp_path: Path, wire: Wire, first: dict[str, Any], second: dict[str, Any], want: int
) -> None:
    assert asked(tmp_path, wire, **first) == 1
    assert asked(tmp_path, wire, **second) == want


def test_each_of_n_answers_is_a_request_of_its_own(tmp_path: Path, wire: Wire) -> None:
    wire.behaves = lambda ordinal, text: f"answer {ordinal}"
    for _ in range(2):
        with a_ledger(tmp_path, endpoints={"task": hot()}) as made:
            lm = made.lm("task", made.open_epoch("optimize"))
            assert lm("hello", n=3) == ["answer 1", "answer 2", "answer 3"]
            assert lm("hello") == ["answer 1"]
        assert wire.requests == 3


def test_a_resumed_try_repeats_what_was_on_the_wire_and_nothing_else(tmp_path: Path, wire: Wire) -> None:
    wire.behaves = lambda ordinal, text: KeyboardInterrupt() if text == "in flight" else text
    with a_ledger(tmp_path) as made:
        lm = made.lm("task", made.open_epoch("optimize"))
        lm("answered")
        with pytest.raises(KeyboardInterrupt):
            lm("in flight")
        made.mark(Mark("evaluate", "p" * 64, "r" * 64, (1.0,)))
    wire.behaves = lambda ordinal, text: text
    with a_ledger(tmp_path) as made:
        lm = made.lm("task", made.open_epoch("optimize"))
        assert each(lm, ["answered", "in flight"]) == ["answered", "in flight"]
        assert (wire.requests, made.usage().calls, made.usage().failed) == (3, 3, 1)
        stopped = outcome(lambda: lm("never asked before"))
        assert reasons([stopped]) == {Reason.REPLAY_DIVERGED}
        assert "before mark 0 of 1" in stopped.message
        assert wire.requests == 3


@pytest.mark.parametrize(
    ("now", "says"),
    [
        pytest.param(Mark("evaluate", "p" * 64, "r" * 64, (1.0, 0.0)), None, id="the same"),
        pytest.param(
            Mark("evaluate", "p" * 64, "r" * 64, (1.0, 1.0), ("line 4", "line 9")),
            "mark 0 (evaluate): line 9 scores 1 now and scored 0",
            id="another score",
        ),
        pytest.param(
            Mark("evaluate", "q" * 64, "r" * 64, (1.0, 0.0)), "program is qqqqqqqqqqqq now", id="another program"
        ),
        pytest.param(Mark("evaluate", "p" * 64, "s" * 64, (1.0, 0.0)), "rows is ssssssssssss now", id="other rows"),
        pytest.param(Mark("bootstrap", "p" * 64, "r" * 64, (1.0, 0.0)), "kind is bootstrap now", id="another kind"),
        pytest.param(Mark("evaluate", "p" * 64, "r" * 64, (1.0,)), "1 scores now and 2", id="fewer scores"),
    ],
)
def test_marks_are_compared(tmp_path: Path, wire: Wire, now: Mark, says: str | None) -> None:
    with a_ledger(tmp_path) as made:
        made.mark(Mark("evaluate", "p" * 64, "r" * 64, (1.0, 0.0)))
    with a_ledger(tmp_path) as made:
        assert made.replaying
        try:
            made.mark(now)
        except RunStop as stop:
            assert stop.reason is Reason.REPLAY_DIVERGED
            assert says is not None and says in stop.message
        else:
            assert says is None
            assert not made.replaying


def test_offline_nothing_is_sent(tmp_path: Path, wire: Wire) -> None:
    asked(tmp_path, wire)
    with a_ledger(tmp_path, offline=True) as made:
        lm = made.lm("task", made.open_epoch("optimize"))
        assert lm("hello") == ["answer to hello"]
        stopped = outcome(lambda: lm("hello!"))
        assert reasons([stopped]) == {Reason.VERIFY_FAILED}
        assert wire.requests == 1
