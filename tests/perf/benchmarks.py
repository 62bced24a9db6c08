"""Our runs against the same work by hand: plain DSPy scripts (by_hand/) on the same rows, seed and counting server.

    python -m tests.perf.benchmarks [runs] [kill] [memory] [calls] [replay] [profile] [imports] [images] [model] [--seeds N]

Prints tables in Markdown; docs/benchmarks.md has those of one day. Calls and tokens are the server's own counts and exact. Of
time, processor seconds (user and system, of the whole process) are told beside the wall's: the machine may be busy, so what is compared runs
in pairs, in turns, in one go. `model` asks a real model in place of the counting server, some four minutes a run, and is not among those
that run when none is named. The scripts run with DSPy's disk cache on, as it is by default where diskcache is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspy_operator.cli.intervals import of_mean
from e2e.cluster import own_images
from e2e.cluster.command import Failed
from e2e.localmodel.serve import local_model
from e2e.localmodel.weights import ModelName
from tests.counting_server import CountingServer
from tests.integration.harness import OPTIMIZERS, SKILL, Case
from tests.perf.counted import Counted, counted
from tests.perf.real_model import TASKS

BY_HAND = Path(__file__).with_name("by_hand")
SCRIPTS = {
    "BootstrapFewShotWithRandomSearch": "run_random_search",
    "MIPROv2": "run_mipro_v2",
    "GEPA": "run_gepa",
    "COPRO": "run_copro",
}
DISK_CACHE = "diskcache==5.6.3"
AS_PIP_INSTALLS = "dspy[optuna]==3.4.1"
"""What a person would install for MIPROv2, with all that it asks for; we leave out what DSPy never imports."""
PARTS = (20, 20, 100)
"""Rows of train, validation and test."""
REVIEWS = (20, 20, 60)
"""The same, where a real model answers."""


@dataclass(frozen=True)
class Took:
    """What a process took."""

    code: int
    output: str
    cpu: float
    wall: float
    rss: int
    """MiB at the most."""


@dataclass
class DividedCase(Case):
    """A case whose rows say which of three parts they are of."""

    parts: Sequence[int] = PARTS
    number: int = 0
    """Another number, other rows: what the server's model likes is decided by a hash of them, and has to average out."""

    def rows(self) -> list[dict[str, str]]:
        """As of Case, in three parts."""
        names = [
            name for name, count in zip(("train", "validation", "test"), self.parts, strict=True) for _ in range(count)
        ]
        return [
            {"text": f"item{self.number:03d}{number:05d} thing", "label": ("negative", "positive")[number % 2], "part": name}
            for number, name in enumerate(names)
        ]  # fmt: skip


class ReviewsCase(DividedCase):
    """The film reviews of examples/sentiment; which are to train and which to validate on, the number draws."""

    def rows(self) -> list[dict[str, str]]:
        """As of Case, in three parts."""
        found = TASKS["sentiment"].rows()
        dev, test = ([row for row in found if row["part"] == part] for part in ("dev", "test"))
        random.Random(self.number).shuffle(dev)
        train, validation, held_out = self.parts
        divided = {"train": dev[:train], "validation": dev[train : train + validation], "test": test[:held_out]}
        return [
            {"text": row["text"], "label": row["sentiment"], "part": part}
            for part, rows in divided.items()
            for row in rows
        ]


def main() -> None:
    """Print the tables that were asked for."""
    tables: dict[str, Callable[[int], None]] = {
        "runs": runs, "kill": kill, "memory": memory, "calls": calls, "replay": replay, "profile": profile,
        "imports": imports, "images": images, "model": model,
    }  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "tables", nargs="*", choices=[*tables, []], default=[name for name in tables if name != "model"]
    )
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    for name in options.tables:
        print(f"\n### {name}\n", flush=True)
        tables[name](options.seeds)


# --- whole runs -------------------------------------------------------------------------------------------------------


