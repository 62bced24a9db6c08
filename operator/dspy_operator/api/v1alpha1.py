"""The kinds for Python programs: parse a manifest, read it by typed fields, give back what `kubectl apply` takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import ConfigDict

from dspy_operator.api import objects
from dspy_operator.api.fields import API_VERSION, ApiModel
from dspy_operator.api.modelendpoint import ModelEndpointSpec
from dspy_operator.api.objects import InvalidObject, Problem
from dspy_operator.api.optimizationquota import OptimizationQuotaSpec
from dspy_operator.api.optimizationrun import OptimizationRunSpec
from dspy_operator.api.promptprogram import PromptProgramSpec

__all__ = [
    "InvalidObject",
    "Metadata",
    "ModelEndpoint",
    "ModelEndpointSpec",
    "OptimizationQuota",
    "OptimizationQuotaSpec",
    "OptimizationRun",
    "OptimizationRunSpec",
    "Problem",
    "PromptProgram",
    "PromptProgramSpec",
]


class Metadata(objects.Metadata):
    """Name, namespace and whatever else Kubernetes knows (labels, annotations), kept as written."""

    model_config = ConfigDict(extra="allow")


class _Manifest(ApiModel):
    """What the kinds can do."""

    @classmethod
    def from_manifest(cls, document: Mapping[str, Any]) -> Self:
        """A parsed manifest as a typed object.

        Raises:
            InvalidObject: with one Problem (path and message) for each thing that is wrong.
        """
        if (kind := document.get("kind")) != cls.__name__:
            raise InvalidObject((Problem(("kind",), f'must be "{cls.__name__}", found {kind!r}'),))
        objects.parse_object(document)  # its words for what is wrong
        return cls.model_validate(document)

    def to_manifest(self) -> dict[str, Any]:
        """What `kubectl apply` takes: camelCase, what was not set stays unset; without status, which is the operator's."""
        made = self.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True, exclude={"status"})
        return {"apiVersion": API_VERSION, "kind": type(self).__name__} | made


class PromptProgram(_Manifest, objects.PromptProgram):
    """What an LLM program is, and what good means for it."""

    api_version: Literal["dspy-operator.io/v1alpha1"] = "dspy-operator.io/v1alpha1"
    kind: Literal["PromptProgram"] = "PromptProgram"
    metadata: Metadata


class OptimizationRun(_Manifest, objects.OptimizationRun):
    """How a PromptProgram is improved, and what that may cost."""

    api_version: Literal["dspy-operator.io/v1alpha1"] = "dspy-operator.io/v1alpha1"
    kind: Literal["OptimizationRun"] = "OptimizationRun"
    metadata: Metadata


class ModelEndpoint(_Manifest, objects.ModelEndpoint):
    """Which model answers, and how much of it there is."""

    api_version: Literal["dspy-operator.io/v1alpha1"] = "dspy-operator.io/v1alpha1"
    kind: Literal["ModelEndpoint"] = "ModelEndpoint"
    metadata: Metadata


class OptimizationQuota(_Manifest, objects.OptimizationQuota):
    """What a platform team grants; for the whole cluster, so without a namespace."""

    api_version: Literal["dspy-operator.io/v1alpha1"] = "dspy-operator.io/v1alpha1"
    kind: Literal["OptimizationQuota"] = "OptimizationQuota"
    metadata: Metadata
