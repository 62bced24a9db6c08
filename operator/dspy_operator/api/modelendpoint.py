"""ModelEndpoint: which model answers."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from dspy_operator.api.fields import (
    ApiModel,
    DataKey,
    DecimalString,
    Duration,
    FieldClass,
    ForeignName,
    Opaque,
    UnionModel,
    spec_field,
)
from dspy_operator.api.podtemplate import PodTemplate, Quantity
from dspy_operator.api.rules import Rule, Ruled, above_zero_rule, decimal_rule, filled, quoted
from dspy_operator.api.selector import NamespaceSelector

EXECUTION, LIVE, CONTROL = FieldClass.EXECUTION, FieldClass.LIVE, FieldClass.CONTROL

ModelName = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$")]

_HEADER = r"^[A-Za-z0-9][-A-Za-z0-9_]*$"
_IS_HEADER = f"name.size() <= 128 && name.matches({quoted(_HEADER)})"
_HEADER_KEYS = Rule(
    id="keys-are-header-names",
    cel=f"self.all(name, {_IS_HEADER})",
    message=f"""'key "' + self.filter(name, !({_IS_HEADER}))[0] + {quoted(f'" must match {_HEADER} and have at most 128 characters')}""",
    computed=True,
)
Headers = Annotated[
    dict[
        Annotated[str, Field(min_length=1, max_length=128, pattern=_HEADER)],
        Annotated[str, Field(max_length=1024, pattern=r"^[ -~]*$")],
    ],
    Field(max_length=32),
    Ruled((_HEADER_KEYS,)),
]
"""Header -> value."""


class Pull(ApiModel):
    """Where the model is pulled from."""

    registry: Annotated[
        str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]{1,5})?$")
    ] = spec_field(EXECUTION, "Host and port of the registry, for example registry.models.svc:5000.")
    insecure: bool | None = spec_field(
        EXECUTION, "true: by http, or without checking its certificate; unset means false.", default=None
    )


class CacheVolume(ApiModel):
    """The volume that is claimed for a model."""

    size: Quantity = spec_field(EXECUTION, 'How much is claimed, for example "10Gi".')
    storage_class_name: ForeignName | None = spec_field(
        EXECUTION, "StorageClass of the volume; unset means the cluster's default.", default=None
    )
    access_modes: (
        Annotated[list[Literal["ReadWriteOnce", "ReadWriteMany"]], Field(min_length=1, max_length=2)] | None
    ) = spec_field(
        EXECUTION,
        "ReadWriteMany where more than one pod shares the volume; unset means ReadWriteOnce.",
        default=None,
    )


class Cache(UnionModel):
    """Where the pulled model is kept; `type` names the member that is set."""

    MEMBERS: ClassVar[dict[str, str]] = {"PersistentVolumeClaim": "persistentVolumeClaim"}
    REQUIRED: ClassVar[frozenset[str]] = frozenset({"PersistentVolumeClaim"})

    type: Literal["EmptyDir", "PersistentVolumeClaim"] = spec_field(
        EXECUTION, "EmptyDir: each pod pulls for itself. PersistentVolumeClaim: the second start downloads nothing."
    )
    persistent_volume_claim: CacheVolume | None = spec_field(
        EXECUTION, "Options of PersistentVolumeClaim.", default=None
    )


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
    pull: Pull | None = spec_field(
        EXECUTION, "Where the model is pulled from; unset means Ollama's own registry.", default=None
    )
    cache: Cache | None = spec_field(
        EXECUTION, "Where the pulled model is kept; unset means an EmptyDir.", default=None
    )
    pod_template: PodTemplate | None = spec_field(
        EXECUTION, "What is added to the pods; unset means nothing.", default=None
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
    ca_bundle: Annotated[str, Field(min_length=1, max_length=65536, pattern=r"^-----BEGIN CERTIFICATE-----")] | None = (
        spec_field(
            EXECUTION,
            "Certificates (PEM) of the authorities that the server's certificate may be of; unset means the public ones.",
            default=None,
        )
    )
    headers: Headers | None = spec_field(
        EXECUTION, "Further headers of each request, nothing secret; unset means none.", default=None
    )
    extra_body: Annotated[dict[str, Any], Opaque()] | None = spec_field(
        EXECUTION, "Further fields of each request's body, as the server wants them; unset means none.", default=None
    )


class PerplexityProvider(ApiModel):
    """A model behind Perplexity's agent API (POST /v1/agent)."""

    model: ModelName = spec_field(EXECUTION, "The model's name, for example sonar-pro.")
    api_key_secret: SecretKeyRef = spec_field(EXECUTION, "Where the API key is.")


