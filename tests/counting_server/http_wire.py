"""As much of HTTP/1.1 as an OpenAI client uses: requests with a Content-Length, connections that stay open."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

from tests.counting_server.faults import Reply

HEAD_LIMIT = 64 * 1024


class NotHttp(Exception):
    """What came is not a request that this server understands."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request, whole."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def keeps_open(self) -> bool:
        """Whether the client wants to send another request on this connection."""
        return self.headers.get("connection", "").lower() != "close"


class ClientReader(asyncio.StreamReader):
    """A stream that also says when its other end has gone, while nobody reads."""

    def __init__(self) -> None:
        super().__init__(limit=HEAD_LIMIT)
        self.gone = asyncio.Event()

    def feed_eof(self) -> None:
        """The client closed its end."""
        super().feed_eof()
        self.gone.set()

    def set_exception(self, exc: Exception) -> None:
        """The connection broke."""
        super().set_exception(exc)
        self.gone.set()


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """The next request; None when the client has no more. Raises NotHttp."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError as too_long:
        raise NotHttp("the head is too long") from too_long
    first, *lines = head.rstrip("\r\n").split("\r\n")
    try:
        method, target, _ = first.split(" ")
    except ValueError as short:
        raise NotHttp(f"{first!r} is not a request line") from short
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "transfer-encoding" in headers:
        raise NotHttp("a body needs a Content-Length")
    try:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    except asyncio.IncompleteReadError:
        return None
    url = urlsplit(target)
    query = {name: values[-1] for name, values in parse_qs(url.query).items()}
    return Request(method=method, path=url.path, query=query, headers=headers, body=body)


def written(reply: Reply, *, keeps_open: bool) -> bytes:
    """The bytes of a reply."""
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(reply.body)),
        "Connection": "keep-alive" if keeps_open else "close",
        **reply.headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}\r\n{lines}\r\n".encode() + reply.body
