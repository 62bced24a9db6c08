"""Starts and stops the three processes. Nothing of them stays: they are killed by pid, and die with their parent."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from e2e.cluster import binaries

from . import certificates
from .audit import POLICY, AuditLog

_FOLDERS = "dspy-operator-api-"
_START_SECONDS = 60.0
_TRIES = 3  # a free port may be taken by another between finding and using it


class ProgramsMissing(Exception):
    def __init__(self) -> None:
        super().__init__(f"{binaries.folder()} is missing: run `python -m e2e.cluster programs` once (8 to 20 minutes)")


class EndedEarly(Exception):
    """A process ended while it was waited for; its log's end says why."""


@dataclass(frozen=True)
class ControlPlane:
    """A running API server whose user "admin" may do everything."""

    server: str
    folder: Path
    token: str
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list, repr=False)

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def authority(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def audit(self) -> AuditLog:
        return AuditLog(self.folder / "audit.log", touch=lambda path: self.request("GET", path))

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    def request(self, method: str, path: str, body: object = None, *, kind: str = "json") -> tuple[int, Any]:
        """The answer's code and body. `kind` is the body's type: "json", or "merge-patch+json" and the like."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": f"application/{kind}"}
        answer = self._client.request(method, self.server + path, content=data, headers=headers)
        return answer.status_code, _parsed(answer.content)

    @functools.cached_property
    def _client(self) -> httpx.Client:
        """Its connections stay: to begin one for each look costs the API server more than the answer."""
        # No proxy, whatever the environment says: the server is on this machine.
        context = ssl.create_default_context(cafile=str(self.authority))
        return httpx.Client(verify=context, trust_env=False, timeout=20)

    def kubectl(self, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [binaries.program("kubectl"), f"--kubeconfig={self.kubeconfig}", *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def serves_what_was_applied(self) -> None:
        """Wait until every CustomResourceDefinition is served.

        Raises:
            AssertionError: with kubectl's words, after a minute.
        """
        end = time.monotonic() + 60
        while True:
            waited = self.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
            if waited.returncode == 0:
                return
            # kubectl fails where a definition is so new that it has no status yet
            assert "accessor error" in waited.stderr and time.monotonic() < end, waited.stderr
            time.sleep(0.1)


@contextlib.contextmanager
def running() -> Iterator[ControlPlane]:
    """A control plane for as long as the block runs; its folder is removed with it.

    Start it from a thread that lives as long as it should (pytest's main thread): the kernel ends it with that thread.
    """
    if not binaries.present():
        raise ProgramsMissing
    _sweep()
    for attempt in range(1, _TRIES + 1):
        folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDERS}{os.getpid()}-"))
        processes: list[subprocess.Popen[bytes]] = []
        try:
            try:
                plane = _start(folder, processes)
            except EndedEarly as error:
                if attempt == _TRIES or "address already in use" not in str(error):
                    raise
                continue
            yield plane
            return
        finally:
            _kill(processes)
            shutil.rmtree(folder, ignore_errors=True)


def _sweep() -> None:
    """Removes the folders of test runs that were killed; their processes went with them."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDERS}*-*"):
        parent = folder.name.removeprefix(_FOLDERS).partition("-")[0]
        if parent.isdecimal() and not Path(f"/proc/{parent}").exists():
            shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, processes: list[subprocess.Popen[bytes]]) -> ControlPlane:
    keys = certificates.make(folder)
    token = secrets.token_hex(16)
    port = _free_port()
    plane = ControlPlane(f"https://127.0.0.1:{port}", folder, token, processes)
    (folder / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n")
    (folder / "audit-policy.json").write_text(json.dumps(POLICY))
    plane.kubeconfig.write_text(json.dumps(_kubeconfig(plane), indent=2))

    # Sockets in our own folder, where two control planes cannot meet. etcd takes only "host:port", and names a file so.
    peer, client = "unix://127.0.0.1:1", "unix://127.0.0.1:2"
    etcd = _spawn(
        *["etcd", f"--data-dir={folder}/etcd", "--unsafe-no-fsync", "--log-level=warn"],
        *[f"--listen-client-urls={client}", f"--advertise-client-urls={client}"],
        *[f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}"],
        folder=folder,
        processes=processes,
    )
    _wait("etcd's socket", lambda: (folder / "127.0.0.1:2").is_socket(), etcd, folder / "etcd.log")
    server = _spawn(
        *["kube-apiserver", f"--etcd-servers=unix:///{folder}/127.0.0.1:2"],
        *["--bind-address=127.0.0.1", f"--secure-port={port}", "--advertise-address=127.0.0.1"],
        # There is no node from which the Service "kubernetes" could be used, and its endpoint may not be a loopback.
        *["--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.0.0.0/24"],
        *[f"--tls-cert-file={keys.server}", f"--tls-private-key-file={keys.server_key}"],
        *["--enable-priority-and-fairness=false"],  # nobody is to be kept waiting
        *["--authorization-mode=RBAC", f"--token-auth-file={folder}/tokens.csv", "--allow-privileged"],
        *["--service-account-issuer=https://kubernetes.default.svc"],
        *[f"--service-account-key-file={keys.account_key}", f"--service-account-signing-key-file={keys.account_key}"],
        *[f"--audit-policy-file={folder}/audit-policy.json", f"--audit-log-path={folder}/audit.log"],
        folder=folder,
        processes=processes,
    )
    _wait("the API server", lambda: _ready(plane), server, folder / "kube-apiserver.log")
    manager = _spawn(
        *["kube-controller-manager", f"--kubeconfig={plane.kubeconfig}", "--leader-elect=false", "--secure-port=0"],
        *[f"--service-account-private-key-file={keys.account_key}", f"--root-ca-file={keys.authority}"],
        *["--use-service-account-credentials"],  # so that the audit log tells its controllers from the admin
        # Its default limits allow 3.4 Jobs a second; with these the processor is what limits (29 to 37 on two cores).
        *["--kube-api-qps=1000", "--kube-api-burst=2000", "--concurrent-job-syncs=50", "--concurrent-gc-syncs=50"],
        folder=folder,
        processes=processes,
    )
    account = "/api/v1/namespaces/default/serviceaccounts/default"
    log = folder / "kube-controller-manager.log"
    _wait("the controller manager", lambda: plane.request("GET", account)[0] == 200, manager, log)
    return plane


def _spawn(name: str, *options: str, folder: Path, processes: list[subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", str(binaries.program(name)), *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            # Memory is there; to collect at the usual pace takes a fifth of their time.
            env={**os.environ, "GOGC": "400"},
            start_new_session=True,  # a Ctrl-C is pytest's, which then stops us
        )
    processes.append(process)
    return process


def _wait(what: str, done: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not done():
        if process.poll() is not None:
            raise EndedEarly(f"{what} ended with {process.returncode}:\n{_end_of(log)}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} is not ready after {_START_SECONDS:.0f} s:\n{_end_of(log)}")
        time.sleep(0.05)


def _ready(plane: ControlPlane) -> bool:
    try:
        return plane.request("GET", "/readyz")[0] == 200
    except httpx.TransportError:  # not listening yet, or another's server on the port: its certificate is not ours
        return False


def _kill(processes: list[subprocess.Popen[bytes]]) -> None:
    """At once, the last first: what they know is in a folder that goes with them."""
    for process in reversed(processes):
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
    for process in processes:
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _kubeconfig(plane: ControlPlane) -> dict[str, Any]:
    """JSON is YAML."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "test", "cluster": {"server": plane.server, "certificate-authority": str(plane.authority)}}
        ],
        "users": [{"name": "admin", "user": {"token": plane.token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        "current-context": "test",
    }


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")