class Provider(UnionModel):
    """Who answers; `type` names the member that is set."""

    MEMBERS: ClassVar[dict[str, str]] = {"Ollama": "ollama", "OpenAI": "openai", "Perplexity": "perplexity"}
    REQUIRED: ClassVar[frozenset[str]] = frozenset(MEMBERS)

    type: Literal["Ollama", "OpenAI", "Perplexity"] = spec_field(
        EXECUTION, "Ollama: pods of ours. OpenAI: any OpenAI-compatible URL. Perplexity: its agent API."
    )
    ollama: OllamaProvider | None = spec_field(EXECUTION, "A model served by Ollama pods.", default=None)
    openai: OpenAIProvider | None = spec_field(EXECUTION, "An OpenAI-compatible URL.", default=None)
    perplexity: PerplexityProvider | None = spec_field(EXECUTION, "Perplexity's agent API.", default=None)


class Limits(ApiModel):
    """How much load the endpoint takes."""

    concurrency: int | None = spec_field(
        LIVE, "Most requests at a time, over all runs; unset means no limit of ours.", default=None, ge=1, le=1024
    )
    requests_per_minute: Annotated[int, Field(ge=1, le=10_000_000)] | None = spec_field(
        LIVE, "Most requests that begin in a minute, over all runs; unset means no limit of ours.", default=None
    )
    tokens_per_minute: Annotated[int, Field(ge=1, le=100_000_000_000)] | None = spec_field(
        LIVE, "Most tokens in a minute, over all runs; unset means no limit of ours.", default=None
    )


