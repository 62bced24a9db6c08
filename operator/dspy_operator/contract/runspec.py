"""run.json: everything that a runner needs, resolved and frozen (contract.md, v1)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from dspy_operator.api.metric import Metric
from dspy_operator.api.modelendpoint import Pricing
from dspy_operator.api.optimizationrun import Budget, Goal, Pacing
from dspy_operator.api.program import ObjectType, Program
from dspy_operator.api.promptprogram import Adapter, SamplingRequest

CONTRACT = "v1"


class Document(BaseModel):
    """Base of the contract's documents: camelCase on the wire, unknown fields ignored so that an older reader survives."""

    model_config = ConfigDict(
        extra="ignore", frozen=True, alias_generator=to_camel, validate_by_alias=True, validate_by_name=True
    )

    def document(self) -> dict[str, Any]:
        """The wire form; what is not known is absent."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class RunIdentity(Document):
    """Which run this is; `try` is not here but in the pod's environment."""

    namespace: str
    name: str
    uid: str = ""
    attempt: int = 1


class ProgramPart(Document):
    """The program as written."""

    name: str
    digest: str
    program: Program
    types: dict[str, ObjectType] | None = None
    adapter: Adapter | None = None
    metric: Metric
    request: SamplingRequest | None = None
    """Of the target: what the revision's files say, whatever a run overrides."""


class OptimizerPart(Document):
    """The optimizer and its options as written."""

    type: Literal[
        "Evaluate",
        "LabeledFewShot",
        "BootstrapFewShot",
        "BootstrapFewShotWithRandomSearch",
        "MIPROv2",
        "GEPA",
        "COPRO",
        "InferRules",
        "SIMBA",
        "Stages",
    ]
    options: dict[str, Any] = {}


class HTTPRows(Document):
    """Where a file comes from that is not there yet."""

    url: str
    headers_folder: str | None = None
    """A file for each header, named as it."""
    headers_secret: str | None = None
    """For messages: the Secret that the files come from."""


class S3Rows(Document):
    """The same, of an object in a bucket."""

    endpoint: str | None = None
    """None: AWS."""
    bucket: str
    key: str
    region: str | None = None
    credentials_folder: str | None = None
    """A file for each key of the Secret; None: the request is not signed."""
    credentials_secret: str | None = None
    """For messages: its name."""


class RowsFile(Document):
    """A file of rows."""

    path: str
    root: str | None = None
    """Folder that the file must lie in, links followed: a volume that others write to. None: any."""
    sha256: str | None = None
    http: HTTPRows | None = None
    """Fetched from here into `path`, unless it is there."""
    s3: S3Rows | None = Field(default=None, alias="s3")
    """The same."""

    @property
    def is_fetched(self) -> bool:
        """Whether it comes from a server."""
        return self.http is not None or self.s3 is not None


class SplitPart(Document):
    """How rows are divided, defaults applied."""

    type: Literal["Hash", "Column", "Sources"]
    seed: int = 0
    column: str | None = None
    group_by: str | None = None
    """Hash: rows that are alike in this column stay together."""
    stratify_by: str | None = None
    """Hash: each part has its share of each value of this column."""
    validation: RowsFile | None = None
    """Sources: without it the dataset's own rows are divided."""
    test: RowsFile | None = None
    """Sources."""


class DatasetPart(Document):
    """Where the rows are in the pod, and how they are read."""

    path: str
    root: str | None = None
    """As of RowsFile, which this is too."""
    http: HTTPRows | None = None
    s3: S3Rows | None = Field(default=None, alias="s3")
    format: Literal["JSONL", "JSON", "CSV"] = "JSONL"
    fields: dict[str, str] = {}
    split: SplitPart
    limit: int | None = None
    export_rows: bool = True
    sha256: str | None = None
    digest: str | None = None
    """What `validate` saw; another one in the pod is InvalidDataset."""

    def files(self) -> dict[str, RowsFile]:
        """Part ("" is the dataset's own) -> its file."""
        own = RowsFile(path=self.path, root=self.root, sha256=self.sha256, http=self.http, s3=self.s3)
        parts = {"validation": self.split.validation, "test": self.split.test}
        return {"": own, **{part: file for part, file in parts.items() if file is not None}}


class CodePart(Document):
    """A function of somebody's own."""

    entrypoint: str
    """Module and function."""
    file: str | None = None
    """The module; None where it is installed, as in an image of one's own."""
    source: str
    """For messages: which ConfigMap and key, or which image."""
    sha256: str | None = None
    """Of the module's file, as `validate` saw it; another one in the pod is refused."""


class Endpoint(Document):
    """One role's endpoint, everything resolved."""

    name: str
    """`namespace/name` of the ModelEndpoint."""
    type: Literal["Ollama", "OpenAI"]
    url: str
    model: str
    model_digest: str | None = None
    api_key_file: str | None = None
    api_key_source: str | None = None
    """For messages: which Secret and key the file comes from."""
    timeout_seconds: float = 60.0
    request: SamplingRequest = SamplingRequest()
    pricing: Pricing | None = None


class Incumbent(Document):
    """The revision that is served now."""

    revision: str
    path: str


class Start(Document):
    """The revision that the optimizer begins with, where that is not the baseline."""

    revision: str
    digest: str
    path: str


class Gate(Document):
    """The rules of promotion, defaults applied."""

    mode: Literal["Auto", "Manual"] = "Auto"
    alpha: str = "0.05"
    min_improvement: str = "0"


class Paths(Document):
    """Where the runner reads and writes."""

    journal: str
    out: str
    control: str


class RunSpec(Document):
    """The whole of run.json."""

    contract: Literal["v1"] = "v1"
    kind: Literal["run", "validate"] = "run"
    run: RunIdentity
    mode: Literal["Run", "Estimate"] = "Run"
    input_digest: str = ""
    seed: int = 0
    program: ProgramPart
    optimizer: OptimizerPart | None = None
    """None where kind is validate."""
    goal: Goal | None = None
    dataset: DatasetPart
    code: dict[str, CodePart] = {}
    """Path in the program -> the function that stands there."""
    endpoints: dict[Literal["task", "prompt", "judge"], Endpoint] = {}
    incumbent: Incumbent | None = None
    start_from: Start | None = None
    test_looks: int = 0
    gate: Gate = Gate()
    repeats: int = 1
    """Answers to each test row; above 1 only where the task role samples."""
    headers: dict[str, str] | None = None
    """Secret that a server of the program is asked with -> folder with a file for each header."""
    paths: Paths


class Usage(Document):
    """What was spent; money as a decimal string."""

    calls: int = 0
    replayed: int = 0
    failed: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    cost: str = "0"

    @property
    def tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens


class Control(Document):
    """control.json: the live part, written by the operator (or by hand in local mode)."""

    generation: int = 1
    budget: Budget
    concurrency: int = 4
    pacing: Pacing | None = None
    """None means Adaptive."""
    floor: Usage = Usage()
    """What the account knows to be spent; counts where the journal was lost."""
    floor_seconds: float = 0.0
    slots: dict[str, int] = {}
    stop: Literal["Finish", "Cancel"] | None = None
