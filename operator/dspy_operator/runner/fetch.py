"""Brings rows from a web server into the run's own volume, once: what is there stays, so that a resumed run reads the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx

from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.contract.runspec import RowsFile
from dspy_operator.runner.snapshot import (
    CHUNK_BYTES,
    CONNECT_SECONDS,
    STEP_SECONDS,
    Place,
    TryAgain,
    keep,
    retry_after,
    secret_headers,
)

SECONDS = httpx.Timeout(STEP_SECONDS, connect=CONNECT_SECONDS)
REDIRECTS = 5

_REDIRECT = frozenset({301, 302, 303, 307, 308})


def fetch(file: RowsFile, *, field: str) -> None:
    """Make sure that `file.path` holds what its URL has; one that is there is not asked for again.

    Connections that fail, 429 and 5xx are tried again; Retry-After is honoured up to 30 s.
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
    secret = f"{field}.http.headersSecret.name"
    headers = secret_headers(http.headers_folder, http.headers_secret, field=secret) if http.headers_folder else {}

    def chunks() -> Iterator[bytes]:
        with httpx.Client(timeout=SECONDS, headers={"Accept-Encoding": "identity"}) as client:
            try:
                response = _asked(client, http.url, headers, field=field)
                try:
                    yield from response.iter_raw(CHUNK_BYTES)
                finally:
                    response.close()
            except httpx.TransportError as error:
                raise TryAgain(f"{type(error).__name__}: {error}".rstrip(": ")) from error

    at = f"{field}.http.url"
    place = Place(shown(http.url), server=at, file=at, sha256=f"{field}.http.sha256")
    try:
        keep(path, place, chunks, sha256=file.sha256)
    except httpx.InvalidURL as error:
        message = f"{shown(http.url)} is no URL, or leads to what is none: {error}"
        raise RunFailed(Reason.DATASET_NOT_FOUND, message, path=f"{field}.http.url") from error


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
            raise TryAgain(f"HTTP {status}", retry_after(response.headers.get("retry-after")))
        raise RunFailed(Reason.DATASET_NOT_FOUND, f"{name} answers HTTP {status}", path=f"{field}.http.url")
    raise RunFailed(
        Reason.DATASET_NOT_FOUND, f"{shown(url)} redirects more than {REDIRECTS} times", path=f"{field}.http.url"
    )


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
