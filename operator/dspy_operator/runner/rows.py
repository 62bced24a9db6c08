"""Makes labelled rows of records: every record becomes a typed row, or is dropped with its number and why."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dspy_operator.contract.canonical import row_digest
from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.contract.runspec import DatasetPart
from dspy_operator.runner.records import Broken, Record, read_records, word_for

Coerce = Callable[[str, object], object]
"""(signature field, value as read) -> value of the field's type; ValueError says why not."""

_SHOWN = 5
_NAMED_COLUMNS = 20
_WHY_CHARACTERS = 200
_KEPT_DROPPED = 1000
"""Bad records that are kept with their reasons; of the others only the number is known."""


class _Placed:
    """Something with a place in a file."""

    line: int
    word: str

    @property
    def place(self) -> str:
        """For messages: "line 7", "item 7"."""
        return f"{self.word} {self.line}"


@dataclass(frozen=True)
class Row(_Placed):
    """One labelled example."""

    line: int
    """Where its record begins, from 1: the line of the file, empty lines counted; of format JSON the place in the list."""
    digest: str
    """`row_digest` of inputs and outputs together."""
    inputs: Mapping[str, object]
    outputs: Mapping[str, object]
    part: str | None = None
    """What the column of a Column split says; None under Hash."""
    word: str = "line"
    """What `line` counts."""


@dataclass(frozen=True)
class Dropped(_Placed):
    """A record that is no row."""

    line: int
    why: str
    word: str = "line"


@dataclass(frozen=True)
class Rows:
    """What a file holds, in its own order."""

    rows: tuple[Row, ...]
    dropped: tuple[Dropped, ...]
    """The first 1,000."""
    columns: tuple[str, ...]
    """Columns in the order in which they first appear, the first 20."""
    dropped_count: int = 0
    """All of them."""

    def dropped_message(self) -> str | None:
        """One sentence for people, with the first 5 records and why; None when nothing was dropped."""
        if not self.dropped:
            return None
        shown = "; ".join(f"{dropped.place}: {dropped.why}" for dropped in self.dropped[:_SHOWN])
        more = self.dropped_count - _SHOWN
        count = f"{self.dropped_count} row{'s' if self.dropped_count > 1 else ''} dropped"
        return f"{count}: {shown}" + (f"; and {more} more" if more > 0 else "")


def read_rows(dataset: DatasetPart, *, inputs: Sequence[str], outputs: Sequence[str], coerce: Coerce) -> Rows:
    """Read a file of rows.

    A record is dropped when it is none of its format, lacks a mapped column, holds a value that `coerce` refuses (it also
    decides about null), or repeats an earlier row. `limit` keeps the rows with the smallest digests, so that an added row
    displaces at most one other.

    Args:
        dataset: where the file is, how it is written, and which column feeds which field; an unmapped field has a column of
            its own name.
        inputs: the signature's input fields.
        outputs: its output fields.
        coerce: makes a value of the field's type. A cell of CSV is given to it as the text that it is, and where that is
            refused as the JSON value that it spells.
    Raises:
        RunFailed: DatasetNotFound when the file is not there; InvalidDataset when it cannot be read (`read_records`), `fields`
            names no field of the signature, a column is in no row, no record is a row, or one row stands in two parts.
    """
    fields = (*inputs, *outputs)
    _check_fields(dataset.fields, inputs=inputs, outputs=outputs)
    reader = _Reader(
        columns_of={name: dataset.fields.get(name, name) for name in fields},
        inputs=frozenset(inputs),
        part_column=dataset.split.column if dataset.split.type == "Column" else None,
        coerce=_of_cells(coerce) if dataset.format == "CSV" else coerce,
        limit=dataset.limit,
        word=word_for(dataset.format),
    )
    path = Path(dataset.path)
    for record in read_records(path, dataset.format, sha256=dataset.sha256.lower() if dataset.sha256 else None):
        reader.read(record)
    reader.check(path.name)
    return reader.result()


