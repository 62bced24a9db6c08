"""A revision as people have it at hand: a folder of a run, or a ConfigMap of a cluster as `kubectl get -o yaml` prints it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dspy_operator.contract.digests import revision_digest
from dspy_operator.contract.exits import Reason, RunFailed

_CONTENT = ("program.py", "program.json", "prompts.json")
_EVIDENCE = ("report.json", "provenance.json")


@dataclass(frozen=True)
class Revision:
    """One revision, its content proven to be what its digest says."""

    name: str
    """As people know it: the ConfigMap's name, else the first 8 hex digits of the digest."""
    digest: str
    """`v1:<sha256>` of the three files."""
    program_py: str
    program_json: str
    prompts: Mapping[str, Any]
    """prompts.json."""
    report: Mapping[str, Any]
    """report.json; empty where it is not at hand."""
    provenance: Mapping[str, Any]
    """provenance.json; empty where it is not at hand."""


def read_revision(source: str) -> Revision:
    """The revision that a word of the command line means.

    Args:
        source: a folder with `prompts.json`, or one with such a folder `revision` in it; a file with a ConfigMap as YAML or
            JSON; `-` for such a file on standard input.
    Raises:
        RunFailed: InvalidManifest, saying what is missing there or was changed.
    """
    path = Path(source)
    if source != "-" and path.is_dir():
        folder = path if (path / "prompts.json").is_file() else path / "revision"
        files = {name: _text(folder / name, source) for name in (*_CONTENT, *_EVIDENCE) if (folder / name).is_file()}
        return _revision(source, files, name=None)
    text = sys.stdin.read() if source == "-" else _text(path, source)
    try:
        manifest = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise _wrong(source, f"it is no YAML: {' '.join(str(error).split())}") from error
    data = manifest.get("data") if isinstance(manifest, Mapping) else None
    if not isinstance(data, Mapping):
        raise _wrong(source, "it is no ConfigMap with a revision; `kubectl get configmap NAME -o yaml` prints one")
    name = (manifest.get("metadata") or {}).get("name")
    return _revision(source, {str(key): str(value) for key, value in data.items()}, name=name)


def _revision(source: str, files: Mapping[str, str], *, name: str | None) -> Revision:
    if missing := [each for each in _CONTENT if each not in files]:
        found = ", ".join(sorted(files)) or "none of a revision's files"
        raise _wrong(source, f"{missing[0]} is missing; found {found}")
    digest = revision_digest(*(files[each].encode() for each in _CONTENT))
    report, provenance = (_json(source, each, files.get(each, "{}")) for each in _EVIDENCE)
    claimed = report.get("revision")
    if claimed is not None and claimed != digest:
        raise _wrong(source, f"its files were changed: report.json says {claimed}, they have {digest}")
    return Revision(
        name or digest.partition(":")[2][:8],
        digest,
        files["program.py"],
        files["program.json"],
        _json(source, "prompts.json", files["prompts.json"]),
        report,
        provenance,
    )


def _json(source: str, name: str, text: str) -> Mapping[str, Any]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise _wrong(source, f"{name} is no JSON: {error}") from error
    if not isinstance(document, Mapping):
        raise _wrong(source, f"{name} is no JSON object")
    return document


def _text(path: Path, source: str) -> str:
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise _wrong(source, f"it cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _wrong(source, f"{path.name} is not UTF-8") from error


def _wrong(source: str, what: str) -> RunFailed:
    return RunFailed(Reason.INVALID_MANIFEST, f"{'standard input' if source == '-' else source}: {what}")
