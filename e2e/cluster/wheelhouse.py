"""The wheels that our images are made of, in the versions and with the hashes of uv.lock, fetched for the images' Python.

uv names them, since only uv knows `[tool.uv] override-dependencies`; pip downloads them, which uv does not.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.localmodel.wheels import Wheel

from . import cache, paths
from .command import Failed, output_of, run

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = ("operator", "runner")
# Installs inside the build, and downloads here.
PIP = Wheel(package="pip", version="26.3", sha256=("f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13",))
_OLDEST_PYTHON = (3, 11)
# The first glibc 2.x for which manylinux wheels exist on a machine.
_OLDEST_GLIBC = {"x86_64": 5, "aarch64": 17}
_OUR_SOURCES = ("operator", "pyproject.toml", "README.md", "LICENSE")  # all that `uv build --wheel` reads


@dataclass(frozen=True)
class Interpreter:
    """A base image's Python, as far as the choice of wheels depends on it."""

    version: tuple[int, int]
    machine: str
    glibc: str

    @classmethod
    def parsed(cls, said: str, image: str) -> Interpreter:
        """From what QUESTION prints. Raises Failed where no wheels of ours would run on it."""
        words = said.split()
        if len(words) != 5 or words[3] != "glibc":
            raise Failed(f"{image} is no base for our images: they need glibc, as of Debian; its Python says: {said}")
        major, minor, machine, _, glibc = words
        found = cls((int(major), int(minor)), machine, glibc)
        if found.version < _OLDEST_PYTHON:
            wanted = ".".join(map(str, _OLDEST_PYTHON))
            raise Failed(
                f"{image} is no base for our images: it has Python {major}.{minor}, they need {wanted} or newer"
            )
        if machine not in _OLDEST_GLIBC:
            raise Failed(f"{image} is for {machine}; wheels are fetched for {' and '.join(sorted(_OLDEST_GLIBC))}")
        return found

    @property
    def dotted(self) -> str:
        return ".".join(map(str, self.version))

    @property
    def tags(self) -> Sequence[str]:
        """Every platform tag whose wheels run there, best first: pip wants them all."""
        newest = int(self.glibc.split(".")[1])
        minors = range(newest, _OLDEST_GLIBC[self.machine] - 1, -1)
        return [f"manylinux_2_{minor}_{self.machine}" for minor in minors] + [f"manylinux2014_{self.machine}"]


QUESTION = "import platform, sys; print(*sys.version_info[:2], platform.machine(), *platform.libc_ver())"


def folder(base: str) -> Path:
    """Where the packages' wheels for images on this base are, or will be."""
    return paths.cache() / "wheels" / cache.key(ROOT / "uv.lock", wanted(), base, PIP.requirement)


def wanted() -> str:
    """The part of pyproject.toml that decides on packages: editing a linter's rule fetches nothing."""
    told = _pyproject()
    project = told["project"]
    extras = [project["optional-dependencies"][name] for name in EXTRAS]
    return json.dumps([project["dependencies"], extras, told["tool"]["uv"]])


def present(base: str) -> bool:
    return folder(base).is_dir()


def fetch(base: str, interpreter: Interpreter, log: Path) -> None:
    """One folder for each image, and pip; 20 s from the registry, 6 s from the caches of uv and pip."""
    with cache.publish(folder(base)) as work:
        for extra in EXTRAS:
            requirements = work / extra / "requirements.txt"
            requirements.parent.mkdir()
            requirements.write_text(_pinned(extra, interpreter))
            _download(requirements, interpreter, log)
        requirements = work / "pip.txt"
        requirements.write_text(f"{PIP.requirement} --hash=sha256:{PIP.sha256[0]}\n")
        _download(requirements, interpreter, log)
        next(work.glob("pip-*.whl")).rename(work / "pip.whl")  # one name for the Dockerfile


def our_wheel() -> Path:
    """The folder of the wheel of this tree's own code, or where it will be."""
    return _our_wheel(ROOT)


def build_our_wheel(log: Path) -> Path:
    """Built from a copy, so that what is kept under the sources' hash is of these sources, whatever is edited meanwhile."""
    with tempfile.TemporaryDirectory(prefix="dspy-operator-source-") as scratch:
        copy = Path(scratch)
        for name in _OUR_SOURCES:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, copy / name)
        target = _our_wheel(copy)
        if not target.is_dir():
            with cache.publish(target) as work:
                run(["uv", "build", "--no-progress", "--wheel", "--out-dir", work, copy], log=log)
                (work / ".gitignore").unlink(missing_ok=True)  # uv's
    return target


def version() -> str:
    told: str = _pyproject()["project"]["version"]
    return told


def _our_wheel(root: Path) -> Path:
    return paths.cache() / "wheels" / f"ours-{cache.key(*(root / name for name in _OUR_SOURCES))}"


def _pinned(extra: str, interpreter: Interpreter) -> str:
    """What uv.lock has for this extra on this Python, with hashes and without markers: pip evaluates those for the
    Python it runs on, not for the one it downloads for."""
    project = ["--project", str(ROOT), "--frozen", "--no-dev", "--no-emit-project", "--extra", extra]
    locked = output_of(["uv", "export", "--quiet", "--no-annotate", "--no-header", *project])
    platform = ["--python-version", interpreter.dotted, "--python-platform", f"{interpreter.machine}-unknown-linux-gnu"]
    compiling = ["uv", "pip", "compile", "--quiet", "--no-deps", "--generate-hashes", "--no-annotate", "--no-header"]
    return output_of([*compiling, *platform, "-"], stdin=locked, timeout_seconds=300)


def _download(requirements: Path, interpreter: Interpreter, log: Path) -> None:
    pip = ["uv", "run", "--quiet", "--isolated", "--no-project", "--python", sys.executable, "--with", PIP.requirement]
    pip += ["python", "-m", "pip", "download", "--disable-pip-version-check", "--progress-bar", "off"]
    only = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--implementation", "cp"]
    python = ["--python-version", interpreter.dotted]
    platforms = [word for tag in interpreter.tags for word in ("--platform", tag)]
    run([*pip, *only, *python, *platforms, "-d", requirements.parent, "-r", requirements], log=log)


def _pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())