class _Reader:
    """Takes one record at a time; what it holds grows with the rows that are kept, never with the file's other columns."""

    def __init__(
        self,
        *,
        columns_of: Mapping[str, str],
        inputs: frozenset[str],
        part_column: str | None,
        coerce: Coerce,
        limit: int | None,
        word: str,
    ) -> None:
        self._rows: list[Row] = []
        self._dropped: list[Dropped] = []
        self._dropped_count = 0
        self._columns: dict[str, None] = {}
        self._columns_of = columns_of
        self._inputs = inputs
        self._part_column = part_column
        self._coerce = coerce
        self._limit = limit
        self._word = word
        self._wanted = {*columns_of.values(), *([part_column] if part_column is not None else [])}
        self._seen: set[str] = set()
        self._objects = 0
        self._first_with: dict[str, tuple[int, str | None]] = {}
        """Row digest -> line and part of the first row that has it."""

    def read(self, record: Record | Broken) -> None:
        """Turn one record into a row or a drop."""
        if isinstance(record, Broken):
            self._drop(record.number, record.why)
            return
        try:
            self._add(self._row(record))
        except ValueError as error:
            self._drop(record.number, str(error))

    def check(self, name: str) -> None:
        """Raise when a column is in no row, or no record is a row."""
        if self._objects:
            for field, column in self._columns_of.items():
                self._check_column(column, path=f"spec.dataset.fields.{field}", name=name)
            if self._part_column is not None:
                self._check_column(self._part_column, path="spec.dataset.split.column", name=name)
        if not self._rows:
            first = f"; {self._dropped[0].place}: {self._dropped[0].why}" if self._dropped else ""
            raise RunFailed(Reason.INVALID_DATASET, f"no row of {name} can be used{first}", path="spec.dataset")

    def result(self) -> Rows:
        """What was read."""
        if self._limit is not None:
            self._keep_smallest(self._limit)
        return Rows(tuple(self._rows), tuple(self._dropped), tuple(self._columns), self._dropped_count)

    def _drop(self, number: int, why: str) -> None:
        self._dropped_count += 1
        if len(self._dropped) < _KEPT_DROPPED:
            self._dropped.append(Dropped(number, _shortened(why), self._word))

    def _row(self, record: Record) -> Row:
        values = record.values
        self._objects += 1
        self._seen.update(self._wanted & values.keys())
        for column in values:
            if len(self._columns) == _NAMED_COLUMNS:
                break
            self._columns.setdefault(column)
        typed = {field: self._value(field, column, values) for field, column in self._columns_of.items()}
        return Row(
            line=record.number,
            digest=row_digest(typed),
            inputs={field: value for field, value in typed.items() if field in self._inputs},
            outputs={field: value for field, value in typed.items() if field not in self._inputs},
            part=self._part(values),
            word=self._word,
        )

    def _part(self, values: Mapping[str, object]) -> str | None:
        if self._part_column is None:
            return None
        part = _present(values, self._part_column)
        if not isinstance(part, str):
            raise ValueError(f'column "{self._part_column}": a part is a text, not {json.dumps(part)}')
        return part

    def _value(self, field: str, column: str, values: Mapping[str, object]) -> object:
        value = _present(values, column)
        try:
            return self._coerce(field, value)
        except ValueError as error:
            raise ValueError(f'column "{column}": {error}') from error

    def _add(self, row: Row) -> None:
        line, part = self._first_with.setdefault(row.digest, (row.line, row.part))
        if line == row.line:
            self._rows.append(row)
            if self._limit is not None and len(self._rows) >= 2 * self._limit:
                self._keep_smallest(self._limit)
        elif part == row.part:
            raise ValueError(f"duplicate of {self._word} {line}")
        else:
            raise RunFailed(
                Reason.INVALID_DATASET,
                f'{self._word} {line} in "{part}" and {row.place} in "{row.part}" are the same row',
                path="spec.dataset.split.column",
            )

    def _keep_smallest(self, limit: int) -> None:
        """Only so many rows, in their order."""
        if len(self._rows) > limit:
            kept = set(heapq.nsmallest(limit, (row.digest for row in self._rows)))
            self._rows = [row for row in self._rows if row.digest in kept]

    def _check_column(self, column: str, *, path: str, name: str) -> None:
        if column in self._seen:
            return
        columns = ", ".join(self._columns) + (", ..." if len(self._columns) == _NAMED_COLUMNS else "")
        raise RunFailed(Reason.INVALID_DATASET, f'column "{column}" is not in {name} (columns: {columns})', path=path)


def _of_cells(coerce: Coerce) -> Coerce:
    """The same for cells of CSV, which are texts, and None where they are empty."""

    def of_cell(field: str, cell: object) -> object:
        try:
            return coerce(field, cell)
        except ValueError as error:
            if cell is None:
                raise ValueError(f"the cell is empty: {error}") from None
            value = _spelled(str(cell))
            if isinstance(value, str):
                raise
        return coerce(field, value)

    return of_cell


def _spelled(cell: str) -> object:
    """The JSON value that a cell spells, else the cell. Spreadsheets and pandas write TRUE and True."""
    if cell.lower() in ("true", "false"):
        return cell.lower() == "true"
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return cell


def _check_fields(mapped: Mapping[str, str], *, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    for field in mapped:
        if field not in inputs and field not in outputs:
            raise RunFailed(
                Reason.INVALID_DATASET,
                f'"{field}" is no field of the signature (inputs: {", ".join(inputs)}; outputs: {", ".join(outputs)})',
                path=f"spec.dataset.fields.{field}",
            )


def _present(values: Mapping[str, object], column: str) -> object:
    if column not in values:
        raise ValueError(f'column "{column}" is missing')
    return values[column]


def _shortened(why: str) -> str:
    return why if len(why) <= _WHY_CHARACTERS else f"{why[: _WHY_CHARACTERS - 3]}..."
