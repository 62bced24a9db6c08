"""A server of passages, that can be told to fail, and counts what it was asked."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any]
"""(status, what is sent as JSON)."""


def passages(query: str, count: int) -> Answer:
    """Two, whatever was asked; `count` is how often it was."""
    return 200, [f"On {query}: a thing is what it is.", f"More on {query}."]


@dataclass
class SearchServer:
    """`answers` decides by the query and by how often it came, from 1."""

    url: str
    answers: Callable[[str, int], Answer]
    asked: Counter[str] = field(default_factory=Counter)
    top_ks: set[int] = field(default_factory=set)
    keys: set[str | None] = field(default_factory=set)
    """X-Api-Key of whoever asked."""


@contextmanager
def search_server(answers: Callable[[str, int], Answer] = passages) -> Iterator[SearchServer]:
    """One on a port of its own."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                serving.asked[body["query"]] += 1
                serving.top_ks.add(body["topK"])
                serving.keys.add(self.headers["X-Api-Key"])
                count = serving.asked[body["query"]]
            status, content = serving.answers(body["query"], count)
            sent = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving = SearchServer(f"http://127.0.0.1:{server.server_address[1]}/search", answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield serving
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
