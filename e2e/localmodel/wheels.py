"""Wheels pinned by hash, unpacked by uv: nothing of them is built, imported or run here."""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path


class DownloadFailed(Exception):
    """uv could not fetch or verify a wheel; the message carries uv's own words."""


class PackageVanished(DownloadFailed):
    """The registry answers, but no longer has this package or this version."""


@dataclass(frozen=True, kw_only=True)
class Wheel:
    package: str
    version: str
    sha256: tuple[str, ...]  # any of these: one per platform

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


def unpack(wheel: Wheel, folder: Path) -> None:
    """Into a plain folder. Without uv's cache: the weights would be on disk twice."""
    _install(wheel, ["--no-cache", "--python", sys.executable, "--target", str(folder)])


def install(wheel: Wheel, venv: Path) -> None:
    _install(wheel, ["--python", str(venv)])


def _install(wheel: Wheel, where: list[str]) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write(" ".join([wheel.requirement, *(f"--hash=sha256:{digest}" for digest in wheel.sha256)]))
        requirements.flush()
        options = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--requirement", requirements.name]
        command = ["uv", "pip", "install", "--no-progress", *where, *options]
        outcome = subprocess.run(command, capture_output=True, text=True)
    if outcome.returncode == 0:
        return
    if registry_lacks(wheel, outcome.stderr):
        raise PackageVanished(f"{wheel.requirement} is no longer in the package registry")
    raise DownloadFailed(f"{wheel.requirement}: {outcome.stderr.strip()}")


def registry_lacks(wheel: Wheel, said: str) -> bool:
    """Tells a deleted package from a failed network or a wrong hash, by uv's words: it has no exit code for it."""
    words = " ".join(said.split())
    return (
        f"{wheel.package} was not found in the package registry" in words
        or f"there is no version of {wheel.requirement}" in words
    )
