"""What `pacing: Adaptive` saves where a server answers 429: requests of the Ledger with it and without.

python -m tests.perf.pace [SEEDS]: a table in Markdown. 16 threads make 150 calls of a server that takes so many at once, or within a
second, and answers 429 to the others. A 429 is a request, and so a call of `budget.calls`; no provider asks money for it.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dspy import lm15

from dspy_operator.contract.runspec import Control, Endpoint
from dspy_operator.runner.journal import Journal
from dspy_operator.runner.ledger import Ledger
from tests.counting_server import CountingServer

THREADS, CALLS = 16, 150
SERVERS: tuple[dict[str, Any], ...] = (
    {"most_at_once": 8},
    {"most_at_once": 4},
    {"most_at_once": 2},
    {"most_per_second": 10},
    {},
)
LATENCIES_MS = (50, 500)


def measured(script: dict[str, Any], seed: int, *, pacing: str) -> tuple[int, float]:
    """Requests until all calls are answered, and seconds."""
    with CountingServer(script) as server, tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.jsonl")
        endpoint = Endpoint(name="team/fake", type="OpenAI", url=server.url, model="fake")
        control = Control.model_validate({"budget": {"calls": 10**6}, "concurrency": THREADS, "pacing": pacing})
        ledger = Ledger(journal, {"task": endpoint}, control, seed=seed)
        ledger._jitter = random.Random(seed)
        lm = ledger.lm("task", ledger.open_epoch("optimize"))

        def ask(number: int) -> None:
            message = {"role": "user", "content": f"item {seed} {number}"}
            request = {"model": lm.model, "messages": [message], "temperature": 0.0, "max_tokens": 64}
            lm.engine.complete(lm15.request_from_openai_chat(request))

        began = time.monotonic()
        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(ask, range(CALLS)))
        seconds = time.monotonic() - began
        journal.close()
        assert server.counts()["answered"] == CALLS
        return server.counts()["requests"], seconds


def main() -> None:
    """Print the table of docs/decisions/021."""
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
    print("| the server takes | an answer after | requests, Fixed | requests, Adaptive | saved | seconds, both |")
    print("|---|---|---|---|---|---|")
    for server in SERVERS:
        for latency in LATENCIES_MS:
            found: dict[str, list[tuple[int, float]]] = {"Fixed": [], "Adaptive": []}
            for seed in seeds:
                for pacing in ("Fixed", "Adaptive") if seed % 2 else ("Adaptive", "Fixed"):
                    found[pacing].append(measured({**server, "latency_ms": latency}, seed, pacing=pacing))
            fixed, adaptive = ([each[0] for each in found[pacing]] for pacing in ("Fixed", "Adaptive"))
            saved = 100 * (1 - sum(adaptive) / sum(fixed))
            seconds = ", ".join(f"{statistics.mean(each[1] for each in of):.1f}" for of in found.values())
            print(
                f"| {_limit(server)} | {latency} ms | {_range(fixed)} | {_range(adaptive)} | {saved:.0f} % | {seconds} |",
                flush=True,
            )


def _limit(server: dict[str, Any]) -> str:
    told = [f"{number} {name.removeprefix('most_').replace('_', ' ')}" for name, number in server.items()]
    return " ".join(told) or "all"


def _range(of: Sequence[int]) -> str:
    return f"{statistics.mean(of):.0f} ({min(of)} to {max(of)})"


if __name__ == "__main__":
    main()
