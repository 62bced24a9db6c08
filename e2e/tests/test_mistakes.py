"""What a person gets wrong is told in the object's status, and mended by YAML alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from e2e.demo import release
from e2e.demo.apiserver import ApiServer, Body
from e2e.demo.supply import SMOLLM, Supply
from e2e.tests.space import Space

_NOWHERE = "dspy-operator/nowhere:1"


def _endpoint(supply: Supply, model: str) -> Body:
    ollama: dict[str, Any] = {"model": model}
    if supply.pull:
        ollama["pull"] = supply.pull
    return {
        "apiVersion": "dspy-operator.io/v1alpha1",
        "kind": "ModelEndpoint",
        "metadata": {"name": "model"},
        "spec": {"provider": {"type": "Ollama", "ollama": ollama}, "scaling": {"minReplicas": 1, "maxReplicas": 1}},
    }


def test_a_wrong_model_is_told_and_mended(space: Space, supply: Supply) -> None:
    space.apply(_endpoint(supply, "smollm2:136m"))
    told = space.condition("ModelEndpoint", "model", "Ready", "False", "ModelNotFound", seconds=120)
    assert "smollm2:136m" in told["message"]

    space.apply(_endpoint(supply, SMOLLM))
    space.condition("ModelEndpoint", "model", "Ready", "True", seconds=180)


@pytest.fixture
def an_operator_with_a_wrong_image(api: ApiServer, supply: Supply, operator: None) -> Any:
    """For Ollama; the images are the chart's, one for all endpoints."""
    release.install(api, replace(supply, ollama_image=_NOWHERE), print)
    yield
    release.install(api, supply, print)


def test_a_wrong_image_is_told_and_mended(
    an_operator_with_a_wrong_image: None, space: Space, supply: Supply, api: ApiServer
) -> None:
    space.apply(_endpoint(supply, SMOLLM))
    told = space.condition("ModelEndpoint", "model", "Ready", "False", "ImagePullFailed", seconds=120)
    assert _NOWHERE in told["message"]

    release.install(api, supply, print)
    space.condition("ModelEndpoint", "model", "Ready", "True", seconds=180)
