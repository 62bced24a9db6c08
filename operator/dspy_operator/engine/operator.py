"""The engine's parts put together, for any controllers: fill the cache, work, watch, and stop in order."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from dspy_operator.engine import shell
from dspy_operator.engine.client import Client
from dspy_operator.engine.clock import Clock, SystemClock
from dspy_operator.engine.credentials import Credentials
from dspy_operator.engine.health import Health, Pages
from dspy_operator.engine.logs import logger
from dspy_operator.engine.loop import Loop
from dspy_operator.engine.metrics import Metrics
from dspy_operator.engine.plan import Body, Controller
from dspy_operator.engine.resources import Resource, Resources
from dspy_operator.engine.resync import Resync


@dataclass(frozen=True)
class Operation:
    """How the engine runs, apart from what it keeps true."""

    workers: int = 8
    resync: timedelta = timedelta(minutes=7)
    health_port: int = 8080
    metrics_port: int = 8081
    instance: str = ""
    """This operator's name in Events: its pod's."""


class Operator:
    """One operator in one event loop."""

    def __init__(
        self,
        credentials: Credentials,
        resources: Resources,
        controllers: Iterable[Controller],
        operation: Operation,
        *,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or SystemClock()
        own = [resource.kind for resource in resources.own]
        self.metrics = Metrics()
        self.client = Client(credentials, resources, self.metrics, clock=clock)
        self.loop = Loop(
            self.client, controllers, own=own, clock=clock, metrics=self.metrics, instance=operation.instance
        )
        self.resync = Resync(self.client, resources, self.loop, self.metrics, clock, period=operation.resync)
        self.health = Health(self.loop.queue, self.metrics, clock, [resource.kind for resource in resources])
        self.pages = Pages(self.health, self.metrics)
        self._credentials = credentials
        self._resources = resources
        self._operation = operation
        self._stop = asyncio.Event()
        self._unopened = {resource.kind for resource in resources}
        """Kinds whose watch has not opened yet, not once."""
        self._watched = asyncio.Event()
        """All have."""
        self._log = logger(__name__)

    def stop(self) -> None:
        """Ask `run` to return."""
        self._stop.set()

    async def run(self) -> None:
        """Until `stop`, SIGTERM or SIGINT.

        Raises:
            Exception: a part ended that must not; the process should end, and begin anew.
        """
        self._take_signals()
        await self.pages.serve(health_port=self._operation.health_port, metrics_port=self._operation.metrics_port)
        try:
            async with self.client:
                self._log.info("starting", server=self._credentials.server)
                if await self._filled():
                    await self._work()
        finally:
            await self.pages.close()
            self._log.info("stopped")

    async def _filled(self) -> bool:
        """Whether the cache was filled before a stop."""
        fill, stop = asyncio.create_task(self.resync.fill()), asyncio.create_task(self._stop.wait())
        await asyncio.wait([fill, stop], return_when=asyncio.FIRST_COMPLETED)
        if fill.done():
            fill.result()
        await _end(fill, stop)
        return not self._stop.is_set()

    async def _work(self) -> None:
        self.health.started()
        self.loop.start(self._operation.workers)
        no_watch, watching = asyncio.Event(), asyncio.Event()
        # All tasks begin before kopf: when it ends, it cancels every task that is younger.
        stop, begun = asyncio.create_task(self._stop.wait()), asyncio.create_task(watching.wait())
        aside = [asyncio.create_task(self.resync.run(self._watched)), asyncio.create_task(self.health.feel_the_pulse())]
        watch = asyncio.create_task(
            shell.watch(
                self._credentials,
                self._resources,
                saw=self._saw,
                heard=self._opened,
                stop=no_watch,
                ready=watching,
            )
        )
        try:
            await asyncio.wait([stop, begun, watch, *aside], return_when=asyncio.FIRST_COMPLETED)
            if begun.done():
                self._take_signals()  # kopf took them when it started, and would stop before us
                self._log.info("working", workers=self._operation.workers)
                await asyncio.wait([stop, watch, *aside], return_when=asyncio.FIRST_COMPLETED)
            for task in (watch, *aside):
                if task.done():
                    task.result()
        finally:
            await self.pages.close()  # before kopf: it waits 5 s for connections that are younger than itself
            await self.loop.stop()
            no_watch.set()
            await asyncio.wait([watch])
            await _end(stop, begun, watch, *aside)

    def _opened(self, resource: Resource) -> None:
        self.health.heard(resource.kind)
        self._unopened.discard(resource.kind)
        if not self._unopened:
            self._watched.set()

    def _saw(self, resource: Resource, what: str | None, body: Body) -> None:
        self.health.heard(resource.kind)
        self.metrics.watch_events.labels(resource.kind, what or "LISTED").inc()
        if what == "DELETED":
            self.loop.lose(body)
        else:
            self.loop.learn(body)

    def _take_signals(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, self._stop.set)


def run_process(operate: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Run an operator as this process; its exit code. The caller ends the process with `os._exit`.

    Not `asyncio.run`: this waits for all tasks to heed their cancellation, and kopf's may not.
    """
    try:
        asyncio.new_event_loop().run_until_complete(operate())
    except Exception:  # kopf gave up on a watch, or a port is taken: a successor begins with a list
        logger(__name__).exception("ends, to be started anew")
        return 1
    finally:
        logging.shutdown()
    return 0


async def _end(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
