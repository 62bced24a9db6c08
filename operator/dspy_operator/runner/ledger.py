"""The Ledger: every model call of a run passes here, and only here.

For each request it decides: answered before (replay, free), a failure that would repeat (raised again), on the wire already
(wait for it), not allowed any more (stop), or sent: within the budget, within the endpoint's slots, retried while the fault
is a passing one, and written down before and after.

Two ends. Above, `LedgerLM` is the dspy.LM that programs and optimizers hold; it knows the rollout, which DSPy keeps from
engines. Below, `RoleEngine` is its custom engine; it sees every request on the wire, also each of n > 1.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Literal

import dspy
from dspy import lm15
from dspy._vendor.lm15.serde import request_to_dict, response_from_dict, response_to_dict
from dspy.clients.engines.lm15_engine import LM15Engine
from dspy.utils.exceptions import LMError

from dspy_operator.contract.exits import Reason
from dspy_operator.contract.runspec import Control, Endpoint, Usage
from dspy_operator.runner import attempts, audio
from dspy_operator.runner.breaker import Breaker, KeyTroubles, Trouble, backoff_seconds, monotonic
from dspy_operator.runner.difference import nearest_difference
from dspy_operator.runner.journal import Journal, mark_key
from dspy_operator.runner.pace import Pace
from dspy_operator.runner.spend import InFlight, Limits, Reserve, Tally, Tokens, earlier, exceeded, price, total
from dspy_operator.runner.stop import RunStop
from dspy_operator.runner.took import Took

Role = Literal["task", "prompt", "judge"]

log = logging.getLogger(__name__)
UNPROVEN_BACKOFF_SECONDS = 2.0
"""Most between two attempts to reach an endpoint that never answered: more likely a wrong URL than a bad moment, and the
person is waiting (measured: a minute until "connection refused", now 10 s). The operator tries again later on its own."""


class RequestFailed(lm15.ProviderError):  # type: ignore[misc]  # DSPy is untyped here
    """A request that fails the same way each time it is sent; its row counts as failed, not as wrong."""

    default_code = "invalid_request"


class RequestTooLong(lm15.ContextLengthError):  # type: ignore[misc]  # DSPy is untyped here
    """The same of one that exceeds the model's context: DSPy's ContextWindowExceededError, on replay too."""


class RequestUnanswered(RequestFailed):
    """A request that was given up without an answer, while others were answered: no word of the endpoint's on the request."""


@dataclass
class Epoch:
    """A phase of the run. Once stopped, nothing from its threads reaches the wire any more.

    DSPy's pool threads outlive the exception that ended their evaluation; without this they would spend what is reserved
    for the judgement (measured: up to 7 of 12 calls).
    """

    name: str
    reserve: Reserve = field(default_factory=Reserve)
    stop: RunStop | None = None
    sent: bool = False
    """Whether it put a request on the wire. The clock ends no phase that only replays: what was paid for is not lost."""


@dataclass(frozen=True)
class Mark:
    """What an evaluation came to; compared on replay."""

    kind: str
    """evaluate | bootstrap | judge"""
    program: str
    """Hash of the program that was evaluated."""
    rows: str
    """Digest of the rows, in order."""
    scores: tuple[float, ...]
    """One score a row, 0 to 1."""
    labels: tuple[str, ...] = ()
    """For messages: where each row is, for example "line 17"."""
    repeat: int = 0
    """Of a judgement: the how-manieth answer of each row, from 0."""


