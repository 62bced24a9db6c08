"""The pytest fixture. Once for all tests: `pytest_plugins = ["tests.controlplane.fixture"]` in the root conftest.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .processes import ControlPlane, running


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """An API server, etcd and the built-in controllers (garbage collection, Jobs, ServiceAccounts); no nodes, no pods run."""
    with running() as plane:
        yield plane
