"""The journal: what was asked and answered, in order, so that a crashed run replays instead of paying again.

Append-only JSON lines, each ending in a CRC-32 of its own bytes. Six kinds: `start` before a request goes on the wire,
`done` with its answer, `fail` for a failure that would repeat itself, `mark` at each evaluation and stage; `ask` before a tool or a
server of passages is asked, and `told` with what it said. A SIGKILL loses nothing that was written; fsync once a second bounds what a lost
machine costs.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.runner.stop import RunStop

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass
class Recorded:
    """What an existing journal says; the starting point of a replay."""

    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """key -> its `done` line."""
    failures: dict[str, dict[str, Any]] = field(default_factory=dict)
    """key -> its `fail` line."""
    starts: dict[str, list[int]] = field(default_factory=dict)
    """key -> the byte offsets of its `start` lines, one for each request on the wire."""
    calls: int = 0
    """Requests put on the wire."""
    asked: dict[str, list[str]] = field(default_factory=dict)
    """key of a tool's call -> the tool, as often as it was asked."""
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    """key of a tool's call -> its `told` line."""
    marks: list[dict[str, Any]] = field(default_factory=list)
    """`mark` lines of the optimization, in order."""
    judgements: dict[str, dict[str, Any]] = field(default_factory=dict)
    """mark_key -> `mark` line of a judgement."""
    resolved: dict[str, Any] | None = None
    """Counts that FitBudget derived from the first budget; a raised one goes on with them."""
    adapter: dict[str, Any] | None = None
    """What `constrained: Auto` came to; every later try goes on with it."""
    opened: dict[str, Any] | None = None
    """The first line: whose journal this is."""
    seconds: float = 0.0
    """Run time recorded so far, over all tries."""
    torn: bool = False
    """Whether the last line was cut off by a crash, and dropped."""


class Journal:
    """One run's journal file, locked against a second process.

    Raises:
        RunFailed: JournalCorrupt with the line, when a checksum fails; InvalidManifest when another process holds it.
        RunStop: JournalFull, from any append.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._write_lock = threading.Lock()
        self._unsynced = False
        self._closed = threading.Event()
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDONLY if read_only else os.O_RDWR | os.O_CREAT | os.O_APPEND
        self._fd = os.open(path, flags, 0o644)
        self._read_only = read_only
        if not read_only:
            try:
                _lock(self._fd, path)
            except RunFailed:
                os.close(self._fd)
                raise
        self.recorded = self._load()
        if not read_only:
            threading.Thread(target=self._sync_each_second, name="journal-fsync", daemon=True).start()

    def append(self, kind: str, **fields: Any) -> None:
        """Write one line; on return it survives the death of this process. A read-only journal takes none: `verify` changes nothing."""
        if self._read_only:
            return
        line = encode_line({"kind": kind, **fields})
        with self._write_lock:
            if self._closed.is_set():
                return
            try:
                written = os.write(self._fd, line)
                if written != len(line):
                    # A partial line on a full volume must not look like a torn tail with good lines after it.
                    os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
                    raise OSError(errno.ENOSPC, "short write")
            except OSError as error:
                if is_full(error):
                    raise RunStop(Reason.JOURNAL_FULL, f"the journal's volume is full: {self.path}") from error
                raise
            self._unsynced = True

    def request_of(self, key: str) -> dict[str, Any] | None:
        """The request that a recorded `start` line holds, read back from the file."""
        for offset in self.recorded.starts.get(key, ()):
            line = os.pread(self._fd, 16 * 1024 * 1024, offset).split(b"\n", 1)[0]
            request = decode_line(line).get("request")
            if request is not None:
                return dict(request)
        return None

    def sync(self) -> None:
        """fsync what was appended since the last time."""
        with self._write_lock:
            if self._unsynced and not self._closed.is_set():
                self._unsynced = False
                os.fsync(self._fd)

    def close(self) -> None:
        """Sync and release the lock."""
        self.sync()
        with self._write_lock:
            if not self._closed.is_set():
                self._closed.set()
                os.close(self._fd)

    def _sync_each_second(self) -> None:
        while not self._closed.wait(1.0):
            try:
                self.sync()
            except OSError:  # reported by the next append; a daemon thread has nobody to tell
                return

    def _load(self) -> Recorded:
        recorded = Recorded()
        end = 0
        for number, offset, line, complete in _lines(self._fd):
            try:
                entry = decode_line(line)
            except ValueError as error:
                if not complete and not _is_line(line[:-1]):  # a whole line and one byte: its newline was changed
                    recorded.torn = True
                    break
                raise RunFailed(Reason.JOURNAL_CORRUPT, f"{self.path}, line {number}: {error}") from None
            if not complete:
                # Whole but for its newline: cut off between the two, so treated as torn; its answer is asked for again.
                recorded.torn = True
                break
            end = offset + len(line) + 1
            _record(recorded, entry, offset)
        if recorded.torn and not self._read_only:
            os.ftruncate(self._fd, end)
        return recorded


def answers_in(paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """key -> `done` line of journals that other runs wrote, or still write; where two answered, the first counts.

    Raises:
        RunFailed: JournalCorrupt with the file and line.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in paths:
        journal = Journal(path, read_only=True)
        journal.close()
        found = journal.recorded.answers | found
    return found


