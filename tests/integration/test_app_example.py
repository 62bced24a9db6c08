"""examples/app, the real script beside a real mount: what it answers with is what the mount holds, without a restart."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest

from tests.counting_server import CountingServer
from tests.integration.harness import Case, ended, start_cli

APP = Path(__file__).parents[2] / "examples" / "app" / "app.py"
FILES = ("prompts.json", "provenance.json", "program.py")
STARTS_SECONDS = 20
DIES_SECONDS = 10
ROW = "item001 thing"
KNOWS = {"answers": {ROW: "positive"}, "skill": {"base": 1, "max": 1}}


@dataclass
class Mount:
    """A ConfigMap's volume as a kubelet keeps it: files are links through `..data`, which is swapped in one rename."""

    folder: Path
    swaps: int = 0

    def hold(self, revision: Path) -> None:
        """Replace everything at once (kubernetes pkg/volume/util/atomic_writer.go)."""
        self.swaps += 1
        fresh = self.folder / f"..2026_11_26_{self.swaps}"
        fresh.mkdir(parents=True)
        for name in FILES:
            (fresh / name).write_bytes((revision / name).read_bytes())
        (self.folder / "..data_tmp").symlink_to(fresh.name)
        before = self.folder / "..data"
        old = before.resolve() if before.is_symlink() else None
        (self.folder / "..data_tmp").rename(before)
        for name in FILES:
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(Path("..data", name))
        if old is not None:
            for file in old.iterdir():
                file.unlink()
            old.rmdir()


@dataclass
class App:
    """The running script."""

    process: subprocess.Popen[bytes]
    url: str

    def get(self, query: str = "") -> tuple[int, Any]:
        try:
            with urlopen(f"{self.url}/{query}", timeout=30) as reply:
                return reply.status, json.load(reply)
        except HTTPError as error:
            return error.code, json.load(error)


@contextmanager
def app(mount: Mount, model_url: str) -> Iterator[App]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {"PROMPT": str(mount.folder), "OPENAI_BASE_URL": model_url, "MODEL": "fake", "PORT": str(port)}
    # -S -E: no package of ours, nor DSPy, can be imported.
    process = subprocess.Popen([sys.executable, "-S", "-E", str(APP)], env={"PATH": os.environ["PATH"], **environment})
    try:
        running = App(process, f"http://127.0.0.1:{port}")
        deadline = time.monotonic() + STARTS_SECONDS
        while True:
            try:
                running.get()
                break
            except URLError:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
        yield running
    finally:
        process.terminate()
        process.wait(DIES_SECONDS)


@pytest.fixture(scope="module")
def revision(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Real revisions: the baseline of a program with these instructions and this adapter."""

    def made(instructions: str, adapter: dict[str, str] | None = None) -> Path:
        folder = tmp_path_factory.mktemp("revision")
        case = Case({"type": "Evaluate"})
        objects = case.objects()
        objects[2]["spec"]["program"]["single"]["signature"]["instructions"] = instructions
        case.program = {"program": objects[2]["spec"]["program"], **({"adapter": adapter} if adapter else {})}
        manifests = case.write(folder / "manifests")
        valid = ended(start_cli("validate", str(manifests), "-o", str(folder)), folder / "sentiment.baseline")
        assert valid.code == 0, valid.stderr
        return valid.folder / "revision"

    return made


def revision_of(folder: Path) -> str:
    return str(json.loads((folder / "provenance.json").read_text())["revision"])


def last_request(server: CountingServer) -> Any:
    return json.loads(server.requests(last=1)[0]["body"])


def test_an_application_follows_the_mount_to_another_revision_without_a_restart(
    tmp_path: Path, revision: Callable[..., Path]
) -> None:
    first, second = revision("Classify the text."), revision("Say whether the text is kind.")
    mount = Mount(tmp_path / "prompt")
    mount.hold(first)
    with CountingServer(KNOWS) as server, app(mount, server.url) as running:
        before = running.get("?text=item001+thing")
        asked_before = last_request(server)
        mount.hold(second)
        after = running.get("?text=item001+thing")
        asked_after = last_request(server)
        assert running.process.poll() is None
    for (code, said), folder in ((before, first), (after, second)):
        assert (code, said["revision"], said["outputs"]) == (200, revision_of(folder), {"label": "positive"})
    assert revision_of(first) != revision_of(second)
    assert (asked_before["temperature"], asked_before["max_tokens"]) == (0, 256)
    assert "Classify the text." in str(asked_before) and "Say whether the text is kind." not in str(asked_before)
    assert "Say whether the text is kind." in str(asked_after) and "Classify the text." not in str(asked_after)
    assert ROW in asked_after["messages"][-1]["content"]


def test_a_program_that_is_held_to_a_schema_sends_it_and_is_read_as_json(
    tmp_path: Path, revision: Callable[..., Path]
) -> None:
    mount = Mount(tmp_path / "prompt")
    mount.hold(revision("Classify the text.", {"type": "JSON", "constrained": "Required"}))
    with CountingServer(KNOWS) as server, app(mount, server.url) as running:
        code, said = running.get("?text=item001+thing")
        assert (code, said["outputs"]) == (200, {"label": "positive"})
        assert last_request(server)["response_format"]["type"] == "json_schema"


def test_an_answer_that_cannot_be_read_is_null_and_a_model_that_is_away_is_an_error(
    tmp_path: Path, revision: Callable[..., Path]
) -> None:
    mount = Mount(tmp_path / "prompt")
    mount.hold(revision("Classify the text."))
    with CountingServer({"faults": [{"type": "garbage_text"}]}) as server, app(mount, server.url) as running:
        code, said = running.get("?text=item001+thing")
        assert (code, said["outputs"]) == (200, {"label": None}) and said["said"]
        server.set_script({"faults": [{"type": "503"}]})
        code, said = running.get("?text=item001+thing")
        assert (code, said) == (502, {"error": "HTTPError: HTTP Error 503: Service Unavailable"})
        code, said = running.get("?other=1")
        assert (code, said) == (502, {"error": "KeyError: 'text'"})
        assert running.get()[0] == 200, "which revision is mounted can be asked without a model"
