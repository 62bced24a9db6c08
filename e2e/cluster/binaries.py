"""The Go programs of the cluster and of the integration tests' control plane, built from go/ and kept by its hash."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from . import cache, paths, toolchain, versions
from .command import output_of, run

SOURCE = Path(__file__).resolve().parent / "go"
# hyperkube runs as the program whose name it is started by.
KUBERNETES_PROGRAMS = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubeadm",
]
_PACKAGES = [
    "./cmd/hyperkube",
    "./cmd/coredns",
    "./cmd/crictl",
    "./cmd/pause",
    "go.etcd.io/etcd/server/v3",
    "sigs.k8s.io/kind",
    "helm.sh/helm/v3/cmd/helm",
]
# The provisioner's old logging package differs from the others' in a capital letter only: a build of its own.
_BUILDS = [_PACKAGES, ["github.com/rancher/local-path-provisioner"]]


def folder() -> Path:
    """Where the built programs are, or will be."""
    return paths.cache() / "binaries" / cache.key(SOURCE, " ".join(linker_flags()))


def program(name: str) -> Path:
    """The path of a program: kubectl, kind, helm, etcd, kube-apiserver, ..."""
    return folder() / name


def present() -> bool:
    return folder().is_dir()


def build(log: Path) -> None:
    """Five to eight minutes on two cores with an empty Go cache, ten seconds with a full one."""
    go = toolchain.go(SOURCE / "go.mod")
    with cache.publish(folder()) as work:
        environment = {
            "CGO_ENABLED": "0",
            "GOFLAGS": "-buildvcs=false",
            "GOWORK": "off",
            "GOOS": "linux",
            "GOARCH": "amd64",
        }
        flags = ["-v", "-trimpath", "-ldflags", " ".join(linker_flags())]
        for packages in _BUILDS:
            run([go, "build", *flags, "-o", f"{work}/", *packages], log=log, env=environment, cwd=SOURCE)
        (work / "server").rename(work / "etcd")  # named after the last part of its package
        for name in [*KUBERNETES_PROGRAMS, "kubectl"]:
            (work / name).symlink_to("hyperkube")
        # kind's node image needs these few files of its source; kept, so that Go is needed only once.
        kind_source = output_of([go, "list", "-C", str(SOURCE), "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kind"]).strip()
        copy_writable(Path(kind_source) / "images" / "base" / "files", work / "kind-files")


def linker_flags() -> Sequence[str]:
    """kubeadm, kubelet and the version-skew checks read these; without them every version is v0.0.0."""
    minor = versions.KUBERNETES.split(".")[1]
    stamps = {
        "gitVersion": versions.KUBERNETES,
        "gitMajor": "1",
        "gitMinor": minor,
        "gitTreeState": "clean",
        "gitCommit": versions.KUBERNETES,
        "buildDate": "1970-01-01T00:00:00Z",  # fixed, so that two builds give the same bytes
    }
    flags = ["-s", "-w", "-X=github.com/coredns/coredns/coremain.GitCommit=module"]
    flags += [f"-X=helm.sh/helm/v3/internal/version.version={versions.HELM}"]
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
        flags += [f"-X={package}.{name}={value}" for name, value in stamps.items()]
    return flags


def copy_writable(source: Path, target: Path) -> None:
    """Go's module cache is read-only, folders too; a copy has to be removable."""
    shutil.copytree(source, target)
    for path in [target, *target.rglob("*")]:
        path.chmod(path.stat().st_mode | 0o200)


def on_path() -> str:
    """PATH with our programs first: kind calls no program of ours, people and scripts do."""
    return f"{folder()}{os.pathsep}{os.environ.get('PATH', '')}"
