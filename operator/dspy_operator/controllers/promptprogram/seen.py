"""What is looked at when a program is decided about: plain data, gathered once a pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, NamedTuple

from dspy_operator.api.code import CodeRef
from dspy_operator.api.dataset import Dataset, PartSource
from dspy_operator.api.reasons import ConditionType, ProgramReason
from dspy_operator.contract import names
from dspy_operator.contract.canonical import digest
from dspy_operator.engine.conditions import parse_timestamp
from dspy_operator.engine.plan import Body, Key, Ref, Settings

ROWS_LOOK = timedelta(minutes=5)
"""How old the reading of a ConfigMap may become that nobody watches."""
REFUSED_LOOKS = timedelta(seconds=5), timedelta(seconds=60)
"""The same while the program is not accepted, at least and at most: somebody may be mending the rows."""
SHOWN_KEYS = 10
"""Keys of a ConfigMap that a message names."""


class Named(NamedTuple):
    """An object that a source of rows names."""

    kind: str
    """ConfigMap or PersistentVolumeClaim."""
    name: str


@dataclass(frozen=True)
class ObjectRead:
    """What of it counts."""

    uid: str
    resource_version: str
    keys: tuple[str, ...] = ()
    """Of a ConfigMap."""


@dataclass(frozen=True)
class RowsRead:
    """The objects that the dataset's sources and the code name, as they were read last; nobody watches them."""

    read_at: datetime
    objects: Mapping[Named, ObjectRead]
    """Those that exist."""


@dataclass(frozen=True)
class RowsMissing:
    """There is nothing to validate yet."""

    message: str
    """With the path of the field that names what is missing."""
    reason: ProgramReason = ProgramReason.DATASET_NOT_FOUND


@dataclass(frozen=True)
class Seen:
    """Everything that `decide` looks at."""

    body: Body
    """The PromptProgram."""
    now: datetime
    settings: Settings
    children: tuple[Body, ...] = ()
    """Objects whose labels name this program."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """uid of each child that is a revision -> its verified digest."""
    rows: RowsRead | None = None
    """None where no source names an object, or the spec does not parse."""
    runs: tuple[Body, ...] = ()
    """The OptimizationRuns of this program."""
    channels: Mapping[str, Body] = field(default_factory=dict)
    """Name of a run that ended with a candidate -> its channel."""
    endpoint: Body | None = None
    """The target."""
    foreign: frozenset[Ref] = frozenset()
    """Names that we need and that somebody else's objects have."""

    @property
    def name(self) -> str:
        """Of the program."""
        return str(self.body["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """Of the program and all its children."""
        return str(self.body["metadata"]["namespace"])

    @property
    def uid(self) -> str:
        """Of the program."""
        return str(self.body["metadata"]["uid"])

    @property
    def key(self) -> Key:
        """Of the program."""
        return Key(self.body["kind"], self.namespace, self.name)

    @property
    def status(self) -> Mapping[str, Any]:
        """What was true last; empty where it was lost."""
        return self.body.get("status") or {}

    def of(self, component: names.Component, kind: str | None = None) -> Iterator[Body]:
        """Children of one component, and of one kind."""
        for child in self.children:
            if component_of(child) == component and kind in (None, child["kind"]):
                yield child

    def config_map(self, name: str) -> Body | None:
        """A child by its name."""
        return next((c for c in self.children if c["kind"] == "ConfigMap" and c["metadata"]["name"] == name), None)

    def leftovers(self) -> bool:
        """Whether objects of an earlier program of this name are still being collected."""
        return any(
            reference.get("kind") == self.body["kind"] and reference.get("uid") != self.uid
            for child in self.children
            for reference in child["metadata"].get("ownerReferences") or ()
        )

    def is_foreign(self, kind: str, name: str) -> bool:
        """Whether somebody else has this name."""
        return any(ref.kind == kind and ref.name == name for ref in self.foreign)


def next_reading(read_at: datetime, status: Mapping[str, Any]) -> datetime:
    """When to read again: while the rows are missing or refused, after as long as they had been at the last reading."""
    for condition in status.get("conditions", ()):
        if condition["type"] == ConditionType.ACCEPTED and condition["status"] == "False":
            soonest, latest = REFUSED_LOOKS
            since = parse_timestamp(condition["lastTransitionTime"])
            return read_at + min(latest, max(soonest, read_at - since))
    return read_at + ROWS_LOOK


def component_of(child: Body) -> str:
    """What a child is, or "" where its labels do not say."""
    return str((child["metadata"].get("labels") or {}).get(names.LABEL_COMPONENT, ""))


def version_of(
    dataset: Dataset, read: RowsRead | None, namespace: str, codes: Mapping[str, CodeRef] = MappingProxyType({})
) -> str | RowsMissing:
    """Which rows and which code are there now: of one source its version, of several the digest of theirs.

    Args:
        codes: path -> code that the program names. Of an image its reference counts, and that the program's digest has.
    """
    versions = []
    objects = read.objects if read is not None else {}
    for source in dataset.sources():
        version = _version(source, objects, namespace)
        if isinstance(version, RowsMissing):
            return version
        versions.append(version)
    for path, code in codes.items():
        if code.config_map is not None:
            wanted = code.config_map
            version = _key_version(wanted.name, wanted.key, path, objects, namespace, ProgramReason.CODE_NOT_FOUND)
            if isinstance(version, RowsMissing):
                return version
            versions.append(version)
    return versions[0] if len(versions) == 1 else digest(versions)


def _version(of: PartSource, objects: Mapping[Named, ObjectRead], namespace: str) -> str | RowsMissing:
    """Digest of inline rows, `uid/resourceVersion` of a ConfigMap, uid of a volume, whose files nobody sees from here,
    and of a URL or a bucket what is written, for nobody asks the server.

    Annotations of a ConfigMap move its version too. That costs one more validation, while its content's digest would
    miss rows that were another one's for the moment in which the pod read them.
    """
    if of.source.inline is not None:
        return digest(of.source.inline.data)
    if (volume := of.source.persistent_volume_claim) is not None:
        found = objects.get(Named("PersistentVolumeClaim", volume.claim_name))
        if found is None:
            return RowsMissing(
                f"{of.path}.persistentVolumeClaim.claimName: PersistentVolumeClaim {namespace}/{volume.claim_name} "
                "does not exist; creating it is enough"
            )
        return found.uid
    if of.source.http is not None:
        return digest([of.source.http.url, of.source.http.sha256])
    if (s3 := of.source.s3) is not None:
        return digest([s3.endpoint, s3.bucket, s3.key, s3.sha256])
    wanted = of.source.config_map
    assert wanted is not None
    return _key_version(wanted.name, wanted.key, of.path, objects, namespace, ProgramReason.DATASET_NOT_FOUND)


def _key_version(
    name: str, key: str, path: str, objects: Mapping[Named, ObjectRead], namespace: str, reason: ProgramReason
) -> str | RowsMissing:
    """`uid/resourceVersion` of the ConfigMap, where it has the key."""
    found = objects.get(Named("ConfigMap", name))
    if found is None:
        message = f"{path}.configMap.name: ConfigMap {namespace}/{name} does not exist; creating it is enough"
        return RowsMissing(message, reason)
    if key not in found.keys:
        known = ", ".join(sorted(found.keys)[:SHOWN_KEYS]) or "none"
        message = f'{path}.configMap.key: ConfigMap {namespace}/{name} has no key "{key}" (keys: {known})'
        return RowsMissing(message, reason)
    return f"{found.uid}/{found.resource_version}"
