"""Volumes: that the default class's provisioner is up, and the small tmpfs of the class that can be filled."""

from __future__ import annotations

from pathlib import Path

from .. import images, kubectl
from ..command import output_of, succeeds

SMALL = "/var/local-path-small"
SMALL_MIB = 16


class Storage:
    name = "storage and dns"
    expected_seconds = 20

    def check(self) -> bool:
        mounted = all(succeeds(["docker", "exec", node, "mountpoint", "-q", SMALL]) for node in images.nodes())
        return (
            mounted
            and _available("local-path-storage", "local-path-provisioner")
            and _available("kube-system", "coredns")
        )

    def run(self, log: Path) -> None:
        mount = f"mkdir -p {SMALL} && (mountpoint -q {SMALL} || mount -t tmpfs -o size={SMALL_MIB}m,mode=1777 small {SMALL})"
        for node in images.nodes():
            output_of(["docker", "exec", node, "sh", "-c", mount])
        for namespace, name in (("local-path-storage", "local-path-provisioner"), ("kube-system", "coredns")):
            said = kubectl.kubectl("-n", namespace, "rollout", "status", f"deployment/{name}", "--timeout=120s")
            log.write_text(log.read_text() + said)


def _available(namespace: str, deployment: str) -> bool:
    code, said = kubectl.tried(
        "-n", namespace, "get", "deployment", deployment, "-o=jsonpath={.status.availableReplicas}"
    )
    return code == 0 and said.strip() not in ("", "0")
