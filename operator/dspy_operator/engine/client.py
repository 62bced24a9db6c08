"""The one module that talks to the API server: raw dicts in, raw dicts out, one typed error for each answer that matters.

It retries nothing: what failed comes again through the queue, with backoff, and decides from what is true then.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import aiohttp

from dspy_operator.engine.clock import Clock, SystemClock
from dspy_operator.engine.credentials import CONNECT_SECONDS, Credentials
from dspy_operator.engine.metrics import Metrics
from dspy_operator.engine.plan import Body, Ref
from dspy_operator.engine.resources import Resource, Resources

FIELD_MANAGER = "dspy-operator"
REQUEST_SECONDS = 30.0
PAGE = 500
"""Objects in one answer of a LIST: about 1 MB of runs."""


class ApiError(Exception):
    """The API server said no."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code = code
        self.reason = reason
        self.message = message


class NotFound(ApiError):
    """404: the object, its namespace or its whole kind."""


class AlreadyExists(ApiError):
    """409 to a create."""


class Conflict(ApiError):
    """409: the object changed since it was read, or another one has its name."""


class Gone(ApiError):
    """410: a list's continuation is too old."""


class Invalid(ApiError):
    """400, 413, 422: what we sent is wrong, and will be wrong again."""


class Forbidden(ApiError):
    """401, 403: our role lacks a verb, or the namespace is going away."""

    @property
    def terminating(self) -> bool:
        """Nothing can be created any more, since the namespace is being deleted."""
        return "being terminated" in self.message


class TooMany(ApiError):
    """429, or 503: the server is busy."""

    def __init__(self, code: int, reason: str, message: str, retry_after_seconds: float) -> None:
        super().__init__(code, reason, message)
        self.retry_after_seconds = retry_after_seconds


class Unreachable(Exception):
    """No answer: refused, cut, or too late. Whether a write happened is unknown."""


_BY_CODE: Mapping[int, type[ApiError]] = {
    400: Invalid,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    410: Gone,
    413: Invalid,
    422: Invalid,
}


@dataclass(frozen=True)
class Listed:
    """One consistent LIST."""

    items: list[Body]
    resource_version: int
    """Of the moment that the list shows."""


