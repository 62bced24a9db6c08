"""python conformance.py prompts.json: do messages and answers come out as its vectors say?

All that a caller without DSPy has to write: 30 lines of plain Python and its standard library.
"""
# mypy: ignore-errors

import json
import re
import sys


def messages(templates, fields, values):
    earlier = [
        message
        for name, spec in fields.items()
        if "turn" in spec
        for item in values[name]["messages"]
        for message in messages(spec["turn"], spec["fields"], item)
    ]
    texts = {s["placeholder"]: render(s["render"], values.get(n)) for n, s in fields.items() if "placeholder" in s}
    *before, last = json.loads(
        re.sub(
            "|".join(map(re.escape, texts)) or "(?!)",
            lambda at: json.dumps(texts[at[0]])[1:-1],
            json.dumps(templates),
        )
    )
    return [*before, *earlier, last]


def render(rule, value):
    text = json.dumps(value, ensure_ascii=False, indent=2 if rule == "jsonInside" else None).replace("\n", "\n  ")
    return text if rule == "jsonInside" or isinstance(value, (list, dict)) else str(value)


def sections(header, response):
    _, *parts = re.split(r"(?m)^\s*" + header, "\n".join(response.splitlines()))
    return {name: text.strip() for name, text in zip(parts[-2::-2], parts[::-2], strict=True)}


def read(spec, value):
    known = {str(choice): choice for choice in spec.get("choices", [True, False, None])}
    if spec["parse"] == "text" or not isinstance(value, str):
        return value
    try:
        return known[value] if value in known else json.loads(value, strict=False)
    except ValueError:  # a string in a union
        return value


with open(sys.argv[1], encoding="utf-8") as file:
    document = json.load(file)
for vector in document["vectors"] or []:
    predictor, answer, response = document["predictors"][vector["predictor"]], document["answer"], vector["response"]
    found = json.loads(response) if answer["type"] == "JSON" else sections(answer["header"], response)
    outputs = {name: read(spec, found.get(name)) for name, spec in predictor["outputs"].items()}
    if (
        outputs != vector["outputs"]
        or messages(predictor["messages"], predictor["inputs"], vector["inputs"]) != vector["messages"]
    ):
        sys.exit(f"{vector['inputs']}: other messages or outputs")
