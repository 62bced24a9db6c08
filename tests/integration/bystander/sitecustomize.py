"""Runs inside a process under test: Python imports it at its start where PYTHONPATH names this folder.

It shortens the waits between retries, on which no count depends, and denies every host but those that it is told.
"""

from __future__ import annotations

import os
import sys
from typing import Any

_BACKOFF = os.environ.get("BYSTANDER_BACKOFF_SECONDS")
"""Base and cap of the backoff, for example 0.01,0.1."""
_ALLOWED = os.environ.get("BYSTANDER_ALLOWS")
"""The only host:port pairs that may be connected to, separated by commas."""
_LOG = os.environ.get("BYSTANDER_LOG", os.devnull)
"""File that gets a line for each attempt to connect, allowed or not."""

if _BACKOFF:
    from dspy_operator.runner import breaker

    base, cap = map(float, _BACKOFF.split(","))
    breaker.BACKOFF_SECONDS = (base, cap)


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        address = arguments[1]
    elif event == "socket.getaddrinfo":
        address = arguments[:2]
    elif event in {"socket.sendto", "socket.gethostbyname"}:
        address = arguments[-1]
    else:
        return
    name = ":".join(map(str, address)) if isinstance(address, tuple) else str(address)
    with open(_LOG, "a", encoding="utf-8") as file:
        file.write(f"{event} {name}\n")
    if name not in (_ALLOWED or "").split(","):
        raise PermissionError(f"the test denies {name}")


if _ALLOWED is not None:
    sys.addaudithook(_watch)
