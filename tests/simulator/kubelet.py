"""What a kubelet and a scheduler write about a pod."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

from tests.simulator.api import Api, Body
from tests.simulator.pod import main_container

NODE = "simulated"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


def now() -> str:
    """As Kubernetes writes times."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def join_cluster(api: Api) -> None:
    """A node that is ready; without one, the controllers remove pods that are bound to it."""
    await api.ask("POST", "/api/v1/nodes", {"metadata": {"name": NODE}})
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now()}
    status = {"status": {"conditions": [ready | {"lastTransitionTime": now(), "message": ""}]}}
    await api.do("PATCH", f"/api/v1/nodes/{NODE}/status", status, kind="strategic-merge-patch+json")


async def renew_lease(api: Api) -> None:
    """The node's sign of life: due every 40 s."""
    renewed = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    spec = {"holderIdentity": NODE, "leaseDurationSeconds": 40, "renewTime": renewed}
    code, _ = await api.ask("PATCH", f"{LEASES}/{NODE}", {"spec": spec}, kind="merge-patch+json")
    if code == 404:
        await api.ask("POST", LEASES, {"metadata": {"name": NODE}, "spec": spec})


class PodStatus:
    """Writes of one pod's status.

    Raises, from every method:
        Refused: with 404 when the pod is gone.
    """

    def __init__(self, api: Api, pod: Body) -> None:
        self._api, self._pod = api, pod
        metadata = pod["metadata"]
        self.path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        self._started = now()

    async def bind(self) -> None:
        """The scheduler's choice."""
        target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": self._pod["metadata"]["name"]},
            "target": target,
        }
        await self._api.do("POST", f"{self.path}/binding", binding)

    async def waiting(self, reason: str, message: str) -> None:
        """The container cannot start yet."""
        await self._write(
            {
                "phase": "Pending",
                "containerStatuses": [self._container({"waiting": {"reason": reason, "message": message}})],
            }
        )

    async def running(self, *, ready: bool) -> None:
        """The containers run; sidecars first."""
        inits = [
            self._container({"running": {"startedAt": self._started}}, of=container) | {"ready": ready, "started": True}
            for container in self._pod["spec"].get("initContainers", ())
        ]
        status = self._container({"running": {"startedAt": self._started}}) | {"ready": ready, "started": True}
        await self._write(
            {
                "phase": "Running",
                "startTime": self._started,
                "podIP": "10.1.0.1",
                "conditions": [
                    _condition("Initialized", True),
                    _condition("Ready", ready),
                    _condition("ContainersReady", ready),
                ],
                **({"initContainerStatuses": inits} if inits else {}),
                "containerStatuses": [status],
            }
        )

    async def ended(self, code: int, *, reason: str | None = None) -> None:
        """The container has ended, and with it the pod."""
        why = reason or ("Completed" if code == 0 else "Error")
        terminated = {"exitCode": code, "reason": why, "startedAt": self._started, "finishedAt": now()}
        await self._write(
            {
                "phase": "Succeeded" if code == 0 else "Failed",
                "conditions": [_condition("Ready", False), _condition("ContainersReady", False)],
                "containerStatuses": [self._container({"terminated": terminated})],
            }
        )

    async def evicted(self) -> None:
        """The node needs the memory; the container's own end is never written."""
        message = "The node was low on resource: memory."
        disrupted = _condition("DisruptionTarget", True) | {"reason": "TerminationByKubelet", "message": message}
        await self._write({"phase": "Failed", "reason": "Evicted", "message": message, "conditions": [disrupted]})

    async def disrupted(self, reason: str) -> None:
        """Somebody takes the pod's place away: a condition, and a deletion with its grace."""
        target = _condition("DisruptionTarget", True) | {"reason": reason, "message": "simulated"}
        await self._write({"conditions": [target, _condition("Ready", False)]})
        await self._api.ask("DELETE", self.path)

    async def confirm_deletion(self) -> None:
        """The kubelet says that nothing of the pod is left."""
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": self._pod["metadata"]["uid"]}}
        await self._api.ask("DELETE", self.path, options)

    def _container(self, state: dict[str, Any], *, of: dict[str, Any] | None = None) -> dict[str, Any]:
        container = of or main_container(self._pod)
        image = str(container["image"])
        return {
            "name": container["name"],
            "image": image,
            "imageID": "" if "waiting" in state else f"simulated@sha256:{hashlib.sha256(image.encode()).hexdigest()}",
            "ready": False,
            "restartCount": 0,
            "state": state,
        }

    async def _write(self, status: dict[str, Any]) -> None:
        await self._api.do("PATCH", f"{self.path}/status", {"status": status}, kind="strategic-merge-patch+json")


def _condition(kind: str, status: bool) -> dict[str, Any]:
    return {"type": kind, "status": str(status), "lastTransitionTime": now()}
