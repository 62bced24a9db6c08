"""kubectl on our cluster, with our kubeconfig and no other."""

from __future__ import annotations

import json
from typing import Any

from . import binaries, paths
from .command import ask, output_of


def _words(*args: str) -> list[str]:
    return [str(binaries.program("kubectl")), f"--kubeconfig={paths.kubeconfig()}", "--request-timeout=20s", *args]


def kubectl(*args: str, stdin: str | None = None, timeout_seconds: float = 120) -> str:
    """Its output. Raises Failed with what it said."""
    return output_of(_words(*args), stdin=stdin, timeout_seconds=timeout_seconds)


def tried(*args: str, stdin: str | None = None, timeout_seconds: float = 120) -> tuple[int, str]:
    """Its exit code and what it said, for what may fail."""
    return ask(_words(*args), stdin=stdin, timeout_seconds=timeout_seconds)


def apply(*objects: dict[str, Any]) -> None:
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))


def read(*args: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(kubectl("get", "-o", "json", *args))
    return answer
