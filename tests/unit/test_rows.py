"""Reading rows: what is a row, what is dropped and why, and what stops the run."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from dspy_operator.contract.canonical import row_digest
from dspy_operator.contract.exits import Exit, Reason, RunFailed
from dspy_operator.contract.runspec import DatasetPart, RowsFile, SplitPart
from dspy_operator.runner.rows import Dropped, Rows, read_rows

HASH = SplitPart(type="Hash")
COLUMN = SplitPart(type="Column", column="part")


def coerce(field: str, value: object) -> object:
    """Stands for the type grammar: `ticket` and `label` are texts, `count` is a number or null."""
    if field == "count":
        if value is not None and not isinstance(value, (int, float)):
            raise ValueError(f"expected int, got {json.dumps(value)}")
        return value
    if not isinstance(value, str):
        raise ValueError(f"expected str, got {json.dumps(value)}")
    return value


class ADataset:
    """Builds a data.jsonl and reads it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._options: dict[str, Any] = {"split": HASH}
        self._outputs = ["label"]
        self._feedback_column: str | None = None
        self._content = b""

    def of(self, *rows: object) -> "ADataset":
        return self.written("".join(f"{json.dumps(row)}\n" for row in rows).encode())

    def written(self, content: bytes) -> "ADataset":
        self._content = content
        return self

    def with_(self, **options: Any) -> "ADataset":
        self._options |= options
        return self

    def with_outputs(self, *names: str) -> "ADataset":
        self._outputs = list(names)
        return self

    def with_feedback(self, column: str) -> "ADataset":
        self._feedback_column = column
        return self

    def read(self) -> Rows:
        path = self._folder / "data.jsonl"
        path.write_bytes(self._content)
        return read_rows(
            DatasetPart(path=str(path), **self._options),
            inputs=["ticket"],
            outputs=self._outputs,
            coerce=coerce,
            feedback_column=self._feedback_column,
        )


@pytest.fixture
def dataset(tmp_path: Path) -> ADataset:
    return ADataset(tmp_path)


def a_row(ticket: str = "no invoice", label: str = "billing", **more: object) -> dict[str, object]:
    return {"ticket": ticket, "label": label, **more}


def lines(rows: Rows) -> list[int]:
    return [row.line for row in rows.rows]


def test_a_row_has_typed_inputs_and_outputs_its_line_and_its_digest(dataset: ADataset) -> None:
    rows = dataset.of({"text": "no invoice", "label": "billing", "id": 7}).with_(fields={"ticket": "text"}).read()
    (row,) = rows.rows
    assert (row.line, row.inputs, row.outputs, row.part) == (1, {"ticket": "no invoice"}, {"label": "billing"}, None)
    assert row.digest == row_digest({"ticket": "no invoice", "label": "billing"})
    assert rows.columns == ("text", "label", "id")
    assert rows.dropped_message() is None


@pytest.mark.parametrize(
    ("content", "want_lines"),
    [
        pytest.param(b'\xef\xbb\xbf{"ticket":"a","label":"b"}\n', [1], id="a byte order mark is no mistake"),
        pytest.param(b'{"ticket":"a","label":"b"}\r\n{"ticket":"c","label":"b"}\r\n', [1, 2], id="nor is CRLF"),
        pytest.param(b'\n  \n{"ticket":"a","label":"b"}\n\r\n', [3], id="empty lines are ignored, and counted"),
        pytest.param(b'{"ticket":"a","label":"b"}', [1], id="the last line needs no end"),
        pytest.param('{"ticket":"a\u2028b","label":"c"}\n'.encode(), [1], id="U+2028 ends no line"),
    ],
)
def test_harmless_bytes(dataset: ADataset, content: bytes, want_lines: list[int]) -> None:
    rows = dataset.written(content).read()
    assert (lines(rows), rows.dropped) == (want_lines, ())


