"""The revisions of a program: immutable ConfigMaps that are found, adopted, added and, when old, collected."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from dspy_operator.contract import names
from dspy_operator.contract.digests import revision_digest
from dspy_operator.controllers.runnerpod import Owner
from dspy_operator.engine.plan import Body, Guarded

DEFAULT_HISTORY = 10
DIGITS = (8, 12, 16, 24, 32, 64)
"""Of a digest in a name; more where the name is taken."""


class Damaged(Exception):
    """Files that do not have the digest that they claim."""


class TooLarge(Exception):
    """Files that no ConfigMap holds; says which."""


@dataclass(frozen=True)
class Revision:
    """One revision."""

    name: str
    digest: str
    files: Mapping[str, str]
    run: str = ""
    made_by: str = ""
    body: Body | None = None
    """The ConfigMap; None before it is there."""


@dataclass(frozen=True)
class Shelf:
    """The revisions of a program: those that are there, and those that this pass adds."""

    owner: Owner
    there: tuple[Revision, ...]
    taken: frozenset[str] = frozenset()
    """Names of ConfigMaps that are something else."""
    added: tuple[Revision, ...] = ()
    _by_name: Mapping[str, Revision] = field(init=False, repr=False, compare=False)
    _by_digest: Mapping[str, Revision] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Where an adopted one has the content of another, the shortest name counts: it comes last.
        every = sorted((*self.there, *self.added), key=lambda of: (len(of.name), of.name), reverse=True)
        object.__setattr__(self, "_by_name", {revision.name: revision for revision in every})
        object.__setattr__(self, "_by_digest", {revision.digest: revision for revision in every})

    def get(self, name: str | None) -> Revision | None:
        """By name."""
        return self._by_name.get(name) if name else None

    def find(self, digest: str) -> Revision | None:
        """By digest."""
        return self._by_digest.get(digest)

    def add(self, digest: str, files: Mapping[str, str], *, run: str = "", name: str | None = None) -> Shelf:
        """With one more revision, under a name that is free.

        Args:
            digest: what the files claim to be.
            run: the run that found it.
            name: the name that it had before it was lost.
        Raises:
            Damaged: the files have another digest.
            TooLarge: the files do not fit.
        """
        if digest_of(files) != digest:
            raise Damaged(f"the files of {digest} have another digest")
        check_size(files)
        program = self.owner.name
        wanted = [name] if name else []
        wanted += [names.program_revision(program, digest, digits) for digits in DIGITS]
        free = next(name for name in wanted if name not in self.taken and name not in self._by_name)
        return replace(self, added=(*self.added, Revision(free, digest, files, run, self.owner.uid)))


def shelf_of(
    owner: Owner, children: Iterable[Body], digests: Mapping[str, str], foreign: Collection[str] = ()
) -> Shelf:
    """What is there now.

    Args:
        digests: uid of each ConfigMap that is a revision -> its verified digest.
        foreign: names of ConfigMaps that are not ours.
    """
    there, taken = [], set(foreign)
    for child in children:
        if child["kind"] != "ConfigMap":
            continue
        metadata = child["metadata"]
        if (digest := digests.get(metadata["uid"])) is None:
            taken.add(metadata["name"])
            continue
        notes = metadata.get("annotations") or {}
        there.append(
            Revision(
                name=metadata["name"],
                digest=digest,
                files=child["data"],
                run=notes.get(names.ANNOTATION_RUN, ""),
                made_by=notes.get(names.ANNOTATION_MADE_BY, ""),
                body=child,
            )
        )
    return Shelf(owner, tuple(there), frozenset(taken))


def verified_digest(config_map: Body) -> str | None:
    """The digest of a revision, also of one that we did not make: immutable, labelled, its files as it says.

    None where it is not to be trusted; being immutable it need not be asked twice.
    """
    if not config_map.get("immutable"):
        return None
    claimed = (config_map["metadata"].get("annotations") or {}).get(names.ANNOTATION_DIGEST)
    return claimed if claimed is not None and claimed == digest_of(config_map.get("data") or {}) else None


def digest_of(files: Mapping[str, str]) -> str | None:
    """The revision digest of files; None where one of the three is missing."""
    if not all(name in files for name in names.REVISION_PROGRAM):
        return None
    program_py, program_json, prompts_json = (files[name].encode() for name in names.REVISION_PROGRAM)
    return revision_digest(program_py, program_json, prompts_json)


def check_size(files: Mapping[str, str]) -> None:
    """Refuse files that no ConfigMap holds.

    Raises:
        TooLarge: with the largest files and what makes them smaller.
    """
    sizes = {name: len(content.encode()) for name, content in files.items()}
    if (total := sum(sizes.values())) > names.REVISION_BYTES:
        largest = sorted(sizes, key=lambda name: (-sizes[name], name))[:3]
        raise TooLarge(
            f"the revision has {total} bytes, {names.REVISION_BYTES} fit "
            f"({', '.join(f'{name} {sizes[name]}' for name in largest)}): fewer or shorter demonstrations, "
            "or dataset.exportRows: false, make it smaller"
        )


def files_in(channel: Body) -> dict[str, str]:
    """The revision's files that a pod left in its channel."""
    data = channel.get("data") or {}
    return {key.removeprefix(names.KEY_REVISION): data[key] for key in data if key.startswith(names.KEY_REVISION)}


def config_map(owner: Owner, revision: Revision, *, goes_with_owner: bool) -> Body:
    """The immutable ConfigMap of a revision.

    Args:
        goes_with_owner: `deletionPolicy: Delete`; else what was paid for outlives the program.
    """
    metadata = owner.metadata(revision.name, names.Component.REVISION)
    if not goes_with_owner:
        del metadata["ownerReferences"]
    metadata["annotations"] = {names.ANNOTATION_DIGEST: revision.digest, names.ANNOTATION_MADE_BY: owner.uid}
    if revision.run:
        metadata["annotations"][names.ANNOTATION_RUN] = revision.run
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "immutable": True,
        "data": dict(revision.files),
    }


def reowned(shelf: Shelf, *, goes_with_owner: bool) -> tuple[Guarded, ...]:
    """Revisions of ours whose ownerReference does not say what `deletionPolicy` says; their content stays."""
    owner, changed = shelf.owner, []
    wanted = owner.metadata("", names.Component.REVISION)["ownerReferences"]
    for revision in shelf.there:
        if revision.made_by != owner.uid or revision.body is None:
            continue
        before = revision.body["metadata"].get("ownerReferences") or []
        others = [reference for reference in before if reference.get("uid") != owner.uid]
        if goes_with_owner == (len(others) < len(before)):
            continue
        body = copy.copy(revision.body)
        body["metadata"] = body["metadata"] | {"ownerReferences": others + (wanted if goes_with_owner else [])}
        changed.append(Guarded(body))
    return tuple(changed)


def surplus(shelf: Shelf, *, limit: int, keep: Collection[str]) -> tuple[Revision, ...]:
    """The oldest of those that this program made, beyond the limit.

    Args:
        keep: names that are served, promoted, pinned, the baseline, or needed by a run: they do not count.
    """

    def age(revision: Revision) -> tuple[str, str]:
        assert revision.body is not None
        return revision.body["metadata"].get("creationTimestamp") or "", revision.name

    old = [revision for revision in shelf.there if revision.made_by == shelf.owner.uid and revision.name not in keep]
    return tuple(sorted(old, key=age, reverse=True)[limit:])
