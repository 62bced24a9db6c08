"""What the `retrieve` nodes of a graph look up: what a query means, and what an answer is; runner/servers.py asks, or remembers.

A query that fails for good, while the server answers others, is a row without an answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dspy
import httpx
from dspy.utils.exceptions import LMError

from dspy_operator.api.fields import parse_duration
from dspy_operator.api.objects import field_path
from dspy_operator.api.program import Program, Server
from dspy_operator.contract.canonical import sha256_hex
from dspy_operator.runner.breaker import Trouble
from dspy_operator.runner.fetch import shown
from dspy_operator.runner.headers import Values
from dspy_operator.runner.journal import Journal
from dspy_operator.runner.ledger import Ledger
from dspy_operator.runner.program import LoadedProgram
from dspy_operator.runner.servers import DEFAULT_TIMEOUT, Line, Question, Servers, Unanswered

MOST_BYTES = 1024**2
"""Of an answer."""
FUNCTION = "retrieved"
"""What program.py calls the function that looks up."""

Passages = list[str]
Look = Callable[..., Passages]
"""(URL, query, topK, and the node where its server wants headers) -> passages."""


class RetrievalFailed(LMError):  # type: ignore[misc]  # DSPy is untyped here
    """A query without an answer; its row counts as never answered, not as wrong."""


class Retrieval:
    """The lookups of one run.

    Args:
        program: as written; where it is no graph, nothing is looked up.
    """

    def __init__(self, program: Program) -> None:
        self._nodes: dict[str, Server] = {}
        """By URL."""
        self._seconds: dict[str, float] = {}
        for server in program.servers if program.graph is not None else ():
            seconds = parse_duration(server.http.timeout or DEFAULT_TIMEOUT).total_seconds()
            self._nodes.setdefault(server.http.url, server)
            self._seconds[server.http.url] = max(seconds, self._seconds.get(server.http.url, 0.0))
        self._headers: Values = {}
        self._servers = Servers()
        self._client = httpx.Client(follow_redirects=False) if self._nodes else None

    def open(self, ledger: Ledger, journal: Journal, headers: Values | None = None) -> None:
        """From here on something can be looked up: what the journal holds is known.

        Args:
            headers: of the nodes whose servers want some.
        """
        self._headers = headers or {}
        self._servers.open(ledger, journal)

    def connect(self, program: LoadedProgram) -> None:
        """Let a program look up through here."""
        if hasattr(program.namespace, FUNCTION):
            vars(program.namespace)[FUNCTION] = self.look_up

    def look_up(self, url: str, query: str, top_k: int, node: str = "") -> Passages:
        """The passages for a query: from the journal, or from the server.

        Raises:
            RunStop: the phase has ended, or this query ended it.
            RetrievalFailed: this query has no answer.
        """
        key = sha256_hex(json.dumps(["retrieve", url, query, top_k]).encode("utf-8", "surrogatepass"))
        here = self._nodes.get(url)
        headers = self._headers.get(here.name, {}) if here is not None else {}
        question = Question(
            line={"key": key, "tool": "retrieve", "url": url, "query": query, "topK": top_k},
            asked=query,
            server=f"the server of passages at {shown(url)}",
            path=field_path(here.path) if here is not None else None,
            epoch=dspy.settings.lm.engine.epoch,
            send=lambda line: self._passages(line, headers),
            headers=headers,
        )
        entry = self._servers.ask(question)
        if "error" in entry:
            raise RetrievalFailed(f"{question.server}: {entry['error']}")
        return list(entry["passages"])

    def _passages(self, line: Line, headers: Mapping[str, str]) -> dict[str, Passages]:
        """One answer.

        Raises:
            Unanswered: there is none that can be used.
        """
        assert self._client is not None
        seconds = self._seconds.get(line["url"], 30.0)
        body = {"query": line["query"], "topK": line["topK"]}
        try:
            with self._client.stream("POST", line["url"], json=body, headers=headers, timeout=seconds) as response:
                content = b""
                for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > MOST_BYTES:
                        raise Unanswered(f"an answer of more than {MOST_BYTES // 1024} KiB", None)
        except httpx.TimeoutException:
            raise Unanswered(f"no answer within {seconds:g} s", Trouble.TIMEOUT) from None
        except httpx.TransportError as error:
            raise Unanswered(f"{type(error).__name__}: {error}".rstrip(": "), Trouble.CONNECTION) from None
        except (httpx.InvalidURL, httpx.DecodingError, UnicodeError) as error:
            raise Unanswered(f"{type(error).__name__}: {error}", None) from None
        status = response.status_code
        if status != 200:
            words = f"HTTP {status}: {' '.join(content.decode(errors='replace').split())[:200]}".rstrip(": ")
            raise Unanswered.of_status(status, words, response.headers.get("retry-after"))
        try:
            passages = json.loads(content)
        except ValueError:
            passages = None
        if not isinstance(passages, list) or not all(isinstance(passage, str) for passage in passages):
            raise Unanswered("an answer that is no list of texts in JSON", None)
        # A model's request is UTF-8; a text of JSON may hold half of a character.
        return {"passages": [passage.encode("utf-8", "replace").decode() for passage in passages[: line["topK"]]]}


@contextmanager
def looking_up(module: dspy.Module, look: Look) -> Iterator[None]:
    """Meanwhile the module's program looks up there."""
    names: dict[str, Any] = type(module).forward.__globals__
    before = names.get(FUNCTION)
    if before is None:
        yield
        return
    names[FUNCTION] = look
    try:
        yield
    finally:
        names[FUNCTION] = before
