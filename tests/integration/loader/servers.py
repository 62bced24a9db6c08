"""A real Ollama and a model registry as processes on this machine, for as long as a `with` block lasts."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import ollama as ollama_programs

FIXTURES = Path(ollama_programs.__file__).parent / "fixtures"
_START_SECONDS = 60.0
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass
class OllamaServer:
    """Ollama 0.34.2 with the llama.cpp of xllamacpp as its runner. Its store outlives its process."""

    home: Path
    store: Path
    port: int = field(default_factory=lambda: free_port())
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def install(self) -> None:
        """The program, and beside it the runner that it starts."""
        programs = ollama_programs.folder()
        (self.home / "bin").mkdir(parents=True, exist_ok=True)
        (self.home / "lib" / "ollama").mkdir(parents=True, exist_ok=True)
        shutil.copy(programs / "ollama", self.home / "bin" / "ollama")
        runner = self.home / "lib" / "ollama" / "llama-server"
        script = FIXTURES / "ollama" / "llama_server.py"
        runner.write_text(f'#!/bin/sh\nPYTHONPATH="{programs}" exec "{sys.executable}" "{script}" "$@"\n')
        runner.chmod(0o755)

    def start(self) -> None:
        """Returns when it answers."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "OLLAMA_HOST": f"127.0.0.1:{self.port}",
            "OLLAMA_MODELS": str(self.store),
            "OLLAMA_CONTEXT_LENGTH": "1024",
            "OLLAMA_KEEP_ALIVE": "-1",
            "OLLAMA_NUM_PARALLEL": "1",
            "OLLAMA_NO_CLOUD": "1",
            "OMP_WAIT_POLICY": "passive",
        }
        with (self.home / "ollama.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", self.home / "bin" / "ollama", "serve"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        wait_for(lambda: answers(f"{self.url}/api/version"), "Ollama", _START_SECONDS)

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ollama and its runner, which ends with it."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
            self._process.wait(20)
            self._process = None


@contextlib.contextmanager
def an_ollama(folder: Path, store: Path | None = None) -> Iterator[OllamaServer]:
    """Running."""
    server = OllamaServer(folder, store or folder / "store")
    server.install()
    server.start()
    try:
        yield server
    finally:
        server.end()


@dataclass(frozen=True)
class Registry:
    """The fixtures' registry: it counts what it sends, and can be slow or broken."""

    port: int

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def set(self, **control: Any) -> None:
        """rate_bytes_per_second, fault."""
        self._control("PUT", control)

    def reset(self) -> None:
        """No fault, no limit, nothing sent."""
        self._control("DELETE")

    @property
    def bytes_sent(self) -> int:
        """Of blobs, since the last reset."""
        return int(self._control("GET")["bytes_sent"])

    def _control(self, method: str, body: object = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.host}/control", data, method=method)
        with _OPENER.open(request, timeout=10) as answer:
            state: dict[str, Any] = json.load(answer)
        return state


@contextlib.contextmanager
def a_registry(models: dict[str, Path], log: Path, port: int | None = None) -> Iterator[Registry]:
    """Serving library/NAME:TAG for each of the models."""
    registry = Registry(port or free_port())
    script = FIXTURES / "registry" / "registry.py"
    served = [f"{name}={path}" for name, path in models.items()]
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", sys.executable, str(script), f"--port={registry.port}", *served],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_for(lambda: answers(f"http://{registry.host}/healthz"), "the registry", _START_SECONDS)
        yield registry
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def a_small_volume(folder: Path, *, megabytes: int) -> Iterator[Path]:
    """A file system that is full early."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"a volume of its own size needs the right to mount: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def status_of(url: str) -> int | None:
    """HTTP status; None where nobody listens."""
    try:
        with _OPENER.open(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def answers(url: str) -> bool:
    return status_of(url) == 200


def wait_for(done: Callable[[], bool], what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.05)
