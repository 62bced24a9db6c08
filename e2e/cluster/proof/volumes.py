"""Volumes: provisioned on demand, writable without root, kept, and one class that can be filled up."""

from __future__ import annotations

from .. import kubectl
from .pods import NAMESPACE, in_namespace, make, output_of_pod, pod_spec


def a_volume_is_written_without_root() -> str:
    """A claim of the default class gets a volume that user 65532 writes, and another pod reads."""
    claim("disk", megabytes=1)
    output_of_pod("writer", pod_spec("echo kept >/data/file", claim="disk"))
    in_namespace("delete", "pod/writer", "--now")
    said = output_of_pod("reader", pod_spec("cat /data/file && stat -c %u /data/file", claim="disk"))
    assert said.split() == ["kept", "65532"], said
    storage_class: str = kubectl.read("-n", NAMESPACE, "pvc/disk")["spec"]["storageClassName"]
    return f"class {storage_class}"


def a_small_volume_fills_up() -> str:
    """A volume of the class "small" is full after 16 MiB, and says so."""
    claim("small", megabytes=16, storage_class="small")
    said = output_of_pod(
        "filler", pod_spec("head -c 20M /dev/zero 2>&1 >/data/file; stat -c %s /data/file", claim="small")
    )
    assert "No space left on device" in said, said
    in_namespace("delete", "pod/filler", "pvc/small", "--now")
    return said.strip().splitlines()[0]


CHECKS = [a_volume_is_written_without_root, a_small_volume_fills_up]


def claim(name: str, *, megabytes: int, storage_class: str | None = None) -> None:
    """A claim; None is the default class."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": f"{megabytes}Mi"}}}
    make("PersistentVolumeClaim", name, spec | ({"storageClassName": storage_class} if storage_class else {}))
