"""The API server's audit log: who asked for what. Tests count requests here, where no client can hide one."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
_DEADLINE_SECONDS = 10.0
_BLOCK_BYTES = 64 * 1024

# Metadata of every request when it has been answered; of the API server's requests to itself nothing.
POLICY: dict[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "None", "users": ["system:apiserver"]}, {"level": "Metadata"}],
}


@dataclass(frozen=True)
class Request:
    user: str
    verb: str
    group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    code: int
    uri: str
    user_agent: str


@dataclass(frozen=True)
class AuditLog:
    path: Path
    # Makes the API server answer GET on this path, whatever the answer.
    touch: Callable[[str], object]

    def mark(self) -> int:
        """A place in the log after everything that was answered so far; for `requests(since=...)`."""
        self._settle()
        return self._end()

    def requests(self, *, since: int = 0) -> list[Request]:
        """What was asked after a mark, in the order of the answers. Watches appear when they start."""
        self._settle()
        return [request for request in self._read(since) if _MARKER not in request.uri]

    def writes(self, *, since: int = 0, user: str | None = None, resource: str | None = None) -> list[Request]:
        """Requests that changed something or tried to; of one user and of one resource ("jobs") if given."""
        return [
            request
            for request in self.requests(since=since)
            if request.verb in WRITES and user in (None, request.user) and resource in (None, request.resource)
        ]

    def _settle(self) -> None:
        """An answer may reach its client before its line reaches the file: waits for the line of a request of our own."""
        marker = f"/version?{_MARKER}={uuid.uuid4().hex}"
        before = self._end()
        self.touch(marker)
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while time.monotonic() < deadline:
            if any(request.uri == marker for request in self._read(before)):
                return
            time.sleep(0.01)
        raise TimeoutError(f"{self.path}: no line for {marker} within {_DEADLINE_SECONDS:.0f} s")

    def _end(self) -> int:
        """Where the last whole line ends: the API server may be in the middle of the next one."""
        if not self.path.exists():
            return 0
        with self.path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            while end > 0:
                start = max(0, end - _BLOCK_BYTES)
                file.seek(start)
                newline = file.read(end - start).rfind(b"\n")
                if newline >= 0:
                    return start + newline + 1
                end = start
        return 0

    def _read(self, since: int) -> Iterator[Request]:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(since)
            for line in file:
                if line.endswith(b"\n"):
                    yield _request(json.loads(line))


_MARKER = "audit-log-marker"


def _request(event: dict[str, Any]) -> Request:
    about = event.get("objectRef", {})
    return Request(
        user=event["user"].get("username", ""),
        verb=event["verb"],
        group=about.get("apiGroup", ""),
        resource=about.get("resource", ""),
        subresource=about.get("subresource", ""),
        namespace=about.get("namespace", ""),
        name=about.get("name", ""),
        code=event.get("responseStatus", {}).get("code", 0),
        uri=event["requestURI"],
        user_agent=event.get("userAgent", ""),
    )
