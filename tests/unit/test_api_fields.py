"""What holds for every field of every kind: a class, a description, a bound; and the small types that they share."""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from dspy_operator.api.fields import (
    ApiModel,
    ColumnName,
    DataKey,
    DecimalString,
    Duration,
    FieldClass,
    FieldName,
    ForeignName,
    ObjectName,
    decimal,
    parse_duration,
)
from dspy_operator.api.objects import KINDS

SCHEMAS = {kind: model.model_json_schema(by_alias=True) for kind, model in KINDS.items()}
YAML_1_1_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none", "~", ""}
"""What some reader of YAML takes for a boolean or for nothing; `None` is Python's own spelling."""


def models_of(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models inside a type: of `list[A] | None`, A."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for argument in typing.get_args(annotation):
        yield from models_of(argument)


def spec_models() -> dict[str, type[BaseModel]]:
    """Every model that can stand somewhere in a `spec`, by its name."""
    found: dict[str, type[BaseModel]] = {}
    waiting = [model for kind in KINDS.values() for model in models_of(kind.model_fields["spec"].annotation)]
    while waiting:
        model = waiting.pop()
        if model.__name__ not in found:
            found[model.__name__] = model
            waiting += [each for field in model.model_fields.values() for each in models_of(field.annotation)]
    return found


FIELDS = [
    pytest.param(model, name, id=f"{model.__name__}.{field.alias or name}")
    for model in spec_models().values()
    for name, field in model.model_fields.items()
]


def test_the_walk_sees_the_models_it_is_meant_to_see() -> None:
    assert {"SignatureField", "SamplingRequest", "GEPAOptions", "SecretKeyRef", "ColumnSplit", "Pricing"} <= set(
        spec_models()
    )


@pytest.mark.parametrize("model", spec_models().values(), ids=spec_models())
def test_every_model_refuses_unknown_fields_cannot_be_changed_and_says_what_it_is(model: type[BaseModel]) -> None:
    assert issubclass(model, ApiModel)
    assert (model.model_config["extra"], model.model_config["frozen"], model.model_config["strict"]) == (
        "forbid",
        True,
        True,
    )
    assert model.__doc__


@pytest.mark.parametrize(("model", "name"), FIELDS)
def test_every_spec_field_has_one_class_and_a_description(model: type[BaseModel], name: str) -> None:
    field = model.model_fields[name]
    assert isinstance(field.json_schema_extra, dict)
    assert FieldClass(str(field.json_schema_extra["x-field-class"]))
    assert re.fullmatch(r"([A-Z]|[a-z]+: ).*\.", field.description or "")


@pytest.mark.parametrize(("model", "name"), FIELDS)
def test_an_optional_field_defaults_to_unset_and_says_what_that_means(model: type[BaseModel], name: str) -> None:
    """A default in the schema that an upgrade changes would look like an edit."""
    field = model.model_fields[name]
    assert field.is_required() or field.default is None
    plain = next(iter(models_of(field.annotation)), None) is None
    says = field.description or ""
    if not field.is_required() and plain:
        assert re.search(r"[Uu]nset|not named here", says), says


def parts_of(schema: dict[str, Any], of: dict[str, Any], path: str = "", seen: frozenset[str] = frozenset()) -> Any:
    """(path, schema) of everything inside a schema, references followed."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        if name not in seen:
            yield from parts_of(of["$defs"][name], of, path, seen | {name})
        return
    yield path, schema
    if "x-kubernetes-int-or-string" in schema:
        return  # both at once, with the bounds of both
    for choice in (*schema.get("anyOf", ()), *schema.get("allOf", ())):
        yield from parts_of(choice, of, path, seen)
    for name, inner in schema.get("properties", {}).items():
        yield from parts_of(inner, of, f"{path}.{name}", seen)
    for inner in schema.get("patternProperties", {}).values():
        yield from parts_of(inner, of, f"{path}.*", seen)
    if isinstance(schema.get("additionalProperties"), dict):
        yield from parts_of(schema["additionalProperties"], of, f"{path}.*", seen)
    if "items" in schema:
        yield from parts_of(schema["items"], of, f"{path}[]", seen)


def is_bounded(part: dict[str, Any]) -> bool:
    if "x-kubernetes-int-or-string" in part:
        return {"minimum", "maxLength"} <= part.keys()
    match part.get("type"):
        case "string":
            return "enum" in part or "const" in part or "maxLength" in part
        case "array":
            return "maxItems" in part
        case "object" if "x-kubernetes-preserve-unknown-fields" in part:
            return True  # Kubernetes' own, checked where it is used
        case "object":
            return "properties" in part or ("maxProperties" in part and "maxLength" in part.get("propertyNames", {}))
        case "integer":
            return "minimum" in part and "maximum" in part
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_every_string_list_map_and_number_is_bounded(kind: str) -> None:
    # `status` is written by us; its own fields come with the controllers.
    parts = [(path, part) for path, part in parts_of(SCHEMAS[kind], SCHEMAS[kind]) if not path.startswith(".status")]
    assert [path for path, part in parts if not is_bounded(part)] == []
    assert len(parts) > 20


@pytest.mark.parametrize("kind", KINDS)
def test_no_spec_has_a_float(kind: str) -> None:
    assert [path for path, part in parts_of(SCHEMAS[kind], SCHEMAS[kind]) if part.get("type") == "number"] == []


@pytest.mark.parametrize("kind", KINDS)
def test_no_enum_value_is_a_boolean_or_null_to_some_reader_of_yaml(kind: str) -> None:
    values = [
        value
        for _, part in parts_of(SCHEMAS[kind], SCHEMAS[kind])
        for value in (*part.get("enum", ()), *([part["const"]] if "const" in part else ()))
    ]
    assert values
    assert [value for value in values if not isinstance(value, str) or value.lower() in YAML_1_1_WORDS] == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_fits_into_a_custom_resource_definition(kind: str) -> None:
    assert len(json.dumps(SCHEMAS[kind]).encode()) < 200 * 1024


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_camel_case(kind: str) -> None:
    names = {path.rsplit(".", 1)[-1].removesuffix("[]") for path, _ in parts_of(SCHEMAS[kind], SCHEMAS[kind]) if path}
    assert [name for name in names - {"*"} if not re.fullmatch(r"[a-z][a-zA-Z0-9]*", name)] == []


# The small types


@pytest.mark.parametrize(
    ("type_", "good", "bad"),
    [
        pytest.param(DecimalString, ["0", "-1", "0.05", "123456789.123456789"], ["", ".5", "1e3", "+1", "1,5", " 1"], id="decimal"),
        pytest.param(Duration, ["90s", "2h", "1h30m", "500ms", "1h1m1s1ms"], ["", "90", "1d", "1.5h", "-1s", "100000s"], id="duration"),
        pytest.param(ObjectName, ["a", "a-1", "a" * 40], ["", "A", "1a", "a-", "a.b", "a" * 41, "a_b"], id="name"),
        pytest.param(ForeignName, ["a", "1", "a.b-c", "a" * 253], ["", "A", "-a", "a-", "a" * 254], id="foreign name"),
        pytest.param(DataKey, ["a", "a.b", "_A-1", "a" * 253], ["", "a/b", "a b", "a" * 254], id="key"),
        pytest.param(FieldName, ["a", "_a1", "a" * 63], ["", "A", "1a", "a-b", "a" * 64, "class", "demos"], id="field"),
        pytest.param(ColumnName, ["a", "Any text ✓", "a" * 256], ["", "a" * 257], id="column"),
    ],
)  # fmt: skip
def test_a_small_type_takes_what_it_should_and_no_more(type_: Any, good: list[str], bad: list[str]) -> None:
    adapter = TypeAdapter(type_)
    assert [adapter.validate_python(text) for text in good] == good
    for text in bad:
        with pytest.raises(ValidationError):
            adapter.validate_python(text)


@pytest.mark.parametrize("number", [1, 0, 0.5])
def test_a_number_where_a_decimal_string_is_meant_is_told_how_to_write_it(number: float) -> None:
    with pytest.raises(ValidationError, match=f'must be a decimal string in quotes, for example "{number}"'):
        TypeAdapter(DecimalString).validate_python(number)


def test_a_number_where_a_duration_is_meant_is_told_to_name_its_unit() -> None:
    with pytest.raises(ValidationError, match='must be a duration with its unit, for example "90s"'):
        TypeAdapter(Duration).validate_python(90)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("90s", timedelta(seconds=90)),
        ("1h30m", timedelta(hours=1.5)),
        ("500ms", timedelta(milliseconds=500)),
        ("1m1ms", timedelta(minutes=1, milliseconds=1)),
    ],
)
def test_a_duration_means_its_parts_together(text: str, want: timedelta) -> None:
    assert parse_duration(text) == want


def test_a_decimal_string_keeps_every_digit() -> None:
    assert decimal("0.123456789") + decimal("0.000000001") == Decimal("0.123456790")
