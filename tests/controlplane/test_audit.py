"""The audit log is read by whole lines, while the API server writes."""

from __future__ import annotations

import json
from pathlib import Path

from .audit import AuditLog


def _line(uri: str, padding: int = 0) -> bytes:
    event = {"user": {"username": "admin"}, "verb": "get", "requestURI": uri, "userAgent": "x" * padding}
    return json.dumps(event).encode() + b"\n"


class _Server:
    """Appends a line for each request, with half of the next one behind it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.half = b""

    def answer(self, uri: str, padding: int = 0) -> None:
        whole = _line("/half", padding)
        with self.path.open("ab") as file:
            file.write(self.half + _line(uri))
            file.write(whole[: len(whole) // 2])
        self.half = whole[len(whole) // 2 :]


def _log(folder: Path) -> tuple[AuditLog, _Server]:
    server = _Server(folder / "audit.log")
    return AuditLog(server.path, server.answer), server


def test_a_mark_in_the_middle_of_a_line_is_before_that_line(tmp_path: Path) -> None:
    log, server = _log(tmp_path)
    server.answer("/before")

    mark = log.mark()
    server.answer("/after")

    uris = [request.uri for request in log.requests(since=mark)]
    assert uris[:3] == ["/half", "/after", "/half"] and "/before" not in uris


def test_a_half_line_longer_than_a_block_is_found(tmp_path: Path) -> None:
    log, server = _log(tmp_path)
    server.answer("/before", padding=500_000)

    end = log._end()

    assert end == len(_line("/before"))


def test_a_log_of_one_half_line_ends_where_it_starts(tmp_path: Path) -> None:
    log, server = _log(tmp_path)
    server.path.write_bytes(_line("/first")[:-5])

    assert log._end() == 0
