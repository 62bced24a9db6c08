"""What is served: the pinned, else the promoted, else the baseline revision; and which revisions there are to choose from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from dspy_operator.api.objects import PromptProgram
from dspy_operator.contract import names
from dspy_operator.contract.digests import program_digest
from dspy_operator.contract.documents import Result
from dspy_operator.controllers.promptprogram import current, promotion
from dspy_operator.controllers.promptprogram.current import Current, Promoted
from dspy_operator.controllers.promptprogram.promotion import Candidate, Entry
from dspy_operator.controllers.promptprogram.revisions import Revision, Shelf, files_in
from dspy_operator.controllers.promptprogram.seen import Seen


@dataclass(frozen=True)
class Held:
    """The revisions of a program, and what each is for."""

    program_digest: str
    shelf: Shelf
    baseline: str | None
    """Name of the revision of the program as written."""
    promoted: Promoted | None
    pin: str | None
    """What `spec.revision` names."""
    served: Revision | None
    """What `<program>-current` should hold."""
    missing: str | None
    """Name of what it should hold instead, if that were there."""
    taken: bool
    """`<program>-current` is somebody else's: nothing is served, and no promotion could be recorded."""
    candidates: tuple[Candidate, ...]
    entries: tuple[Entry, ...]

    @property
    def name(self) -> str | None:
        """Of what is served."""
        return self.served.name if self.served else None

    @property
    def pinned(self) -> bool:
        """Whether what is served is what `spec.revision` names."""
        return self.served is not None and self.served.name == self.pin

    def document(self) -> dict[str, Any] | None:
        """For `status.servedRevision`."""
        if self.served is None or self.taken:
            return None
        return {"name": self.served.name, "digest": self.served.digest, "pinned": self.pinned}


def serve(
    seen: Seen,
    program: PromptProgram,
    shelf: Shelf,
    said: Current | None,
    validated: Result | None,
    dataset: dict[str, Any] | None,
    code: Mapping[str, str] = MappingProxyType({}),
) -> Held:
    """Choose, after the candidates of ended runs were decided about.

    Args:
        said: what `<program>-current` says.
        validated: the result of the validation of what is written.
        dataset: what the rows came to when they were validated last.
        code: path of code -> sha256 of what it said then.
    """
    spec = program.spec
    digest = program_digest(spec.program, spec.adapter, spec.metric, spec.target.request, spec.types, code)
    pin = spec.revision.name if spec.revision else None
    shelf, baseline = _baseline(seen, shelf, validated, said)
    candidates, shelf = promotion.collect(seen.runs, seen.channels, shelf)
    promoted = _renamed(_promoted(seen, shelf, said), shelf)
    served, missing, shelf = _choose(shelf, pin, promoted, baseline, said)
    taken = seen.is_foreign("ConfigMap", names.program_current(seen.name))
    before = seen.status.get("candidates", ())
    entries = tuple(map(Entry.of, before))
    if not taken:
        incumbent = served.name if served is not None and served.name != baseline else None
        about = promotion.Program(program, digest, seen.endpoint, dataset.get("test") if dataset else None)
        stage = promotion.Stage(promoted, incumbent, pinned=served is not None and served.name == pin)
        entries, promoted = promotion.judge(candidates, before, shelf, about, stage)
        served, missing, shelf = _choose(shelf, pin, promoted, baseline, said)
    return Held(digest, shelf, baseline, promoted, pin, served, missing, taken, candidates, entries)


def _choose(
    shelf: Shelf, pin: str | None, promoted: Promoted | None, baseline: str | None, said: Current | None
) -> tuple[Revision | None, str | None, Shelf]:
    """What is served, and the name of what should be where that is not there: what is served already stays."""
    wanted = pin or (promoted.name if promoted else None) or baseline
    if (found := shelf.get(wanted)) is not None:
        return found, None, shelf
    kept, shelf = _kept(shelf, said)
    if kept is not None and wanted in (None, kept.name):
        return kept, None, shelf
    others = (kept, shelf.get(promoted.name) if promoted else None, shelf.get(baseline))
    return next((other for other in others if other is not None), None), wanted, shelf


def _kept(shelf: Shelf, said: Current | None) -> tuple[Revision | None, Shelf]:
    """What is served already; a revision that somebody removed is made again from what applications mount."""
    if said is None:
        return None, shelf
    found = shelf.get(said.revision) or shelf.find(said.digest)
    if found is None and said.is_whole:
        shelf = shelf.add(said.digest, said.files, name=said.revision)
        found = shelf.added[-1]
    return found, shelf


def _baseline(seen: Seen, shelf: Shelf, validated: Result | None, said: Current | None) -> tuple[Shelf, str | None]:
    """The name of the program's revision as written, and the shelf with it."""
    if validated is not None and validated.candidate is not None:
        found = shelf.find(validated.candidate)
        if found is None:
            channel = next(iter(seen.of(names.Component.CHANNEL, "ConfigMap")))
            shelf = shelf.add(validated.candidate, files_in(channel))
            found = shelf.added[-1]
        return shelf, found.name
    if (known := seen.status.get("baselineRevision")) is not None:
        return shelf, known
    # A lost status: what is served, neither promoted nor pinned, was the baseline.
    plain = said is not None and said.promoted is None and not said.pinned
    return shelf, said.revision if said is not None and plain else None


def _promoted(seen: Seen, shelf: Shelf, said: Current | None) -> Promoted | None:
    """What is promoted, as `<program>-current` says; as the status says only where there is none."""
    if said is not None:
        return said.promoted
    name = (seen.status.get("promotedRevision") or {}).get("name")
    served = seen.status.get("servedRevision") or {}
    found = shelf.get(name)
    digest = found.digest if found is not None else served.get("digest", "") if served.get("name") == name else ""
    return current.promoted_in(seen.status, digest)


def _renamed(promoted: Promoted | None, shelf: Shelf) -> Promoted | None:
    """By the name under which its revision is there now."""
    if promoted is None or shelf.get(promoted.name) is not None or (found := shelf.find(promoted.digest)) is None:
        return promoted
    return replace(promoted, name=found.name)
