"""A door before a model's server that counts what passes: requests, prompt tokens, and those of them that were computed anew."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx


class Counted:
    """What has passed so far.

    Args:
        url: of the door, ending in /v1.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def counts(self) -> Mapping[str, int]:
        """As the counting server's: requests, prompt_tokens; and evaluated, which the server's own cache did not have."""
        with self._lock:
            return dict(self._counts)

    def add(self, answer: Mapping[str, Any]) -> None:
        usage = answer.get("usage") or {}
        prompt = usage.get("prompt_tokens", 0)
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
        with self._lock:
            self._counts.update(requests=1, prompt_tokens=prompt, evaluated=prompt - cached)


@contextmanager
def counted(server: str) -> Iterator[Counted]:
    """A door for as long as the block lasts.

    Args:
        server: its URL, ending in /v1.
    """
    client = httpx.Client(timeout=600)

    class Door(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = client.post(
                server.removesuffix("/v1") + self.path, content=body, headers={"Content-Type": "application/json"}
            )
            door.add(json.loads(answer.content) if answer.status_code == 200 else {})
            self.send_response(answer.status_code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: the tables are what is printed."""

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    door = Counted(f"http://127.0.0.1:{listener.server_port}/v1")
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    try:
        yield door
    finally:
        listener.shutdown()
        listener.server_close()
        client.close()
