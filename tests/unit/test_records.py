"""Reading files as records: three formats that mean the same rows, gzip, and files that would eat the memory."""

from __future__ import annotations

import csv
import gzip
import io
import json
import string
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dspy_operator.api.signature_types import parse_type
from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.contract.runspec import DatasetPart, RowsFile, SplitPart
from dspy_operator.runner import records
from dspy_operator.runner.records import Broken, Format, Record, read_records
from dspy_operator.runner.rows import Rows, read_rows
from dspy_operator.runner.split import split

pytestmark = pytest.mark.unmeasured

FIELDS = {"ticket": "str", "label": 'Literal["bug", "other"]', "count": "Optional[int]", "sure": "bool"}


def read(folder: Path, format_: Format, content: bytes | str, **options: Any) -> list[Record | Broken]:
    path = folder / f"data.{format_.lower()}"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_records(RowsFile(path=str(path), **options), format_))


def failure(folder: Path, format_: Format, content: bytes | str) -> RunFailed:
    with pytest.raises(RunFailed) as failed:
        read(folder, format_, content)
    return failed.value


def rows_of(folder: Path, format_: Format, content: bytes) -> Rows:
    path = folder / "data"
    path.write_bytes(content)
    types = {name: parse_type(text) for name, text in FIELDS.items()}
    part = DatasetPart(path=str(path), format=format_, split=SplitPart(type="Hash"))
    inputs, outputs = ["ticket"], ["label", "count", "sure"]
    return read_rows(part, inputs=inputs, outputs=outputs, coerce=lambda name, value: types[name].coerce(value))


def as_json_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_csv(rows: list[dict[str, Any]], **dialect: Any) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(FIELDS), **dialect)
    writer.writeheader()
    for row in rows:
        writer.writerow({name: "" if value is None else value for name, value in row.items()})
    return text.getvalue().encode()


A_ROW = st.fixed_dictionaries(
    {
        # A lone "\r" in a cell is kept by quotes; an empty text is what CSV cannot tell from none.
        "ticket": st.text(
            st.one_of(st.sampled_from('",\n\r[]{}\\ \t\u2028\ufeff'), st.characters(exclude_categories=["Cs"])),
            min_size=1,
            max_size=30,
        ),
        "label": st.sampled_from(["bug", "other"]),
        "count": st.none() | st.integers(-(2**70), 2**70),
        "sure": st.booleans(),
    }
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(A_ROW, min_size=2, max_size=12), indent=st.sampled_from([None, 2]), packed=st.booleans())
def test_the_same_rows_in_each_format_are_the_same_examples(
    tmp_path: Path, rows: list[dict[str, Any]], indent: int | None, packed: bool
) -> None:
    written: dict[Format, bytes] = {
        "JSONL": as_json_lines(rows),
        "JSON": json.dumps(rows, indent=indent, ensure_ascii=False).encode(),
        "CSV": as_csv(rows, lineterminator="\r\n"),
    }
    found = {
        format_: rows_of(tmp_path, format_, gzip.compress(content) if packed else content)
        for format_, content in written.items()
    }
    want = [(row.digest, row.inputs, row.outputs) for row in found["JSONL"].rows]
    assert len(want) == len({json.dumps(row, sort_keys=True) for row in rows})
    for other in ("JSON", "CSV"):
        assert [(row.digest, row.inputs, row.outputs) for row in found[other].rows] == want
        assert found[other].dropped_count == found["JSONL"].dropped_count
    if len(want) > 1:
        hash_ = SplitPart(type="Hash")
        assert len({split(one.rows, hash_).digest for one in found.values()}) == 1


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(A_ROW, max_size=6),
    chunk=st.integers(1, 40),
    space=st.text(st.sampled_from(" \t\r\n"), max_size=3),
)
def test_where_a_chunk_of_a_json_list_ends_does_not_count(
    tmp_path: Path, rows: list[dict[str, Any]], chunk: int, space: str
) -> None:
    items = f"{space},{space}".join(json.dumps(row, ensure_ascii=False) for row in rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "_CHUNK", chunk)
        found = read(tmp_path, "JSON", f"{space}[{space}{items}{space}]{space}")
    assert found == [Record(number, row) for number, row in enumerate(rows, start=1)]


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=60) | st.text(string.punctuation + "\r\n a1\ufeffé", max_size=60).map(str.encode),
    format_=st.sampled_from(["JSONL", "JSON", "CSV"]),
    packed=st.booleans(),
)
def test_whatever_a_file_holds_it_is_read_or_refused(
    tmp_path: Path, content: bytes, format_: Format, packed: bool
) -> None:
    try:
        found = read(tmp_path, format_, gzip.compress(content) if packed else content)
    except RunFailed as failed:
        assert failed.reason is Reason.INVALID_DATASET
        assert failed.message.startswith("data.")
        assert failed.path in ("spec.dataset.source", "spec.dataset.format")
    else:
        numbers = [record.number for record in found]
        assert numbers == sorted(numbers)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.sampled_from('[]{},:"\\ 1a\n'), max_size=30))
