"""One test's namespace: apply, look, wait."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import yaml

from tests.controlplane.processes import ControlPlane
from tests.integration.operator.installation import Operator
from tests.simulator import Simulator

Body = dict[str, Any]
WAIT_SECONDS = 30.0
_PATHS = {
    "OptimizationRun": "/apis/dspy-operator.io/v1alpha1/namespaces/{}/optimizationruns",
    "PromptProgram": "/apis/dspy-operator.io/v1alpha1/namespaces/{}/promptprograms",
    "ModelEndpoint": "/apis/dspy-operator.io/v1alpha1/namespaces/{}/modelendpoints",
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "Pod": "/api/v1/namespaces/{}/pods",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Secret": "/api/v1/namespaces/{}/secrets",
    "Service": "/api/v1/namespaces/{}/services",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "PersistentVolumeClaim": "/api/v1/namespaces/{}/persistentvolumeclaims",
    "Event": "/api/v1/namespaces/{}/events",
}


@dataclass(frozen=True)
class Namespace:
    """A namespace with restricted Pod Security, watched by the operator."""

    name: str
    plane: ControlPlane
    simulator: Simulator
    operator: Operator

    # --- write -------------------------------------------------------------------------------------------------------

    def create(self) -> None:
        """Make it."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        code, said = self.plane.request(
            "POST", "/api/v1/namespaces", {"metadata": {"name": self.name, "labels": labels}}
        )
        assert code == 201, said

    def elsewhere(self, name: str) -> Namespace:
        """Another namespace of the same cluster."""
        return replace(self, name=name)

    def delete(self) -> None:
        """Begin to remove it, and everything in it."""
        self.plane.request("DELETE", f"/api/v1/namespaces/{self.name}")

    def apply(self, *bodies: Body) -> None:
        """Server-side apply, as one field manager: a field that is no longer there is taken away."""
        for body in bodies:
            path = f"{self._path(body['kind'], body['metadata']['name'])}?fieldManager=person&force=true"
            code, said = self.plane.request("PATCH", path, body, kind="apply-patch+yaml")
            assert code in (200, 201), said

    def remove(self, kind: str, name: str) -> None:
        """Delete one object."""
        code, said = self.plane.request("DELETE", self._path(kind, name))
        assert code in (200, 202), said

    def patch(self, kind: str, name: str, change: Body, *, subresource: str = "") -> Body:
        """A JSON merge patch."""
        code, said = self.plane.request("PATCH", self._path(kind, name) + subresource, change, kind="merge-patch+json")
        assert code == 200, said
        return dict(said)

    # --- look --------------------------------------------------------------------------------------------------------

    def find(self, kind: str, name: str) -> Body | None:
        """An object, or None where there is none."""
        code, said = self.plane.request("GET", self._path(kind, name))
        assert code in (200, 404), said
        return dict(said) if code == 200 else None

    def get(self, kind: str, name: str) -> Body:
        """An object that is there."""
        found = self.find(kind, name)
        assert found is not None, f"there is no {kind} {self.name}/{name}"
        return found

    def all(self, kind: str, selector: str = "") -> list[Body]:
        """Objects of a kind."""
        question = f"?labelSelector={selector}" if selector else ""
        code, said = self.plane.request("GET", self._path(kind) + question)
        assert code == 200, said
        return list(said["items"])

    def account(self, program: str = "triage") -> dict[str, Any]:
        """Run name -> its entry in the account."""
        found = self.find("ConfigMap", f"{program}-account")
        return {name: json.loads(text) for name, text in ((found or {}).get("data") or {}).items()}

    # --- wait --------------------------------------------------------------------------------------------------------

    def wait(
        self, kind: str, name: str, until: Callable[[Body], bool], what: str, seconds: float = WAIT_SECONDS
    ) -> Body:
        """Until an object is as wanted.

        Raises:
            AssertionError: with its status and the end of the operator's log.
        """
        deadline = time.monotonic() + seconds
        while True:
            found = self.find(kind, name)
            if found is not None and until(found):
                return found
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"{kind} {self.name}/{name}: not {what} within {seconds:.0f} s\n{self._picture(found)}"
                )
            time.sleep(0.05)

    def until(self, done: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
        """Until something is so."""
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, f"{self.name}: not {what} within {seconds:.0f} s\n{self._picture({})}"
            time.sleep(0.05)

    def wait_gone(self, kind: str, name: str, seconds: float = WAIT_SECONDS) -> None:
        """Until an object is not there."""
        deadline = time.monotonic() + seconds
        while self.find(kind, name) is not None:
            assert time.monotonic() < deadline, (
                f"{kind} {self.name}/{name} is still there:\n{self._picture(self.find(kind, name))}"
            )
            time.sleep(0.05)

    def condition(
        self,
        kind: str,
        name: str,
        type_: str,
        status: str,
        reason: str | None = None,
        *,
        words: Collection[str] = (),
        seconds: float = WAIT_SECONDS,
    ) -> Body:
        """Until an object's condition says so, and in these words, about its present generation; the condition."""

        def said(body: Body) -> bool:
            found = condition_of(body, type_)
            return (
                found.get("status") == status
                and reason in (None, found["reason"])
                and found.get("observedGeneration") == body["metadata"]["generation"]
                and all(word in found["message"] for word in words)
            )

        what = f"{type_}={status} {reason or ''} {' '.join(map(repr, words))}".strip()
        body = self.wait(kind, name, said, what, seconds)
        return condition_of(body, type_)

    def phase(self, run: str, *phases: str, seconds: float = WAIT_SECONDS) -> Body:
        """Until a run is in one of these phases."""
        return self.wait(
            "OptimizationRun", run, lambda body: body.get("status", {}).get("phase") in phases, f"in {phases}", seconds
        )

    def _path(self, kind: str, name: str | None = None) -> str:
        return _PATHS[kind].format(self.name) + (f"/{name}" if name else "")

    def _picture(self, body: Body | None) -> str:
        """What a person would look at now."""
        parts = [yaml.safe_dump((body or {}).get("status"), sort_keys=False) if body else "(it does not exist)"]
        for kind in ("Job", "Pod"):
            for child in self.all(kind):
                status = child.get("status", {})
                parts.append(f"{kind} {child['metadata']['name']}: {json.dumps(status)[:600]}")
        return "\n".join(
            [*parts, "--- the simulator:", *self.simulator.problems, "--- the operator:", self.operator.end_of_log()]
        )


def condition_of(body: Body, type_: str) -> Body:
    """A condition, whatever generation it is about; empty where there is none."""
    return next((dict(c) for c in body.get("status", {}).get("conditions", ()) if c["type"] == type_), {})
