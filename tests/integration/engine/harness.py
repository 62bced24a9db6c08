"""Starts the toy operator as a process, applies toys, and waits for what should become true."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tests.controlplane.audit import WRITES, Request
from tests.controlplane.processes import ControlPlane
from tests.integration.engine.toy import API_VERSION, CRD, GROUP

REPOSITORY = Path(__file__).resolve().parents[3]
WITHIN_SECONDS = 30.0
AGENT = "dspy-operator"
_T = TypeVar("_T")


def eventually(look: Callable[[], _T], within: float = WITHIN_SECONDS) -> _T:
    """What `look` says once it is true; looks every 50 ms."""
    deadline = time.monotonic() + within
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not so within {within:.0f} s: last seen {seen!r}"
        time.sleep(0.05)
    return seen


@dataclass
class Process:
    """A toy operator."""

    popen: subprocess.Popen[bytes]
    log: Path
    port: int
    _counted: dict[str, float] = field(default_factory=dict)
    _logged: int = 0

    def begin(self) -> None:
        """From here on `metric` and `lines` tell only what is new."""
        self._counted, self._logged = {}, 0
        self._counted, self._logged = dict(self._series()), len(self.log.read_text())

    def lines(self, message: str = "") -> list[dict[str, Any]]:
        """What it logged, of one message if given."""
        found = []
        for line in self.log.read_text()[self._logged :].splitlines():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if message in entry.get("message", ""):
                    found.append(entry)
        return found

    def page(self, path: str) -> tuple[int, str]:
        """Code and text of one of its pages."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def metric(self, name: str, **labels: str) -> float:
        """A counter, its series with these labels summed up."""
        return sum(
            value - self._counted.get(series, 0.0)
            for series, value in self._series()
            if series.partition("{")[0] == f"dspy_operator_{name}"
            and all(f'{label}="{text}"' in series for label, text in labels.items())
        )

    def _series(self) -> Iterator[tuple[str, float]]:
        for line in self.page("/metrics")[1].splitlines():
            if not line.startswith("#"):
                series, _, value = line.rpartition(" ")
                yield series, float(value)

    def terminate(self) -> float:
        """SIGTERM; how many seconds it took to end."""
        started = time.monotonic()
        self.popen.send_signal(signal.SIGTERM)
        assert self.popen.wait(30) == 0, self.log.read_text()[-3000:]
        return time.monotonic() - started


@dataclass
class Bench:
    """A namespace on the control plane, and toy operators that see all namespaces."""

    plane: ControlPlane
    namespace: str
    folder: Path
    _processes: list[Process] = field(default_factory=list)

    # --- the operator -------------------------------------------------------------------------------------------

    def start(self, *, server: str = "", wait: bool = True, **environment: str) -> Process:
        """An operator that works; `server` instead of the API server itself."""
        kubeconfig = self.plane.kubeconfig
        if server:
            kubeconfig = self.folder / f"kubeconfig-{len(self._processes)}"
            kubeconfig.write_text(self.plane.kubeconfig.read_text().replace(self.plane.server, server))
        port, log = _free_port(), self.folder / f"operator-{len(self._processes)}.log"
        with log.open("wb") as out:
            popen = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.engine.toy"],
                cwd=REPOSITORY,
                env={**os.environ, "KUBECONFIG": str(kubeconfig), "TOY_PORT": str(port), **environment},
                stdout=out,
                stderr=out,
            )
        process = Process(popen, log, port)
        self._processes.append(process)
        if wait:
            eventually(lambda: process.lines("working") or process.popen.poll() is not None)
            assert process.popen.poll() is None, process.log.read_text()[-3000:]
        return process

    def close(self) -> None:
        for process in self._processes:
            if process.popen.poll() is None:
                process.popen.kill()
            process.popen.wait()

    def calm(self, process: Process, quiet_seconds: float = 0.5) -> None:
        """Waits until it has nothing to do: its passes stay the same for a while."""

        def passes() -> float:
            return process.metric("reconciles_total") + process.metric("queue_depth")

        def is_calm() -> bool:
            before = passes()
            time.sleep(quiet_seconds)
            return before == passes()

        eventually(is_calm, within=60)

    # --- objects ------------------------------------------------------------------------------------------------

    @property
    def toys(self) -> str:
        return f"/apis/{API_VERSION}/namespaces/{self.namespace}/toys"

    @property
    def config_maps(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/configmaps"

    def ask(self, method: str, path: str, body: object = None, *, kind: str = "json") -> Any:
        """The answer to a request that succeeds."""
        code, answer = self.plane.request(method, path, body, kind=kind)
        assert code < 300, (method, path, code, answer)
        return answer

    def toy(self, name: str, **spec: Any) -> Any:
        """Make a toy, or give it another spec."""
        body = {"apiVersion": API_VERSION, "kind": "Toy", "metadata": {"name": name}, "spec": spec}
        code, there = self.plane.request("GET", f"{self.toys}/{name}")
        if code == 404 or "deletionTimestamp" in there["metadata"]:
            return self.ask("POST", self.toys, body)
        edit = [{"op": "replace", "path": "/spec", "value": spec}]
        return self.ask("PATCH", f"{self.toys}/{name}", edit, kind="json-patch+json")

    def status(self, name: str) -> dict[str, Any]:
        return dict(self.ask("GET", f"{self.toys}/{name}").get("status") or {})

    def config_map(self, name: str) -> Any:
        """None where there is none."""
        code, body = self.plane.request("GET", f"{self.config_maps}/{name}")
        return body if code == 200 else None

    def data(self, name: str) -> Any:
        return (self.config_map(name) or {}).get("data")

    def edit(self, name: str, patch: object) -> Any:
        """A person's hand on a ConfigMap."""
        return self.ask("PATCH", f"{self.config_maps}/{name}?fieldManager=kubectl-edit", patch, kind="merge-patch+json")

    def writes(self, since: int, *, resource: str | None = None, everywhere: bool = False) -> list[Request]:
        """What operators changed, or tried to."""
        return [
            request
            for request in self.plane.audit.requests(since=since)
            if request.verb in WRITES
            and request.user_agent == AGENT
            and (everywhere or request.namespace == self.namespace)
            and resource in (None, request.resource)
        ]


def install_crd(plane: ControlPlane) -> None:
    """The toys' kind, once."""
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    code, answer = plane.request("POST", path, CRD)
    assert code in (201, 409), answer
    eventually(lambda: plane.request("GET", f"/apis/{API_VERSION}/toys")[0] == 200)


def remove_crd(plane: ControlPlane) -> None:
    """And all toys with it."""
    plane.request("DELETE", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/toys.{GROUP}")
    eventually(lambda: plane.request("GET", f"/apis/{API_VERSION}/toys")[0] == 404)


@contextlib.contextmanager
def bench(plane: ControlPlane, namespace: str, folder: Path) -> Iterator[Bench]:
    """A bench whose operators end with the block."""
    code, _ = plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    assert code == 201
    made = Bench(plane, namespace, folder)
    try:
        yield made
    finally:
        made.close()
        plane.request("DELETE", f"/apis/{API_VERSION}/namespaces/{namespace}/toys")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
