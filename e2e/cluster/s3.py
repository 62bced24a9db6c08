"""An S3 server for the tests, Versity's gateway over a folder, from its Go module."""

from __future__ import annotations

from pathlib import Path

from . import cache, paths, toolchain, versions
from .command import run

SOURCE = Path(__file__).resolve().parent / "fixtures" / "s3"
_MODULE = "github.com/versity/versitygw"
VERSION = versions.module_version(_MODULE, SOURCE / "go.mod")


def folder() -> Path:
    return paths.cache() / "s3" / cache.key(SOURCE / "go.mod", SOURCE / "go.sum")


def program() -> Path:
    return folder() / "versitygw"


def present() -> bool:
    return folder().is_dir()


def build(log: Path) -> None:
    """A minute on two cores with an empty Go cache."""
    go = toolchain.go(SOURCE / "go.mod")
    environment = {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOWORK": "off"}
    with cache.publish(folder()) as work:
        program = work / "versitygw"
        run(
            [go, "build", "-v", "-trimpath", "-ldflags", "-s -w", "-o", program, f"{_MODULE}/cmd/versitygw"],
            log=log,
            cwd=SOURCE,
            env=environment,
        )
