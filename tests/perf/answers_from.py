"""What `answersFrom` saves: pairs of optimizers on one program, the second alone and after the first. Prints a table.

Run: python -m tests.perf.answers_from
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.integration.acceptance import revision_files
from tests.integration.harness import OPTIMIZERS, Case, workplace

PAIRS = (
    ("Evaluate", "BootstrapFewShot"),
    ("BootstrapFewShot", "MIPROv2"),
    ("BootstrapFewShot", "GEPA"),
    ("BootstrapFewShot", "COPRO"),
    ("MIPROv2", "BootstrapFewShotWithRandomSearch"),
    ("MIPROv2", "InferRules"),
    ("MIPROv2", "SIMBA"),
)
DEV, TEST = 80, 80


def requests(folder: Path, optimizer: str, *, after: str | None) -> tuple[int, dict[str, bytes]]:
    """Requests of one run, and the files of its revision."""
    with workplace(folder, Case(OPTIMIZERS[after or optimizer], dev=DEV, test=TEST)) as place:
        if after is not None:
            assert place.run().code == 0
            place.run_folder.rename(place.out / "first")
            place.change(optimizer=OPTIMIZERS[optimizer], run={"answersFrom": {"runs": ["first"]}})
        before = place.server.counts()["requests"]
        done = place.run()
        assert done.code == 0, done.stderr
        return place.server.counts()["requests"] - before, revision_files(place.run_folder)


def main() -> None:
    """Print the table of docs/concepts/optimizationrun.md."""
    for first, second in PAIRS:
        with tempfile.TemporaryDirectory() as folder:
            alone, files = requests(Path(folder) / "alone", second, after=None)
            saved, same = requests(Path(folder) / "after", second, after=first)
        assert files == same, (first, second)
        print(f"| {second}, after {first} | {alone} | {saved} | {1 - saved / alone:.0%} |", flush=True)


if __name__ == "__main__":
    main()
