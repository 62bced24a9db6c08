"""Every version that this folder pins. Go modules are pinned by go/go.mod and go/go.sum; what follows from them is read there."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).resolve().parent


def module_version(module: str, go_mod: Path = HERE / "go" / "go.mod") -> str:
    """The version that go.mod requires of a module, e.g. "v1.34.4"."""
    found = re.search(rf"^\s*(?:require )?{re.escape(module)} (v\S+)", go_mod.read_text(), re.MULTILINE)
    if not found:
        raise LookupError(f"{go_mod}: no requirement of {module}")
    return found[1]


KUBERNETES = module_version("k8s.io/kubernetes")
KIND = module_version("sigs.k8s.io/kind")
HELM = module_version("helm.sh/helm/v3")
LOCAL_PATH_PROVISIONER = module_version("github.com/rancher/local-path-provisioner")

# What kubeadm of this Kubernetes asks for (`kubeadm config images list`); the node image's build compares.
ETCD_TAG = "3.6.5-0"
PAUSE_TAG = "3.10.1"
# The module is v1.12.4: v1.12.1 does not compile against client-go 0.34 (RetryOnError is gone).
COREDNS_TAG = "v1.12.1"

# Debian 12: its systemd 252 still runs on cgroup v1, which newer ones do not.
DEBIAN_SUITE = "bookworm"

# The public node image of the same minor version, taken where a container registry answers.
PUBLIC_NODE_IMAGE = "kindest/node:v1.34.0"
