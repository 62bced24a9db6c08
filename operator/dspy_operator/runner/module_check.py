"""What the schema cannot see of a Single program's module: names that it adds itself, and its reward."""

from __future__ import annotations

from collections.abc import Iterator

from dspy_operator.api.metric import JudgeReward
from dspy_operator.api.objects import Problem
from dspy_operator.api.program import ModuleType, SignatureField, SingleProgram
from dspy_operator.runner.attempts import HINT
from dspy_operator.runner.metrics.judge import placeholder_in
from dspy_operator.runner.metrics.regex import InvalidPattern, Regex

_SINGLE = ("spec", "program", "single")


def check_module(single: SingleProgram) -> Iterator[Problem]:
    """Names of fields that the module takes for itself, a type that it cannot show, and a reward that cannot be asked."""
    added = _added(single)
    for kind, fields in (("inputs", single.signature.inputs), ("outputs", single.signature.outputs)):
        for index, field in enumerate(fields):
            place = (*_SINGLE, "signature", kind, index)
            if field.name in added:
                why = f'"{field.name}" cannot be a field of a {single.module_type.value}: the module adds it'
                yield Problem((*place, "name"), why)
            if single.module_type is ModuleType.MULTI_CHAIN_COMPARISON and field.type.strip() == "History":
                yield Problem((*place, "type"), "History cannot be an input of a MultiChainComparison")
    if single.repeat is not None and single.repeat.reward.regex is not None:
        member = "bestOfN" if single.module_type is ModuleType.BEST_OF_N else "refine"
        regex, asked = single.repeat.reward.regex, (*_SINGLE, "module", member, "reward", "regex")
        if regex.field not in (names := _names(single.signature.outputs)):
            why = f'"{regex.field}" is no output of the program (outputs: {", ".join(names)})'
            yield Problem((*asked, "field"), why)
        try:
            Regex(regex.pattern)
        except InvalidPattern as error:
            yield Problem((*asked, "pattern"), str(error))
    if single.repeat is not None and single.repeat.reward.judge is not None:
        yield from _check_judge(single, single.repeat.reward.judge)


def _check_judge(single: SingleProgram, judge: JudgeReward) -> Iterator[Problem]:
    member = "bestOfN" if single.module_type is ModuleType.BEST_OF_N else "refine"
    asked, names = (*_SINGLE, "module", member, "reward", "judge"), _names(single.signature.outputs)
    for index, name in enumerate(judge.fields or ()):
        if name not in names:
            why = f'"{name}" is no output of the program (outputs: {", ".join(names)})'
            yield Problem((*asked, "fields", index), why)
    if (mark := placeholder_in(judge.instructions)) is not None:
        why = f"{mark} is filled in by nobody: the judge is shown the inputs and the answer below the rubric"
        yield Problem((*asked, "instructions"), why)


def _added(single: SingleProgram) -> frozenset[str]:
    """ChainOfThought's own is a rule of the schema: `reasoning-is-free`."""
    match single.module_type:
        case ModuleType.MULTI_CHAIN_COMPARISON:
            attempts = (f"reasoning_attempt_{number}" for number in range(1, single.chains + 1))
            return frozenset({"reasoning", "rationale", *attempts})
        case ModuleType.BEST_OF_N | ModuleType.REFINE:
            reasoning = {"reasoning"} if single.thinks else set()
            return frozenset(reasoning | ({HINT} if single.module_type is ModuleType.REFINE else set()))
    return frozenset()


def _names(fields: list[SignatureField]) -> list[str]:
    return [field.name for field in fields]
