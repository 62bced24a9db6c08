"""How a pod reaches its API server: the address is in its environment, token and CA are in a folder."""

from __future__ import annotations

import ssl
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from dspy_operator import __version__
from dspy_operator.contract import names

REQUEST_SECONDS = 10.0


class NotInCluster(Exception):
    """The environment, or the folder, is not one of a pod; the message names what is missing."""


@dataclass(frozen=True)
class Cluster:
    """The API server as this pod sees it."""

    server: str
    account: Path
    """Folder with `token` and `ca.crt`."""

    @staticmethod
    def of(environment: Mapping[str, str], account: Path = Path(names.ACCOUNT_FOLDER)) -> Cluster:
        """Of this pod.

        Raises:
            NotInCluster: without the variables or files that the kubelet gives to every pod.
        """
        host, port = (environment.get(f"KUBERNETES_SERVICE_{name}", "") for name in ("HOST", "PORT"))
        if not host or not port:
            raise NotInCluster("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set: this is no pod")
        for name in ("token", "ca.crt"):
            if not (account / name).is_file():
                raise NotInCluster(f"{account / name} is missing: the pod has no ServiceAccount token")
        return Cluster(names.api_server(host, port), account)

    def client(self) -> httpx.AsyncClient:
        """A client that says who it is with each request."""
        return httpx.AsyncClient(
            base_url=self.server,
            auth=_TokenFile(self.account / "token"),
            verify=ssl.create_default_context(cafile=str(self.account / "ca.crt")),
            timeout=REQUEST_SECONDS,
            trust_env=False,  # a proxy for the registry's sake is none for the cluster's own API server
            headers={"User-Agent": f"dspy-operator-loader/{__version__}"},
        )


class _TokenFile(httpx.Auth):
    """The token is read anew for each request: the kubelet renews it, by default after 80 % of an hour."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._path.read_text('utf-8').strip()}"
        yield request
