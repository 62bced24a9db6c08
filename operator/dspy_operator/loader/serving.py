"""The life of a loader: until the model answers, pull it and load it; from then on look that it stays loaded."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import httpx

from dspy_operator.api.reasons import EndpointReason
from dspy_operator.contract.documents import LoadedModel, LoaderProgress
from dspy_operator.loader import failure
from dspy_operator.loader.download import Download
from dspy_operator.loader.failure import Failure
from dspy_operator.loader.ollama import Ollama, OllamaError, Stored, same_model

RECHECK_SECONDS = 30.0
"""Between two looks at what is loaded; one costs Ollama less than a millisecond."""
UP_SECONDS = 0.5
"""Between two looks for an Ollama that is starting; it takes 0.3 s."""
STALL_SECONDS = 300.0
"""Without a byte a pull is begun anew. Ollama itself retries a stalled part every 30 s, for ever, and calls it progress."""
LONGEST_BACKOFF_SECONDS = 60.0
"""So that a model that is pushed, or a registry that comes back, is found within a minute."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """The model, as the endpoint's spec says."""

    model: str
    """The name under which it is served."""
    registry: str | None = None
    """Host and port; None is Ollama's own."""
    insecure: bool = False

    @property
    def source(self) -> str:
        """The name under which it is pulled. Ollama keeps the registry in the name, so that one name means one content."""
        if self.registry is None:
            return self.model
        return f"{self.registry}/{self.model if '/' in self.model else f'library/{self.model}'}"


