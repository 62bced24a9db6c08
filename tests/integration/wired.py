"""A caller without DSPy for programs that ask more than once: what `wiring` in prompts.json says, and no more than that."""
# mypy: ignore-errors

import json
from typing import Any

import re2

from tests.integration.conformance import messages, outputs


class Unreadable(Exception):
    """An answer that lacks an output."""


def called(document: Any, inputs: Any, ask: Any) -> Any:
    """The program's outputs, None where it has none; `ask(messages, temperature)` gives a model's answer."""
    first, *others = document["wiring"]
    if "attempts" in first:
        return attempted(document, first, inputs, ask)
    (compare,) = others
    chains = [answered(document, first, inputs, ask) for _ in range(first["times"])]
    told = {}
    for name, source in compare["inputs"].items():
        if source not in inputs:
            said = chains[int(source.removeprefix(f"{first['predictor']}[")[:-1])]
            told[name] = compare["attempt"]
            for output, value in said.items():
                told[name] = told[name].replace(f"{{{output}}}", str(value).strip().split("\n")[0].strip())
    return answered(document, compare, {**inputs, **told}, ask)


def attempted(document, step, inputs, ask):
    plan, left, best, advice = step["attempts"], step["attempts"]["failCount"], None, None
    for number in range(plan["most"]):
        try:
            predictor, asked = step["predictor"], dict(inputs)
            if advice:
                predictor, asked["hint_"] = plan["hinted"], advice.get(plan["advice"]["module"], "N/A")
            found = answered(document, step | {"predictor": predictor}, asked, ask)
            reward = rewarded(plan["reward"], inputs, found, ask)
            if best is None or reward > best[0]:
                best = reward, found
            if reward >= float(plan["threshold"]) or number == plan["most"] - 1:
                break
            if "advice" in plan:
                trajectory = {"module_name": plan["advice"]["module"], "inputs": asked, "outputs": found}
                values = {"program_inputs": inputs, "program_trajectory": [trajectory], "program_outputs": found}
                said = answered(document, {**plan["advice"]}, {**values, "reward_value": reward}, ask)
                advice = said["advice"]
        except Unreadable:
            if number > left:
                raise
            left -= 1
    return best and best[1]


def rewarded(reward, inputs, found, ask):
    if reward["type"] == "Judge":
        return graded(reward, inputs, found, ask)
    value = found[reward["regex"]["field"]]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return float(re2.search(reward["regex"]["pattern"], text) is not None)


def graded(reward, inputs, found, ask):
    given = [("input", name, inputs[name]) for name in reward["inputs"]]
    given += [("answer", name, found[name]) for name in reward["fields"]]
    texts = [(kind, name, v if isinstance(v, str) else json.dumps(v, ensure_ascii=False)) for kind, name, v in given]
    shown = "\n\n".join(f'<{kind} name="{name}">\n{text}\n</{kind}>' for kind, name, text in texts)
    asked = [{**each, "content": each["content"].replace("{shown}", shown)} for each in reward["messages"]]
    return int(ask(asked, 0.0).rpartition("Grade:")[2].strip(" *")) / reward["best"]


def answered(document, step, inputs, ask):
    predictor = document["predictors"][step["predictor"]]
    request = document["request"] | step.get("request", {})
    text = ask(messages(predictor["messages"], predictor["inputs"], inputs), float(request["temperature"]))
    try:
        found = outputs(document, predictor, text)
    except ValueError:
        raise Unreadable(text) from None
    if any(found[name] is None and not spec["nullable"] for name, spec in predictor["outputs"].items()):
        raise Unreadable(text)
    return found
