"""Revision REVISION as plain Python, standard library only; made by `dspy-operator export`.

Run as a program it checks itself against the revision's own vectors. As a module:

    body = exported.body("my-model", text="A warm film.")     # POST it to .../v1/chat/completions
    exported.outputs(reply["choices"][0]["message"]["content"])
"""

import json
import re
import sys
import xml.etree.ElementTree as ET
from typing import Any

PROMPT: dict[str, Any] = {}

SENT_AS = {"temperature": "temperature", "topP": "top_p", "maxTokens": "max_tokens", "stop": "stop"}


def messages(**inputs: Any) -> list[dict[str, Any]]:
    """The messages with the inputs filled in: strings, numbers, lists and objects as they are."""
    if wrong := set(inputs) ^ set(PROMPT["inputs"]):
        raise TypeError(f"inputs are {', '.join(PROMPT['inputs'])}; missing or unknown: {', '.join(sorted(wrong))}")
    values = {spec["placeholder"]: rendered(inputs[name]) for name, spec in PROMPT["inputs"].items()}
    holes = "|".join(map(re.escape, values))
    return [{**m, "content": re.sub(holes, lambda at: values[at[0]], m["content"])} for m in PROMPT["messages"]]


def body(model: str, **inputs: Any) -> dict[str, Any]:
    """The body of a request to an OpenAI-compatible /chat/completions."""
    request = {SENT_AS[k]: float(v) if isinstance(v, str) else v for k, v in PROMPT["request"].items()}
    form = {"response_format": PROMPT["responseFormat"]} if PROMPT["responseFormat"] else {}
    return {"model": model, "messages": messages(**inputs), **request, **form}


def outputs(answer: str) -> dict[str, Any]:
    """What the model's text says. Raises ValueError where it cannot be read."""
    if PROMPT["answer"]["type"] == "JSON":
        found = json.loads(answer)
    elif PROMPT["answer"]["type"] == "XML":
        found = _elements(answer)
    else:
        _, *parts = re.split(r"(?m)^\s*" + PROMPT["answer"]["header"], "\n".join(answer.splitlines()))
        found = {name: text.strip() for name, text in zip(parts[-2::-2], parts[::-2], strict=True)}
    return {name: _read(name, spec, found.get(name)) for name, spec in PROMPT["outputs"].items()}


def rendered(value: Any) -> str:
    """An input as the messages hold it."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else str(value)


def _elements(answer: str) -> dict[str, Any]:
    schemas = {name: spec["schema"] for name, spec in PROMPT["outputs"].items()}
    try:
        root = ET.fromstring(f"<root>{answer}</root>")
    except ET.ParseError as error:
        raise ValueError(f"the answer is no XML: {error}") from error
    return {e.tag: _inside(e, schemas[e.tag], schemas[e.tag].get("$defs", {})) for e in root if e.tag in schemas}


def _inside(node: ET.Element, schema: dict[str, Any], defs: dict[str, Any]) -> Any:
    schema, text, children = defs.get(schema.get("$ref", "")[8:], schema), (node.text or "").strip(), list(node)
    if "anyOf" in schema:
        kinds = [kind for kind in schema["anyOf"] if kind != {"type": "null"}]
        return _inside(node, kinds[0], defs) if children or text or kinds == schema["anyOf"] else None
    if schema.get("type") == "array":
        return [_inside(item, schema["items"], defs) for item in children]
    if schema.get("type") == "object":
        members, other = schema.get("properties", {}), schema.get("additionalProperties")
        named = {child.get("key", child.tag): child for child in children}
        return {name: _inside(child, members.get(name, other), defs) for name, child in named.items()}
    if schema.get("type") == "string":
        return "".join([node.text or "", *(ET.tostring(c, encoding="unicode") for c in node)]) if children else text
    try:
        return {"True": True, "False": False}[text] if text in ("True", "False") else json.loads(text)
    except ValueError:
        return text


def _read(name: str, spec: dict[str, Any], value: Any) -> Any:
    if value is None and not spec["nullable"]:
        raise ValueError(f"the answer has no {name}")
    if spec["parse"] == "text" or not isinstance(value, str):
        return value
    known = {str(choice): choice for choice in spec.get("choices", [True, False, None])}
    if value in known:
        return known[value]
    if spec["parse"] == "choice":
        raise ValueError(f"{name} is {value!r}, none of {', '.join(known)}")
    try:
        return json.loads(value, strict=False)
    except ValueError:
        if "anyOf" in spec["schema"] or spec["parse"] == "moment":  # a string in a union, or a date
            return value
        raise


if __name__ == "__main__":
    for vector in PROMPT["vectors"] or []:
        if messages(**vector["inputs"]) != vector["messages"] or outputs(vector["response"]) != vector["outputs"]:
            sys.exit(f"{vector['inputs']}: other messages or outputs")
    sys.stdout.write(f"{len(PROMPT['vectors'] or [])} vectors agree\n")
