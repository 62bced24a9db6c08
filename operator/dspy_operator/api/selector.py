"""Objects by their labels, in Kubernetes' own shape."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from dspy_operator.api.fields import ApiModel, FieldClass, spec_field
from dspy_operator.api.podtemplate import LabelKey, LabelValue, Selector
from dspy_operator.api.rules import Rule

CONTROL = FieldClass.CONTROL


class LabelRequirement(ApiModel):
    """What one label has to be."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            id="values-go-with-in",
            cel="has(self.values) == (self.operator in ['In', 'NotIn'])",
            message="values are for the operators In and NotIn, which need them",
        ),
    )

    key: LabelKey = spec_field(CONTROL, "The label.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = spec_field(CONTROL, "How it is compared.")
    values: Annotated[list[LabelValue], Field(min_length=1, max_length=64)] | None = spec_field(
        CONTROL, "The values of In and NotIn; unset with the others.", default=None
    )

    @model_validator(mode="after")
    def _values_go_with_in(self) -> Self:
        if (self.values is not None) != (self.operator in ("In", "NotIn")):
            raise PydanticCustomError("selector", "values are for the operators In and NotIn, which need them")
        return self


class NamespaceSelector(ApiModel):
    """Namespaces by their labels; all that is written must hold, and nothing written means every namespace."""

    match_labels: Selector | None = spec_field(CONTROL, "Labels with their values; unset means any.", default=None)
    match_expressions: Annotated[list[LabelRequirement], Field(max_length=16)] | None = spec_field(
        CONTROL, "Further requirements; unset means none.", default=None
    )
