"""Divides rows into dev (train and validation) and test, so that the same rows always land in the same parts.

A row's place is the SHA-256 of seed and row digest. Every part is ordered by it and never by the file: a file sorted by
label must not become a training set sorted by label, and sorting a file again must not look like new data.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dspy_operator.contract.canonical import dataset_digest, sha256_hex
from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.contract.runspec import SplitPart
from dspy_operator.runner.rows import Row

PARTS = (DEV, TRAIN, VALIDATION, TEST) = ("dev", "train", "validation", "test")

SMALL_ROWS = 150
"""Below this many rows a half is for the test: the gate needs 60 rows to see 10 points at its first look."""
MOST_TEST_ROWS = 200
"""More test rows than this see effects that matter to few; training needs them more."""


@dataclass(frozen=True)
class Parts:
    """A dataset, divided; dev is train and validation together."""

    dev: tuple[Row, ...]
    train: tuple[Row, ...]
    validation: tuple[Row, ...]
    test: tuple[Row, ...]
    digest: str
    """`dataset_digest` of all rows by place: moves with any row, part, seed or feedback, not with the order of the file."""
    test_digest: str
    """`dataset_digest` of the test rows by row digest: what looks at a test set are counted by."""


def split(rows: Sequence[Row], how: SplitPart) -> Parts:
    """Divide rows as the spec says.

    Hash: the rows with the smallest places are the test, `test_size` of them. Guarantee: k added rows move at most k
    others between dev and test (each moves the border by at most one row); but where they reach 150 rows, the test
    shrinks from a half to 40 %, and up to 15 more go from test to dev. A threshold per row, which would move none, was
    rejected: chance would then make a test of 51 rows where 60 were meant, and the gate could promote nothing.

    With groups the test is made of whole groups: by the place of their group, each that still fits; where none does, the
    smallest. With strata each stratum gives its share of the test (largest remainder: to within one row), and of train and
    validation its share of dev. With both, a group counts as its rows' most frequent value, and shares are as near as whole
    groups come. Groups stay whole between train and validation too.

    Column, Sources: as each row's `part` says; train and validation stay as given, dev is divided.

    Raises:
        RunFailed: InvalidDataset when the column says something else; SplitEmpty when a part has no row.
    """
    ordered = _by_place(rows, how.seed)
    part_of = _by_hash(ordered, how.seed) if how.type == "Hash" else _by_column(ordered)
    within = {part: tuple(row for row in ordered if part_of[row.digest] == part) for part in PARTS}
    explicit = bool(within[TRAIN] or within[VALIDATION])
    _check_sizes({part: len(within[part]) for part in ((TRAIN, VALIDATION, TEST) if explicit else (DEV, TEST))})
    if explicit:
        dev = tuple(row for row in ordered if part_of[row.digest] != TEST)
        train, validation = within[TRAIN], within[VALIDATION]
    else:
        dev = within[DEV]
        train, validation = divide(dev, how.seed)
    return Parts(
        dev=dev,
        train=train,
        validation=validation,
        test=within[TEST],
        digest=dataset_digest((row.digest, part_of[row.digest], row.beside) for row in ordered),
        test_digest=dataset_digest(sorted((row.digest, TEST) for row in within[TEST])),
    )


def divide(dev: Sequence[Row], seed: int) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """Dev as (train, validation), half and half by place, the odd row to train. A row more or less moves one other."""
    ordered = _by_place(dev, seed)
    train = _chosen(ordered, (len(ordered) + 1) // 2, seed)
    return (
        tuple(row for row in ordered if row.digest in train),
        tuple(row for row in ordered if row.digest not in train),
    )


def test_size(rows: int) -> int:
    """How many of so many rows are the test: a half (and the odd row) below 150, then 40 %, never more than 200."""
    if rows < SMALL_ROWS:
        return (rows + 1) // 2
    return min(MOST_TEST_ROWS, rows * 2 // 5)


def _by_place(rows: Iterable[Row], seed: int) -> tuple[Row, ...]:
    return tuple(sorted(rows, key=lambda row: _place(seed, row.digest)))


def _place(seed: int, digest: str) -> str:
    return sha256_hex(f"{seed}:{digest}".encode())


def _by_hash(ordered: Sequence[Row], seed: int) -> dict[str, str]:
    test = _chosen(ordered, test_size(len(ordered)), seed)
    return {row.digest: TEST if row.digest in test else DEV for row in ordered}


def _chosen(ordered: Sequence[Row], size: int, seed: int) -> frozenset[str]:
    """Digests of so many rows: the first by place, as far as groups and strata let them."""
    units = _units(ordered, seed)
    strata: defaultdict[str, list[Sequence[Row]]] = defaultdict(list)
    for unit in units:
        strata[_stratum(unit)].append(unit)
    left = _shares({name: sum(map(len, members)) for name, members in strata.items()}, size)
    chosen: list[Row] = []
    for name, members in strata.items():
        for unit in members:
            if len(unit) <= left[name]:
                left[name] -= len(unit)
                chosen.extend(unit)
    if not chosen and units:
        smallest: Sequence[Row] = min(units, key=len)
        chosen.extend(smallest)
    return frozenset(row.digest for row in chosen)


def _units(ordered: Sequence[Row], seed: int) -> Sequence[Sequence[Row]]:
    """What is not divided, by place: each row, or each group."""
    groups: defaultdict[str, list[Row]] = defaultdict(list)
    for row in ordered:
        if row.group is None:
            return [(row,) for row in ordered]
        groups[row.group].append(row)
    return [groups[name] for name in sorted(groups, key=lambda name: _place(seed, sha256_hex(name.encode())))]


def _stratum(unit: Sequence[Row]) -> str:
    """Its most frequent one, of equals the smallest."""
    counts = Counter(row.stratum or "" for row in unit)
    return min(counts, key=lambda name: (-counts[name], name))


def _shares(sizes: Mapping[str, int], size: int) -> dict[str, int]:
    """What each stratum gives to a part of so many rows: the largest remainders are rounded up, equal ones by name."""
    whole = sum(sizes.values())
    shares = {name: of * size // whole for name, of in sizes.items()}
    by_remainder = sorted(sizes, key=lambda name: (-(sizes[name] * size % whole), name))
    for name in by_remainder[: size - sum(shares.values())]:
        shares[name] += 1
    return shares


def _by_column(ordered: Sequence[Row]) -> dict[str, str]:
    by_line = sorted(ordered, key=lambda row: row.line)
    for row in by_line:
        if row.part not in PARTS:
            raise _refused(f'{row.place} says "{row.part}"')
    dev = next((row for row in by_line if row.part == DEV), None)
    halves = next((row for row in by_line if row.part in {TRAIN, VALIDATION}), None)
    if dev and halves:
        raise _refused(f'{dev.place} says "dev" and {halves.place} says "{halves.part}"')
    return {row.digest: str(row.part) for row in ordered}


def _refused(found: str) -> RunFailed:
    return RunFailed(
        Reason.INVALID_DATASET,
        f'{found} (allowed: "train", "validation" and "test", or "dev" and "test")',
        path="spec.dataset.split.column",
    )


def _check_sizes(sizes: dict[str, int]) -> None:
    empty = [part for part, size in sizes.items() if size == 0]
    if not empty:
        return
    counts = ", ".join(f"{part} {size}" for part, size in sizes.items())
    hint = ': a "dev" part is divided into train and validation' if {TRAIN, VALIDATION} & set(empty) else ""
    message = f"the split leaves no row for {' and '.join(empty)} ({counts}){hint}"
    raise RunFailed(Reason.SPLIT_EMPTY, message, path="spec.dataset.split")