def is_full(error: BaseException) -> bool:
    """Whether a volume, a quota or a limit takes no more."""
    return isinstance(error, OSError) and error.errno in _FULL


def refuse_second_process(path: Path) -> None:
    """Ask for the lock before anything of the run is touched: the running process reads its control.json all the time.

    Raises:
        RunFailed: InvalidManifest when another process holds it.
    """
    if path.is_file():
        with path.open("rb") as file:
            _lock(file.fileno(), path)


def holds_answers(path: Path) -> bool:
    """Whether a journal has anything that was paid for; requests that nobody answered are not."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return any(line.startswith((b'{"kind":"done"', b'{"kind":"fail"')) for line in file)


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise RunFailed(Reason.INVALID_MANIFEST, f"{path} is in use by another process of this run") from None


def encode_line(entry: Mapping[str, Any]) -> bytes:
    """One journal line with its checksum and newline."""
    body = json.dumps(entry, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode(
        "utf-8", "surrogatepass"
    )[:-1]
    return body + b',"crc":"%08x"}\n' % zlib.crc32(body)


def decode_line(line: bytes) -> dict[str, Any]:
    """The entry of one line without its newline.

    Raises:
        ValueError: saying why it is not a line of ours as written.
    """
    if len(line) < 20 or line[-18:-10] != b',"crc":"' or line[-2:] != b'"}':
        raise ValueError("no checksum at its end")
    body, given = line[:-18], line[-10:-2]
    if given != b"%08x" % zlib.crc32(body):
        raise ValueError("checksum does not match: the line was changed after it was written")
    entry = json.loads(body + b"}")
    if not isinstance(entry, dict):
        raise ValueError("not an object")
    return entry


def _is_line(line: bytes) -> bool:
    try:
        decode_line(line)
    except ValueError:
        return False
    return True


def mark_key(program: str, rows: str, repeat: int = 0) -> str:
    """Key of a judgement: which program on which rows, the how-manieth time."""
    return f"{program}/{rows}/{repeat}"


def _lines(fd: int) -> Iterator[tuple[int, int, bytes, bool]]:
    """(line number from 1, byte offset, bytes without newline, whether a newline followed)."""
    with os.fdopen(os.dup(fd), "rb") as file:
        file.seek(0)
        offset = 0
        for number, line in enumerate(file, start=1):
            complete = line.endswith(b"\n")
            yield number, offset, line[:-1] if complete else line, complete
            offset += len(line)


def _record(recorded: Recorded, entry: dict[str, Any], offset: int) -> None:
    recorded.seconds = max(recorded.seconds, float(entry.get("t", 0.0)))
    match entry["kind"]:
        case "open":
            recorded.opened = recorded.opened or entry
        case "start":
            recorded.calls += 1
            recorded.starts.setdefault(entry["key"], []).append(offset)
        case "done":
            recorded.answers[entry["key"]] = entry
        case "fail":
            recorded.failures[entry["key"]] = entry
        case "ask":
            recorded.asked.setdefault(entry["key"], []).append(entry["tool"])
        case "told":
            recorded.told[entry["key"]] = entry
        case "mark" if entry["mark"] == "resolved":
            recorded.resolved = entry["counts"]
        case "mark" if entry["mark"] == "adapter":
            recorded.adapter = entry["found"]
        case "mark" if entry["mark"] == "judge":
            recorded.judgements[mark_key(entry["program"], entry["rows"], entry.get("repeat", 0))] = entry
        case "mark":
            recorded.marks.append(entry)
