"""Who we are to the API server: in a pod its ServiceAccount, elsewhere a kubeconfig.

`kubernetes.config` knows all the ways of a kubeconfig (exec plugins too) and re-reads a ServiceAccount's token, which
rotates; its models and its transport are not used.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import Any

import aiohttp
from kubernetes import config
from kubernetes.client import Configuration

from dspy_operator.engine.clock import Clock, SystemClock

TOKEN_SECONDS = 60.0
"""A projected token is renewed at 80 % of its hour or more; kubernetes.config re-reads its file as often."""
CONNECT_SECONDS = 5.0
_DEFAULT = "~/.kube/config"


class NoCredentials(Exception):
    """Neither a ServiceAccount nor a usable kubeconfig; says what was looked at."""


class Credentials:
    """The server's address, how to trust it, and a header that stays valid."""

    def __init__(self, source: Any, *, clock: Clock | None = None) -> None:
        self._source = source
        self._clock = clock or SystemClock()
        self.server: str = source.host
        self._header: str | None = None
        self._read_at = float("-inf")
        self._lock = asyncio.Lock()

    @classmethod
    def load(cls) -> Credentials:
        """By KUBECONFIG if it is set, else as the pod that this is, else by ~/.kube/config.

        Raises:
            NoCredentials: where none of them serves.
        """
        source = Configuration()
        kubeconfig = os.environ.get("KUBECONFIG")
        try:
            if not kubeconfig and os.environ.get("KUBERNETES_SERVICE_HOST"):
                config.load_incluster_config(client_configuration=source)  # type: ignore[no-untyped-call]
            else:
                config.load_kube_config(kubeconfig or _DEFAULT, client_configuration=source)  # type: ignore[no-untyped-call]
        except (config.ConfigException, OSError) as error:
            raise NoCredentials(f"KUBECONFIG={kubeconfig or '(unset)'}: {error}") from error
        return cls(source)

    def session(self, **options: Any) -> aiohttp.ClientSession:
        """An HTTP session that authenticates each request by itself.

        Args:
            options: for aiohttp.ClientSession.
        """
        connector = aiohttp.TCPConnector(limit=0, ssl=self._trust(), ttl_dns_cache=60)
        return aiohttp.ClientSession(
            connector=connector, middlewares=(self._authorize,), headers={"User-Agent": "dspy-operator"}, **options
        )

    def _trust(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self._source.ssl_ca_cert)
        if not self._source.verify_ssl:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self._source.cert_file:
            context.load_cert_chain(self._source.cert_file, self._source.key_file)
        return context

    async def _authorize(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        header = await self._current()
        if header:
            request.headers["Authorization"] = header
        answer = await handler(request)
        if answer.status == 401:
            self._read_at = float("-inf")  # revoked or rotated before its time: the next request reads it anew
        return answer

    async def _current(self) -> str | None:
        if self._clock.monotonic() - self._read_at < TOKEN_SECONDS:
            return self._header
        async with self._lock:
            if self._clock.monotonic() - self._read_at >= TOKEN_SECONDS:
                # A file in a pod; outside of a cluster perhaps a program that asks somebody.
                self._header = await asyncio.to_thread(self._source.get_api_key_with_prefix, "BearerToken")
                self._read_at = self._clock.monotonic()
        return self._header
