"""The operator authenticates as its pod or by a kubeconfig, and a token that rotates is read anew."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from kubernetes.config import incluster_config

from dspy_operator.engine.client import Client, Forbidden
from dspy_operator.engine.credentials import TOKEN_SECONDS, Credentials, NoCredentials
from dspy_operator.engine.metrics import Metrics
from dspy_operator.engine.plan import Body, Ref
from dspy_operator.engine.resources import Resources
from tests.controlplane.processes import ControlPlane
from tests.unit.engine.clocks import TurnedClock

DEFAULT = Ref("v1", "ServiceAccount", "default", "default")


def a_token(plane: ControlPlane, account: str) -> str:
    path = f"/api/v1/namespaces/default/serviceaccounts/{account}"
    plane.request("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": account}})
    code, answer = plane.request("POST", f"{path}/token", {"spec": {}})
    assert code == 201
    return str(answer["status"]["token"])


def ask(found: Credentials, ref: Ref = DEFAULT) -> Body:
    async def play() -> Body:
        async with Client(found, Resources(own=[]), Metrics()) as client:
            return await client.get(ref)

    return asyncio.run(play())


def test_a_kubeconfig_outside_of_a_cluster(control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(control_plane.kubeconfig))
    assert ask(Credentials.load())["metadata"]["name"] == "default"


@pytest.fixture
def mount(control_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pod's ServiceAccount mount."""
    server = urlsplit(control_plane.server)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", str(server.hostname))
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(control_plane.authority))
    (tmp_path / "token").write_text(a_token(control_plane, "operator"))
    return tmp_path


def test_a_pod_asks_as_its_service_account(control_plane: ControlPlane, mount: Path) -> None:
    mark = control_plane.audit.mark()
    with pytest.raises(Forbidden, match="system:serviceaccount:default:operator"):
        ask(Credentials.load())
    (asked,) = [request for request in control_plane.audit.requests(since=mark) if request.name == "default"]
    assert asked.user == "system:serviceaccount:default:operator"


def test_a_pod_without_a_mount_is_told_so(mount: Path) -> None:
    (mount / "token").unlink()
    with pytest.raises(NoCredentials, match="token file does not exist"):
        Credentials.load()


class Source:
    """What kubernetes.config knows; its token is another one at each reading."""

    ssl_ca_cert = cert_file = key_file = None
    verify_ssl = True

    def __init__(self, host: str) -> None:
        self.host = host
        self.readings = 0

    def get_api_key_with_prefix(self, _: str) -> str:
        self.readings += 1
        return f"Bearer token-{self.readings}"


def test_a_token_is_read_again_when_it_is_old_or_refused() -> None:
    clock = TurnedClock()
    seen: list[str] = []
    answers = iter([200, 200, 200, 401, 200])

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        return web.json_response({"kind": "Status"}, status=next(answers))

    async def play() -> None:
        application = web.Application()
        application.router.add_get("/{path:.*}", answer)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        found = Credentials(Source(f"http://127.0.0.1:{runner.addresses[0][1]}"), clock=clock)
        async with Client(found, Resources(own=[]), Metrics()) as client:
            await client.get(DEFAULT)
            await client.get(DEFAULT)
            clock.turn(TOKEN_SECONDS + 1)
            await client.get(DEFAULT)
            with pytest.raises(Forbidden):
                await client.get(DEFAULT)
            await client.get(DEFAULT)
        await runner.cleanup()

    asyncio.run(play())
    assert [header.removeprefix("Bearer ") for header in seen] == [
        "token-1",
        "token-1",
        "token-2",
        "token-2",
        "token-3",
    ]
