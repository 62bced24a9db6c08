"""kopf, as a shell: it watches and reconnects, and tells what it saw. The only module that imports it.

Nothing of kopf's is kept on objects: no handlers of changes, no finalizers, timers, indices, no Events of its own.
What it misses the resync finds. A watch that the API server ends with an error other than 410 ends kopf, by its design;
the process then has to end too, and its successor lists and writes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import kopf

from dspy_operator.engine.credentials import Credentials
from dspy_operator.engine.plan import Body
from dspy_operator.engine.resources import Resource, Resources
from dspy_operator.engine.resync import OURS

RENEW_SECONDS = 240
"""The API server ends each watch after so long and kopf opens it anew: this is how a deaf watch shows in a quiet
cluster, for kopf tells nobody of bookmarks."""

END_SECONDS = 2.0
"""kopf 1.45 can hang for ever while it ends: each of its other watches drops a cancellation (`streaming_block` suppresses
it) and begins again, deaf, for its credentials are gone. Measured: one ERROR event, and 5 of 9 watches stay."""

Saw = Callable[[Resource, str | None, Body], None]
"""(what, ADDED | MODIFIED | DELETED | None for listed, the object)."""
Heard = Callable[[Resource], None]


class WatchLost(Exception):
    """kopf gave up; its log lines say on what."""


async def watch(
    credentials: Credentials,
    resources: Resources,
    *,
    saw: Saw,
    heard: Heard,
    stop: asyncio.Event,
    ready: asyncio.Event | None = None,
) -> None:
    """Watch all resources until `stop`, SIGTERM or SIGINT.

    Args:
        saw: is told each object; must not raise.
        heard: is told each opened watch.
        ready: set when the watches begin.
    Raises:
        WatchLost: kopf gave up; the process has to end, though tasks of kopf's may not.
    """
    registry = kopf.OperatorRegistry()
    for resource in resources:
        kopf.on.event(resource.group, resource.version, resource.plural, registry=registry)(_teller(resource, saw))

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        session = credentials.session(trace_configs=[_listener(resources, heard)])
        return kopf.AiohttpSession(server=credentials.server, aiohttp_session=session)

    ends = asyncio.Event()

    @kopf.on.cleanup(registry=registry)
    async def cleanup(**_: Any) -> None:
        ends.set()

    ending = asyncio.create_task(ends.wait())  # before kopf, which cancels every task that is younger than itself
    operator = asyncio.create_task(
        kopf.operator(
            registry=registry,
            settings=_settings(resources),
            clusterwide=True,
            standalone=True,
            identity=cast(Any, "dspy-operator"),  # else it asks for the user's name, and a pod's user has none
            stop_flag=stop,
            ready_flag=ready,
        )
    )
    await asyncio.wait([operator, ending], return_when=asyncio.FIRST_COMPLETED)
    await asyncio.wait([operator], timeout=END_SECONDS)
    ending.cancel()
    if stop.is_set():
        operator.cancel()
    elif not operator.done() or operator.exception() is not None:
        raise WatchLost("kopf gave up on a watch") from (operator.exception() if operator.done() else None)


class _NoEssence(kopf.DiffBaseStorage):
    """kopf copies each object deeply at each event to see what changed; nobody asks it (half of its time, measured)."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> kopf.BodyEssence:
        return cast(kopf.BodyEssence, {})

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        pass


class _NoProgress(kopf.ProgressStorage):
    """Of handlers that kopf would retry; there are none."""

    def fetch(self, *, key: Any, body: kopf.Body) -> None:
        return None

    def store(self, *, key: Any, record: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        pass

    def purge(self, *, key: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        pass

    def touch(self, *, body: kopf.Body, patch: kopf.Patch, value: str | None) -> None:
        pass

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


def _settings(resources: Resources) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.persistence.diffbase_storage = _NoEssence()
    settings.persistence.progress_storage = _NoProgress()
    settings.posting.enabled = False  # our Events are de-duplicated
    settings.scanning.disabled = True  # no watch of namespaces and CRDs: less to be allowed
    settings.peering.standalone = True
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.networking.enforce_retry_after = True
    settings.watching.connect_timeout = 5
    settings.watching.server_timeout = RENEW_SECONDS
    settings.watching.chunk_size = 500
    settings.queueing.idle_timeout = 1.0  # one task an object for as long; our handler takes microseconds
    settings.queueing.exit_timeout = 0.5  # nothing is lost: what was not told is listed at the next start
    # worker_limit stays None: it caps throughput at limit / idle_timeout (measured), and deadlocks (kopf #1243).
    for resource in resources.children:
        # A 3-part string key silently matches nothing (measured): it must be a tuple.
        settings.watching.label_selectors[resource.group, resource.version, resource.plural] = OURS
    return settings


def _teller(resource: Resource, saw: Saw) -> Callable[..., Any]:
    async def tell(event: Any, **_: Any) -> None:
        body: Body = dict(event["object"])
        body["kind"], body["apiVersion"] = resource.kind, resource.api_version
        saw(resource, event["type"], body)

    tell.__name__ = f"saw_{resource.plural}"
    return tell


def _listener(resources: Resources, heard: Heard) -> aiohttp.TraceConfig:
    by_path = {resource.path(): resource for resource in resources}

    async def answered(
        session: aiohttp.ClientSession, context: SimpleNamespace, done: aiohttp.TraceRequestEndParams
    ) -> None:
        if done.url.query.get("watch") == "true" and done.response.status == 200 and done.url.path in by_path:
            heard(by_path[done.url.path])

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(answered)
    return trace
