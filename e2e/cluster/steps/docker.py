"""Docker: the daemon that is there, else (as root, on Debian) one of ours, whose images live in our cache."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from .. import paths
from ..command import Failed, last_lines, output_of, run, succeeds

# docker.io brings no iptables by itself when recommendations are off, and no runc without containerd.
PACKAGES = ["docker.io", "containerd", "runc", "iptables", "iproute2", "mmdebstrap"]
_PID_FILES = [Path("/var/run/docker.pid"), Path("/var/run/docker/containerd/containerd.pid")]
_RUNTIME = Path(__file__).resolve().parent.parent / "permitted_runtime.py"


def answers() -> bool:
    return succeeds(["docker", "info"], timeout_seconds=15)


def was_killed() -> bool:
    """Whether the daemon that start() started ended by itself; its containers may live on, out of reach."""
    return (paths.cache() / "dockerd.pid").exists() and not answers()


class Docker:
    name = "docker"
    expected_seconds = 30

    def check(self) -> bool:
        return answers()

    def run(self, log: Path) -> None:
        refuse_without_root()
        if not all(map(shutil.which, ["dockerd", "docker", "ip", "mmdebstrap"])):
            install(log, PACKAGES)
        for pid_file in _PID_FILES:
            remove_if_stale(pid_file)
        unplug()
        start(log)


def unplug() -> None:
    """Takes what still hangs on the bridges of a Docker that is gone off them.

    A container's network outlives its killed processes, by the minutes in which the kernel closes their connections, or
    for as long as somebody else is in it. The next container gets the same address with the same Ethernet address, and
    half its packets go to the dead one.
    """
    for port in Path("/sys/class/net").glob("*/brif/veth*"):
        bridge = port.parts[-3]
        if not re.fullmatch("docker0|br-[0-9a-f]{12}", bridge):
            continue
        if not succeeds(["ip", "link", "delete", port.name]) and port.exists():  # it may go by itself meanwhile
            raise Failed(f"{port.name}, the network of a dead container, cannot be taken off {bridge}")


def refuse_without_root() -> None:
    if os.geteuid() != 0:
        raise Failed(
            "no Docker daemon answers (`docker info` fails), and this user is not root: start Docker, or let this "
            "user reach it (group docker, DOCKER_HOST), or run as root on Debian, where it is installed and started"
        )


def install(log: Path, packages: list[str]) -> None:
    """Debian packages, as root. Elsewhere: says what to install."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Failed(f"please install: {' '.join(packages)} (this can be done for you only as root on Debian)")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-q"], log=log, env=quiet)
    run(["apt-get", "install", "-qy", "--no-install-recommends", *packages], log=log, env=quiet)


def remove_if_stale(pid_file: Path) -> None:
    """dockerd refuses to start while its file names a living process, be it any: numbers are given out again."""
    if not pid_file.exists():
        return
    text = pid_file.read_text().strip()
    if not (text.isdecimal() and _runs(int(text), "dockerd", "containerd")):
        pid_file.unlink(missing_ok=True)


def start(log: Path) -> None:
    """Starts dockerd in a session of its own, to outlive us, with its images in our cache."""
    home = paths.cache()
    (home / "docker").mkdir(parents=True, exist_ok=True)
    said = paths.logs() / "dockerd.log"
    said.parent.mkdir(parents=True, exist_ok=True)
    with said.open("w") as output:
        daemon = subprocess.Popen(
            ["dockerd", "--data-root", str(home / "docker"), *_runtime_options(home)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    (home / "dockerd.pid").write_text(str(daemon.pid))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if answers():
            return
        if daemon.poll() is not None:
            break
        time.sleep(0.1)
    raise Failed(f"dockerd does not answer; the end of {said}:\n{last_lines(said, 15)}")


def _runtime_options(home: Path) -> list[str]:
    """Debian's docker asks for every capability when privileged, and fails where root lacks one: see the runtime."""
    if not _lacks_capabilities():
        return []
    wrapper = home / "permitted-runc"
    interpreter = os.path.realpath(sys.executable)  # a virtual environment may go while the daemon stays
    wrapper.write_text(f"#!{interpreter} -IS\n{_RUNTIME.read_text()}")
    wrapper.chmod(0o755)
    return ["--add-runtime", f"permitted={wrapper}", "--default-runtime", "permitted"]


def _lacks_capabilities() -> bool:
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    status = Path("/proc/self/status").read_text()
    bounding = int(status.split("CapBnd:")[1].split()[0], 16)
    return bounding != (1 << (last + 1)) - 1


def stop() -> bool:
    """Stops the daemon that start() started, and no other. Whether there was one."""
    pid_file = paths.cache() / "dockerd.pid"
    text = pid_file.read_text() if pid_file.exists() else ""
    if not (text.isdecimal() and _runs(int(text), "dockerd")):
        return False
    os.kill(int(text), signal.SIGTERM)
    deadline = time.monotonic() + 60
    while _runs(int(text), "dockerd"):
        if time.monotonic() > deadline:
            raise Failed(f"dockerd (process {text}) does not stop")
        time.sleep(0.1)
    pid_file.unlink()
    return True


def unmount() -> None:
    """A dockerd that was killed leaves its folder mounted on itself, once for each time, and containers' file systems
    in it; a mount cannot be removed."""
    folder = (paths.cache() / "docker").resolve()
    # Path.is_mount() does not see the first kind: the file system is its parent's.
    mounted = [Path(line.split()[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in reversed(mounted):  # the last mounted lies on top
        if mount.is_relative_to(folder):
            _unmount(mount)


def _unmount(mount: Path) -> None:
    """The kernel lets go of a container's file system a moment after it is unmounted: what lies below is busy till then."""
    deadline = time.monotonic() + 30
    while True:
        try:
            output_of(["umount", str(mount)])
            return
        except Failed as error:
            if "busy" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def _runs(pid: int, *programs: str) -> bool:
    """Whether it is one of these programs and alive; a zombie, which nobody has waited for, is not."""
    try:
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
    except OSError:
        return False
    return name in programs and rest.split()[0] != "Z"
