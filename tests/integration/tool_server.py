"""A server of tools for ReAct programs, that counts who asked it what, and can be told to fail, to wait or to be away."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answers = Callable[["Asked"], "Said | str"]


@dataclass(frozen=True)
class Asked:
    """One call."""

    ordinal: int
    """From 1, over all paths."""
    path: str
    arguments: Any
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Said:
    """What is answered instead of a text as JSON."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    """Hang up without an answer."""


@dataclass
class ToolServer:
    """`answers` decides what is said; None is a fixed text for the same arguments."""

    url: str = ""
    answers: Answers | None = None
    asked: list[Asked] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def calls(self) -> int:
        """How many there were."""
        with self.lock:
            return len(self.asked)

    def repeated(self) -> int:
        """Calls with a path and arguments that came before: a row asks each question once in these tests."""
        with self.lock:
            seen = [json.dumps([one.path, one.arguments], sort_keys=True) for one in self.asked]
        return len(seen) - len(set(seen))


@contextmanager
def tool_server(answers: Answers | None = None, port: int = 0) -> Iterator[ToolServer]:
    """One on a port of its own."""
    serving = ToolServer(answers=answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            arguments = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            with serving.lock:
                asked = Asked(len(serving.asked) + 1, self.path, arguments, headers)
                serving.asked.append(asked)
            said = serving.answers(asked) if serving.answers is not None else f"about {json.dumps(arguments)}"
            if isinstance(said, str):
                said = Said(body=json.dumps(said).encode())
            if said.cut:
                self.connection.close()
                return
            self.send_response(said.status)
            for name, value in {"Content-Length": str(len(said.body)), **said.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said.body)

        def do_GET(self) -> None:
            with serving.lock:
                serving.asked.append(Asked(len(serving.asked) + 1, f"GET {self.path}", None, dict(self.headers)))
            self.send_error(405)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    serving.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield serving
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