def test_a_list_is_taken_as_json_takes_it(tmp_path: Path, text: str) -> None:
    """What Python's own reader takes as a list of objects gives these objects, and nothing else comes through unharmed."""
    try:
        whole = json.loads(text)
    except ValueError:
        whole = None
    try:
        found = read(tmp_path, "JSON", text)
    except RunFailed:
        found = [Broken(0, "refused")]
    if isinstance(whole, list):
        assert [record.values if isinstance(record, Record) else None for record in found] == [
            item if isinstance(item, dict) else None for item in whole
        ]
    else:
        assert any(isinstance(record, Broken) for record in found)


# --- CSV ------------------------------------------------------------------------------------------------------------


def test_a_record_of_csv_has_the_line_that_it_begins_on(tmp_path: Path) -> None:
    content = '\ufefftext,label\r\n"one, ""two""\r\nthree",bug\r\n\r\nfour,other'
    assert read(tmp_path, "CSV", content) == [
        Record(2, {"text": 'one, "two"\r\nthree', "label": "bug"}),
        Record(5, {"text": "four", "label": "other"}),
    ]


def test_an_empty_cell_is_null_and_a_column_without_a_name_is_none(tmp_path: Path) -> None:
    assert read(tmp_path, "CSV", ",text,label\n0,a,\n1,b,bug\n") == [
        Record(2, {"text": "a", "label": None}),
        Record(3, {"text": "b", "label": "bug"}),
    ]


@pytest.mark.parametrize(
    ("record", "why"),
    [
        pytest.param(b"a", "1 cells, the header has 2", id="too few cells"),
        pytest.param(b"a,b,c", "3 cells, the header has 2", id="too many"),
        pytest.param(b'"a" b,c', "not CSV: something follows the closing quote of a cell; inside of quotes a quote is doubled", id="an open quote"),
        pytest.param(b"a\xff,b", "not UTF-8 at byte 19 of the file", id="not UTF-8"),
        pytest.param(b'"\na\xff",b', "not UTF-8 at byte 21 of the file", id="not UTF-8 in its second line"),
    ],
)  # fmt: skip
def test_a_bad_record_of_csv_costs_itself(tmp_path: Path, record: bytes, why: str) -> None:
    found = read(tmp_path, "CSV", b"text,label\nx,bug\n" + record + b"\ny,other\n")
    last = 5 if record.startswith(b'"\n') else 4
    assert found == [
        Record(2, {"text": "x", "label": "bug"}),
        Broken(3, why),
        Record(last, {"text": "y", "label": "other"}),
    ]


@pytest.mark.parametrize(
    ("content", "want"),
    [
        pytest.param(b"", "is no CSV: there is no header", id="an empty file"),
        pytest.param(b"\n\n", "is no CSV: there is no header", id="empty lines"),
        pytest.param(b",\na,b\n", "is no CSV: its header names no column", id="a header without names"),
        pytest.param(b"a,b,a\n1,2,3\n", 'has two columns "a"', id="a column twice"),
        pytest.param(
            b'text,label\na,bug\n"b,bug\nc,bug\n',
            "is no CSV: line 3: the quote that opens a cell is never closed",
            id="an open quote, which would take all that follows into one cell",
        ),
        pytest.param(
            b"text,label\ra,bug\r",
            "is no CSV: line 1: a carriage return outside of quotes that no line feed follows",
            id="lines that end as on an old Mac",
        ),
        pytest.param(b"t\xe9xt,label\n", "is no CSV: line 1: not UTF-8 at byte 2 of the file", id="Latin-1"),
    ],
)
def test_a_file_that_is_no_csv_is_refused(tmp_path: Path, content: bytes, want: str) -> None:
    failed = failure(tmp_path, "CSV", content)
    assert (failed.reason, failed.path, failed.message) == (
        Reason.INVALID_DATASET,
        "spec.dataset.format",
        f"data.csv {want}",
    )


