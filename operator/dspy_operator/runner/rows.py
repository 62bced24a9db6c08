"""Makes labelled rows of records: every record becomes a typed row, or is dropped with its number and why."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dspy_operator.contract.canonical import row_digest
from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.contract.runspec import DatasetPart, RowsFile, SplitPart
from dspy_operator.runner.records import Broken, Format, Record, read_records, word_for

Coerce = Callable[[str, object], object]
"""(signature field, value as read) -> value of the field's type; ValueError says why not."""

_FEEDBACK = "spec.metric.feedback.column"
_SHOWN = 5
_NAMED_COLUMNS = 20
_WHY_CHARACTERS = 200
_KEPT_DROPPED = 1000
"""Bad records that are kept with their reasons; of the others only the number is known."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file of rows, as messages speak of it."""

    word: str = "line"
    """What the numbers of its records count."""
    part: str = ""
    """Of a Sources split: validation or test, where the file is that part's own."""

    def place(self, line: int) -> str:
        """ "line 7", "item 7", "line 7 of test"."""
        return f"{self.word} {line}{f' of {self.part}' if self.part else ''}"


LINES = Source()


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled example."""

    line: int
    """Where its record begins, from 1: the line of the file, empty lines counted; of format JSON the place in the list."""
    digest: str
    """`row_digest` of inputs and outputs together."""
    inputs: Mapping[str, object]
    outputs: Mapping[str, object]
    part: str | None = None
    """What the column of a Column split says, or which source of a Sources split it is of; None under Hash."""
    group: str | None = None
    """Rows of one group stay together."""
    stratum: str | None = None
    """Each part has its share of each."""
    feedback: str | None = None
    """What the metric's feedback column says of it; no part of its digest, or other words would make another test set."""
    graded: Mapping[str, object] | None = None
    """Column -> value, as read, of those that a judge is calibrated with; no part of its digest, as feedback is none."""
    source: Source = LINES

    @property
    def place(self) -> str:
        """For messages."""
        return self.source.place(self.line)

    @property
    def beside(self) -> str | None:
        """All that is said of it and is no part of its digest; the rows' digest moves with it."""
        if self.graded is None:
            return self.feedback
        return json.dumps([self.feedback, self.graded], sort_keys=True, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Dropped:
    """A record that is no row."""

    line: int
    why: str
    source: Source = LINES

    @property
    def place(self) -> str:
        """For messages."""
        return self.source.place(self.line)


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


def read_rows(
    dataset: DatasetPart,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    coerce: Coerce,
    feedback_column: str | None = None,
    graded_columns: Mapping[str, str] = MappingProxyType({}),
) -> Rows:
    """Read a dataset's files.

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
        feedback_column: has a text for GEPA; a row without one, or with a blank one, is a row all the same.
        graded_columns: path of a field of the metric -> the column that it asks for; a row without one is a row all the same.
    Raises:
        RunFailed: DatasetNotFound when the file is not there; what `fetch` raises; InvalidDataset when it cannot be read
            (`read_records`), `fields` names no field of the signature, a column is in no row, no record is a row, or one row
            stands in two parts; InvalidMetric when a column of the metric is in no row.
    """
    fields = (*inputs, *outputs)
    _check_fields(dataset.fields, inputs=inputs, outputs=outputs)
    how, word = dataset.split, word_for(dataset.format)
    reader = _Reader(
        columns_of={name: dataset.fields.get(name, name) for name in fields},
        inputs=frozenset(inputs),
        split=how,
        feedback_column=feedback_column,
        graded_columns=graded_columns,
        coerce=_of_cells(coerce) if dataset.format == "CSV" else coerce,
        limit=dataset.limit,
    )
    files = dataset.files()
    for part, file in files.items():
        field = f"spec.dataset.split.sources.{part}" if part else "spec.dataset.source"
        named = part if part or how.type != "Sources" else "train" if "validation" in files else "dev"
        reader.read(file, dataset.format, Source(word, part), part=named or None, field=field)
    return reader.result()


class _Reader:
    """Takes one record at a time; what it holds grows with the rows that are kept, never with the file's other columns."""

    def __init__(
        self,
        *,
        columns_of: Mapping[str, str],
        inputs: frozenset[str],
        split: SplitPart,
        feedback_column: str | None,
        graded_columns: Mapping[str, str],
        coerce: Coerce,
        limit: int | None,
    ) -> None:
        self._rows: list[Row] = []
        self._dropped: list[Dropped] = []
        self._dropped_count = 0
        self._columns: dict[str, None] = {}
        self._columns_of = columns_of
        self._inputs = inputs
        self._split = split
        self._feedback_column = feedback_column
        self._graded_columns = tuple(graded_columns.values())
        self._coerce = coerce
        self._limit = limit
        self._paths = {f"spec.dataset.fields.{field}": column for field, column in columns_of.items()}
        """Path of a field -> the column that it asks for."""
        by_hash = {"hash.groupBy": split.group_by, "hash.stratifyBy": split.stratify_by}
        for name, column in {"column": split.column, **by_hash}.items():
            if column is not None:
                self._paths[f"spec.dataset.split.{name}"] = column
        if feedback_column is not None:
            self._paths[_FEEDBACK] = feedback_column
        self._paths |= graded_columns
        self._first_with: dict[str, tuple[int, str | None, Source]] = {}
        """Row digest -> the first row that has it."""
        self._texts: dict[str, str] = {}
        """Of groups and strata, each once."""

    def read(
        self,
        file: RowsFile,
        format_: Format,
        source: Source,
        *,
        part: str | None,
        field: str,
    ) -> None:
        """All rows of one file.

        Args:
            part: of all of them; None where a column or a hash decides.
            field: path of the field that names the file.
        Raises:
            RunFailed: when the file cannot be read, a column is in no record, or no record is a row.
        """
        path = Path(file.path)
        if file.http is not None:
            from dspy_operator.runner.fetch import fetch  # brings httpx, which few runs need

            fetch(file, field=field)
        if file.s3 is not None:
            from dspy_operator.runner.bucket import fetch_object  # brings botocore

            fetch_object(file, field=field)
        columns: dict[str, None] = {}
        wanted, seen = set(self._paths.values()), set[str]()
        objects = rows = 0
        first: Dropped | None = None
        for record in read_records(file, format_, field=field):
            try:
                if isinstance(record, Broken):
                    raise ValueError(record.why)
                objects += 1
                seen |= wanted & record.values.keys()
                for column in record.values:
                    if len(columns) == _NAMED_COLUMNS:
                        break
                    columns.setdefault(column)
                self._add(self._row(record, source, part))
                rows += 1
            except ValueError as error:
                dropped = Dropped(record.number, _shortened(str(error)), source)
                first = first or dropped
                self._dropped_count += 1
                if len(self._dropped) < _KEPT_DROPPED:
                    self._dropped.append(dropped)
        for column_path, column in self._paths.items():
            if objects and column not in seen:
                named = ", ".join(columns) + (", ..." if len(columns) == _NAMED_COLUMNS else "")
                message = f'column "{column}" is not in {path.name} (columns: {named})'
                reason = Reason.INVALID_METRIC if column_path.startswith("spec.metric.") else Reason.INVALID_DATASET
                raise RunFailed(reason, message, path=column_path)
        if not rows:
            why = f"; {first.place}: {first.why}" if first else ""
            at = "spec.dataset" if field == "spec.dataset.source" else field
            raise RunFailed(Reason.INVALID_DATASET, f"no row of {path.name} can be used{why}", path=at)
        self._columns = self._columns or columns

    def result(self) -> Rows:
        """What was read."""
        if self._limit is not None:
            self._keep_smallest(self._limit)
        return Rows(tuple(self._rows), tuple(self._dropped), tuple(self._columns), self._dropped_count)

    def _row(self, record: Record, source: Source, part: str | None) -> Row:
        values = record.values
        typed = {field: self._value(field, column, values) for field, column in self._columns_of.items()}
        return Row(
            line=record.number,
            digest=row_digest(typed),
            inputs={field: value for field, value in typed.items() if field in self._inputs},
            outputs={field: value for field, value in typed.items() if field not in self._inputs},
            part=self._part(values) if self._split.column is not None else part,
            group=self._text(values, self._split.group_by),
            stratum=self._text(values, self._split.stratify_by),
            feedback=self._feedback(values),
            graded={column: values.get(column) for column in self._graded_columns} if self._graded_columns else None,
            source=source,
        )

    def _part(self, values: Mapping[str, object]) -> str:
        assert self._split.column is not None
        part = _present(values, self._split.column)
        if not isinstance(part, str):
            raise ValueError(f'column "{self._split.column}": a part is a text, not {json.dumps(part)}')
        return part

    def _feedback(self, values: Mapping[str, object]) -> str | None:
        text = values.get(self._feedback_column) if self._feedback_column is not None else None
        if text is not None and not isinstance(text, str):
            raise ValueError(f'column "{self._feedback_column}": feedback is a text, not {json.dumps(text)}')
        if text is None or not text.strip():
            return None
        text.encode()  # a lone surrogate has no digest: the row goes as it would for one in a field
        return text

    def _text(self, values: Mapping[str, object], column: str | None) -> str | None:
        """A value by which rows are divided: as a text, so that 7 in JSON and 7 in CSV are one."""
        if column is None:
            return None
        value = _present(values, column)
        if value is None:
            raise ValueError(f'column "{column}" is null, and rows are divided by it')
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
        return self._texts.setdefault(text, text)

    def _value(self, field: str, column: str, values: Mapping[str, object]) -> object:
        value = _present(values, column)
        try:
            return self._coerce(field, value)
        except ValueError as error:
            raise ValueError(f'column "{column}": {error}') from error

    def _add(self, row: Row) -> None:
        line, part, source = self._first_with.setdefault(row.digest, (row.line, row.part, row.source))
        if (line, source) == (row.line, row.source):
            self._rows.append(row)
            if self._limit is not None and len(self._rows) >= 2 * self._limit:
                self._keep_smallest(self._limit)
        elif part == row.part:
            raise ValueError(f"duplicate of {source.place(line)}")
        elif self._split.type == "Sources":
            raise RunFailed(
                Reason.INVALID_DATASET,
                f"{source.place(line)} and {row.place} are the same row",
                path=f"spec.dataset.split.sources.{row.source.part}",
            )
        else:
            raise RunFailed(
                Reason.INVALID_DATASET,
                f'{source.place(line)} in "{part}" and {row.place} in "{row.part}" are the same row',
                path="spec.dataset.split.column",
            )

    def _keep_smallest(self, limit: int) -> None:
        """Only so many rows, in their order."""
        if len(self._rows) > limit:
            kept = set(heapq.nsmallest(limit, (row.digest for row in self._rows)))
            self._rows = [row for row in self._rows if row.digest in kept]


def example_key(example: Any) -> str:
    """The digest of the row that a dspy.Example was made of: DSPy copies examples, so their identity does not hold."""
    from dspy_operator.runner.values import plain_fields  # brings DSPy, which whoever only reads rows does not need

    return row_digest(plain_fields(example))


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
