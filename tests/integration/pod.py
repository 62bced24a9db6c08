"""A runner's pod without a kubelet: the mounts, the environment and the rights that it gets, on a real API server."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dspy_operator.cli.manifests import one_run, read_manifests
from dspy_operator.contract import names
from dspy_operator.contract.resolve import Surroundings, control_of, resolve, resolve_validation
from dspy_operator.contract.runspec import Control, Incumbent, Paths, RunSpec
from dspy_operator.runner.pod import ENV_ACCOUNT
from tests.controlplane.audit import Request
from tests.controlplane.processes import ControlPlane
from tests.counting_server import CountingServer
from tests.integration.forked import can_fork, fork_python
from tests.integration.harness import Case, Ended, ended, seconds_to_the_end

START_SECONDS = 60
"""Until a process has come to where it is waited for; generous, the machine may be busy."""
IMAGE = "registry.example/dspy-operator-runner@sha256:0123"


@dataclass
class PodPlace:
    """One pod: its namespace, its folder of mounts, and what can be done with it from outside."""

    folder: Path
    case: Case
    server: CountingServer
    plane: ControlPlane
    port: int
    """Of the API server, or of what stands before it."""
    attempt: int = 2
    try_: int = 3
    namespace: str = field(default_factory=lambda: f"pod-{uuid.uuid4().hex[:8]}")
    name: str = names.run_channel("run")
    inside: Path | None = None
    """Where the pod sees `folder`; None where it is."""
    _processes: list[subprocess.Popen[str]] = field(default_factory=list)
    _since: int = 0
    _started_at: float = 0.0

    # --- what the operator makes ---------------------------------------------------------------------------------------

    def grant(self) -> None:
        """Namespace, ServiceAccount, Role, RoleBinding and token: get and patch one ConfigMap."""
        core, rbac = f"/api/v1/namespaces/{self.namespace}", "/apis/rbac.authorization.k8s.io/v1"
        self._make("/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        self._make(f"{core}/serviceaccounts", {"metadata": {"name": self.name}})
        rule = {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [self.name], "verbs": ["get", "patch"]}
        self._make(f"{rbac}/namespaces/{self.namespace}/roles", {"metadata": {"name": self.name}, "rules": [rule]})
        binding = {
            "metadata": {"name": self.name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": self.name},
            "subjects": [{"kind": "ServiceAccount", "name": self.name, "namespace": self.namespace}],
        }
        self._make(f"{rbac}/namespaces/{self.namespace}/rolebindings", binding)
        made = self._make(f"{core}/serviceaccounts/{self.name}/token", {"spec": {"expirationSeconds": 3600}})
        self.account.mkdir(parents=True)
        (self.account / "token").write_text(made["status"]["token"])
        shutil.copy(self.plane.authority, self.account / "ca.crt")

    def put(self, data: Mapping[str, str]) -> None:
        """Make the channel's ConfigMap."""
        path = f"/api/v1/namespaces/{self.namespace}/configmaps"
        self._make(path, {"metadata": {"name": self.name}, "data": dict(data)})

    def control(self, generation: int = 1, **changes: Any) -> Control:
        """The control document of the case's run, with changes."""
        manifests = read_manifests([self.case.write(self.folder / "manifests")])
        endpoints = {f"{namespace}/{name}": each for (namespace, name), each in manifests.endpoints.items()}
        control = control_of(one_run(manifests, None), endpoints, generation=generation)
        return Control.model_validate(control.document() | changes)

    def steer(self, generation: int, **changes: Any) -> None:
        """What the operator does when a Live field changes."""
        text = json.dumps(self.control(generation, **changes).document())
        self._patch({names.KEY_CONTROL: text})

    def spec(self, *, incumbent: Path | None = None) -> RunSpec:
        """run.json as `resolve` makes it, with the pod's paths."""
        manifests = read_manifests([self.case.write(self.folder / "manifests")])
        run = one_run(manifests, None)
        program = next(iter(manifests.programs.values()))
        endpoints = {f"{namespace}/{name}": each for (namespace, name), each in manifests.endpoints.items()}
        around = Surroundings(
            data_path=self.seen(self.mounts / "data" / "data.jsonl"),
            paths=Paths(
                journal=self.seen(self.work / "journal.jsonl"),
                out=self.seen(self.work / "out"),
                control=self.seen(self.work / "control.json"),
            ),
            urls=dict.fromkeys(endpoints, self.server.url),
            key_files={key: self.seen(self.mounts / "secrets" / "task" / "api-key") for key in endpoints},
            incumbent=Incumbent(revision="sentiment-00000000", path=str(incumbent)) if incumbent else None,
            attempt=self.attempt,
        )
        spec = resolve(run, program, endpoints, around)
        return self._in_namespace(spec)

    def validation(self) -> RunSpec:
        """The same for a `validate` Job."""
        manifests = read_manifests([self.case.write(self.folder / "manifests")])
        spec = self.spec()
        around = Surroundings(data_path=spec.dataset.path, paths=spec.paths, attempt=self.attempt)
        return self._in_namespace(resolve_validation(next(iter(manifests.programs.values())), around))

    def _in_namespace(self, spec: RunSpec) -> RunSpec:
        return spec.model_copy(update={"run": spec.run.model_copy(update={"namespace": self.namespace})})

    # --- the pod -------------------------------------------------------------------------------------------------------

    @property
    def mounts(self) -> Path:
        return self.folder / "mounts"

    def seen(self, path: Path) -> str:
        """A path of ours as the pod sees it."""
        return str((self.inside or self.folder) / path.relative_to(self.folder))

    @property
    def account(self) -> Path:
        return self.folder / "account"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    def start(
        self, spec: RunSpec | None = None, *, before: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """The runner as the kubelet starts it, not waited for.

        Args:
            before: a command that starts it in turn, for example in a namespace of its own.
        """
        spec = spec or self.spec()
        mounted(self.mounts / "spec", {"run.json": json.dumps(spec.document())})
        rows = "".join(json.dumps(row) + "\n" for row in self.case.rows())
        mounted(self.mounts / "data", {"data.jsonl": rows})
        self.work.mkdir(exist_ok=True)
        self._since, self._started_at = self.plane.audit.mark(), time.monotonic()
        surroundings = {
            name: value for name, value in os.environ.items() if name not in ("PYTHONHASHSEED", "HOME", "PYTHONPATH")
        }
        surroundings |= {
            names.ENV_CHANNEL: self.name,
            names.ENV_TRY: str(self.try_),
            names.ENV_IMAGE: IMAGE,
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self.port),
            ENV_ACCOUNT: self.seen(self.account),
            **(environment or {}),
        }
        module, run_json = "dspy_operator.runner", self.seen(self.mounts / "spec" / "run.json")
        if not before and can_fork(environment or {}):
            process = fork_python(module, [run_json], environment=surroundings, folder="/")
        else:
            process = subprocess.Popen(
                [*before, sys.executable, "-m", module, run_json],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd="/",
                env=surroundings,
            )
        self._processes.append(process)
        return process

    def end(self, process: subprocess.Popen[str], *, timeout: float = 90) -> Ended:
        """Wait for the process, and check what it asked of the API server: little, and of one object."""
        done = ended(process, self.work / "out", timeout=timeout)
        seconds = time.monotonic() - self._started_at
        asked = self.asked()
        assert {(each.resource, each.name) for each in asked} <= {("configmaps", self.name)}
        assert {each.verb for each in asked} <= {"get", "patch"}
        # One as it starts, one each 5 s, one with the result.
        assert sum(each.verb == "patch" for each in asked) <= seconds / 5 + 2
        return done

    def signalled(self, process: subprocess.Popen[str]) -> tuple[Ended, float]:
        """SIGTERM; the end, and the seconds to it."""
        seconds = seconds_to_the_end(process, signal.SIGTERM)
        return self.end(process), seconds

    # --- what can be seen ----------------------------------------------------------------------------------------------

    @property
    def data(self) -> dict[str, str]:
        """The channel's keys."""
        code, body = self.plane.request("GET", self.path)
        assert code == 200, body
        return dict(body.get("data", {}))

    def document(self, key: str) -> dict[str, Any]:
        """One of them, parsed; empty where it is not there yet."""
        document: dict[str, Any] = json.loads(self.data.get(key, "{}"))
        return document

    @property
    def progress(self) -> dict[str, Any]:
        return self.document(names.KEY_PROGRESS)

    @property
    def result(self) -> dict[str, Any]:
        return self.document(names.KEY_RESULT)

    def revision(self) -> dict[str, str]:
        """File name -> content."""
        prefix = names.KEY_REVISION
        return {key.removeprefix(prefix): text for key, text in self.data.items() if key.startswith(prefix)}

    def control_in_force(self) -> int:
        """Generation of the control document that the pod read last; `effective` says so with the next progress, 5 s later."""
        generation: int = json.loads((self.work / "control.json").read_bytes())["generation"]
        return generation

    @property
    def path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/configmaps/{self.name}"

    def asked(self) -> list[Request]:
        """What the pod asked of the API server, which counts it in its audit log."""
        user = f"system:serviceaccount:{self.namespace}:{self.name}"
        return [each for each in self.plane.audit.requests(since=self._since) if each.user == user]

    def delete(self) -> None:
        """Delete the channel."""
        code, body = self.plane.request("DELETE", self.path)
        assert code == 200, body

    def until(self, process: subprocess.Popen[str], holds: Callable[[], bool]) -> None:
        """Wait for something to hold while the pod runs."""
        end = time.monotonic() + START_SECONDS
        while not holds():
            assert process.poll() is None, f"ended before its point: {process.communicate()}"
            assert time.monotonic() < end, (self.server.counts(), self.data)
            time.sleep(0.02)

    def kill(self) -> None:
        """Whatever a failed test left running."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.communicate()

    def _make(self, path: str, body: object) -> dict[str, Any]:
        code, made = self.plane.request("POST", path, body)
        assert code == 201, made
        assert isinstance(made, dict)
        return made

    def _patch(self, data: Mapping[str, str | None]) -> None:
        code, body = self.plane.request("PATCH", self.path, {"data": data}, kind="merge-patch+json")
        assert code == 200, body


@contextmanager
def pod_place(
    folder: Path, case: Case, plane: ControlPlane, *, port: int | None = None, granted: bool = True, **script: Any
) -> Iterator[PodPlace]:
    """A pod's place with its own counting server, namespace and, if granted, channel with a first control document."""
    with CountingServer(case.script(**script)) as server:
        place = PodPlace(folder, case, server, plane, port or urlsplit(plane.server).port or 0)
        place.grant()
        if granted:
            place.put({names.KEY_CONTROL: json.dumps(place.control().document())})
        try:
            yield place
        finally:
            place.kill()


def mounted(folder: Path, files: Mapping[str, str]) -> Path:
    """A folder as a kubelet mounts a ConfigMap: each file a link through `..data`, which is a link itself."""
    content = folder / "..2026_01_01_00_00_00.1"
    content.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (content / name).write_text(text, encoding="utf-8")
        _link(folder / name, Path("..data") / name)
    _link(folder / "..data", Path(content.name))
    return folder


def _link(link: Path, target: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(target)
