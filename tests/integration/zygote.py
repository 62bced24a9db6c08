"""A process that has imported the libraries and waits: it forks one that becomes `python -m MODULE ...`, for each request.

Importing DSPy takes most of a short command's time, and the product the most of what is left. One that is asked to has
imported both, for processes that are not measured; else each process imports the product itself, under its own coverage.
`tests.integration.forked` asks.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import runpy
import socket
import sys
import time
from pathlib import Path
from typing import Any

LIBRARIES = ("coverage", "dspy", "httpx", "rich.console", "tenacity", "typer", "yaml", "zstandard")
"""What the product imports of others. Not numpy, which starts threads: who needs it imports it, as ever."""
ALSO = ("numpy", "optuna", "gepa")
"""What the product's optimizers import when they are needed; with it, since most runs need one of them."""
PACKAGES = ("api", "contract", "runner", "cli")
"""Of the product: what runs in a process of a test."""
LARGEST_REQUEST = 1 << 20


def main() -> None:
    """Serve until the other end closes; in a forked process, be the program."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # as the product does before it imports DSPy
    for name in LIBRARIES:
        importlib.import_module(name)
    assert not {"dspy_operator", "numpy"} & set(sys.modules)
    if "product" in sys.argv[2:]:
        _import_the_product()
    gc.collect()
    gc.freeze()  # no collection in a forked process touches, and so copies, what all share
    request = _serve(socket.socket(fileno=int(sys.argv[1])))
    if request is not None:
        _become(**request)


def _import_the_product() -> None:
    """All but its programs, each of which is run as a main module."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # else numpy starts threads, which a fork does not take along
    for name in ALSO:
        importlib.import_module(name)
    for package in PACKAGES:
        root = importlib.import_module(f"dspy_operator.{package}")
        for found in pkgutil.walk_packages(root.__path__, f"{root.__name__}."):
            if found.name.rpartition(".")[2] not in ("__main__", "main"):
                importlib.import_module(found.name)


def _serve(requests: socket.socket) -> dict[str, Any] | None:
    """None at the end; in a forked process what it has to be."""
    while True:
        message, files, _, _ = socket.recv_fds(requests, LARGEST_REQUEST, 3)
        if not message:
            return None
        # A fork takes only the thread that forks: a lock that another held would stay locked.
        assert len(list(Path("/proc/self/task").iterdir())) == 1
        ours, theirs = os.pipe()
        between = os.fork()
        if not between:
            # Orphaned, its child goes to the process that asked, which can then wait for it as for one of its own.
            parent = os.getpid()
            child = os.fork()
            if child:
                os.write(theirs, str(child).encode())
                os._exit(0)
            while os.getppid() == parent:  # from here on it is the one that asked, as it would be of any program
                time.sleep(0.001)
            requests.close()
            os.close(ours)
            os.close(theirs)
            for number, file in enumerate(files):
                os.dup2(file, number)
                os.close(file)
            request: dict[str, Any] = json.loads(message)
            return request
        os.close(theirs)
        for file in files:
            os.close(file)
        os.waitpid(between, 0)
        requests.send(os.read(ours, 32))
        os.close(ours)


def _become(module: str, arguments: list[str], environment: dict[str, str], folder: str) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = folder  # as -m has it
    if others := environment.get("PYTHONPATH", ""):
        sys.path[1:1] = others.split(os.pathsep)
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module("sitecustomize")  # as Python's start does
    sys.orig_argv[:] = [sys.executable, "-m", module, *arguments]
    sys.argv[:] = [module, *arguments]
    import coverage

    coverage.process_startup(slug="pth")  # what a .pth file does at an interpreter's start
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
