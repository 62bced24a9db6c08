"""The control plane starts, tells what was asked of it, stops, and leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.integration.acceptance import LONG

from .processes import ControlPlane, running

_REPOSITORY = Path(__file__).resolve().parents[2]


def test_starts_and_stops_leave_nothing_running() -> None:
    for _ in range(10 if LONG else 3):
        with running() as plane:
            pids, folder = plane.pids, plane.folder
            assert len(pids) == 3 and all(map(_is_alive, pids))
        assert not any(map(_is_alive, pids))
        assert not folder.exists()


def test_two_at_once_do_not_collide() -> None:
    with running() as one, running() as other:
        assert one.server != other.server
        assert _create_config_map(one, "mine") == 201
        assert other.request("GET", "/api/v1/namespaces/default/configmaps/mine")[0] == 404


def test_it_dies_with_a_parent_that_is_killed_and_the_next_sweeps_its_folder() -> None:
    script = (
        "from tests.controlplane.processes import running\n"
        "import sys\n"
        "with running() as plane:\n"
        "    print(plane.folder, *plane.pids, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=_REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        folder, *pids = parent.stdout.readline().split()
        assert len(pids) == 3
        parent.send_signal(signal.SIGKILL)
    _until(lambda: not any(_is_alive(int(pid)) for pid in pids))

    with running():
        assert not Path(folder).exists()


def test_the_audit_log_counts_the_writes_of_a_user(control_plane: ControlPlane) -> None:
    before = control_plane.audit.mark()
    for name in ("a", "b", "c"):
        assert _create_config_map(control_plane, name) == 201
        assert control_plane.request("GET", f"/api/v1/namespaces/default/configmaps/{name}")[0] == 200
    assert _create_config_map(control_plane, "a") == 409

    writes = control_plane.audit.writes(since=before, user="admin", resource="configmaps")

    assert [(write.verb, write.name, write.code) for write in writes] == [
        ("create", "a", 201),
        ("create", "b", 201),
        ("create", "c", 201),
        ("create", "a", 409),
    ]


def test_the_garbage_collector_removes_what_a_gone_owner_owned(control_plane: ControlPlane) -> None:
    path = "/api/v1/namespaces/default/configmaps"
    _, owner = control_plane.request("POST", path, {"metadata": {"name": "owner"}})
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    control_plane.request("POST", path, {"metadata": {"name": "owned", "ownerReferences": [reference]}})

    control_plane.request("DELETE", f"{path}/owner")

    _until(lambda: control_plane.request("GET", f"{path}/owned")[0] == 404)


def test_a_job_gets_its_pod_from_the_controller_manager(control_plane: ControlPlane) -> None:
    container = {"name": "main", "image": "none", "command": ["true"]}
    job = {
        "metadata": {"name": "hello"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
    }

    assert control_plane.request("POST", "/apis/batch/v1/namespaces/default/jobs", job)[0] == 201

    pods = "/api/v1/namespaces/default/pods?labelSelector=job-name%3Dhello"
    _until(lambda: len(control_plane.request("GET", pods)[1]["items"]) == 1)


def test_kubectl_takes_its_kubeconfig(control_plane: ControlPlane) -> None:
    said = control_plane.kubectl("get", "namespaces", "-o", "name")
    assert "namespace/default" in said.stdout.split(), said.stderr


def _create_config_map(plane: ControlPlane, name: str) -> int:
    return plane.request("POST", "/api/v1/namespaces/default/configmaps", {"metadata": {"name": name}})[0]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _until(done: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not so within {seconds:.0f} s"
        time.sleep(0.05)
