"""An OCI runtime for dockerd: runc, asked only for the capabilities that this machine grants.

`docker run --privileged` of Debian's docker 20.10 asks for every capability that the kernel knows. Where root lacks one
(a sandbox without CAP_SYS_RESOURCE), runc refuses: "unable to apply caps: operation not permitted". Newer dockers ask
for what they have themselves. Nothing is gained by this: it only asks for less. A copy of this file is dockerd's runtime.
"""

import json
import os
import sys
from pathlib import Path

# In the kernel's order (linux/capability.h).
NAMES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
]


def granted() -> set[str]:
    with open("/proc/self/status") as status:
        bounding = next(int(line.split()[1], 16) for line in status if line.startswith("CapBnd:"))
    return {f"CAP_{name}" for bit, name in enumerate(NAMES) if bounding >> bit & 1}


def lessen(path: str, is_process: bool) -> None:
    """Takes out of the request, in place (runc is handed the file by name), what is not granted."""
    with open(path) as file:
        request = json.load(file)
    process = request if is_process else request.get("process") or {}
    allowed = granted()
    for kind, names in (process.get("capabilities") or {}).items():
        process["capabilities"][kind] = [name for name in names or [] if name in allowed]
    with open(path, "w") as file:
        json.dump(request, file)


for option, value in zip(sys.argv[1:], sys.argv[2:], strict=False):
    if option in ("--bundle", "-b") and Path(value, "config.json").exists():
        lessen(f"{value}/config.json", is_process=False)
    elif option in ("--process", "-p"):
        lessen(value, is_process=True)
os.execvp("runc", ["runc", *sys.argv[1:]])
