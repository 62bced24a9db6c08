"""Where things are kept: all of it outside the tree and outside ~/.kube, in one folder that `distclean` empties."""

from __future__ import annotations

import os
from pathlib import Path

CLUSTER_NAME = "dspy-operator"


def cache() -> Path:
    """$DSPY_OPERATOR_CACHE, else $XDG_CACHE_HOME/dspy-operator, else ~/.cache/dspy-operator; there the folder cluster/."""
    own = os.environ.get("DSPY_OPERATOR_CACHE")
    xdg = os.environ.get("XDG_CACHE_HOME")
    root = Path(own) if own else Path(xdg or Path.home() / ".cache") / "dspy-operator"
    return root.absolute() / "cluster"


def kubeconfig() -> Path:
    return cache() / "kubeconfig"


def logs() -> Path:
    return cache() / "logs"
