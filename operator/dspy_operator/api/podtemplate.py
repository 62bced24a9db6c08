"""What a person may say about a pod that the operator makes: a closed list, in Kubernetes' own shapes.

Closed, since the rest of a pod (containers, security context, volumes) is the operator's promise. What is taken is kept as
the plain mapping that Kubernetes gets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, GetCoreSchemaHandler, WithJsonSchema, model_validator
from pydantic.functional_validators import AfterValidator, PlainValidator
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from dspy_operator.api.fields import GROUP, ApiModel, FieldClass, ForeignName, Opaque, spec_field
from dspy_operator.api.rules import Rule, Ruled, filled, quoted

EXECUTION = FieldClass.EXECUTION

QUANTITY = r"^[0-9]{1,15}(\.[0-9]{1,9})?([munkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2})?$"
Quantity = Annotated[str, Field(pattern=QUANTITY, max_length=32)]
"""A Kubernetes quantity: "500m", "2", "1Gi"."""


def _amount(value: object) -> object:
    # A JSON number beyond 64 bits is no integer to the API server.
    whole = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
    if whole or (isinstance(value, str) and len(value) <= 32 and re.search(QUANTITY, value)):
        return value
    raise PydanticCustomError("quantity", 'must be a quantity, for example "500m", "1Gi" or 2')


Amount = Annotated[
    str | int,
    PlainValidator(_amount),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "minimum": 0,
            "pattern": QUANTITY,
            "maxLength": 32,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
        }
    ),
]
"""A quantity that may be written without quotes where it is whole, as in a Pod."""

_KEY = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?$"
_KEY_LENGTH = 317
LabelKey = Annotated[str, Field(min_length=1, max_length=_KEY_LENGTH, pattern=_KEY)]
LabelValue = Annotated[str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?)?$")]

_IS_KEY = f"key.size() <= {_KEY_LENGTH} && key.matches({quoted(_KEY)})"
_KEYS = Rule(
    id="keys-are-label-keys",
    cel=f"self.all(key, {_IS_KEY})",
    message=f"""'key "' + self.filter(key, !({_IS_KEY}))[0] + {quoted(f'" must match {_KEY} and have at most {_KEY_LENGTH} characters')}""",
    computed=True,
)
_IS_OURS = f'key "{{key}}" must not begin with {GROUP}/: the operator finds its pods by such keys'
_NOT_OURS = Rule(
    id="keys-are-not-ours",
    cel=f"self.all(key, !key.startsWith({quoted(f'{GROUP}/')}))",
    message=filled(_IS_OURS, key=f"self.filter(key, key.startsWith({quoted(f'{GROUP}/')}))[0]"),
    computed=True,
)


def _not_ours(value: dict[str, str]) -> dict[str, str]:
    for key in value:
        if key.startswith(f"{GROUP}/"):
            raise PydanticCustomError("own_label", _IS_OURS, {"key": key})
    return value


Selector = Annotated[dict[LabelKey, LabelValue], Field(max_length=64), Ruled((_KEYS,))]
LabelMap = Annotated[
    dict[LabelKey, LabelValue], Field(max_length=64), AfterValidator(_not_ours), Ruled((_KEYS, _NOT_OURS))
]
AnnotationMap = Annotated[
    dict[LabelKey, Annotated[str, Field(max_length=4096)]],
    Field(max_length=64),
    AfterValidator(_not_ours),
    Ruled((_KEYS, _NOT_OURS)),
]
Amounts = Annotated[dict[LabelKey, Amount], Field(max_length=16), Ruled((_KEYS,))]


@dataclass(frozen=True)
class Shape:
    """Marks a mapping that is checked against a model and stays a plain mapping, as written."""

    model: type[ApiModel]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """The model's own schema; what it made is turned back into what was written."""
        return core_schema.no_info_after_validator_function(
            lambda checked: checked.document(),
            handler.generate_schema(self.model),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda written: written),
        )


OpaqueMap = Annotated[dict[str, Any], Opaque()]


class Resources(ApiModel):
    """CPU and memory, as in a container."""

    limits: Amounts | None = spec_field(EXECUTION, "Most of each resource; unset means no limit.", default=None)
    requests: Amounts | None = spec_field(
        EXECUTION, "What is set aside of each resource; unset means the limits.", default=None
    )


