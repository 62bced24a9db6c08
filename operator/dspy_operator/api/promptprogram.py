"""PromptProgram: what an LLM program is, and how "good" is measured."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from dspy_operator.api.fields import (
    ApiModel,
    ColumnMap,
    ColumnName,
    DataKey,
    DecimalString,
    FieldClass,
    FieldName,
    ForeignName,
    ObjectName,
    UnionModel,
    decimal,
    spec_field,
)
from dspy_operator.api.rules import Rule, decimal_rule

INPUT, CONTROL = FieldClass.INPUT, FieldClass.CONTROL


class SignatureField(ApiModel):
    """One input or output of a signature."""

    name: FieldName = spec_field(INPUT, "Name of the field; a snake_case Python identifier.")
    type: str = spec_field(
        INPUT,
        'Type of the field in our closed grammar: str, int, float, bool, Literal["a", "b"], list[T], dict[str, T], Optional[T], A | B.',
        min_length=1,
        max_length=2048,
    )
    description: str | None = spec_field(
        INPUT, "What the field holds; the model reads it.", default=None, min_length=1, max_length=4096
    )


_NAMES = "(self.inputs.map(field, field.name) + self.outputs.map(field, field.name))"


class Signature(ApiModel):
    """What goes in, what comes out, and the instructions in between (dspy.Signature)."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            id="field-names-are-unique",
            cel=f"{_NAMES}.all(a, {_NAMES}.exists_one(b, a == b))",
            message=f"""'field "' + {_NAMES}.filter(a, !{_NAMES}.exists_one(b, a == b))[0] + """
            """'" is there twice; inputs and outputs share one set of names'""",
            computed=True,
        ),
    )

    instructions: str = spec_field(
        INPUT, "What the program has to do; the text that optimizers improve.", min_length=1, max_length=32768
    )
    inputs: Annotated[list[SignatureField], Field(min_length=1, max_length=32)] = spec_field(
        INPUT, "The input fields, in the order of the prompt."
    )
    outputs: Annotated[list[SignatureField], Field(min_length=1, max_length=32)] = spec_field(
        INPUT, "The output fields, in the order of the prompt."
    )

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        seen: set[str] = set()
        for field in (*self.inputs, *self.outputs):
            if field.name in seen:
                raise PydanticCustomError(
                    "duplicate_field",
                    'field "{name}" is there twice; inputs and outputs share one set of names',
                    {"name": field.name},
                )
            seen.add(field.name)
        return self


class ModuleType(StrEnum):
    """DSPy modules a Single program can be made of."""

    PREDICT = "Predict"
    CHAIN_OF_THOUGHT = "ChainOfThought"


class Module(ApiModel):
    """How the model is asked (dspy.Predict, dspy.ChainOfThought)."""

    type: Literal["Predict", "ChainOfThought"] = spec_field(
        INPUT, "Predict asks for the outputs; ChainOfThought for reasoning first."
    )


class SingleProgram(ApiModel):
    """One signature and one module."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            id="reasoning-is-free",
            cel="!has(self.module) || self.module.type != 'ChainOfThought' || "
            "!self.signature.inputs.exists(field, field.name == 'reasoning') && "
            "!self.signature.outputs.exists(field, field.name == 'reasoning')",
            message='"reasoning" cannot be a field of a ChainOfThought: the module adds it',
        ),
    )

    signature: Signature = spec_field(INPUT, "Inputs, outputs and instructions.")
    module: Module | None = spec_field(INPUT, "How the model is asked; unset means Predict.", default=None)

    @property
    def module_type(self) -> ModuleType:
        """The module, with the default applied."""
        return ModuleType(self.module.type) if self.module else ModuleType.PREDICT

    @model_validator(mode="after")
    def _reasoning_is_free(self) -> Self:
        names = {field.name for field in (*self.signature.inputs, *self.signature.outputs)}
        if self.module_type is ModuleType.CHAIN_OF_THOUGHT and "reasoning" in names:
            raise PydanticCustomError(
                "reserved_name", '"reasoning" cannot be a field of a ChainOfThought: the module adds it'
            )
        return self


class Program(UnionModel):
    """The program's shape; `type` names the member that is set."""

    MEMBERS: ClassVar[dict[str, str]] = {"Single": "single"}
    REQUIRED: ClassVar[frozenset[str]] = frozenset({"Single"})

    type: Literal["Single"] = spec_field(INPUT, "Single: one signature and one module.")
    single: SingleProgram | None = spec_field(INPUT, "A program of one module.", default=None)


