"""Digests of what is computed: the same inputs, the same digest, on a laptop and in a cluster, in this release and the next.

`v1` covers an explicit list of fields. A field that is unset and one that spells out its default digest alike, and so do
two spellings of one number ("0.5", "0.50"); adding a field with a default moves no digest (golden fixtures).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from dspy_operator.api.fields import decimal
from dspy_operator.api.metric import Metric
from dspy_operator.api.optimizationrun import Goal, Optimizer, OptimizerOptions, Stage, StagesOptions
from dspy_operator.api.program import DEFAULT_TOP_K, ObjectType, Program, codes_of
from dspy_operator.api.promptprogram import Adapter, SamplingRequest
from dspy_operator.contract.calls import REACT_MAX_ITERS
from dspy_operator.contract.canonical import digest, sha256_hex

DEFAULT_TEMPERATURE = {"task": "0", "prompt": "1", "judge": "0"}


def program_digest(
    program: Program,
    adapter: Adapter | None,
    metric: Metric,
    request: SamplingRequest | None,
    types: Mapping[str, ObjectType] | None = None,
    code: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Digest of a program: its shape and named types, adapter, metric and the request of its target.

    Args:
        code: path -> sha256 of code that the program names, where it is known: what it says counts, not where it lies.
    """
    document = program.document()
    for node in document.get("graph", {}).get("nodes", {}).values():
        if "retrieve" in node:
            _drop(node["retrieve"], "topK", DEFAULT_TOP_K)
            node["retrieve"]["http"] = {"url": node["retrieve"]["http"]["url"]}  # the rest is how it is asked, not what
    steps = [node.get("predict", {}) for node in document.get("graph", {}).get("nodes", {}).values()]
    for asked in [document.get("single", {}), *steps]:
        _drop(asked, "module", {"type": "Predict"})
    document.get("code", {}).pop("configMap", None)
    _drop(document.get("code", {}), "calls", 1)
    module = document.get("single", {}).get("module", {})
    for member in ("bestOfN", "refine"):
        reward = module.get(member, {}).get("reward", {})
        reward.get("code", {}).pop("configMap", None)
        _drop(reward.get("judge", {}), "fields", program.output_names)
        _drop(reward.get("judge", {}), "scale", 1)
    if react := document.get("single", {}).get("module", {}).get("react"):
        _settle_react(react)
    parts: dict[str, Any] = {"program": document, "metric": _metric(metric, program)}
    if known := {path: code[path] for path in codes_of(program, metric) if path in code}:
        parts["code"] = known
    if types:
        parts["types"] = {name: type_.document() for name, type_ in types.items()}
    if adapter is not None and adapter.type != "Chat":
        parts["adapter"] = adapter.document()
        if adapter.type in ("XML", "Auto") and adapter.constrained == "Auto":  # as unset
            del parts["adapter"]["constrained"]
    if sampling := _sampling(request, "task"):
        parts["request"] = sampling
    return digest(parts)


def _settle_react(react: dict[str, Any]) -> None:
    """Without what is default, and without how a tool is reached: its timeout and headers."""
    _drop(react, "maxIters", REACT_MAX_ITERS)
    for tool in react["tools"]:
        _drop(tool, "effects", "Safe")
        _drop(tool, "arguments", [])
        for place in ("http", "mcp"):
            if place in tool:
                tool[place] = {name: tool[place][name] for name in ("url", "tools") if name in tool[place]}


def input_digest(
    *,
    optimizer: Optimizer,
    seed: int,
    mode: str,
    program: str,
    dataset: str,
    endpoints: Mapping[str, tuple[str, SamplingRequest | None]],
    goal: Goal | None = None,
    start: str | None = None,
    repeats: int | None = None,
) -> str:
    """Digest of one attempt's inputs.

    Args:
        optimizer: as written.
        seed: 0 where unset.
        mode: Run or Estimate.
        program: its digest.
        dataset: its digest, as `validate` saw the rows.
        endpoints: role -> (model name, sampling request). Neither URL nor model digest counts: they are where and how, not what.
        start: digest of the revision that the optimizer begins with; None for the baseline.
        repeats: answers to each row, where another number was written than what unset means.
    """
    parts: dict[str, Any] = {"optimizer": _optimizer(optimizer), "program": program, "dataset": dataset}
    if seed:
        parts["seed"] = seed
    if mode != "Run":
        parts["mode"] = mode
    if start is not None:
        parts["startFrom"] = start
    if goal is not None:
        parts["goal"] = {name: _settled(value) for name, value in goal.document().items()}
    if repeats is not None:
        parts["repeats"] = repeats
    parts["endpoints"] = {
        role: {"model": model} | ({"request": sampling} if (sampling := _sampling(request, role)) else {})
        for role, (model, request) in endpoints.items()
    }
    return digest(parts)


def revision_digest(program_py: bytes, program_json: bytes, prompts_json: bytes) -> str:
    """sha256 over the three files that are the revision, each by its own sha256; report and provenance lie beside it."""
    files = {"program.py": program_py, "program.json": program_json, "prompts.json": prompts_json}
    return digest({name: sha256_hex(content) for name, content in files.items()})


def short(text: str) -> str:
    """The first 8 hex digits, as names of revisions carry them."""
    return text.split(":", 1)[-1][:8]


def _sampling(request: SamplingRequest | None, role: str) -> dict[str, Any]:
    if request is None:
        return {}
    document = {name: _settled(value) for name, value in request.document().items()}
    if document.get("temperature") == DEFAULT_TEMPERATURE[role]:
        del document["temperature"]
    return document


def _metric(metric: Metric, program: Program) -> dict[str, Any]:
    """Without what is default: all outputs in their order, no tolerance, weights and `accept` of 1."""
    outputs = program.output_names
    document = _measure(metric.document(), outputs)
    for part in document.get("composite", {}).get("parts", ()):
        part["metric"] = _measure(part["metric"], outputs)
        _drop(part, "weight", "1")
    _drop(document, "accept", "1")
    return document


def _measure(document: dict[str, Any], outputs: list[str]) -> dict[str, Any]:
    document.get("code", {}).pop("configMap", None)
    for member in ("exactMatch", "f1", "contains", "jsonEqual", "numeric", "judge"):
        if member in document:
            options = document[member]
            _drop(options, "fields", outputs)
            _drop(options, "ignoreCase", False)
            _drop(options, "tolerance", "0")
            _drop(options, "relativeTolerance", "0")
            _drop(options, "scale", 1)
            _drop(options, "votes", 1)
            _drop(options, "combine", "Median")
            _drop(options, "pairwise", False)
            _drop(options.get("calibration", {}), "minKappa", None)
            _drop(document, member, {})
    return document


def _drop(document: dict[str, Any], name: str, default: Any) -> None:
    """One spelling of a number, and none of what is default."""
    if name in document and (settled := _settled(document.pop(name))) != default:
        document[name] = settled


def _optimizer(of: Optimizer | Stage) -> dict[str, Any]:
    options = _deviations(of.options)
    return {"type": of.type, "options": options} if options else {"type": of.type}


def _deviations(options: OptimizerOptions) -> dict[str, Any]:
    if isinstance(options, StagesOptions):
        return {"stages": [_optimizer(stage) for stage in options.stages]}
    defaults = {type(options).model_fields[name].alias: value for name, value in options.DEFAULTS.items()}
    written = {name: _settled(value) for name, value in options.deviations().items()}
    return {name: value for name, value in written.items() if value != defaults.get(name)}


_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def _settled(value: Any) -> Any:
    """One spelling for each number that is written as a text."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return f"{(decimal(value) + 0).normalize():f}"
    return value
