"""An Ollama that does what a test says, for the faults that a real one cannot be asked for. Its words are the real one's."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx

TOTAL = 1000


@dataclass
class FakeOllama:
    """One model in the registry, and a disk."""

    in_registry: set[str] = field(default_factory=set)
    manifests: set[str] = field(default_factory=set)
    """Names on disk."""
    blobs: set[str] = field(default_factory=set)
    """Names whose files are there too."""
    memory: set[str] = field(default_factory=set)
    is_up: bool = True
    pull_errors: list[str] = field(default_factory=list)
    """Last lines of the next pulls."""
    load_errors: list[tuple[int, str]] = field(default_factory=list)
    percents: tuple[int, ...] = (0, 50, 100)
    stalls_at: int | None = None
    asked: Counter[str] = field(default_factory=Counter)

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url="http://ollama", transport=httpx.MockTransport(self._answer))

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        if not self.is_up:
            raise httpx.ConnectError("connection refused", request=request)
        body = json.loads(request.content) if request.content else {}
        self.asked[request.url.path] += 1
        match request.url.path:
            case "/api/version":
                return httpx.Response(200, json={"version": "0.34.2"})
            case "/api/tags":
                return httpx.Response(200, json={"models": [self._stored(name) for name in sorted(self.manifests)]})
            case "/api/ps":
                return httpx.Response(200, json={"models": [self._stored(name) for name in sorted(self.memory)]})
            case "/api/copy":
                self.manifests.add(body["destination"])
                if body["source"] in self.blobs:
                    self.blobs.add(body["destination"])
                return httpx.Response(200)
            case "/api/delete":
                self.manifests.discard(body["model"])
                return httpx.Response(200)
            case "/api/pull":
                return httpx.Response(200, content=self._pull(body["model"]))
            case "/api/generate":
                return self._generate(body)
        return httpx.Response(404, text="404 page not found")

    def _stored(self, name: str) -> dict[str, Any]:
        details = {"quantization_level": "Q4_K_M"}
        return {"name": name, "digest": "ab" * 32, "size": TOTAL, "context_length": 4096, "details": details}

    async def _pull(self, model: str) -> AsyncIterator[bytes]:
        def line(**fields: Any) -> bytes:
            return json.dumps(fields).encode() + b"\n"

        yield line(status="pulling manifest")
        if model not in self.in_registry:
            yield line(error="pull model manifest: file does not exist")
            return
        error = self.pull_errors.pop(0) if self.pull_errors else ""
        for percent in self.percents:
            yield line(status="pulling aa", digest="sha256:aa", total=TOTAL, completed=TOTAL * percent // 100)
            while percent == self.stalls_at:
                yield line(status="pulling aa", digest="sha256:aa", total=TOTAL, completed=TOTAL * percent // 100)
        if error:
            yield line(error=error)
            return
        self.manifests.add(model)
        self.blobs.add(model)
        yield line(status="success")

    def _generate(self, body: dict[str, Any]) -> httpx.Response:
        model = body["model"]
        if model not in self.blobs:
            return httpx.Response(404, json={"error": f'model "{model}" not found, try pulling it first'})
        if self.load_errors:
            status, words = self.load_errors.pop(0)
            return httpx.Response(status, json={"error": words})
        self.memory = {model if ":" in model else f"{model}:latest"}
        return httpx.Response(200, json={"done": True, "response": "Hi"})
