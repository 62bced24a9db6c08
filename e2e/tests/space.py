"""One test's namespace in the cluster: apply, look, wait, and keep everything where the test fails."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dspy_operator.contract import names
from e2e.cluster import kubectl
from e2e.demo import release
from e2e.demo.apiserver import GROUP, ApiServer, Body
from e2e.demo.follow import condition, is_over

_SECONDS_BETWEEN_LOOKS = 0.5
OURS = {
    "ModelEndpoint": "modelendpoints",
    "PromptProgram": "promptprograms",
    "OptimizationRun": "optimizationruns",
}
_PATHS = {
    **{kind: f"{GROUP}/namespaces/{{}}/{plural}" for kind, plural in OURS.items()},
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
    "Pod": "/api/v1/namespaces/{}/pods",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
}
_RUNS_POD = f"{names.LABEL_COMPONENT}%3D{names.Component.JOB},{names.LABEL_NAME}%3D"
_MODELS_POD = f"{names.LABEL_COMPONENT}%3D{names.Component.SERVER}"


@dataclass(frozen=True)
class Space:
    """A namespace with the restricted Pod Security level."""

    name: str
    api: ApiServer

    # --- write --------------------------------------------------------------------------------------------------------

    def create(self) -> None:
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name, "labels": labels}})

    def apply(self, *bodies: Body) -> str:
        """`kubectl apply` as a person does it; what it said."""
        listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(bodies)})
        return kubectl.kubectl("apply", "-n", self.name, "-f", "-", stdin=listed)

    def delete(self, *words: str) -> None:
        kubectl.kubectl("delete", "-n", self.name, *words)

    # --- look ---------------------------------------------------------------------------------------------------------

    def find(self, kind: str, name: str) -> Body | None:
        return self.api.find(f"{_PATHS[kind].format(self.name)}/{name}")

    def all(self, kind: str, selector: str = "") -> list[Body]:
        return self.api.items(_PATHS[kind].format(self.name) + (f"?labelSelector={selector}" if selector else ""))

    def status(self, kind: str, name: str) -> Body:
        """Empty before there is one."""
        return (self.find(kind, name) or {}).get("status") or {}

    def account(self, program: str = "sentiment") -> dict[str, Any]:
        """Run -> its entry in the program's account."""
        data = (self.find("ConfigMap", f"{program}-account") or {}).get("data") or {}
        return {run: json.loads(text) for run, text in data.items()}

    def pods_of_run(self, run: str = "run") -> list[Body]:
        return self.all("Pod", _RUNS_POD + run)

    def jobs_of_run(self, run: str = "run") -> list[Body]:
        return self.all("Job", f"{names.LABEL_NAME}%3D{run}")

    def pods_of_models(self) -> list[Body]:
        return self.all("Pod", _MODELS_POD)

    # --- wait ---------------------------------------------------------------------------------------------------------

    def until(self, what: str, holds: Callable[[], bool], *, seconds: float) -> None:
        """Raises AssertionError with what is to be seen instead."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"{self.name}: not within {seconds:.0f} s: {what}\n{self._picture()}"
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def condition(
        self, kind: str, name: str, type_: str, status: str, reason: str | None = None, *, seconds: float = 60
    ) -> Body:
        """Until a condition says so about the present generation; the condition."""

        def says() -> bool:
            body = self.find(kind, name) or {}
            found = condition(body.get("status") or {}, type_)
            return (
                found.get("status") == status
                and reason in (None, found["reason"])
                and found.get("observedGeneration") == body["metadata"]["generation"]
            )

        self.until(f"{kind} {name}: {type_}={status} {reason or ''}".rstrip(), says, seconds=seconds)
        return dict(condition(self.status(kind, name), type_))

    def ended(self, run: str = "run", *, seconds: float = 180) -> Body:
        """The status of a run that is over, well or not."""
        self.until(f"run {run} is over", lambda: is_over(self.status("OptimizationRun", run)), seconds=seconds)
        return self.status("OptimizationRun", run)

    # --- keep ---------------------------------------------------------------------------------------------------------

    def keep(self, folder: Path) -> None:
        """Objects, events and logs of the namespace, and the operator's log, as files."""
        folder.mkdir(parents=True, exist_ok=True)
        kinds = ",".join([*OURS.values(), "configmaps", "jobs", "pods", "deployments", "persistentvolumeclaims"])
        commands = {
            "objects.yaml": ("get", kinds, "-n", self.name, "-o", "yaml"),
            "events.txt": ("get", "events", "-n", self.name, "--sort-by=.metadata.creationTimestamp"),
            "operator.log": ("logs", f"deploy/{release.NAME}", "-n", release.NAMESPACE, "--tail=5000"),
        }
        for pod in self.all("Pod"):
            name = pod["metadata"]["name"]
            commands[f"pod-{name}.log"] = ("logs", name, "-n", self.name, "--all-containers", "--tail=5000")
        for file, words in commands.items():
            (folder / file).write_text(kubectl.tried(*words)[1], encoding="utf-8")

    def _picture(self) -> str:
        seen: list[Body] = []
        for kind in OURS:
            seen += [{kind: body["metadata"]["name"], "status": body.get("status")} for body in self.all(kind)]
        for pod in self.all("Pod"):
            status = pod.get("status", {})
            states = [one.get("state") for one in status.get("containerStatuses", ())]
            seen.append({"Pod": pod["metadata"]["name"], "phase": status.get("phase"), "containers": states})
        return yaml.safe_dump_all(seen, sort_keys=False)[:8000]
