"""One manifest for each choice that the API offers: every value of every enumerated field of every kind, made from the models."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from dspy_operator.api.fields import API_VERSION, UnionModel
from dspy_operator.api.objects import KINDS
from dspy_operator.api.podtemplate import Shape

Document = dict[str, Any]

_SAMPLES: tuple[Any, ...] = (
    *("a", "1", "1h", "1Gi", "USD", "A", "aa", "a.a", "a:b", "http://a.example/v1", "0" * 64, "-----BEGIN CERTIFICATE-----"),
    *(1, 2, True),
)  # fmt: skip
"""The first that a field takes is what stands in it."""

_BESIDE: dict[str, Document] = {
    "Signature": {"outputs": [{"name": "b", "type": "a"}]},
    "Budget": {"calls": 1},
    "Goal": {"patience": 1},
    "CodeRef": {"image": "a"},
    "CodeProgram": {"image": "a", "outputs": [{"name": "b", "type": "a"}]},
    "Feedback": {"column": "a"},
    "Toleration": {"operator": "Exists"},
    "GraphNode": {"retrieve": {"http": {"url": "http://a.example/v1"}}},
    "Tool": {"description": "a", "http": {"url": "http://a.example/v1"}},
}
"""What a model needs that none of its fields requires."""
_WITH: dict[tuple[str, str], Document] = {
    ("Adapter", "JSON"): {"constrained": "Disabled"},
    ("Adapter", "BAML"): {"constrained": "Disabled"},
    ("Adapter", "Required"): {"type": "JSON"},
    ("Adapter", "Disabled"): {"type": "JSON"},
    ("AccessNamespaces", "Selector"): {"selector": {}},
    ("LabelRequirement", "In"): {"values": ["a"]},
    ("LabelRequirement", "NotIn"): {"values": ["a"]},
    ("Toleration", "Equal"): {"key": "a"},
    ("JudgeMetric", "Median"): {"votes": 3},
    ("JudgeMetric", "Mean"): {"votes": 3},
}
"""What a choice needs beside it."""
_INSIDE: dict[tuple[str, str], Document] = {
    ("AccessNamespaces", "selector"): {"from": "Selector"},
    ("GraphNode", "predict"): {"retrieve": None},
    ("GraphNode", "template"): {"retrieve": None},
}
"""What a field needs beside it; None: what must not be there."""


def choices() -> Iterator[tuple[str, str, Document]]:
    """(kind, "path: value", manifest) of each choice."""
    for kind, model in KINDS.items():
        (spec,) = _models(model.model_fields["spec"].annotation)
        for path, value, made in _of(spec, "spec"):
            manifest = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": "choice"}, "spec": made}
            yield kind, f"{path}: {value}", manifest


def _of(model: type[BaseModel], path: str) -> Iterator[tuple[str, str, Document]]:
    members = {member: type_ for type_, member in model.MEMBERS.items()} if issubclass(model, UnionModel) else {}
    for name, field in model.model_fields.items():
        alias = field.alias or name
        for value in _literals(field.annotation):
            made = _chosen(model, alias, value)
            yield f"{path}.{alias}", value, {**made, alias: _listed(field, value)}
        for inner in _models(field.annotation, field.metadata):
            around = _smallest(model)
            if alias in members:
                around = {"type": members[alias]}
            around = {**around, **_INSIDE.get((model.__name__, alias), {})}
            for depth, value, made in _of(inner, f"{path}.{alias}"):
                whole = {**around, alias: _wrapped(field, made)}
                yield depth, value, {key: part for key, part in whole.items() if part is not None}


def _chosen(model: type[BaseModel], alias: str, value: str) -> Document:
    made = {**_smallest(model), alias: value, **_WITH.get((model.__name__, value), {})}
    if alias != "type" or not issubclass(model, UnionModel):
        return made
    for member in model.MEMBERS.values():
        made.pop(member, None)
    if value in model.REQUIRED:
        made.update(_member(model, value))
    return made


def _member(model: type[UnionModel], type_: str) -> Document:
    alias = model.MEMBERS[type_]
    field = next(field for name, field in model.model_fields.items() if (field.alias or name) == alias)
    (inner,) = _models(field.annotation)
    return {alias: _smallest(inner)}


def _smallest(model: type[BaseModel]) -> Document:
    made: Document = {}
    for name, field in model.model_fields.items():
        if field.is_required():
            made[field.alias or name] = _value(field)
    if issubclass(model, UnionModel) and made["type"] in model.REQUIRED:
        made.update(_member(model, made["type"]))
    return {**made, **_BESIDE.get(model.__name__, {})}


def _value(field: FieldInfo) -> Any:
    if literals := _literals(field.annotation):
        return _listed(field, literals[0])
    for inner in _models(field.annotation, field.metadata):
        return _wrapped(field, _smallest(inner))
    bounded: Any = Annotated[field.annotation, *field.metadata, None]
    adapter: TypeAdapter[Any] = TypeAdapter(bounded)
    for sample in (*_SAMPLES, ["a"], {"a": "a"}, {"a": "a.a"}):
        try:
            adapter.validate_python(sample, strict=True)
        except ValidationError:
            continue
        return sample
    raise AssertionError(f"no sample for {field}")


def _wrapped(field: FieldInfo, made: Document) -> Any:
    """As the field wants it: itself, some in a list, or one in a map."""
    text = str(field.annotation)
    if "list[" in text:
        wanted = next((part.min_length for part in field.metadata if hasattr(part, "min_length")), 1)
        return [made] * wanted
    if (
        text.startswith(("dict[", "typing.Annotated[dict", "typing.Optional[typing.Annotated[dict"))
        and "Shape" not in text
    ):
        return {("A" if "AfterValidator" in text and "_free" in text else "a"): made}
    return made


def _listed(field: FieldInfo, value: str) -> Any:
    return [value] if "list[" in str(field.annotation) else value


def _literals(annotation: Any) -> list[str]:
    """The values of a Literal, also of an optional one and of one in a list."""
    if typing.get_origin(annotation) is Literal:
        return list(typing.get_args(annotation))
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, Annotated, list):
        return [value for part in typing.get_args(annotation) for value in _literals(part)]
    return []


def _models(annotation: Any, metadata: Any = ()) -> list[type[BaseModel]]:
    """The models in a field: its own, that of its items or values, or that of Kubernetes' shape."""
    for part in metadata:
        if isinstance(part, Shape):
            return [part.model]
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    found: list[type[BaseModel]] = []
    for part in typing.get_args(annotation):
        if isinstance(part, Shape):
            return [part.model]
        found += _models(part, getattr(part, "__metadata__", ()))
    return found
