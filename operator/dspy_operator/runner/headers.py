"""The headers that servers of a program are asked with: their values, which nobody is told, and their names, which a revision tells."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from dspy_operator.api.objects import field_path
from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.contract.runspec import RunSpec
from dspy_operator.runner.progress import write_json
from dspy_operator.runner.snapshot import secret_headers

Values = Mapping[str, Mapping[str, str]]
"""Tool or node -> header -> value."""
Names = Mapping[str, tuple[str, ...]]
"""Tool or node -> the headers that it wants."""

_SECRET_CHARACTERS = 8
"""A shorter value is a word, and stands in answers by chance."""


def header_values(spec: RunSpec) -> Values:
    """Out of the mounted Secrets; none for a server that names none.

    Raises:
        RunFailed: SecretMissing with the path of the field.
    """
    found = {}
    for server in spec.program.program.servers:
        if (secret := server.http.headers_secret) is not None:
            field, folder = field_path((*server.path, "headersSecret", "name")), (spec.headers or {}).get(secret.name)
            if folder is None:
                raise RunFailed(Reason.SECRET_MISSING, f"Secret {secret.name} is not mounted", path=field)
            found[server.name] = secret_headers(folder, secret.name, field=field)
    return found


def header_names(spec: RunSpec) -> Names:
    """Of each server that is asked with some. A run writes them beside its journal, so that each later try publishes the same.

    Raises:
        RunFailed: SecretMissing with the path of the field.
    """
    found = learned_once(spec, "headers.json", lambda: {name: list(of) for name, of in header_values(spec).items()})
    return {name: tuple(names) for name, names in found.items()}


def learned_once(spec: RunSpec, file: str, learn: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What is learned of a program's surroundings; a run writes it beside its journal, and each later try reads it there."""
    journal = Path(spec.paths.journal)
    kept = journal.with_name(file)
    is_run = spec.kind == "run" and spec.mode == "Run"
    if is_run and kept.is_file() and journal.is_file():
        found: dict[str, Any] = json.loads(kept.read_bytes())
        return found
    found = learn()
    if is_run and found:
        write_json(kept, found)
    return found


def without_values(text: str, headers: Iterable[str]) -> str:
    """A text without the values of headers, which a server may say back; of `Bearer KEY` also without the key alone."""
    for value in headers:
        for part in (value, value.rpartition(" ")[2]):
            if len(part) >= _SECRET_CHARACTERS:
                text = text.replace(part, "***")
    return text