class Ledger:
    """Replay, budget, slots, retries, breaker, usage and journal of one run.

    Args:
        journal: open journal of this run; what it recorded is replayed.
        endpoints: by role.
        control: the live part; `update` takes a newer one.
        seed: the run's seed, part of a request's key where it samples.
        offline: for `verify`: nothing may go on the wire. Where the optimization was stopped when it was recorded, it is
            stopped again with this where the record ends; None where it came to its own end.
        others: key -> `done` line of other runs, taken at temperature 0 in place of a request.
    """

    def __init__(
        self,
        journal: Journal,
        endpoints: Mapping[Role, Endpoint],
        control: Control,
        *,
        seed: int,
        offline: bool = False,
        offline_stop: RunStop | None = None,
        others: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._journal = journal
        self._endpoints = dict(endpoints)
        self._seed = seed
        self._offline = offline
        self._offline_stop = offline_stop
        self._others = others or {}
        self._cond = threading.Condition()
        self._limits = Limits.of(control.budget)
        self._control = control
        self._started_at = monotonic()
        self._jitter = random.Random()
        self._epochs: list[Epoch] = []
        self._in_flight: dict[str, Role] = {}
        self._on_wire: dict[str, int] = {endpoint.name: 0 for endpoint in endpoints.values()}
        self._breakers = {
            endpoint.name: Breaker(f"{endpoint.name} at {endpoint.url}") for endpoint in endpoints.values()
        }
        self._paces = {endpoint.name: Pace() for endpoint in endpoints.values()}
        self._troubles: dict[str, KeyTroubles] = {}
        self._answerable: dict[str, lm15.Request] = {}
        self._stopping: RunStop | None = None
        self._served = Tally()
        self._here = threading.local()

        recorded = journal.recorded
        self._answers = recorded.answers
        self._failures = recorded.failures
        self._unanswered = {
            key for key in recorded.starts if key not in recorded.answers and key not in recorded.failures
        }
        self._marks_seen = 0
        self._consumed: set[str] = set()
        self._seconds_before = max(recorded.seconds, control.floor_seconds)
        self._tallies: dict[str, Tally] = {role: Tally() for role in endpoints}
        self._probes = itertools.count(recorded.calls + 1)  # each probe is a call, so no try uses a number again
        self.calls_before = recorded.calls
        """Calls of earlier tries."""
        for entry in recorded.answers.values():
            if "borrowed" in entry:
                continue  # another run paid for it
            role = entry.get("role", "task")
            tally = self._tallies.setdefault(role, Tally())
            tokens = Tokens.of(entry["response"].get("usage"))
            tally.add(tokens, price(tokens, self._endpoints[role].pricing if role in self._endpoints else None))
        for key, offsets in recorded.starts.items():
            role = recorded.answers.get(key, recorded.failures.get(key, {})).get("role", "task")
            tally = self._tallies.setdefault(role, Tally())
            tally.calls += len(offsets)
            answered = key in recorded.answers and "borrowed" not in recorded.answers[key]
            tally.failed += len(offsets) - (1 if answered else 0)
        self._floor = _floor(control.floor, total(self._tallies))

    # --- what the flow asks ------------------------------------------------------------------------------------------

    def open_epoch(self, name: str, reserve: Reserve | None = None) -> Epoch:
        """A new phase; `reserve` is what it must leave for the judgement."""
        epoch = Epoch(name, reserve or Reserve())
        with self._cond:
            epoch.stop = self._stopping if self._stopping is not None and not self._stopping.keeps_result else None
            self._epochs.append(epoch)
        return epoch

    def plays(self, role: Role) -> bool:
        """Whether the run has an endpoint for a role."""
        return role in self._endpoints

    def lm(self, role: Role, epoch: Epoch, *, repeat: int = 0) -> LedgerLM:
        """The dspy.LM that plays a role in a phase.

        Args:
            repeat: which answer to a request is wanted, where it samples; two numbers are two answers.
        """
        endpoint = self._endpoints[role]
        request = endpoint.request
        prefix = "ollama_chat" if endpoint.type == "Ollama" else "openai"
        temperature = (
            float(request.temperature) if request.temperature is not None else (1.0 if role == "prompt" else 0.0)
        )
        extra: dict[str, Any] = {}
        if request.top_p is not None:
            extra["top_p"] = float(request.top_p)
        if request.stop is not None:
            extra["stop"] = list(request.stop)
        return LedgerLM(
            f"{prefix}/{endpoint.model}",
            temperature=temperature,
            max_tokens=request.max_tokens,
            cache=False,
            num_retries=0,
            engine=RoleEngine(self, role, endpoint, epoch, repeat),
            **extra,
        )

    def set_reserve(self, epoch: Epoch, reserve: Reserve) -> None:
        """Renew what a phase must leave, for example when the best-so-far got longer prompts."""
        with self._cond:
            epoch.reserve = reserve

    def end(self, epoch: Epoch, stop: RunStop) -> None:
        """End a phase: its threads' next request raises `stop`."""
        with self._cond:
            if epoch.stop is None:
                epoch.stop = stop
            self._cond.notify_all()

    def halt(self, stop: RunStop) -> None:
        """End the run: every phase, at once."""
        with self._cond:
            self._stopping = stop
            for epoch in self._epochs:
                epoch.stop = epoch.stop or stop
            self._cond.notify_all()

    def update(self, control: Control) -> None:
        """Take a newer control document: budget, slots and stop apply from the next request on."""
        with self._cond:
            self._control = control
            self._limits = Limits.of(control.budget)
            self._cond.notify_all()
        if control.stop == "Cancel":
            self.halt(RunStop(Reason.STOPPED, "stop: Cancel was asked for"))
        elif control.stop == "Finish":
            with self._cond:
                for epoch in self._epochs:
                    if epoch.name == "optimize" and epoch.stop is None and not self.replaying:
                        epoch.stop = _finished()
                self._cond.notify_all()

    def tick(self) -> None:
        """Look at the clock: a phase whose time is up ends also while nothing is sent."""
        with self._cond:
            for epoch in self._epochs:
                if (
                    epoch.stop is None
                    and epoch.sent
                    and not self.replaying
                    and self._limits.seconds is not None
                    and self.seconds >= self._limits.seconds - epoch.reserve.seconds
                ):
                    why = exceeded(
                        Tally(),
                        self.seconds,
                        InFlight(),
                        Limits(seconds=self._limits.seconds),
                        Reserve(seconds=epoch.reserve.seconds),
                    )
                    epoch.stop = RunStop(Reason.BUDGET_EXHAUSTED, why or "wallClock is used up")
            self._cond.notify_all()

    @property
    def control(self) -> Control:
        """The control document in force."""
        return self._control

    @property
    def seconds(self) -> float:
        """Run time over all tries."""
        return self._seconds_before + monotonic() - self._started_at

    @property
    def limits(self) -> Limits:
        """The budget in force."""
        return self._limits

    def spent(self) -> Tally:
        """Spend over the run's whole life, all roles, the account's floor included."""
        with self._cond:
            return self._spent()

    def served(self) -> Tally:
        """Answers to the task and the judge, replayed ones too: the same on every try, unlike spend."""
        with self._cond:
            return replace(self._served)

    def taken(self) -> Took:
        """What the task role's answers to this thread took until now, replayed ones too."""
        return getattr(self._here, "took", Took())

    def usage_by_role(self) -> dict[str, Usage]:
        """For progress and result; all together are `usage`."""
        with self._cond:
            return {role: tally.document() for role, tally in self._tallies.items()} | earlier(self._floor)

    def usage(self) -> Usage:
        """All roles together."""
        return self.spent().document()

    @property
    def failed_requests(self) -> int:
        """Requests given up as failing for ever."""
        return len(self._failures)

    @property
    def answered_requests(self) -> int:
        """Distinct requests with an answer."""
        return len(self._answers)

    @property
    def seconds_per_call(self) -> float:
        """Mean time of an answer, as the journal recorded them."""
        with self._cond:
            times = [float(entry.get("seconds", 0.0)) for entry in self._answers.values()]
        return sum(times) / len(times) if times else 0.0

    @property
    def replaying(self) -> bool:
        """Whether a mark of an earlier try is still ahead."""
        return self._marks_seen < len(self._journal.recorded.marks)

    def in_flight(self) -> int:
        """Requests on the wire now."""
        with self._cond:
            return len(self._in_flight)

    def drain(self) -> None:
        """Wait for what an ended phase left on the wire: it is paid for, and a raised budget goes on with it. One time-out at most."""
        deadline = monotonic() + max(endpoint.timeout_seconds for endpoint in self._endpoints.values())
        with self._cond:
            while self._in_flight and self._stopping is None and monotonic() < deadline:
                self._cond.wait(0.5)

    def mark(self, mark: Mark) -> None:
        """Record an evaluation, or compare it with the record.

        Raises:
            RunStop: ReplayDiverged, naming the mark and the first row whose score differs.
        """
        with self._cond:
            recorded = self._journal.recorded
            if mark.kind == "judge":
                number, old = None, recorded.judgements.get(mark_key(mark.program, mark.rows, mark.repeat))
            else:
                number = self._marks_seen
                self._marks_seen += 1
                old = recorded.marks[number] if number < len(recorded.marks) else None
            if old is not None:
                _compare(mark, old, number)
                return
            t = self.seconds
        self._journal.append(
            "mark",
            mark=mark.kind,
            n=number,
            program=mark.program,
            rows=mark.rows,
            scores=list(mark.scores),
            t=round(t, 3),
            **({"repeat": mark.repeat} if mark.repeat else {}),
        )

    def resolved(self, counts: Mapping[str, Any]) -> dict[str, Any]:
        """Freeze counts that were derived from the budget; on a resume the frozen ones come back."""
        if self._journal.recorded.resolved is not None:
            return self._journal.recorded.resolved
        self._journal.append("mark", mark="resolved", counts=dict(counts))
        self._journal.recorded.resolved = dict(counts)
        return dict(counts)

    @property
    def adapter(self) -> dict[str, Any] | None:
        """What `constrained: Auto` came to, once that is known."""
        return self._journal.recorded.adapter

    def settle_adapter(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Freeze what `constrained: Auto` came to; on a resume the frozen comes back."""
        if self._journal.recorded.adapter is None:
            self._journal.append("mark", mark="adapter", found=dict(found))
            self._journal.recorded.adapter = dict(found)
        return self._journal.recorded.adapter

    # --- one request -------------------------------------------------------------------------------------------------

    def complete(self, engine: RoleEngine, request: lm15.Request, rollout: int | None, index: int) -> lm15.Response:
        """Answer one request: from the journal, or from the endpoint.

        Raises:
            RunStop: the phase has ended, or this request ended it.
            RequestFailed, RequestTooLong: this request can never be answered; recorded, so that a replay raises it again.
        """
        document = request_to_dict(request)
        key = self._key(document, engine, rollout, index)
        with self._cond:
            while True:
                if engine.epoch.stop is not None:
                    raise engine.epoch.stop
                if (answer := self._answers.get(key)) is not None:
                    self._tallies[engine.role].replayed += 1
                    self._serve(engine, Tokens.of(answer["response"].get("usage")), float(answer.get("seconds", 0.0)))
                    self._consumed.add(key)
                    self._answerable[engine.endpoint.name] = request
                    return response_from_dict(answer["response"])
                if (failure := self._failures.get(key)) is not None:
                    self._consumed.add(key)
                    raise _refusal(failure)
                if key not in self._in_flight:
                    break
                self._cond.wait(1.0)
            self.check_unrecorded(
                engine.epoch, was_sent=key in self._unanswered, nearest=lambda: self._nearest(document)
            )
            if document.get("config", {}).get("temperature") == 0.0 and (other := self._others.get(key)) is not None:
                return self._borrow(engine, key, other)
            self._in_flight[key] = engine.role
        try:
            return self._send(engine, request, document, key)
        finally:
            with self._cond:
                self._in_flight.pop(key, None)
                self._cond.notify_all()

    def _send(self, engine: RoleEngine, request: lm15.Request, document: dict[str, Any], key: str) -> lm15.Response:
        endpoint = engine.endpoint
        for attempt in range(10_000):
            with self._slot(engine):
                self._admit(engine, key, document if attempt == 0 else None)
                sent_at = monotonic()
                outcome = engine.attempt(request)
            if isinstance(outcome, lm15.Response):
                self._accept(engine, key, request, outcome, sent_at)
                return outcome
            self._fail(engine, key, outcome, sent_at)
            retry_after = outcome.retry_after  # of a 429, and of a 503 that says when it will be back
            backoff = backoff_seconds(attempt, self._jitter)
            if self._breakers[endpoint.name].answered_to is None and _trouble(outcome) is Trouble.CONNECTION:
                backoff = min(backoff, UNPROVEN_BACKOFF_SECONDS)
            self._wait(engine, backoff, retry_after)
        raise RunStop(Reason.ENDPOINT_UNAVAILABLE, f"{endpoint.name} did not answer one request in 10000 attempts")

    @contextmanager
    def _slot(self, engine: RoleEngine) -> Iterator[None]:
        """One of the endpoint's slots; waits for it, and for Retry-After."""
        name = engine.endpoint.name
        with self._cond:
            while True:
                if engine.epoch.stop is not None:
                    raise engine.epoch.stop
                held_back = self._breakers[name].not_before - monotonic()
                if held_back <= 0 and self._on_wire[name] < self._slots(name):
                    break
                self._cond.wait(min(1.0, held_back) if held_back > 0 else 1.0)
            self._on_wire[name] += 1
        try:
            yield
        finally:
            with self._cond:
                self._on_wire[name] -= 1
                self._cond.notify_all()

    def _slots(self, endpoint: str) -> int:
        """How many requests the endpoint may be asked at a time now."""
        slots = max(1, self._control.slots.get(endpoint, self._control.concurrency))
        return slots if self._control.pacing == "Fixed" else self._paces[endpoint].limit(slots)

    def _admit(self, engine: RoleEngine, key: str, document: dict[str, Any] | None) -> None:
        """Check the budget, count the call and write it down: from here on it is on the wire."""
        with self._cond:
            if engine.epoch.stop is not None:
                raise engine.epoch.stop
            spent = self._spent()
            why = exceeded(spent, self.seconds, self._expected(spent), self._limits, engine.epoch.reserve)
            if why is not None:
                engine.epoch.stop = RunStop(Reason.BUDGET_EXHAUSTED, why)
                self._cond.notify_all()
                raise engine.epoch.stop
            engine.epoch.sent = True
            self._tallies[engine.role].calls += 1
            # Written under the lock, so that the journal never shows more calls than the budget allows, nor fewer.
            entry: dict[str, Any] = {"key": key, "role": engine.role, "t": round(self.seconds, 3)}
            if document is not None and key not in self._unanswered:
                entry["request"] = document
            self._journal.append("start", **entry)

    def _accept(
        self,
        engine: RoleEngine,
        key: str,
        request: lm15.Request,
        response: lm15.Response,
        sent_at: float,
        *,
        asked_for: bool = True,
    ) -> None:
        document = response_to_dict(response)
        tokens = Tokens.of(document.get("usage"))
        entry = {
            "key": key,
            "role": engine.role,
            "endpoint": engine.endpoint.name,
            "model": response.model,
            "finish": response.finish_reason,
            "seconds": round(monotonic() - sent_at, 3),
            "t": round(self.seconds, 3),
            "response": document,
        }
        self._journal.append("done", **entry)
        with self._cond:
            self._answers[key] = entry
            self._unanswered.discard(key)
            self._troubles.pop(key, None)
            self._answerable[engine.endpoint.name] = request
            self._breakers[engine.endpoint.name].answered(sent_at)
            self._paces[engine.endpoint.name].answered()
            self._tallies[engine.role].add(tokens, price(tokens, engine.endpoint.pricing))
            if asked_for:  # not a probe: another try needs none, and must derive the same sizes
                self._serve(engine, tokens, entry["seconds"])

    def _borrow(self, engine: RoleEngine, key: str, other: Mapping[str, Any]) -> lm15.Response:
        """What another run paid for, written down as this run's own: a resume does not need the other journal."""
        entry = {**other, "role": engine.role, "t": round(self.seconds, 3), "borrowed": True}
        entry = {name: value for name, value in entry.items() if name not in ("kind", "crc")}
        self._journal.append("done", **entry)
        self._answers[key] = entry
        self._unanswered.discard(key)
        self._tallies[engine.role].replayed += 1
        self._serve(engine, Tokens.of(entry["response"].get("usage")), entry["seconds"])
        return response_from_dict(entry["response"])

    def _serve(self, engine: RoleEngine, tokens: Tokens, seconds: float) -> None:
        if engine.role == "task":
            self._here.took = self.taken() + Took(1, tokens.input, tokens.output, round(1000 * seconds))
        if engine.role != "prompt":
            self._served.calls += 1
            self._served.add(tokens, price(tokens, engine.endpoint.pricing))

    def _fail(self, engine: RoleEngine, key: str, error: lm15.LM15Error, sent_at: float) -> None:
        """Decide what a failed request means; returns where it is to be sent again.

        Raises:
            RunStop: for the endpoint as a whole.
            RequestFailed: for this request, for ever.
        """
        name, words = engine.endpoint.name, _words(error)
        with self._cond:
            self._tallies[engine.role].failed += 1
            breaker = self._breakers[name]
            if isinstance(error, (lm15.AuthError, lm15.BillingError, lm15.NotConfiguredError)):
                self._stop_all(engine, Reason.AUTHENTICATION_FAILED, f"{name}: {words}")
            if isinstance(error, lm15.UnsupportedModelError) or error.status == 404:
                self._stop_all(engine, Reason.ENDPOINT_UNAVAILABLE, _not_found(engine.endpoint, words))
            if isinstance(error, (lm15.InvalidRequestError, lm15.CapabilityError)):
                if (opened := breaker.refused(words)) is not None:
                    self._stop_all(engine, *opened)
                too_long = isinstance(error, lm15.ContextLengthError)  # each vendor has a code of its own for it
                self._give_up(engine, key, words, error.provider_code or error.code, too_long=too_long)
            trouble = _trouble(error)
            if trouble is Trouble.LIMITED:
                self._paces[name].limited(sent_at, monotonic(), self._on_wire[name] + 1)  # this one has left its slot
            if (opened := breaker.failed(trouble, words, monotonic())) is not None:
                self._stop_all(engine, *opened)
            breaker.hold_back(error.retry_after, monotonic())
            troubles = self._troubles.setdefault(key, KeyTroubles(first_at=monotonic()))
            troubles.count(trouble)
            if not troubles.suspect or trouble is Trouble.LIMITED:
                return
            if breaker.answered_to is not None and breaker.answered_to > troubles.first_at:
                self._give_up(engine, key, words, trouble.value)
        # Nobody else was answered meanwhile, so it may be the endpoint and not this request.
        if self._still_answers(engine):
            with self._cond:
                self._give_up(engine, key, words, trouble.value)

    def _still_answers(self, engine: RoleEngine) -> bool:
        """Whether the endpoint answers a request that it answered before; one call, paid and counted like any other."""
        request = self._answerable.get(engine.endpoint.name)
        if request is None:
            return False
        with self._slot(engine):
            key = f"probe-{next(self._probes)}"
            self._admit(engine, key, None)
            sent_at = monotonic()
            outcome = engine.attempt(request)
        if isinstance(outcome, lm15.LM15Error):
            with self._cond:
                self._tallies[engine.role].failed += 1
                opened = self._breakers[engine.endpoint.name].failed(_trouble(outcome), _words(outcome), monotonic())
                if opened is not None:
                    self._stop_all(engine, *opened)
            return False
        self._accept(engine, key, request, outcome, sent_at, asked_for=False)
        return True

    def _give_up(self, engine: RoleEngine, key: str, words: str, code: str, *, too_long: bool = False) -> None:
        entry = {"key": key, "role": engine.role, "error": words, "code": code, "t": round(self.seconds, 3)}
        if too_long:
            entry["tooLong"] = True
        self._failures[key] = entry
        self._unanswered.discard(key)
        self._journal.append("fail", **entry)
        self._cond.notify_all()
        raise _refusal(entry)

    def _stop_all(self, engine: RoleEngine, reason: Reason, message: str) -> None:
        stop = RunStop(reason, message)
        self.stop_all(stop)
        raise engine.epoch.stop or stop

    def _wait(self, engine: RoleEngine, seconds: float, retry_after: float | None) -> None:
        until = monotonic() + (seconds if retry_after is None else retry_after + seconds)
        with self._cond:
            while (left := until - monotonic()) > 0:
                if engine.epoch.stop is not None:
                    raise engine.epoch.stop
                self._cond.wait(min(left, 1.0))

    def _spent(self) -> Tally:
        spent = total(self._tallies)
        spent.calls += self._floor.calls
        spent.input_tokens += self._floor.input_tokens
        spent.output_tokens += self._floor.output_tokens
        spent.cost += Decimal(self._floor.cost)
        return spent

    def _expected(self, spent: Tally) -> InFlight:
        if not spent.answered:
            return InFlight()
        flying = sum(self._on_wire.values()) - 1  # this request has its slot already
        return InFlight(flying * spent.tokens // spent.answered, flying * spent.cost / spent.answered)

    def check_unrecorded(self, epoch: Epoch, *, was_sent: bool, nearest: Callable[[], str]) -> None:
        """What the journal does not hold is sent while the phase goes on, and not where a replay has to hold it.

        Before the last recorded mark only requests that were on the wire at the crash may be missing. Sets, so that the order
        of threads does not matter. The judgement is compared by its own marks.

        Args:
            epoch: the phase that asks.
            was_sent: whether the request was on the wire at the crash.
            nearest: what to say of a request that must not be.
        Raises:
            RunStop: the phase has ended; ReplayDiverged or VerifyFailed.
        """
        with self._cond:
            if epoch.stop is not None:
                raise epoch.stop
            if self._control.stop == "Finish" and epoch.name == "optimize":
                # Asked for before this try: what was paid for is replayed first, so that the best-so-far is not lost.
                epoch.stop = _finished()
                raise epoch.stop
            if self._offline:
                if not self.replaying and epoch.name == "optimize" and self._offline_stop is not None:
                    epoch.stop = self._offline_stop
                    raise epoch.stop
                reason = Reason.REPLAY_DIVERGED if self.replaying else Reason.VERIFY_FAILED
            elif self.replaying and epoch.name == "optimize" and not was_sent:
                reason = Reason.REPLAY_DIVERGED
            else:
                return
            where = f"before mark {self._marks_seen} of {len(self._journal.recorded.marks)}"
            stop = RunStop(reason, f"{where}: a request that the journal does not hold; {nearest()}")
            self._stopping = stop
            for each in self._epochs:
                each.stop = each.stop or stop
            raise stop

    @contextmanager
    def going_on(self, epoch: Epoch) -> Iterator[None]:
        """What is done inside is done before the phase can end; raises what ended it."""
        with self._cond:
            if epoch.stop is not None:
                raise epoch.stop
            epoch.sent = True
            yield

    def stop_all(self, stop: RunStop) -> None:
        """End every phase that has not ended, for what makes all of them worthless."""
        with self._cond:
            for epoch in self._epochs:
                epoch.stop = epoch.stop or stop
            self._cond.notify_all()

    def _nearest(self, document: dict[str, Any]) -> str:
        """How this request differs from the most similar recorded one that was not asked for yet."""
        left = [key for key in self._journal.recorded.starts if key not in self._consumed][:2000]
        return nearest_difference(document, (self._journal.request_of(key) for key in left))

    def _key(self, document: dict[str, Any], engine: RoleEngine, rollout: int | None, index: int) -> str:
        """sha256 over what the model sees and how it samples; not over timeouts, URL, credentials or role."""
        endpoint = engine.endpoint
        parts: dict[str, Any] = {"request": document, "model": endpoint.model_digest or endpoint.name}
        if document.get("config", {}).get("temperature") != 0.0:
            parts |= {"rollout": rollout, "index": index, "seed": self._seed}
            if engine.repeat:
                parts["repeat"] = engine.repeat
        text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class RoleEngine:
    """A DSPy engine that sends one role's requests of one phase through the Ledger."""

    def __init__(self, ledger: Ledger, role: Role, endpoint: Endpoint, epoch: Epoch, repeat: int = 0) -> None:
        self.ledger = ledger
        self.role: Role = role
        self.endpoint = endpoint
        self.epoch = epoch
        self.repeat = repeat
        self._local = threading.local()
        self._wire = _wire(endpoint)

    def complete(self, request: lm15.Request) -> lm15.Response:
        """DSPy's engine interface: one canonical request, one response."""
        rollout, index = getattr(self._local, "scope", (None, 0))
        self._local.scope = (rollout, index + 1)
        try:
            response = self.ledger.complete(self, request, rollout, index)
        except lm15.LM15Error:
            raise
        except Exception as error:  # a broken disk, or a bug of ours: DSPy would make it a failed row, scored 0
            log.error("a request could not be handled", exc_info=True)
            raise RunStop(Reason.INTERNAL_ERROR, f"a request could not be handled: {error!r}") from error
        self._local.truncated = response.finish_reason == "length"
        return response

    @property
    def truncated(self) -> bool:
        """Whether this thread's last answer was cut off at maxTokens."""
        return bool(getattr(self._local, "truncated", False))

    @contextmanager
    def rollout(self, number: int | None) -> Iterator[None]:
        """The rollout of the LM call that this thread makes now; its n requests count from 0."""
        before = getattr(self._local, "scope", (None, 0))
        self._local.scope = (number, 0)
        try:
            yield
        finally:
            self._local.scope = before

    def attempt(self, request: lm15.Request) -> lm15.Response | lm15.LM15Error:
        """One request on the wire: its answer, or why there is none."""
        try:
            return self._wire.complete(audio.as_images(request))
        except lm15.LM15Error as error:
            return error
        except Exception as error:  # an answer that the native engine stumbles over; DSPy would score its row 0
            return lm15.ProviderError(f"the answer cannot be read: {type(error).__name__}: {error}")

    def __deepcopy__(self, memo: dict[int, Any]) -> RoleEngine:
        # Programs are deep-copied with the LM in them; there is one Ledger.
        return self

    def __copy__(self) -> RoleEngine:
        return self


class LedgerLM(dspy.LM):  # type: ignore[misc]
    """A dspy.LM whose engine knows which rollout a call belongs to; DSPy strips it before the engine."""

    sieve: Callable[[Sequence[Any]], Sequence[Any]] | None = None
    """Chooses from the answers of one call of n > 1 what DSPy gets to see; set it with `copy(sieve=...)`."""

    def __call__(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        """As dspy.LM."""
        rollout = kwargs.get("rollout_id", self.kwargs.get("rollout_id"))
        with self.engine.rollout(rollout):
            try:
                answers = super().__call__(prompt, messages=messages, **kwargs)
            except LMError as error:
                if isinstance(error.__cause__, RequestUnanswered):
                    attempts.unanswered(error)
                raise
        return self.sieve(answers) if self.sieve is not None and len(answers) > 1 else answers


_WIRES: dict[tuple[str, str | None, float, str], LM15Engine] = {}
_WIRES_LOCK = threading.Lock()


def _wire(endpoint: Endpoint) -> LM15Engine:
    """One connection pool for each endpoint, shared by its roles and phases.

    `ollama/...` reaches Ollama with `max_tokens`, `openai-chat` sends `max_completion_tokens`. The provider id must be these
    two: with `openai` DSPy ignores our URL and calls the vendor's own host.
    """
    provider = "ollama" if endpoint.type == "Ollama" else "openai-chat"
    api_key = "none"
    if endpoint.api_key_file is not None:
        with open(endpoint.api_key_file, encoding="utf-8") as file:
            api_key = file.read().strip()
    identity = (endpoint.url, endpoint.api_key_file, endpoint.timeout_seconds, provider)
    with _WIRES_LOCK:
        if identity not in _WIRES:
            timeout = endpoint.timeout_seconds
            pool = lm15.RouterConfig(
                timeouts=lm15.Timeouts(connect=min(10.0, timeout), read=timeout, write=timeout, pool=None),
                max_connections=1024,
            )
            _WIRES[identity] = LM15Engine(
                lm15.RouterConfig(
                    api_keys={provider: api_key},
                    base_urls={provider: endpoint.url.rstrip("/")},
                    transport=audio.Transport(pool),
                    env={},
                )
            )
        return _WIRES[identity]


def _refusal(entry: Mapping[str, Any]) -> lm15.ProviderError:
    """What a `fail` line means to DSPy."""
    lost = entry.get("code") in frozenset(Trouble)
    kind = RequestTooLong if entry.get("tooLong") else RequestUnanswered if lost else RequestFailed
    return kind(entry["error"], provider_code=entry.get("code"))


def _finished() -> RunStop:
    return RunStop(Reason.STOPPED_EARLY, "stop: Finish was asked for")


def _floor(account: Usage, journal: Tally) -> Usage:
    """What the account knows to be spent beyond the journal: all of it where the journal was lost, nothing where it was kept."""
    return Usage(
        calls=max(0, account.calls - journal.calls),
        input_tokens=max(0, account.input_tokens - journal.input_tokens),
        output_tokens=max(0, account.output_tokens - journal.output_tokens),
        cost=f"{max(Decimal(0), Decimal(account.cost) - journal.cost):f}",
    )


def _compare(mark: Mark, old: Mapping[str, Any], number: int | None) -> None:
    name = (
        f"mark {number} ({mark.kind})"
        if number is not None
        else f"the mark of a judgement (program {mark.program[:8]})"
    )
    for what, new, recorded in (
        ("kind", mark.kind, old["mark"]),
        ("program", mark.program, old["program"]),
        ("rows", mark.rows, old["rows"]),
    ):
        if new != recorded:
            raise RunStop(
                Reason.REPLAY_DIVERGED, f"{name}: {what} is {new[:12]} now and was {recorded[:12]} when it was recorded"
            )
    for position, (new_score, old_score) in enumerate(zip(mark.scores, old["scores"], strict=False)):
        if new_score != old_score:
            row = mark.labels[position] if position < len(mark.labels) else f"row {position}"
            raise RunStop(
                Reason.REPLAY_DIVERGED,
                f"{name}: {row} scores {new_score:g} now and scored {old_score:g} when it was recorded: its answer in the journal was changed",
            )
    if len(mark.scores) != len(old["scores"]):
        raise RunStop(
            Reason.REPLAY_DIVERGED,
            f"{name}: {len(mark.scores)} scores now and {len(old['scores'])} when it was recorded",
        )


def _not_found(endpoint: Endpoint, words: str) -> str:
    """A 404 is an unknown model or an unknown path; a URL that stops before /v1 is the usual reason of the second."""
    if endpoint.url.rstrip("/").endswith("/v1"):
        return f"{endpoint.name} does not know the model {endpoint.model}: {words}"
    return (
        f"{endpoint.name} does not know {endpoint.url.rstrip('/')}/chat/completions, or not the model {endpoint.model} "
        f"(a URL goes up to and including /v1): {words}"
    )


def _trouble(error: lm15.LM15Error) -> Trouble:
    if isinstance(error, lm15.RateLimitError):
        return Trouble.LIMITED
    if isinstance(error, lm15.TimeoutError):
        return Trouble.TIMEOUT
    if isinstance(error, lm15.TransportError):
        return (
            Trouble.TIMEOUT if "no bytes for" in error.message or "timed out" in error.message else Trouble.CONNECTION
        )
    if isinstance(error, lm15.ServerError):
        return Trouble.SERVER
    return Trouble.GARBAGE


def _words(error: lm15.LM15Error) -> str:
    """The server's words on one line, without the advice that lm15 adds."""
    text = (error.message or error.code).split("\n\n", 1)[0].replace("\n", " ").strip()
    status = f"HTTP {error.status}: " if error.status is not None else ""
    return f"{status}{text}"[:500]
