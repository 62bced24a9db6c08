"""The tests' deterministic, counting endpoint in a pod of the namespace: what a model was asked, where nobody can hide it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tests.counting_server
from e2e.cluster.proof.pods import pod_spec
from e2e.demo.apiserver import Body
from e2e.tests.space import Space

NAME, _PORT = "counting", 8000
URL = f"http://{NAME}:{_PORT}/v1"
"""Without the namespace, so that the same manifests are used everywhere."""
_SOURCES = Path(tests.counting_server.__file__).parent
_PACKAGE = "/app/tests/counting_server"


@dataclass(frozen=True)
class Counting:
    """The server of a namespace."""

    space: Space

    def start(self, script: Body) -> None:
        """Make it, and wait until it answers."""
        self.space.apply(*_objects(script))
        self.space.until("the counting server answers", self._answers, seconds=60)

    def counts(self) -> dict[str, Any]:
        """Its GET /_counts."""
        return dict(self._ask("GET", "/_counts"))

    @property
    def requests(self) -> int:
        """How many completions it was asked for."""
        return int(self.counts()["requests"])

    def reaches(self, requests: int, *, seconds: float = 120) -> None:
        """Wait until it was asked so often."""
        self.space.until(f"{requests} requests", lambda: self.requests >= requests, seconds=seconds)

    def _answers(self) -> bool:
        return self._code_and_body("GET", "/_counts")[0] == 200

    def _ask(self, method: str, path: str) -> Any:
        code, said = self._code_and_body(method, path)
        assert code == 200, (code, said)
        return said

    def _code_and_body(self, method: str, path: str) -> tuple[int, Any]:
        return self.space.api.of_service(self.space.name, f"{NAME}:{_PORT}", path, method=method)


def _objects(script: Body) -> list[Body]:
    code = {path.name: path.read_text("utf-8") for path in _SOURCES.glob("*.py") if not path.name.startswith("test_")}
    shell = (
        f"cd /app && exec python3 -m tests.counting_server --host 0.0.0.0 --port {_PORT} --script /script/script.json"
    )
    spec = pod_spec(shell, memory="128Mi", restart="Always")
    spec["containers"][0]["volumeMounts"] = [
        {"name": "code", "mountPath": _PACKAGE, "readOnly": True},
        {"name": "script", "mountPath": "/script", "readOnly": True},
    ]
    spec["volumes"] = [
        {"name": "code", "configMap": {"name": f"{NAME}-code"}},
        {"name": "script", "configMap": {"name": f"{NAME}-script"}},
    ]
    metadata = {"name": NAME, "labels": {"app": NAME}}
    service = {"selector": {"app": NAME}, "ports": [{"port": _PORT, "targetPort": _PORT}]}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{NAME}-code"}, "data": code},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": f"{NAME}-script"},
            "data": {"script.json": json.dumps(script)},
        },
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME}, "spec": service},
    ]
