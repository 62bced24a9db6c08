"""Reads the labelled rows: every line becomes a typed row, or is dropped with its number and why."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from dspy_operator.contract.canonical import row_digest
from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.contract.runspec import DatasetPart

Coerce = Callable[[str, object], object]
"""(signature field, value as read) -> value of the field's type; ValueError says why not."""

_BOM = b"\xef\xbb\xbf"
_SHOWN = 5
_NAMED_COLUMNS = 20
_WHY_CHARACTERS = 200
_SHOWN_CHARACTERS = 30
"""Of a line that is no JSON."""


@dataclass(frozen=True)
class Row:
    """One labelled example."""

    line: int
    """Its line in the file, from 1, empty lines counted."""
    digest: str
    """`row_digest` of inputs and outputs together."""
    inputs: Mapping[str, object]
    outputs: Mapping[str, object]
    part: str | None = None
    """What the column of a Column split says; None under Hash."""


@dataclass(frozen=True)
class Dropped:
    """A line that is no row."""

    line: int
    why: str


@dataclass(frozen=True)
class Rows:
    """What a file holds, in its own order."""

    rows: tuple[Row, ...]
    dropped: tuple[Dropped, ...]
    columns: tuple[str, ...]
    """Columns in the order in which they first appear, the first 20."""

    def dropped_message(self) -> str | None:
        """One sentence for people, with the first 5 lines and why; None when nothing was dropped."""
        if not self.dropped:
            return None
        shown = "; ".join(f"line {dropped.line}: {dropped.why}" for dropped in self.dropped[:_SHOWN])
        more = len(self.dropped) - _SHOWN
        count = f"{len(self.dropped)} row{'s' if len(self.dropped) > 1 else ''} dropped"
        return f"{count}: {shown}" + (f"; and {more} more" if more > 0 else "")


def read_rows(dataset: DatasetPart, *, inputs: Sequence[str], outputs: Sequence[str], coerce: Coerce) -> Rows:
    """Read a JSON Lines file.

    Empty lines, a byte order mark and CRLF are no mistakes. A line is dropped when it is no JSON object, lacks a mapped
    column, holds a value that `coerce` refuses (it also decides about null), or repeats an earlier row. `limit` keeps
    the rows with the smallest digests, so that an added row displaces at most one other.

    Args:
        dataset: where the file is, and which column feeds which field; an unmapped field has a column of its own name.
        inputs: the signature's input fields.
        outputs: its output fields.
        coerce: makes a value of the field's type.
    Raises:
        RunFailed: DatasetNotFound when the file is not there; InvalidDataset when `fields` names no field of the
            signature, a column is in no row, no line is a row, one row stands in two parts, or `sha256` is another.
    """
    fields = (*inputs, *outputs)
    _check_fields(dataset.fields, inputs=inputs, outputs=outputs)
    reader = _Reader(
        columns_of={name: dataset.fields.get(name, name) for name in fields},
        inputs=frozenset(inputs),
        part_column=dataset.split.column if dataset.split.type == "Column" else None,
        coerce=coerce,
    )
    path = Path(dataset.path)
    with _opened(path) as file:
        if dataset.sha256 is not None:
            _check_sha256(file, wanted=dataset.sha256.lower(), name=path.name)
        # Only "\n" ends a line: U+2028 and its like may stand inside JSON.
        for number, line in enumerate(file, start=1):
            reader.read(number, line)
    reader.check(path.name)
    rows = reader.rows
    if dataset.limit is not None and len(rows) > dataset.limit:
        kept = {row.digest for row in sorted(rows, key=lambda row: row.digest)[: dataset.limit]}
        rows = [row for row in rows if row.digest in kept]
    return Rows(tuple(rows), tuple(reader.dropped), tuple(reader.columns))


