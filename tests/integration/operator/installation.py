"""Installs the operator as the chart does: CRDs, its ServiceAccount and ClusterRole; and runs it as a process with that identity."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster import binaries
from tests import yaml_text
from tests.controlplane.processes import ControlPlane

ROOT = Path(__file__).parents[3]
NAMESPACE = "dspy-operator-system"
RUNNER_IMAGE = "registry.example/dspy-operator/runner:test"
_START_SECONDS = 40.0
_STOP_SECONDS = 15.0
_INSTALLED_KINDS = {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}


_NAMELESS = """
import getpass

def getuser():
    raise KeyError("getpwuid(): uid not found: 65532")

getpass.getuser = getuser
"""
"""As in its pod, whose user 65532 has no name: a library that asks for it must not end the operator."""


@dataclass
class Operator:
    """The operator's process. `user` is how the audit log calls it."""

    plane: ControlPlane
    folder: Path
    user: str
    environment: dict[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None
    _starts: int = 0

    @property
    def log(self) -> Path:
        """What it wrote, over all its starts."""
        return self.folder / "operator.log"

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Started, and not ended since."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, and wait until it has seen the cluster."""
        self.start_unchecked()
        self.wait_until_healthy()

    def start_unchecked(self) -> None:
        """Start it, and go on at once: to kill it while it starts."""
        self._port = _free_port()
        nameless = self.folder / "nameless"
        nameless.mkdir(exist_ok=True)
        (nameless / "sitecustomize.py").write_text(_NAMELESS)
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(nameless), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
            "KUBECONFIG": str(self.folder / "kubeconfig"),
            "DSPY_OPERATOR_RUNNER_IMAGE": RUNNER_IMAGE,
            "DSPY_OPERATOR_IMAGE": "registry.example/dspy-operator/operator:test",
            "DSPY_OPERATOR_HEALTH_PORT": str(self._port),
            "DSPY_OPERATOR_METRICS_PORT": str(_free_port()),
            **self.environment,
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "dspy_operator.main"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=environment,
                start_new_session=True,
            )
        self._starts += 1

    def wait_until_healthy(self) -> None:
        """Until /healthz answers 200.

        Raises:
            AssertionError: with the end of its log.
        """
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_healthy():
            assert self.is_running, f"the operator ended:\n{self.end_of_log()}"
            assert time.monotonic() < deadline, f"the operator is not healthy:\n{self.end_of_log()}"
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL: nothing that it had in hand is finished."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, as Kubernetes does."""
        self._end(signal.SIGTERM)

    def end_of_log(self, lines: int = 40) -> str:
        """For messages."""
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def complaints(self) -> list[str]:
        """Lines of its log at level error: a healthy operator has none, whatever users do."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines() if self.log.exists() else ():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if str(entry.get("level", "")).lower() in {"error", "critical"}:
                found.append(line)
        return found

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"the operator did not end on {number.name}:\n{self.end_of_log()}") from None
        finally:
            self._process = None

    def _is_healthy(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self._port}/healthz", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def install(plane: ControlPlane) -> None:
    """CRDs and the chart's access rules, applied as a person would."""
    definitions = "\n---\n".join(path.read_text("utf-8") for path in sorted((ROOT / "crds").glob("*.yaml")))
    _apply(plane, definitions)
    _wait_until_established(plane)
    plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    rules = [document for document in rendered_chart() if document["kind"] in _INSTALLED_KINDS]
    assert {"ServiceAccount", "ClusterRole", "ClusterRoleBinding"} <= {document["kind"] for document in rules}
    _apply(plane, yaml.safe_dump_all(rules))


def _wait_until_established(plane: ControlPlane) -> None:
    """Not `kubectl wait`, which fails on a definition that has no status yet."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        _, said = plane.request("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions")
        established = [
            any(
                c["type"] == "Established" and c["status"] == "True"
                for c in crd.get("status", {}).get("conditions") or ()
            )
            for crd in said["items"]
        ]
        if established and all(established):
            break
        assert time.monotonic() < deadline, "the CRDs are not established"
        time.sleep(0.05)
    # kubectl asks another list, which comes a moment later.
    while (asked := plane.kubectl("get", "prompts")).returncode:
        assert time.monotonic() < deadline, asked.stderr
        time.sleep(0.1)


def rendered_chart() -> Iterator[dict[str, Any]]:
    """What `helm install` would create."""
    helm = [
        str(binaries.program("helm")),
        "template",
        "--kube-version=1.34.0",
        "dspy-operator",
        "charts/dspy-operator",
        f"--namespace={NAMESPACE}",
    ]
    done = subprocess.run(helm, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    yield from (document for document in yaml_text.documents(done.stdout) if document)


def account_of_chart() -> str:
    """Name of the ServiceAccount that the chart makes."""
    return next(
        str(document["metadata"]["name"]) for document in rendered_chart() if document["kind"] == "ServiceAccount"
    )


def an_operator(plane: ControlPlane, folder: Path, **environment: str) -> Operator:
    """An operator that is not started yet, with a token of the chart's ServiceAccount and nothing else."""
    account = account_of_chart()
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token"
    code, said = plane.request("POST", path, {"spec": {"expirationSeconds": 7200}})
    assert code == 201, said
    kubeconfig = json.loads(plane.kubeconfig.read_text())
    kubeconfig["users"] = [{"name": "admin", "user": {"token": said["status"]["token"]}}]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kubeconfig").write_text(json.dumps(kubeconfig))
    return Operator(plane, folder, f"system:serviceaccount:{NAMESPACE}:{account}", environment)


def _apply(plane: ControlPlane, manifests: str) -> None:
    done = plane.kubectl("apply", "--server-side", "-f", "-", stdin=manifests)
    assert done.returncode == 0, done.stderr


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
