"""Mistakes that people are likely to make, chosen from the design of the API before its code was read.

`likely/<number>-<name>.yaml` begins with what is said of it, and goes on with the objects as their author writes them; whatever
they name and is not among them is there and right. Three readers may speak up: the API server at admission, `dspy-operator
validate` without a cluster, and where the API server takes the objects, the operator in a condition.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dspy_operator.cli import findings
from dspy_operator.cli.check import check
from dspy_operator.cli.findings import Severity
from dspy_operator.contract.exits import Reason
from tests import yaml_text
from tests.integration.operator.manifests import Body, a_dataset, a_program, a_run, an_endpoint

FOLDER = Path(__file__).parent / "likely"
GOOD = (an_endpoint(), a_dataset(), a_program(), a_run())


@dataclass(frozen=True)
class Told:
    """What the operator says in a condition."""

    kind: str
    name: str
    type: str
    status: str
    reason: str
    says: str
    """Part of the message: the whole of it where it is the operator's own, since pods are simulated here. NAMESPACE is the object's."""


@dataclass(frozen=True)
class Likely:
    """One mistake."""

    id: str
    sentence: str
    path: str
    """The field that every reader who refuses it must name."""
    found: str
    allowed: str
    """What was written there (empty: nothing) and what may be; one reader at least must say both."""
    server: str | None
    """None: the API server takes it."""
    validate: Sequence[str]
    """Lines, without the folder."""
    cluster: Told | None
    edits: bool
    """The object is there already, and right."""
    text: str
    """The objects."""

    @property
    def bodies(self) -> list[Body]:
        """The objects, as kubectl would send them."""
        return list(yaml_text.documents(self.text))

    @property
    def others(self) -> list[Body]:
        """What is there and right."""
        names = {(body["kind"], body["metadata"]["name"]) for body in self.bodies}
        return [body for body in GOOD if (body["kind"], body["metadata"]["name"]) not in names]


def likely() -> list[Likely]:
    """All of them."""
    return [_read(path) for path in sorted(FOLDER.glob("*.yaml"))]


def validated(mistake: Likely, folder: Path) -> list[str]:
    """What `dspy-operator validate` says of the objects, a line each."""
    (folder / "x").mkdir()
    (folder / "x" / "mistake.yaml").write_text(mistake.text, encoding="utf-8")
    (folder / "x" / "others.yaml").write_text(yaml.safe_dump_all(mistake.others, sort_keys=False), encoding="utf-8")
    checked = check([folder / "x"], folder / "out")
    assert {Reason(each.reason) for each in checked.findings if each.severity is Severity.ERROR} or not checked.exit
    return [findings.text(each).replace(f"{folder / 'x'}/", "") for each in checked.findings]


def table(rows: Iterable[tuple[Likely, Sequence[tuple[str, str]]]]) -> str:
    """Markdown: mistake, reader, exact message, and whether it names path, what was found and what is allowed.

    Args:
        rows: each mistake with (reader, message) of those that spoke up.
    """
    lines = ["| mistake | said by | message | path | found | allowed |", "|---|---|---|---|---|---|"]
    for mistake, answers in rows:
        for reader, message in answers:
            parts = (mistake.path, mistake.found, mistake.allowed)
            named = [("yes" if part in message else "no") if part else "nothing was written" for part in parts]
            shown = " ".join(message.replace("|", "\\|").split())
            lines.append(f"| {mistake.id}: {mistake.sentence} | {reader} | {shown} | {' | '.join(named)} |")
    return "\n".join([*lines, ""])


def _read(path: Path) -> Likely:
    head, _, text = path.read_text("utf-8").partition("---\n")
    said: dict[str, Any] = yaml_text.document(head)
    cluster = said.get("cluster")
    told = None
    if cluster is not None:
        kind, name = cluster["of"].split("/")
        type_, status, reason = cluster["condition"].split()
        told = Told(kind, name, type_, status, reason, cluster["says"])
    names = said["names"]
    return Likely(
        path.stem,
        said["mistake"],
        names["path"],
        names["found"],
        names["allowed"],
        said.get("server"),
        said.get("validate", []),
        told,
        said.get("edits", False),
        text,
    )
