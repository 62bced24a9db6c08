"""What a check of manifests found, and the three ways to tell it: lines for people, JSON for programs, annotations for GitHub."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum

from dspy_operator.cli.manifests import Located
from dspy_operator.contract.exits import Reason


class Severity(StrEnum):
    """How much a finding matters; GitHub's words."""

    ERROR = "error"
    """It would not work; the exit code tells it too."""
    WARNING = "warning"
    """It may not work, or works with less than was given."""
    NOTICE = "notice"
    """What was not looked at."""


class Format(StrEnum):
    """How findings are told."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"


@dataclass(frozen=True)
class Finding:
    """One thing that a person should know, and where. What is not known is None; names are those of the JSON."""

    severity: Severity
    reason: str
    """As in the conditions of a cluster and in docs/local-mode.md: "InvalidDataset"."""
    message: str
    """What was found, and what is allowed."""
    file: str | None = None
    line: int | None = None
    """From 1."""
    column: int | None = None
    """From 1."""
    path: str | None = None
    """The field, from the object's root: spec.dataset.fields.label."""
    kind: str | None = None
    name: str | None = None

    @classmethod
    def of(cls, located: Located) -> Finding:
        """A mistake in a file, or in one object."""
        kind, _, name = (located.object or "").partition("/")
        return cls(
            Severity.ERROR,
            Reason.INVALID_MANIFEST.value,
            located.problem.message,
            located.file,
            located.line,
            located.column,
            located.problem.field or None,
            kind or None,
            name or None,
        )


def text(finding: Finding) -> str:
    """`program.yaml:12: InvalidDataset: PromptProgram/triage: spec.dataset.fields.label: column ... is not in ...`"""
    # Of a field the path says more than a column.
    column = None if finding.path else finding.column
    place = ":".join(str(part) for part in (finding.file, finding.line, column) if part is not None)
    severity = None if finding.severity is Severity.ERROR else finding.severity.value
    parts = (place, severity, finding.reason, _object(finding), finding.path, finding.message)
    return ": ".join(part for part in parts if part)


def as_json(findings: Iterable[Finding]) -> str:
    """A list with one object for each finding; every key is there."""
    return json.dumps([asdict(finding) for finding in findings], indent=2, ensure_ascii=False)


def annotation(finding: Finding) -> str:
    """A workflow command: GitHub shows it beside the line, in the changes of a pull request.

    Escaped as actions/toolkit does (packages/core/src/command.ts): a line break would end the command.
    """
    title = " ".join(part for part in (finding.reason, _object(finding)) if part)
    properties = {"file": finding.file, "line": finding.line, "col": finding.column, "title": title}
    given = ",".join(f"{name}={_property(str(value))}" for name, value in properties.items() if value is not None)
    message = ": ".join(part for part in (finding.path, finding.message) if part)
    return f"::{finding.severity.value} {given}::{_data(message)}"


def _object(finding: Finding) -> str | None:
    return "/".join(part for part in (finding.kind, finding.name) if part) or None


def _data(value: str) -> str:
    return value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")