def test_cells_become_what_the_types_ask_for(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "CSV", b"ticket,label,count,sure\n007,bug,7,TRUE\nnull,other,,false\n")
    assert [{**row.inputs, **row.outputs} for row in rows.rows] == [
        {"ticket": "007", "label": "bug", "count": 7, "sure": True},
        {"ticket": "null", "label": "other", "count": None, "sure": False},
    ]


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        pytest.param("a,bug,1.5,true", 'column "count": must be a whole number, found 1.5; or must be null', id="a part"),
        pytest.param("a,bug,two,true", 'column "count": must be a whole number, found "two"; or must be null', id="a word"),
        pytest.param("a,Bug,1,true", 'column "label": must be one of "bug", "other"; found "Bug"', id="another label"),
        pytest.param("a,bug,1,", 'column "sure": the cell is empty: must be true or false, found null', id="nothing"),
        pytest.param(",bug,1,true", 'column "ticket": the cell is empty: must be a string, found null', id="no text"),
        pytest.param("a,bug,NaN,true", 'column "count": must be a whole number, found NaN; or must be null', id="NaN"),
    ],
)  # fmt: skip
def test_a_cell_of_another_type_drops_its_row(tmp_path: Path, cells: str, why: str) -> None:
    rows = rows_of(tmp_path, "CSV", f"ticket,label,count,sure\na,bug,1,true\n{cells}\n".encode())
    assert [dropped.why for dropped in rows.dropped] == [why]


# --- a JSON list ----------------------------------------------------------------------------------------------------


def test_a_bad_item_costs_itself(tmp_path: Path) -> None:
    content = b'[{"a": "]"}, {"a" 1}, 5, {"a": "\xff"}, [{"a": 1}], {"a": NaN}, {"a": "}"}, ]'
    found = [
        replace(each, why=each.why.partition(", found ")[0]) if isinstance(each, Broken) else each
        for each in read(tmp_path, "JSON", content)
    ]
    assert found == [
        Record(1, {"a": "]"}),
        Broken(2, "not JSON: Expecting ':' delimiter at character 6"),
        Broken(3, "not a JSON object"),
        Broken(4, "not UTF-8 at byte 33 of the file"),
        Broken(5, "not a JSON object"),
        Broken(6, "not JSON: NaN is no JSON number"),
        Record(7, {"a": "}"}),
        Broken(8, "not JSON: Expecting value at character 1"),
    ]


@pytest.mark.parametrize(
    ("content", "want"),
    [
        pytest.param(b"", "is no list of objects: it is empty", id="an empty file"),
        pytest.param(b"[{}, {}", "is no list of objects: its list is not closed", id="cut off"),
        pytest.param(b'[{"a": "b]', "is no list of objects: its list is not closed", id="cut off in a text"),
        pytest.param(b"[{}] 1", "goes on after its list, at byte 6", id="more than a list"),
        pytest.param(b"[{}}]", 'is no list of objects: the "}" at byte 4 closes nothing', id="a brace too many"),
        pytest.param(
            b'{"a": 1}\n{"a": 2}',
            'is no list of objects: it begins with "{", not with "["; in format JSONL a line is an object',
            id="JSON Lines",
        ),
        pytest.param("[]".encode("utf-16"), r'is no list of objects: it begins with "\xff", not with "["', id="UTF-16"),
    ],
)
def test_a_file_that_is_no_list_is_refused(tmp_path: Path, content: bytes, want: str) -> None:
    failed = failure(tmp_path, "JSON", content)
    assert (failed.path, failed.message) == ("spec.dataset.format", f"data.json {want}")


def test_the_number_of_an_item_is_told_as_such(tmp_path: Path) -> None:
    row = {"ticket": "a", "label": "bug", "count": 1, "sure": True}
    rows = rows_of(tmp_path, "JSON", json.dumps([row, 5, row]).encode())
    assert rows.dropped_message() == "2 rows dropped: item 2: not a JSON object; item 3: duplicate of item 1"


