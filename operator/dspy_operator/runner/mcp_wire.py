"""How a server of the Model Context Protocol is asked: over streamable HTTP, by the standard library alone.

What stands below the line is a part of each `program.py` that has such tools, word for word: a run and whoever runs the file
ask in the same way.
"""

import json
import time
import urllib.error
import urllib.request
import uuid
from typing import Any


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Goes nowhere else: the headers are for this URL."""

    def redirect_request(self, *_: Any) -> None:
        """No."""


# --- the line --------------------------------------------------------------------------------------------------------


SESSIONS: dict[str, dict[str, str]] = {}
"""URL -> the headers of every message in the session that is open there."""


class McpError(Exception):
    """The server is there, and refuses; or a tool says that it failed."""


def ask_mcp(url: str, method: str, params: dict[str, Any], headers: dict[str, str], timeout: float) -> dict[str, Any]:
    """The result of a method, in the session that is open with this server, or in a new one."""
    if (session := SESSIONS.get(url)) is not None:
        try:
            return send_mcp(url, message_of(method, params), {**headers, **session}, timeout)[0]
        except urllib.error.HTTPError as error:
            if error.code not in (400, 404):
                raise
            # It was restarted, and knows the session no more.
    session = SESSIONS[url] = open_mcp(url, headers, timeout)
    return send_mcp(url, message_of(method, params), {**headers, **session}, timeout)[0]


def open_mcp(url: str, headers: dict[str, str], timeout: float) -> dict[str, str]:
    """Open a session: the headers of every message in it."""
    about = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "dspy", "version": "3"}}
    result, session = send_mcp(url, message_of("initialize", about), headers, timeout)
    in_session = {"MCP-Protocol-Version": str(result.get("protocolVersion", "2025-06-18"))}
    if session:
        in_session["Mcp-Session-Id"] = session
    send_mcp(url, {"method": "notifications/initialized"}, {**headers, **in_session}, timeout)
    return in_session


def message_of(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """A request; threads share a session, and two with one id would be given each other's answers."""
    return {"id": uuid.uuid4().hex, "method": method, "params": params}


def send_mcp(url: str, message: dict[str, Any], headers: dict[str, str], timeout: float) -> tuple[dict[str, Any], str]:
    """The result of one message, and the session that the server opened with it; of a notification there is none.

    What comes back is JSON, or a stream of events of which one is the answer; at most 1 MB.
    """
    accepted = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
    body = json.dumps({"jsonrpc": "2.0", **message}).encode()
    request = urllib.request.Request(url, body, {**accepted, **headers})
    until, left = time.monotonic() + timeout, 1_000_000
    try:
        with urllib.request.build_opener(NoRedirect).open(request, timeout=timeout) as response:
            session = response.headers.get("Mcp-Session-Id") or ""
            if "id" not in message:
                return {}, session
            if "text/event-stream" not in response.headers.get("Content-Type", ""):
                return result_of(json.loads(response.read(left))), session
            while left > 0 and time.monotonic() < until and (line := response.readline(left)):
                left -= len(line)
                if line.startswith(b"data:") and line.strip() != b"data:":
                    answer = json.loads(line[5:])
                    if isinstance(answer, dict) and answer.get("id") == message["id"] and "method" not in answer:
                        return result_of(answer), session
    except urllib.error.HTTPError as error:
        error.msg = f"{error.msg} {error.read(10_000).decode(errors='replace')}".strip()
        raise
    raise (
        TimeoutError("timed out")
        if time.monotonic() >= until
        else ConnectionError("the stream ended without an answer")
    )


def result_of(answer: Any) -> dict[str, Any]:
    """What a message was answered.

    Raises:
        McpError: the server refuses.
    """
    if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
        raise McpError(answer["error"].get("message", "refused"))
    if not isinstance(answer, dict) or not isinstance(answer.get("result"), dict):
        raise ValueError("an answer without a result")
    result: dict[str, Any] = answer["result"]
    return result


def mcp_text(result: dict[str, Any]) -> str:
    """What a tool said, as text.

    Raises:
        McpError: the tool says that it failed.
    """
    parts = [each["text"] if each.get("type") == "text" else json.dumps(each) for each in result.get("content", [])]
    if result.get("isError"):
        raise McpError("\n".join(parts) or "it failed")
    return "\n".join(parts)
