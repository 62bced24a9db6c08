"""Which tools the MCP servers of a ReAct have: asked once, before anything is paid, and the same in each later try."""

from __future__ import annotations

import http.client
import logging
import random
import time
import urllib.error
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dspy_operator.api.fields import parse_duration
from dspy_operator.api.objects import field_path
from dspy_operator.api.program import MCPServer, Program, Server
from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.contract.runspec import RunSpec
from dspy_operator.runner import mcp_wire
from dspy_operator.runner.fetch import shown
from dspy_operator.runner.headers import header_values, learned_once, without_values
from dspy_operator.runner.servers import DEFAULT_TIMEOUT

ATTEMPTS = 5
MOST_TOOLS = 64
"""Of one server: all of them are in every prompt."""

log = logging.getLogger(__name__)


class Listed(BaseModel):
    """A tool as its server describes it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str = Field(min_length=1, max_length=128)
    description: str = Field(default="", max_length=16_384)
    inputSchema: dict[str, Any]  # as on the wire


Tools = Mapping[str, Sequence[Listed]]
"""Name of the server -> its tools."""


def listed_tools(spec: RunSpec) -> Tools:
    """The tools of each MCP server, those that are wanted, in the server's order.

    Raises:
        RunFailed: EndpointUnavailable, AuthenticationFailed or InvalidProgram, with the path of the field.
    """
    program = spec.program.program
    found = learned_once(spec, "mcp.json", lambda: {name: _documents(tools) for name, tools in _ask(spec, program)})
    return {name: [Listed.model_validate(tool) for tool in tools] for name, tools in found.items()}


def _documents(tools: Sequence[Listed]) -> list[dict[str, Any]]:
    return [tool.model_dump() for tool in tools]


def _ask(spec: RunSpec, program: Program) -> Iterator[tuple[str, Sequence[Listed]]]:
    taken = {tool.name: tool.name for tool in program.tools if tool.http is not None} | {"finish": "DSPy"}
    values: Mapping[str, Mapping[str, str]] | None = None
    for server in program.servers:
        if isinstance(server.http, MCPServer):
            values = header_values(spec) if values is None else values
            tools = _wanted(server, _answered(server, values.get(server.name, {})))
            for tool in tools:
                if tool.name in taken:
                    why = f'{_shown(server)} has a tool "{tool.name}", and so has {taken[tool.name]}: write `tools` without it'
                    raise RunFailed(Reason.INVALID_PROGRAM, why, path=field_path((*server.path, "tools")))
                taken[tool.name] = server.name
            yield server.name, tools


def _shown(server: Server) -> str:
    return f'the MCP server "{server.name}" at {shown(server.http.url)}'


def _wanted(server: Server, tools: Sequence[Listed]) -> Sequence[Listed]:
    assert isinstance(server.http, MCPServer)
    by_name = {tool.name: tool for tool in tools}
    path = field_path((*server.path, "tools"))
    for name in server.http.tools or ():
        if name not in by_name:
            known = ", ".join(by_name) or "none"
            raise RunFailed(
                Reason.INVALID_PROGRAM, f'{_shown(server)} has no tool "{name}" (there are: {known})', path=path
            )
    wanted = [tool for tool in by_name.values() if server.http.tools is None or tool.name in server.http.tools]
    if not 0 < len(wanted) <= MOST_TOOLS:
        why = f"{_shown(server)} has {len(wanted)} tools; 1 to {MOST_TOOLS} can be taken"
        raise RunFailed(Reason.INVALID_PROGRAM, why, path=path)
    return wanted


def _answered(server: Server, headers: Mapping[str, str]) -> Sequence[Listed]:
    url, seconds = server.http.url, parse_duration(server.http.timeout or DEFAULT_TIMEOUT).total_seconds()
    for attempt in range(ATTEMPTS):
        try:
            return _list(url, headers, seconds)
        except (mcp_wire.McpError, ValidationError, LookupError, TypeError) as error:
            why, reason, field = str(error), Reason.INVALID_PROGRAM, "url"
            break
        except urllib.error.HTTPError as error:
            why, reason, field = str(error), Reason.ENDPOINT_UNAVAILABLE, "url"
            if error.code in (401, 403):
                reason, field = Reason.AUTHENTICATION_FAILED, "headersSecret"
            elif error.code < 500 and error.code not in (408, 429):
                reason = Reason.INVALID_PROGRAM
            if reason is not Reason.ENDPOINT_UNAVAILABLE:
                break
        except (OSError, ValueError, http.client.HTTPException) as error:
            why, reason, field = str(error) or type(error).__name__, Reason.ENDPOINT_UNAVAILABLE, "url"
        if attempt + 1 < ATTEMPTS:
            log.warning("%s is asked again for its tools: %s", _shown(server), why)
            time.sleep(random.uniform(0.0, 0.25 * 2.0**attempt))
    words = without_values(" ".join(why.split())[:500], headers.values())
    raise RunFailed(reason, f"{_shown(server)} does not say its tools: {words}", path=field_path((*server.path, field)))


def _list(url: str, headers: Mapping[str, str], seconds: float) -> Sequence[Listed]:
    found: list[Listed] = []
    page: dict[str, Any] = {}
    while len(found) < 1000:
        result = mcp_wire.ask_mcp(url, "tools/list", page, dict(headers), seconds)
        found += [Listed.model_validate(tool) for tool in result["tools"]]
        if not result.get("nextCursor"):
            break
        page = {"cursor": result["nextCursor"]}
    return found
