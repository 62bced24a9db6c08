"""The cluster's API as plain HTTP, through one `kubectl proxy`: looking every second costs no process of its own."""

from __future__ import annotations

import contextlib
import urllib.error
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from e2e.cluster.command import Failed
from e2e.cluster.proof.forward import Http, listening

GROUP = "/apis/dspy-operator.io/v1alpha1"
Body = dict[str, Any]


@dataclass(frozen=True)
class ApiServer:
    """What the demo asks of it. Raises Failed where it does not answer at all."""

    http: Http

    def ask(self, method: str, path: str, body: object = None, *, timeout_seconds: float = 30) -> tuple[int, Any]:
        """The answer's code, and its body."""
        try:
            return self.http.ask(method, path, body, timeout_seconds=timeout_seconds)
        except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
            raise Failed(f"the cluster does not answer ({error}); run it again to go on") from error

    def find(self, path: str) -> Body | None:
        """One object, or None where there is none."""
        code, found = self.ask("GET", path)
        if code not in (200, 404):
            raise Failed(f"GET {path} is answered with {code}: {found}")
        return found if code == 200 else None

    def items(self, path: str) -> list[Body]:
        """The objects of a list; none where there is no such kind (yet)."""
        found = self.find(path)
        return list(found["items"]) if found else []

    def ours(self, namespace: str, plural: str, name: str) -> Body | None:
        """One of our kinds' objects."""
        return self.find(f"{GROUP}/namespaces/{namespace}/{plural}/{name}")

    def config_map(self, namespace: str, name: str) -> Body | None:
        return self.find(f"/api/v1/namespaces/{namespace}/configmaps/{name}")

    def of_service(
        self, namespace: str, service: str, path: str, *, query: dict[str, str] | None = None, **options: Any
    ) -> tuple[int, Any]:
        """What a Service answers, asked by way of the API server.

        Args:
            service: its name and port, as `name:port`.
        """
        words = f"?{urlencode(query)}" if query else ""
        method, body = options.pop("method", "GET"), options.pop("body", None)
        return self.ask(
            method, f"/api/v1/namespaces/{namespace}/services/{service}/proxy{path}{words}", body, **options
        )


@contextlib.contextmanager
def api_server() -> Iterator[ApiServer]:
    """The API server on a free port of this machine."""
    # All methods of all paths: kubectl's default refuses what goes by a pod. Only this machine's 127.0.0.1 gets in.
    proxy = ("proxy", "--port=0", "--address=127.0.0.1", "--reject-paths=^$", "--reject-methods=^$")
    with listening(*proxy) as http:
        yield ApiServer(http)
