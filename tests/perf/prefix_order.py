"""What it could save to send the first request of a candidate alone and the others when a server has its prompt's beginning in its cache.

Nothing of it is built: this asks the journals of runs what a perfect prefix cache would have had to evaluate, as requests went
out, and what the least is that any order could come to. Characters stand for tokens.

Run: python -m tests.perf.prefix_order
"""

from __future__ import annotations

import json
import os.path
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.integration.harness import OPTIMIZERS, Case, workplace

CONCURRENCIES = (4, 8)
LATENCY_MS = 50


def prompt(request: Mapping[str, Any]) -> str:
    """All that the model reads, in its order."""
    return json.dumps([request.get("system"), request["messages"]], ensure_ascii=False)


class Cache:
    """Prompts that were evaluated; a new one is evaluated from where it differs from all of them."""

    def __init__(self) -> None:
        self._seen: list[str] = []

    def new(self, text: str) -> int:
        """Characters that have to be evaluated."""
        return len(text) - max((len(os.path.commonprefix([text, other])) for other in self._seen), default=0)  # noqa: RUF071  # by characters is what is meant

    def add(self, text: str) -> None:
        """It was evaluated."""
        self._seen.append(text)


def evaluated(journal: Iterable[Mapping[str, Any]]) -> tuple[int, int, int]:
    """Characters of all prompts; of those that a cache evaluates as they went out; and one after the other."""
    texts: dict[str, str] = {}
    whole = sent = alone = 0
    as_sent, in_turn = Cache(), Cache()
    for entry in journal:
        if entry["kind"] == "start" and entry["key"] not in texts:
            text = texts[entry["key"]] = prompt(entry["request"])
            whole += len(text)
            sent += as_sent.new(text)
            alone += in_turn.new(text)
            in_turn.add(text)
        elif entry["kind"] == "done":
            as_sent.add(texts[entry["key"]])
    return whole, sent, alone


def main() -> None:
    """Print a line for each optimizer and concurrency."""
    for optimizer, concurrency in ((name, many) for name in OPTIMIZERS for many in CONCURRENCIES):
        case = Case(OPTIMIZERS[optimizer], dev=80, test=80, concurrency=concurrency)
        with tempfile.TemporaryDirectory() as folder, workplace(Path(folder), case, latency_ms=LATENCY_MS) as place:
            done = place.run(timeout=600)
            assert done.code == 0, done.stderr
            whole, sent, alone = evaluated(place.journal())
        saved = 1 - alone / sent
        print(f"| {optimizer} | {concurrency} | {whole} | {sent} | {alone} | {saved:.0%} |", flush=True)


if __name__ == "__main__":
    main()
