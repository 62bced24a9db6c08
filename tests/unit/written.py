"""Objects as people write them: one good one of each kind, changed field by field by path."""

from __future__ import annotations

import copy
from typing import Any

from dspy_operator.api.objects import InvalidObject, ModelEndpoint, OptimizationRun, PromptProgram, parse_object

REMOVED = object()
"""A value that takes the field away."""


def a_program(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """A PromptProgram; `changes` maps a path inside `spec` to its value."""
    spec = {
        "program": {
            "type": "Single",
            "single": {
                "signature": {
                    "instructions": "Classify the ticket.",
                    "inputs": [{"name": "ticket", "type": "str"}],
                    "outputs": [{"name": "label", "type": "str"}],
                }
            },
        },
        "target": {"endpoint": {"name": "qwen"}},
        "dataset": {"source": {"type": "Inline", "inline": {"data": "{}"}}, "format": "JSONL"},
        "metric": {"type": "ExactMatch"},
    }
    return _object("PromptProgram", "triage", spec, changes)


def a_run(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """An OptimizationRun; `changes` maps a path inside `spec` to its value."""
    spec = {"programRef": {"name": "triage"}, "optimizer": {"type": "Evaluate"}, "budget": {"calls": 100}}
    return _object("OptimizationRun", "fast", spec, changes)


def an_endpoint(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """A ModelEndpoint; `changes` maps a path inside `spec` to its value."""
    spec = {"provider": {"type": "OpenAI", "openai": {"baseURL": "http://models.example/v1", "model": "qwen"}}}
    return _object("ModelEndpoint", "qwen", spec, changes)


def a_quota(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """An OptimizationQuota; `changes` maps a path inside `spec` to its value."""
    spec = {"namespaceSelector": {"matchLabels": {"team": "search"}}, "limits": {"concurrentRuns": 4}}
    return _object("OptimizationQuota", "search", spec, changes)


def program(changes: dict[str, Any] | None = None) -> PromptProgram:
    """The same, typed."""
    found = parse_object(a_program(changes))
    assert isinstance(found, PromptProgram)
    return found


def run(changes: dict[str, Any] | None = None) -> OptimizationRun:
    """The same, typed."""
    found = parse_object(a_run(changes))
    assert isinstance(found, OptimizationRun)
    return found


def endpoint(changes: dict[str, Any] | None = None) -> ModelEndpoint:
    """The same, typed."""
    found = parse_object(an_endpoint(changes))
    assert isinstance(found, ModelEndpoint)
    return found


def complaints(document: dict[str, Any]) -> list[str]:
    """`path: message` of each problem; empty where the object is good."""
    try:
        parse_object(document)
    except InvalidObject as invalid:
        return [str(problem) for problem in invalid.problems]
    return []


def changed(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with one field set, or REMOVED; parents are made, and a part that is a number is a place in a list."""
    result = copy.deepcopy(document)
    parts: list[Any] = [int(part) if part.isdigit() else part for part in path.split(".")]
    *parents, last = parts
    inner: Any = result
    for part in parents:
        inner = inner[part] if isinstance(inner, list) else inner.setdefault(part, {})
    if value is REMOVED:
        del inner[last]
    else:
        inner[last] = value
    return result


def _object(kind: str, name: str, spec: dict[str, Any], changes: dict[str, Any] | None) -> dict[str, Any]:
    for path, value in (changes or {}).items():
        spec = changed(spec, path, value)
    return {"apiVersion": "dspy-operator.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
