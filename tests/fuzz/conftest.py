from __future__ import annotations

from tests.integration.crd.conftest import cluster, control_plane

__all__ = ["cluster", "control_plane"]
