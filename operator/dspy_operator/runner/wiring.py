"""How the predictors of a program work together, for `prompts.json`: what a caller without DSPy does with them, step by step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import dspy
from dspy.predict.refine import OfferFeedback, inspect_modules

from dspy_operator.api.metric import Reward
from dspy_operator.api.program import ModuleType, SingleProgram
from dspy_operator.api.promptprogram import SamplingRequest
from dspy_operator.runner.attempts import HINT
from dspy_operator.runner.judge_source import read_fields
from dspy_operator.runner.metrics.judge import Judge
from dspy_operator.runner.module_source import CHAIN, COMPARE, comparison_temperature

HINTED, ADVICE = "hinted", "refine.advice"
"""What Refine asks beside the program's predictor: with its advice, and for it."""
ATTEMPT_TEMPERATURE = "1"
"""Of BestOfN and Refine, whatever the target asks for (dspy/predict/best_of_n.py)."""
_SAMPLED = Decimal("0.15"), "0.7"
"""Up to the first, several answers to one request are asked for at the second (dspy/predict/predict.py)."""

_REWARD = "Regex: 1 where the pattern (RE2) matches anywhere in the output `field`, else 0; what is no text as JSON."
_REWARD_CODE = (
    "Code: what the function of program.py gives for the inputs, as a dict, and the answer; a number from 0 to 1."
)
_REWARD_JUDGE = (
    "Judge: ask a model at temperature 0 the `messages`, and divide the number that the last line of its reply that begins with "
    "`Grade:` ends with by `best`. {shown} is a text for each of `inputs` as asked, then for each of `fields` as answered, an empty "
    'line between two: the line <input name="NAME">, of an answer <answer name="NAME">, the value, what is no text as JSON, and '
    "a line that closes the tag. A reply without a whole number from 0 to `best` there is asked for again, twice at most; an attempt "
    "that then has no reward is a failed one."
)
_FAILURES = (
    "An answer that cannot be read is a failed attempt. Attempts count from 0: one that fails ends the call, without an "
    "answer, where its number is above `failCount` less the failures before it. So does the last one where all failed."
)
_BEST_OF_N = (
    "Ask up to `most` times, as `request` says. The first answer whose reward is at least `threshold` is the result; else the "
    "first of those with the highest reward."
)
_REFINE = (
    "Ask as in BestOfN. After an answer whose reward is below `threshold`, and that is not the last one, ask `advice.predictor` as "
    "the request of this file says, with program_inputs: the inputs; program_trajectory: a list of one object, module_name: "
    "`advice.module`, inputs: what was asked, hint_ included, outputs: what was answered; program_outputs: what was answered; "
    "reward_value: its reward. From then on ask `hinted`, its hint_ being what the last advice says for `advice.module`, or "
    "N/A. An empty advice is none; one that cannot be read leaves the last one and counts as a failed attempt."
)
_COMPARED = (
    "Ask the first predictor `times` times; one answer that cannot be read ends the call, without an answer. Of each answer "
    "`attempt` becomes an input of the second one: in the place of an output's name stands the first line of its stripped "
    "text; what is no text as Python prints it."
)


