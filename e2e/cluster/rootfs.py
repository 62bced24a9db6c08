"""Debian root file systems made by mmdebstrap, kept as tar files: the node's, and the base of our own images."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import cache, paths, versions
from .command import run
from .steps import docker

# What Debian's own "slim" images leave out.
_LEFT_OUT = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*", "/usr/share/lintian/*"]


@dataclass(frozen=True)
class Rootfs:
    name: str
    packages: Sequence[str]

    @property
    def key(self) -> str:
        return cache.key(self.name, versions.DEBIAN_SUITE, *self.packages, *_LEFT_OUT)

    @property
    def tar(self) -> Path:
        return paths.cache() / "rootfs" / self.key / "rootfs.tar"

    @property
    def image(self) -> str:
        return f"dspy-operator/{self.name}-rootfs:{self.key}"

    def present(self) -> bool:
        return self.tar.is_file()

    def make(self, log: Path) -> None:
        if not shutil.which("mmdebstrap"):
            docker.install(log, ["mmdebstrap"])
        scratch = Path(tempfile.gettempdir(), f"dspy-operator-rootfs-{self.key}")
        shutil.rmtree(scratch, ignore_errors=True)  # of a build that was killed; the lock says that it is not at work
        scratch.mkdir(mode=0o755)  # not in the cache: apt's own user has to reach it
        try:
            with cache.publish(self.tar.parent) as work:
                run(
                    [
                        "mmdebstrap",
                        "--variant=minbase",
                        "--dpkgopt=force-unsafe-io",  # no fsync for each file of what a failure throws away
                        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT),
                        f"--include={','.join(self.packages)}",
                        versions.DEBIAN_SUITE,
                        work / "rootfs.tar",
                    ],
                    log=log,
                    env={"TMPDIR": str(scratch)},
                    contained=os.geteuid() == 0,
                )
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


NODE = Rootfs(
    "node",
    [
        *["systemd", "containerd", "runc", "containernetworking-plugins", "conntrack", "iptables", "nftables"],
        *["iproute2", "ethtool", "socat", "util-linux", "mount", "kmod", "procps", "jq", "ca-certificates"],
        "busybox-static",  # the storage provisioner's helper pods, and the test pods
    ],
)

# The likes of debian:bookworm-slim with its python3; libgomp1 is what compiled wheels expect of a system.
BASE = Rootfs("base", ["python3", "ca-certificates", "libgomp1"])
