"""Runs a local model behind an OpenAI-compatible URL for as long as a `with` block lasts."""

import json
import logging
import os
import platform
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.localmodel.cache import cache_folder, exclusive
from e2e.localmodel.weights import ModelName, fetch
from e2e.localmodel.wheels import Wheel, install

log = logging.getLogger(__name__)

XLLAMACPP = Wheel(
    package="xllamacpp",
    version="2026.10.11549",
    sha256=(
        "c54e7d13520ecc989c63dc99d55de3065e2f343a91f43f053d16b5e62077c261",  # manylinux x86_64 (needs AVX2)
        "e2a3e79e775515de4ad197e667f874070446ef9ac9cf2044bc9866bc4c72289e",  # manylinux aarch64, not tried
    ),
)

SLOTS = 2  # on 2 cores 4 or 8 slots answered no more requests a second than 1 or 2
CONTEXT_TOKENS = 8192  # 4096 a slot, the contextLength of examples/sentiment/endpoint.yaml
CACHE_MIB = 256  # llama.cpp's default of 8 GiB grew to 2.7 GB within a few hundred calls; with 256: 1.1 GB
MAX_THREADS = 4  # only 2 were measured; a model this small gains little from more
READY_SECONDS = 120  # 1 to 2 s measured; the margin is for a cold disk and a busy machine
STOP_SECONDS = 10


class ServerFailed(Exception):
    """The server ended, or did not answer in time; the message has the end of its log."""


@dataclass(frozen=True, kw_only=True)
class LocalEndpoint:
    url: str  # OpenAI's base URL, ending in /v1
    model: str  # as Ollama names it
    process: subprocess.Popen[str]
    log: Path


@contextmanager
def local_model(name: ModelName | str, *, port: int = 0, log_file: Path | None = None) -> Iterator[LocalEndpoint]:
    """A server that has answered one call. Port 0 is a free one.

    Without `log_file` the log is a temporary file, which stays only when the block fails. The server ends with the
    block, and with the thread that entered it: the kernel ties it to that thread, which covers SIGKILL of this
    process too. Raises what `weights.fetch` raises, and ServerFailed.
    """
    weights = fetch(ModelName(name))
    python = _server_venv() / "bin" / "python"
    keep_log = log_file is not None
    if log_file is None:
        descriptor, created = tempfile.mkstemp(prefix=f"dspy-operator-{weights.model.name}-", suffix=".log")
        os.close(descriptor)
        log_file = Path(created)
    options = {
        "model": weights.path,
        "served-as": weights.model.served_as,
        "port": port,
        "slots": SLOTS,
        "context": CONTEXT_TOKENS,
        "threads": min(len(os.sched_getaffinity(0)), MAX_THREADS),
        "cache-mib": CACHE_MIB,
        "parent": os.getpid(),
    }
    command = [str(python), str(Path(__file__).with_name("llama_server.py"))]
    command += [f"--{option}={value}" for option, value in options.items()]
    # OpenMP's threads spin at each barrier by default; on one CPU together that made calls 10 times slower. Waiting
    # passively also leaves the CPU to others. OMP_PROC_BIND is faster on a quiet machine only: beside a compiler,
    # 8 calls took 23 s with it, 18 s and 29 s with this.
    environment = os.environ | {"OMP_WAIT_POLICY": "passive"}
    with log_file.open("w", encoding="utf-8") as stderr:
        # A session of its own: Ctrl-C on a terminal is for us, and we stop the server when the block has ended.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, env=environment, text=True,
            start_new_session=True,
        )  # fmt: skip
    try:
        url = f"{_address(process, log_file)}/v1"
        endpoint = LocalEndpoint(url=url, model=weights.model.served_as, process=process, log=log_file)
        _one_token(endpoint)
        log.info("%s answers at %s, log in %s", endpoint.model, endpoint.url, endpoint.log)
        yield endpoint
    finally:
        _stop(process)
    if not keep_log:
        log_file.unlink()


def _server_venv() -> Path:
    """Not the project's: its Python gets no native code from here, and `uv sync` would remove what it does not know."""
    version = f"{XLLAMACPP.version}-py{sys.version_info.major}.{sys.version_info.minor}-{platform.machine()}"
    venv = cache_folder() / f"xllamacpp-{version}"
    with exclusive(venv.with_name(f"{venv.name}.lock")):
        if not (venv / "bin" / "python").exists():  # also when the Python that it links to was removed
            unfinished = venv.with_name(f"{venv.name}.unfinished")
            for folder in (venv, unfinished):
                shutil.rmtree(folder, ignore_errors=True)
            log.info("installing %s (34 MB)", XLLAMACPP.requirement)
            command = ["uv", "venv", "--quiet", "--no-project", "--relocatable", "--python", sys.executable]
            subprocess.run([*command, str(unfinished)], check=True)
            install(XLLAMACPP, unfinished)
            unfinished.rename(venv)
    return venv


def _address(process: subprocess.Popen[str], log_file: Path) -> str:
    """What the server writes once the model is loaded."""
    assert process.stdout is not None
    with process.stdout, selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if not selector.select(READY_SECONDS):
            raise _failed(f"no model loaded within {READY_SECONDS} s", log_file)
        address = process.stdout.readline().strip()
    if not address:
        raise _failed(f"the server ended with exit code {process.wait()}", log_file)
    return address


def _one_token(endpoint: LocalEndpoint) -> None:
    """Healthy is not ready: the first call also shows that the model's template and the slots work."""
    deadline = time.monotonic() + READY_SECONDS
    body = {"model": endpoint.model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    call = urllib.request.Request(
        f"{endpoint.url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    for request in (endpoint.url.removesuffix("/v1") + "/health", call):
        while True:
            try:
                with urllib.request.urlopen(request, timeout=READY_SECONDS):
                    break
            except (urllib.error.URLError, TimeoutError) as refused:
                if endpoint.process.poll() is not None or time.monotonic() > deadline:
                    raise _failed(str(refused), endpoint.log) from refused
                time.sleep(0.1)


def _failed(what: str, log_file: Path) -> ServerFailed:
    tail = log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-10:]
    return ServerFailed("\n".join([f"{what}; the end of {log_file}:", *tail]))


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
