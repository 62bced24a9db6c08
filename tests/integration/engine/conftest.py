from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.controlplane.fixture import control_plane
from tests.controlplane.processes import ControlPlane
from tests.integration.engine.harness import Bench, bench, install_crd
from tests.integration.engine.proxy import Proxy

__all__ = ["control_plane"]

_numbers = itertools.count(1)


@pytest.fixture
def lab(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Bench]:
    """A namespace of its own, and the toys' kind."""
    install_crd(control_plane)
    with bench(control_plane, f"toys-{next(_numbers)}", tmp_path) as made:
        yield made


@pytest.fixture
def proxy(control_plane: ControlPlane) -> Iterator[Proxy]:
    """Between an operator and the API server."""
    with Proxy(control_plane) as made:
        yield made
