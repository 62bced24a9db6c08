"""The part of Ollama's HTTP API that a loader needs (0.34; docs/api.md of ollama/ollama), typed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict

QUICK_SECONDS = 10.0
"""For calls that only look: Ollama answers them within milliseconds, also while it pulls or loads."""
SLOW_SECONDS = 1800.0
"""For calls that load, or check a digest: a large model on a slow disk. Ollama itself gives up a load that stalls for 5 min."""


class OllamaError(Exception):
    """Ollama answered with an error; the words are its own."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.words = words


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class PullLine(_Answer):
    """One line of a pull's stream; about every 60 ms while bytes come."""

    status: str = ""
    digest: str = ""
    """Of the layer that `total` and `completed` are about."""
    total: int = 0
    completed: int = 0
    error: str = ""
    """Only in the last line. The HTTP status is 200 all the same."""


class Details(_Answer):
    """What kind of model it is."""

    quantization_level: str = ""


class Stored(_Answer):
    """A model on disk. That it is listed does not say that its files are there."""

    name: str
    size: int = 0
    """Bytes on disk."""
    details: Details = Details()


class Loaded(_Answer):
    """A model in memory. It stays listed when its runner was killed, until the next request."""

    name: str
    digest: str = ""
    """Of its manifest, in hex."""
    context_length: int = 0
    """Tokens, as it was loaded; the model's own limit may be another."""


class Ollama:
    """One server.

    Every method raises OllamaError where the server refuses, and httpx.TransportError where it is not there.
    """

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def up(self) -> None:
        """Return where the server answers."""
        await self._call("GET", "/api/version")

    async def stored(self) -> list[Stored]:
        """Models on disk."""
        return [Stored.model_validate(model) for model in (await self._call("GET", "/api/tags"))["models"] or ()]

    async def loaded(self) -> list[Loaded]:
        """Models in memory."""
        return [Loaded.model_validate(model) for model in (await self._call("GET", "/api/ps"))["models"] or ()]

    async def copy(self, source: str, destination: str) -> None:
        """Give a model a second name; no bytes are copied."""
        await self._call("POST", "/api/copy", {"source": source, "destination": destination})

    async def delete(self, model: str) -> None:
        """Remove a name, and the layers that no other name needs."""
        await self._call("DELETE", "/api/delete", {"model": model})

    async def load(self, model: str) -> None:
        """Read a model into memory, to stay there."""
        await self._call("POST", "/api/generate", {"model": model, "keep_alive": -1}, seconds=SLOW_SECONDS)

    async def one_token(self, model: str) -> None:
        """A real answer, as short as can be. The context is the server's default: another would load the model anew."""
        body = {"model": model, "prompt": "Hi", "stream": False, "keep_alive": -1, "options": {"num_predict": 1}}
        await self._call("POST", "/api/generate", body, seconds=SLOW_SECONDS)

    async def pull(self, model: str, *, insecure: bool) -> AsyncIterator[PullLine]:
        """Download what is not there yet; leaving the loop early ends the download, and what came stays for the next.

        Raises:
            OllamaError: also for an error in the stream's last line, with status 200.
        """
        body = {"model": model, "insecure": insecure}
        timeout = httpx.Timeout(QUICK_SECONDS, read=SLOW_SECONDS)
        async with self._client.stream("POST", "/api/pull", json=body, timeout=timeout) as answer:
            if answer.is_error:
                await answer.aread()
                raise _refused(answer)
            done = False
            async for text in answer.aiter_lines():
                line = PullLine.model_validate_json(text)
                if line.error:
                    raise OllamaError(answer.status_code, line.error)
                done = line.status == "success"
                yield line
        if not done:
            raise OllamaError(answer.status_code, "the pull's answer ended without success")

    async def _call(self, method: str, path: str, body: object = None, *, seconds: float = QUICK_SECONDS) -> Any:
        answer = await self._client.request(method, path, json=body, timeout=httpx.Timeout(QUICK_SECONDS, read=seconds))
        if answer.is_error:
            raise _refused(answer)
        return answer.json() if answer.content and method != "DELETE" else None


def _refused(answer: httpx.Response) -> OllamaError:
    try:
        words = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        words = answer.text or f"HTTP {answer.status_code}"
    return OllamaError(answer.status_code, str(words)[:1000])


def same_model(one: str, other: str) -> bool:
    """Whether two names mean one model, which Ollama lists by the shortest of them and compares without case."""
    return _whole(one) == _whole(other)


def _whole(name: str) -> str:
    name = name.lower().removeprefix("registry.ollama.ai/").removeprefix("library/")
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"
