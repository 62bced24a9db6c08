"""Breaks the cluster and its making in the ways that happen, and shows that `up` heals each: `test --healing`.

Needs a Docker daemon that `up` started. Takes some ten minutes, and ends with the cluster up again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from . import binaries, images, node_image, paths, plan
from .command import Failed, ask, output_of
from .rootfs import NODE
from .step import Outcome, table
from .steps import docker
from .steps.origin import decision

_OTHER = "somebody-elses"
_SENDS = """
import socket, time
with socket.socket(type=socket.SOCK_DGRAM) as sender:
    while True:
        sender.sendto(b"", ("172.17.0.1", 9))
        time.sleep(0.05)
"""
_LOG = "healing-up.log"


def heal() -> None:
    """Runs all cases. Raises Failed if one is not healed."""
    outcomes, failed = [], 0
    for case in CASES:
        began = time.monotonic()
        title = (case.__doc__ or case.__name__).partition("\n")[0].removesuffix(".")
        print(f"... {title}", flush=True)
        try:
            case()
            how = "healed"
        except (Failed, AssertionError) as error:
            how = f"FAILED: {error}"[:1500]
            failed += 1
        outcomes.append(Outcome(title, how, time.monotonic() - began, 0))
    print(table(outcomes))
    print(f"{len(CASES) - failed} passed, {failed} failed", flush=True)
    if failed:
        raise Failed(f"{failed} cases were not healed; see {paths.logs() / _LOG}")


def dockerd_is_killed() -> None:
    """dockerd is killed, and its pid file names a process that is something else."""
    pid = int((paths.cache() / "dockerd.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    _until("dockerd is gone", lambda: not docker.answers())
    Path("/var/run/docker.pid").write_text("1")
    _up()


def a_dead_nodes_network_lives_on() -> None:
    """dockerd and the node are killed, and something still sends from the node's address."""
    node = output_of(["docker", "inspect", "--format", "{{.State.Pid}}", images.nodes()[0]]).strip()
    sends = ["nsenter", f"--net=/proc/{node}/ns/net", sys.executable, "-c", _SENDS]
    sender = subprocess.Popen(sends, stderr=subprocess.DEVNULL)  # it ends in an error when its link is taken
    try:
        time.sleep(1)
        assert sender.poll() is None, "nothing sends"
        os.kill(int((paths.cache() / "dockerd.pid").read_text()), signal.SIGKILL)
        os.kill(int(node), signal.SIGKILL)
        _until("dockerd is gone", lambda: not docker.answers())
        _up()
    finally:
        sender.kill()
        sender.wait()


def the_node_is_killed() -> None:
    """The node's container is killed."""
    output_of(["docker", "kill", images.nodes()[0]])
    _up()


def the_api_server_hangs() -> None:
    """The node's processes are stopped, so that the API answers nothing."""
    output_of(["docker", "pause", images.nodes()[0]])
    _up()


def a_build_is_killed() -> None:
    """`up` is killed in each of five steps, one after the other: root file system, node image, cluster, both loadings."""
    if decision().choice == "public":
        return
    _down()
    ask(["docker", "image", "rm", "-f", node_image.image(), NODE.image])
    shutil.rmtree(NODE.tar.parent, ignore_errors=True)
    for step, seconds in (
        ("root file systems", 4.0),
        ("node image", 4.0),
        ("cluster", 6.0),
        ("fixtures in the cluster", 2.0),
        ("our images in the cluster", 2.0),
    ):
        _up_killed_in(step, seconds)
        assert step != "root file systems" or not NODE.tar.exists(), "half a root file system has the whole one's name"
    _up()
    left = list(paths.cache().glob("*/.tmp-*"))
    assert not left, f"left behind: {left}"
    names = output_of(["docker", "ps", "-a", "--format", "{{.Names}}"]).split()
    assert "dspy-operator-node-builder" not in names, names


