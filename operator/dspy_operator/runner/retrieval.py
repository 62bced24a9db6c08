"""What the `retrieve` nodes of a graph look up: every query of a run passes here, and only here.

What a server answered to a query is answered again whenever the query is asked again: by another candidate, or by the run that
goes on after a crash. Otherwise the server is asked, as often as passing faults need, and the passages are written down.

A query that fails for good, while the server answers others, is a row without an answer. A server that answers none stops the
run: rows without their passages would be scored as if the program were to blame.
"""

from __future__ import annotations

import json
import logging
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dspy
import httpx
from dspy.utils.exceptions import LMError

from dspy_operator.api.fields import parse_duration
from dspy_operator.api.program import GraphProgram
from dspy_operator.contract.canonical import sha256_hex
from dspy_operator.contract.exits import Reason
from dspy_operator.runner.breaker import Breaker, Trouble, backoff_seconds, monotonic
from dspy_operator.runner.fetch import shown
from dspy_operator.runner.journal import Journal
from dspy_operator.runner.ledger import UNPROVEN_BACKOFF_SECONDS, Epoch, Ledger
from dspy_operator.runner.program import LoadedProgram
from dspy_operator.runner.stop import RunStop

ATTEMPTS = 3
"""At one query, while the server answers others; a 429 does not count, it says when to come again."""
DEFAULT_TIMEOUT = "30s"
MOST_BYTES = 1024**2
"""Of an answer."""
FUNCTION = "retrieved"
"""What program.py calls the function that looks up."""
_WORDS = 300

Passages = list[str]
Look = Callable[[str, str, int], Passages]
"""(URL, query, topK) -> passages."""

log = logging.getLogger(__name__)


class RetrievalFailed(LMError):  # type: ignore[misc]  # DSPy is untyped here
    """A query without an answer; its row counts as never answered, not as wrong."""