@pytest.mark.parametrize(
    ("line", "why"),
    [
        pytest.param(b"a,b", 'not JSON: Expecting value at character 1, found "a,b"', id="CSV"),
        pytest.param(
            b'{"ticket": "a", "label": "x"},',
            'not JSON: Extra data at character 30, found ","',
            id="a comma at its end",
        ),
        pytest.param(b'{"ticket": "a", "label"', "not JSON: Expecting ':' delimiter at character 24", id="cut off"),
        pytest.param(b"[1, 2]", "not a JSON object", id="a list"),
        pytest.param(b'{"ticket": "a"}', 'column "label" is missing', id="a column is missing"),
        pytest.param(b'{"ticket": "a", "label": null}', 'column "label": expected str, got null', id="a null text"),
        pytest.param(b'{"ticket": "a", "label": 3}', 'column "label": expected str, got 3', id="another type"),
        pytest.param(b'{"ticket": "\xff", "label": "b"}', "not UTF-8 at byte 13", id="not UTF-8"),
        pytest.param(b'{"ticket": "a", "label": NaN}', "not JSON: NaN is no JSON number", id="NaN is no JSON"),
        pytest.param(b"[" * 100_000, "nested too deeply", id="nesting that would overflow the stack"),
        pytest.param(b'{"ticket": "a", "x": ' + b"9" * 5000 + b"}", "Exceeds the limit", id="a number of 5000 digits"),
        pytest.param(b'{"ticket": "\\ud800", "label": "b"}', "surrogates not allowed", id="a lone surrogate"),
        pytest.param(b'{"label": "billing", "ticket": "no invoice"}', "duplicate of line 1", id="an earlier row again"),
    ],
)
def test_a_bad_line_is_dropped_with_its_number_and_why(dataset: ADataset, line: bytes, why: str) -> None:
    rows = dataset.written(json.dumps(a_row()).encode() + b"\n" + line + b"\n").read()
    assert lines(rows) == [1]
    (dropped,) = rows.dropped
    assert dropped.line == 2
    assert why in dropped.why


def test_the_type_decides_whether_null_is_a_value(dataset: ADataset) -> None:
    rows = dataset.of(a_row(count=None), a_row(count="three")).with_outputs("label", "count").read()
    assert rows.rows[0].outputs["count"] is None
    assert rows.dropped == (Dropped(2, 'column "count": expected int, got "three"'),)


def test_a_float_that_json_cannot_hold_is_dropped(dataset: ADataset) -> None:
    content = b'{"ticket":"a","label":"b","count":1e999}\n{"ticket":"a","label":"b","count":0.5}\n'
    rows = dataset.written(content).with_outputs("label", "count").read()
    assert (lines(rows), rows.dropped[0].why) == ([2], "inf is not a number that JSON can hold")


def test_dropped_rows_are_told_in_one_sentence_with_the_first_five(dataset: ADataset) -> None:
    rows = dataset.of(a_row(), *[[number] for number in range(7)]).read()
    message = rows.dropped_message()
    assert message is not None
    assert message.startswith("7 rows dropped: line 2: not a JSON object; line 3: ")
    assert message.endswith("line 6: not a JSON object; and 2 more")


def test_a_reason_quotes_no_more_than_200_characters_of_a_row(dataset: ADataset) -> None:
    rows = dataset.of(a_row(), {"ticket": "a", "label": ["x" * 5000]}).read()
    assert len(rows.dropped[0].why) == 200


