"""Ollama's server from its Go module, and the runner's library out of the xllamacpp wheel: what the fixture image holds."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from e2e.localmodel.serve import XLLAMACPP
from e2e.localmodel.wheels import unpack

from . import cache, paths, toolchain, versions
from .command import output_of, run
from .steps import docker

SOURCE = Path(__file__).resolve().parent / "fixtures" / "ollama"
VERSION = versions.module_version("github.com/ollama/ollama", SOURCE / "go.mod")


def folder() -> Path:
    return paths.cache() / "ollama" / cache.key(SOURCE / "go.mod", SOURCE / "go.sum", XLLAMACPP.requirement)


def present() -> bool:
    return folder().is_dir()


def build(log: Path) -> None:
    """About 100 s on two cores with an empty Go cache, 3 s with a full one. It needs cgo, hence a C compiler."""
    if not all(map(shutil.which, ["gcc", "g++", "strip"])):
        docker.install(log, ["gcc", "g++", "binutils"])
    go = toolchain.go(SOURCE / "go.mod")
    linked = f"-s -w -X=github.com/ollama/ollama/version.Version={VERSION.removeprefix('v')}"
    environment = {"CGO_ENABLED": "1", "CGO_CFLAGS": "-O2 -g0", "CGO_CXXFLAGS": "-O2 -g0", "GOFLAGS": "-buildvcs=false"}
    with cache.publish(folder()) as work:
        run(
            [go, "build", "-v", "-trimpath", "-ldflags", linked, "-o", work / "ollama", "github.com/ollama/ollama"],
            log=log,
            cwd=SOURCE,
            env={**environment, "GOWORK": "off"},
        )
        with tempfile.TemporaryDirectory(dir=work) as scratch:
            unpack(XLLAMACPP, Path(scratch))
            shutil.move(Path(scratch) / "xllamacpp", work / "xllamacpp")
        for library in (work / "xllamacpp").glob("*.so"):
            output_of(["strip", "--strip-unneeded", library])  # 106 MB -> 26
