"""The life of a loader beside an Ollama that misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from dspy_operator.contract.documents import LoaderProgress
from dspy_operator.loader.ollama import Ollama
from dspy_operator.loader.serving import Loader, Wanted
from tests.unit.loader.fake_ollama import FakeOllama

MODEL = "qwen:0.5b"
DEADLINE_SECONDS = 10.0


class Life:
    """A loader that runs, and all that it reported; the same twice in a row is one, as the channel has it."""

    def __init__(self, server: FakeOllama, wanted: Wanted, **options: float) -> None:
        self.said: list[LoaderProgress] = []
        quick: dict[str, Any] = {"recheck_seconds": 0.01, "longest_backoff_seconds": 0.05, **options}
        self.loader = Loader(wanted, Ollama(server.client()), self._hear, **quick)

    def _hear(self, progress: LoaderProgress) -> None:
        if not self.said or self.said[-1] != progress:
            self.said.append(progress)

    @property
    def phases(self) -> list[str]:
        """Without repetitions."""
        phases = [progress.reason or progress.phase for progress in self.said]
        return [phase for at, phase in enumerate(phases) if at == 0 or phases[at - 1] != phase]

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not done():
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def a_life(server: FakeOllama, wanted: Wanted | None = None, **options: float) -> AsyncIterator[Life]:
    life = Life(server, wanted or Wanted(MODEL), **options)
    task = asyncio.create_task(life.loader.run())
    try:
        yield life
        assert not task.done(), "a loader ends only when it is told to"
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def run(life: Callable[[], Any]) -> None:
    asyncio.run(life())


def test_a_model_is_pulled_loaded_asked_and_ready() -> None:
    server = FakeOllama(in_registry={MODEL})

    async def scenario() -> None:
        async with a_life(server) as life:
            assert not life.loader.ready
            await life.until(lambda: life.loader.ready)
            assert life.phases == ["pulling", "loading", "ready"]
            assert [progress.percent for progress in life.said] == [0, 50, 99, 0, 100]
            model = life.said[-1].model
            assert model is not None
            assert model.document() == {
                "name": MODEL, "digest": "sha256:" + "ab" * 32, "sizeBytes": 1000, "contextLength": 4096,
                "quantization": "Q4_K_M",
            }  # fmt: skip
            assert server.asked["/api/generate"] == 2, "one call loads, one answers"

    run(scenario)


def test_what_is_on_disk_is_not_pulled() -> None:
    server = FakeOllama(manifests={MODEL}, blobs={MODEL})

    async def scenario() -> None:
        async with a_life(server) as life:
            await life.until(lambda: life.loader.ready)
            assert life.phases == ["loading", "ready"]
            assert server.asked["/api/pull"] == 0

    run(scenario)


def test_a_model_of_another_registry_is_served_under_its_short_name() -> None:
    wanted = Wanted(MODEL, registry="r:5000", insecure=True)
    server = FakeOllama(in_registry={"r:5000/library/qwen:0.5b"}, manifests={MODEL}, blobs={MODEL})

    async def scenario() -> None:
        async with a_life(server, wanted) as life:
            await life.until(lambda: life.loader.ready)
            assert server.asked["/api/pull"] == 1, "the same name from elsewhere is another model"
            assert server.memory == {MODEL}

    run(scenario)


def test_a_model_that_is_listed_without_its_files_is_pulled() -> None:
    server = FakeOllama(in_registry={MODEL}, manifests={MODEL})

    async def scenario() -> None:
        async with a_life(server) as life:
            await life.until(lambda: life.loader.ready)
            assert server.asked["/api/pull"] == 1

    run(scenario)


def test_a_model_that_the_registry_lacks_is_found_once_it_is_pushed() -> None:
    server = FakeOllama()

    async def scenario() -> None:
        async with a_life(server) as life:
            await life.until(lambda: server.asked["/api/pull"] >= 3)
            assert life.phases == ["ModelNotFound"], "said once, and not between the attempts"
            assert life.said[-1].message == f"pull of {MODEL}: pull model manifest: file does not exist"
            server.in_registry.add(MODEL)
            await life.until(lambda: life.loader.ready)
            assert life.phases == ["ModelNotFound", "pulling", "loading", "ready"]

    run(scenario)


def test_a_pull_that_breaks_and_gets_on_is_a_pull() -> None:
    server = FakeOllama(in_registry={MODEL}, percents=(0, 30), pull_errors=["max retries exceeded: unexpected EOF"])

    async def scenario() -> None:
        async with a_life(server) as life:
            await life.until(lambda: server.asked["/api/pull"] >= 1)
            server.percents = (30, 100)
            await life.until(lambda: life.loader.ready)
            assert life.phases == ["pulling", "loading", "ready"]

    run(scenario)


def test_a_pull_that_gets_nowhere_is_a_failure_that_stays_said_until_it_is_over() -> None:
    server = FakeOllama(in_registry={MODEL}, percents=(0, 30), pull_errors=["unexpected EOF"] * 4)

    async def scenario() -> None:
        async with a_life(server) as life:
            await life.until(lambda: server.asked["/api/pull"] >= 4)
            assert life.phases == ["pulling", "PullFailed"]
            server.percents = (30, 100)
            await life.until(lambda: life.loader.ready)
            assert life.phases == ["pulling", "PullFailed", "pulling", "loading", "ready"]

    run(scenario)


def test_a_file_that_arrives_wrong_again_and_again_is_a_failure() -> None:
    server = FakeOllama(in_registry={MODEL}, pull_errors=["digest mismatch, file must be downloaded again"] * 3)

    async def scenario() -> None:
        async with a_life(server) as life:
            await life.until(lambda: life.said[-1:] != [] and life.said[-1].phase == "failed")
            assert server.asked["/api/pull"] == 2, "the first time may be chance"
            await life.until(lambda: life.loader.ready)
            assert life.phases == ["pulling", "PullFailed", "loading", "ready"], "once the pull succeeds, that is over"

    run(scenario)


def test_a_registry_that_goes_silent_is_asked_anew() -> None:
    server = FakeOllama(in_registry={MODEL}, stalls_at=50)

    async def scenario() -> None:
        async with a_life(server, stall_seconds=0.05) as life:
            await life.until(lambda: server.asked["/api/pull"] == 2)
            server.stalls_at = None
            await life.until(lambda: life.loader.ready)
            failures = [progress.message for progress in life.said if progress.phase == "failed"]
            assert all("no byte from the registry" in message for message in failures)

    run(scenario)


def test_a_full_disk_gives_up_models_that_nobody_wants_any_more() -> None:
    server = FakeOllama(
        in_registry={MODEL}, manifests={"old:7b"}, blobs={"old:7b"}, pull_errors=["write x: no space left on device"]
    )

    async def scenario() -> None:
        async with a_life(server) as life:
            await life.until(lambda: life.loader.ready)
            assert server.manifests == {MODEL}
            assert "StorageFull" not in life.phases

    run(scenario)


def test_a_disk_that_is_full_of_nothing_else_is_a_failure() -> None:
    server = FakeOllama(in_registry={MODEL}, pull_errors=["write x: no space left on device"] * 2)

    async def scenario() -> None:
        async with a_life(server) as life:
            await life.until(lambda: "StorageFull" in life.phases)
            assert server.asked["/api/delete"] == 0
            await life.until(lambda: life.loader.ready)

    run(scenario)


@pytest.mark.parametrize(
    "words",
    ["model requires more system memory (5.6 GiB) than is available (3.0 GiB)", "llama runner process has terminated"],
)
def test_a_model_that_does_not_load_is_a_failure_in_ollamas_words(words: str) -> None:
    server = FakeOllama(manifests={MODEL}, blobs={MODEL}, load_errors=[(500, words)] * 2)

    async def scenario() -> None:
        async with a_life(server) as life:
            await life.until(lambda: "LoadFailed" in life.phases)
            assert life.said[-1].message == f"load of {MODEL}: {words}"
            assert not life.loader.ready
            await life.until(lambda: life.loader.ready)
            assert life.phases == ["loading", "LoadFailed", "ready"], "trying again is no news"

    run(scenario)


def test_a_model_that_was_unloaded_is_loaded_again() -> None:
    server = FakeOllama(manifests={MODEL}, blobs={MODEL})

    async def scenario() -> None:
        async with a_life(server) as life:
            await life.until(lambda: life.loader.ready)
            server.memory = set()
            await life.until(lambda: server.asked["/api/generate"] == 4 and life.loader.ready)
            assert life.phases == ["loading", "ready", "loading", "ready"]
            assert server.asked["/api/pull"] == 0

    run(scenario)


def test_ollama_may_come_late_and_go_away() -> None:
    server = FakeOllama(manifests={MODEL}, blobs={MODEL}, is_up=False)

    async def scenario() -> None:
        async with a_life(server) as life:
            await asyncio.sleep(0.05)
            assert (life.said, life.loader.ready) == ([], False)
            server.is_up = True
            await life.until(lambda: life.loader.ready)
            server.is_up = False
            await life.until(lambda: not life.loader.ready)
            server.is_up, server.memory = True, set()
            await life.until(lambda: life.loader.ready)

    run(scenario)
