"""Where downloads are kept between runs, and how two processes share them."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """localmodel/ in $DSPY_OPERATOR_CACHE, else in the XDG cache folder's dspy-operator/; created when absent."""
    if chosen := os.environ.get("DSPY_OPERATOR_CACHE"):
        cache = Path(chosen)
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "dspy-operator")
    folder = cache.resolve() / "localmodel"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """One process at a time, for example of pytest-xdist's workers; the kernel frees the lock of a dead one."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
