"""python conformance.py prompts.json: do messages and answers come out as its vectors say?

All that a caller without DSPy has to write: a page of plain Python and its standard library, half of it for XML.
"""
# mypy: ignore-errors

import json
import re
import sys
import xml.etree.ElementTree as ET
from xml.sax.saxutils import quoteattr


def messages(templates, fields, values):
    earlier = [
        message
        for name, spec in fields.items()
        if "turn" in spec
        for item in values[name]["messages"]
        for message in messages(spec["turn"], spec["fields"], item)
    ]
    texts = {
        s["placeholder"]: render(s["render"], values.get(n), n) for n, s in fields.items() if "placeholder" in s
    } | {s["formatPlaceholder"]: re.split("[/;]", values[n])[1] for n, s in fields.items() if "formatPlaceholder" in s}
    *before, last = json.loads(
        re.sub(
            "|".join(map(re.escape, texts)) or "(?!)",
            lambda at: json.dumps(texts[at[0]])[1:-1],
            json.dumps(templates),
        )
    )
    return [*before, *earlier, last]


def render(rule, value, name):
    if rule == "xmlText" or (rule == "xml" and isinstance(value, (list, dict))):
        return escaped(value) if rule == "xmlText" else element(name, value)
    if rule == "xml":
        return f"<{name}>\n{value}\n</{name}>"
    text = json.dumps(value, ensure_ascii=False, indent=2 if rule in ("jsonInside", "jsonIndented") else None)
    text = text.replace("\n", "\n  ") if rule == "jsonInside" else text
    return (
        text
        if rule == "jsonInside" or isinstance(value, (list, dict))
        else str(value).partition(",")[2]
        if rule == "audio"
        else str(value)
    )


def escaped(value):
    return str(value).replace("&", "&amp;").replace("<", "&lt;")


def element(tag, value, attribute=""):
    if value is None or value == []:
        return f"<{tag}{attribute} />"
    parts = [("item", item) for item in value] if isinstance(value, list) else []
    if isinstance(value, dict):
        plain = {key: (key[:1] + re.sub("[-.]", "_", key[1:])).isidentifier() for key in value}
        parts = [(k, v) if plain[k] else ("entry", v, f" key={quoteattr(k)}") for k, v in value.items()]
    inside = "".join(element(*part) for part in parts) if isinstance(value, (list, dict)) else escaped(value)
    return f"<{tag}{attribute}>{inside}</{tag}>"


def tree(node, schema, defs):
    schema, text, inside = defs.get(schema.get("$ref", "")[8:], schema), (node.text or "").strip(), list(node)
    if "anyOf" in schema:
        kinds = [kind for kind in schema["anyOf"] if kind != {"type": "null"}]
        return tree(node, kinds[0], defs) if inside or text or kinds == schema["anyOf"] else None
    if schema.get("type") == "array":
        return [tree(item, schema["items"], defs) for item in inside]
    if schema.get("type") == "object":
        kinds, other = schema.get("properties", {}), schema.get("additionalProperties")
        return {
            name: tree(child, kinds.get(name, other), defs)
            for child in inside
            for name in [child.get("key", child.tag)]
        }
    if inside and schema.get("type") == "string":
        return (node.text or "") + "".join(ET.tostring(child, encoding="unicode") for child in inside)
    return text if schema.get("type") == "string" else read({"parse": "json"}, text)


def elements(outputs, response):
    schemas = {name: spec["schema"] for name, spec in outputs.items()}
    root = ET.fromstring(f"<root>{response}</root>")
    return {e.tag: tree(e, schemas[e.tag], schemas[e.tag].get("$defs", {})) for e in root if e.tag in schemas}


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


def outputs(document, predictor, response):
    answer = document["answer"]
    if answer["type"] == "XML":
        found = elements(predictor["outputs"], response)
    else:
        found = json.loads(response) if answer["type"] == "JSON" else sections(answer["header"], response)
    return {name: read(spec, found.get(name)) for name, spec in predictor["outputs"].items()}


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        document = json.load(file)
    for vector in document["vectors"] or []:
        predictor = document["predictors"][vector["predictor"]]
        if (
            outputs(document, predictor, vector["response"]) != vector["outputs"]
            or messages(predictor["messages"], predictor["inputs"], vector["inputs"]) != vector["messages"]
        ):
            sys.exit(f"{vector['inputs']}: other messages or outputs")
