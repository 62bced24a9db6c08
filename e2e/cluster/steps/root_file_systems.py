"""The Debian root file systems: of the node image where it is made here, and the base of all other images."""

from __future__ import annotations

from pathlib import Path

from .. import node_image, rootfs
from .origin import decision


class RootFileSystems:
    """All that a cluster needs."""

    name = "root file systems"
    expected_seconds = 50

    def check(self) -> bool:
        return all(of.present() for of in self._wanted())

    def run(self, log: Path) -> None:
        rootfs.make(self._wanted(), log)

    def _wanted(self) -> list[rootfs.Rootfs]:
        of_node = decision().choice != "public" and not node_image.present()
        return [rootfs.BASE, *([rootfs.NODE] if of_node else [])]


class BaseRootfs:
    """What the product's images need."""

    name = "base root file system"
    expected_seconds = 40

    def check(self) -> bool:
        return rootfs.BASE.present()

    def run(self, log: Path) -> None:
        rootfs.make([rootfs.BASE], log)
