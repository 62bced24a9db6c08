"""A program's sources of rows, as a runner's pod has them: what it mounts, and where in the pod each lies. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dspy_operator.api.dataset import Dataset
from dspy_operator.contract import names
from dspy_operator.controllers.runnerpod import DataMount


def mounts_of(dataset: Dataset) -> tuple[DataMount, ...]:
    """Of each source, in the order of Dataset.sources()."""
    found = []
    for number, (_, _, source) in enumerate(dataset.sources()):
        if source.config_map is not None:
            found.append(DataMount(file=source.config_map.key, config_map=source.config_map.name))
        elif source.persistent_volume_claim is not None:
            claim = source.persistent_volume_claim
            found.append(DataMount(file=claim.path, claim=claim.claim_name))
        else:
            found.append(DataMount(file=names.inline_file(dataset.format, number)))
    return tuple(found)


def inline_rows(dataset: Dataset) -> dict[str, str]:
    """Key of the spec ConfigMap -> the rows that are written in the program."""
    return {
        names.inline_file(dataset.format, number): source.inline.data
        for number, (_, _, source) in enumerate(dataset.sources())
        if source.inline is not None
    }


def part_paths(dataset: Dataset, mounts: Sequence[DataMount]) -> Mapping[str, str]:
    """validation, test -> the file in the pod of a part that has a source of its own."""
    parts = [part for part, _, _ in dataset.sources()]
    return {
        part: f"{names.data_folder(number)}/{mount.file}"
        for number, (part, mount) in enumerate(zip(parts, mounts, strict=True))
        if part
    }
