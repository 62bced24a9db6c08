"""The door for the kubelet's probe: 200 where the model answers, 503 where it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

REQUEST_SECONDS = 5.0
PATH = "/readyz"


async def listen(port: int, ready: Callable[[], bool], *, host: str | None = None) -> asyncio.Server:
    """A server of one page. A web framework would be a dependency for twenty lines.

    Args:
        port: 0 is a free one.
        host: None is every address of the pod, of both IP families.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), REQUEST_SECONDS)
            writer.write(_answer(head.split(b" ", 2)[1:2] == [PATH.encode()], ready()))
            await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # who asks nothing is told nothing
        finally:
            writer.close()

    return await asyncio.start_server(answer, host, port)


def _answer(known: bool, ready: bool) -> bytes:
    status, body = ("200 OK", "ready\n") if ready else ("503 Service Unavailable", "not ready\n")
    if not known:
        status, body = "404 Not Found", f"there is {PATH}\n"
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return (head + body).encode()
