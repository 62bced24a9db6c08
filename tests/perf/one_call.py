"""One process that makes calls one after the other, by hand or through the Ledger, and says what they took. For benchmarks.py:

python -m tests.perf.one_call ledger|by-hand|no-cache FOLDER URL CALLS; the folder keeps the journal, or DSPy's cache: what is there is replayed.
"""

from __future__ import annotations

import cProfile
import io
import json
import os
import pstats
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

WARM_UP = 20
"""Calls before the clock starts: imports, connections, DSPy's own first time."""


def main() -> None:
    """Print a line of JSON."""
    how, folder, url, calls = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["DSPY_CACHEDIR"] = str(folder / "cache")
    import dspy

    program = dspy.Predict("text -> label")
    with _settings(how, folder, url) as close:
        _ask(program, range(WARM_UP))
        profile = cProfile.Profile() if os.environ.get("PROFILE") else None
        began, cpu = time.perf_counter(), time.process_time()
        if profile is not None:
            profile.enable()
        _ask(program, range(WARM_UP, WARM_UP + calls))
        if profile is not None:
            profile.disable()
        found = {"wall": time.perf_counter() - began, "cpu": time.process_time() - cpu, "calls": calls}
        close()
    print(json.dumps(found))
    if profile is not None:
        text = io.StringIO()
        pstats.Stats(profile, stream=text).sort_stats("cumulative").print_stats(40)
        print(text.getvalue(), file=sys.stderr)


def _ask(program: Any, numbers: range) -> None:
    for number in numbers:
        program(text=f"item{number:05d} thing")


class _settings(AbstractContextManager[Callable[[], None]]):
    """DSPy's settings, as a run has them or as a person would write them; gives what closes the journal."""

    def __init__(self, how: str, folder: Path, url: str) -> None:
        import dspy

        self._close: Callable[[], None] = lambda: None
        if how != "ledger":
            options = {"api_base": url, "api_key": "none", "temperature": 0.0, "max_tokens": 256}
            lm = dspy.LM("openai/fake", cache=how == "by-hand", **options)
            self._context = dspy.context(lm=lm)
            return
        from dspy_operator.contract.runspec import Control, Endpoint
        from dspy_operator.runner.journal import Journal
        from dspy_operator.runner.ledger import Ledger

        journal = Journal(folder / "journal.jsonl")
        self._close = journal.close
        endpoint = Endpoint(name="team/fake", type="OpenAI", url=url, model="fake")
        ledger = Ledger(journal, {"task": endpoint}, Control.model_validate({"budget": {"calls": 10**8}}), seed=0)
        self._context = dspy.context(
            lm=ledger.lm("task", ledger.open_epoch("optimize")),
            adapter=dspy.ChatAdapter(use_json_adapter_fallback=False),
            disable_history=True,
        )

    def __enter__(self) -> Callable[[], None]:
        self._context.__enter__()
        return self._close

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)


if __name__ == "__main__":
    main()
