"""A program's sources of rows, as a runner's pod has them: what it mounts, and where in the pod each lies. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from dspy_operator.api.dataset import Dataset
from dspy_operator.contract import names
from dspy_operator.contract.runspec import RowsFile
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


def files_of(dataset: Dataset, mounts: Sequence[DataMount]) -> dict[str, RowsFile]:
    """Part ("" is the dataset's own) -> its file in the pod."""
    found = {}
    for number, ((part, _, _), mount) in enumerate(zip(dataset.sources(), mounts, strict=True)):
        folder = names.data_folder(number)
        found[str(part)] = RowsFile(path=f"{folder}/{mount.file}", root=folder if mount.claim else None)
    return found
