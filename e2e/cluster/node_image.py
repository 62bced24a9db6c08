"""The node image, made here: kubeadm's container images inside a Debian with containerd and kubelet, for `kind create`."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from . import binaries, cache, images, versions
from .command import Failed, ask, output_of, pipe, run
from .rootfs import NODE

SOURCE = Path(__file__).resolve().parent / "node"
BUSYBOX = "dspy-operator/busybox:1"

_REGISTRY = "registry.k8s.io"
# Dockerfile.images' targets and the names under which the node asks for them.
_CONTAINER_IMAGES = {
    "kube": [
        f"{_REGISTRY}/{name}:{versions.KUBERNETES}"
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
    ],
    "etcd": [f"{_REGISTRY}/etcd:{versions.ETCD_TAG}"],
    "coredns": [f"{_REGISTRY}/coredns/coredns:{versions.COREDNS_TAG}"],
    "pause": [f"{_REGISTRY}/pause:{versions.PAUSE_TAG}"],
    "local-path-provisioner": ["dspy-operator/local-path-provisioner:built"],
    "busybox": [BUSYBOX],
}
_PROGRAMS = ["hyperkube", "etcd", "coredns", "pause", "crictl", "local-path-provisioner"]


def image() -> str:
    return f"dspy-operator/node:{cache.key(binaries.folder().name, NODE.key, SOURCE, Path(__file__))}"


def present() -> bool:
    return images.exists(image())


def build(log: Path) -> None:
    rootfs = images.imported(NODE, log)
    with tempfile.TemporaryDirectory(prefix="dspy-operator-node-") as folder:
        context = Path(folder)
        for name in _PROGRAMS:
            images.link_or_copy(binaries.program(name), context / name)
        shutil.copytree(binaries.folder() / "kind-files", context / "kind-files")
        shutil.copytree(SOURCE / "manifests", context / "manifests")
        for target, tags in _CONTAINER_IMAGES.items():
            images.build(
                context=context,
                dockerfile=SOURCE / "Dockerfile.images",
                target=target,
                tags=tags,
                arguments={"ROOTFS": rootfs},
                log=log,
            )
        empty = f"{image()}-empty"
        images.build(
            context=context,
            dockerfile=SOURCE / "Dockerfile.node",
            tags=[empty],
            arguments={"ROOTFS": rootfs, "K8S_VERSION": versions.KUBERNETES, "PAUSE_TAG": versions.PAUSE_TAG},
            log=log,
        )
    with _builder(empty, log) as builder:
        names = [name for tags in _CONTAINER_IMAGES.values() for name in tags]
        _fill(builder, names, log)
        entrypoint = 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]'
        run(["docker", "commit", "--change", entrypoint, builder, image()], log=log)
    images.keep_only(image())
    # They are in the node now; left here, they would pass for the real ones of these names.
    ask(["docker", "image", "rm", *(name for name in names if name.startswith(_REGISTRY))], timeout_seconds=120)


def _fill(builder: str, names: list[str], log: Path) -> None:
    """Imports the container images into the builder's containerd, and checks that kubeadm will miss none."""
    run(["docker", "exec", "-d", builder, "containerd"], log=log)
    inside = ["docker", "exec", "-i", builder]
    run(
        [*inside, "sh", "-c", "for i in $(seq 100); do ctr version && exit; sleep 0.1; done >/dev/null; exit 1"],
        log=log,
    )
    importing = [*inside, "ctr", "--namespace=k8s.io", "images", "import", "--label=io.cri-containerd.pinned=pinned"]
    pipe(["docker", "save", *names], [*importing, "--all-platforms", "--no-unpack", "-"], log=log)
    wanted = output_of([*inside, "kubeadm", "config", "images", "list", "--kubernetes-version", versions.KUBERNETES])
    have = output_of([*inside, "ctr", "--namespace=k8s.io", "images", "list", "-q"]).split()
    missing = [name for name in wanted.split() if name.startswith(_REGISTRY) and name not in have]
    if missing:
        raise Failed(f"kubeadm wants {', '.join(missing)}, which the node image lacks: correct versions.py")
    run([*inside, "sh", "-c", "kill $(pidof containerd); while pidof containerd; do sleep 0.1; done"], log=log)


@contextlib.contextmanager
def _builder(image_name: str, log: Path) -> Iterator[str]:
    """A container of the empty node image. One name, so that what an interrupted build has left is found and removed."""
    name = "dspy-operator-node-builder"
    ask(["docker", "rm", "-f", "-v", name])
    unconfined = ["--security-opt", "seccomp=unconfined"]
    run(["docker", "run", "-d", "--name", name, *unconfined, "--entrypoint", "sleep", image_name, "3600"], log=log)
    try:
        yield name
    finally:
        ask(["docker", "rm", "-f", "-v", name])
