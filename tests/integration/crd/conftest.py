from __future__ import annotations

from pathlib import Path

import pytest

from tests.controlplane.fixture import control_plane
from tests.controlplane.processes import ControlPlane

__all__ = ["control_plane"]

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="package")
def cluster(control_plane: ControlPlane) -> ControlPlane:
    """An API server that knows our kinds."""
    made = control_plane.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    assert made.returncode == 0, made.stderr
    control_plane.serves_what_was_applied()
    return control_plane