def runs(seeds: int) -> None:
    """Calls, tokens, time and the held-out score of each optimizer; in pairs, in turns."""
    _head(
        "optimizer",
        "calls by hand, ours",
        "ratio",
        "prompt tokens",
        "held-out score by hand, ours",
        "wall",
        "processor",
    )
    for optimizer in SCRIPTS:
        found: dict[str, list[Any]] = {"hand": [], "ours": []}
        for seed in range(1, seeds + 1):
            for who in ("hand", "ours") if seed % 2 else ("ours", "hand"):
                with placed(optimizer, seed) as (place, server):
                    took = finished(place.start(who), place)
                    found[who].append((server.counts(), took, place.scores(who, took)[1]))
        hand, ours = found["hand"], found["ours"]
        sent = [sum(each[0]["requests"] for each in of) for of in (hand, ours)]
        tokens = [sum(each[0]["prompt_tokens"] for each in of) for of in (hand, ours)]
        scores = [statistics.mean(each[2] for each in of) for of in (hand, ours)]
        gains = [b[2] - a[2] for a, b in zip(hand, ours, strict=True)]
        error = statistics.stdev(gains) / len(gains) ** 0.5
        wall = statistics.median(b[1].wall / a[1].wall for a, b in zip(hand, ours, strict=True))
        cpu = statistics.median(b[1].cpu / a[1].cpu for a, b in zip(hand, ours, strict=True))
        _row(
            optimizer, f"{sent[0] / seeds:.0f}, {sent[1] / seeds:.0f}", f"{sent[1] / sent[0]:.2f}",
            f"{tokens[1] / tokens[0]:.2f}", f"{scores[0]:.1f}, {scores[1]:.1f}",
            f"{statistics.mean(gains):+.1f} ± {2 * error:.1f}",
            f"{wall:.2f}", f"{cpu:.2f}",
        )  # fmt: skip


def kill(seeds: int) -> None:
    """What is paid again when a run is killed half-way and started once more."""
    _head(
        "optimizer",
        "calls without a kill by hand, ours",
        "again: by hand, its disk kept",
        "by hand, in a new pod",
        "ours",
    )
    for optimizer in SCRIPTS:
        whole: dict[str, int] = {}
        again: dict[str, list[int]] = {"kept": [], "new": [], "ours": []}
        for seed in range(1, seeds + 1):
            for who in ("hand", "ours"):
                with placed(optimizer, seed) as (place, server):
                    finished(place.start(who), place)
                    whole[who] = int(server.counts()["requests"])
            for how in again:
                who = "ours" if how == "ours" else "hand"
                with placed(optimizer, seed) as (place, server):
                    process = place.start(who)
                    half = whole[who] // 2
                    server.wait_until(lambda view, half=half: view["requests"] >= half, deadline_seconds=300)  # type: ignore[misc]
                    process.kill()
                    _ended(process)
                    if how == "new":
                        shutil.rmtree(place.folder / "cache")
                    finished(place.start(who, resume=True), place)
                    again[how].append(int(server.counts()["requests"]) - whole[who])
        _row(
            optimizer, f"{whole['hand']}, {whole['ours']}",
            *(f"{statistics.mean(each):.0f} ({min(each)} to {max(each)})" for each in again.values()),
        )  # fmt: skip


def memory(_: int) -> None:
    """The most that a process has held after 10,000 calls of an evaluation; and when all of them come from the journal."""
    _head("", "calls", "MiB at the most", "processor, ms a call")
    for who in ("hand", "ours"):
        with placed("Evaluate", 1, parts=(10, 10, 10_000), latency=0) as (place, server):
            took = finished(place.start(who), place)
            sent = int(server.counts()["requests"])
            _row("by hand" if who == "hand" else "ours", sent, took.rss, f"{1000 * took.cpu / sent:.1f}")
            if who == "ours":
                took = finished(place.start("verify"), place)
                assert int(server.counts()["requests"]) == sent
                _row("ours, verified", 0, took.rss, f"{1000 * took.cpu / sent:.1f}")


def model(seeds: int) -> None:
    """Film reviews and a real model: the script as it stands, which asks once more in JSON where an answer cannot be read, and ours, which does not."""
    _head("seed", "who", "calls", "prompt tokens", "computed anew", "minutes", "held out, before", "held out, after")
    with local_model(ModelName.QWEN) as served:
        for seed in range(1, seeds + 1):
            for who in ("hand", "ours") if seed % 2 else ("ours", "hand"):
                with _placed_reviews(seed, served.url) as (place, door):
                    took = finished(place.start(who), place)
                    passed = door.counts()
                    before, after = place.scores(who, took)
                _row(
                    seed, "by hand" if who == "hand" else "ours", passed["requests"], f"{passed['prompt_tokens']:,}",
                    f"{passed['evaluated']:,}", f"{took.wall / 60:.1f}", _with_interval(before), _with_interval(after),
                )  # fmt: skip


def _with_interval(percent: float) -> str:
    """95 % over the rows."""
    right = round(percent * REVIEWS[2] / 100)
    low, high = of_mean([1.0] * right + [0.0] * (REVIEWS[2] - right))
    return f"{percent:.1f} ({low:.0f} to {high:.0f})"


# --- one call after the other -----------------------------------------------------------------------------------------


