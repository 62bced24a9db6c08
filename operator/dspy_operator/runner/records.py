"""Reads a file of rows as records, one at a time: JSON Lines, a JSON list or CSV, each plain or in gzip.

What a record means is `rows`' business. What is held here is one record, never the file: a small file in gzip may unpack to
gigabytes, and an open quote makes one cell of all that follows it.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.contract.runspec import RowsFile

Format = Literal["JSONL", "JSON", "CSV"]

MAX_RECORD_BYTES = 16 * 1024**2
"""Of one record: more than any model's context takes."""
MAX_RECORDS = 1_000_000
"""In one file, bad ones included; as many as `limit` may ask for."""
MAX_UNPACKED_BYTES = 1024**3
"""Of a file in gzip, which unpacks to up to 1032 times its size: 1 MiB in a ConfigMap reaches it."""

_BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
_CHUNK = 64 * 1024
_SHOWN_FILES = 20
_SHOWN_CHARACTERS = 30
"""Of a record that is no JSON."""
_SPACE = b" \t\r\n"


@dataclass(frozen=True)
class Record:
    """One row as it is written."""

    number: int
    """JSONL, CSV: the line of the file that it begins on; JSON: its place in the list. From 1."""
    values: Mapping[str, object]
    """Column -> value. Of CSV they are texts; an empty cell is None."""


@dataclass(frozen=True)
class Broken:
    """A place where there should be a record."""

    number: int
    why: str


def word_for(format_: Format) -> str:
    """What the number of a record counts."""
    return "item" if format_ == "JSON" else "line"


def read_records(file: RowsFile, format_: Format, *, field: str = "spec.dataset.source") -> Iterator[Record | Broken]:
    """The records of a file, in its order; gzip is known by its first two bytes.

    JSONL: an object a line; empty lines are none. JSON: one list of objects. CSV: RFC 4180 with commas and double quotes; the
    first record names the columns, of which those without a name are left out. All are UTF-8; a byte order mark is no mistake.

    Args:
        file: where it is; `sha256` is of the file as it lies there.
        format_: how it is written.
        field: path of the field that names the file.
    Raises:
        RunFailed: DatasetNotFound when the file is not there; InvalidDataset when it is another one, is damaged or too large, or
            is so far from its format that nobody could say where a record begins.
    """
    path = Path(file.path)
    name = _named(path, file.root)
    try:
        with _opened(path, file.root) as opened:
            if file.sha256 is not None:
                _check_sha256(opened, wanted=file.sha256.lower())
            for count, record in enumerate(_READERS[format_](_Bytes(_plain(opened))), start=1):
                if count > MAX_RECORDS:
                    raise _Refused(f"has more than {MAX_RECORDS:,} records")
                if record is not None:
                    yield record
    except _Refused as refused:
        at = "spec.dataset.format" if refused.by_format else field
        raise RunFailed(refused.reason, f"{name} {refused.problem}", path=at) from refused.__cause__
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise RunFailed(Reason.INVALID_DATASET, f"{name} is damaged gzip: {error}", path=field) from error
    except OSError as error:
        message = f"{name} cannot be read: {error.strerror}"
        raise RunFailed(Reason.DATASET_NOT_FOUND, message, path=field) from error


class _Refused(Exception):
    """A file that cannot be used."""

    def __init__(self, problem: str, reason: Reason = Reason.INVALID_DATASET, *, by_format: bool = False) -> None:
        super().__init__(problem)
        self.problem = problem
        self.reason = reason
        self.by_format = by_format
        """It is not what `format` says."""


class _Bytes:
    """A file's content, in lines or in chunks, none of them larger than a record may be."""

    def __init__(self, file: BinaryIO) -> None:
        self.offset = 0
        """Bytes read so far, the mark included."""
        self._file = file

    def lines(self) -> Iterator[bytes]:
        """Only "\\n" ends a line: U+2028 and its like may stand inside JSON."""
        number = 0
        while line := self._file.readline(MAX_RECORD_BYTES + 1):
            number += 1
            if len(line) > MAX_RECORD_BYTES:
                raise self.too_long(f"line {number}")
            self.offset += len(line)
            yield line.removeprefix(_BOM) if number == 1 else line

    def chunks(self) -> Iterator[bytes]:
        """As they come."""
        first = self._file.read(len(_BOM))
        self.offset = len(first)
        if first and first != _BOM:
            yield first
        while chunk := self._file.read(_CHUNK):
            self.offset += len(chunk)
            yield chunk

    def too_long(self, what: str, hint: str = "") -> _Refused:
        """A record that nobody should hold."""
        return self.refused(f"is no list of rows: {what} has more than {MAX_RECORD_BYTES // 1024**2} MiB{hint}")

    def refused(self, problem: str) -> _Refused:
        """The file is not in its format."""
        return _Refused(problem, by_format=True)


