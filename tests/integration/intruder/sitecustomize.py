"""Runs inside a process under test: Python imports it at its start where PYTHONPATH names this folder.

It acts on audit events, which come before the operation itself: it kills the process at a chosen step of publishing, where
a test that polls would come too late, and it denies the network.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

_PATH = os.environ.get("INTRUDER_PATH")
"""End of the path whose event brings the signal, just before it."""
_EVENT = os.environ.get("INTRUDER_EVENT", "os.rename")
"""`os.rename`: something is put in place under that path. `open`: it is opened."""
_SIGNAL = int(os.environ.get("INTRUDER_SIGNAL", signal.SIGKILL))
_DENIED = os.environ.get("INTRUDER_DENIES_NETWORK")
"""File that gets a line for each attempt to reach the network; the attempt fails."""


class _Intruder:
    def __init__(self) -> None:
        self.struck = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == _EVENT and _PATH and not self.struck and str(arguments[event == "os.rename"]).endswith(_PATH):
            self.struck = True
            os.kill(os.getpid(), _SIGNAL)
        elif event in {"socket.connect", "socket.getaddrinfo", "socket.sendto"} and _DENIED:
            with open(_DENIED, "a", encoding="utf-8") as file:
                file.write(f"{event} {arguments[-1]}\n")
            raise PermissionError("the test denies the network")


if _PATH or _DENIED:
    sys.addaudithook(_Intruder())