def calls(seeds: int) -> None:
    """What a call costs beyond the 50 ms in which it is answered: one thread, in turns."""
    found = _one_call(seeds, latency=50, number=200)
    bare = found["no-cache"][0]
    _head("", "wall, ms a call", "processor, ms a call", "processor beyond plain DSPy without a cache, of 50 ms")
    for how, name in (("no-cache", "plain DSPy, no cache"), ("by-hand", "DSPy's disk cache"), ("ledger", "the Ledger")):
        cpu, wall = found[how]
        _row(name, f"{wall:.1f}", f"{cpu:.2f}", f"{100 * (cpu - bare) / 50:.1f} %")


def replay(seeds: int) -> None:
    """How fast what was paid for comes back: every call of the program answered from the disk."""
    found = _one_call(seeds, latency=0, number=2000, replayed=True)
    _head("", "calls a second, wall", "calls a second of processor")
    for how, name in (("by-hand", "DSPy's disk cache"), ("ledger", "the Ledger")):
        cpu, wall = found[how]
        _row(name, f"{1000 / wall:,.0f}", f"{1000 / cpu:,.0f}")


def profile(_: int) -> None:
    """Where a replayed call's time goes: 2,000 of them, by the functions that take the most themselves."""
    with CountingServer() as server, tempfile.TemporaryDirectory() as scratch:
        command = [*_python("tests.perf.one_call"), "ledger", f"{scratch}/ledger", server.url, "2000"]
        subprocess.run(command, capture_output=True, env=_environment(), check=True)
        done = subprocess.run(
            command, capture_output=True, text=True, env=_environment() | {"PROFILE": "1"}, check=True
        )
    print(done.stderr)


def _one_call(seeds: int, *, latency: int, number: int, replayed: bool = False) -> Mapping[str, tuple[float, float]]:
    """How -> median (processor, wall) in milliseconds a call."""
    ways = ("by-hand", "ledger") if replayed else ("no-cache", "by-hand", "ledger")
    found: dict[str, list[tuple[float, float]]] = {how: [] for how in ways}
    with CountingServer({"latency_ms": latency}) as server, tempfile.TemporaryDirectory() as scratch:
        for seed in range(seeds):
            for how in ways if seed % 2 else ways[::-1]:
                command = [*_python("tests.perf.one_call"), how, f"{scratch}/{how}-{seed}", server.url, str(number)]
                for _ in range(1 + replayed):
                    done = subprocess.run(command, capture_output=True, text=True, env=_environment(), check=True)
                told = json.loads(done.stdout.splitlines()[-1])
                found[how].append((1000 * told["cpu"] / number, 1000 * told["wall"] / number))
        sent = server.counts()["requests"]
        assert sent == len(ways) * seeds * (number + 20), f"{sent} requests: something was asked again, or not at all"
    return {
        how: (statistics.median(each[0] for each in of), statistics.median(each[1] for each in of))
        for how, of in found.items()
    }


def imports(seeds: int) -> None:
    """Processor seconds of an interpreter that imports it and ends."""
    modules = {
        "dspy": "dspy",
        "the runner": "dspy_operator.runner.flow",
        "the runner with MIPROv2": "dspy_operator.runner.flow, optuna",
    }
    by_hand = _environment() | {"PYTHONPATH": str(_installed("by-hand-dspy", AS_PIP_INSTALLS))}
    found: dict[str, list[float]] = {name: [] for name in modules}
    for _ in range(seeds):
        for name, module in modules.items():
            process = subprocess.Popen([sys.executable, "-c", f"import {module}"], env=_environment())
            found[name].append(_ended(process).cpu)
        for name, module in (("by hand: dspy", "dspy"), ("by hand: dspy with MIPROv2", "dspy, optuna")):
            process = subprocess.Popen([sys.executable, "-S", "-c", f"import {module}"], env=by_hand)
            found.setdefault(name, []).append(_ended(process).cpu)
    _head("import", "processor seconds, least")
    for name, each in found.items():
        _row(name, f"{min(each):.2f}")


def images(_: int) -> None:
    """Megabytes over a base with Python: of our images what `make images` has built, by hand what pip installs of DSPy."""
    _head("", "MB over the base")
    try:
        for image, megabytes in own_images.weights().items():
            _row(image.name, f"{megabytes:.0f}")
    except (Failed, ValueError, OSError) as missing:
        _row("ours", f"not built here: make images ({missing})")
    folder = _installed("by-hand-dspy", AS_PIP_INSTALLS)
    size = sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir())
    _row(f"by hand: {AS_PIP_INSTALLS}, compiled as pip does", f"{size / 1e6:.0f}")


# --- the work ---------------------------------------------------------------------------------------------------------