class Adapter(ApiModel):
    """How the signature becomes messages and the answer becomes fields (dspy.ChatAdapter, dspy.JSONAdapter)."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            id="constrained-is-for-json",
            cel="self.type != 'Chat' || !has(self.constrained)",
            message="constrained is for type JSON: the Chat format has no schema",
            field=".constrained",
            reason="FieldValueForbidden",
        ),
        Rule(
            id="json-says-whether-constrained",
            cel="self.type != 'JSON' || has(self.constrained)",
            message="type is JSON: constrained is required (Required or Disabled)",
            field=".constrained",
            reason="FieldValueRequired",
        ),
    )

    type: Literal["Chat", "JSON"] = spec_field(INPUT, "Chat: marked sections. JSON: one JSON object.")
    constrained: Literal["Required", "Disabled"] | None = spec_field(
        INPUT,
        "JSON only: Required sends the outputs' JSON schema as response_format and fails where the endpoint refuses it; Disabled sends none.",
        default=None,
    )

    @model_validator(mode="after")
    def _constrained_is_for_json(self) -> Self:
        if self.type == "Chat" and self.constrained is not None:
            raise PydanticCustomError("constrained", "constrained is for type JSON: the Chat format has no schema")
        if self.type == "JSON" and self.constrained is None:
            raise PydanticCustomError("constrained", "type is JSON: constrained is required (Required or Disabled)")
        return self


class SamplingRequest(ApiModel):
    """How the model samples; part of what is computed."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        decimal_rule("temperature", "0 <= it && it <= 2", 'temperature must be "0" to "2"'),
        decimal_rule("topP", "0 < it && it <= 1", 'topP must be above "0" and at most "1"'),
    )

    temperature: DecimalString | None = spec_field(
        INPUT, 'Sampling temperature, "0" to "2"; unset means "0" for task and "1" for prompt.', default=None
    )
    top_p: DecimalString | None = spec_field(
        INPUT, 'Nucleus sampling, "0" to "1"; unset leaves it to the endpoint.', default=None
    )
    max_tokens: int | None = spec_field(
        INPUT, "Most tokens of one answer; unset leaves it to the endpoint.", default=None, ge=1, le=1_000_000
    )
    stop: (
        Annotated[list[Annotated[str, Field(min_length=1, max_length=128)]], Field(min_length=1, max_length=4)] | None
    ) = spec_field(INPUT, "Texts at which the answer ends.", default=None)

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if self.temperature is not None and not 0 <= decimal(self.temperature) <= 2:
            raise PydanticCustomError("range", 'temperature must be "0" to "2"')
        if self.top_p is not None and not 0 < decimal(self.top_p) <= 1:
            raise PydanticCustomError("range", 'topP must be above "0" and at most "1"')
        return self


class EndpointRef(ApiModel):
    """A ModelEndpoint by name."""

    name: ObjectName = spec_field(INPUT, "Name of the ModelEndpoint.")
    namespace: ForeignName | None = spec_field(INPUT, "Its namespace; unset means this object's own.", default=None)


class Target(ApiModel):
    """The model this program is tuned for; another model is another program."""

    endpoint: EndpointRef = spec_field(INPUT, "The endpoint that answers.")
    request: SamplingRequest | None = spec_field(INPUT, "How it samples.", default=None)


class InlineSource(ApiModel):
    """Rows in the manifest itself."""

    data: str = spec_field(INPUT, "The rows, in `format`.", min_length=1, max_length=65536)


class ConfigMapSource(ApiModel):
    """Rows in a ConfigMap of the same namespace."""

    name: ForeignName = spec_field(INPUT, "Name of the ConfigMap.")
    key: DataKey = spec_field(INPUT, "Key whose value holds the rows.")


class Source(UnionModel):
    """Where the rows are; `type` names the member that is set."""

    MEMBERS: ClassVar[dict[str, str]] = {"Inline": "inline", "ConfigMap": "configMap"}
    REQUIRED: ClassVar[frozenset[str]] = frozenset({"Inline", "ConfigMap"})

    type: Literal["Inline", "ConfigMap"] = spec_field(INPUT, "Inline: in this manifest. ConfigMap: in a ConfigMap.")
    inline: InlineSource | None = spec_field(INPUT, "Rows in this manifest.", default=None)
    config_map: ConfigMapSource | None = spec_field(INPUT, "Rows in a ConfigMap.", default=None)


class HashSplit(ApiModel):
    """Each row's part is decided by a hash of the row, so that adding rows moves no other row."""

    seed: int | None = spec_field(
        INPUT, "Another seed, another split; unset means 0.", default=None, ge=0, le=2**31 - 1
    )


class ColumnSplit(ApiModel):
    """A column names each row's part."""

    name: ColumnName = spec_field(
        INPUT, 'The column; its values are "train", "validation" and "test", or "dev" (which is divided) and "test".'
    )


