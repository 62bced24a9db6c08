"""What racing saves: the same runs with and without it on the counting server, and whether they end in the same candidate.

python -m tests.perf.racing [SEEDS]: a table in Markdown. Requests count everything: baseline, bootstraps, rules, judgement.
The server decides by hash whether a program is right on a row, so no row is hard for all programs: real tasks, where some are,
save more.

python -m tests.perf.racing RUN_FOLDER...: what it would have saved of finished runs without it, by their journals.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import dspy

from dspy_operator.runner.optimizers.racing import Race, RacingEvaluate
from tests.integration.harness import SKILL, Case, workplace

SETS = {
    "BootstrapFewShotWithRandomSearch": {"maxBootstrappedDemos": 3, "maxLabeledDemos": 3, "numCandidatePrograms": 16},
    "InferRules": {"maxBootstrappedDemos": 3, "maxLabeledDemos": 3, "numCandidates": 16, "numRules": 3},
}
LEVELS = {"weak": 0.4, "fair": 0.6, "good": 0.7}
"""How often the server's model is right without demonstrations."""


def run(optimizer: str, base: float, seed: int, *, racing: bool) -> tuple[str, int, int]:
    """Candidate, requests of the whole run, and rows that its evaluations asked."""
    member = optimizer[0].lower() + optimizer[1:]
    case = Case({"type": optimizer, member: {**SETS[optimizer], "racing": racing}}, dev=80, test=12, run={"seed": seed})
    server: dict[str, Any] = {"skill": {**SKILL, "base": base, "per_demo": 0.05, "max": 0.97}}
    with tempfile.TemporaryDirectory() as folder, workplace(Path(folder), case, stochastic=True, **server) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        marks = [line for line in place.journal() if line["kind"] == "mark" and line["mark"] == "evaluate"]
        asked = sum(len(mark["scores"]) for mark in marks)
        return str(done.result["candidate"]), int(place.server.counts()["requests"]), asked


def asked_with_racing(journal: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """Rows that the candidates of a run without racing were asked, and with it would have been.

    The first evaluation is not counted: it is the runner's own, of the baseline, and no candidate's.
    """
    marks = (entry for entry in journal if entry["kind"] == "mark" and entry["mark"] == "evaluate")
    table: list[Sequence[float]] = [mark["scores"] for mark in marks if mark["n"]]
    race, asked = Race(lambda *_, **__: None), 0
    for scores in table:
        rows = [dspy.Example(row=row).with_inputs("row") for row in range(len(scores))]
        evaluate = RacingEvaluate(race=race, devset=rows, num_threads=1)

        def metric(example: Any, _: Any, trace: Any = None, scores: Sequence[float] = scores) -> float:
            return scores[int(example.row)]

        asked += len(evaluate(lambda row: dspy.Prediction(row=row), metric=metric).results)
    return sum(map(len, table)), asked


def main() -> None:
    """Print the table."""
    if folders := [Path(name) for name in sys.argv[1:] if not name.isdigit()]:
        for folder in folders:
            journal = (json.loads(line) for line in (folder / "journal.jsonl").read_bytes().splitlines())
            asked, raced = asked_with_racing(journal)
            print(f"| {folder} | {asked} | {raced} | {100 * (1 - raced / asked):.0f} % |", flush=True)
        return
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
    print("| optimizer | model | same candidate | requests without, with | saved | evaluated rows saved |")
    print("|---|---|---|---|---|---|")
    for optimizer in SETS:
        for level, base in LEVELS.items():
            same, requests, rows = 0, [0, 0], [0, 0]
            for seed in seeds:
                ends = [run(optimizer, base, seed, racing=racing) for racing in (False, True)]
                same += ends[0][0] == ends[1][0]
                for place, (_, sent, asked) in enumerate(ends):
                    requests[place] += sent
                    rows[place] += asked
            saved = [f"{100 * (1 - fewer / most):.0f} %" for most, fewer in (requests, rows)]
            print(
                f"| {optimizer} | {level} | {same} of {len(seeds)} | {requests[0]}, {requests[1]} | {' | '.join(saved)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
