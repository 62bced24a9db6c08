"""The servers that a program asks beside its model: tools of a ReAct, passages of a graph. Every request passes here, and only here.

What was answered to a question is answered again whenever the question is asked again: by another candidate, or by the run that
goes on after a crash. Otherwise the server is asked, as often as passing faults need, and what it said is written down.

A question that fails for good, while the server answers others, is written down as failed. A server that answers none stops the
run: rows without their tools or passages would be scored as if the program were to blame.
"""

from __future__ import annotations

import logging
import math
import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from dspy_operator.contract.exits import Reason
from dspy_operator.runner.breaker import Breaker, Trouble, backoff_seconds, monotonic
from dspy_operator.runner.headers import without_values
from dspy_operator.runner.journal import Journal
from dspy_operator.runner.ledger import UNPROVEN_BACKOFF_SECONDS, Epoch, Ledger
from dspy_operator.runner.stop import RunStop

ATTEMPTS = 3
"""At one question, while the server answers others; a 429 does not count, it says when to come again."""
DEFAULT_TIMEOUT = "30s"
_WORDS = 500
"""Most characters of what a failed question says."""

Line = Mapping[str, Any]
"""What the journal says of a question: its key, `tool`, `url`, and what is asked; a `told` line also `error`, or the answer."""
Send = Callable[[Line], Mapping[str, Any]]
"""Asks once; gives what the `told` line says more. Raises Unanswered."""

log = logging.getLogger(__name__)


class Unanswered(Exception):
    """Why one request gave no answer; no trouble: the server is there, and refuses it."""

    def __init__(self, words: str, trouble: Trouble | None, status: int = 0, retry_after: str | None = None) -> None:
        super().__init__(" ".join(words.split()))
        self.trouble = trouble
        self.status = status
        after = retry_after or ""
        self.retry_after = float(after) if after.isascii() and after.isdigit() and len(after) < 6 else None

    def told(self, words: str) -> Unanswered:
        """The same in other words."""
        self.args = (words,)
        return self

    @classmethod
    def of_status(cls, status: int, words: str, retry_after: str | None) -> Unanswered:
        """An HTTP status that is no answer."""
        passing = status == 408 or status >= 500
        trouble = Trouble.LIMITED if status == 429 else Trouble.SERVER if passing else None
        return cls(words, trouble, status, retry_after)


@dataclass(frozen=True)
class Question:
    """One question to one server."""

    line: Line
    asked: str
    """For messages."""
    server: str
    """For messages."""
    path: str | None
    """Of the server in the program; None where it is not there any more."""
    epoch: Epoch
    send: Send
    headers: Mapping[str, str] = field(default_factory=dict)
    """That it is sent with: a server may say their values back, and nobody is told them."""

    @property
    def key(self) -> str:
        """The same question has the same."""
        return str(self.line["key"])

    @property
    def url(self) -> str:
        """Whose bad moments are counted together."""
        return str(self.line["url"])


