"""kube-apiserver and the rest, kubectl, etcd, CoreDNS, kind, helm and the storage provisioner, from Go modules."""

from __future__ import annotations

from pathlib import Path

from .. import binaries


class Binaries:
    name = "binaries"
    expected_seconds = 7 * 60 + 30

    def check(self) -> bool:
        return binaries.present()

    def run(self, log: Path) -> None:
        binaries.build(log)
