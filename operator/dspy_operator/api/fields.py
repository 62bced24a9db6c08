"""The building blocks that every kind's models share: base model, field classes, decimal strings, durations, names."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel
from pydantic.functional_validators import AfterValidator, BeforeValidator
from pydantic_core import CoreSchema, PydanticCustomError

from dspy_operator.api import unsupported
from dspy_operator.api.rules import DECIMAL, Rule, Ruled, ValueRule, quoted, union_rules
from dspy_operator.api.unsupported import NotYet

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

    RULES: ClassVar[tuple[Rule, ...]] = ()
    """Rules that join this model's fields, as the API server checks them."""

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """Every rule of this model."""
        return (*cls.RULES, *(entry.rule() for entry in cls._not_yet()))

    @classmethod
    def _not_yet(cls) -> tuple[NotYet, ...]:
        return tuple(unsupported.of(tuple(base.__name__ for base in cls.__mro__)))

    @model_validator(mode="after")
    def _refuse_what_is_not_supported_yet(self) -> Self:
        for entry in self._not_yet():
            if (said := entry.refusal(self._valued(entry.field) if entry.field is not None else self)) is not None:
                raise PydanticCustomError("not_supported_yet", "{said}", {"said": said})
        return self

    @model_validator(mode="after")
    def _values_keep_their_rules(self) -> Self:
        for rule in self.RULES:
            if not isinstance(rule, ValueRule) or (value := self._valued(rule.name)) is None:
                continue
            if (said := rule.refusal(value)) is not None:
                raise PydanticCustomError("range", "{said}", {"said": said})
        return self

    def _valued(self, alias: str) -> Any:
        """The value of the field of this camelCase name."""
        return next(getattr(self, name) for name, field in type(self).model_fields.items() if field.alias == alias)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The schema with the model's rules in it."""
        schema = handler(core)
        if rules := cls.rules():
            resolved = Ruled(rules).put_into(handler.resolve_ref_schema(schema))
            for entry in cls._not_yet():
                if entry.field is not None:
                    field = resolved["properties"][entry.field]
                    field["description"] = f"{field['description']} {entry.note}"
        return schema

    def document(self) -> dict[str, Any]:
        """The fields as written, camelCase and JSON-able; what was not written, or null, is absent."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def spec_field(field_class: FieldClass, description: str, *, schema_default: int | None = None, **options: Any) -> Any:
    """A `spec` field with its class; everything else as pydantic's `Field`.

    Args:
        schema_default: what the API server writes into an object that leaves the field out. Only where Kubernetes itself
            needs the field to be there; anywhere else a default in the schema looks like an edit after an upgrade.
    """
    extra: dict[str, Any] = {"x-field-class": field_class.value}
    if schema_default is not None:
        extra["x-schema-default"] = schema_default
    return Field(description=description, json_schema_extra=extra, **options)


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


# The hints come after the bounds: what follows a validator is checked, but does not reach the schema.
DecimalString = Annotated[str, Field(pattern=DECIMAL, max_length=20), BeforeValidator(_decimal_string)]
"""A number that must not lose digits: money, thresholds, temperatures. `spec` has no floats."""

_DURATION = re.compile(r"([0-9]{1,5})(ms|h|m|s)")
DURATION = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"
Duration = Annotated[str, Field(pattern=DURATION, max_length=28), BeforeValidator(_duration)]
"""A Gateway API duration (GEP-2257): "90s", "2h", "1h30m", "500ms"."""

ObjectName = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$")]
"""`metadata.name` of our kinds: a Service's rule, and short enough for the names of children."""

ForeignName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
"""Name of an object that is not ours (ConfigMap, Secret, namespace)."""

DataKey = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
"""Key of a ConfigMap or Secret."""


_RESERVED = (
    *(word for word in keyword.kwlist if word.islower()),
    *("self", "completed", "demos", "signature", "config", "lm", "new_signature"),
)
_RESERVED_CEL = f"[{', '.join(map(quoted, _RESERVED))}]"


def _not_reserved(value: str) -> str:
    if value in _RESERVED:
        raise PydanticCustomError(
            "reserved_name", '"{value}" cannot be a field name: DSPy or Python uses it', {"value": value}
        )
    return value


_FIELD_NAME = r"^[a-z_][a-z0-9_]*$"
_FREE = Rule(
    id="field-name-is-not-reserved",
    cel=f"!(self in {_RESERVED_CEL})",
    message="""'"' + self + '" cannot be a field name: DSPy or Python uses it'""",
    computed=True,
)
FieldName = Annotated[
    str, Field(min_length=1, max_length=63, pattern=_FIELD_NAME), AfterValidator(_not_reserved), Ruled((_FREE,))
]
"""Name of a signature's field: a Python identifier in snake_case, as DSPy needs."""

ColumnName = Annotated[str, Field(min_length=1, max_length=256)]
"""Name of a column of the dataset."""

FIELD_KEYS = Rule(
    id="columns-are-of-field-names",
    cel=f"self.all(name, name.size() <= 63 && name.matches({quoted(_FIELD_NAME)}) && !(name in {_RESERVED_CEL}))",
    message=f"keys must be names of fields: {_FIELD_NAME}, at most 63 characters, no word that DSPy or Python uses",
)
ColumnMap = Annotated[dict[FieldName, ColumnName], Field(max_length=64), Ruled((FIELD_KEYS,))]
"""Signature field -> column. A structural schema cannot rule keys: the rule does."""


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


@dataclass(frozen=True)
class Opaque:
    """Marks a mapping whose inside is somebody else's: a schema of it would be larger than all of ours."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        """An object that keeps whatever it holds."""
        return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


class UnionModel(ApiModel):
    """Base of a union: `type` names the one member that may be set."""

    MEMBERS: ClassVar[dict[str, str]] = {}
    """Type -> the camelCase name of its member; a type without an entry has none."""
    REQUIRED: ClassVar[frozenset[str]] = frozenset()
    """Types whose member must be written, since it has required fields."""

    type: str

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """Those of the union, and its own."""
        types = get_args(cls.model_fields["type"].annotation)
        return (*union_rules(cls.__name__, types, cls.MEMBERS, cls.REQUIRED), *super().rules())

    @model_validator(mode="after")
    def _one_member(self) -> Self:
        one_of(self, self.type, self.MEMBERS, self.REQUIRED)
        return self


def refuse_namesakes(what: str, names: Sequence[str]) -> None:
    """Refuse a list of which two entries have one name.

    Args:
        what: the list's name, a plural: "tools".
        names: of all entries.
    """
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise PydanticCustomError("duplicate_field", 'two {what} have the name "{name}"', {"what": what, "name": twice})


def decimal(text: str) -> Decimal:
    """The exact number that a valid `DecimalString` means."""
    return Decimal(text)
