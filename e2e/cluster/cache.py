"""The content-addressed cache: a thing's folder is named by a hash of all that went into it, and is there whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from . import paths
from .command import Failed


def key(*parts: str | Path) -> str:
    """Twelve hex digits of the strings and of the files (folders: all files below, by name and content) given."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(part.encode() + b"\0")
            continue
        files = sorted(path for path in part.rglob("*") if path.is_file()) if part.is_dir() else [part]
        for path in files:
            if "__pycache__" in path.parts:
                continue
            name = path.relative_to(part).as_posix() if part.is_dir() else part.name
            digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


@contextlib.contextmanager
def publish(target: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `target` by one rename at the end; on failure or a kill, `target` stays absent."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in target.parent.glob(f".tmp-{target.name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    work = target.parent / f".tmp-{target.name}-{os.getpid()}"
    work.mkdir()
    try:
        yield work
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def lock(name: str = "build") -> Iterator[None]:
    """Held by one process at a time. The kernel frees it when that process dies, so that it is never stale."""
    folder = paths.cache()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{name}.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise Failed(f"another build (process {holder}) is at work in {folder}: wait for it to end") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