class Toleration(ApiModel):
    """A taint that the pod may live with."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            id="toleration-exists-has-no-value",
            cel="!has(self.operator) || self.operator != 'Exists' || !has(self.value)",
            message="value is for operator Equal: Exists has none",
            field=".value",
            reason="FieldValueForbidden",
        ),
        Rule(
            id="toleration-of-every-taint-exists",
            cel="has(self.key) || has(self.operator) && self.operator == 'Exists'",
            message="without a key, operator must be Exists",
        ),
    )

    key: LabelKey | None = spec_field(EXECUTION, "Key of the taint; unset means every taint.", default=None)
    operator: Literal["Exists", "Equal"] | None = spec_field(
        EXECUTION, "How key and value are compared; unset means Equal.", default=None
    )
    value: LabelValue | None = spec_field(EXECUTION, "Value of the taint; unset with Exists.", default=None)
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = spec_field(
        EXECUTION, "Effect of the taint; unset means every effect.", default=None
    )
    toleration_seconds: Annotated[int, Field(ge=0, le=31_536_000)] | None = spec_field(
        EXECUTION, "How long the pod stays with a NoExecute taint; unset means for ever.", default=None
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        # Kubernetes would refuse the Job, where the person who wrote this does not look.
        if self.operator == "Exists" and self.value is not None:
            raise PydanticCustomError("toleration", "value is for operator Equal: Exists has none")
        if self.key is None and self.operator != "Exists":
            raise PydanticCustomError("toleration", "without a key, operator must be Exists")
        return self


class TopologySpreadConstraint(ApiModel):
    """How the pods spread over nodes or zones."""

    max_skew: Annotated[int, Field(ge=1, le=1000)] = spec_field(
        EXECUTION, "Most that the numbers of pods of two domains differ by."
    )
    topology_key: LabelKey = spec_field(EXECUTION, "Label of the nodes whose values are the domains.")
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = spec_field(
        EXECUTION, "What happens to a pod that would break the constraint."
    )
    label_selector: OpaqueMap | None = spec_field(
        EXECUTION, "Which pods count, as in a Pod; unset means none.", default=None
    )
    min_domains: Annotated[int, Field(ge=1, le=1000)] | None = spec_field(
        EXECUTION, "Least number of domains; unset means 1.", default=None
    )
    match_label_keys: Annotated[list[LabelKey], Field(max_length=16)] | None = spec_field(
        EXECUTION,
        "Labels whose values, taken from the pod itself, narrow which pods count; unset means none.",
        default=None,
    )
    node_affinity_policy: Literal["Honor", "Ignore"] | None = spec_field(
        EXECUTION, "Whether the pod's node affinity narrows the domains; unset means Honor.", default=None
    )
    node_taints_policy: Literal["Honor", "Ignore"] | None = spec_field(
        EXECUTION, "Whether tainted nodes count; unset means Ignore.", default=None
    )


class ImagePullSecret(ApiModel):
    """A Secret with the credentials of an image registry."""

    name: ForeignName = spec_field(EXECUTION, "Name of the Secret, in this object's namespace.")


class PodTemplate(ApiModel):
    """What is added to the pod."""

    resources: Annotated[dict[str, Any], Shape(Resources)] | None = spec_field(
        EXECUTION, "CPU and memory of the main container; unset means the operator's own choice.", default=None
    )
    node_selector: Selector | None = spec_field(
        EXECUTION, "Labels that a node must have; unset means any node.", default=None
    )
    tolerations: Annotated[list[Annotated[dict[str, Any], Shape(Toleration)]], Field(max_length=32)] | None = (
        spec_field(EXECUTION, "Taints that the pod may live with; unset means none.", default=None)
    )
    affinity: OpaqueMap | None = spec_field(
        EXECUTION, "Affinity to nodes and pods, as in a Pod; unset means none.", default=None
    )
    topology_spread_constraints: (
        Annotated[list[Annotated[dict[str, Any], Shape(TopologySpreadConstraint)]], Field(max_length=8)] | None
    ) = spec_field(
        EXECUTION, "How the pods spread over nodes or zones; unset means as the scheduler does.", default=None
    )
    runtime_class_name: ForeignName | None = spec_field(
        EXECUTION, "Name of the RuntimeClass; unset means the node's own.", default=None
    )
    image_pull_secrets: (
        Annotated[list[Annotated[dict[str, Any], Shape(ImagePullSecret)]], Field(max_length=8)] | None
    ) = spec_field(EXECUTION, "Secrets with the credentials of image registries; unset means none.", default=None)
    labels: LabelMap | None = spec_field(EXECUTION, "Further labels of the pod; unset means none.", default=None)
    annotations: AnnotationMap | None = spec_field(
        EXECUTION, "Further annotations of the pod; unset means none.", default=None
    )
