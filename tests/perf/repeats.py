"""What repeats do where the model samples: to p, to what passes, to the choice between the programs that lead.

    PYTHONPATH=operator python -m tests.perf.repeats [--server]

prints the tables of docs/results.md. The first two are simulated: a program answers row i rightly with a probability of its
own, anew each time. `--server` adds the third, real runs against the counting server with temperature 0.7.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dspy_operator.contract.gate import alpha_at, judge, mcnemar
from dspy_operator.contract.runspec import Gate

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

ALPHA_1 = alpha_at(0.05, 1)
GATE = Gate()
REPEATS = (1, 2, 3, 5, 8)
SERIES = 20_000
CHECKED = 20
"""Series of each cell that the gate itself judges, too."""


def main(*, server: bool) -> None:
    """Print the tables."""
    print(f"p of the gate, {SERIES} series a cell; passes: p <= {ALPHA_1:.4f}")
    for line in gate_table():
        print(line)
    print("\nchoice between 12 programs, 4,000 series a line")
    for line in choice_table():
        print(line)
    if server:
        print("\ncounting server, LabeledFewShot, temperature 0.7, 40 test rows, 10 seeds")
        for line in server_table():
            print(line)


# --- the gate -----------------------------------------------------------------------------------------------------------


def gate_table() -> Iterator[str]:
    """Share of series that pass, and the median p, by rows, true gain and repeats."""
    for rows in (60, 160):
        for name, gain in (("same program", 0.0), ("as good", None), ("+5", 5.0), ("+10", 10.0)):
            cells = []
            for repeats in REPEATS:
                p = simulated(rows=rows, gain=gain, repeats=repeats, series=SERIES, seed=repeats)
                cells.append(f"{100 * np.mean(p <= ALPHA_1):5.1f} % ({np.median(p):.3f})")
            yield f"| {rows} | {name} | " + " | ".join(cells) + " |"


def simulated(*, rows: int, gain: float | None, repeats: int, series: int, seed: int) -> Floats:
    """The gate's p of each series.

    Half of the rows are nearly certain one way or the other, the rest are not: Beta(0.6, 0.4), a mean of 60.

    Args:
        gain: true points, taken from what is wrong; None: another program, as good, with chances of its own.
    """
    random = np.random.default_rng(seed)
    theirs = random.beta(0.6, 0.4, size=(series, rows))
    ours = random.beta(0.6, 0.4, size=(series, rows)) if gain is None else theirs + gain / 40 * (1 - theirs)
    ours_right = random.binomial(repeats, ours)
    theirs_right = random.binomial(repeats, theirs)
    found = np.array([p_of(each, repeats) for each in ours_right - theirs_right])
    for number in range(CHECKED):
        mine, other = ((right[number] / repeats).tolist() for right in (ours_right, theirs_right))
        assert abs(judge(mine, other, GATE, 0).p - found[number]) < 0.005, "p of the gate"
    return found


def p_of(differences: Counts, repeats: int) -> float:
    """The exact sign-flip test of differences in units of 1 / repeats; McNemar's where there is one."""
    if repeats == 1:
        return mcnemar(won=int((differences > 0).sum()), lost=int((differences < 0).sum()))
    sums = np.ones(1)
    for size, count in enumerate(np.bincount(np.abs(differences), minlength=repeats + 1)[1:], start=1):
        for_size = np.zeros(2 * size * count + 1)
        for_size[:: 2 * size] = _binomial(int(count))
        sums = np.convolve(sums, for_size)
    return float(sums[len(sums) // 2 + int(differences.sum()) :].sum())


_BINOMIALS: dict[int, Floats] = {}


def _binomial(count: int) -> Floats:
    if count not in _BINOMIALS:
        ways = np.ones(1)
        for _ in range(count):
            ways = np.convolve(ways, [0.5, 0.5])
        _BINOMIALS[count] = ways
    return _BINOMIALS[count]


# --- the choice ---------------------------------------------------------------------------------------------------------


def choice_table() -> Iterator[str]:
    """True score of what is chosen over that of a random one, and what dev says too much, by rows and fresh answers."""
    for rows in (24, 100):
        for fresh in (0, 1, 3, 5):
            gained, promised = chosen(rows=rows, fresh=fresh, series=4_000)
            yield f"| {rows} | {fresh or 'none'} | {3 * rows * fresh} | {gained:+.2f} | {promised:+.2f} |"


def chosen(*, rows: int, fresh: int, series: int) -> tuple[float, float]:
    """(points of the chosen one over the mean of all, points that its score promised too much).

    Twelve programs, true scores some 4 points apart (one standard deviation); of each, one answer to each row is known. The
    three best are asked `fresh` times more, and what that says decides; 0: the best stays.
    """
    random = np.random.default_rng(rows + fresh)
    gains, excess = [], []
    for _ in range(series):
        level = random.normal(0, 0.25, size=(12, 1))
        chance = 1 / (
            1 + np.exp(-(random.normal(0.5, 1.5, size=rows) + level + random.normal(0, 0.5, size=(12, rows))))
        )
        truth = _TRUTH(level[:, 0])
        once = (random.random(chance.shape) < chance).mean(axis=1)
        best = np.argsort(-once, kind="stable")[: 3 if fresh else 1]
        said = random.binomial(fresh, chance[best]).mean(axis=1) / fresh if fresh else once[best]
        winner = int(np.argmax(said))
        gains.append(truth[best[winner]] - truth.mean())
        excess.append(said[winner] - truth[best[winner]])
    return 100 * statistics.fmean(gains), 100 * statistics.fmean(excess)


def _truth() -> np.vectorize:
    """Level of a program -> its score over all rows there could be."""
    draws = np.random.default_rng(0).normal(0.5, (1.5**2 + 0.5**2) ** 0.5, size=50_000)
    levels = np.linspace(-1.5, 1.5, 61)
    scores = [(1 / (1 + np.exp(-(draws + level)))).mean() for level in levels]
    return np.vectorize(lambda level: np.interp(level, levels, scores))


_TRUTH = _truth()


# --- real runs ----------------------------------------------------------------------------------------------------------


def server_table() -> Iterator[str]:
    """What the same comparison comes to in real runs, by repeats."""
    from tests.integration.harness import Case, workplace

    for repeats in (1, 3, 5):
        found = []
        for seed in range(10):
            case = Case(
                {"type": "LabeledFewShot", "labeledFewShot": {"k": 4}},
                dev=16,
                test=40,
                run={"repeats": repeats, "seed": seed},
                program={"target": {"request": {"temperature": "0.7"}}},
            )
            with tempfile.TemporaryDirectory() as folder, workplace(Path(folder), case, stochastic=True) as place:
                done = place.run(timeout=300)
                assert done.code == 0, done.stderr
                found.append((done.result["gate"], done.result["usage"]["calls"]))
        gains = [gate["delta"] for gate, _ in found]
        passed = sum(gate["p"] <= gate["alpha"] for gate, _ in found)
        yield (
            f"| {repeats} | {found[0][1]} | {statistics.fmean(gains):+.1f} | {statistics.stdev(gains):.1f} | "
            f"{statistics.median(gate['p'] for gate, _ in found):.4f} | {passed} of {len(found)} |"
        )


if __name__ == "__main__":
    main(server="--server" in sys.argv[1:])
