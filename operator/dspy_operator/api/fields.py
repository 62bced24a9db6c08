"""The building blocks that every kind's models share: base model, field classes, decimal strings, durations, names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic.functional_validators import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError

GROUP = "dspy-operator.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"


class FieldClass(StrEnum):
    """What an edit of a `spec` field does; each field carries exactly one (tested), printed in the reference."""

    INPUT = "Input"
    """Changes what is computed: a new attempt."""
    EXECUTION = "Execution"
    """Replaces the pod; same attempt, journal kept."""
    LIVE = "Live"
    """Reaches the running pod without a restart."""
    CONTROL = "Control"
    """Touches neither the pod nor a digest."""
    IMMUTABLE = "Immutable"
    """Refused after creation."""


class ApiModel(BaseModel):
    """Base of everything a person writes: camelCase names, unknown fields refused, frozen.

    Only the camelCase name is understood, so that a typo in another style is an error and not a second spelling.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=False,
        strict=True,
    )

    def document(self) -> dict[str, Any]:
        """The fields as written, camelCase and JSON-able; what was not written, or null, is absent."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def spec_field(field_class: FieldClass, description: str, **options: Any) -> Any:
    """A `spec` field with its class; everything else as pydantic's `Field`."""
    return Field(description=description, json_schema_extra={"x-field-class": field_class.value}, **options)


def _decimal_string(value: object) -> object:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise PydanticCustomError(
            "decimal_string", 'must be a decimal string in quotes, for example "{value}"', {"value": value}
        )
    return value


def _duration(value: object) -> object:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise PydanticCustomError(
            "duration", 'must be a duration with its unit, for example "{value}s"', {"value": value}
        )
    return value


DecimalString = Annotated[
    str, BeforeValidator(_decimal_string), Field(pattern=r"^-?[0-9]{1,9}(\.[0-9]{1,9})?$", max_length=20)
]
"""A number that must not lose digits: money, thresholds, temperatures. `spec` has no floats."""

_DURATION = re.compile(r"([0-9]{1,5})(ms|h|m|s)")

Duration = Annotated[str, BeforeValidator(_duration), Field(pattern=r"^([0-9]{1,5}(h|m|s|ms)){1,4}$", max_length=28)]
"""A Gateway API duration (GEP-2257): "90s", "2h", "1h30m", "500ms"."""

ObjectName = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$")]
"""`metadata.name` of our kinds: a Service's rule, and short enough for the names of children."""

ForeignName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
"""Name of an object that is not ours (ConfigMap, Secret, namespace)."""

DataKey = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
"""Key of a ConfigMap or Secret."""


def _not_reserved(value: str) -> str:
    import keyword

    if keyword.iskeyword(value) or value in {
        "self",
        "completed",
        "demos",
        "signature",
        "config",
        "lm",
        "new_signature",
    }:
        raise PydanticCustomError(
            "reserved_name", '"{value}" cannot be a field name: DSPy or Python uses it', {"value": value}
        )
    return value


FieldName = Annotated[
    str, Field(min_length=1, max_length=63, pattern=r"^[a-z_][a-z0-9_]*$"), AfterValidator(_not_reserved)
]
"""Name of a signature's field: a Python identifier in snake_case, as DSPy needs."""

ColumnName = Annotated[str, Field(min_length=1, max_length=256)]
"""Name of a column of the dataset."""


def parse_duration(text: str) -> timedelta:
    """The time that a valid `Duration` means."""
    units = {"h": "hours", "m": "minutes", "s": "seconds", "ms": "milliseconds"}
    total = timedelta()
    for number, unit in _DURATION.findall(text):
        total += timedelta(**{units[unit]: int(number)})
    return total


def one_of(
    model: BaseModel, type_name: str, members: Mapping[str, str], required: frozenset[str] = frozenset()
) -> None:
    """Enforce a union: only the member that `type` names may be set, and must be where it has required fields.

    Args:
        model: the union's model, after field validation.
        type_name: the value of its `type`.
        members: type -> the camelCase name of its member.
        required: types whose member must be written.
    Raises:
        PydanticCustomError: naming the member that is wrong or missing.
    """
    own = members.get(type_name)
    for member in dict.fromkeys(members.values()):
        if member == own:
            continue
        name = next(name for name, field in type(model).model_fields.items() if field.alias == member)
        if getattr(model, name) is not None:
            raise PydanticCustomError(
                "union_member",
                "{member} is set, but type is {type}: remove it or change type",
                {"member": member, "type": type_name},
            )
    if own is None or type_name not in required:
        return
    name = next(name for name, field in type(model).model_fields.items() if field.alias == own)
    if getattr(model, name) is None:
        raise PydanticCustomError(
            "union_member", "type is {type}: {member} is required", {"member": own, "type": type_name}
        )


def decimal(text: str) -> Decimal:
    """The exact number that a valid `DecimalString` means."""
    return Decimal(text)