class Split(UnionModel):
    """How rows are divided into dev (train and validation) and test; `type` names the member that is set."""

    MEMBERS: ClassVar[dict[str, str]] = {"Hash": "hash", "Column": "column"}
    REQUIRED: ClassVar[frozenset[str]] = frozenset({"Column"})

    type: Literal["Hash", "Column"] = spec_field(INPUT, "Hash: by a hash of the row. Column: as a column says.")
    hash: HashSplit | None = spec_field(INPUT, "Options of Hash.", default=None)
    column: ColumnSplit | None = spec_field(INPUT, "Options of Column.", default=None)


class Dataset(ApiModel):
    """The labelled rows."""

    source: Source = spec_field(INPUT, "Where the rows are.")
    format: Literal["JSONL"] = spec_field(INPUT, "JSONL: one JSON object a line.")
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


class FieldsMetric(ApiModel):
    """Which outputs a metric compares."""

    fields: Annotated[list[FieldName], Field(min_length=1, max_length=32)] | None = spec_field(
        INPUT, "The outputs that are compared; unset means all outputs. The score is their mean.", default=None
    )


class Metric(UnionModel):
    """How good one answer is, 0 to 1; `type` names the member that may be set."""

    MEMBERS: ClassVar[dict[str, str]] = {"ExactMatch": "exactMatch", "F1": "f1"}

    RULES: ClassVar[tuple[Rule, ...]] = (
        decimal_rule("accept", "0 < it && it <= 1", 'accept must be above "0" and at most "1"'),
    )

    type: Literal["ExactMatch", "F1"] = spec_field(INPUT, "ExactMatch: equal or not. F1: overlap of words.")
    exact_match: FieldsMetric | None = spec_field(INPUT, "Options of ExactMatch.", default=None)
    f1: FieldsMetric | None = spec_field(INPUT, "Options of F1.", default=None, alias="f1")
    accept: DecimalString | None = spec_field(
        INPUT,
        'The score from which an answer is good enough to become a demonstration, above "0" to "1"; unset means "1".',
        default=None,
    )

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.accept is not None and not 0 < decimal(self.accept) <= 1:
            raise PydanticCustomError("range", 'accept must be above "0" and at most "1"')
        return self


class Promotion(ApiModel):
    """When a candidate replaces what is served."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        decimal_rule("alpha", "0 < it && it < 1", 'alpha must be between "0" and "1"'),
        decimal_rule("minImprovement", "0 <= it && it <= 100", 'minImprovement must be "0" to "100"'),
    )

    mode: Literal["Auto", "Manual"] | None = spec_field(
        CONTROL, "Auto: when the gate is passed. Manual: by a pin. Unset means Auto.", default=None
    )
    min_improvement: DecimalString | None = spec_field(
        CONTROL, 'Least gain over the incumbent on the test rows, in points of 0 to 100; unset means "0".', default=None
    )
    alpha: DecimalString | None = spec_field(
        CONTROL,
        'Probability of promoting by chance, spent over all looks at a test set; unset means "0.05".',
        default=None,
    )

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if self.alpha is not None and not 0 < decimal(self.alpha) < 1:
            raise PydanticCustomError("range", 'alpha must be between "0" and "1"')
        if self.min_improvement is not None and not 0 <= decimal(self.min_improvement) <= 100:
            raise PydanticCustomError("range", 'minImprovement must be "0" to "100"')
        return self


class RevisionPin(ApiModel):
    """A revision of this program by name."""

    name: ForeignName = spec_field(CONTROL, "Name of the revision's ConfigMap, for example triage-1f2e3d4c.")


class PromptProgramSpec(ApiModel):
    """What an LLM program is, and how good is measured."""

    program: Program = spec_field(INPUT, "The program.")
    adapter: Adapter | None = spec_field(INPUT, "How it talks to the model; unset means Chat.", default=None)
    target: Target = spec_field(INPUT, "The model it is tuned for.")
    dataset: Dataset = spec_field(INPUT, "The labelled rows.")
    metric: Metric = spec_field(INPUT, "How good one answer is.")
    promotion: Promotion | None = spec_field(CONTROL, "When a candidate replaces what is served.", default=None)
    concurrency_policy: Literal["Queue", "Allow"] | None = spec_field(
        CONTROL,
        "Queue: one run of this program at a time, the others wait. Allow: as many as fit. Unset means Queue.",
        default=None,
    )
    revision: RevisionPin | None = spec_field(
        CONTROL, "Pins what is served, forward or back; unset follows the promoted revision.", default=None
    )
    revision_history_limit: Annotated[int, Field(ge=0, le=100)] | None = spec_field(
        CONTROL,
        "Revisions that are kept beside those that are served, promoted, pinned or the baseline; unset means 10.",
        default=None,
    )
    deletion_policy: Literal["Retain", "Delete"] | None = spec_field(
        CONTROL,
        "Retain: revisions, what is served and the account outlive this object. Delete: they go with it. Unset means Retain.",
        default=None,
    )
