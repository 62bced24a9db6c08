"""The node image made here, where the public one cannot be had."""

from __future__ import annotations

from pathlib import Path

from .. import node_image
from .origin import decision


class NodeImage:
    name = "node image"
    expected_seconds = 30

    def check(self) -> bool:
        return decision().choice == "public" or node_image.present()

    def run(self, log: Path) -> None:
        node_image.build(log)
