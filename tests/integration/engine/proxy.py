"""Stands between an operator and the API server: cuts, mutes, delays and lies as it is told. Plain HTTP towards the operator."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from tests.controlplane.processes import ControlPlane

_HOP = {"transfer-encoding", "connection", "content-length", "content-encoding"}


@dataclass
class Fault:
    """What the next requests of a kind are answered with."""

    method: str
    part: str
    """Of the path."""
    code: int
    times: int
    retry_after: str
    reason: str
    happened: int = 0


@dataclass
class Hold:
    """Requests of a path that wait until they are let through."""

    path: str
    passes: int
    """So many go through at once, before."""
    waiting: int = 0
    open: threading.Event = field(default_factory=threading.Event)


@dataclass
class Faults:
    """Set by the test, read by the proxy."""

    answers: list[Fault] = field(default_factory=list)
    mute: Callable[[str, dict[str, Any]], bool] = lambda path, event: False
    """(path of the watch, event): whether the operator does not get it."""
    inject: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Part of a watch's path -> an event that it tells next, once; then the watch ends."""

    holds: list[Hold] = field(default_factory=list)

    def hold(self, path: str, *, passes: int = 0) -> Hold:
        hold = Hold(path, passes)
        self.holds.append(hold)
        return hold

    def fail(
        self, method: str, part: str, *, code: int = 500, times: int = 1, reason: str = "", retry_after: str = ""
    ) -> Fault:
        fault = Fault(method, part, code, times, retry_after, reason)
        self.answers.append(fault)
        return fault


class Proxy:
    """In a thread of its own, since pytest's is busy with asking."""

    def __init__(self, plane: ControlPlane) -> None:
        self.faults = Faults()
        self.url = ""
        self._plane = plane
        self._watches: set[web.StreamResponse] = set()
        self._session: aiohttp.ClientSession
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def cut_watches(self) -> None:
        """Ends all connections that tell events, in the middle."""
        self._loop.call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        for watch in list(self._watches):
            transport = watch._req.transport if watch._req is not None else None
            if transport is not None:
                transport.abort()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        trust = ssl.create_default_context(cafile=str(self._plane.authority))
        application = web.Application(client_max_size=10 * 1024 * 1024)
        application.router.add_route("*", "/{path:.*}", self._pass_on)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        connector, no_limit = aiohttp.TCPConnector(limit=0, ssl=trust), aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, timeout=no_limit) as self._session:
            self._started.set()
            await self._stop.wait()
            self._cut()
            await runner.cleanup()

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        for fault in self.faults.answers:
            if fault.happened < fault.times and request.method == fault.method and fault.part in request.path:
                fault.happened += 1
                await request.read()
                status = {
                    "kind": "Status",
                    "code": fault.code,
                    "reason": fault.reason,
                    "message": "a fault of the test",
                }
                headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
                return web.json_response(status, status=fault.code, headers=headers)
        for hold in [hold for hold in self.faults.holds if hold.path == request.path]:
            if hold.passes:
                hold.passes -= 1
                continue
            hold.waiting += 1
            while not hold.open.is_set():
                await asyncio.sleep(0.05)
        headers = {key: value for key, value in request.headers.items() if key.lower() not in {*_HOP, "host"}}
        async with self._session.request(
            request.method, self._plane.server + request.path_qs, data=await request.read() or None, headers=headers
        ) as answer:
            kept = {key: value for key, value in answer.headers.items() if key.lower() not in _HOP}
            if request.query.get("watch") != "true":
                return web.Response(status=answer.status, body=await answer.read(), headers=kept)
            out = web.StreamResponse(status=answer.status, headers=kept)
            await out.prepare(request)
            self._watches.add(out)
            try:
                await self._tell(request.path, answer, out)
            finally:
                self._watches.discard(out)
            return out

    async def _tell(self, path: str, answer: aiohttp.ClientResponse, out: web.StreamResponse) -> None:
        lines = asyncio.create_task(answer.content.readline())
        try:
            while True:
                done, _ = await asyncio.wait([lines], timeout=0.1)
                for part in [part for part in self.faults.inject if part in path]:
                    await out.write(json.dumps(self.faults.inject.pop(part)).encode() + b"\n")
                    return
                if not done:
                    continue
                line = lines.result()
                if not line:
                    return
                if not self.faults.mute(path, json.loads(line)):
                    await out.write(line)
                lines = asyncio.create_task(answer.content.readline())
        except (ConnectionError, aiohttp.ClientError):
            return
        finally:
            lines.cancel()
