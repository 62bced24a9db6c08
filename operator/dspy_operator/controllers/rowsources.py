"""A program's sources of rows, as a runner's pod has them: what it mounts, and where in the pod each lies. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from dspy_operator.api.dataset import Dataset
from dspy_operator.contract import canonical, names
from dspy_operator.contract.digests import short
from dspy_operator.contract.runspec import HTTPRows, RowsFile, S3Rows
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
        elif source.http is not None:
            secret = source.http.headers_secret
            found.append(
                DataMount(file=names.url_file(source.http.url), fetched=True, headers=secret.name if secret else None)
            )
        elif source.s3 is not None:
            secret = source.s3.credentials_secret
            found.append(
                DataMount(file=names.url_file(source.s3.key), fetched=True, credentials=secret.name if secret else None)
            )
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


def files_of(dataset: Dataset, mounts: Sequence[DataMount], *, digest: str | None = None) -> dict[str, RowsFile]:
    """Part ("" is the dataset's own) -> its file in the pod.

    Args:
        digest: of the rows that were validated. Other rows from the same place are another snapshot on the journal's volume.
    """
    found = {}
    for number, ((part, _, source), mount) in enumerate(zip(dataset.sources(), mounts, strict=True)):
        folder = names.data_folder(number)
        file = RowsFile(path=f"{folder}/{mount.file}", root=folder if mount.claim else None)
        if source.http is not None:
            key = short(canonical.digest([source.http.url, source.http.sha256, digest]))
            file = RowsFile(
                path=f"{names.WORK_FOLDER}/rows/{key}/{mount.file}",
                sha256=source.http.sha256,
                http=HTTPRows(
                    url=source.http.url,
                    headers_folder=names.rows_secret_folder(number) if mount.headers else None,
                    headers_secret=mount.headers,
                ),
            )
        if source.s3 is not None:
            s3 = source.s3
            key = short(canonical.digest([s3.endpoint, s3.bucket, s3.key, s3.sha256, digest]))
            file = RowsFile(
                path=f"{names.WORK_FOLDER}/rows/{key}/{mount.file}",
                sha256=s3.sha256,
                s3=S3Rows(
                    endpoint=s3.endpoint,
                    bucket=s3.bucket,
                    key=s3.key,
                    region=s3.region,
                    credentials_folder=names.rows_secret_folder(number) if mount.credentials else None,
                    credentials_secret=mount.credentials,
                ),
            )
        found[str(part)] = file
    return found
