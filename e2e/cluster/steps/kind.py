"""The cluster by kind: made, or removed and made again where a node is dead or the API does not answer."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

from .. import binaries, images, kubectl, paths
from ..command import Failed, ask, run
from .fixtures import WEIGHTS_IN_NODE, weights_folder
from .origin import decision


class Cluster:
    name = "cluster"
    expected_seconds = 30

    def __init__(self, *, workers: int | None = None, api_port: int | None = None) -> None:
        """None: as it is; for a new cluster no worker, and a free port."""
        self._wanted_workers, self._wanted_port = workers, api_port

    def check(self) -> bool:
        """Every node runs, is of this image and made with these settings, and the API answers with our kubeconfig."""
        nodes = images.nodes()
        if [_state_of(node) for node in nodes] != [("running", decision().node_image)] * (1 + self._workers()):
            return False
        if not (paths.kubeconfig().is_file() and _settings_file().is_file()):
            return False
        if json.loads(_settings_file().read_text()) != self._settings():
            return False
        return kubectl.tried("get", "--raw=/readyz", timeout_seconds=10)[0] == 0

    def _workers(self) -> int:
        return self._wanted_workers if self._wanted_workers is not None else max(len(images.nodes()) - 1, 0)

    def _port(self) -> int:
        return self._wanted_port if self._wanted_port is not None else port_of_cluster()

    def run(self, log: Path) -> None:
        wanted = self._settings()
        if images.nodes():
            delete(log)  # a dead node's etcd may be torn, its addresses may be another's: 25 s buy a sound one
        if port := self._port():
            refuse_taken(port)
        own = paths.kubeconfig()
        own.parent.mkdir(parents=True, exist_ok=True)
        fresh = own.with_name(f"kubeconfig.{os.getpid()}")
        _settings_file().write_text(json.dumps(wanted, indent=2))
        try:
            made_of: list[str | Path] = ["--image", decision().node_image, "--config", _settings_file()]
            run([*_kind("create"), *made_of, "--kubeconfig", fresh], log=log)
            fresh.replace(own)
        finally:
            fresh.unlink(missing_ok=True)

    def _settings(self) -> dict[str, object]:
        """kind's configuration; YAML reads JSON."""
        weights = {"hostPath": str(weights_folder()), "containerPath": WEIGHTS_IN_NODE, "readOnly": True}
        roles = ["control-plane"] + ["worker"] * self._workers()
        return {
            "kind": "Cluster",
            "apiVersion": "kind.x-k8s.io/v1alpha4",
            "networking": {"disableDefaultCNI": decision().choice == "built", "apiServerPort": self._port()},
            "nodes": [{"role": role, "extraMounts": [weights]} for role in roles],
            "kubeadmConfigPatches": [json.dumps(_FASTER)],
        }


# By default the Job controller's client allows 3.4 Jobs a second; with these it is the processor that limits (29 to 37).
_FASTER = {
    "kind": "ClusterConfiguration",
    "controllerManager": {
        "extraArgs": {
            "kube-api-qps": "1000",
            "kube-api-burst": "2000",
            "concurrent-job-syncs": "50",
            "concurrent-gc-syncs": "50",
        }
    },
    "scheduler": {"extraArgs": {"kube-api-qps": "1000", "kube-api-burst": "2000"}},
}


def _settings_file() -> Path:
    return paths.cache() / "kind.json"


def delete(log: Path) -> None:
    """Removes our cluster and only ours; kind finds it by its name's label."""
    run([*_kind("delete"), "--kubeconfig", paths.kubeconfig()], log=log)
    paths.kubeconfig().unlink(missing_ok=True)


def _kind(verb: str) -> list[str | Path]:
    return [binaries.program("kind"), verb, "cluster", "--name", paths.CLUSTER_NAME]


def port_of_cluster() -> int:
    """The port that our cluster was asked to have; 0 for a free one, and where there is no cluster."""
    if not (paths.kubeconfig().is_file() and _settings_file().is_file()):
        return 0
    port: int = json.loads(_settings_file().read_text())["networking"]["apiServerPort"]
    return port


def refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise Failed(
                f"port {port} on 127.0.0.1 cannot be had for the API server ({error.strerror}): "
                "free it, name another with --api-port, or leave that out for a free one"
            ) from error


def _state_of(node: str) -> tuple[str, str]:
    code, said = ask(["docker", "inspect", "--format", "{{.State.Status}} {{.Config.Image}}", node])
    state, _, image = said.strip().partition(" ")
    return (state, image) if code == 0 else ("gone", "")
