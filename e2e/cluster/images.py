"""Container images: the base of our own ones, building, and loading into the cluster's nodes.

The owner of a Dockerfile uses three functions: `base(log)` for the build argument, `build(...)`, and `load(...)`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import binaries, paths
from .command import Failed, ask, output_of, run, succeeds
from .rootfs import BASE, Rootfs, make

# Debian's docker.io has no buildx; newer dockers still take the older builder.
_BUILDER = {"DOCKER_BUILDKIT": "0"}
# Of every image that is built here, and in the Dockerfiles of stages that only build: what has no tag is found by it.
_MADE_HERE = "dspy-operator.made-here=true"


def exists(image: str) -> bool:
    return succeeds(["docker", "image", "inspect", image])


def identity(image: str) -> str | None:
    """Docker's digest of it, which the nodes know it by too; None where there is none of this name."""
    code, said = ask(["docker", "image", "inspect", "--format", "{{.Id}}", image])
    return said.strip() if code == 0 else None


def tags(repository: str) -> list[str]:
    return output_of(["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", repository]).split()


def keep_only(*names: str) -> None:
    """Drops the other tags of their repositories, those of earlier sources: each edit would leave one. What runs stays."""
    for repository in {name.partition(":")[0] for name in names}:
        if older := [tag for tag in tags(repository) if tag not in names]:
            ask(["docker", "image", "rm", *older], timeout_seconds=120)


def megabytes(image: str) -> float:
    """Unpacked."""
    return int(output_of(["docker", "image", "inspect", "--format", "{{.Size}}", image])) / 1e6


def base(log: Path) -> str:
    """The base of our images: what debian:bookworm-slim with python3 would be. Makes it where it is missing."""
    return imported(BASE, log)


def imported(rootfs: Rootfs, log: Path) -> str:
    """A root file system as an image, made and imported where it is missing."""
    if not rootfs.present():
        make([rootfs], log)
    if not exists(rootfs.image):
        run(["docker", "import", rootfs.tar, rootfs.image], log=log)
    return rootfs.image


def build(
    *,
    context: Path,
    dockerfile: Path,
    tags: Sequence[str],
    log: Path,
    target: str | None = None,
    arguments: Mapping[str, str] | None = None,
) -> None:
    """`docker build`. No package registry is needed inside: install with --no-index from wheels that the host fetched."""
    chosen = ["--target", target] if target else []
    given = [word for name, value in (arguments or {}).items() for word in ("--build-arg", f"{name}={value}")]
    named = [word for tag in tags for word in ("-t", tag)]
    # --force-rm: the container of a failed step would stay, too.
    own = ["--force-rm", "--label", _MADE_HERE]
    run(["docker", "build", *own, "-f", dockerfile, *chosen, *given, *named, context], log=log, env=_BUILDER)


def nodes() -> list[str]:
    """The containers that are the cluster's nodes, the control plane first."""
    listed = output_of(
        [
            "docker",
            "ps",
            "-a",
            "--filter",
            f"label=io.x-k8s.kind.cluster={paths.CLUSTER_NAME}",
            "--format",
            "{{.Names}}",
        ]
    )
    return sorted(listed.split(), key=lambda name: ("control-plane" not in name, name))


def loaded(image: str) -> bool:
    """Whether every node has exactly this image (not an older one of the same name)."""
    local = identity(image)
    return local is not None and all(_id_in(node, image) == local for node in nodes())


def load(*names: str, log: Path) -> None:
    """Into every node's containerd, layers that images share only once. Repeating it after an interruption heals."""
    for name in names:
        if not exists(name):
            raise Failed(f"there is no image {name} to load: build it first")
    run([binaries.program("kind"), "load", "docker-image", *names, "--name", paths.CLUSTER_NAME], log=log)
    if missing := [name for name in names if not loaded(name)]:
        raise Failed(f"{', '.join(missing)} was loaded, yet a node lacks it; see {log}")


def _id_in(node: str, image: str) -> str:
    code, said = ask(["docker", "exec", node, "crictl", "inspecti", image])
    if code:
        return ""
    found: str = json.loads(said)["status"]["id"]
    return found


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Into a build's context: large files need not be on the disk twice."""
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def remove_ours() -> None:
    """The images made by this folder, out of a Docker that is not ours."""
    if ours := tags("dspy-operator/*"):
        ask(["docker", "image", "rm", "-f", *ours], timeout_seconds=120)
    remove_untagged()


def remove_untagged() -> None:
    """What was made here and no tag holds any more, and with it the layers that only it had."""
    ask(["docker", "image", "prune", "-f", "--filter", f"label={_MADE_HERE}"], timeout_seconds=120)
