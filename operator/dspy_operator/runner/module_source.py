"""The module of a Single program as source: the classes between its signature and ADAPTER in `program.py`.

BestOfN and Refine are copied for each call: DSPy counts failures down on the object, and calls in other threads, or of other
rows, would share the count (docs/decisions/014-attempts.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dspy_operator.api.metric import RegexMetric, Reward
from dspy_operator.api.program import ModuleType, RepeatOptions, SingleProgram
from dspy_operator.api.signature_types import MEDIA, Choice, Scalar, TypeExpr, python_string
from dspy_operator.runner.judge_source import judge_blocks
from dspy_operator.runner.layout import WIDTH, call, indented
from dspy_operator.runner.own_source import OwnText
from dspy_operator.runner.react_source import react_module

ATTEMPTS = {ModuleType.BEST_OF_N: "best_of_n", ModuleType.REFINE: "refine"}
CHAIN, COMPARE = "chain", "compare"
"""What a program calls its parts; their predictors are named after them."""


@dataclass(frozen=True)
class Needs:
    """What the module's source imports beside DSPy."""

    reward: bool = False
    """google-re2, and typing's Any."""
    jsonable: bool = False
    """pydantic_core's to_jsonable_python."""
    judge: bool = False
    """`re`, and both of them but google-re2."""


def needs(single: SingleProgram | None, types: Mapping[str, TypeExpr]) -> Needs:
    """What the program's module needs.

    Args:
        single: the program, where it is one signature.
        types: of the signature's fields.
    """
    if single is None or single.repeat is None or single.repeat.reward.code is not None:
        return Needs()
    if single.repeat.reward.regex is None:
        return Needs(judge=True, jsonable=True)
    return Needs(reward=True, jsonable=not _is_text(types[single.repeat.reward.regex.field]))


def module_blocks(
    single: SingleProgram,
    title: str,
    inputs: list[str],
    types: Mapping[str, TypeExpr],
    reward: OwnText | None = None,
) -> list[str]:
    """The classes and functions of the program; the last one is `class Program`.

    Args:
        single: the program.
        title: what its signature's class is called.
        inputs: parameters of forward().
        types: of the signature's fields.
        reward: a reward of somebody's own.
    """
    names = [field.name for field in single.signature.inputs]
    if single.repeat is not None:
        return [
            _asks("Attempt", f"self.predict = dspy.{single.repeat.module or 'Predict'}({title})", inputs, names),
            *([reward.text] if reward is not None else _reward(single, single.repeat.reward, types)),
            _attempts(single, single.repeat, inputs, names, reward.function if reward is not None else "reward"),
        ]
    if single.module_type is ModuleType.MULTI_CHAIN_COMPARISON:
        return [_comparison(single, title, inputs, names)]
    if single.module is not None and single.module.react is not None:
        result = call("return self.predict(", [f"{name}={name}" for name in names], ")", 8)
        return [_class("Program", react_module(title, single.module.react), inputs, result)]
    return [_asks("Program", f"self.predict = dspy.{single.module_type.value}({title})", inputs, names)]


def _asks(name: str, member: str, inputs: list[str], names: list[str]) -> str:
    result = call("return self.predict(", [f"{name}={name}" for name in names], ")", 8)
    return _class(name, [member], inputs, result)


def _class(name: str, members: list[str], inputs: list[str], result: str) -> str:
    """A dspy.Module with a forward()."""
    forward = call("def forward(", ["self", "*", *inputs], ") -> dspy.Prediction:", 4)
    made = ["def __init__(self) -> None:", "    super().__init__()", *map(indented, members)]
    lines = [*made, "", forward, indented(result)]
    return f"class {name}(dspy.Module):\n" + indented("\n".join(lines))


def _attempts(single: SingleProgram, repeat: RepeatOptions, inputs: list[str], names: list[str], reward: str) -> str:
    member = ATTEMPTS[single.module_type]
    arguments = ["Attempt()", f"N={repeat.attempts}", f"reward_fn={reward}", f"threshold={float(repeat.threshold)}"]
    arguments += [f"fail_count={repeat.fail_count}"] if repeat.fail_count is not None else []
    return _class(
        "Program",
        [f"self.{member} = dspy.{single.module_type.value}({', '.join(arguments)})"],
        inputs,
        "# A copy for each call: DSPy counts failures down on the object, which rows and threads would share.\n"
        + call(f"return self.{member}.deepcopy()(", [f"{name}={name}" for name in names], ")", 8),
    )


def _comparison(single: SingleProgram, title: str, inputs: list[str], names: list[str]) -> str:
    m, temperature = single.chains, comparison_temperature(single)
    passed = [f"{name}={name}" for name in names]
    asked = call(f"self.{CHAIN}(", passed, ").completions", 13)  # its comma, and two steps more, where it is broken
    return _class(
        "Program",
        [
            f"self.{CHAIN} = dspy.ChainOfThought({title}, n={m})",
            f"self.{COMPARE} = dspy.MultiChainComparison({title}, M={m}, temperature={temperature})",
        ],
        inputs,
        call(f"return self.{COMPARE}(", [asked, *passed], ")", 8),
    )


def comparison_temperature(single: SingleProgram) -> float:
    """Of a MultiChainComparison, with the default applied."""
    options = single.module.multi_chain_comparison if single.module is not None else None
    return float(options.temperature) if options is not None and options.temperature is not None else 0.7


def _reward(single: SingleProgram, reward: Reward, types: Mapping[str, TypeExpr]) -> list[str]:
    if reward.judge is not None:
        # As the metric Judge it is shown neither images nor sounds.
        inputs = [field.name for field in single.signature.inputs if not isinstance(types[field.name], MEDIA)]
        return judge_blocks(reward.judge, inputs, [field.name for field in single.signature.outputs])
    assert reward.regex is not None  # code is text that is there
    return [_matches(reward.regex, types)]


def _matches(regex: RegexMetric, types: Mapping[str, TypeExpr]) -> str:
    """RE2 as in the metric Regex: Python's `re` reads some patterns otherwise, and can take for ever."""
    value = f'prediction["{regex.field}"]'
    if _is_text(types[regex.field]):
        text = [f"text = {value}"]
    else:
        text = [f"value = to_jsonable_python({value})"]
        text += ["text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)"]
    lines = [
        f'"""1.0 where {regex.field} matches the pattern, else 0.0."""',
        *_pattern(python_string(regex.pattern)),
        *text,
        'return float(re2.search(pattern, text.encode("utf-8", "replace")) is not None)',
    ]
    head = "def reward(inputs: dict[str, Any], prediction: dspy.Prediction) -> float:\n"
    return head + indented("\n".join(lines))


def _pattern(literal: str) -> list[str]:
    opening = "pattern = "
    if len(opening) + len(literal) + 4 > WIDTH >= len(literal) + 8:
        return [f"{opening}(", f"    {literal}", ")"]
    return [f"{opening}{literal}"]


def _is_text(type_: TypeExpr) -> bool:
    match type_:
        case Scalar(name):
            return name == "str"
        case Choice(values):
            return all(isinstance(value, str) for value in values)
    return False
