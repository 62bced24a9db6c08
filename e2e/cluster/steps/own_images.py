"""The product's images: their wheels, the two images, and these in the cluster."""

from __future__ import annotations

from pathlib import Path

from .. import images, own_images, wheelhouse
from ..command import Failed
from ..own_images import OWN_IMAGES
from .kind import Cluster

_ATTEMPTS = 3


class Wheels:
    name = "wheels of our images"
    expected_seconds = 40

    def check(self) -> bool:
        return wheelhouse.present(own_images.base()) or all(image.built() for image in OWN_IMAGES)

    def run(self, log: Path) -> None:
        own_images.fetch_wheels(log)


class OwnImages:
    name = "our images"
    expected_seconds = 60

    def check(self) -> bool:
        return all(image.built() for image in OWN_IMAGES)

    def run(self, log: Path) -> None:
        """Whoever edits meanwhile gets the images of the edit, too: that is 8 s, for the packages' layers are there."""
        for _ in range(_ATTEMPTS):
            own_images.build(log)
            if self.check():
                return
        raise Failed(f"the sources were edited each of {_ATTEMPTS} times while our images were built: run it again")


class OwnImagesLoaded:
    name = "our images in the cluster"
    expected_seconds = 20

    def check(self) -> bool:
        return bool(images.nodes()) and all(images.loaded(image.name) for image in OWN_IMAGES)

    def run(self, log: Path) -> None:
        if not (images.nodes() and Cluster().check()):
            raise Failed("there is no running cluster to load our images into: run `up` first")
        images.load(*[image.name for image in OWN_IMAGES if not images.loaded(image.name)], log=log)