class _Reader:
    """Takes one line at a time; what it holds grows with the rows, never with the size of the file's other columns."""

    def __init__(
        self, *, columns_of: Mapping[str, str], inputs: frozenset[str], part_column: str | None, coerce: Coerce
    ) -> None:
        self.rows: list[Row] = []
        self.dropped: list[Dropped] = []
        self.columns: dict[str, None] = {}
        self._columns_of = columns_of
        self._inputs = inputs
        self._part_column = part_column
        self._coerce = coerce
        self._wanted = {*columns_of.values(), *([part_column] if part_column is not None else [])}
        self._seen: set[str] = set()
        self._objects = 0
        self._first_with: dict[str, Row] = {}

    def read(self, number: int, line: bytes) -> None:
        """Turn one line into a row or a drop."""
        text = (line.removeprefix(_BOM) if number == 1 else line).rstrip()
        if not text:
            return
        try:
            self._add(self._row(number, text))
        except ValueError as error:
            self.dropped.append(Dropped(number, _shortened(str(error))))

    def check(self, name: str) -> None:
        """Raise when a column is in no row, or no line is a row."""
        if self._objects:
            for field, column in self._columns_of.items():
                self._check_column(column, path=f"spec.dataset.fields.{field}", name=name)
            if self._part_column is not None:
                self._check_column(self._part_column, path="spec.dataset.split.column", name=name)
        if not self.rows:
            first = f"; line {self.dropped[0].line}: {self.dropped[0].why}" if self.dropped else ""
            raise RunFailed(Reason.INVALID_DATASET, f"no row of {name} can be used{first}", path="spec.dataset")

    def _row(self, number: int, text: bytes) -> Row:
        values = _parsed(text)
        self._objects += 1
        self._seen.update(self._wanted & values.keys())
        for column in values:
            if len(self.columns) == _NAMED_COLUMNS:
                break
            self.columns.setdefault(column)
        typed = {field: self._value(field, column, values) for field, column in self._columns_of.items()}
        return Row(
            line=number,
            digest=row_digest(typed),
            inputs={field: value for field, value in typed.items() if field in self._inputs},
            outputs={field: value for field, value in typed.items() if field not in self._inputs},
            part=self._part(values),
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
        first = self._first_with.setdefault(row.digest, row)
        if first is row:
            self.rows.append(row)
        elif first.part == row.part:
            raise ValueError(f"duplicate of line {first.line}")
        else:
            raise RunFailed(
                Reason.INVALID_DATASET,
                f'line {first.line} in "{first.part}" and line {row.line} in "{row.part}" are the same row',
                path="spec.dataset.split.column",
            )

    def _check_column(self, column: str, *, path: str, name: str) -> None:
        if column in self._seen:
            return
        columns = ", ".join(self.columns) + (", ..." if len(self.columns) == _NAMED_COLUMNS else "")
        raise RunFailed(Reason.INVALID_DATASET, f'column "{column}" is not in {name} (columns: {columns})', path=path)


def _check_fields(mapped: Mapping[str, str], *, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    for field in mapped:
        if field not in inputs and field not in outputs:
            raise RunFailed(
                Reason.INVALID_DATASET,
                f'"{field}" is no field of the signature (inputs: {", ".join(inputs)}; outputs: {", ".join(outputs)})',
                path=f"spec.dataset.fields.{field}",
            )


def _opened(path: Path) -> BufferedReader:
    try:
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        raise RunFailed(Reason.DATASET_NOT_FOUND, _not_there(path), path="spec.dataset.source") from None
    except (IsADirectoryError, PermissionError) as error:
        message = f"{path.name} cannot be read: {error.strerror}"
        raise RunFailed(Reason.DATASET_NOT_FOUND, message, path="spec.dataset.source") from None


def _check_sha256(file: BufferedReader, *, wanted: str, name: str) -> None:
    found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wanted:
        message = f"{name} has SHA-256 {found}, wanted {wanted}"
        raise RunFailed(Reason.INVALID_DATASET, message, path="spec.dataset.source")
    file.seek(0)


def _not_there(path: Path) -> str:
    if not path.parent.is_dir():
        return f"{path.name} does not exist"
    # Kubernetes mounts a ConfigMap through hidden links; what is not hidden are its keys.
    there = sorted(entry.name for entry in path.parent.iterdir() if not entry.name.startswith("."))
    more = ", ..." if len(there) > _NAMED_COLUMNS else ""
    return f"{path.name} does not exist (there is: {', '.join(there[:_NAMED_COLUMNS]) or 'nothing'}{more})"


def _parsed(text: bytes) -> dict[str, object]:
    try:
        value = json.loads(text.decode(), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start + 1}") from error
    except json.JSONDecodeError as error:
        found = error.doc[error.pos : error.pos + _SHOWN_CHARACTERS]
        raise ValueError(
            f"not JSON: {error.msg} at character {error.pos + 1}"
            + (f", found {json.dumps(found, ensure_ascii=False)}" if found else "")
        ) from error
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _refuse_constant(constant: str) -> object:
    raise ValueError(f"not JSON: {constant} is no JSON number")


def _present(values: Mapping[str, object], column: str) -> object:
    if column not in values:
        raise ValueError(f'column "{column}" is missing')
    return values[column]


def _shortened(why: str) -> str:
    return why if len(why) <= _WHY_CHARACTERS else f"{why[: _WHY_CHARACTERS - 3]}..."
