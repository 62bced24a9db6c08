"""The split: sizes, stability when rows come and go, and columns that name the parts."""

import itertools
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_operator.contract.canonical import dataset_digest, sha256_hex
from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.contract.runspec import RowsFile, SplitPart
from dspy_operator.runner.rows import Row
from dspy_operator.runner.split import Parts, divide, split
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


# --- groups and strata ----------------------------------------------------------------------------------------------

A_LABELLED_ROW = st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("xyz"))
GROUPED = SplitPart(type="Hash", group_by="customer")
STRATIFIED = SplitPart(type="Hash", stratify_by="label")
BOTH = SplitPart(type="Hash", group_by="customer", stratify_by="label")


def labelled(pairs: Iterable[tuple[str, str]], *, groups: bool = True, strata: bool = True) -> list[Row]:
    return [
        replace(a_row(number), group=group if groups else None, stratum=stratum if strata else None)
        for number, (group, stratum) in enumerate(pairs)
    ]


def or_empty(rows: list[Row], how: SplitPart) -> Parts | None:
    try:
        return split(rows, how)
    except RunFailed as failed:
        assert failed.reason is Reason.SPLIT_EMPTY
        return None


@settings(max_examples=200, deadline=None)
@given(pairs=st.lists(A_LABELLED_ROW, min_size=1, max_size=300), strata=st.booleans(), seed=st.integers(0, 3))
def test_no_group_is_ever_divided(pairs: list[tuple[str, str]], strata: bool, seed: int) -> None:
    rows = labelled(pairs, strata=strata)
    parts = or_empty(rows, (BOTH if strata else GROUPED).model_copy(update={"seed": seed}))
    if parts is None:
        assert len({row.group for row in rows}) == 1
        return
    assert digests(parts.dev) | digests(parts.test) == digests(rows)
    assert parts.dev and parts.test
    of_each = [{row.group for row in part} for part in (parts.train, parts.validation, parts.test)]
    for one, other in itertools.combinations(of_each, 2):
        assert not one & other


@settings(max_examples=200, deadline=None)
@given(pairs=st.lists(A_LABELLED_ROW, min_size=2, max_size=600), seed=st.integers(0, 3))
def test_each_stratum_gives_its_share_to_within_one_row(pairs: list[tuple[str, str]], seed: int) -> None:
    rows = labelled(pairs, groups=False)
    parts = split(rows, STRATIFIED.model_copy(update={"seed": seed}))
    assert len(parts.test) == size_of_test(len(rows))
    assert 0 <= len(parts.train) - len(parts.validation) <= 1
    for part, whole in ((parts.test, rows), (parts.train, parts.dev), (parts.validation, parts.dev)):
        for stratum in "xyz":
            found = sum(row.stratum == stratum for row in part)
            share = sum(row.stratum == stratum for row in whole) * len(part) / len(whole)
            assert abs(found - share) < 1


@settings(max_examples=50, deadline=None)
@given(
    pairs=st.lists(A_LABELLED_ROW, min_size=20, max_size=120),
    random=st.randoms(use_true_random=False),
    how=st.sampled_from([GROUPED, STRATIFIED, BOTH]),
)
def test_nor_does_the_order_of_the_file_count_with_groups_and_strata(
    pairs: list[tuple[str, str]], random: object, how: SplitPart
) -> None:
    rows = labelled(pairs, groups=how.group_by is not None, strata=how.stratify_by is not None)
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert or_empty(shuffled, how) == or_empty(rows, how)


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(2, 400), seed=st.integers(0, 3))
def test_groups_of_one_row_are_no_groups_and_one_stratum_is_none(rows: int, seed: int) -> None:
    how = SplitPart(type="Hash", seed=seed)
    plain = split(some_rows(rows), how)
    alike = split([replace(row, stratum="x") for row in some_rows(rows)], how)
    assert (digests(alike.test), digests(alike.train)) == (digests(plain.test), digests(plain.train))
    single = split([replace(row, group=str(row.line)) for row in some_rows(rows)], how)
    assert (len(single.test), len(single.train)) == (len(plain.test), len(plain.train))


@pytest.mark.parametrize(
    ("sizes", "want_test"),
    [
        pytest.param([50, 50], {50}, id="two halves"),
        pytest.param([60, 40], {40}, id="the one that fits in a half"),
        pytest.param([34, 34, 34], {34}, id="a second one would be more than a half"),
        pytest.param([1] * 90 + [60], {60}, id="a large group takes what there is, or the small ones do"),
        pytest.param([300] * 10, {300}, id="none fits: one of the smallest, not none"),
        pytest.param([400, 300, 500], {300}, id="none fits: the smallest"),
    ],
)
def test_sizes_are_as_near_as_whole_groups_come(sizes: list[int], want_test: set[int]) -> None:
    pairs = [(str(group), "x") for group, size in enumerate(sizes) for _ in range(size)]
    assert len(split(labelled(pairs, strata=False), GROUPED).test) in want_test


def test_a_large_group_takes_no_part_whole() -> None:
    pairs = [("big", "x")] * 80 + [(f"small{number}", "x") for number in range(20)]
    parts = split(labelled(pairs, strata=False), GROUPED)
    assert {row.group for row in parts.dev} >= {"big"}
    assert len(parts.test) == 20


def test_one_group_cannot_be_divided() -> None:
    with pytest.raises(RunFailed) as failed:
        split(labelled([("a", "x")] * 100, strata=False), GROUPED)
    assert failed.value.message == "the split leaves no row for dev (dev 0, test 100)"


def test_a_grouped_and_a_stratified_split_never_change_between_releases() -> None:
    pairs = [("abc"[number % 3], "xy"[number % 4 == 0]) for number in range(12)]
    assert [row.line for row in split(labelled(pairs, strata=False), GROUPED).test] == [10, 7, 4, 1]
    assert [row.line for row in split(labelled(pairs, groups=False), STRATIFIED).test] == [9, 10, 6, 7, 11, 12]


def test_parts_with_sources_of_their_own_stay_as_they_are() -> None:
    how = SplitPart(type="Sources", test=RowsFile(path="test.jsonl"))
    parts = split(rows_in(dev=7, test=3), how)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (4, 3, 3)
    parts = split(rows_in(train=5, validation=1, test=3), how)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (5, 1, 3)
    assert parts.digest == split(rows_in(train=5, validation=1, test=3), COLUMN).digest
