"""The kinds as whole objects, and the one way from a parsed document to a typed one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dspy_operator.api.fields import API_VERSION, ApiModel, ForeignName, ObjectName
from dspy_operator.api.modelendpoint import ModelEndpointSpec
from dspy_operator.api.optimizationquota import OptimizationQuotaSpec
from dspy_operator.api.optimizationrun import OptimizationRunSpec
from dspy_operator.api.promptprogram import PromptProgramSpec


class Metadata(BaseModel):
    """The part of `metadata` that we read; the rest belongs to Kubernetes."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    name: ObjectName
    namespace: ForeignName = "default"
    uid: Annotated[str, Field(max_length=64)] = ""


class _Kind(ApiModel):
    api_version: Literal["dspy-operator.io/v1alpha1"]
    metadata: Metadata
    status: dict[str, Any] | None = None

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.metadata.namespace}/{self.metadata.name}"


class PromptProgram(_Kind):
    """A PromptProgram as applied."""

    kind: Literal["PromptProgram"]
    spec: PromptProgramSpec


class OptimizationRun(_Kind):
    """An OptimizationRun as applied."""

    kind: Literal["OptimizationRun"]
    spec: OptimizationRunSpec


class ModelEndpoint(_Kind):
    """A ModelEndpoint as applied."""

    kind: Literal["ModelEndpoint"]
    spec: ModelEndpointSpec


class OptimizationQuota(_Kind):
    """An OptimizationQuota as applied; it lives in no namespace."""

    kind: Literal["OptimizationQuota"]
    spec: OptimizationQuotaSpec


Kind = PromptProgram | OptimizationRun | ModelEndpoint | OptimizationQuota
KINDS: Mapping[str, type[Kind]] = {
    "PromptProgram": PromptProgram,
    "OptimizationRun": OptimizationRun,
    "ModelEndpoint": ModelEndpoint,
    "OptimizationQuota": OptimizationQuota,
}


@dataclass(frozen=True)
class Problem:
    """One thing wrong with what a person wrote."""

    path: tuple[str | int, ...]
    """Where, from the object's root: ("spec", "dataset", "fields", "label")."""
    message: str
    """What is wrong, what was found and what is allowed."""

    @property
    def field(self) -> str:
        """The path as people write it: spec.outputs[0].type."""
        return field_path(self.path)

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class InvalidObject(Exception):
    """An object that the schema refuses; carries every problem."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


def field_path(path: tuple[str | int, ...]) -> str:
    """`("spec", "outputs", 0, "type")` -> `spec.outputs[0].type`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else part)
    return text


def parse_object(document: Mapping[str, Any]) -> Kind:
    """A typed object of one of our kinds.

    Args:
        document: the parsed YAML or JSON; its `kind` is one of KINDS.
    Raises:
        InvalidObject: with one Problem for each thing that is wrong.
    """
    if document.get("apiVersion") != API_VERSION:
        raise InvalidObject(
            (Problem(("apiVersion",), f'must be "{API_VERSION}", found {_shown(document.get("apiVersion"))}'),)
        )
    model = KINDS[document["kind"]]
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise InvalidObject(tuple(_problem(detail, document) for detail in error.errors(include_url=False))) from None


def _problem(detail: Any, document: Mapping[str, Any]) -> Problem:
    path: tuple[str | int, ...] = tuple(part for part in detail["loc"] if part != "[key]")
    kind, context = detail["type"], detail.get("ctx", {})
    found = _shown(detail.get("input"))
    match kind:
        case "extra_forbidden":
            return Problem(path, f"unknown field{_allowed_here(path, document)}")
        case "missing":
            return Problem(path, "is required")
        case "literal_error":
            allowed = context["expected"].replace("'", "").replace(" or ", ", ")
            return Problem(path, f"must be {'one of ' if ',' in allowed else ''}{allowed}, found {found}")
        case "string_pattern_mismatch":
            return Problem(path, f"must match {context['pattern']}, found {found}")
        case "string_type":
            return Problem(path, f"must be a string, found {found}")
        case "int_type":
            return Problem(path, f"must be a whole number, found {found}")
        case "bool_type":
            return Problem(path, f"must be true or false, found {found}")
        case "model_type" | "dict_type" | "model_attributes_type":
            return Problem(path, f"must be a mapping, found {found}")
        case "list_type":
            return Problem(path, f"must be a list, found {found}")
        case "too_short":
            return Problem(path, f"needs at least {context['min_length']} item(s)")
        case "too_long":
            return Problem(path, f"has more than {context['max_length']} items")
    message = str(detail["msg"]).replace("Input should be", "must be").replace("String should", "must")
    return Problem(path, message if kind in _OWN_ERRORS else f"{message}, found {found}")


_OWN_ERRORS = frozenset(
    {
        "union_member",
        "constrained",
        "duplicate_field",
        "reserved_name",
        "range",
        "not_supported_yet",
        "exactly_one",
        "selector",
        "goal",
        "auto_or_counts",
        "one_size",
        "parent",
        "shared_cache",
        "own_label",
        "toleration",
        "budget",
        "decimal_string",
        "duration",
    }
)


def _allowed_here(path: tuple[str | int, ...], document: Mapping[str, Any]) -> str:
    """What could be written instead of an unknown field: `; allowed: type, single`."""
    model: Any = KINDS[document["kind"]]
    for part in path[:-1]:
        if isinstance(part, int):
            continue
        field = next((f for n, f in model.model_fields.items() if (f.alias or n) == part), None)
        if field is None or (model := _model_of(field.annotation)) is None:
            return ""
    return "; allowed: " + ", ".join(sorted(f.alias or n for n, f in model.model_fields.items()))


def _model_of(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if (model := _model_of(argument)) is not None:
            return model
    return None


def _shown(value: object) -> str:
    """As YAML would have it, and not as Python prints it."""
    if value is None:
        return "nothing"
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