# --- JSON Lines -----------------------------------------------------------------------------------------------------


def _json_lines(content: _Bytes) -> Iterator[Record | Broken | None]:
    for number, line in enumerate(content.lines(), start=1):
        text = line.rstrip()
        yield _object(number, text) if text else None


def _object(number: int, text: bytes, start: int | None = None) -> Record | Broken:
    """One JSON object.

    Args:
        start: byte of the file that the text begins with, where that says more than the place in the text.
    """
    try:
        value = json.loads(text.decode(), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        return Broken(number, not_utf8(error.start + 1 + (start or 0), of_file=start is not None))
    except json.JSONDecodeError as error:
        found = error.doc[error.pos : error.pos + _SHOWN_CHARACTERS]
        shown = f", found {json.dumps(found, ensure_ascii=False)}" if found else ""
        return Broken(number, f"not JSON: {error.msg} at character {error.pos + 1}{shown}")
    except RecursionError:
        return Broken(number, "nested too deeply")
    except ValueError as error:
        return Broken(number, str(error))
    return Record(number, value) if isinstance(value, dict) else Broken(number, "not a JSON object")


def not_utf8(byte: int, *, of_file: bool) -> str:
    """Where the encoding is wrong, from 1."""
    return f"not UTF-8 at byte {byte}{' of the file' if of_file else ''}"


def _refuse_constant(constant: str) -> object:
    raise ValueError(f"not JSON: {constant} is no JSON number")


# --- a JSON list ----------------------------------------------------------------------------------------------------

_MARKS = re.compile(rb'["\[\]{},]')
_IN_TEXT = re.compile(rb'["\\]')


def _json_list(content: _Bytes) -> Iterator[Record | Broken | None]:
    """Items are found by their brackets and read one by one, so that a bad one costs itself and not the file."""
    for number, (start, text) in enumerate(_items(content), start=1):
        yield _object(number, text.strip(_SPACE), start + len(text) - len(text.lstrip(_SPACE)))


def _items(content: _Bytes) -> Iterator[tuple[int, bytes]]:
    """(place in the file, text) of each item of the list that a file should be."""
    held, base = bytearray(), 0  # what is looked at, and where in the file it begins
    begin, scanned = 0, 0  # in `held`: of the item, and how far it was looked at
    depth, in_text, ended, some = 0, False, False, False
    for chunk in content.chunks():
        del held[:begin]
        base, scanned, begin = content.offset - len(chunk) - len(held), scanned - begin, 0
        held += chunk
        while True:
            if depth == 0:
                begin = len(held) - len(held[begin:].lstrip(_SPACE))
                if begin == len(held):
                    scanned = begin
                    break
                if ended:
                    raise content.refused(f"goes on after its list, at byte {base + begin + 1}")
                if held[begin] != ord("["):
                    first = held[begin : begin + 1].decode("ascii", "backslashreplace")
                    hint = "; in format JSONL a line is an object" if first == "{" else ""
                    raise content.refused(f'is no list of objects: it begins with "{first}", not with "["{hint}')
                begin, depth = begin + 1, 1
                scanned = begin
            found = (_IN_TEXT if in_text else _MARKS).search(held, scanned)
            if found is None:
                scanned = max(scanned, len(held))
                break
            mark, at = found.group(), found.start()
            if mark == b"\\":
                scanned = at + 2  # may lie in the next chunk
                continue
            scanned = at + 1
            if mark == b'"':
                in_text = not in_text
            elif mark in b"[{":
                depth += 1
            elif mark != b",":
                depth -= 1
                if depth == 0 and mark == b"}":
                    raise content.refused(f'is no list of objects: the "}}" at byte {base + at + 1} closes nothing')
            if depth == 0 or (depth == 1 and mark == b","):
                item = bytes(held[begin:at])
                if depth or some or item.strip(_SPACE):
                    yield base + begin, item
                begin, some, ended = at + 1, True, depth == 0
        if len(held) - begin > MAX_RECORD_BYTES:
            raise content.too_long(f"the item at byte {base + begin + 1}", ": is a bracket or a quote not closed?")
    if not ended:
        raise content.refused(f"is no list of objects: {'its list is not closed' if depth else 'it is empty'}")


# --- CSV ------------------------------------------------------------------------------------------------------------


class _Texts:
    """The lines of a CSV file as the csv module wants them, and what it cannot know of the record that it reads."""

    def __init__(self, content: _Bytes) -> None:
        self.first = 1
        """The line that the record begins on."""
        self.bad_byte: int | None = None
        """The first byte of the record that is no UTF-8, from 1 in the file."""
        self._content = content
        self._lines = content.lines()
        self._read = 0
        self._size = 0

    def begin(self) -> None:
        """Another record."""
        self.first, self.bad_byte, self._size = self._read + 1, None, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._read += 1
        self._size += len(line)
        if self._size > MAX_RECORD_BYTES:
            raise self._content.too_long(f"the record of line {self.first}", ": is a quote not closed?")
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            if self.bad_byte is None:
                self.bad_byte = self._content.offset - len(line) + error.start + 1
            return line.decode(errors="replace")


def _csv(content: _Bytes) -> Iterator[Record | Broken | None]:
    csv.field_size_limit(MAX_RECORD_BYTES)
    texts = _Texts(content)
    reader = csv.reader(texts, strict=True)
    columns: list[str] = []
    while True:
        texts.begin()
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            problem = _plain_words(error)
            # Where a quote is not closed, or lines end in another way, the rest of the file has no certain meaning.
            if not columns or problem in _FATAL:
                raise content.refused(f"is no CSV: line {texts.first}: {problem}") from None
            yield Broken(texts.first, f"not CSV: {problem}")
            continue
        if texts.bad_byte is not None:
            if not columns:
                raise content.refused(f"is no CSV: line {texts.first}: {not_utf8(texts.bad_byte, of_file=True)}")
            yield Broken(texts.first, not_utf8(texts.bad_byte, of_file=True))
        elif not cells:
            yield None
        elif not columns:
            columns = _header(cells, content)
        elif len(cells) != len(columns):
            yield Broken(texts.first, f"{len(cells)} cells, the header has {len(columns)}")
        else:
            yield Record(texts.first, {name: cell or None for name, cell in zip(columns, cells, strict=True) if name})
    if not columns:
        raise content.refused("is no CSV: there is no header")


_UNCLOSED = "the quote that opens a cell is never closed"
_LONE_CR = "a carriage return outside of quotes that no line feed follows"
_FATAL = frozenset({_UNCLOSED, _LONE_CR})


def _plain_words(error: csv.Error) -> str:
    said = str(error)
    if said == "unexpected end of data":
        return _UNCLOSED
    if said.startswith("new-line character seen"):
        return _LONE_CR
    if "expected after" in said:
        return "something follows the closing quote of a cell; inside of quotes a quote is doubled"
    return said


def _header(cells: list[str], content: _Bytes) -> list[str]:
    for place, name in enumerate(cells):
        if name and name in cells[:place]:
            raise content.refused(f'has two columns "{name}"')
    if not any(cells):
        raise content.refused("is no CSV: its header names no column")
    return cells


_READERS: Mapping[Format, Callable[[_Bytes], Iterator[Record | Broken | None]]] = {
    "JSONL": _json_lines,
    "JSON": _json_list,
    "CSV": _csv,
}
"""Each gives None for what is counted and is no record: an empty line."""


# --- the file -------------------------------------------------------------------------------------------------------


def _opened(path: Path, root: str | None) -> io.BufferedReader:
    # Whoever writes to a volume must not have a file of the pod's quoted in a message: a key, a token.
    if root is not None and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise _Refused("is a link to what is not on its volume")
    try:
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        raise _Refused(_not_there(path, root), Reason.DATASET_NOT_FOUND) from None


def _named(path: Path, root: str | None) -> str:
    """As people wrote it: on a volume with its folders."""
    return str(path.relative_to(root)) if root is not None and path.is_relative_to(root) else path.name


def _not_there(path: Path, root: str | None) -> str:
    """With what there is instead: in its folder, or on a volume in the first one above it that there is."""
    folder, where = path.parent, "there is"
    if root is not None and not folder.is_dir():
        folder = next((above for above in folder.parents if above.is_dir() or above == Path(root)), folder)
        where = f"in {_named(folder, root)} there is" if folder != Path(root) else "on the volume there is"
    if not folder.is_dir():
        return "does not exist"
    # Kubernetes mounts a ConfigMap through hidden links; what is not hidden are its keys.
    there = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    more = ", ..." if len(there) > _SHOWN_FILES else ""
    return f"does not exist ({where}: {', '.join(there[:_SHOWN_FILES]) or 'nothing'}{more})"


def _check_sha256(file: io.BufferedReader, *, wanted: str) -> None:
    found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wanted:
        raise _Refused(f"has SHA-256 {found}, wanted {wanted}")
    file.seek(0)


def _plain(file: io.BufferedReader) -> BinaryIO:
    if not file.peek(len(_GZIP)).startswith(_GZIP):
        return file
    return io.BufferedReader(_Unpacked(gzip.GzipFile(fileobj=file)), _CHUNK)


class _Unpacked(io.RawIOBase):
    """What is in gzip, up to a size."""

    def __init__(self, packed: gzip.GzipFile) -> None:
        self._packed = packed
        self._size = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed's Buffer is Python 3.12's
        """The next bytes."""
        count = self._packed.readinto(buffer)
        self._size += count
        if self._size > MAX_UNPACKED_BYTES:
            raise _Refused(f"unpacks to more than {MAX_UNPACKED_BYTES // 1024**3} GiB")
        return count
