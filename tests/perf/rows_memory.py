"""What reading and dividing 100,000 rows takes in memory and time, by format. By hand:

    python -m tests.perf.rows_memory [ROWS]

Each line is a process of its own, whose peak is the kernel's own figure (ru_maxrss). A row has a text of 100 characters and a
label, both mapped, and a column of 2,000 characters that nobody maps: what is held must not grow with it.
"""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

OTHER_CHARACTERS = 2000
PROBE = """
import json, resource, sys, time
from dspy_operator.api.signature_types import parse_type
from dspy_operator.contract.runspec import DatasetPart, SplitPart
from dspy_operator.runner.rows import read_rows
from dspy_operator.runner.split import split

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

path, format_, limit, how = sys.argv[1], sys.argv[2], int(sys.argv[3]) or None, json.loads(sys.argv[4])
types = {"text": parse_type("str"), "label": parse_type('Literal["a", "b"]')}
before, started = peak(), time.perf_counter()
part = DatasetPart(path=path, format=format_, limit=limit, split=SplitPart.model_validate(how))
rows = read_rows(part, inputs=["text"], outputs=["label"], coerce=lambda name, value: types[name].coerce(value))
parts = split(rows.rows, part.split)
print(json.dumps({"rows": len(rows.rows), "test": len(parts.test), "digest": parts.digest, "before": before,
                  "peak": peak(), "seconds": time.perf_counter() - started}))
"""


def rows(count: int, other: int = OTHER_CHARACTERS) -> Iterator[dict[str, str]]:
    """Made-up rows, no two alike."""
    for number in range(count):
        text = f"ticket {number:06d} ".ljust(100, "x")
        yield {"text": text, "label": "ab"[number % 2], "customer": str(number // 7), "other": f"{number}".ljust(other)}


def write(path: Path, format_: str, count: int, other: int = OTHER_CHARACTERS) -> Path:
    """A file of them; in gzip where its name ends so."""
    opened: Callable[..., IO[str]] = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        if format_ == "CSV":
            writer = csv.DictWriter(file, ["text", "label", "customer", "other"])
            writer.writeheader()
            writer.writerows(rows(count, other))
        else:
            for number, row in enumerate(rows(count, other)):
                before = {"JSONL": "", "JSON": "," if number else "["}[format_]
                file.write(f"{before}{json.dumps(row)}\n")
            file.write("]" if format_ == "JSON" else "")
    return path


def measured(path: Path, format_: str, *, limit: int = 0, split: dict[str, str] | None = None) -> dict[str, float]:
    """One process: MiB before and at its peak, seconds."""
    command = [
        sys.executable,
        "-c",
        PROBE,
        str(path),
        format_,
        str(limit),
        json.dumps({"type": "Hash", **(split or {})}),
    ]
    found: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    return found


def main(count: int) -> None:
    both = {"groupBy": "customer", "stratifyBy": "label"}
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'':24} {'file MiB':>9} {'kept':>8} {'MiB more':>9} {'seconds':>8}")
        for format_, suffix in (("JSONL", ""), ("JSON", ""), ("CSV", ""), ("JSONL", ".gz")):
            path = write(Path(folder, f"data{suffix}"), format_, count)
            size = path.stat().st_size / 1024**2
            for limit, split in ((0, None), (1000, None), (0, both)):
                found = measured(path, format_, limit=limit, split=split)
                name = f"{format_}{suffix}{', grouped' if split else ''}{f', limit {limit}' if limit else ''}"
                more = found["peak"] - found["before"]
                print(f"{name:24} {size:9.0f} {found['rows']:8.0f} {more:9.0f} {found['seconds']:8.1f}", flush=True)
            path.unlink()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