class Servers:
    """What a run asks beside its model, and what it was told."""

    def __init__(self) -> None:
        self._cond = threading.Condition()
        self._opened: tuple[Ledger, Journal] | None = None
        self._told: dict[str, Line] = {}
        self._requests: Counter[str] = Counter()
        self._in_flight: set[str] = set()
        self._breakers: dict[str, Breaker] = {}
        self._answered: dict[str, Line] = {}
        """URL -> a question that it answered before."""
        self._jitter = random.Random()

    def open(self, ledger: Ledger, journal: Journal) -> None:
        """From here on servers can be asked: what the journal holds is known."""
        self._opened = ledger, journal
        self._told = dict(journal.recorded.told)
        self._requests = Counter(name for names in journal.recorded.asked.values() for name in names)
        self._answered = {entry["url"]: entry for entry in self._told.values() if "error" not in entry}

    def requests(self) -> Counter[str]:
        """`tool` of the lines -> requests, over the run's whole life."""
        with self._cond:
            return self._requests.copy()

    def told(self) -> list[Line]:
        """All that was told so far."""
        with self._cond:
            return list(self._told.values())

    def ask(self, question: Question) -> Line:
        """The `told` line of a question: from the journal, or from the server.

        Raises:
            RunStop: the phase has ended, or this question ended it.
        """
        try:
            return self._recorded(question) or self._once(question)
        except (
            Exception
        ) as error:  # a broken disk, or a bug of ours: DSPy would make it an observation, or a score of 0
            log.error("a server could not be asked", exc_info=True)
            raise RunStop(Reason.INTERNAL_ERROR, f"{question.server} could not be asked: {error!r}") from error

    @property
    def _ledger(self) -> Ledger:
        return self._both[0]

    @property
    def _journal(self) -> Journal:
        return self._both[1]

    @property
    def _both(self) -> tuple[Ledger, Journal]:
        if self._opened is None:
            raise RunStop(Reason.INTERNAL_ERROR, "a server is asked before the run has begun")
        return self._opened

    def _recorded(self, question: Question) -> Line | None:
        """What was told, perhaps to another thread that asks it now; None where this thread is to ask."""
        with self._cond:
            while True:
                if question.epoch.stop is not None:
                    raise question.epoch.stop
                if (entry := self._told.get(question.key)) is not None:
                    return entry
                if question.key not in self._in_flight:
                    break
                self._cond.wait(1.0)
            unknown = f"{question.server} was not asked this there: {question.asked[:_WORDS]}"
            was_sent = question.key in self._journal.recorded.asked
            self._ledger.check_unrecorded(question.epoch, was_sent=was_sent, nearest=lambda: unknown)
            self._in_flight.add(question.key)
        return None

    def _once(self, question: Question) -> Line:
        try:
            return self._asked(question)
        finally:
            with self._cond:
                self._in_flight.discard(question.key)
                self._cond.notify_all()

    def _asked(self, question: Question) -> Line:
        with self._cond:
            breaker = self._breakers.setdefault(question.url, Breaker(question.server))
        first_failed_at, failures = math.inf, 0
        for attempt in range(10_000):
            self._wait(question.epoch, breaker.not_before - monotonic())
            sent_at = monotonic()
            outcome = self._sent(question, question.line)
            if not isinstance(outcome, Unanswered):
                with self._cond:
                    breaker.answered(sent_at)
                    self._answered[question.url] = question.line
                return self._tell(question, outcome, sent_at)
            words = str(outcome)
            if outcome.trouble is None:
                self._refused(question, breaker, outcome)
                return self._tell(question, {"error": words}, sent_at)
            self._failed(question, breaker, outcome.trouble, words)
            with self._cond:
                breaker.hold_back(outcome.retry_after, monotonic())
            if outcome.trouble is not Trouble.LIMITED:
                failures += 1
                first_failed_at = min(first_failed_at, monotonic())
            # Only what was sent after the first failure shows that the server answers others.
            answers_others = breaker.answered_to is not None and breaker.answered_to > first_failed_at
            if failures >= ATTEMPTS and (answers_others or self._still_answers(question, breaker)):
                return self._tell(question, {"error": words}, sent_at)
            pause = backoff_seconds(attempt, self._jitter)
            if breaker.answered_to is None and outcome.trouble is Trouble.CONNECTION:
                pause = min(pause, UNPROVEN_BACKOFF_SECONDS)
            self._wait(question.epoch, pause)
        raise RunStop(Reason.ENDPOINT_UNAVAILABLE, f"{question.server} did not answer one question in 10000 attempts")

    def _sent(self, question: Question, line: Line) -> Mapping[str, Any] | Unanswered:
        """One request on the wire, written down before."""
        with self._cond, self._ledger.going_on(question.epoch):
            self._requests[line["tool"]] += 1
            self._journal.append("ask", **line, t=round(self._ledger.seconds, 3))
        try:
            return {name: _told(said, question) for name, said in question.send(line).items()}
        except Unanswered as why:
            return why.told(_told(str(why), question)[:_WORDS])  # in this order: a value that is cut is not found

    def _still_answers(self, question: Question, breaker: Breaker) -> bool:
        """Whether the server answers what it answered before, when nothing else shows that it is not all of it."""
        with self._cond:
            before = self._answered.get(question.url)
        if before is None:
            return False
        sent_at = monotonic()
        outcome = self._sent(question, {name: before[name] for name in question.line} | {"key": "probe"})
        if isinstance(outcome, Unanswered):
            self._failed(question, breaker, outcome.trouble or Trouble.SERVER, str(outcome))
            return False
        with self._cond:
            breaker.answered(sent_at)
        return True

    def _tell(self, question: Question, said: Mapping[str, Any], sent_at: float) -> Line:
        took, now = round(monotonic() - sent_at, 3), round(self._ledger.seconds, 3)
        entry = {**question.line, **said, "seconds": took, "t": now}
        with self._cond:
            self._journal.append("told", **entry)
            self._told[question.key] = entry
        return entry

    def _refused(self, question: Question, breaker: Breaker, why: Unanswered) -> None:
        """The server is there and does not want this question. That it wants none at all ends the run."""
        with self._cond:
            if why.status in (401, 403):
                self._stop(question, Reason.AUTHENTICATION_FAILED, f"{question.server}: {why}", "headersSecret")
            if breaker.refused(str(why)) is not None and question.url not in self._answered:
                each = f"refused each of its first {breaker.refused_in_a_row} calls"
                self._stop(question, Reason.INVALID_PROGRAM, f"{question.server} {each}: {why}", "url")

    def _failed(self, question: Question, breaker: Breaker, trouble: Trouble, words: str) -> None:
        with self._cond:
            if (opened := breaker.failed(trouble, words, monotonic())) is not None:
                self._stop(question, Reason.ENDPOINT_UNAVAILABLE, opened[1], "url")

    def _stop(self, question: Question, reason: Reason, message: str, field: str) -> NoReturn:
        stop = RunStop(reason, message, path=f"{question.path}.{field}" if question.path is not None else None)
        self._ledger.stop_all(stop)
        self._cond.notify_all()
        raise question.epoch.stop or stop

    def _wait(self, epoch: Epoch, seconds: float) -> None:
        until = monotonic() + seconds
        with self._cond:
            while (left := until - monotonic()) > 0 and epoch.stop is None:
                self._cond.wait(min(left, 0.5))
        if epoch.stop is not None:
            raise epoch.stop


def _told(said: Any, question: Question) -> Any:
    if isinstance(said, list):
        return [_told(each, question) for each in said]
    return without_values(said, question.headers.values()) if isinstance(said, str) else said
