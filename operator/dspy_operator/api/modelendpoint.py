"""ModelEndpoint: which model answers."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from dspy_operator.api.fields import (
    ApiModel,
    DataKey,
    DecimalString,
    Duration,
    FieldClass,
    ForeignName,
    decimal,
    one_of,
    parse_duration,
    spec_field,
)

EXECUTION, LIVE = FieldClass.EXECUTION, FieldClass.LIVE

ModelName = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$")]


class OllamaProvider(ApiModel):
    """A model served by Ollama pods."""

    model: ModelName = spec_field(EXECUTION, "Name of the model in its registry, for example qwen2.5-coder:0.5b.")
    context_length: int | None = spec_field(
        EXECUTION,
        "Tokens of context, pinned so that no request reloads the model; unset means 4096.",
        default=None,
        ge=256,
        le=1_048_576,
    )
    parallel: int | None = spec_field(
        EXECUTION, "Requests that one pod answers at a time; unset means 1.", default=None, ge=1, le=64
    )


class SecretKeyRef(ApiModel):
    """A key of a Secret in the same namespace."""

    name: ForeignName = spec_field(EXECUTION, "Name of the Secret.")
    key: DataKey = spec_field(EXECUTION, "Key whose value is the API key.")


class OpenAIProvider(ApiModel):
    """Any URL that speaks OpenAI's chat completions."""

    base_url: Annotated[str, Field(min_length=8, max_length=2048, pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")] = (
        spec_field(EXECUTION, "The URL up to and including /v1.", alias="baseURL")
    )
    model: ModelName = spec_field(EXECUTION, "The model's name as the server knows it.")
    api_key_secret: SecretKeyRef | None = spec_field(EXECUTION, "Where the API key is; unset sends none.", default=None)


class Provider(ApiModel):
    """Who answers; `type` names the member that is set."""

    type: Literal["Ollama", "OpenAI"] = spec_field(
        EXECUTION, "Ollama: pods of ours. OpenAI: any OpenAI-compatible URL."
    )
    ollama: OllamaProvider | None = spec_field(EXECUTION, "A model served by Ollama pods.", default=None)
    openai: OpenAIProvider | None = spec_field(EXECUTION, "An OpenAI-compatible URL.", default=None)

    @model_validator(mode="after")
    def _union(self) -> Self:
        one_of(self, self.type, {"Ollama": "ollama", "OpenAI": "openai"}, frozenset({"Ollama", "OpenAI"}))
        return self


class Limits(ApiModel):
    """What the endpoint stands."""

    concurrency: int | None = spec_field(
        LIVE, "Most requests at a time, over all runs; unset means no limit of ours.", default=None, ge=1, le=1024
    )


class Pricing(ApiModel):
    """What a million tokens cost."""

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$", max_length=3)] = spec_field(
        LIVE, "ISO 4217 code, for example USD."
    )
    input: DecimalString = spec_field(LIVE, "Price of a million input tokens.")
    cached_input: DecimalString | None = spec_field(
        LIVE, "Price of a million input tokens that the provider had cached; unset means `input`.", default=None
    )
    output: DecimalString = spec_field(LIVE, "Price of a million output tokens.")

    @model_validator(mode="after")
    def _not_negative(self) -> Self:
        for name, value in (("input", self.input), ("cachedInput", self.cached_input), ("output", self.output)):
            if value is not None and decimal(value) < 0:
                raise PydanticCustomError("range", "{name} must not be negative", {"name": name})
        return self


class EndpointRequest(ApiModel):
    """How a request is sent."""

    timeout: Duration | None = spec_field(EXECUTION, 'How long one request may take; unset means "60s".', default=None)

    @model_validator(mode="after")
    def _not_zero(self) -> Self:
        if self.timeout is not None and parse_duration(self.timeout).total_seconds() <= 0:
            raise PydanticCustomError("range", "timeout must be above zero")
        return self


class ModelEndpointSpec(ApiModel):
    """Which model answers, what it stands and what it costs."""

    provider: Provider = spec_field(EXECUTION, "Who answers.")
    limits: Limits | None = spec_field(LIVE, "What the endpoint stands.", default=None)
    pricing: Pricing | None = spec_field(
        LIVE, "What tokens cost; a cost budget needs it on every endpoint of the run.", default=None
    )
    request: EndpointRequest | None = spec_field(EXECUTION, "How a request is sent.", default=None)
