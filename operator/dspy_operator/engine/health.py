"""Is this operator alive: does it hear the API server, and does it get through its queue? Served with the metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from dspy_operator.engine.clock import Clock
from dspy_operator.engine.metrics import Metrics
from dspy_operator.engine.queue import Queue

DEAF_SECONDS = 600.0
"""A watch is renewed every 240 s: two and a half renewals late."""
STUCK_SECONDS = 300.0
"""Of the queue's oldest key, and of the longest pass (which is cut at 60 s)."""
_PULSE_SECONDS = 1.0


class Health:
    """What the probes ask for.

    Args:
        watched: kinds that are watched.
    """

    def __init__(self, queue: Queue, metrics: Metrics, clock: Clock, watched: Iterable[str]) -> None:
        self._queue = queue
        self._metrics = metrics
        self._clock = clock
        self._watched = tuple(watched)
        self._heard: dict[str, float] | None = None

    def started(self) -> None:
        """The cache is filled, and the watches begin."""
        now = self._clock.monotonic()
        self._heard = dict.fromkeys(self._watched, now)

    def heard(self, kind: str) -> None:
        """A watch was opened, or told something."""
        if self._heard is not None:
            self._heard[kind] = self._clock.monotonic()

    @property
    def is_ready(self) -> bool:
        """Objects are being looked at."""
        return self._heard is not None

    def problems(self) -> list[str]:
        """Why this process should be replaced; empty while it waits for the API server to start with."""
        now = self._clock.monotonic()
        found = [
            f"the watch of {kind} was last heard {now - at:.0f} s ago"
            for kind, at in (self._heard or {}).items()
            if now - at > DEAF_SECONDS
        ]
        if (age := self._queue.oldest_seconds()) > STUCK_SECONDS:
            found.append(f"an object has waited {age:.0f} s for a worker")
        if (age := self._queue.longest_run_seconds()) > STUCK_SECONDS:
            found.append(f"a pass has lasted {age:.0f} s")
        return found

    def measure(self) -> None:
        """Bring the gauges up to date."""
        now = self._clock.monotonic()
        self._metrics.queue_depth.set(len(self._queue))
        self._metrics.queue_oldest.set(self._queue.oldest_seconds())
        self._metrics.longest_pass.set(self._queue.longest_run_seconds())
        for kind, at in (self._heard or {}).items():
            self._metrics.watch_age.labels(kind).set(now - at)

    async def feel_the_pulse(self) -> None:
        """For ever: how late the event loop is."""
        while True:
            before = self._clock.monotonic()
            await asyncio.sleep(_PULSE_SECONDS)
            self._metrics.loop_lag.set(max(0.0, self._clock.monotonic() - before - _PULSE_SECONDS))


class Pages:
    """/healthz, /readyz and /metrics over HTTP."""

    def __init__(self, health: Health, metrics: Metrics) -> None:
        self._health = health
        self._metrics = metrics
        self._runners: list[web.AppRunner] = []

    async def serve(self, *, health_port: int, metrics_port: int, host: str = "0.0.0.0") -> None:
        """Listen on both ports, which may be the same; 0 is any.

        Raises:
            OSError: a port is taken.
        """
        probes = [web.get("/healthz", self._healthz), web.get("/readyz", self._readyz)]
        counts = [web.get("/metrics", self._metrics_page)]
        if health_port == metrics_port:
            await self._listen(host, health_port, [*probes, *counts])
        else:
            await self._listen(host, health_port, probes)
            await self._listen(host, metrics_port, counts)

    async def _listen(self, host: str, port: int, routes: list[web.RouteDef]) -> None:
        application = web.Application()
        application.add_routes(routes)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        self._runners.append(runner)
        await web.TCPSite(runner, host, port).start()

    @property
    def ports(self) -> list[int]:
        """Where it listens, in the order of `serve`."""
        return [address[1] for runner in self._runners for address in runner.addresses]

    async def close(self) -> None:
        """Stop listening."""
        for runner in self._runners:
            await runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        problems = self._health.problems()
        return web.Response(status=500 if problems else 200, text="\n".join(problems) or "ok")

    async def _readyz(self, _: web.Request) -> web.Response:
        return web.Response(
            status=200 if self._health.is_ready else 503, text="ok" if self._health.is_ready else "starting"
        )

    async def _metrics_page(self, _: web.Request) -> web.Response:
        self._health.measure()
        return web.Response(body=generate_latest(self._metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