class _Unanswered(Exception):
    """Why one attempt gave no passages; no trouble: the server does not want this query."""

    def __init__(self, words: str, trouble: Trouble | None, status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(words)
        self.trouble = trouble
        self.status = status
        self.retry_after = retry_after


@dataclass(frozen=True)
class _Query:
    """One query."""

    url: str
    query: str
    top_k: int
    epoch: Epoch

    @property
    def key(self) -> str:
        """Of its lines in the journal."""
        return sha256_hex(json.dumps(["retrieve", self.url, self.query, self.top_k]).encode("utf-8", "surrogatepass"))

    @property
    def server(self) -> str:
        """For messages."""
        return f"the server of passages at {shown(self.url)}"

    def line(self) -> dict[str, Any]:
        """What the journal says of it."""
        return {"key": self.key, "tool": "retrieve", "url": self.url, "query": self.query, "topK": self.top_k}


class Retrieval:
    """The lookups of one run.

    Args:
        graph: the program as written; None where it is no graph, and nothing is looked up.
    """

    def __init__(self, graph: GraphProgram | None) -> None:
        self._places: dict[str, str] = {}
        self._seconds: dict[str, float] = {}
        for name, node in sorted(graph.nodes.items()) if graph is not None else ():
            if node.retrieve is not None:
                http = node.retrieve.http
                seconds = parse_duration(http.timeout or DEFAULT_TIMEOUT).total_seconds()
                self._places.setdefault(http.url, f"spec.program.graph.nodes.{name}.retrieve.http")
                self._seconds[http.url] = max(seconds, self._seconds.get(http.url, 0.0))
        self._cond = threading.Condition()
        self._ledger: Ledger | None = None
        self._journal: Journal | None = None
        self._told: Mapping[str, Any] = {}
        self._new: dict[str, dict[str, Any]] = {}
        self._in_flight: set[str] = set()
        self._breakers: dict[str, Breaker] = {}
        self._answered: dict[str, _Query] = {}
        self._jitter = random.Random()
        self._client = httpx.Client(follow_redirects=False) if self._places else None

    def open(self, ledger: Ledger, journal: Journal) -> None:
        """From here on something can be looked up: what the journal holds is known."""
        self._ledger, self._journal, self._told = ledger, journal, journal.recorded.told

    def connect(self, program: LoadedProgram) -> None:
        """Let a program look up through here."""
        if hasattr(program.namespace, FUNCTION):
            vars(program.namespace)[FUNCTION] = self.look_up

    def look_up(self, url: str, query: str, top_k: int) -> Passages:
        """The passages for a query: from the journal, or from the server.

        Raises:
            RunStop: the phase has ended, or this query ended it.
            RetrievalFailed: this query has no answer.
        """
        ledger = self._ledger
        if ledger is None:
            raise RunStop(Reason.INTERNAL_ERROR, "something is looked up before the run has begun")
        asked = _Query(url, query, top_k, dspy.settings.lm.engine.epoch)
        try:
            entry = self._entry(ledger, asked)
        except Exception as error:  # a broken disk, or a bug of ours: DSPy would make it a failed row, scored 0
            log.error("a query could not be handled", exc_info=True)
            raise RunStop(Reason.INTERNAL_ERROR, f"a query could not be handled: {error!r}") from error
        if "error" in entry:
            raise RetrievalFailed(f"{asked.server}: {entry['error']}")
        return list(entry["passages"])

    def _entry(self, ledger: Ledger, asked: _Query) -> Mapping[str, Any]:
        """The `told` line of a query."""
        key = asked.key
        with self._cond:
            while True:
                if asked.epoch.stop is not None:
                    raise asked.epoch.stop
                if (entry := self._told.get(key) or self._new.get(key)) is not None:
                    return dict(entry)
                if key not in self._in_flight:
                    break
                self._cond.wait(1.0)
            assert self._journal is not None
            was_sent = key in self._journal.recorded.asked
            ledger.check_unrecorded(
                asked.epoch, was_sent=was_sent, nearest=lambda: f"{asked.server} was not asked: {asked.query[:_WORDS]}"
            )
            self._in_flight.add(key)
        try:
            return self._asked(ledger, asked)
        finally:
            with self._cond:
                self._in_flight.discard(key)
                self._cond.notify_all()

    def _asked(self, ledger: Ledger, asked: _Query) -> Mapping[str, Any]:
        with self._cond:
            breaker = self._breakers.setdefault(asked.url, Breaker(asked.server))
        failures, first_at = 0, 0.0
        for attempt in range(10_000):
            self._wait(asked.epoch, breaker.not_before - monotonic())
            sent_at = monotonic()
            outcome = self._sent(ledger, asked)
            if not isinstance(outcome, _Unanswered):
                with self._cond:
                    breaker.answered(sent_at)
                    self._answered[asked.url] = asked
                return self._tell(ledger, asked, passages=outcome)
            words = str(outcome)[:_WORDS]
            if outcome.trouble is None:
                self._refused(ledger, asked, breaker, outcome)
                return self._tell(ledger, asked, error=words)
            with self._cond:
                self._check(ledger, asked, breaker.failed(outcome.trouble, words, monotonic()))
                breaker.hold_back(outcome.retry_after, monotonic())
            first_at = first_at or monotonic()
            failures += outcome.trouble is not Trouble.LIMITED
            # Only what was sent after the first failure shows that the server answers others.
            others = breaker.answered_to is not None and breaker.answered_to > first_at
            if failures >= ATTEMPTS and (others or self._still_answers(ledger, asked, breaker)):
                return self._tell(ledger, asked, error=words)
            pause = backoff_seconds(attempt, self._jitter)
            if breaker.answered_to is None and outcome.trouble is Trouble.CONNECTION:
                pause = min(pause, UNPROVEN_BACKOFF_SECONDS)
            self._wait(asked.epoch, pause)
        raise RunStop(Reason.ENDPOINT_UNAVAILABLE, f"{asked.server} did not answer one query in 10000 attempts")

    def _sent(self, ledger: Ledger, asked: _Query) -> Passages | _Unanswered:
        """One query on the wire, written down before: its passages, or why there are none."""
        assert self._journal is not None and self._client is not None
        with self._cond, ledger.going_on(asked.epoch):
            self._journal.append("ask", **asked.line(), t=round(ledger.seconds, 3))
        try:
            return _passages(self._client, asked, self._seconds.get(asked.url, 30.0))
        except _Unanswered as why:
            return why

    def _still_answers(self, ledger: Ledger, asked: _Query, breaker: Breaker) -> bool:
        """Whether the server answers a query that it answered before, when nothing else shows that it is not all of it."""
        with self._cond:
            before = self._answered.get(asked.url)
        if before is None:
            return False
        sent_at = monotonic()
        outcome = self._sent(ledger, _Query(before.url, before.query, before.top_k, asked.epoch))
        with self._cond:
            if not isinstance(outcome, _Unanswered):
                breaker.answered(sent_at)
                return True
            self._check(ledger, asked, breaker.failed(outcome.trouble or Trouble.SERVER, str(outcome), monotonic()))
        return False

    def _tell(self, ledger: Ledger, asked: _Query, **said: Any) -> Mapping[str, Any]:
        assert self._journal is not None
        entry = {**asked.line(), **said, "t": round(ledger.seconds, 3)}
        with self._cond:
            self._journal.append("told", **entry)
            self._new[asked.key] = entry
        return entry

    def _refused(self, ledger: Ledger, asked: _Query, breaker: Breaker, why: _Unanswered) -> None:
        """The server is there and does not want this query. That it wants none at all ends the run."""
        place = self._places.get(asked.url)
        with self._cond:
            if why.status in (401, 403):
                path = f"{place}.headersSecret" if place is not None else None
                self._stop(ledger, asked, RunStop(Reason.AUTHENTICATION_FAILED, f"{asked.server}: {why}", path=path))
            if breaker.refused(str(why)) is not None and asked.url not in self._answered:
                path = f"{place}.url" if place is not None else None
                said = f"{asked.server} refused each of its first {breaker.refused_in_a_row} queries: {why}"
                self._stop(ledger, asked, RunStop(Reason.INVALID_PROGRAM, said, path=path))

    def _check(self, ledger: Ledger, asked: _Query, opened: tuple[Reason, str] | None) -> None:
        if opened is not None:
            path = self._places.get(asked.url)
            self._stop(ledger, asked, RunStop(Reason.ENDPOINT_UNAVAILABLE, opened[1], path=path))

    def _stop(self, ledger: Ledger, asked: _Query, stop: RunStop) -> None:
        ledger.stop_all(stop)
        self._cond.notify_all()
        raise asked.epoch.stop or stop

    def _wait(self, epoch: Epoch, seconds: float) -> None:
        until = monotonic() + seconds
        with self._cond:
            while (left := until - monotonic()) > 0 and epoch.stop is None:
                self._cond.wait(min(left, 0.5))
        if epoch.stop is not None:
            raise epoch.stop


@contextmanager
def looking_up(module: dspy.Module, look: Look) -> Iterator[None]:
    """Meanwhile the module's program looks up there."""
    names = type(module).forward.__globals__
    before = names.get(FUNCTION)
    if before is None:
        yield
        return
    names[FUNCTION] = look
    try:
        yield
    finally:
        names[FUNCTION] = before


def _passages(client: httpx.Client, asked: _Query, seconds: float) -> Passages:
    """One answer.

    Raises:
        _Unanswered: there is none that can be used.
    """
    body = {"query": asked.query, "topK": asked.top_k}
    try:
        with client.stream("POST", asked.url, json=body, timeout=seconds) as response:
            content = b""
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > MOST_BYTES:
                    raise _Unanswered(f"an answer of more than {MOST_BYTES // 1024} KiB", None)
    except httpx.TimeoutException:
        raise _Unanswered(f"no answer within {seconds:g} s", Trouble.TIMEOUT) from None
    except httpx.TransportError as error:
        raise _Unanswered(f"{type(error).__name__}: {error}".rstrip(": "), Trouble.CONNECTION) from None
    except (httpx.InvalidURL, httpx.DecodingError, UnicodeError) as error:
        raise _Unanswered(f"{type(error).__name__}: {error}", None) from None
    status = response.status_code
    if status != 200:
        words = f"HTTP {status}: {' '.join(content.decode(errors='replace').split())[:200]}".rstrip(": ")
        passing = Trouble.LIMITED if status == 429 else Trouble.SERVER if status == 408 or status >= 500 else None
        after = response.headers.get("retry-after", "")
        raise _Unanswered(words, passing, status, float(after) if after.isdecimal() and len(after) < 6 else None)
    try:
        passages = json.loads(content)
    except ValueError:
        passages = None
    if not isinstance(passages, list) or not all(isinstance(passage, str) for passage in passages):
        raise _Unanswered("an answer that is no list of texts in JSON", None)
    # A model's request is UTF-8; a text of JSON may hold half of a character.
    return [passage.encode("utf-8", "replace").decode() for passage in passages[: asked.top_k]]
