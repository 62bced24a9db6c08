"""Debian root file systems made by mmdebstrap, kept as tar files: the node's, and the base of our own images."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import cache, paths, versions
from .command import run_beside
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


def make(wanted: Sequence[Rootfs], log: Path) -> None:
    """Those that are not there, beside each other: mmdebstrap keeps one core busy for half a minute."""
    if not shutil.which("mmdebstrap"):
        docker.install(log, ["mmdebstrap"])
    with contextlib.ExitStack() as stack:
        commands = [_command(rootfs, stack) for rootfs in wanted if not rootfs.present()]
        run_beside(commands, log=log, contained=os.geteuid() == 0)


def _command(rootfs: Rootfs, stack: contextlib.ExitStack) -> tuple[list[str | Path], dict[str, str]]:
    """(mmdebstrap's command, its environment); a tar that is whole gets its name when the stack ends."""
    scratch = Path(tempfile.gettempdir(), f"dspy-operator-rootfs-{rootfs.key}")
    shutil.rmtree(scratch, ignore_errors=True)  # of a build that was killed; the lock says that it is not at work
    scratch.mkdir(mode=0o755)  # not in the cache: apt's own user has to reach it
    stack.callback(shutil.rmtree, scratch, ignore_errors=True)
    work = stack.enter_context(cache.publish(rootfs.tar.parent))
    command: list[str | Path] = [
        "mmdebstrap",
        "--variant=minbase",
        "--dpkgopt=force-unsafe-io",  # no fsync for each file of what a failure throws away
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT),
        f"--include={','.join(rootfs.packages)}",
        versions.DEBIAN_SUITE,
        work / "rootfs.tar",
    ]
    return command, {"TMPDIR": str(scratch)}


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
