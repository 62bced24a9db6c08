"""The steps of `up`, in order."""

from __future__ import annotations

from collections.abc import Sequence

from .step import Step
from .steps.binaries import Binaries
from .steps.docker import Docker
from .steps.fixtures import BaseRootfs, FixtureImages, FixturesLoaded, OllamaProgram, Weights
from .steps.kind import Cluster
from .steps.network import Network
from .steps.node_image import NodeImage, NodeRootfs
from .steps.origin import Choice, Origin
from .steps.storage import Storage


def steps(*, images: Choice | None = None, workers: int | None = None, api_port: int | None = None) -> Sequence[Step]:
    return [
        Docker(),
        Origin(images),
        Binaries(),
        NodeRootfs(),
        NodeImage(),
        BaseRootfs(),
        OllamaProgram(),
        FixtureImages(),
        Weights(),
        Cluster(workers=workers, api_port=api_port),
        Network(),
        FixturesLoaded(),  # before the wait for DNS, which comes up meanwhile
        Storage(),
    ]
