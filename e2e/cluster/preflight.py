"""What must be so before anything starts. Every refusal says what is wrong and what to do about it."""

from __future__ import annotations

import ipaddress
import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path

from . import binaries, paths, toolchain
from .command import Failed
from .steps import docker, kind

# Measured: Go's module and build caches 4.4 GB, programs 0.4, root file systems 0.5, images in docker 3, models 0.8.
_COLD_GB = {"go": 5.0, "cache": 6.0}
_WARM_GB = {"go": 0.0, "cache": 2.0}
# The service and pod ranges of kind, and where kubectl and kind reach the API server.
_NOT_BY_PROXY = ["127.0.0.1", "10.96.0.1", "10.244.0.1"]


def refuse(*, api_port: int | None = None) -> None:
    """Raises Failed on the first thing that would end badly minutes later."""
    _architecture()
    _proxies(os.environ)
    _docker()
    _uv()
    _disk(cold=not binaries.present())
    if api_port and api_port != kind.port_of_cluster():
        kind.refuse_taken(api_port)


def refuse_for_programs() -> None:
    """The same for the programs alone, which need no Docker."""
    _architecture()
    _uv()
    _disk(cold=not binaries.present())


def refuse_for_images() -> None:
    """The same for the product's images alone, which need neither Go nor a cluster."""
    _docker()
    _uv()
    _disk(cold=False)


def _docker() -> None:
    if not docker.answers():
        docker.refuse_without_root()


def _uv() -> None:
    if not shutil.which("uv"):
        raise Failed("uv is needed to fetch the model files and wheels, and is not on PATH")


def _architecture() -> None:
    found = (platform.system(), platform.machine())
    if found != ("Linux", "x86_64"):
        raise Failed(f"this is {found[0]} on {found[1]}; the cluster is built and tested on Linux on x86_64 only")


def _proxies(environment: Mapping[str, str]) -> None:
    """kind hands these to the nodes, where they would catch the cluster's own traffic."""
    values = {name.upper(): value for name, value in environment.items()}
    named = [name for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY") if values.get(name)]
    excepted = values.get("NO_PROXY", "")
    missing = [address for address in _NOT_BY_PROXY if not _covers(excepted, address)]
    if named and missing:
        raise Failed(
            f"{' and '.join(named)} is set, and NO_PROXY leaves out {', '.join(missing)}: the cluster's own traffic would "
            "go to the proxy. Unset it, or add 127.0.0.0/8,10.96.0.0/16,10.244.0.0/16,.svc,.cluster.local to NO_PROXY"
        )


def _covers(no_proxy: str, address: str) -> bool:
    for part in (part.strip() for part in no_proxy.split(",")):
        if part in ("*", address):
            return True
        try:
            if ipaddress.ip_address(address) in ipaddress.ip_network(part, strict=False):
                return True
        except ValueError:
            continue
    return False


def _disk(*, cold: bool) -> None:
    needs = _COLD_GB if cold else _WARM_GB
    places: dict[int, tuple[Path, float]] = {}
    for place, gigabytes in [
        (paths.cache(), needs["cache"]),
        *((path, needs["go"] / 2) for path in (toolchain.caches() if cold else [])),
    ]:
        existing = _nearest_existing(place)
        device = existing.stat().st_dev
        places[device] = (places.get(device, (existing, 0.0))[0], places.get(device, (existing, 0.0))[1] + gigabytes)
    for existing, gigabytes in places.values():
        free = shutil.disk_usage(existing).free / 1e9
        if free < gigabytes:
            raise Failed(
                f"{existing} has {free:.1f} GB free, and {gigabytes:.0f} GB are needed"
                f"{' to build everything' if cold else ''}: free some, or name another place by DSPY_OPERATOR_CACHE"
            )


def _nearest_existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
