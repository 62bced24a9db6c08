"""Brings rows from a web server into the run's own volume, once: what is there stays, so that a resumed run reads the same."""

from __future__ import annotations

import hashlib
import logging
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.contract.runspec import HTTPRows, RowsFile
from dspy_operator.runner.journal import is_full
from dspy_operator.runner.progress import write_chunks

MAX_BYTES = 1024**3
"""Of one file, as it is sent."""
ATTEMPTS = 5
LONGEST_PAUSE_SECONDS = 30.0
"""Between two attempts, whatever Retry-After says."""
SECONDS = httpx.Timeout(30.0, connect=10.0)
"""For each step; a whole file may take longer."""
REDIRECTS = 5

_REDIRECT = frozenset({301, 302, 303, 307, 308})
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A token of RFC 9110."""

log = logging.getLogger(__name__)


class _TryAgain(Exception):
    """Something that may be over in a moment."""

    def __init__(self, why: str, retry_after: float = 0.0) -> None:
        super().__init__(why)
        self.retry_after = retry_after


def fetch(file: RowsFile, *, field: str) -> None:
    """Make sure that `file.path` holds what its URL has; one that is there is not asked for again.

    Connections that fail, 429 and 5xx are tried again, five times in all, with full jitter; Retry-After is honoured up to 30 s.
    Redirects are followed, but headers of a Secret go to no other origin.

    Args:
        file: with `http`.
        field: path of the source's field.
    Raises:
        RunFailed: DatasetNotFound when the server does not give it, EndpointUnavailable when it does not answer; SecretMissing when the headers are not there; InvalidDataset
            when it is too large, or not what `sha256` says; JournalFull when the volume takes no more.
    """
    path, http = Path(file.path), file.http
    if http is None or path.is_file():
        return
    headers = _headers(http, field=field)
    found = hashlib.sha256()

    def chunks() -> Iterator[bytes]:
        size = 0
        with httpx.Client(timeout=SECONDS, headers={"Accept-Encoding": "identity"}) as client:
            response = _asked(client, http.url, headers, field=field)
            try:
                for chunk in response.iter_raw(64 * 1024):
                    size += len(chunk)
                    if size > MAX_BYTES:
                        raise _invalid(http, f"sends more than {MAX_BYTES // 1024**2} MiB", field=f"{field}.http.url")
                    found.update(chunk)
                    yield chunk
            finally:
                response.close()
        if file.sha256 is not None and found.hexdigest() != file.sha256:
            problem = f"sends a file with SHA-256 {found.hexdigest()}, wanted {file.sha256}"
            raise _invalid(http, problem, field=f"{field}.http.sha256")

    def attempt() -> None:
        nonlocal found
        found = hashlib.sha256()
        try:
            write_chunks(path, chunks())
        except httpx.TransportError as error:
            raise _TryAgain(f"{type(error).__name__}: {error}".rstrip(": ")) from error
        except OSError as error:
            if is_full(error):
                raise RunFailed(Reason.JOURNAL_FULL, f"{path} cannot be written: {error.strerror}") from error
            raise

    retrying = Retrying(
        retry=retry_if_exception_type(_TryAgain), stop=stop_after_attempt(ATTEMPTS), wait=_pause, sleep=time.sleep,
        reraise=True,
    )  # fmt: skip
    try:
        retrying(attempt)
    except httpx.InvalidURL as error:
        message = f"{shown(http.url)} is no URL, or leads to what is none: {error}"
        raise RunFailed(Reason.DATASET_NOT_FOUND, message, path=f"{field}.http.url") from error
    except _TryAgain as error:
        message = f"{shown(http.url)} does not answer: {error}, {ATTEMPTS} times"
        raise RunFailed(Reason.ENDPOINT_UNAVAILABLE, message, path=f"{field}.http.url") from error


def shown(url: str) -> str:
    """A URL for messages: without its query, where people put what nobody should read."""
    return url.partition("?")[0]


def _asked(client: httpx.Client, url: str, headers: dict[str, str], *, field: str) -> httpx.Response:
    """The answer to a GET, not read yet, redirects followed."""
    origin, at = _origin(httpx.URL(url)), httpx.URL(url)
    for _ in range(REDIRECTS + 1):
        response = client.send(client.build_request("GET", at, headers=headers), stream=True)
        if response.status_code == 200:
            return response
        response.close()
        status, name = response.status_code, shown(str(at))
        if status in _REDIRECT and (location := response.headers.get("location")):
            at = at.join(location)
            if at.scheme not in ("http", "https") or (headers and _origin(at) != origin):
                why = f"{name} redirects to {shown(str(at))}, where the headers of headersSecret must not go"
                raise RunFailed(Reason.DATASET_NOT_FOUND, why, path=f"{field}.http.url")
            continue
        if status == 429 or status >= 500:
            raise _TryAgain(f"HTTP {status}", _retry_after(response))
        raise RunFailed(Reason.DATASET_NOT_FOUND, f"{name} answers HTTP {status}", path=f"{field}.http.url")
    raise RunFailed(
        Reason.DATASET_NOT_FOUND, f"{shown(url)} redirects more than {REDIRECTS} times", path=f"{field}.http.url"
    )


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _headers(http: HTTPRows, *, field: str) -> dict[str, str]:
    """A file of the Secret is a header; none of their values is ever told."""
    if http.headers_folder is None:
        return {}
    at, secret = f"{field}.http.headersSecret.name", f"Secret {http.headers_secret}"
    folder = Path(http.headers_folder)
    # Kubernetes mounts a Secret through hidden links.
    names = sorted(entry.name for entry in folder.iterdir() if entry.name[0] != ".") if folder.is_dir() else []
    if not names:
        raise RunFailed(Reason.SECRET_MISSING, f"{secret} does not exist or is empty", path=at)
    headers = {}
    for name in names:
        try:
            value = (folder / name).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not ASCII"
            raise RunFailed(Reason.SECRET_MISSING, f'key "{name}" of {secret} cannot be read: {why}', path=at) from None
        if not _HEADER.fullmatch(name) or not value.isprintable():
            problem = (
                f'key "{name}" of {secret} is no header: its name or value has characters that a header cannot have'
            )
            raise RunFailed(Reason.SECRET_MISSING, problem, path=at)
        headers[name] = value
    return headers


def _invalid(http: HTTPRows, problem: str, *, field: str) -> RunFailed:
    return RunFailed(Reason.INVALID_DATASET, f"{shown(http.url)} {problem}", path=field)


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    asked = error.retry_after if isinstance(error, _TryAgain) else 0.0
    pause = max(asked, random.uniform(0, 2.0 ** (state.attempt_number - 1)))
    log.warning("rows are asked for again in %.1f s: %s", min(pause, LONGEST_PAUSE_SECONDS), error)
    return min(pause, LONGEST_PAUSE_SECONDS)


def _retry_after(response: httpx.Response) -> float:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0.0