# --- where a file may lie -------------------------------------------------------------------------------------------


def test_a_link_that_leaves_its_volume_is_not_followed(tmp_path: Path) -> None:
    volume, secret = tmp_path / "volume", tmp_path / "secret"
    (volume / "..data").mkdir(parents=True)
    secret.write_text("text\nhidden\n")
    (volume / "..data" / "a.csv").write_text("text\nshown\n")
    (volume / "inside.csv").symlink_to("..data/a.csv")
    (volume / "outside.csv").symlink_to(secret)

    def read_on_volume(name: str) -> list[Record | Broken]:
        return list(read_records(RowsFile(path=str(volume / name), root=str(volume)), "CSV"))

    assert read_on_volume("inside.csv") == [Record(2, {"text": "shown"})]
    with pytest.raises(RunFailed) as failed:
        read_on_volume("outside.csv")
    assert failed.value.message == "outside.csv is a link to what is not on its volume"


# --- gzip and bounds ------------------------------------------------------------------------------------------------


def test_gzip_is_known_by_its_first_bytes_and_its_parts_are_one_file(tmp_path: Path) -> None:
    content = gzip.compress(b'{"a": 1}\n') + gzip.compress(b'{"a": 2}\n')
    assert read(tmp_path, "JSONL", content) == [Record(1, {"a": 1}), Record(2, {"a": 2})]


@pytest.mark.parametrize(
    ("content", "want"),
    [
        pytest.param(gzip.compress(b"{}\n" * 100)[:-9], "is damaged gzip: Compressed file ended", id="cut off"),
        pytest.param(gzip.compress(b"{}\n") + b"rest", "is damaged gzip: Not a gzipped file", id="more than gzip"),
        pytest.param(b"\x1f\x8b", "is damaged gzip: ", id="two bytes"),
    ],
)
def test_damaged_gzip_is_refused(tmp_path: Path, content: bytes, want: str) -> None:
    failed = failure(tmp_path, "JSONL", content)
    assert (failed.reason, failed.path) == (Reason.INVALID_DATASET, "spec.dataset.source")
    assert want in failed.message


def test_a_flipped_bit_in_gzip_is_refused(tmp_path: Path) -> None:
    content = bytearray(gzip.compress("".join(f'{{"a": {number}}}\n' for number in range(1000)).encode()))
    content[len(content) // 2] ^= 0x10
    assert "is damaged gzip" in failure(tmp_path, "JSONL", bytes(content)).message


@pytest.mark.parametrize("format_", ["JSONL", "JSON", "CSV"])
def test_a_bomb_of_gzip_is_refused_where_it_passes_the_limit(
    tmp_path: Path, format_: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MAX_UNPACKED_BYTES", 1024**2)
    rows = {"JSONL": b"{}\n", "JSON": b"{},", "CSV": b"a\n"}[format_] * 2 * 1024**2
    content = b"[" + rows + b"{}]" if format_ == "JSON" else rows
    assert "unpacks to more than" in failure(tmp_path, format_, gzip.compress(content)).message


@pytest.mark.parametrize(
    ("format_", "content", "want"),
    [
        pytest.param("JSONL", b"x" * 2000, "line 1 has more than", id="one line of gigabytes"),
        pytest.param("JSON", b'["' + b"x" * 2000, "the item at byte 2 has more than", id="one text of gigabytes"),
        pytest.param("JSON", b"[" + b"[" * 2000, "the item at byte 2 has more than", id="brackets and nothing else"),
        pytest.param("CSV", b'a\n"' + b"x\n" * 1000, "the record of line 2 has more than", id="one cell of gigabytes"),
    ],
)
def test_one_record_never_takes_more_than_its_bound(
    tmp_path: Path, format_: Format, content: bytes, want: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", 1024)
    assert want in failure(tmp_path, format_, content).message


@pytest.mark.parametrize(
    ("format_", "content"),
    [("JSONL", b"\n" * 101), ("JSON", b"[" + b"1," * 100 + b"1]"), ("CSV", b"a\n" + b"\n" * 101)],
)
def test_records_are_bounded_and_empty_ones_count(
    tmp_path: Path, format_: Format, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MAX_RECORDS", 100)
    assert "has more than 100 records" in failure(tmp_path, format_, content).message
