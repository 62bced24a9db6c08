"""Counts every request and what became of it. The server's loop writes, any thread reads."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict


class CountsView(TypedDict):
    """The counts at one moment, as GET /_counts shows them."""

    requests: int
    """Chat completion requests that arrived in full."""
    by_status: dict[str, int]
    """What became of them: an HTTP status, or "dropped" (a fault), or "abandoned" (the client went away or the server
    stopped before there was an answer), or "crashed" (a bug of this server)."""
    by_fault: dict[str, int]
    by_model: dict[str, int]
    answered: int
    """Completions sent with 200 that are one: what a provider would charge for."""
    prompt_tokens: int
    completion_tokens: int
    in_flight: int
    highest_concurrency: int
    """The most requests in flight at once. Give `latency_ms` where it matters: quick answers hardly overlap."""
    held: int
    distinct_keys: int
    """Different canonical request bodies that arrived."""
    repeated_keys: int
    """Different canonical request bodies that were answered more than once."""
    keys: NotRequired[dict[str, int]]
    """Canonical request body's hash -> how often it was answered."""


class SeenRequest(TypedDict):
    """A request as it arrived."""

    ordinal: int
    time: float
    body: str


class Counts:
    """Thread-safe counts of one server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_flight = 0
        self._held = 0
        self._clear()

    def _clear(self) -> None:
        self._requests = 0
        self._by_status: Counter[str] = Counter()
        self._by_fault: Counter[str] = Counter()
        self._by_model: Counter[str] = Counter()
        self._answers_by_key: Counter[str] = Counter()
        self._prompt_tokens = 0
        self._completion_tokens = 0
        self._highest_concurrency = self._in_flight
        self._seen: deque[SeenRequest] = deque(maxlen=1000)

    def arrive(self, *, key: str, model: str, body: str, keep: int) -> int:
        """A request is here; returns its ordinal. `finish` has to follow."""
        with self._lock:
            self._requests += 1
            self._by_model[model] += 1
            self._answers_by_key.setdefault(key, 0)
            self._in_flight += 1
            self._highest_concurrency = max(self._highest_concurrency, self._in_flight)
            if self._seen.maxlen != keep:
                self._seen = deque(self._seen, maxlen=keep)
            self._seen.append({"ordinal": self._requests, "time": time.time(), "body": body})
            return self._requests

    def finish(self, outcome: str) -> None:
        """A request has its outcome: see `CountsView.by_status`."""
        with self._lock:
            self._in_flight -= 1
            self._by_status[outcome] += 1

    def answer(self, *, key: str, prompt_tokens: int, completion_tokens: int) -> None:
        """A completion is about to be sent."""
        with self._lock:
            self._answers_by_key[key] += 1
            self._prompt_tokens += prompt_tokens
            self._completion_tokens += completion_tokens

    def meet(self, fault: str) -> None:
        """A request has met a fault."""
        with self._lock:
            self._by_fault[fault] += 1

    def hold(self, change: int) -> None:
        """One request more, or less, is held."""
        with self._lock:
            self._held += change

    def reset(self) -> None:
        """Start again from nothing, ordinals included. What is in flight stays so, and its outcome counts anew."""
        with self._lock:
            self._clear()

    def view(self, *, keys: bool = False) -> CountsView:
        """The counts now; with `keys`, also how often each key was answered."""
        with self._lock:
            view: CountsView = {
                "requests": self._requests,
                "by_status": dict(sorted(self._by_status.items())),
                "by_fault": dict(sorted(self._by_fault.items())),
                "by_model": dict(sorted(self._by_model.items())),
                "answered": self._answers_by_key.total(),
                "prompt_tokens": self._prompt_tokens,
                "completion_tokens": self._completion_tokens,
                "in_flight": self._in_flight,
                "highest_concurrency": self._highest_concurrency,
                "held": self._held,
                "distinct_keys": len(self._answers_by_key),
                "repeated_keys": sum(times > 1 for times in self._answers_by_key.values()),
            }
            if keys:
                view["keys"] = dict(self._answers_by_key)
            return view

    def seen(self, last: int | None = None) -> list[SeenRequest]:
        """The last requests in the order of their arrival."""
        with self._lock:
            seen = list(self._seen)
        return seen if last is None else seen[max(len(seen) - last, 0) :]

    def save(self, path: Path) -> None:
        """Write the counts, keys included, to `path` in one step."""
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps(self.view(keys=True), indent=1))
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Continue from the counts that `save` wrote; a server that was restarted counts on."""
        saved: Mapping[str, Any] = json.loads(path.read_text())
        with self._lock:
            self._requests = saved["requests"]
            self._by_status = Counter(saved["by_status"])
            self._by_fault = Counter(saved["by_fault"])
            self._by_model = Counter(saved["by_model"])
            self._answers_by_key = Counter(saved["keys"])
            self._prompt_tokens = saved["prompt_tokens"]
            self._completion_tokens = saved["completion_tokens"]
            self._highest_concurrency = saved["highest_concurrency"]