class Pricing(ApiModel):
    """What a million tokens cost."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        decimal_rule("input", at_least="0"),
        decimal_rule("cachedInput", at_least="0"),
        decimal_rule("output", at_least="0"),
    )

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$", max_length=3)] = spec_field(
        LIVE, "ISO 4217 code, for example USD."
    )
    input: DecimalString = spec_field(LIVE, "Price of a million input tokens.")
    cached_input: DecimalString | None = spec_field(
        LIVE, "Price of a million input tokens that the provider had cached; unset means `input`.", default=None
    )
    output: DecimalString = spec_field(LIVE, "Price of a million output tokens.")


class EndpointRequest(ApiModel):
    """How a request is sent."""

    RULES: ClassVar[tuple[Rule, ...]] = (above_zero_rule("timeout"),)

    timeout: Duration | None = spec_field(EXECUTION, 'How long one request may take; unset means "60s".', default=None)


class Scaling(ApiModel):
    """How many pods, as the runs that need them come and go."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            id="replicas-in-order",
            cel="!has(self.minReplicas) || self.minReplicas <= self.maxReplicas",
            message="minReplicas must not be above maxReplicas",
            field=".minReplicas",
        ),
    )

    min_replicas: Annotated[int, Field(ge=0, le=64)] | None = spec_field(
        LIVE, "Least pods, also when no run needs one; unset means 0.", default=None
    )
    max_replicas: Annotated[int, Field(ge=1, le=64)] = spec_field(LIVE, "Most pods.")
    scale_down_delay: Duration | None = spec_field(
        LIVE, 'How long a pod that no run needs is kept; unset means "5m".', default=None
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min_replicas is not None and self.min_replicas > self.max_replicas:
            raise PydanticCustomError("range", "minReplicas must not be above maxReplicas")
        return self


class AccessNamespaces(ApiModel):
    """Namespaces by rule."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            id="selector-goes-with-its-type",
            cel="has(self.selector) == (self.from == 'Selector')",
            message="selector is for from: Selector, which needs it",
            field=".selector",
        ),
    )

    from_: Literal["Same", "All", "Selector"] = spec_field(
        CONTROL,
        "Same: this object's own namespace. All: every namespace. Selector: those that `selector` finds.",
        alias="from",
    )
    selector: NamespaceSelector | None = spec_field(CONTROL, "Namespaces by their labels.", default=None)

    @model_validator(mode="after")
    def _selector_goes_with_its_type(self) -> Self:
        if (self.selector is not None) != (self.from_ == "Selector"):
            raise PydanticCustomError("selector", "selector is for from: Selector, which needs it")
        return self


class Access(ApiModel):
    """Who may use the endpoint."""

    namespaces: AccessNamespaces = spec_field(
        CONTROL,
        "Namespaces whose runs and programs may name it. An OpenAI endpoint with an API key is for its own namespace only: no pod mounts a "
        "Secret of another one.",
    )


_PODS = "(has(self.scaling) ? self.scaling.maxReplicas : has(self.replicas) ? self.replicas : 1)"
_SHARED_CACHE: Final = "a cache that more than one pod shares needs accessModes: [ReadWriteMany]"
_SCALES_NOTHING: Final = "scaling is for pods of ours: provider.type {type} has none"
_CLAIM = "self.provider.ollama.cache.persistentVolumeClaim"


class ModelEndpointSpec(ApiModel):
    """Which model answers, how much load it takes and what it costs."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            id="shared-cache-is-read-write-many",
            cel=f"{_PODS} <= 1 || !has(self.provider.ollama) || !has(self.provider.ollama.cache) || !has({_CLAIM}) || "
            f"has({_CLAIM}.accessModes) && {_CLAIM}.accessModes.exists(mode, mode == 'ReadWriteMany')",
            message=_SHARED_CACHE,
            field=".provider.ollama.cache.persistentVolumeClaim",
        ),
        Rule(
            id="scaling-is-for-pods",
            cel="!has(self.scaling) || self.provider.type == 'Ollama'",
            message=filled(_SCALES_NOTHING, type="self.provider.type"),
            computed=True,
            field=".scaling",
            reason="FieldValueForbidden",
        ),
    )

    provider: Provider = spec_field(EXECUTION, "Who answers.")
    limits: Limits | None = spec_field(
        LIVE, "How much load the endpoint takes, over all runs; unset means no limit of ours.", default=None
    )
    pricing: Pricing | None = spec_field(
        LIVE,
        "What tokens cost; a cost budget needs it on every endpoint of the run. Unset means that cost is not counted.",
        default=None,
    )
    request: EndpointRequest | None = spec_field(
        EXECUTION, "How a request is sent; unset means as its fields say.", default=None
    )
    access: Access | None = spec_field(CONTROL, "Who may use it; unset means its own namespace.", default=None)
    replicas: Annotated[int, Field(ge=0, le=64)] | None = spec_field(
        LIVE,
        "Pods, where `scaling` is unset: what kubectl scale or an autoscaler writes; leave it out of Git where one does. Unset means 1.",
        default=None,
        schema_default=1,
    )
    scaling: Scaling | None = spec_field(
        LIVE, "How many pods, as runs come and go; unset means as `replicas` says.", default=None
    )

    @model_validator(mode="after")
    def _scaling_is_for_pods(self) -> Self:
        if self.scaling is not None and self.provider.type != "Ollama":
            raise PydanticCustomError("selector", _SCALES_NOTHING, {"type": self.provider.type})
        return self

    @model_validator(mode="after")
    def _a_shared_cache_can_be_shared(self) -> Self:
        cache = self.provider.ollama.cache if self.provider.ollama else None
        volume = cache.persistent_volume_claim if cache else None
        pods = self.scaling.max_replicas if self.scaling else self.replicas or 1
        if pods > 1 and volume is not None and "ReadWriteMany" not in (volume.access_modes or ()):
            raise PydanticCustomError("shared_cache", _SHARED_CACHE)
        return self
