"""The labelled rows: where they are, how they are read, how they are divided."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from dspy_operator.api.fields import (
    ApiModel,
    ColumnMap,
    ColumnName,
    DataKey,
    FieldClass,
    ForeignName,
    UnionModel,
    spec_field,
)
from dspy_operator.api.rules import Rule

INPUT, EXECUTION = FieldClass.INPUT, FieldClass.EXECUTION

Sha256 = Annotated[str, Field(max_length=64, pattern=r"^[0-9a-f]{64}$")]
HTTP_URL = r"^https?://[^\s/?#@]+(/[^\s#]*)?$"


class SecretName(ApiModel):
    """A Secret of the same namespace."""

    name: ForeignName = spec_field(EXECUTION, "Name of the Secret.")


class InlineSource(ApiModel):
    """Rows in the manifest itself."""

    data: str = spec_field(INPUT, "The rows, in `format`.", min_length=1, max_length=65536)


class ConfigMapSource(ApiModel):
    """Rows in a ConfigMap of the same namespace."""

    name: ForeignName = spec_field(INPUT, "Name of the ConfigMap.")
    key: DataKey = spec_field(INPUT, "Key whose value holds the rows.")


class PersistentVolumeClaimSource(ApiModel):
    """Rows in a file on a volume of the same namespace."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            id="path-stays-on-its-volume",
            cel="!('/' + self.path + '/').contains('/../')",
            message='path must not contain ".."',
            field=".path",
        ),
    )

    claim_name: ForeignName = spec_field(INPUT, "Name of the PersistentVolumeClaim.")
    path: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[^/\s][^\s]*$")] = spec_field(
        INPUT,
        "Path of the file from the root of the volume, for example tickets/2026.jsonl.gz. The volume is mounted read-only; user 65532 must be able to read the file. An edit of the file is not noticed: give a new version a name of its own.",
    )

    @model_validator(mode="after")
    def _stays_on_its_volume(self) -> Self:
        if ".." in self.path.split("/"):
            raise PydanticCustomError("parent", 'path must not contain ".."')
        return self


class HTTPSource(ApiModel):
    """Rows that a web server has."""

    url: Annotated[str, Field(min_length=8, max_length=2048, pattern=HTTP_URL)] = spec_field(
        INPUT, "Where they are; no password in it."
    )
    sha256: Sha256 | None = spec_field(
        INPUT, "The sha256 of what is sent; unset takes whatever is there at validation.", default=None
    )
    headers_secret: SecretName | None = spec_field(
        EXECUTION, "Secret whose keys are sent as headers, for example Authorization.", default=None
    )


class S3Source(ApiModel):
    """Rows in a bucket of S3, or of a server that speaks it."""

    endpoint: Annotated[str, Field(min_length=8, max_length=2048, pattern=r"^https?://[^\s/?#@]+/?$")] | None = (
        spec_field(
            EXECUTION,
            "The server, for example http://minio.storage.svc:9000, asked as endpoint/bucket/key; unset means AWS.",
            default=None,
        )
    )
    bucket: Annotated[str, Field(min_length=3, max_length=63, pattern=r"^[a-z0-9][-a-z0-9.]*[a-z0-9]$")] = spec_field(
        INPUT, "Name of the bucket."
    )
    key: Annotated[str, Field(min_length=1, max_length=1024)] = spec_field(INPUT, "Key of the object in the bucket.")
    region: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[-a-z0-9]+$")] | None = spec_field(
        EXECUTION,
        "The region that requests are signed for; unset means us-east-1, which servers other than AWS take.",
        default=None,
    )
    credentials_secret: SecretName | None = spec_field(
        EXECUTION,
        "Secret with the keys accessKeyID and secretAccessKey, and sessionToken where they are temporary; unset asks without a signature, as for a public bucket.",
        default=None,
    )
    sha256: Sha256 | None = spec_field(
        INPUT, "The sha256 of what is sent; unset takes whatever is there at validation.", default=None
    )


class SourceSecret(NamedTuple):
    """A Secret that a source names."""

    path: tuple[str, ...]
    """Of the field, from the source."""
    name: str


