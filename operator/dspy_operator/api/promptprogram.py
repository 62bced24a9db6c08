"""PromptProgram: what an LLM program is, and how "good" is measured."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from dspy_operator.api.dataset import Dataset
from dspy_operator.api.fields import (
    ApiModel,
    DecimalString,
    FieldClass,
    ForeignName,
    ObjectName,
    spec_field,
)
from dspy_operator.api.metric import Metric
from dspy_operator.api.modelendpoint import SecretKeyRef
from dspy_operator.api.program import Program, TypeMap
from dspy_operator.api.rules import Rule, decimal_rule

INPUT, CONTROL = FieldClass.INPUT, FieldClass.CONTROL


class Adapter(ApiModel):
    """How the signature becomes messages and the answer becomes fields (dspy.ChatAdapter, JSONAdapter, XMLAdapter, BAMLAdapter)."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            id="constrained-is-for-json",
            cel="!has(self.constrained) || self.constrained == 'Auto' || !(self.type in ['Chat', 'XML'])",
            message="'constrained is for types JSON and BAML: the ' + self.type + ' format has no schema'",
            computed=True,
            field=".constrained",
            reason="FieldValueForbidden",
        ),
        Rule(
            id="json-says-whether-constrained",
            cel="!(self.type in ['JSON', 'BAML']) || has(self.constrained)",
            message="'type is ' + self.type + ': constrained is required (Auto, Required or Disabled)'",
            computed=True,
            field=".constrained",
            reason="FieldValueRequired",
        ),
    )

    type: Literal["Auto", "Chat", "JSON", "XML", "BAML"] = spec_field(
        INPUT,
        "Chat: marked sections. JSON: one JSON object. XML: tagged sections. BAML: JSON, with a shorter schema in the prompt. Auto: "
        "BAML where outputs hold objects (JSON beside an Image, Audio or History), else JSON where a schema is sent, else Chat; status.resolved says which.",
    )
    constrained: Literal["Auto", "Required", "Disabled"] | None = spec_field(
        INPUT,
        "JSON and BAML: Required sends the outputs' JSON schema as response_format and fails where the endpoint refuses it; Disabled sends "
        "none. Auto: each run first asks its endpoints; Required where they keep the schema and the order of its fields, else Disabled. "
        "Required with JSON and BAML; with type Auto, unset means Auto.",
        default=None,
    )

    @model_validator(mode="after")
    def _constrained_is_for_json(self) -> Self:
        if self.type in ("Chat", "XML") and self.constrained not in (None, "Auto"):
            raise PydanticCustomError(
                "constrained",
                "constrained is for types JSON and BAML: the {type} format has no schema",
                {"type": self.type},
            )
        if self.type in ("JSON", "BAML") and self.constrained is None:
            raise PydanticCustomError(
                "constrained",
                "type is {type}: constrained is required (Auto, Required or Disabled)",
                {"type": self.type},
            )
        return self


class SamplingRequest(ApiModel):
    """How the model samples; part of what is computed."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        decimal_rule("temperature", at_least="0", at_most="2"),
        decimal_rule("topP", above="0", at_most="1"),
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
    ) = spec_field(INPUT, "Texts at which the answer ends; unset means none.", default=None)


class EndpointRef(ApiModel):
    """A ModelEndpoint by name."""

    name: ObjectName = spec_field(INPUT, "Name of the ModelEndpoint.")
    namespace: ForeignName | None = spec_field(INPUT, "Its namespace; unset means this object's own.", default=None)
    api_key_secret: SecretKeyRef | None = spec_field(
        FieldClass.EXECUTION,
        "A Secret of this object's namespace with the key of an endpoint of another one.",
        default=None,
    )


class Target(ApiModel):
    """The model this program is tuned for; another model is another program."""

    endpoint: EndpointRef = spec_field(INPUT, "The endpoint that answers.")
    request: SamplingRequest | None = spec_field(INPUT, "How it samples; unset means as its fields say.", default=None)


class Promotion(ApiModel):
    """When a candidate replaces what is served."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        decimal_rule("alpha", above="0", below="1"),
        decimal_rule("minImprovement", at_least="0", at_most="100"),
    )

    mode: Literal["Auto", "Manual"] | None = spec_field(
        CONTROL, "Auto: when the gate is passed. Manual: only by a pin (`revision`). Unset means Auto.", default=None
    )
    min_improvement: DecimalString | None = spec_field(
        CONTROL, 'Least gain over the incumbent on the test rows, in points of 0 to 100; unset means "0".', default=None
    )
    alpha: DecimalString | None = spec_field(
        CONTROL,
        'Probability of promoting by chance, spent over all looks at a test set; unset means "0.05".',
        default=None,
    )


class RevisionPin(ApiModel):
    """A revision of this program by name."""

    name: ForeignName = spec_field(CONTROL, "Name of the revision's ConfigMap, for example triage-1f2e3d4c.")


class PromptProgramSpec(ApiModel):
    """What an LLM program is, and how good is measured."""

    program: Program = spec_field(INPUT, "The program.")
    types: TypeMap | None = spec_field(
        INPUT,
        "Object types that the signatures name; one may name another, at most 5 inside each other, none itself. Unset means none.",
        default=None,
    )
    adapter: Adapter | None = spec_field(INPUT, "How it talks to the model; unset means Chat.", default=None)
    target: Target = spec_field(INPUT, "The model it is tuned for.")
    dataset: Dataset = spec_field(INPUT, "The labelled rows.")
    metric: Metric = spec_field(INPUT, "How good one answer is.")
    promotion: Promotion | None = spec_field(
        CONTROL, "When a candidate replaces what is served; unset means as its fields say.", default=None
    )
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
