"""The examples of rules: for each rule an object that keeps it, one that breaks it, and what its author reads.

`cases/<kind>/<id>.yaml` holds three documents: what is said of the broken object (by the API server, and by local mode),
the object that keeps the rule, and the one that breaks it. Ids that begin with `schema-` are not rules of ours (CEL), but what
a plain schema says.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests import yaml_text

FOLDER = Path(__file__).parent / "cases"


@dataclass(frozen=True)
class Case:
    """One rule's examples."""

    id: str
    how: Literal["create", "update"]
    """An update begins with the object that keeps the rule."""
    server: str
    local: list[str]
    """Empty where only the API server can know."""
    keeps: dict[str, Any]
    breaks: dict[str, Any]

    @property
    def kind(self) -> str:
        return str(self.keeps["kind"])


def cases() -> list[Case]:
    """All of them."""
    return [_read(path) for path in sorted(FOLDER.glob("*/*.yaml"))]


def _read(path: Path) -> Case:
    said, keeps, breaks = yaml_text.documents(path.read_text("utf-8"))
    case = Case(path.stem, said.get("how", "create"), said["server"], said["local"], keeps, breaks)
    assert path.parent.name == case.kind.lower(), path
    return case
