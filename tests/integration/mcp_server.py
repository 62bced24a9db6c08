"""A real server of the Model Context Protocol (the SDK's), that counts what it is asked, and can be told to fail, to wait or to be away."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio.to_thread
import uvicorn
from mcp.server.mcpserver import MCPServer

Answers = Callable[[int, str], str]


@dataclass
class ThingsServer:
    """One tool, `lookup`; `answers` decides by the call's ordinal, from 1, and by the thing. An exception is an answer with isError."""

    url: str = ""
    answers: Answers | None = None
    calls: list[str] = field(default_factory=list)
    """The things that were asked for."""
    methods: list[str] = field(default_factory=list)
    """Of all messages."""
    keys: set[str | None] = field(default_factory=set)
    """X-Api-Key of whoever asked."""
    status: int = 200
    """Another one is answered to everything."""
    refused: int = 0
    """How often it was."""

    def forget(self) -> None:
        """As if nobody had asked."""
        self.answers, self.status, self.refused = None, 200, 0
        self.calls.clear()
        self.methods.clear()
        self.keys.clear()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@contextmanager
def things_server(answers: Answers | None = None, *, port: int = 0, as_json: bool = False) -> Iterator[ThingsServer]:
    """One on a port of its own; its sessions end with it.

    Args:
        as_json: whether it answers in JSON; else in a stream of events.
    """
    listening = socket.create_server(("127.0.0.1", port))
    place = ThingsServer(f"http://127.0.0.1:{listening.getsockname()[1]}/mcp", answers)
    lock = threading.Lock()
    things = MCPServer("things", log_level="CRITICAL")

    def answered(thing: str) -> str:
        with lock:
            place.calls.append(thing)
            ordinal = len(place.calls)
        return place.answers(ordinal, thing) if place.answers is not None else f"about {thing}"

    @things.tool()
    async def lookup(thing: str, limit: int = 3) -> str:
        """Says what is known about a thing."""
        return await anyio.to_thread.run_sync(answered, thing)

    @things.tool()
    async def forget(thing: str) -> str:
        """Nobody should take this."""
        raise AssertionError(thing)

    inner = things.streamable_http_app(json_response=as_json)

    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await inner(scope, receive, send)
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        place.keys.add(headers.get("x-api-key"))
        if place.status != 200:
            place.refused += 1
            await send({"type": "http.response.start", "status": place.status, "headers": []})
            await send({"type": "http.response.body", "body": b"out of order"})
            return

        async def heard() -> Any:
            message = await receive()
            if message["type"] == "http.request" and message.get("body"):
                place.methods.append(json.loads(message["body"])["method"])
            return message

        await inner(scope, heard, send)

    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield place
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()