class Loader:
    """Makes one model answer on one Ollama, and keeps saying how far it is.

    Args:
        report: takes every new state; how often it is passed on is its own affair.
    """

    def __init__(
        self,
        wanted: Wanted,
        ollama: Ollama,
        report: Callable[[LoaderProgress], None],
        *,
        recheck_seconds: float = RECHECK_SECONDS,
        stall_seconds: float = STALL_SECONDS,
        longest_backoff_seconds: float = LONGEST_BACKOFF_SECONDS,
    ) -> None:
        self._wanted = wanted
        self._ollama = ollama
        self._report = report
        self._recheck = recheck_seconds
        self._stall = stall_seconds
        self._longest_backoff = longest_backoff_seconds
        self._reached = 0
        """Most bytes of the model that were ever here: a pull that passes it is getting on, whatever ends it."""
        self._failed = False
        """What is reported is a failure; it stays until something gets better."""
        self.ready = False
        """The model answers."""

    async def run(self) -> NoReturn:
        """Serve, for ever."""
        failures = 0
        while True:
            before = self._reached
            try:
                await self._wait_for_ollama()
                model = await self._serve()
            except Failure as problem:
                failures = 1 if self._reached > before else failures + 1
                if problem.reason != EndpointReason.PULL_FAILED or self._reached == before:
                    self._tell_failure(problem)
                log.warning("%s: %s; trying again", problem.reason, problem.message)
                # Full jitter: replicas that failed together should not come back together.
                await asyncio.sleep(random.uniform(0.0, min(self._longest_backoff, 2.0**failures)))
            except httpx.TransportError as error:
                log.warning("Ollama went away: %s: %s", type(error).__name__, error)
                await asyncio.sleep(UP_SECONDS)
            else:
                failures = 0
                await self._while_loaded(model)

    async def _wait_for_ollama(self) -> None:
        told = False
        while True:
            try:
                return await self._ollama.up()
            except (httpx.TransportError, OllamaError):
                if not told:
                    told = True
                    log.info("waiting for Ollama")
                await asyncio.sleep(UP_SECONDS)

    async def _serve(self) -> LoadedModel:
        """From whatever is on disk to an answer.

        Raises:
            Failure: with a reason.
        """
        name, source = self._wanted.model, self._wanted.source
        if not await self._on_disk():
            await self._pull()
        try:
            try:
                await self._load()
            except OllamaError as error:
                if error.status != httpx.codes.NOT_FOUND:
                    raise
                # The manifest is there, its files are not; only a load tells (/api/tags lists such a model).
                log.info("%s is listed, but not on disk: %s", source, error.words)
                await self._pull()
                await self._load()
            return await self._answering()
        except OllamaError as error:
            raise failure.of_load(name, error.words) from None

    async def _on_disk(self) -> bool:
        """As far as its manifest says. What cannot be shown is pulled: that mends a manifest, and names what is wrong."""
        try:
            return any(same_model(stored.name, self._wanted.source) for stored in await self._ollama.stored())
        except OllamaError as error:
            log.warning("the models on disk cannot be listed: %s", error.words)
            return False

    async def _pull(self) -> None:
        """Download; after a full disk once more without the models that this endpoint does not want any more.

        Raises:
            Failure: PullFailed, ModelNotFound or StorageFull.
        """
        try:
            await self._pull_once()
        except Failure as problem:
            if problem.reason != EndpointReason.STORAGE_FULL or not await self._make_room():
                raise
            await self._pull_once()
        self._failed = False

    async def _pull_once(self) -> None:
        source = self._wanted.source
        download = Download(time.monotonic())
        log.info("pulling %s", source)
        try:
            async for line in self._ollama.pull(source, insecure=self._wanted.insecure):
                now = time.monotonic()
                download.add(line, now)
                if line.digest and now - download.moved_at > self._stall and download.completed < download.total:
                    raise OllamaError(httpx.codes.OK, f"no byte from the registry for {self._stall:.0f} s")
                if download.completed > self._reached:
                    self._reached = download.completed
                    self._tell(download.progress())
                elif not self._failed and line.digest:
                    self._tell(download.progress())
        except OllamaError as error:
            raise failure.of_pull(source, error.words) from None

    async def _make_room(self) -> bool:
        """Remove other models: the volume is this endpoint's alone, and what it served before an edit is on it."""
        removed = False
        try:
            for model in await self._ollama.stored():
                if not any(same_model(model.name, kept) for kept in (self._wanted.model, self._wanted.source)):
                    log.info("removing %s to make room", model.name)
                    await self._ollama.delete(model.name)
                    removed = True
        except OllamaError as error:
            log.warning("no room can be made: %s", error.words)
        return removed

    async def _load(self) -> None:
        self._tell(LoaderProgress(phase="loading"))
        if self._wanted.source != self._wanted.model:
            await self._ollama.copy(self._wanted.source, self._wanted.model)
        await self._ollama.load(self._wanted.model)

    async def _answering(self) -> LoadedModel:
        """The loaded model, after a real answer: Ollama lists a model also when its runner was killed."""
        name = self._wanted.model
        await self._ollama.one_token(name)
        for loaded in await self._ollama.loaded():
            if same_model(loaded.name, name):
                stored = _named(await self._ollama.stored(), name)
                return LoadedModel(
                    name=name,
                    digest=f"sha256:{loaded.digest}" if loaded.digest else "",
                    size_bytes=stored.size if stored else 0,
                    context_length=loaded.context_length,
                    quantization=stored.details.quantization_level if stored else "",
                )
        raise OllamaError(httpx.codes.OK, "it answered, but is not in /api/ps")

    async def _while_loaded(self, model: LoadedModel) -> None:
        """Ready, until a look says otherwise: somebody unloaded it, or Ollama was killed and started anew."""
        self.ready = True
        self._tell(LoaderProgress(phase="ready", percent=100, model=model))
        log.info("%s answers", model.name)
        try:
            while True:
                await asyncio.sleep(self._recheck)
                if not any(same_model(loaded.name, model.name) for loaded in await self._ollama.loaded()):
                    log.warning("%s is not loaded any more", model.name)
                    return
        except (httpx.TransportError, OllamaError) as error:
            log.warning("Ollama does not answer: %s", error)
        finally:
            self.ready = False

    def _tell(self, progress: LoaderProgress) -> None:
        """Report something better than a failure."""
        if self._failed and progress.phase == "loading":
            return  # that it tries again is no news, until it worked
        self._failed = False
        self._report(progress)

    def _tell_failure(self, problem: Failure) -> None:
        self._failed = True
        self._report(LoaderProgress(phase="failed", reason=problem.reason.value, message=problem.message))


def _named(models: list[Stored], name: str) -> Stored | None:
    return next((model for model in models if same_model(model.name, name)), None)
