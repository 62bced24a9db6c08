"""The tools of a run: every call of a ReAct's tool passes here, and only here.

A call belongs to a row, a rollout and a place in the row's trajectory. What was told for it is told again whenever it is made
again: by another candidate, or by the run that goes on after a crash. Otherwise the tool is asked, as often as passing
faults need, and what it said is written down.

A call that fails becomes words for the model, as DSPy has it, only while the tool answers other calls. One that answers none
stops the run: rows without their tools would be scored as if the program were to blame.
"""

from __future__ import annotations

import http.client
import itertools
import json
import logging
import math
import random
import threading
import urllib.error
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dspy
from dspy.utils.callback import BaseCallback
from pydantic_core import to_json

from dspy_operator.api.fields import parse_duration
from dspy_operator.api.program import Tool
from dspy_operator.contract.canonical import row_digest, sha256_hex
from dspy_operator.contract.documents import ToolUsage
from dspy_operator.contract.exits import Reason
from dspy_operator.runner.breaker import Breaker, Trouble, backoff_seconds, monotonic
from dspy_operator.runner.fetch import shown
from dspy_operator.runner.journal import Journal
from dspy_operator.runner.ledger import UNPROVEN_BACKOFF_SECONDS, Epoch, Ledger
from dspy_operator.runner.program import LoadedProgram
from dspy_operator.runner.stop import RunStop
from dspy_operator.runner.values import plain

ATTEMPTS = 3
"""At one call, while the tool answers others; a 429 does not count, it says when to come again."""
DEFAULT_TIMEOUT = "30s"
_WORDS = 500
"""Most characters of what a failed call says."""
_FAILED = "_tool_failed"

Send = Callable[[str, Mapping[str, Any], Mapping[str, str], float], str]
"""`post` of a program.py: URL, arguments, headers, seconds -> the answer as text."""

log = logging.getLogger(__name__)


class ToolFailed(Exception):
    """A call without an answer; program.py tells the model these words."""


@dataclass
class _Trajectory:
    """One ReAct at work on one row."""

    call_id: str
    row: str
    rollout: int | None
    """Of its model where that samples."""
    epoch: Epoch
    calls: int = 0
    failed: bool = False


@dataclass(frozen=True)
class _Call:
    """One call of a tool."""

    key: str
    name: str
    url: str
    arguments: str
    """As JSON."""
    epoch: Epoch

    @property
    def tool(self) -> str:
        """For messages."""
        return f'the tool "{self.name}" at {shown(self.url)}'


