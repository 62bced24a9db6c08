"""Keeps what a server gives as a file of the run's own volume: whole or not at all, bounded, checked, asked for again after a passing fault."""

from __future__ import annotations

import hashlib
import logging
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.runner.journal import is_full
from dspy_operator.runner.progress import write_chunks

MAX_BYTES = 1024**3
"""Of one file, as it is sent."""
CHUNK_BYTES = 64 * 1024
ATTEMPTS = 5
LONGEST_PAUSE_SECONDS = 30.0
"""Between two attempts, whatever Retry-After says."""
STEP_SECONDS, CONNECT_SECONDS = 30.0, 10.0
"""For each step; a whole file may take longer."""

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A token of RFC 9110."""

log = logging.getLogger(__name__)
T = TypeVar("T")


class TryAgain(Exception):
    """Something that may be over in a moment."""

    def __init__(self, why: str, retry_after: float = 0.0) -> None:
        super().__init__(why)
        self.retry_after = retry_after


@dataclass(frozen=True)
class Place:
    """Where a file comes from, for messages."""

    name: str
    """What it is called; no secret in it."""
    server: str
    """Path of the field that names the server."""
    file: str
    """The same of the file there."""
    sha256: str
    """The same of what it has to hash to."""


def keep(path: Path, place: Place, chunks: Callable[[], Iterator[bytes]], *, sha256: str | None) -> None:
    """Write what `chunks` gives to `path`; five attempts, with full jitter.

    Args:
        chunks: begins anew with each call; raises TryAgain where another attempt may help.
        sha256: of all of it, or None where anything is taken.
    Raises:
        RunFailed: EndpointUnavailable after the last attempt, InvalidDataset when it is too large or not what `sha256` says,
            JournalFull when the volume takes no more; and whatever `chunks` raises beside TryAgain.
    """

    def checked() -> Iterator[bytes]:
        size, found = 0, hashlib.sha256()
        for chunk in chunks():
            size += len(chunk)
            if size > MAX_BYTES:
                problem = f"{place.name} sends more than {MAX_BYTES // 1024**2} MiB"
                raise RunFailed(Reason.INVALID_DATASET, problem, path=place.file)
            found.update(chunk)
            yield chunk
        if sha256 is not None and found.hexdigest() != sha256:
            problem = f"{place.name} sends a file with SHA-256 {found.hexdigest()}, wanted {sha256}"
            raise RunFailed(Reason.INVALID_DATASET, problem, path=place.sha256)

    def attempt() -> None:
        try:
            write_chunks(path, checked())
        except OSError as error:
            if is_full(error):
                raise RunFailed(Reason.JOURNAL_FULL, f"{path} cannot be written: {error.strerror}") from error
            raise

    patiently(attempt, place.name, field=place.server)


def patiently(attempt: Callable[[], T], name: str, *, field: str) -> T:
    """What an attempt gives; five of them, with full jitter, as long as they raise TryAgain.

    Args:
        name: of the server, for messages.
        field: path of the field that names it.
    Raises:
        RunFailed: EndpointUnavailable after the last attempt; and whatever `attempt` raises beside TryAgain.
    """
    retrying = Retrying(
        retry=retry_if_exception_type(TryAgain), stop=stop_after_attempt(ATTEMPTS), wait=_pause, sleep=time.sleep,
        reraise=True,
    )  # fmt: skip
    try:
        return retrying(attempt)
    except TryAgain as error:
        message = f"{name} does not answer: {error}, {ATTEMPTS} times"
        raise RunFailed(Reason.ENDPOINT_UNAVAILABLE, message, path=field) from error


def retry_after(text: str | None) -> float:
    """Seconds in a Retry-After header; 0.0 where it has none."""
    return float(text) if text and text.isascii() and text.isdigit() and len(text) < 6 else 0.0


def secret_files(folder: str, secret: str | None, *, field: str) -> dict[str, str]:
    """Keys of a Secret as files of a folder -> their values, stripped; none of them is ever told.

    Args:
        secret: its name, for messages.
        field: path of the field that names it.
    Raises:
        RunFailed: SecretMissing when it has no key, or a value is not ASCII.
    """
    at = Path(folder)
    # Kubernetes mounts a Secret through hidden links.
    names = sorted(entry.name for entry in at.iterdir() if entry.name[0] != ".") if at.is_dir() else []
    if not names:
        raise RunFailed(Reason.SECRET_MISSING, f"Secret {secret} does not exist or is empty", path=field)
    values = {}
    for name in names:
        try:
            values[name] = (at / name).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not ASCII"
            message = f'key "{name}" of Secret {secret} cannot be read: {why}'
            raise RunFailed(Reason.SECRET_MISSING, message, path=field) from None
    return values


def secret_headers(folder: str, secret: str | None, *, field: str) -> dict[str, str]:
    """The same where each key is the name of a header.

    Raises:
        RunFailed: SecretMissing also where one cannot be a header.
    """
    headers = secret_files(folder, secret, field=field)
    for name, value in headers.items():
        if not _HEADER.fullmatch(name) or not value.isprintable():
            problem = f'key "{name}" of Secret {secret} is no header: its name or value has characters that a header cannot have'
            raise RunFailed(Reason.SECRET_MISSING, problem, path=field)
    return headers


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    asked = error.retry_after if isinstance(error, TryAgain) else 0.0
    pause = max(asked, random.uniform(0, 2.0 ** (state.attempt_number - 1)))
    log.warning("a server is asked again in %.1f s: %s", min(pause, LONGEST_PAUSE_SECONDS), error)
    return min(pause, LONGEST_PAUSE_SECONDS)
