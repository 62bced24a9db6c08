"""What a loader has around it in a cluster: its endpoint's children, a token of their ServiceAccount, and the process itself."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from dspy_operator.contract import names
from dspy_operator.contract.documents import LoaderProgress
from dspy_operator.controllers.modelendpoint import children
from dspy_operator.controllers.modelendpoint.replica import progress_of
from dspy_operator.controllers.runnerpod import Owner
from dspy_operator.engine.plan import Body, Ref
from dspy_operator.engine.resources import CHILDREN
from tests.controlplane.processes import ControlPlane
from tests.integration.loader.servers import OllamaServer, free_port, status_of

POD = "mep-small-7d9f-x2x4z"
MODEL = "smollm2:135m"


@dataclass
class Loader:
    """A running `python -m dspy_operator.loader`."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def is_ready(self) -> bool:
        """What the kubelet's probe finds."""
        return status_of(f"http://127.0.0.1:{self.port}/readyz") == 200

    def end(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)


@dataclass
class Endpoint:
    """Endpoint `small` in a namespace of its own."""

    plane: ControlPlane
    namespace: str
    account: Path
    owner: Owner = field(init=False)

    def __post_init__(self) -> None:
        self.owner = Owner("ModelEndpoint", self.namespace, "small", "7c0e5a3e-0000-4000-8000-000000000001")

    @property
    def user(self) -> str:
        """As the audit log calls its pods."""
        return f"system:serviceaccount:{self.namespace}:{names.endpoint_channel('small')}"

    def create(self) -> None:
        """Channel and access, and the files that the kubelet would mount."""
        self._do("POST", "/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        for child in children.supporting(self.owner):
            # Without its owner: there is no such ModelEndpoint, and the garbage collector would see to that.
            metadata = {name: value for name, value in child["metadata"].items() if name != "ownerReferences"}
            ref = Ref.of(child)
            (resource,) = (one for one in CHILDREN if (one.api_version, one.kind) == (ref.api_version, ref.kind))
            self._do("POST", resource.path(self.namespace), {**child, "metadata": metadata})
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/mep-small-pod/token"
        token = self._do("POST", path, {"spec": {"expirationSeconds": children.TOKEN_SECONDS}})["status"]["token"]
        self.account.mkdir()
        (self.account / "token").write_text(token)
        shutil.copy(self.plane.authority, self.account / "ca.crt")

    @property
    def channel(self) -> Body:
        found: Body = self._do("GET", f"/api/v1/namespaces/{self.namespace}/configmaps/mep-small-pod")
        return found

    @property
    def said(self) -> LoaderProgress | None:
        """What the loader said last, read as the operator reads it."""
        return progress_of(self.channel, POD)

    @contextlib.contextmanager
    def loader(self, server: OllamaServer, registry: str, folder: Path, model: str = MODEL) -> Iterator[Loader]:
        """The process, with the arguments and the environment of its container."""
        port = free_port()
        log = folder / "loader.log"
        where = urlsplit(self.plane.server)
        environment = os.environ | {
            "KUBERNETES_SERVICE_HOST": str(where.hostname),
            "KUBERNETES_SERVICE_PORT": str(where.port),
        }
        command = [
            sys.executable,
            "-m",
            "dspy_operator.loader",
            f"--model={model}",
            f"--registry={registry}",
            "--insecure",
        ]
        command += [f"--ollama={server.url}", f"--port={port}", f"--namespace={self.namespace}"]
        command += ["--channel=mep-small-pod", f"--pod={POD}", f"--service-account={self.account}"]
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
            )
        try:
            yield Loader(process, port, log)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()

    def _do(self, method: str, path: str, body: object = None) -> Body:
        code, said = self.plane.request(method, path, body)
        assert code in (200, 201), f"{method} {path}: {code} {said}"
        return dict(said)