def steps(
    single: SingleProgram | None, module: Any, request: SamplingRequest
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The wiring, and what its words mean.

    Args:
        single: the program; None where its module asks once.
        module: as it is imported.
        request: how the target samples.
    """
    predictors = {name: _step(name, predictor) for name, predictor in module.named_predictors()}
    if single is not None and single.module_type is ModuleType.MULTI_CHAIN_COMPARISON:
        return _comparison(single, predictors, request), {"times": _COMPARED}
    ((_, step),) = predictors.items()
    if single is None or (repeat := single.repeat) is None:
        return [step], {}
    attempts = {
        "type": single.module_type.value,
        "most": repeat.attempts,
        "reward": _reward(single, repeat.reward, module),
        "threshold": repeat.threshold,
        "failCount": repeat.fail_count or repeat.attempts,
    }
    rules = {
        "attempts": _BEST_OF_N,
        "failures": _FAILURES,
        "reward": {"Regex": _REWARD, "Judge": _REWARD_JUDGE, "Code": _REWARD_CODE}[repeat.reward.type],
    }
    if single.module_type is ModuleType.REFINE:
        name = step["predictor"]
        attempts |= {"hinted": f"{name}.{HINTED}", "advice": {"predictor": ADVICE, "module": _inside(name)}}
        rules["advice"] = _REFINE
    return [{**step, "request": {"temperature": ATTEMPT_TEMPERATURE}, "attempts": attempts}], rules


def hidden(single: SingleProgram, module: Any) -> dict[str, tuple[dspy.Predict, dict[str, str]]]:
    """What Refine asks beside the program's own predictors: name -> (predictor, what it is always asked with).

    Args:
        single: the program.
        module: in its final state.
    """
    if single.module_type is not ModuleType.REFINE:
        return {}
    ((name, own),) = module.named_predictors()
    signature = own.signature.append(HINT, dspy.InputField(desc="A hint to the module from an earlier run"))
    hinted, refine = dspy.Predict(signature), module.refine
    hinted.demos = own.demos
    fixed = {
        "program_code": refine.module_code,
        "modules_defn": inspect_modules(refine.module),
        "reward_code": refine.reward_fn_code,
        "target_threshold": json.dumps(refine.threshold),
        "module_names": json.dumps([_inside(name)], indent=2),
    }
    return {f"{name}.{HINTED}": (hinted, {}), ADVICE: (dspy.Predict(OfferFeedback), fixed)}


def completed(
    single: SingleProgram | None, inputs: Mapping[str, Any], outputs: Mapping[str, Any], thought: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A row with what the program itself gives its predictors where every answer is the expected one.

    Args:
        single: the program; None where its module asks once.
        inputs: of the row.
        outputs: what is expected.
        thought: what stands for the model's reasoning.
    """
    if single is not None and single.module_type is ModuleType.REFINE:
        return {**inputs, HINT: "N/A"}, dict(outputs)
    if single is None or single.module_type is not ModuleType.MULTI_CHAIN_COMPARISON:
        return dict(inputs), dict(outputs)
    last = single.signature.outputs[-1].name
    told = attempt_text(last).replace(f"{{{last}}}", _first_line(outputs.get(last)))
    told = told.replace("{reasoning}", thought)
    attempts = {f"reasoning_attempt_{number + 1}": told for number in range(single.chains)}
    return {**inputs, **attempts}, {"rationale": thought, **outputs}


def attempt_text(last: str) -> str:
    """What MultiChainComparison says of a chain of thought (dspy/predict/multi_chain_comparison.py)."""
    return f"«I'm trying to {{reasoning}} I'm not sure but my prediction is {{{last}}}»"


def _reward(single: SingleProgram, reward: Reward, module: Any) -> dict[str, Any]:
    """As written; of code which function of program.py, of a judge what it is asked."""
    if (judge := reward.judge) is not None:
        fields = read_fields(judge, [field.name for field in single.signature.outputs])
        of = module.predictors()[0].signature.input_fields
        inputs = [
            field.name for field in single.signature.inputs if of[field.name].annotation not in (dspy.Image, dspy.Audio)
        ]
        asked = Judge(rubric=judge.instructions, inputs=(), fields=(), scale=judge.scale or 1).messages({}, {})
        told = {**asked[-1], "content": "{shown}\n\n" + asked[-1]["content"]}
        return {
            "type": reward.type,
            "messages": [*asked[:-1], told],
            "inputs": inputs,
            "fields": fields,
            "best": judge.scale or 1,
        }
    if reward.code is None:
        return reward.document()
    return {"type": reward.type, "function": reward.code.entrypoint.partition(":")[2]}


def _inside(name: str) -> str:
    """A predictor's name in the module that Refine copies."""
    return name.partition(".module.")[2]


def _step(name: str, predictor: Any) -> dict[str, Any]:
    signature = predictor.signature
    inputs = {field: field for field in signature.input_fields}
    return {"predictor": name, "inputs": inputs, "outputs": list(signature.output_fields)}


def _comparison(
    single: SingleProgram, predictors: Mapping[str, dict[str, Any]], request: SamplingRequest
) -> list[dict[str, Any]]:
    m, (most, sampled) = single.chains, _SAMPLED
    asked = request.temperature or "0"
    chain, compare = predictors[f"{CHAIN}.predict"], predictors[f"{COMPARE}.predict"]
    told = {f"reasoning_attempt_{number + 1}": f"{chain['predictor']}[{number}]" for number in range(m)}
    return [
        {**chain, "times": m, "request": {"temperature": asked if Decimal(asked) > most else sampled}},
        {
            **compare,
            "inputs": compare["inputs"] | told,
            "attempt": attempt_text(single.signature.outputs[-1].name),
            "request": {"temperature": f"{comparison_temperature(single):g}"},
        },
    ]


def _first_line(value: Any) -> str:
    return str(value).strip().split("\n")[0].strip()
