"""What is offered is written: the last word, not too often, whatever the API server does meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
import pytest

from dspy_operator.contract.documents import LoaderProgress
from dspy_operator.loader import channel as channel_module
from dspy_operator.loader.channel import Channel

KEY = "progress.a.json"


@dataclass
class ApiServer:
    """One ConfigMap. Only its refusals are made up: the real one is in tests/integration/loader."""

    data: dict[str, str] = field(default_factory=dict)
    refuses: int | None = None
    patches: list[str] = field(default_factory=list)
    reads: int = 0

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url="https://api", transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/api/v1/namespaces/models/configmaps/mep-qwen-pod"
        if self.refuses is not None:
            return httpx.Response(self.refuses, json={"kind": "Status", "message": "no"})
        if request.method == "GET":
            self.reads += 1
        else:
            assert request.headers["content-type"] == "application/merge-patch+json"
            patch = json.loads(request.content)
            assert list(patch) == ["data"]
            self.patches.append(patch["data"][KEY])
            self.data |= patch["data"]
        return httpx.Response(200, json={"data": self.data})


def scenario(
    server: ApiServer, act: Callable[[Channel], object], done: Callable[[], bool], **options: float
) -> Channel:
    """A channel that runs until `done`."""

    async def life() -> Channel:
        seconds = {"pause_seconds": 0.02, "confirm_seconds": 60.0, **options}
        channel = Channel(server.client(), namespace="models", name="mep-qwen-pod", key=KEY, **seconds)
        task = asyncio.create_task(channel.run())
        try:
            acting = act(channel)
            if asyncio.iscoroutine(acting):
                await acting
            async with asyncio.timeout(10.0):
                while not done():
                    assert not task.done()
                    await asyncio.sleep(0.005)
            return channel
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    return asyncio.run(life())


def pulling(percent: int) -> LoaderProgress:
    return LoaderProgress(phase="pulling", percent=percent)


def test_the_last_word_arrives_and_those_before_it_may_not() -> None:
    server = ApiServer()

    async def a_fast_pull(channel: Channel) -> None:
        for percent in range(100):
            channel.offer(pulling(percent))
            await asyncio.sleep(0.002)

    scenario(server, a_fast_pull, lambda: '"percent": 99' in server.data.get(KEY, ""))
    assert len(server.patches) <= 40  # of 100 words in 0.2 s or more, one in 0.02 s
    percents = [json.loads(text)["percent"] for text in server.patches]
    assert percents == sorted(set(percents))


def test_a_new_phase_does_not_wait_for_its_turn() -> None:
    server = ApiServer()

    async def load(channel: Channel) -> None:
        for phase in ("pulling", "loading", "ready"):
            channel.offer(LoaderProgress.model_validate({"phase": phase}))
            while phase not in server.data.get(KEY, ""):
                await asyncio.sleep(0.005)

    scenario(server, load, lambda: True, pause_seconds=60.0)
    assert len(server.patches) == 3


def test_the_same_word_again_is_not_written() -> None:
    server = ApiServer()

    async def repeat(channel: Channel) -> None:
        for _ in range(20):
            channel.offer(LoaderProgress(phase="loading"))
            await asyncio.sleep(0.005)

    scenario(server, repeat, lambda: len(server.patches) > 0)
    assert len(server.patches) == 1
    assert server.reads == 0


def test_a_key_that_was_lost_comes_back() -> None:
    server = ApiServer()

    async def lose(channel: Channel) -> None:
        channel.offer(LoaderProgress(phase="ready"))
        while not server.data:
            await asyncio.sleep(0.005)
        server.data.clear()

    scenario(server, lose, lambda: bool(server.data), confirm_seconds=0.05)
    assert len(server.patches) == 2


def test_looking_is_not_writing() -> None:
    server = ApiServer()
    scenario(
        server, lambda channel: channel.offer(LoaderProgress(phase="ready")), lambda: server.reads >= 3, confirm_seconds=0.01
    )  # fmt: skip
    assert len(server.patches) == 1


@pytest.mark.parametrize("code", [404, 403, 500, 429])
def test_what_is_refused_is_tried_again_and_said_once(
    code: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(channel_module.random, "uniform", lambda low, high: 0.01)  # type: ignore[attr-defined]
    server = ApiServer(refuses=code)

    async def later(channel: Channel) -> None:
        channel.offer(LoaderProgress(phase="loading"))
        await asyncio.sleep(0.2)
        channel.offer(LoaderProgress(phase="ready"))
        server.refuses = None

    scenario(server, later, lambda: '"ready"' in server.data.get(KEY, ""))
    assert len([record for record in caplog.records if "trying again" in record.message]) == 1
