"""`python -m MODULE ...` as a process of its own, forked from one that has imported the libraries (tests.integration.zygote).

It has a pid, files, environment and folder of its own, is a child of this process, and can be signalled, killed and waited
for. It is in the state in which the product's own second start leaves it: with PYTHONHASHSEED=0.

An interpreter of its own has, at the cost of a second or two each, whatever is about the start or needs one:
- environment that Python or a library reads at its start: a given PYTHONHASHSEED, HOME (PYTHONPATH is heeded, and so are the
  intruders and bystanders on it: kills while publishing, faults of a provider, denied networks);
- limits that are set before the program (a full disk), pods in namespaces of their own;
- terminals, standard input, help and wrong flags (test_cli), and in tests/unit the order and the absence of imports;
- starts with random hash seeds: every optimizer's run and verify (test_run), two runs that must come to one revision
  (test_cli), and kills in a row (test_kill).

That both see the same of themselves is tested in test_forked.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_OF_THE_PROGRAM = (
    *("DSPY_OPERATOR_", "KUBERNETES_", "COVERAGE_", "PYTEST_CURRENT_TEST"),
    *("PYTHONPATH", "INTRUDER_", "BYSTANDER_"),
)
"""Beginnings of the names of variables that only the product, coverage or our `sitecustomize` reads, when it runs."""
_SET_CHILD_SUBREAPER = 36
_ROOT = Path(__file__).parents[2]


def fork_python(
    module: str,
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: str | None = None,
    imported: bool | None = None,
) -> subprocess.Popen[str]:
    """Start it, with pipes for stdout and stderr.

    Args:
        imported: whether the product is imported already; None: if it is one of the product's programs, and not measured.
    """
    environment = {**environment, "PYTHONHASHSEED": "0"}
    if imported is None:
        imported = module.startswith("dspy_operator.") and "COVERAGE_PROCESS_CONFIG" not in environment
    return _Forked(
        ["product" if imported else "", module, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder or str(Path.cwd()),
        env=environment,
    )


def can_fork(more: Mapping[str, str]) -> bool:
    """Whether these additions to the environment mean nothing to Python and the libraries at their start."""
    return all(name.startswith(_OF_THE_PROGRAM) for name in more)


class _Zygote:
    """Started with the environment that its processes get, so that what imports read of it is the same.

    Args:
        imports: "product" to import it too, or nothing.
    """

    def __init__(self, environment: Mapping[str, str], imports: str) -> None:
        self._lock = threading.Lock()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.zygote", str(theirs.fileno()), imports],
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                env=dict(environment),
                pass_fds=[theirs.fileno()],
            )
        self._requests = ours

    def fork(self, request: Mapping[str, Any], files: Sequence[int]) -> int:
        """The pid of the new process, a child of this one."""
        message = json.dumps(request).encode()
        with self._lock:
            # Only for this moment: other orphans are not ours to wait for.
            _adopt_orphans(True)
            try:
                socket.send_fds(self._requests, [message], files)
                answer = self._requests.recv(32)
            finally:
                _adopt_orphans(False)
        assert answer, f"the zygote ended with {self._process.wait()}"
        return int(answer)

    def close(self) -> None:
        """It ends as it hears of it."""
        self._requests.close()
        self._process.wait()


@functools.cache
def _zygote(environment: frozenset[tuple[str, str]], imports: str) -> _Zygote:
    made = _Zygote(dict(environment), imports)
    atexit.register(made.close)
    return made


def _adopt_orphans(adopt: bool) -> None:
    assert ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0) == 0


class _Forked(subprocess.Popen[str]):
    """Popen in everything but how the process comes to be."""

    # Its arguments have been these since Python 3.3, with others added after them.
    def _execute_child(
        self,
        args: Sequence[str],
        executable: object,
        preexec_fn: object,
        close_fds: object,
        pass_fds: object,
        cwd: str,
        env: Mapping[str, str],
        startupinfo: object,
        creationflags: object,
        shell: object,
        p2cread: int,
        p2cwrite: int,
        c2pread: int,
        c2pwrite: int,
        errread: int,
        errwrite: int,
        *others: object,
    ) -> None:
        imports, module, *arguments = args
        kept = frozenset((name, value) for name, value in env.items() if not name.startswith(_OF_THE_PROGRAM))
        request = {"module": module, "arguments": arguments, "environment": dict(env), "folder": cwd}
        try:
            self.pid = _zygote(kept, imports).fork(request, [0, c2pwrite, errwrite])
        finally:
            os.close(c2pwrite)
            os.close(errwrite)
        self._child_created = True
