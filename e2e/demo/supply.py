"""Where images and models come from: public registries where the cluster reaches them, else the cluster's fixtures. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from e2e.cluster import own_images
from e2e.cluster.fixtures.images import OLLAMA, REGISTRY
from e2e.cluster.steps.fixtures import REGISTRY_HOST

QWEN = "qwen2.5-coder:0.5b"
SMOLLM = "smollm2:135m"
MODELS = (QWEN, SMOLLM)


@dataclass(frozen=True)
class Supply:
    """What the demo puts in place of what the examples and the chart say."""

    ollama_image: str | None
    """None: the chart's own."""
    app_image: str | None
    """None: the example's own."""
    pull: dict[str, Any] | None
    """`spec.provider.ollama.pull`; None: Ollama's own registry."""

    def chart_values(self) -> dict[str, Any]:
        """What helm sets: the product's images of this tree, which are in the cluster and in no registry."""
        values: dict[str, Any] = {
            "imagePullPolicy": "IfNotPresent",
            # An image keeps its tag when the sources change: the pod has to be made anew then.
            "podAnnotations": {"sources": own_images.OPERATOR.by_content.rpartition(":")[2]},
        }
        for key, image in (("image", own_images.OPERATOR.name), ("runnerImage", own_images.RUNNER.name)):
            values[key] = _parts(image)
        if self.ollama_image:
            values["ollamaImage"] = _parts(self.ollama_image)
        return values


PUBLIC = Supply(ollama_image=None, app_image=None, pull=None)
FIXTURES = Supply(ollama_image=OLLAMA.name, app_image=REGISTRY.name, pull={"registry": REGISTRY_HOST, "insecure": True})


def _parts(image: str) -> dict[str, str]:
    repository, _, tag = image.rpartition(":")
    return {"repository": repository, "tag": tag}
