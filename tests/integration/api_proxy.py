"""A TCP relay before the API server, that can be cut and can go silent. It sees no content: the connection is TLS."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from enum import StrEnum
from types import TracebackType


class Relay(StrEnum):
    OPEN = "open"
    CUT = "cut"
    """Connections are closed, and new ones as soon as they come."""
    SILENT = "silent"
    """Connections are taken and what arrives on them is lost: nobody ever answers."""


class ApiProxy:
    """with ApiProxy("127.0.0.1", 6443) as proxy: connect to 127.0.0.1:proxy.port"""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._relay = Relay.OPEN
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def set(self, relay: Relay) -> None:
        self._relay = relay
        if relay is Relay.CUT:
            self._close_all()

    def __enter__(self) -> ApiProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._relay = Relay.CUT
        self._listener.close()
        self._close_all()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:  # the end
                return
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            with self._lock:
                self._sockets |= {near, far}
            if self._relay is Relay.CUT:
                self._close_all()
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if self._relay is Relay.OPEN:
                    sink.sendall(data)
        for each in (source, sink):
            self._close(each)

    def _close_all(self) -> None:
        with self._lock:
            sockets = list(self._sockets)
        for each in sockets:
            self._close(each)

    def _close(self, each: socket.socket) -> None:
        with self._lock:
            self._sockets.discard(each)
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
