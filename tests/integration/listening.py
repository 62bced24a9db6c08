"""A server in a process of its own: there, or its words why not."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

_START_SECONDS = 60


def until_listening(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for a server.

    Raises:
        TimeoutError: it ended, or does not listen after a minute; with the end of its log.
    """
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError(f"nobody listens on {port}:\n{log.read_text()[-2000:]}") from None
            time.sleep(0.05)
