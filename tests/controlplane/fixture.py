"""The pytest fixture, for a conftest.py to import, or for a module alone.

A control plane that nobody asks anything still takes a twentieth of a processor: none outlives the tests that need it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .processes import ControlPlane, running


def _control_plane() -> Iterator[ControlPlane]:
    """An API server, etcd and the built-in controllers (garbage collection, Jobs, ServiceAccounts); no nodes, no pods run."""
    with running() as plane:
        yield plane


control_plane = pytest.fixture(scope="package", name="control_plane")(_control_plane)
"""Of the folder whose conftest.py imports it."""
control_plane_of_a_module = pytest.fixture(scope="module", name="control_plane")(_control_plane)
"""Of the module that imports it."""
