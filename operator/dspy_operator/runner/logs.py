"""Logs: JSON lines on one stream, and nothing else there; what libraries print is a log line too."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import IO, Any

from dspy_operator.contract.documents import Progress
from dspy_operator.runner.progress import now

PROGRESS_SECONDS = 5.0
_EXTRAS = ("step", "reason", "progress", "result")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the extras we set."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        entry: dict[str, Any] = {
            "time": now(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {name: getattr(record, name) for name in _EXTRAS if hasattr(record, name)}
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


class _Printed(io.TextIOBase):
    """A stand-in for sys.stdout and sys.stderr: DSPy's prints and progress bars become log lines of level debug."""

    def __init__(self) -> None:
        self._log = logging.getLogger("printed")
        self._local = threading.local()

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, text: str) -> int:
        """Whole lines are logged, the rest waits for its end."""
        waiting = getattr(self._local, "text", "") + text
        *lines, self._local.text = waiting.replace("\r", "\n").split("\n")
        for line in filter(str.strip, lines):
            self._log.debug(line)
        return len(text)


def log_to(stream: IO[str], *, level: int = logging.INFO) -> None:
    """Send all logging to a stream as JSON lines, and all prints to logging; who must write elsewhere uses sys.__stderr__."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in ("dspy", "optuna", "httpx"):
        library = logging.getLogger(name)
        for old in list(library.handlers):
            library.removeHandler(old)
        library.propagate = True
        library.setLevel(max(level, logging.WARNING))
    logging.captureWarnings(True)
    sys.stdout = sys.stderr = _Printed()


def progress_logger(log: logging.Logger) -> Callable[[Progress], None]:
    """A listener that writes a line at each new step, and every 5 s within one."""
    last: list[tuple[str, float]] = []

    def report(progress: Progress) -> None:
        step, at = last[-1] if last else ("", 0.0)
        if progress.step != step or time.monotonic() - at >= PROGRESS_SECONDS:
            last[:] = [(progress.step, time.monotonic())]
            log.info(progress.step, extra={"step": progress.step, "progress": progress.document()})

    return report