class Source(UnionModel):
    """Where rows are; `type` names the member that is set."""

    MEMBERS: ClassVar[dict[str, str]] = {
        "Inline": "inline",
        "ConfigMap": "configMap",
        "PersistentVolumeClaim": "persistentVolumeClaim",
        "HTTP": "http",
        "S3": "s3",
    }
    REQUIRED: ClassVar[frozenset[str]] = frozenset(MEMBERS)

    type: Literal["Inline", "ConfigMap", "PersistentVolumeClaim", "HTTP", "S3"] = spec_field(
        INPUT,
        "Inline: in this manifest. ConfigMap: in a ConfigMap. PersistentVolumeClaim: on a volume. HTTP: at a URL. S3: in a bucket.",
    )
    inline: InlineSource | None = spec_field(INPUT, "Rows in this manifest.", default=None)
    config_map: ConfigMapSource | None = spec_field(INPUT, "Rows in a ConfigMap.", default=None)
    persistent_volume_claim: PersistentVolumeClaimSource | None = spec_field(INPUT, "Rows on a volume.", default=None)
    http: HTTPSource | None = spec_field(INPUT, "Rows at a URL.", default=None)
    s3: S3Source | None = spec_field(INPUT, "Rows in a bucket.", default=None, alias="s3")

    @property
    def is_fetched(self) -> bool:
        """Whether a server has the rows."""
        return self.http is not None or self.s3 is not None

    def secret(self) -> SourceSecret | None:
        """The Secret that the server is asked with."""
        if self.http is not None and self.http.headers_secret is not None:
            return SourceSecret(("http", "headersSecret", "name"), self.http.headers_secret.name)
        if self.s3 is not None and self.s3.credentials_secret is not None:
            return SourceSecret(("s3", "credentialsSecret", "name"), self.s3.credentials_secret.name)
        return None


class HashSplit(ApiModel):
    """Each row's part is decided by a hash of the row, so that adding rows moves no other row."""

    seed: int | None = spec_field(
        INPUT, "Another seed, another split; unset means 0.", default=None, ge=0, le=2**31 - 1
    )
    group_by: ColumnName | None = spec_field(
        INPUT,
        "Rows that are alike in this column come into the same part, whole groups as near to the part's size as they fit; unset means each row on its own.",
        default=None,
    )
    stratify_by: ColumnName | None = spec_field(
        INPUT,
        "Each part gets its share of each value of this column, to within one row; with groupBy a group counts as its most frequent value. Unset means by chance.",
        default=None,
    )


class ColumnSplit(ApiModel):
    """A column names each row's part."""

    name: ColumnName = spec_field(
        INPUT, 'The column; its values are "train", "validation" and "test", or "dev" (which is divided) and "test".'
    )


class SourcesSplit(ApiModel):
    """Parts of their own: the rows of `dataset.source` are those that optimizers learn from."""

    validation: Source | None = spec_field(
        INPUT, "Rows by which optimizers choose; they are taken from the others where there are none.", default=None
    )
    test: Source = spec_field(INPUT, "Rows that no optimizer sees: candidates are judged on them.")


class Split(UnionModel):
    """How rows are divided into dev (train and validation) and test; `type` names the member that is set."""

    MEMBERS: ClassVar[dict[str, str]] = {"Hash": "hash", "Column": "column", "Sources": "sources"}
    REQUIRED: ClassVar[frozenset[str]] = frozenset({"Column", "Sources"})

    type: Literal["Hash", "Column", "Sources"] = spec_field(
        INPUT, "Hash: by a hash of the row. Column: as a column says. Sources: each part has a source of its own."
    )
    hash: HashSplit | None = spec_field(INPUT, "Options of Hash.", default=None)
    column: ColumnSplit | None = spec_field(INPUT, "Options of Column.", default=None)
    sources: SourcesSplit | None = spec_field(INPUT, "Options of Sources.", default=None)


class PartSource(NamedTuple):
    """One of a dataset's sources."""

    part: Literal["", "validation", "test"]
    """Whose rows these are; "" is `dataset.source` itself."""
    path: str
    """Of the field."""
    source: Source


class Dataset(ApiModel):
    """The labelled rows."""

    source: Source = spec_field(INPUT, "Where the rows are.")
    format: Literal["JSONL", "JSON", "CSV"] = spec_field(
        INPUT,
        "JSONL: one JSON object a line. JSON: a list of objects. CSV: commas and double quotes (RFC 4180), the first line has the columns, an empty cell is null. UTF-8; gzip is known by its first bytes.",
    )
    fields: ColumnMap | None = spec_field(
        INPUT, "Signature field -> column; a field that is not named here has a column of its own name.", default=None
    )
    split: Split | None = spec_field(INPUT, "How rows are divided; unset means Hash with seed 0.", default=None)
    limit: int | None = spec_field(
        INPUT, "At most this many rows, chosen by hash; unset means all.", default=None, ge=1, le=1_000_000
    )
    export_rows: bool | None = spec_field(
        INPUT,
        "false: revisions hold no copies of rows (their conformance vectors are left out); unset means true.",
        default=None,
    )

    def sources(self) -> tuple[PartSource, ...]:
        """All of them; their order numbers the folders of a pod."""
        found = [PartSource("", "spec.dataset.source", self.source)]
        parts = self.split.sources if self.split is not None else None
        if parts is not None:
            where = "spec.dataset.split.sources"
            if parts.validation is not None:
                found.append(PartSource("validation", f"{where}.validation", parts.validation))
            found.append(PartSource("test", f"{where}.test", parts.test))
        return tuple(found)
