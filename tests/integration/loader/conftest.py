"""A real Ollama, a registry with a real model of 98 MB, and a real API server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster import ollama
from e2e.localmodel.weights import ModelName, Weights, fetch
from tests.controlplane.fixture import control_plane
from tests.controlplane.processes import ControlPlane
from tests.integration.loader.endpoint import Endpoint
from tests.integration.loader.servers import OllamaServer, Registry, a_registry, an_ollama

__all__ = ["control_plane"]

_count = itertools.count(1)


@pytest.fixture(scope="session")
def programs() -> None:
    assert ollama.present(), (
        f"{ollama.folder()} is missing: `python -m e2e.cluster programs` builds Ollama once (2 minutes)"
    )


@pytest.fixture(scope="session")
def weights() -> Weights:
    return fetch(ModelName.SMOLLM)


@pytest.fixture(scope="package")
def _registry(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    models = {weights.model.served_as: weights.path}
    with a_registry(models, tmp_path_factory.mktemp("registry") / "log") as registry:
        yield registry


@pytest.fixture
def registry(_registry: Registry) -> Registry:
    _registry.reset()
    return _registry


@pytest.fixture
def server(programs: None, tmp_path: Path) -> Iterator[OllamaServer]:
    """With an empty store."""
    with an_ollama(tmp_path / "ollama") as running:
        yield running


@pytest.fixture
def endpoint(control_plane: ControlPlane, tmp_path: Path) -> Endpoint:
    """The objects that the operator makes for an endpoint; no operator runs."""
    made = Endpoint(control_plane, f"models-{next(_count)}", tmp_path / "account")
    made.create()
    return made
