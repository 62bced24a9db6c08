"""A forked process is like one of an interpreter of its own: else what the other tests see of it says nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.forked import can_fork, fork_python

STATE = """
import json, logging, os, resource, signal, sys, threading, warnings
from pathlib import Path

print(json.dumps({
    "parent": os.getppid(), "group": os.getpgrp(), "session": os.getsid(0), "nice": os.nice(0), "umask": os.umask(0o77),
    "folder": os.getcwd(), "environment": dict(os.environ), "path": sys.path, "hash": hash("text"), "main": __name__,
    "arguments": sys.argv, "original": sys.orig_argv[1:], "same main": sys.modules["__main__"].__file__ == __file__,
    "signals": [str(signal.getsignal(number)).partition(" at ")[0] for number in signal.valid_signals()],
    "blocked": list(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "files": [os.readlink(f"/proc/self/fd/{n}").partition(":")[0] for n in range(40) if Path(f"/proc/self/fd/{n}").exists()],
    "limits": [resource.getrlimit(n) for n in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE, resource.RLIMIT_FSIZE)],
    "streams": [[s.encoding, s.errors, s.line_buffering, s.write_through] for s in (sys.stdin, sys.stdout, sys.stderr)],
    "threads": [threading.active_count(), len(os.listdir("/proc/self/task")), threading.current_thread().name],
    "logging": [logging.root.level, len(logging.root.handlers)],
    "flags": list(sys.flags),
    "product": sorted(name for name in sys.modules if name.startswith(("dspy_operator", "numpy", "optuna"))),
}))
"""


def program(folder: Path, text: str) -> str:
    """One that may be running already is left as it is: a process could read it half written."""
    path = folder / "program.py"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
    return "program"


@pytest.fixture
def environment() -> dict[str, str]:
    """Ours, without coverage, which measures the product alone and opens files for it."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


def forked(
    folder: Path, environment: dict[str, str], text: str, *arguments: str, imported: bool = False
) -> subprocess.Popen[str]:
    return fork_python(program(folder, text), arguments, environment=environment, folder=str(folder), imported=imported)


@pytest.mark.parametrize("imported", [False, True], ids=["", "from one that has imported the product"])
def test_all_that_a_program_can_see_of_itself_is_as_in_an_interpreter_of_its_own(
    tmp_path: Path, environment: dict[str, str], imported: bool
) -> None:
    environment["DSPY_OPERATOR_TRY"] = "7"
    (tmp_path / "sitecustomize.py").write_text("import os; os.environ['CUSTOM'] = 'yes'")
    environment["PYTHONPATH"] = str(tmp_path)
    command = [sys.executable, "-m", program(tmp_path, STATE), "one", "--two"]
    own = subprocess.run(
        command,
        cwd=tmp_path,
        env={**environment, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    process = forked(tmp_path, environment, STATE, "one", "--two", imported=imported)
    stdout, stderr = process.communicate(timeout=60)
    expected = json.loads(own.stdout)
    seen = json.loads(stdout)
    assert seen["environment"]["CUSTOM"] == "yes"
    if imported:
        assert "dspy_operator.runner.process" in seen.pop("product")
        del expected["product"]
    assert seen["arguments"][1:] == ["one", "--two"]
    assert (seen, stderr) == (expected, "")


def test_it_ends_as_python_ends_it(tmp_path: Path, environment: dict[str, str]) -> None:
    ends = {
        "import sys; print('out'); sys.exit(64)": (64, "out\n", ""),
        "import sys; sys.exit('why')": (1, "", "why\n"),
        "import atexit; atexit.register(print, 'last'); print('first')": (0, "first\nlast\n", ""),
        "import os; os._exit(3)": (3, "", ""),
        "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()": (
            0,
            "thread\n",
            "",
        ),
    }
    for text, end in ends.items():
        process = forked(tmp_path, environment, text)
        stdout, stderr = process.communicate(timeout=60)
        assert (process.returncode, stdout, stderr) == end
    process = forked(tmp_path, environment, "1 / 0")
    assert process.communicate(timeout=60)[1].endswith("ZeroDivisionError: division by zero\n")
    assert process.returncode == 1


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_signal_ends_it_and_no_other(tmp_path: Path, environment: dict[str, str], sent: signal.Signals) -> None:
    text = "import time; print('here', flush=True); time.sleep(60)"
    process, other = (forked(tmp_path, environment, text) for _ in range(2))
    for each in (process, other):
        assert each.stdout is not None
        assert each.stdout.readline() == "here\n"
    assert process.pid != other.pid
    process.send_signal(sent)
    process.communicate(timeout=10)
    assert process.returncode == -sent
    assert other.poll() is None
    other.kill()
    other.communicate()
    with pytest.raises(ChildProcessError):  # nobody is left to wait for
        os.waitpid(process.pid, os.WNOHANG)


def test_random_numbers_are_its_own(tmp_path: Path, environment: dict[str, str]) -> None:
    text = "import random, uuid; print(random.random(), uuid.uuid4())"
    drawn = {forked(tmp_path, environment, text).communicate(timeout=60)[0] for _ in range(5)}
    drawn.add(f"{random.random()} ours\n")
    assert len(drawn) == 6


def test_what_python_and_libraries_read_at_their_start_needs_an_interpreter() -> None:
    assert can_fork({"DSPY_OPERATOR_TRY": "1", "KUBERNETES_SERVICE_PORT": "443"})
    assert not any(can_fork({name: "1"}) for name in ("PYTHONHASHSEED", "HOME", "HTTP_PROXY"))