@pytest.mark.parametrize(
    ("rows", "options", "want_path", "want_message"),
    [
        pytest.param(
            [{"text": "a", "tag": "b"}] * 2,
            {"fields": {"ticket": "text", "label": "category"}},
            "spec.dataset.fields.label",
            'column "category" is not in data.jsonl (columns: text, tag)',
            id="a mapped column is in no row",
        ),
        pytest.param(
            [{"ticket": "a", "tag": "b"}],
            {},
            "spec.dataset.fields.label",
            'column "label" is not in data.jsonl (columns: ticket, tag)',
            id="a field's own column is in no row",
        ),
        pytest.param(
            [a_row()],
            {"fields": {"lable": "label"}},
            "spec.dataset.fields.lable",
            '"lable" is no field of the signature (inputs: ticket; outputs: label)',
            id="a mapping for no field",
        ),
        pytest.param(
            [a_row()],
            {"split": COLUMN},
            "spec.dataset.split.column",
            'column "part" is not in data.jsonl (columns: ticket, label)',
            id="the column of the split is in no row",
        ),
        pytest.param(
            [{"ticket": "a", "label": 1}, {"ticket": "a", "label": 2}],
            {},
            "spec.dataset",
            'no row of data.jsonl can be used; line 1: column "label": expected str, got 1',
            id="no line is a row",
        ),
        pytest.param([], {}, "spec.dataset", "no row of data.jsonl can be used", id="an empty file"),
        pytest.param(
            [a_row(part="dev"), a_row("other", part="dev"), a_row(part="test")],
            {"split": COLUMN},
            "spec.dataset.split.column",
            'line 1 in "dev" and line 3 in "test" are the same row',
            id="one row stands in two parts",
        ),
    ],
)
def test_an_unusable_dataset_says_where_and_what_was_found(
    dataset: ADataset, rows: Iterable[object], options: dict[str, Any], want_path: str, want_message: str
) -> None:
    with pytest.raises(RunFailed) as failed:
        dataset.of(*rows).with_(**options).read()
    error = failed.value
    assert (error.reason, error.path, error.message) == (Reason.INVALID_DATASET, want_path, want_message)
    assert error.exit is Exit.INVALID_DATASET


def test_the_columns_of_a_wide_file_are_not_all_named(dataset: ADataset) -> None:
    with pytest.raises(RunFailed) as failed:
        dataset.of({f"c{number}": 1 for number in range(1000)}).read()
    assert failed.value.message.endswith("c18, c19, ...)")