def another_cluster_is_left_alone() -> None:
    """Another kind cluster is there while ours is removed and made."""
    kind = str(binaries.program("kind"))
    with tempfile.TemporaryDirectory() as folder:
        own = ["--name", _OTHER, "--kubeconfig", f"{folder}/kubeconfig"]
        settings = Path(folder, "kind.yaml")  # without a network, which nothing here needs
        settings.write_text(
            "{kind: Cluster, apiVersion: kind.x-k8s.io/v1alpha4, networking: {disableDefaultCNI: true}}"
        )
        made_of = ["--image", decision().node_image, "--config", str(settings)]
        output_of([kind, "create", "cluster", *own, *made_of], timeout_seconds=180)
        try:
            before = _identity(f"{_OTHER}-control-plane")
            _down()
            _up()
            assert _identity(f"{_OTHER}-control-plane") == before, "the other cluster's node was touched"
        finally:
            output_of([kind, "delete", "cluster", *own], timeout_seconds=60)


def two_builds_do_not_meet() -> None:
    """A second `up` while one runs is refused, and says which process has the lock."""
    _down()
    with _started_up() as first:
        _until("the first has the lock", lambda: "cluster:" in (paths.logs() / _LOG).read_text())
        code, said = ask([sys.executable, "-m", "e2e.cluster", "up"], timeout_seconds=60)
        assert code == 1 and f"process {first.pid}" in said, said
        assert first.wait(timeout=300) == 0, (paths.logs() / _LOG).read_text()
    _check()


def a_full_disk_is_told_first() -> None:
    """The cache's disk is nearly full: said within seconds, before anything starts."""
    with tempfile.TemporaryDirectory() as folder:
        output_of(["mount", "-t", "tmpfs", "-o", "size=8m", "full", folder])
        try:
            began = time.monotonic()
            environment = {**os.environ, "DSPY_OPERATOR_CACHE": folder}
            ended = subprocess.run(
                [sys.executable, "-m", "e2e.cluster", "up"],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert ended.returncode == 1 and "GB are needed" in ended.stderr, ended.stderr
            assert time.monotonic() - began < 10, "it took long to say so"
            assert not list(Path(folder).iterdir()), "something was begun"
        finally:
            output_of(["umount", folder])


CASES: list[Callable[[], None]] = [
    dockerd_is_killed,
    a_dead_nodes_network_lives_on,
    the_node_is_killed,
    the_api_server_hangs,
    a_full_disk_is_told_first,
    two_builds_do_not_meet,
    another_cluster_is_left_alone,
    a_build_is_killed,
]


def _up() -> None:
    with _started_up() as process:
        process.wait(timeout=900)
    said = (paths.logs() / _LOG).read_text()
    print(said, flush=True)
    assert process.returncode == 0, said
    _check()


def _check() -> None:
    missing = [step.name for step in plan.steps() if not step.check()]
    assert not missing, f"after `up`: {', '.join(missing)} missing"


@contextlib.contextmanager
def _started_up() -> Iterator[subprocess.Popen[bytes]]:
    log = paths.logs() / _LOG
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "e2e.cluster", "up"], stdout=output, stderr=output)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _up_killed_in(step: str, seconds: float) -> None:
    """Starts `up`, waits until it is in the step for so long, and kills it in a way that it cannot notice."""
    log = paths.logs() / _LOG
    with _started_up() as process:
        _until(f"up reaches {step}", lambda: f"] {step}:" in log.read_text() or process.poll() is not None, seconds=300)
        time.sleep(seconds)
        assert process.poll() is None, f"up ended before it could be killed in {step}:\n{log.read_text()}"
        process.kill()
    print(f"    killed {seconds:.0f} s into {step}", flush=True)


def _down() -> None:
    output_of([sys.executable, "-m", "e2e.cluster", "down"], timeout_seconds=120)


def _identity(container: str) -> str:
    return output_of(["docker", "inspect", "--format", "{{.Id}} {{.State.StartedAt}} {{.State.Status}}", container])


def _until(what: str, done: Callable[[], bool], *, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.1)
