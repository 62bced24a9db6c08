"""What a run tells while it runs, and how the live part reaches it: one writer thread, both ways."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dspy_operator.contract.documents import Progress
from dspy_operator.contract.runspec import Control
from dspy_operator.runner.breaker import monotonic

if TYPE_CHECKING:  # with it comes DSPy, and whoever writes a file would wait 3 s for it
    from dspy_operator.runner.ledger import Ledger

LOOK_SECONDS = 0.25
"""Between two looks at the clock, and two pictures of a progress bar; documents go out at the channel's own interval."""
log = logging.getLogger(__name__)

STEPS = ("load", "preflight", "baseline", "optimize", "judge", "publish")


class Channel(Protocol):
    """Where documents go: files in local mode, a ConfigMap in a cluster."""

    interval_seconds: float

    def send(self, progress: Progress) -> Control | None:
        """Publish progress; the control document that is in force now, or None where it could not be read."""


@dataclass
class FileChannel:
    """progress.json is written and control.json is read, beside each other in the run's folder."""

    progress: Path
    control: Path
    interval_seconds: float = 1.0

    def send(self, progress: Progress) -> Control | None:
        """Atomic: a reader sees the old document or the new one."""
        write_json(self.progress, progress.document())
        try:
            return Control.model_validate_json(self.control.read_bytes())
        except (OSError, ValueError):
            # A hand edit that is half written or wrong: what was in force stays, and `effective` shows so.
            return None


@dataclass
class Tracker:
    """The numbers of progress.json, set by the flow from any thread."""

    planned_calls: int = 0
    _state: Progress = field(default_factory=Progress)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _started_at: float = field(default_factory=monotonic)

    def set(self, **changes: Any) -> None:
        """Change some of the numbers."""
        with self._lock:
            self._state = self._state.model_copy(update=changes)

    def trial(self, more: int = 1) -> None:
        """Trials that finished."""
        with self._lock:
            self._state = self._state.model_copy(update={"trials_done": self._state.trials_done + more})

    def snapshot(self, ledger: Ledger | None) -> Progress:
        """The document as of now; percent and eta come from the calls done and the calls expected."""
        with self._lock:
            state = self._state
        if ledger is None:
            return state.model_copy(update={"heartbeat": now()})
        spent = ledger.spent()
        done, planned = spent.calls, max(self.planned_calls, 1)
        share = min(done / planned, 0.99) if state.step != "publish" else 1.0
        elapsed = monotonic() - self._started_at
        fresh = spent.calls - ledger.calls_before
        eta = (planned - done) * elapsed / fresh if fresh > 0 and planned > done else None
        return state.model_copy(
            update={
                "percent": int(100 * share),
                "eta_seconds": round(eta, 1) if eta is not None else None,
                "usage": ledger.usage_by_role(),
                "effective": ledger.control.generation,
                "failed_examples": ledger.failed_requests,
                "heartbeat": now(),
            }
        )


class Reporter:
    """The writer thread: sends progress, takes control, watches the clock."""

    def __init__(self, channel: Channel, tracker: Tracker, listener: Callable[[Progress], None] | None = None) -> None:
        self._channel = channel
        self._tracker = tracker
        self._listener = listener
        self._ledger: Ledger | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="reporter", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def attach(self, ledger: Ledger) -> None:
        """From here on usage is reported and control reaches the ledger."""
        self._ledger = ledger

    def stop(self) -> None:
        """Send a last time, and end."""
        self._stopped.set()
        self._thread.join(2.0)
        self._send()

    def _loop(self) -> None:
        sent_at = 0.0
        while not self._stopped.wait(LOOK_SECONDS):
            if monotonic() - sent_at >= self._channel.interval_seconds:
                sent_at = monotonic()
                self._send()
            elif self._listener is not None:
                self._listener(self._tracker.snapshot(self._ledger))
            if self._ledger is not None:
                self._ledger.tick()

    def _send(self) -> None:
        progress = self._tracker.snapshot(self._ledger)
        if self._listener is not None:
            self._listener(progress)
        try:
            control = self._channel.send(progress)
        except OSError as error:
            # Progress is for watching; a volume that is full ends the run through its journal.
            log.warning("progress cannot be written: %s", error)
            return
        if self._ledger is not None and control is not None and control != self._ledger.control:
            self._ledger.update(control)


def write_json(path: Path, document: Any) -> None:
    """Write, fsync, rename."""
    write_bytes(path, json.dumps(document, ensure_ascii=False, indent=2).encode("utf-8", "surrogatepass") + b"\n")


def write_bytes(path: Path, content: bytes) -> None:
    """Write, fsync, rename: a reader, also one after a crash, sees all of it or none."""
    write_chunks(path, (content,))


def copy_file(source: Path, path: Path) -> None:
    """The same for a file's content, however large."""
    with source.open("rb") as file:
        write_chunks(path, iter(lambda: file.read(1024 * 1024), b""))


def write_chunks(path: Path, chunks: Iterable[bytes]) -> None:
    """The same for what comes in pieces; where one of them fails nothing is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with open(temporary, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)  # on a full volume it holds the very room that is missing
        raise


def now() -> str:
    """UTC, RFC 3339, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