def test_a_file_that_is_not_there_is_named_with_what_is(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").touch()
    (tmp_path / "..data").mkdir()
    part = DatasetPart(path=str(tmp_path / "data.jsonl"), split=HASH)
    with pytest.raises(RunFailed) as failed:
        read_rows(part, inputs=["ticket"], outputs=["label"], coerce=coerce)
    error = failed.value
    assert (error.reason, error.path) == (Reason.DATASET_NOT_FOUND, "spec.dataset.source")
    assert error.message == "data.jsonl does not exist (there is: rows.jsonl)"


@pytest.mark.parametrize(
    ("name", "want"),
    [
        pytest.param("absent/data.jsonl", "data.jsonl does not exist", id="nor is its folder"),
        pytest.param("file/data.jsonl", "data.jsonl does not exist", id="its folder is a file"),
        pytest.param("folder", "folder cannot be read: Is a directory", id="it is a folder"),
    ],
)
def test_other_ways_not_to_be_a_file(tmp_path: Path, name: str, want: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunFailed) as failed:
        read_rows(DatasetPart(path=str(tmp_path / name), split=HASH), inputs=["a"], outputs=["b"], coerce=coerce)
    assert (failed.value.reason, failed.value.message) == (Reason.DATASET_NOT_FOUND, want)


@pytest.mark.parametrize(
    ("name", "want"),
    [
        pytest.param(
            "2025/b.jsonl", "2025/b.jsonl does not exist (there is: a.jsonl)", id="another file of its folder"
        ),
        pytest.param("2026/a.jsonl", "2026/a.jsonl does not exist (on the volume there is: 2025)", id="no such folder"),
        pytest.param("2025/x/y/a.jsonl", "2025/x/y/a.jsonl does not exist (in 2025 there is: a.jsonl)", id="deeper"),
        pytest.param("b.jsonl", "b.jsonl does not exist (there is: 2025)", id="at its root"),
    ],
)
def test_a_file_of_a_volume_is_named_as_it_is_written_with_what_there_is(tmp_path: Path, name: str, want: str) -> None:
    (tmp_path / "2025").mkdir()
    (tmp_path / "2025" / "a.jsonl").touch()
    part = DatasetPart(path=str(tmp_path / name), root=str(tmp_path), split=HASH)
    with pytest.raises(RunFailed) as failed:
        read_rows(part, inputs=["a"], outputs=["b"], coerce=coerce)
    assert (failed.value.reason, failed.value.message) == (Reason.DATASET_NOT_FOUND, want)


def test_the_part_is_read_and_a_repetition_within_it_is_dropped(dataset: ADataset) -> None:
    rows = dataset.of(a_row(part="dev"), a_row(part="dev"), a_row("b", part="test"), a_row("c", part=1))
    read = rows.with_(split=COLUMN).read()
    assert [(row.line, row.part) for row in read.rows] == [(1, "dev"), (3, "test")]
    assert read.dropped == (
        Dropped(2, "duplicate of line 1"),
        Dropped(4, 'column "part": a part is a text, not 1'),
    )


def test_the_checksum_is_held_against_the_file(dataset: ADataset) -> None:
    content = json.dumps(a_row()).encode()
    right = hashlib.sha256(content).hexdigest()
    assert lines(dataset.written(content).with_(sha256=right.upper()).read()) == [1]
    with pytest.raises(RunFailed) as failed:
        dataset.with_(sha256="0" * 64).read()
    assert failed.value.message == f"data.jsonl has SHA-256 {right}, wanted {'0' * 64}"


def test_limit_keeps_the_smallest_digests_in_the_order_of_the_file(dataset: ADataset) -> None:
    many = [a_row(f"ticket {number}") for number in range(50)]
    every = dataset.of(*many).read().rows
    kept = dataset.with_(limit=10).read().rows
    assert sorted(row.digest for row in kept) == sorted(row.digest for row in every)[:10]
    assert [row.line for row in kept] == sorted(row.line for row in kept)
    backwards = dataset.of(*reversed(many)).read().rows
    assert {row.digest for row in backwards} == {row.digest for row in kept}


def test_a_hundred_thousand_rows_are_each_looked_at_once(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(f'{{"ticket": "{number}", "label": "a"}}\n' for number in range(100_000)))
    looked_at = 0

    def counting(field: str, value: object) -> object:
        nonlocal looked_at
        looked_at += 1
        return value

    part = DatasetPart(path=str(path), split=HASH, limit=1000)
    rows = read_rows(part, inputs=["ticket"], outputs=["label"], coerce=counting)
    assert (looked_at, len(rows.rows)) == (200_000, 1000)


# --- rows that are divided by a column, and parts with sources of their own --------------------------------------------


def test_groups_and_strata_are_read_as_texts_whatever_the_format(dataset: ADataset) -> None:
    how = SplitPart(type="Hash", group_by="customer", stratify_by="label")
    rows = dataset.of(a_row(customer=7), a_row("b", customer="7"), a_row("c", "bug", customer=True)).with_(split=how)
    assert [(row.group, row.stratum) for row in rows.read().rows] == [
        ("7", "billing"),
        ("7", "billing"),
        ("true", "bug"),
    ]


def test_a_row_without_a_group_is_dropped(dataset: ADataset) -> None:
    how = SplitPart(type="Hash", group_by="customer")
    rows = dataset.of(a_row(customer="a"), a_row("b", customer=None), a_row("c")).with_(split=how).read()
    assert rows.dropped == (
        Dropped(2, 'column "customer" is null, and rows are divided by it'),
        Dropped(3, 'column "customer" is missing'),
    )


@pytest.mark.parametrize("field", ["groupBy", "stratifyBy"])
def test_a_column_to_divide_by_that_no_row_has_is_named(dataset: ADataset, field: str) -> None:
    how = SplitPart.model_validate({"type": "Hash", field: "customer"})
    with pytest.raises(RunFailed) as failed:
        dataset.of(a_row()).with_(split=how).read()
    assert failed.value.path == f"spec.dataset.split.hash.{field}"
    assert failed.value.message == 'column "customer" is not in data.jsonl (columns: ticket, label)'


def sources(folder: Path, **parts: list[dict[str, object]]) -> SplitPart:
    files = {}
    for part, rows in parts.items():
        path = folder / f"{part}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        files[part] = RowsFile(path=str(path))
    return SplitPart(type="Sources", **files)  # type: ignore[arg-type]  # validation and test


def test_each_source_is_its_part(dataset: ADataset, tmp_path: Path) -> None:
    how = sources(tmp_path, validation=[a_row("b")], test=[a_row("c"), a_row("d")])
    rows = dataset.of(a_row()).with_(split=how).read().rows
    assert [(row.part, row.place) for row in rows] == [
        ("train", "line 1"),
        ("validation", "line 1 of validation"),
        ("test", "line 1 of test"),
        ("test", "line 2 of test"),
    ]
    how = sources(tmp_path, test=[a_row("c")])
    assert [row.part for row in dataset.with_(split=how).read().rows] == ["dev", "test"]


def test_one_row_in_two_sources_is_refused_and_twice_in_one_dropped(dataset: ADataset, tmp_path: Path) -> None:
    how = sources(tmp_path, test=[a_row("b"), a_row("b"), [1]])  # type: ignore[list-item]
    rows = dataset.of(a_row()).with_(split=how).read()
    assert rows.dropped_message() == (
        "2 rows dropped: line 2 of test: duplicate of line 1 of test; line 3 of test: not a JSON object"
    )
    with pytest.raises(RunFailed) as failed:
        dataset.of(a_row(), a_row("b")).read()
    assert failed.value.path == "spec.dataset.split.sources.test"
    assert failed.value.message == "line 2 and line 1 of test are the same row"


@pytest.mark.parametrize(
    ("rows", "want_path", "want_message"),
    [
        pytest.param([], "spec.dataset.split.sources.test", "no row of test.jsonl can be used", id="no row"),
        pytest.param(
            [{"ticket": "b"}],
            "spec.dataset.fields.label",
            'column "label" is not in test.jsonl (columns: ticket)',
            id="a column that only the other source has",
        ),
    ],
)
def test_a_part_that_cannot_be_used_is_named(
    dataset: ADataset, tmp_path: Path, rows: list[dict[str, object]], want_path: str, want_message: str
) -> None:
    with pytest.raises(RunFailed) as failed:
        dataset.of(a_row()).with_(split=sources(tmp_path, test=rows)).read()
    assert (failed.value.path, failed.value.message) == (want_path, want_message)


def test_a_part_whose_file_is_absent_is_named(dataset: ADataset, tmp_path: Path) -> None:
    how = SplitPart(type="Sources", test=RowsFile(path=str(tmp_path / "absent" / "test.jsonl")))
    with pytest.raises(RunFailed) as failed:
        dataset.of(a_row()).with_(split=how).read()
    assert (failed.value.reason, failed.value.path, failed.value.message) == (
        Reason.DATASET_NOT_FOUND,
        "spec.dataset.split.sources.test",
        "test.jsonl does not exist",
    )


# --- feedback


def test_a_column_of_feedback_is_read_beside_the_row_and_is_no_part_of_what_it_is(dataset: ADataset) -> None:
    rows = [
        {"ticket": "a", "label": "x", "why": "since a"},
        {"ticket": "b", "label": "x", "why": None},
        {"ticket": "c", "label": "x", "why": " "},
        {"ticket": "d", "label": "x"},
        {"ticket": "a", "label": "x", "why": "other words"},
        {"ticket": "e", "label": "x", "why": 5},
        {"ticket": "f", "label": "x", "why": "\ud800"},
    ]
    found = dataset.of(*rows).with_feedback("why").read()
    assert [row.feedback for row in found.rows] == ["since a", None, None, None]
    assert [row.digest for row in found.rows] == [row.digest for row in dataset.of(*rows[:4]).read().rows]
    assert found.dropped[:2] == (
        Dropped(5, "duplicate of line 1"),
        Dropped(6, 'column "why": feedback is a text, not 5'),
    )
    assert [dropped.line for dropped in found.dropped] == [5, 6, 7]


def test_a_column_of_feedback_that_no_row_has_is_a_mistake_of_the_metric(dataset: ADataset) -> None:
    with pytest.raises(RunFailed) as failed:
        dataset.of({"ticket": "a", "label": "x", "why": "since"}).with_feedback("because").read()
    assert (failed.value.reason, failed.value.path) == (Reason.INVALID_METRIC, "spec.metric.feedback.column")
    assert failed.value.message == 'column "because" is not in data.jsonl (columns: ticket, label, why)'
