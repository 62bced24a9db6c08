"""python conformance.py prompts.json: do messages and answers come out as its vectors say?

All that a caller without DSPy has to write: 30 lines of plain Python and its standard library.
"""
# mypy: ignore-errors

import json
import re
import sys


def messages(predictor, inputs):
    values = {spec["placeholder"]: render(inputs[name]) for name, spec in predictor["inputs"].items()}
    pattern = "|".join(map(re.escape, values))
    return [{**m, "content": re.sub(pattern, lambda at: values[at[0]], m["content"])} for m in predictor["messages"]]


def render(value):
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else str(value)


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
    if outputs != vector["outputs"] or messages(predictor, vector["inputs"]) != vector["messages"]:
        sys.exit(f"{vector['inputs']}: other messages or outputs")
