"""The loader as its container runs it: a real Ollama pulls a real model, and a real API server takes what is reported."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from dspy_operator.contract.documents import LoaderProgress
from dspy_operator.loader.cluster import Cluster
from dspy_operator.loader.ollama import Ollama
from dspy_operator.loader.serving import Loader, Wanted
from e2e.localmodel.weights import Weights
from tests.integration.loader.endpoint import MODEL, POD, Endpoint
from tests.integration.loader.servers import (
    OllamaServer,
    Registry,
    a_registry,
    a_small_volume,
    an_ollama,
    free_port,
    status_of,
    wait_for,
)

READY_SECONDS = 120.0
"""A pull of 98 MB, a load and a call take 3 s on two idle cores; this is for a machine that does something else."""


def test_a_model_is_pulled_in_view_and_answers_and_is_there_at_the_next_start(
    server: OllamaServer, registry: Registry, endpoint: Endpoint, weights: Weights, tmp_path: Path
) -> None:
    registry.set(rate_bytes_per_second=10_000_000)
    mark = endpoint.plane.audit.mark()
    began = time.monotonic()
    seen: list[LoaderProgress] = []
    with endpoint.loader(server, registry.host, tmp_path) as loader:

        def watch() -> bool:
            said = endpoint.said
            if said is not None and (not seen or said != seen[-1]):
                seen.append(said)
            return loader.is_ready and said is not None and said.phase == "ready"

        wait_for(watch, "the model", READY_SECONDS)
        assert _one_token(server, MODEL) == 200, "under the name that the endpoint's spec has"
        assert loader.end() == 0

    pulling = [said for said in seen if said.phase == "pulling"]
    assert len(pulling) >= 2, "a pull of ten seconds is seen on its way"
    assert [said.percent for said in pulling] == sorted(said.percent for said in pulling)
    assert all(said.total >= weights.model.bytes for said in pulling)
    assert any(said.eta is not None and 0 < said.eta < 60 for said in pulling)
    model = seen[-1].model
    assert model is not None
    assert (model.name, model.context_length, model.quantization) == (MODEL, 1024, "Q4_1")
    assert model.digest.startswith("sha256:") and len(model.digest) == 71
    assert weights.model.bytes <= model.size_bytes < weights.model.bytes + 10_000

    requests = [one for one in endpoint.plane.audit.requests(since=mark) if one.user == endpoint.user]
    assert {(one.verb, one.resource, one.name, one.code) for one in requests} == {
        ("patch", "configmaps", "mep-small-pod", 200)
    }
    phases = len({said.phase for said in seen})
    assert len(requests) <= phases + (time.monotonic() - began) / 2, "one write in two seconds, and one for each phase"

    registry.reset()
    server.end()
    server.start()
    with endpoint.loader(server, registry.host, tmp_path) as loader:
        wait_for(lambda: loader.is_ready, "the second start", READY_SECONDS)
    assert registry.bytes_sent == 0


def test_a_pull_that_was_cut_off_goes_on_where_it_was(
    server: OllamaServer, registry: Registry, endpoint: Endpoint, weights: Weights, tmp_path: Path
) -> None:
    registry.set(rate_bytes_per_second=10_000_000)
    with endpoint.loader(server, registry.host, tmp_path) as loader:
        wait_for(lambda: (said := endpoint.said) is not None and said.percent >= 30, "a part", READY_SECONDS)
        assert loader.end() == 0, "SIGTERM ends it in the middle of a pull"
    server.end(signal.SIGKILL)
    server.start()
    sent = registry.bytes_sent
    registry.set(rate_bytes_per_second=0)
    with endpoint.loader(server, registry.host, tmp_path) as loader:
        wait_for(lambda: loader.is_ready, "the rest", READY_SECONDS)
    # Ollama keeps a part's progress once a second or so; a pull from the start would send all of it again.
    assert registry.bytes_sent - sent < 0.9 * weights.model.bytes


def test_a_model_that_the_registry_does_not_have_is_named(
    server: OllamaServer, registry: Registry, endpoint: Endpoint, tmp_path: Path
) -> None:
    with endpoint.loader(server, registry.host, tmp_path, model="nope:1b") as loader:
        wait_for(lambda: endpoint.said is not None, "a word", READY_SECONDS)
        said = endpoint.said
        assert said is not None
        assert (said.phase, said.reason) == ("failed", "ModelNotFound")
        assert said.message == f"pull of {registry.host}/library/nope:1b: pull model manifest: file does not exist"
        assert status_of(f"http://127.0.0.1:{loader.port}/readyz") == 503
        assert loader.process.poll() is None, "it tries again"


def test_a_registry_that_is_away_is_found_when_it_comes_back(
    server: OllamaServer, weights: Weights, endpoint: Endpoint, tmp_path: Path
) -> None:
    port = free_port()
    with endpoint.loader(server, f"127.0.0.1:{port}", tmp_path) as loader:
        wait_for(lambda: endpoint.said is not None, "a word", READY_SECONDS)
        said = endpoint.said
        assert said is not None
        assert (said.phase, said.reason) == ("failed", "PullFailed")
        assert "connection refused" in said.message
        with a_registry({MODEL: weights.path}, tmp_path / "registry.log", port):
            wait_for(lambda: loader.is_ready, "the model", READY_SECONDS)


@pytest.mark.usefixtures("programs")
def test_a_full_volume_is_named(registry: Registry, endpoint: Endpoint, tmp_path: Path) -> None:
    with (
        a_small_volume(tmp_path / "volume", megabytes=60) as volume,
        an_ollama(tmp_path / "ollama", volume) as server,
        endpoint.loader(server, registry.host, tmp_path) as loader,
    ):
        wait_for(lambda: (said := endpoint.said) is not None and said.phase == "failed", "a word", READY_SECONDS)
        said = endpoint.said
        assert said is not None
        assert said.reason == "StorageFull"
        assert "no space left on device" in said.message
        assert not loader.is_ready


@pytest.mark.usefixtures("programs")
def test_the_model_of_an_earlier_spec_makes_room_on_a_full_volume(
    weights: Weights, endpoint: Endpoint, tmp_path: Path
) -> None:
    earlier = tmp_path / "earlier"
    with earlier.open("wb") as file:
        file.truncate(80_000_000)
    with (
        a_small_volume(tmp_path / "volume", megabytes=150) as volume,
        an_ollama(tmp_path / "ollama", volume) as server,
        a_registry({"earlier:1b": earlier, MODEL: weights.path}, tmp_path / "registry.log") as registry,
    ):
        _pull(server, f"{registry.host}/library/earlier:1b")
        with endpoint.loader(server, registry.host, tmp_path) as loader:
            wait_for(lambda: loader.is_ready, "the model", READY_SECONDS)


def test_an_ollama_that_was_killed_is_loaded_again(server: OllamaServer, registry: Registry) -> None:
    reported: list[LoaderProgress] = []

    async def life() -> None:
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
            wanted = Wanted(MODEL, registry.host, insecure=True)
            loader = Loader(wanted, Ollama(client), reported.append, recheck_seconds=0.2)
            task = asyncio.create_task(loader.run())
            await _until(lambda: loader.ready)
            server.end(signal.SIGKILL)
            await _until(lambda: not loader.ready)
            await asyncio.to_thread(server.start)
            await _until(lambda: loader.ready)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    registry.reset()
    asyncio.run(life())
    phases = [progress.phase for progress in reported if progress.phase != "pulling"]
    assert phases == ["loading", "ready", "loading", "ready"]


def test_a_loader_can_read_and_patch_its_channel_and_nothing_else(endpoint: Endpoint) -> None:
    where = endpoint.plane.server.removeprefix("https://").split(":")
    environment = {"KUBERNETES_SERVICE_HOST": where[0], "KUBERNETES_SERVICE_PORT": where[1]}
    base = f"/api/v1/namespaces/{endpoint.namespace}"
    tried = {
        ("GET", f"{base}/configmaps/mep-small-pod"): 200,
        ("PATCH", f"{base}/configmaps/mep-small-pod"): 200,
        ("DELETE", f"{base}/configmaps/mep-small-pod"): 403,
        ("GET", f"{base}/configmaps/kube-root-ca.crt"): 403,
        ("PATCH", f"{base}/configmaps/kube-root-ca.crt"): 403,
        ("GET", f"{base}/configmaps"): 403,
        ("GET", f"{base}/secrets"): 403,
        ("GET", f"{base}/pods"): 403,
        ("GET", "/apis/dspy-operator.io/v1alpha1/modelendpoints"): 403,
    }

    async def ask() -> dict[tuple[str, str], int]:
        found = {}
        async with Cluster.of(environment, endpoint.account).client() as client:
            for method, path in tried:
                body = json.dumps({"data": {f"progress.{POD}.json": "{}"}}) if method == "PATCH" else None
                headers = {"Content-Type": "application/merge-patch+json"}
                found[method, path] = (await client.request(method, path, content=body, headers=headers)).status_code
        return found

    assert asyncio.run(ask()) == tried


def _pull(server: OllamaServer, model: str) -> None:
    with httpx.Client(trust_env=False, timeout=60) as client:
        answer = client.post(f"{server.url}/api/pull", json={"model": model, "insecure": True, "stream": False})
        assert answer.json() == {"status": "success"}


def _one_token(server: OllamaServer, model: str) -> int:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    with httpx.Client(trust_env=False, timeout=60) as client:
        return client.post(f"{server.url}/v1/chat/completions", json=body).status_code


async def _until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(READY_SECONDS):
        while not done():
            await asyncio.sleep(0.05)