class Client:
    """Async access to the API server. Use it as a context manager."""

    def __init__(
        self, credentials: Credentials, resources: Resources, metrics: Metrics, *, clock: Clock | None = None
    ) -> None:
        self._credentials = credentials
        self._resources = resources
        self._metrics = metrics
        self._clock = clock or SystemClock()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Client:
        """Opens connections as they are needed."""
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS, sock_connect=CONNECT_SECONDS)
        self._session = self._credentials.session(timeout=timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes them."""
        if self._session is not None:
            await self._session.close()

    async def get(self, ref: Ref) -> Body:
        """One object as it is.

        Raises:
            NotFound: there is none.
        """
        return await self._ask("get", self._resources.of(ref), "GET", self._path(ref))

    async def create(self, body: Body) -> Body:
        """Make what is not there.

        Raises:
            AlreadyExists: an object of that name, whosever it is.
        """
        ref = Ref.of(body)
        resource = self._resources.of(ref)
        return await self._ask("create", resource, "POST", resource.path(ref.namespace), body=body, params=_MANAGER)

    async def replace(self, body: Body) -> Body:
        """Write a whole object over the version that its resourceVersion names.

        Raises:
            Conflict: it changed since.
        """
        ref = Ref.of(body)
        return await self._ask("update", self._resources.of(ref), "PUT", self._path(ref), body=body, params=_MANAGER)

    async def replace_status(self, body: Body) -> Body:
        """Write the status of the version that its resourceVersion names; everything else in it is ignored.

        Raises:
            Conflict: it changed since.
        """
        ref, path = Ref.of(body), self._path(Ref.of(body), "status")
        return await self._ask("update", self._resources.of(ref), "PUT", path, body=body, params=_MANAGER)

    async def apply(self, body: Body, *, force: bool) -> Body:
        """Server-side apply: what we named before and no longer name goes, what others set stays.

        Args:
            force: take fields that another manager set.
        Raises:
            Conflict: without force, somebody else's field; with `metadata.uid`, another object has the name.
        """
        ref = Ref.of(body)
        params = {**_MANAGER, "force": "true" if force else "false"}
        return await self._ask(
            "patch",
            self._resources.of(ref),
            "PATCH",
            self._path(ref),
            body=body,
            params=params,
            patch="apply-patch+yaml",
        )

    async def merge(self, ref: Ref, patch: Body) -> Body:
        """JSON merge patch."""
        return await self._ask(
            "patch",
            self._resources.of(ref),
            "PATCH",
            self._path(ref),
            body=patch,
            params=_MANAGER,
            patch="merge-patch+json",
        )

    async def delete(self, ref: Ref, uid: str) -> Body:
        """Delete one object and in the background what it owns; the answer is the object, or a Status if it is gone.

        Raises:
            NotFound: it is gone already.
            Conflict: another object has its name.
        """
        options = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        return await self._ask("delete", self._resources.of(ref), "DELETE", self._path(ref), body=options)

    async def list(self, resource: Resource, *, label_selector: str = "") -> Listed:
        """All objects of a kind in all namespaces, as of one moment.

        Raises:
            Gone: the list took too long; begin again.
        """
        params = {"limit": str(PAGE)} | ({"labelSelector": label_selector} if label_selector else {})
        items: list[Body] = []
        async for page in self._pages(resource, params):
            for item in page["items"]:
                item["kind"], item["apiVersion"] = resource.kind, resource.api_version  # a list's items do not say
                items.append(item)
            version = int(page["metadata"]["resourceVersion"])
        return Listed(items, version)

    async def _pages(self, resource: Resource, params: dict[str, str]) -> AsyncIterator[Body]:
        while True:
            page = await self._ask("list", resource, "GET", resource.path(), params=params)
            yield page
            token = page["metadata"].get("continue")
            if not token:
                return
            params = {**params, "continue": token}

    def _path(self, ref: Ref, subresource: str = "") -> str:
        return self._resources.of(ref).path(ref.namespace, ref.name, subresource)

    async def _ask(
        self,
        verb: str,
        resource: Resource,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
        patch: str = "",
    ) -> Body:
        assert self._session is not None, "the client is a context manager"
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        headers = {"Content-Type": f"application/{patch or 'json'}"} if data else None
        started, code = self._clock.monotonic(), "none"
        try:
            async with self._session.request(
                method, self._credentials.server + path, data=data, params=params, headers=headers
            ) as answer:
                raw = await answer.read()
                code = str(answer.status)
                if answer.status >= 400:
                    raise refusal(answer.status, raw, answer.headers.get("Retry-After"))
                parsed: Body = json.loads(raw)
                return parsed
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unreachable(f"{method} {path}: {type(error).__name__} {error}".rstrip()) from error
        finally:
            self._metrics.api_requests.labels(verb, resource.plural, code).inc()
            self._metrics.api_seconds.labels(verb).observe(self._clock.monotonic() - started)


_MANAGER = {"fieldManager": FIELD_MANAGER}


def refusal(code: int, raw: bytes, retry_after: str | None = None) -> ApiError:
    """The error that an answer of the API server means.

    Args:
        code: 400 or more.
        raw: its body, most often a Status.
        retry_after: its header.
    """
    try:
        status = json.loads(raw)
        reason, message = str(status.get("reason") or ""), str(status.get("message") or "")
    except (ValueError, AttributeError):  # a proxy in between, or the API server's own "404 page not found"
        reason, message = "", raw.decode(errors="replace")[:200].strip()
    if code == 409:
        return (AlreadyExists if reason == "AlreadyExists" else Conflict)(code, reason, message)
    if code in (429, 503):
        return TooMany(code, reason, message, _seconds(retry_after))
    return _BY_CODE.get(code, ApiError)(code, reason, message)


def _seconds(retry_after: str | None) -> float:
    try:
        return max(1.0, float(retry_after or 1))
    except ValueError:  # a date, which the API server never sends
        return 1.0