class Tools(BaseCallback):  # type: ignore[misc]  # DSPy is untyped here
    """The tools of one run; as a callback of DSPy it sees which row a thread is at.

    Args:
        tools: of the program.
    """

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._tools = {(tool.name, tool.http.url): tool for tool in tools}
        self._places = {tool.name: f"spec.program.single.module.react.tools[{at}]" for at, tool in enumerate(tools)}
        self._local = threading.local()
        self._cond = threading.Condition()
        self._ledger: Ledger | None = None
        self._journal: Journal | None = None
        self._told: dict[str, dict[str, Any]] = {}
        self._calls: Counter[str] = Counter()
        self._in_flight: set[str] = set()
        self._breakers: dict[str, Breaker] = {}
        self._answered: dict[str, str] = {}
        """URL -> arguments that it answered before."""
        self._jitter = random.Random()

    def open(self, ledger: Ledger, journal: Journal) -> None:
        """From here on tools can be called: what the journal holds is known."""
        self._ledger, self._journal = ledger, journal
        # A graph's lookups have lines of these kinds, too: runner/retrieval.py.
        self._told = {key: entry for key, entry in journal.recorded.told.items() if "arguments" in entry}
        known = {name for name, _ in self._tools} | {entry["tool"] for entry in self._told.values()}
        asked = itertools.chain.from_iterable(journal.recorded.asked.values())
        self._calls = Counter(name for name in asked if name in known)
        for entry in self._told.values():
            if "error" not in entry:
                self._answered[entry["url"]] = entry["arguments"]

    def connect(self, program: LoadedProgram) -> None:
        """Let a program's tools call through here."""
        send = getattr(program.namespace, "post", None)
        if send is not None:
            vars(program.namespace)["call_tool"] = lambda name, url, arguments: self.call(send, name, url, arguments)

    def usage(self) -> dict[str, ToolUsage]:
        """Tool -> what it was asked, over the run's whole life."""
        with self._cond:
            failed = Counter(entry["tool"] for entry in self._told.values() if "error" in entry)
            return {name: ToolUsage(calls=calls, failed=failed[name]) for name, calls in sorted(self._calls.items())}

    # --- whose call it is --------------------------------------------------------------------------------------------

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """A ReAct begins with a row, in this thread."""
        if isinstance(instance, dspy.ReAct):
            lm = instance.react.lm or dspy.settings.lm
            rollout = lm.kwargs.get("rollout_id") if lm.kwargs.get("temperature") else None
            row = row_digest(plain(inputs["kwargs"]))
            self._stack.append(_Trajectory(call_id, row, rollout, lm.engine.epoch))

    def on_module_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """It is done with it."""
        if self._stack and self._stack[-1].call_id == call_id and self._stack.pop().failed and outputs is not None:
            setattr(outputs, _FAILED, True)

    @property
    def _stack(self) -> list[_Trajectory]:
        if not hasattr(self._local, "stack"):
            self._local.stack = []
        stack: list[_Trajectory] = self._local.stack
        return stack

    # --- one call ----------------------------------------------------------------------------------------------------

    def call(self, send: Send, name: str, url: str, arguments: Mapping[str, Any]) -> str:
        """What the tool says to these arguments: from the journal, or from itself.

        Raises:
            RunStop: the phase has ended, or this call ended it.
            ToolFailed: this call has no answer.
        """
        body = to_json(arguments).decode()
        if self._ledger is None or not self._stack:
            raise RunStop(Reason.INTERNAL_ERROR, f"{name} was called by nothing that a run knows")
        trajectory = self._stack[-1]
        trajectory.calls += 1
        whose = [trajectory.row, trajectory.rollout, trajectory.calls]
        key = sha256_hex(json.dumps([name, url, body, *whose]).encode())
        call = _Call(key, name, url, body, trajectory.epoch)
        try:
            entry = self._entry(self._ledger, call, send)
        except Exception as error:  # a broken disk, or a bug of ours: DSPy would tell it to the model
            log.error("a tool could not be called", exc_info=True)
            raise RunStop(Reason.INTERNAL_ERROR, f"{call.tool} could not be called: {error!r}") from error
        if "error" in entry:
            trajectory.failed = True
            raise ToolFailed(entry["error"])
        return str(entry["answer"])

    def _entry(self, ledger: Ledger, call: _Call, send: Send) -> Mapping[str, Any]:
        """The `told` line of a call."""
        with self._cond:
            while True:
                if call.epoch.stop is not None:
                    raise call.epoch.stop
                if (entry := self._told.get(call.key)) is not None:
                    return entry
                if call.key not in self._in_flight:
                    break
                self._cond.wait(1.0)
            assert self._journal is not None
            asked_before = call.key in self._journal.recorded.asked
            unknown = f"{call.tool} was not asked this there: {call.arguments[:_WORDS]}"
            ledger.check_unrecorded(call.epoch, was_sent=asked_before, nearest=lambda: unknown)
            self._in_flight.add(call.key)
        try:
            return self._asked(ledger, call, send)
        finally:
            with self._cond:
                self._in_flight.discard(call.key)
                self._cond.notify_all()

    def _asked(self, ledger: Ledger, call: _Call, send: Send) -> Mapping[str, Any]:
        breaker = self._breaker(call)
        first_failed_at, failures = math.inf, 0
        for attempt in range(10_000):
            self._wait(call.epoch, breaker.not_before - monotonic())
            outcome, sent_at = self._sent(ledger, call, send)
            seconds = monotonic() - sent_at
            if isinstance(outcome, str):
                with self._cond:
                    breaker.answered(sent_at)
                    self._answered[call.url] = call.arguments
                return self._tell(ledger, call, seconds, answer=outcome)
            words = " ".join(str(outcome).split())[:_WORDS] or type(outcome).__name__
            trouble = _trouble(outcome)
            if trouble is None:
                self._refused(ledger, call, breaker, outcome, words)
                return self._tell(ledger, call, seconds, error=words)
            with self._cond:
                self._check(ledger, call, breaker.failed(trouble, words, monotonic()))
                breaker.hold_back(_retry_after(outcome), monotonic())
            if trouble is not Trouble.LIMITED:
                failures += 1
                first_failed_at = min(first_failed_at, monotonic())
            answers_others = breaker.answered_to is not None and breaker.answered_to > first_failed_at
            if failures >= ATTEMPTS and (answers_others or self._still_answers(ledger, call, breaker, send)):
                return self._tell(ledger, call, seconds, error=words)
            pause = backoff_seconds(attempt, self._jitter)
            if breaker.answered_to is None and trouble is Trouble.CONNECTION:
                pause = min(pause, UNPROVEN_BACKOFF_SECONDS)
            self._wait(call.epoch, pause)
        raise RunStop(Reason.ENDPOINT_UNAVAILABLE, f"{call.tool} did not answer one call in 10000 attempts")

    def _sent(self, ledger: Ledger, call: _Call, send: Send) -> tuple[str | Exception, float]:
        """One call on the wire, written down before: its answer or why there is none, and when it was sent (monotonic)."""
        assert self._journal is not None
        tool = self._tools.get((call.name, call.url))
        written = tool.http.timeout if tool is not None else None
        with self._cond, ledger.going_on(call.epoch):
            self._calls[call.name] += 1
            self._journal.append("ask", **_line(call), t=round(ledger.seconds, 3))
        sent_at = monotonic()
        try:
            timeout = parse_duration(written or DEFAULT_TIMEOUT).total_seconds()
            answer = send(call.url, json.loads(call.arguments), {}, timeout)
            # A model's request is UTF-8; a text of JSON may hold half of a character.
            outcome: str | Exception = answer.encode("utf-8", "replace").decode()
        except Exception as error:  # whatever the wire or the answer does, `_trouble` says what it means
            outcome = error
        return outcome, sent_at

    def _still_answers(self, ledger: Ledger, call: _Call, breaker: Breaker, send: Send) -> bool:
        """Whether the tool answers a call that it answered before, when nothing else shows that it is not all of it."""
        with self._cond:
            arguments = self._answered.get(call.url)
        if arguments is None:
            return False
        again = _Call("probe", call.name, call.url, arguments, call.epoch)
        outcome, sent_at = self._sent(ledger, again, send)
        with self._cond:
            if isinstance(outcome, str):
                breaker.answered(sent_at)
                return True
            trouble = _trouble(outcome) or Trouble.SERVER
            self._check(ledger, call, breaker.failed(trouble, str(outcome), monotonic()))
        return False

    def _tell(self, ledger: Ledger, call: _Call, seconds: float, **said: str) -> Mapping[str, Any]:
        assert self._journal is not None
        entry = {**_line(call), **said, "seconds": round(seconds, 3), "t": round(ledger.seconds, 3)}
        with self._cond:
            self._journal.append("told", **entry)
            self._told[call.key] = entry
        return entry

    def _refused(self, ledger: Ledger, call: _Call, breaker: Breaker, error: Exception, words: str) -> None:
        """The tool is there and does not want this call. That it wants none at all ends the run."""
        place = self._places.get(call.name)
        status = error.code if isinstance(error, urllib.error.HTTPError) else 0
        with self._cond:
            if status in (401, 403):
                path = f"{place}.http.headersSecret" if place is not None else None
                self._stop(ledger, call, RunStop(Reason.AUTHENTICATION_FAILED, f"{call.tool}: {words}", path=path))
            if breaker.refused(words) is not None and call.url not in self._answered:
                why = f"{call.tool} refused each of its first {breaker.refused_in_a_row} calls: {words}"
                path = f"{place}.http.url" if place is not None else None
                self._stop(ledger, call, RunStop(Reason.INVALID_PROGRAM, why, path=path))

    def _check(self, ledger: Ledger, call: _Call, opened: tuple[Reason, str] | None) -> None:
        if opened is not None:
            self._stop(ledger, call, RunStop(Reason.ENDPOINT_UNAVAILABLE, opened[1]))

    def _stop(self, ledger: Ledger, call: _Call, stop: RunStop) -> None:
        ledger.stop_all(stop)
        self._cond.notify_all()
        raise call.epoch.stop or stop

    def _breaker(self, call: _Call) -> Breaker:
        with self._cond:
            return self._breakers.setdefault(call.url, Breaker(call.tool))

    def _wait(self, epoch: Epoch, seconds: float) -> None:
        until = monotonic() + seconds
        with self._cond:
            while (left := until - monotonic()) > 0 and epoch.stop is None:
                self._cond.wait(min(left, 0.5))
        if epoch.stop is not None:
            raise epoch.stop


def tool_failed(prediction: Any) -> bool:
    """Whether an answer was made without what a tool should have said."""
    return bool(getattr(prediction, _FAILED, False))


def _line(call: _Call) -> dict[str, str]:
    return {"key": call.key, "tool": call.name, "url": call.url, "arguments": call.arguments}


def _trouble(error: Exception) -> Trouble | None:
    """What a failed call means; None where the tool refuses it."""
    if isinstance(error, urllib.error.HTTPError):
        if error.code == 429:
            return Trouble.LIMITED
        return Trouble.SERVER if error.code == 408 or error.code >= 500 else None
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, TimeoutError):
        return Trouble.TIMEOUT
    if isinstance(error, (OSError, http.client.HTTPException)):
        return Trouble.CONNECTION
    return Trouble.SERVER  # an answer that is no JSON


def _retry_after(error: Exception) -> float | None:
    if not isinstance(error, urllib.error.HTTPError) or error.headers is None:
        return None
    text = error.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else None