@dataclass
class Place:
    """One piece of work, by hand or ours, in a folder of its own."""

    folder: Path
    optimizer: str
    seed: int
    case: DividedCase
    url: str

    def start(self, who: str, *, resume: bool = False) -> subprocess.Popen[str]:
        """The process; `resume` is what each needs to go on."""
        if who == "hand":
            script = BY_HAND / f"{SCRIPTS.get(self.optimizer, 'run_evaluate')}.py"
            command = [
                sys.executable,
                str(script),
                str(self.folder / "rows"),
                self.url,
                str(self.seed),
                str(self.folder / "o.json"),
            ]
        elif who == "verify":
            command = [*_python("dspy_operator.cli.main"), "verify", str(self.folder / "out" / "run")]
        else:
            command = [
                *_python("dspy_operator.cli.main"),
                "run",
                str(self.folder / "manifests"),
                "--endpoint",
                f"fake={self.url}",
            ]
            command += ["-o", str(self.folder / "out"), "--json", *(["--resume"] if resume else [])]
        environment = _environment() | {"DSPY_CACHEDIR": str(self.folder / "cache")}
        with (self.folder / "stderr").open("w") as log:
            return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)

    def scores(self, who: str, took: Took) -> tuple[float, float]:
        """Of the first program and the compiled one on the test rows, in percent."""
        if who == "hand":
            told = json.loads(took.output.splitlines()[-1])
            return float(told["before"]), float(told["after"])
        found = json.loads((self.folder / "out" / "run" / "result.json").read_bytes())["scores"]
        return float(found["baseline"]["score"]), float(found.get("candidate", found["baseline"])["score"])


@contextlib.contextmanager
def placed(
    optimizer: str, seed: int, *, parts: Sequence[int] = PARTS, latency: int = 20
) -> Iterator[tuple[Place, CountingServer]]:
    case = DividedCase(
        OPTIMIZERS[optimizer],
        parts=parts,
        number=seed,
        budget={"calls": 20_000},
        run={"seed": seed},
        concurrency=8,
        timeout="60s",
    )
    with _written(case) as folder, CountingServer(case.script(skill=SKILL, latency_ms=latency)) as server:
        yield Place(folder, optimizer, seed, case, server.url), server


@contextlib.contextmanager
def _placed_reviews(seed: int, url: str) -> Iterator[tuple[Place, Counted]]:
    optimizer = "BootstrapFewShotWithRandomSearch"
    case = ReviewsCase(
        OPTIMIZERS[optimizer], parts=REVIEWS, number=seed, budget={"calls": 5000}, run={"seed": seed}, timeout="10m"
    )
    with _written(case) as folder, counted(url) as door:
        yield Place(folder, optimizer, seed, case, door.url), door


@contextlib.contextmanager
def _written(case: DividedCase) -> Iterator[Path]:
    """A folder with the manifests, and the same rows as files for a script."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        folder = Path(scratch)
        case.write(folder / "manifests")
        (folder / "rows").mkdir()
        for name in ("train", "validation", "test"):
            of_part = [{"text": row["text"], "label": row["label"]} for row in case.rows() if row["part"] == name]
            (folder / "rows" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in of_part))
        yield folder


def finished(process: subprocess.Popen[str], place: Place) -> Took:
    took = _ended(process)
    if took.code != 0:
        raise SystemExit(
            f"{process.args!r} ended with {took.code}:\n{(place.folder / 'stderr').read_text()[-3000:]}\n{took.output[-2000:]}"
        )
    return took


def _ended(process: subprocess.Popen[Any]) -> Took:
    """Wait, with the kernel's own figures of the process."""
    output: list[str] = []
    reader = threading.Thread(target=lambda: output.append(process.stdout.read() if process.stdout else ""))
    began = time.perf_counter()
    reader.start()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    reader.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.stdout:
        process.stdout.close()
    return Took(process.returncode, output[0], usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss // 1024)


def _python(module: str) -> list[str]:
    return [sys.executable, "-m", module]


def _environment() -> dict[str, str]:
    """With diskcache, which our own environment leaves out: without it DSPy's cache is in memory alone."""
    folder, root = _installed("by-hand", DISK_CACHE), Path(__file__).parents[2]
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{root}", "PYTHONHASHSEED": "0", "TQDM_DISABLE": "1"}


def _installed(name: str, requirement: str) -> Path:
    """A folder of the cache with a requirement and all that it asks for, installed where it is missing."""
    folder = Path(os.environ.get("DSPY_OPERATOR_CACHE") or Path.home() / ".cache" / "dspy-operator") / name
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
        # Not in the project's folder: its overrides keep diskcache and litellm out.
        command = ["uv", "pip", "install", "--quiet", "--no-config", "--compile-bytecode", "--python", sys.executable]
        subprocess.run([*command, "--target", str(work), requirement], check=True, cwd=tempfile.gettempdir())
        with contextlib.suppress(OSError):  # another process was faster
            work.rename(folder)
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _head(*columns: str) -> None:
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)


def _row(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
