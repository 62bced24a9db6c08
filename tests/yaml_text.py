"""YAML by the parser in C: a CustomResourceDefinition takes the one in Python a second, and tests read hundreds of files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml


def document(text: str) -> Any:
    """The one document."""
    return yaml.load(text, Loader=yaml.CSafeLoader)


def documents(text: str) -> Iterator[Any]:
    """All of them."""
    return iter(yaml.load_all(text, Loader=yaml.CSafeLoader))
