"""Requests to the API server, and watches that list again when they have to."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import aiohttp

from tests.controlplane.processes import ControlPlane

Body = dict[str, Any]


class Refused(Exception):
    """The API server said no to a request that the simulator needs."""

    def __init__(self, method: str, path: str, code: int, said: Any) -> None:
        message = said.get("message") if isinstance(said, dict) else said
        super().__init__(f"{method} {path}: {code} {message}")
        self.code = code


class Api:
    """One pool of connections, as the cluster's admin or, per request, as somebody else."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        context = ssl.create_default_context(cafile=str(self._plane.authority))
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=64),
            headers={"Authorization": f"Bearer {self._plane.token}", "User-Agent": "simulator"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=20),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def ask(
        self, method: str, path: str, body: object = None, *, kind: str = "json", user: str | None = None
    ) -> tuple[int, Any]:
        """The answer's code and body.

        Args:
            kind: the body's type: "json", "merge-patch+json", ...
            user: impersonated, so that RBAC speaks about the pod and not about the admin.
        """
        assert self._session is not None
        headers = {"Content-Type": f"application/{kind}"} | ({"Impersonate-User": user} if user else {})
        data = None if body is None else json.dumps(body).encode()
        async with self._session.request(method, self._plane.server + path, data=data, headers=headers) as answer:
            raw = await answer.read()
            try:
                return answer.status, json.loads(raw)
            except ValueError:
                return answer.status, raw.decode(errors="replace")

    async def do(
        self, method: str, path: str, body: object = None, *, kind: str = "json", user: str | None = None
    ) -> Any:
        """The answer's body.

        Raises:
            Refused: with the API server's message.
        """
        code, said = await self.ask(method, path, body, kind=kind, user=user)
        if code >= 300:
            raise Refused(method, path, code, said)
        return said

    async def find(self, path: str) -> Body | None:
        """An object, or None where there is none."""
        code, said = await self.ask("GET", path)
        if code == 404:
            return None
        if code != 200:
            raise Refused("GET", path, code, said)
        return dict(said)

    async def follow(self, collection: str, selector: str) -> AsyncIterator[tuple[str, Body]]:
        """Every change of the objects with these labels, from now to ever: ("ADDED" | "MODIFIED" | "DELETED", object).

        What was there comes first as ADDED. Deletions during a gap between two watches are not told.
        """
        labels = f"labelSelector={quote(selector)}"
        while True:
            listed = await self.do("GET", f"{collection}?{labels}")
            for item in listed["items"]:
                yield "ADDED", item
            version = listed["metadata"]["resourceVersion"]
            async for event in self._watch(f"{collection}?watch=1&{labels}&resourceVersion={version}"):
                if event["type"] == "ERROR":  # too old: list again
                    break
                yield event["type"], event["object"]
            await asyncio.sleep(0.05)

    async def _watch(self, path: str) -> AsyncIterator[Body]:
        assert self._session is not None
        async with self._session.get(self._plane.server + path) as answer:
            if answer.status != 200:
                raise Refused("GET", path, answer.status, await answer.text())
            rest = b""
            async for chunk in answer.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield json.loads(line)
