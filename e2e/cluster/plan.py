"""The steps of `up`, `images` and `load`, in order."""

from __future__ import annotations

from collections.abc import Sequence

from . import own_images, rootfs
from .step import Step
from .steps.binaries import Binaries
from .steps.docker import Docker
from .steps.fixtures import FixtureImages, FixturesLoaded, OllamaProgram, Weights
from .steps.kind import Cluster
from .steps.network import Network
from .steps.node_image import NodeImage
from .steps.origin import Choice, Origin
from .steps.own_images import OwnImages, OwnImagesLoaded, Wheels
from .steps.root_file_systems import BaseRootfs, RootFileSystems
from .steps.storage import Storage


def steps(*, images: Choice | None = None, workers: int | None = None, api_port: int | None = None) -> Sequence[Step]:
    return [
        Docker(),
        Origin(images),
        Binaries(),
        RootFileSystems(),
        NodeImage(),
        OllamaProgram(),
        FixtureImages(),
        Weights(),
        Cluster(workers=workers, api_port=api_port),
        Network(),
        FixturesLoaded(),  # before the wait for DNS, which comes up meanwhile
        Storage(),
        # Last, for nothing else needs them, and they are what is being worked on.
        Wheels(),
        OwnImages(),
        OwnImagesLoaded(),
    ]


def own_images_built() -> Sequence[Step]:
    """The product's images and no cluster. On a base of one's own choice no root file system is made."""
    base: list[Step] = [BaseRootfs()] if own_images.base() == rootfs.BASE.image else []
    return [Docker(), *base, Wheels(), OwnImages()]


def own_images_loaded() -> Sequence[Step]:
    return [*own_images_built(), OwnImagesLoaded()]
