"""The tools of a ReAct: whose call it is that DSPy makes, and what a failed one means; runner/servers.py asks, or remembers.

A call belongs to a row, a rollout and a place in the row's trajectory. One that fails becomes words for the model, as DSPy has it.
"""

from __future__ import annotations

import http.client
import json
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
from dspy_operator.runner.breaker import Trouble
from dspy_operator.runner.fetch import shown
from dspy_operator.runner.headers import Values
from dspy_operator.runner.journal import Journal
from dspy_operator.runner.ledger import Epoch, Ledger
from dspy_operator.runner.program import LoadedProgram
from dspy_operator.runner.servers import DEFAULT_TIMEOUT, Line, Question, Servers, Unanswered
from dspy_operator.runner.stop import RunStop
from dspy_operator.runner.values import plain

_FAILED = "_tool_failed"

Ask = Callable[[Line, Mapping[str, str], float], str]
"""Asks a tool once, as a program.py does: the journal's line, headers, seconds -> the answer as text."""


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


class Tools(BaseCallback):  # type: ignore[misc]  # DSPy is untyped here
    """The tools of one run; as a callback of DSPy it sees which row a thread is at.

    Args:
        tools: of the program.
    """

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._paths = {
            tool.name: f"spec.program.single.module.react.tools[{at}].{'http' if tool.mcp is None else 'mcp'}"
            for at, tool in enumerate(tools)
        }
        self._headers: Values = {}
        self._called: set[str] = set()
        """Names; of an MCP server those of its tools."""
        self._local = threading.local()
        self._servers = Servers()

    def open(self, ledger: Ledger, journal: Journal, headers: Values | None = None) -> None:
        """From here on tools can be called: what the journal holds is known.

        Args:
            headers: of the tools that want some.
        """
        self._headers = headers or {}
        self._servers.open(ledger, journal)

    def connect(self, program: LoadedProgram) -> None:
        """Let a program's tools call through here."""
        names = program.namespace
        if (post := getattr(names, "post", None)) is not None:
            by_url = over_http(post)
            vars(names)["call_tool"] = lambda name, url, arguments: self.call(by_url, name, url, arguments)
        if hasattr(names, "ask_mcp"):
            by_mcp = _over_mcp(names)
            vars(names)["call_mcp"] = lambda server, url, name, arguments: self.call(
                by_mcp, name, url, arguments, server=server
            )

    def usage(self) -> dict[str, ToolUsage]:
        """Tool -> what it was asked, over the run's whole life."""
        # A graph's lookups have lines of these kinds, too: runner/retrieval.py.
        told = [entry for entry in self._servers.told() if "arguments" in entry]
        known = {*self._tools, *self._called, *(entry["tool"] for entry in told)}
        failed = Counter(entry["tool"] for entry in told if "error" in entry)
        calls = sorted(self._servers.requests().items())
        return {name: ToolUsage(calls=count, failed=failed[name]) for name, count in calls if name in known}

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

    def call(self, ask: Ask, name: str, url: str, arguments: Mapping[str, Any], *, server: str | None = None) -> str:
        """What the tool says to these arguments: from the journal, or from itself.

        Args:
            server: the MCP server whose tool it is; None where the tool is a server of its own.
        Raises:
            RunStop: the phase has ended, or this call ended it.
            ToolFailed: this call has no answer.
        """
        body = to_json(arguments).decode()
        if not self._stack:
            raise RunStop(Reason.INTERNAL_ERROR, f"{name} was called by nothing that a run knows")
        trajectory = self._stack[-1]
        trajectory.calls += 1
        self._called.add(name)
        whose = [trajectory.row, trajectory.rollout, trajectory.calls]
        owner = server or name
        tool = self._tools.get(owner)
        here = tool.server if tool is not None and tool.server.url == url else None
        seconds = parse_duration((here.timeout if here is not None else None) or DEFAULT_TIMEOUT).total_seconds()
        # An incumbent may have a tool of that name elsewhere, where the headers must not go.
        headers = self._headers.get(owner, {}) if here is not None else {}
        kind = f'the tool "{name}"' if server is None else f'the MCP server "{server}"'
        question = Question(
            line={
                "key": sha256_hex(json.dumps([name, url, body, *whose]).encode()),
                "tool": name,
                "url": url,
                "arguments": body,
            },
            asked=body if server is None else f"{name} {body}",
            server=f"{kind} at {shown(url)}",
            path=self._paths.get(owner),
            epoch=trajectory.epoch,
            send=lambda line: _answered(ask, line, headers, seconds),
            headers=headers,
        )
        entry = self._servers.ask(question)
        if "error" in entry:
            trajectory.failed = True
            raise ToolFailed(entry["error"])
        return str(entry["answer"])


def tool_failed(prediction: Any) -> bool:
    """Whether an answer was made without what a tool should have said."""
    return bool(getattr(prediction, _FAILED, False))


def _answered(ask: Ask, line: Line, headers: Mapping[str, str], seconds: float) -> Mapping[str, str]:
    try:
        answer = ask(line, headers, seconds)
    except Unanswered:
        raise
    except urllib.error.HTTPError as error:
        after = error.headers.get("Retry-After") if error.headers is not None else None
        raise Unanswered.of_status(error.code, str(error), after) from None
    except Exception as error:  # whatever the wire or the answer does
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        wire = isinstance(error, (OSError, http.client.HTTPException))
        # Neither is an answer that is no JSON.
        trouble = (
            Trouble.TIMEOUT if isinstance(reason, TimeoutError) else Trouble.CONNECTION if wire else Trouble.SERVER
        )
        raise Unanswered(str(error) or type(error).__name__, trouble) from None
    # A model's request is UTF-8; a text of JSON may hold half of a character.
    return {"answer": answer.encode("utf-8", "replace").decode()}


def over_http(post: Callable[[str, Any, Mapping[str, str], float], str]) -> Ask:
    """Through `post` of a program.py: URL, arguments, headers, seconds -> the answer as text."""
    return lambda line, headers, seconds: post(line["url"], json.loads(line["arguments"]), headers, seconds)


def _over_mcp(names: Any) -> Ask:
    def ask(line: Line, headers: Mapping[str, str], seconds: float) -> str:
        params = {"name": line["tool"], "arguments": json.loads(line["arguments"])}
        try:
            return str(names.mcp_text(names.ask_mcp(line["url"], "tools/call", params, headers, seconds)))
        except names.McpError as error:
            raise Unanswered(str(error), None) from None

    return ask
