"""The split: sizes, stability when rows come and go, and columns that name the parts."""

import itertools
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_operator.contract.canonical import dataset_digest, sha256_hex
from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.contract.runspec import SplitPart
from dspy_operator.runner.rows import Row
from dspy_operator.runner.split import divide, split
from dspy_operator.runner.split import test_size as size_of_test

HASH = SplitPart(type="Hash", seed=0)
COLUMN = SplitPart(type="Column", column="part")


def a_row(number: int, part: str | None = None) -> Row:
    return Row(line=number + 1, digest=sha256_hex(str(number).encode()), inputs={}, outputs={}, part=part)


def some_rows(count: int, first: int = 0) -> list[Row]:
    return [a_row(number) for number in range(first, first + count)]


def rows_in(**sizes: int) -> list[Row]:
    parts = [part for part, size in sizes.items() for _ in range(size)]
    return [a_row(number, part) for number, part in enumerate(parts)]


def digests(rows: Iterable[Row]) -> set[str]:
    return {row.digest for row in rows}


@pytest.mark.parametrize(
    ("rows", "want_dev", "want_test"),
    [
        pytest.param(2, 1, 1, id="two rows: one each"),
        pytest.param(119, 59, 60, id="the odd row is for the test: 119 rows give the gate its 60"),
        pytest.param(149, 74, 75, id="below 150 rows a half"),
        pytest.param(150, 90, 60, id="from 150 rows 40 %"),
        pytest.param(499, 300, 199, id="until"),
        pytest.param(500, 300, 200, id="the test has 200"),
        pytest.param(5000, 4800, 200, id="the rest is dev"),
    ],
)
def test_sizes_are_exact(rows: int, want_dev: int, want_test: int) -> None:
    parts = split(some_rows(rows), HASH)
    assert (len(parts.dev), len(parts.test)) == (want_dev, want_test)
    assert abs(len(parts.train) - len(parts.validation)) <= 1
    assert parts.train + parts.validation == parts.dev
    assert digests(parts.dev) | digests(parts.test) == digests(some_rows(rows))


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(2, 700), added=st.integers(1, 40), seed=st.integers(0, 5), first=st.integers(0, 10**6))
def test_k_added_rows_move_at_most_k_others_and_15_more_where_they_reach_150(
    rows: int, added: int, seed: int, first: int
) -> None:
    how = SplitPart(type="Hash", seed=seed)
    before, after = split(some_rows(rows, first), how), split(some_rows(rows + added, first), how)
    to_test = digests(before.dev) & digests(after.test)
    to_dev = digests(before.test) & digests(after.dev)
    reaches_150 = rows < 150 <= rows + added
    assert len(to_test) + len(to_dev) <= added + (15 if reaches_150 else 0)


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(2, 300), seed=st.integers(0, 3), random=st.randoms(use_true_random=False))
def test_the_order_of_the_file_does_not_count(rows: int, seed: int, random: object) -> None:
    how = SplitPart(type="Hash", seed=seed)
    shuffled = some_rows(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert split(shuffled, how) == split(some_rows(rows), how)


def test_a_file_sorted_by_label_gives_no_train_set_sorted_by_label() -> None:
    parts = split(some_rows(100), HASH)
    in_order = [row.line for row in parts.train]
    assert in_order != sorted(in_order)


def test_another_seed_is_another_split() -> None:
    rows = some_rows(200)
    first, second = split(rows, HASH), split(rows, SplitPart(type="Hash", seed=1))
    assert first.digest != second.digest
    assert first.test_digest != second.test_digest


def test_a_split_never_changes_between_releases() -> None:
    parts = split(some_rows(8), HASH)
    assert [row.line for row in parts.test] == [6, 5, 7, 3]
    assert [row.line for row in parts.train] == [4, 1]
    assert [row.line for row in parts.validation] == [8, 2]
    assert parts.digest == "v1:3adf0031ac281efad13b6ceca9c2db29036a738665e9d8c222a704a029fcd906"


def test_a_row_more_moves_one_row_between_train_and_validation_at_most() -> None:
    for size in range(1, 60):
        before, after = divide(some_rows(size), 0), divide(some_rows(size + 1), 0)
        moved = digests(before[0]) & digests(after[1]) | digests(before[1]) & digests(after[0])
        assert len(moved) <= 1


def test_the_test_digest_moves_with_the_test_rows_only() -> None:
    rows = rows_in(dev=4, test=3)
    first = split(rows, COLUMN)
    fewer_dev = split([row for row in rows if row.line != 1], COLUMN)
    fewer_test = split([row for row in rows if row.line != 7], COLUMN)
    assert fewer_dev.test_digest == first.test_digest != fewer_test.test_digest
    assert fewer_dev.digest != first.digest
    assert split(rows, SplitPart(type="Column", column="part", seed=5)).test_digest == first.test_digest


def test_the_digest_is_of_rows_and_parts() -> None:
    parts = split(rows_in(train=1, validation=1, test=1), COLUMN)
    pairs = [(row.digest, str(row.part)) for row in (*parts.dev, *parts.test)]
    assert parts.digest in {dataset_digest(order) for order in _orders(pairs)}


def test_a_column_that_says_train_and_validation_is_kept_as_it_is() -> None:
    parts = split(rows_in(train=5, validation=2, test=3), COLUMN)
    assert {row.part for row in parts.train} == {"train"}
    assert {row.part for row in parts.validation} == {"validation"}
    assert digests(parts.dev) == digests(parts.train) | digests(parts.validation)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (5, 2, 3)


def test_a_column_that_says_dev_has_it_divided() -> None:
    parts = split(rows_in(dev=7, test=3), COLUMN)
    assert (len(parts.dev), len(parts.train), len(parts.validation), len(parts.test)) == (7, 4, 3, 3)


@pytest.mark.parametrize(
    ("rows", "want"),
    [
        pytest.param(rows_in(dev=1, valid=1, test=1), 'line 2 says "valid"', id="another word"),
        pytest.param(rows_in(dev=1, test=1, Test=1), 'line 3 says "Test"', id="case counts"),
        pytest.param(
            rows_in(train=1, dev=1, test=1), 'line 2 says "dev" and line 1 says "train"', id="dev beside its own halves"
        ),
    ],
)
def test_a_column_that_says_something_else_is_refused(rows: list[Row], want: str) -> None:
    with pytest.raises(RunFailed) as failed:
        split(rows, COLUMN)
    assert (failed.value.reason, failed.value.path) == (Reason.INVALID_DATASET, "spec.dataset.split.column")
    assert failed.value.message == f'{want} (allowed: "train", "validation" and "test", or "dev" and "test")'


@pytest.mark.parametrize(
    ("rows", "how", "want"),
    [
        pytest.param(some_rows(1), HASH, "the split leaves no row for dev (dev 0, test 1)", id="one row"),
        pytest.param(rows_in(dev=3), COLUMN, "the split leaves no row for test (dev 3, test 0)", id="no test"),
        pytest.param(rows_in(test=3), COLUMN, "the split leaves no row for dev (dev 0, test 3)", id="only a test"),
        pytest.param(
            rows_in(train=3, test=2),
            COLUMN,
            "the split leaves no row for validation (train 3, validation 0, test 2): "
            'a "dev" part is divided into train and validation',
            id="train without validation",
        ),
    ],
)
def test_a_split_with_an_empty_part_tells_the_sizes(rows: list[Row], how: SplitPart, want: str) -> None:
    with pytest.raises(RunFailed) as failed:
        split(rows, how)
    assert (failed.value.reason, failed.value.path) == (Reason.SPLIT_EMPTY, "spec.dataset.split")
    assert failed.value.message == want


def test_the_test_grows_by_at_most_one_row_at_a_time_and_never_above_200() -> None:
    sizes = [size_of_test(rows) for rows in range(1, 2000)]
    steps = {after - before for before, after in itertools.pairwise(sizes)}
    assert steps == {0, 1, -15}
    assert max(sizes) == 200


def _orders(pairs: list[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    if len(pairs) < 2:
        return [pairs]
    return [[pair, *rest] for pair in pairs for rest in _orders([other for other in pairs if other != pair])]


def test_other_feedback_is_another_dataset_and_the_same_test_set() -> None:
    """It decides what GEPA reads; where a row lands, and how often the test rows were looked at, it does not."""
    rows = [a_row(number) for number in range(20)]
    silent, told, retold = (
        split([replace(row, feedback=words) for row in rows], SplitPart(type="Hash")) for words in (None, "a", "b")
    )
    assert len({silent.digest, told.digest, retold.digest}) == 3
    assert silent.test_digest == told.test_digest == retold.test_digest
    assert silent.digest == split(rows, SplitPart(type="Hash")).digest
