"""The metrics: one module each, all of one shape. A new one is a file here and its options in `api`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from types import MappingProxyType

from dspy_operator.api.fields import decimal
from dspy_operator.api.metric import JudgeMetric, Metric, PartMetric
from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.runner.code import Function
from dspy_operator.runner.metrics.code import Code
from dspy_operator.runner.metrics.composite import Composite, Part
from dspy_operator.runner.metrics.contains import Contains
from dspy_operator.runner.metrics.exact_match import ExactMatch
from dspy_operator.runner.metrics.f1 import F1
from dspy_operator.runner.metrics.json_equal import JSONEqual
from dspy_operator.runner.metrics.judge import Ask, Judge, placeholder_in
from dspy_operator.runner.metrics.numeric import Numeric
from dspy_operator.runner.metrics.regex import InvalidPattern, Regex
from dspy_operator.runner.metrics.shape import Comparison, FieldWise, Measure


def measure_of(
    spec: Metric | PartMetric,
    outputs: Sequence[str],
    path: str,
    inputs: Sequence[str] = (),
    code: Mapping[str, Function] = MappingProxyType({}),
    ask: Ask | None = None,
) -> Measure:
    """The metric that a program asks for.

    Args:
        spec: a metric, or a part of a composite one.
        outputs: output fields of the signature, which it may name.
        path: of the metric in the program.
        inputs: input fields of the signature, which a judge is shown.
        code: path -> function of one's own.
        ask: what a judge is asked with; without it no answer can be scored by one.
    Raises:
        RunFailed: InvalidMetric when a field is no output, or a pattern none of RE2.
    """
    if isinstance(spec, Metric) and spec.composite is not None:
        parts = [
            Part(
                part.metric.type,
                Fraction(part.weight or "1"),
                measure_of(part.metric, outputs, f"{path}.composite.parts[{index}].metric", inputs, code, ask),
            )
            for index, part in enumerate(spec.composite.parts)
        ]
        return Composite(parts)
    if spec.regex is not None:
        _check_output(spec.regex.field, outputs, f"{path}.regex.field")
        try:
            return FieldWise(path, (spec.regex.field,), Regex(spec.regex.pattern))
        except InvalidPattern as error:
            raise RunFailed(Reason.INVALID_METRIC, str(error), path=f"{path}.regex.pattern") from None
    if spec.judge is not None:
        return _judge(spec.judge, outputs, inputs, f"{path}.judge", ask)
    if spec.code is not None:
        return Code(code.get(f"{path}.code"), tuple(outputs))
    options = spec.exact_match or spec.f1 or spec.contains or spec.json_equal or spec.numeric
    named = options.fields if options is not None else None
    fields = _fields(named, outputs, f"{path}.{spec.MEMBERS[spec.type]}")
    return FieldWise(path, fields, _comparison(spec))


def _judge(spec: JudgeMetric, outputs: Sequence[str], inputs: Sequence[str], path: str, ask: Ask | None) -> Judge:
    if (mark := placeholder_in(spec.instructions)) is not None:
        message = f"{mark} is filled in by nobody: the judge is shown the inputs, what was expected and the answer below the rubric"
        raise RunFailed(Reason.INVALID_METRIC, message, path=f"{path}.instructions")
    return Judge(
        rubric=spec.instructions,
        inputs=tuple(inputs),
        fields=_fields(spec.fields, outputs, path),
        scale=spec.scale or 1,
        pairwise=bool(spec.pairwise),
        votes=spec.votes or 1,
        combine=spec.combine or "Median",
        ask=ask,
    )


def _fields(named: Sequence[str] | None, outputs: Sequence[str], path: str) -> tuple[str, ...]:
    """The outputs that are named, each once, or all."""
    for index, name in enumerate(named or ()):
        _check_output(name, outputs, f"{path}.fields[{index}]")
    return tuple(dict.fromkeys(named or outputs))


def _comparison(spec: Metric | PartMetric) -> Comparison:
    match spec.type:
        case "ExactMatch":
            return ExactMatch()
        case "F1":
            return F1()
        case "Contains":
            return Contains(ignore_case=bool(spec.contains and spec.contains.ignore_case))
        case "JSONEqual":
            return JSONEqual()
        case "Numeric":
            tolerance = spec.numeric.tolerance if spec.numeric is not None else None
            relative = spec.numeric.relative_tolerance if spec.numeric is not None else None
            return Numeric(decimal(tolerance or "0"), decimal(relative or "0"))
    raise AssertionError(f"{spec.type} compares no fields")


def _check_output(name: str, outputs: Sequence[str], path: str) -> None:
    if name not in outputs:
        message = f'"{name}" is no output of the program (outputs: {", ".join(outputs)})'
        raise RunFailed(Reason.INVALID_METRIC, message, path=path)
