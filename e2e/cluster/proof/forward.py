"""`kubectl port-forward`, and HTTP through it: how this machine reaches a Service (its ClusterIP is not routed here)."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .. import binaries, paths
from ..command import Failed


@dataclass(frozen=True)
class Http:
    url: str

    def ask(self, method: str, path: str, body: object = None, *, timeout_seconds: float = 120) -> tuple[int, Any]:
        """The answer's code, and its body as JSON."""
        code, lines = self.stream(method, path, body, timeout_seconds=timeout_seconds)
        return code, lines[0] if len(lines) == 1 else lines

    def stream(self, method: str, path: str, body: object, *, timeout_seconds: float = 120) -> tuple[int, list[Any]]:
        """The answer's code, and all lines of its body, each a JSON document."""
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy on the way to this machine
        try:
            with opener.open(asked, timeout=timeout_seconds) as answer:
                return answer.status, [_parsed(line) for line in answer if line.strip()]
        except urllib.error.HTTPError as error:
            with error:
                return error.code, [_parsed(error.read())]


def forwarded(namespace: str, target: str, port: int) -> contextlib.AbstractContextManager[Http]:
    """A port of a Service or pod on a free one of this machine."""
    return listening("port-forward", "-n", namespace, "--address=127.0.0.1", target, f":{port}")


@contextlib.contextmanager
def listening(*words: str) -> Iterator[Http]:
    """A kubectl command that listens on a port of 127.0.0.1, says which, and goes on until it is killed."""
    kubectl = [str(binaries.program("kubectl")), f"--kubeconfig={paths.kubeconfig()}"]
    process = subprocess.Popen([*kubectl, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        found = re.search(r"127\.0\.0\.1:(\d+)", said)
        if not found:
            raise Failed(f"kubectl {' '.join(words)} says: {said.strip()}")
        yield Http(f"http://127.0.0.1:{found[1]}")
    finally:
        process.kill()
        process.communicate()


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.decode(errors="replace")
