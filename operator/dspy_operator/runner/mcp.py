"""Which tools the MCP servers of a ReAct have: asked once, before anything is paid, and the same in each later try."""

from __future__ import annotations

import http.client
import json
import urllib.error
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from dspy_operator.api.fields import parse_duration
from dspy_operator.api.objects import field_path
from dspy_operator.api.program import MCPServer, Program, Server
from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.contract.runspec import RunSpec
from dspy_operator.runner.fetch import shown
from dspy_operator.runner.headers import header_values, learned_once, without_values
from dspy_operator.runner.mcp_wire import McpError, ask_mcp
from dspy_operator.runner.servers import DEFAULT_TIMEOUT
from dspy_operator.runner.snapshot import TryAgain, patiently, retry_after

MOST_TOOLS = 64
"""Of one server: all of them are in every prompt."""
_PAGES = 100
_WORDS = 500
"""Most characters of what a server says beside its tools."""


class Misshapen(Exception):
    """What a server says of its tools is not as the protocol has it."""


class Listed(BaseModel):
    """A tool as its server describes it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str = Field(min_length=1, max_length=128)
    description: str = Field(default="", max_length=16_384)
    inputSchema: dict[str, Any]  # as on the wire

    @field_validator("inputSchema")
    @classmethod
    def _readable(cls, schema: dict[str, Any]) -> dict[str, Any]:
        """With properties that DSPy can read, which mean the same."""
        properties = schema.get("properties", {})
        if not isinstance(properties, dict):
            raise ValueError(f"properties: an object is wanted, found {type(properties).__name__}")
        read = {name: _property(name, schema) for name, schema in properties.items()}
        return {**schema, "properties": read} if read else schema


def _property(name: str, schema: object) -> dict[str, Any]:
    if schema is True:
        return {}
    if not isinstance(schema, dict):
        raise ValueError(f"properties.{name}: an object is wanted, found {type(schema).__name__}")
    if isinstance(schema.get("type"), list):  # DSPy looks for it in a table of types, and cannot hash it
        rest = {key: value for key, value in schema.items() if key != "type"}
        return {**rest, "anyOf": schema.get("anyOf") or [{"type": each} for each in schema["type"]]}
    return schema


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

    def words(error: Exception) -> str:
        said = " ".join(str(error).split()) or type(error).__name__
        return without_values(said, headers.values())[:_WORDS]

    def refused(reason: Reason, error: Exception, field: str = "url") -> RunFailed:
        why = f"{_shown(server)} does not say its tools: {words(error)}"
        return RunFailed(reason, why, path=field_path((*server.path, field)))

    def attempt() -> Sequence[Listed]:
        try:
            return _list(url, headers, seconds)
        except (McpError, Misshapen) as error:
            raise refused(Reason.INVALID_PROGRAM, error) from None
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):
                raise refused(Reason.AUTHENTICATION_FAILED, error, "headersSecret") from None
            if error.code < 500 and error.code not in (408, 429):
                raise refused(Reason.INVALID_PROGRAM, error) from None
            raise TryAgain(words(error), retry_after(error.headers.get("Retry-After"))) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            # A ValueError is no JSON, or none of this protocol.
            raise TryAgain(words(error)) from None

    return patiently(attempt, _shown(server), field=field_path((*server.path, "url")))


def _list(url: str, headers: Mapping[str, str], seconds: float) -> Sequence[Listed]:
    found: list[Listed] = []
    page: dict[str, Any] = {}
    for _ in range(_PAGES):
        result = ask_mcp(url, "tools/list", page, dict(headers), seconds)
        told = json.dumps(result.get("tools"), allow_nan=False)  # Python has no word for NaN
        found += listed(json.loads(without_values(told, headers.values())))
        if not result.get("nextCursor"):
            break
        page = {"cursor": result["nextCursor"]}
    return found


def listed(tools: object) -> list[Listed]:
    """Tools as they are on the wire.

    Raises:
        Misshapen: they are not as the protocol has them.
    """
    if not isinstance(tools, list):
        raise Misshapen(f"tools: a list is wanted, found {type(tools).__name__}")
    found = []
    for at, tool in enumerate(tools):
        try:
            found.append(Listed.model_validate(tool))
        except ValidationError as error:
            first = error.errors()[0]
            raise Misshapen(f"{field_path(('tools', at, *first['loc']))}: {first['msg']}") from None
    return found
