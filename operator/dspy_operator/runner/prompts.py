"""`prompts.json`: what a caller without DSPy needs to send the same messages and read the answers the same way.

Messages come from the adapter itself, formatted with placeholders for inputs, so nothing here repeats DSPy's formats.
tests/integration/conformance.py is the reader: 30 lines of standard library.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

import dspy
from dspy.utils.exceptions import AdapterParseError
from pydantic import TypeAdapter

from dspy_operator.api.promptprogram import Adapter, SamplingRequest

FORMAT = "dspy-operator.io/prompts/v1"
VECTORS = 3
REASONING = "The answer follows from the inputs."
"""What stands for ChainOfThought's reasoning in a vector; rows hold none."""

_RENDER_RULES = {
    "text": "A string, as it is.",
    "scalar": "A number or truth value as Python prints it: 3, 0.5, 1e-05, True, False.",
    "json": "JSON on one line, ', ' between items and ': ' after keys, non-ASCII characters as they are.",
    "byValue": "A string as text; a list or object as json; a number or truth value as scalar; null as None.",
    "placeholders": "All placeholders of a message are replaced in one pass, so that one in a value stays.",
}
_CHAT_RULES = {
    "header": r"\[\[ ## (\w+) ## \]\]",
    "sections": "A line that, stripped, begins with the header opens that section; the rest of the line belongs to it. "
    "Lines are joined by newlines, each section is stripped. The first section of an output counts.",
    "lines": r"A line ends at \n, \r, \r\n, \v, \f, \x1c, \x1d, \x1e, \x85, \u2028 or \u2029.",
}
_JSON_RULES = {
    "object": "The answer is one JSON object; its members named as outputs count.",
    "members": "A member that is a string is read as `parse` says; any other is the value, for type string its text.",
}
_PARSE_RULES = {
    "text": "The string itself.",
    "choice": "The one of `choices` whose text it is (True and False for truth values).",
    "json": "JSON (line ends in its strings are taken), True, False or None; in a union anything else is a string.",
    "missing": "A missing output is null where it is `nullable`; else the answer is unusable.",
}


def prompts_document(
    module: dspy.Module,
    adapter: dspy.Adapter,
    adapter_spec: Adapter | None,
    request: SamplingRequest,
    vectors_rows: Sequence[tuple[Mapping[str, object], Mapping[str, object]]] | None,
) -> dict[str, Any]:
    """The content of `prompts.json`; no model, no URL, nothing random.

    Args:
        module: the program in its final state.
        adapter: what `program.py` calls ADAPTER.
        adapter_spec: what it was made from; None means Chat.
        request: how the target samples.
        vectors_rows: (inputs, outputs) of dev rows in the order of their digests; None where rows must not be exported.
    """
    kind = adapter_spec.type if adapter_spec else "Chat"
    predictors = dict(module.named_predictors())
    ((name, only),) = predictors.items()  # a Single program has one
    inputs, outputs = list(only.signature.input_fields), list(only.signature.output_fields)
    document: dict[str, Any] = {
        "format": FORMAT,
        "wiring": [{"predictor": name, "inputs": {field: field for field in inputs}, "outputs": outputs}],
        "predictors": {name: _predictor(only, adapter)},
        "request": {"temperature": "0", **request.document()},
        "answer": {"type": kind, **(_CHAT_RULES if kind == "Chat" else _JSON_RULES)},
        "rules": {"render": _RENDER_RULES, "parse": _PARSE_RULES},
    }
    if vectors_rows is None:
        return {**document, "vectors": None, "note": "dataset.exportRows is false: no vectors, since they copy rows"}
    vectors = [vector for row in vectors_rows if (vector := _vector(name, only, adapter, *row))][:VECTORS]
    if not vectors:
        return {**document, "vectors": None, "note": "no row labels every output: no vectors"}
    return {**document, "vectors": vectors}


def _predictor(predictor: dspy.Predict, adapter: dspy.Adapter) -> dict[str, Any]:
    signature = predictor.signature
    bare = "".join(
        message["content"] for message in _messages(predictor, adapter, dict.fromkeys(signature.input_fields, ""))
    )
    placeholders = {name: _placeholder(name, bare) for name in signature.input_fields}
    response_format = getattr(adapter, "response_format", None)  # of the class in program.py that sends one
    return {
        "messages": _messages(predictor, adapter, placeholders),
        "inputs": {
            name: {
                **_type(field.annotation),
                "placeholder": placeholders[name],
                "render": _render_rule(field.annotation),
            }
            for name, field in signature.input_fields.items()
        },
        "outputs": {
            name: {**_type(field.annotation), **_parse_rule(field.annotation)}
            for name, field in signature.output_fields.items()
        },
        "responseFormat": response_format(signature) if response_format else None,
    }


def _messages(predictor: dspy.Predict, adapter: dspy.Adapter, inputs: Mapping[str, object]) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = adapter.format(predictor.signature, predictor.demos, dict(inputs))
    return messages


def _placeholder(name: str, messages: str) -> str:
    """`{{name}}`, made longer until the messages hold none by chance."""
    inside = name
    while f"{{{{{inside}}}}}" in messages:
        inside += "_"
    return f"{{{{{inside}}}}}"


def _vector(
    name: str,
    predictor: dspy.Predict,
    adapter: dspy.Adapter,
    inputs: Mapping[str, object],
    outputs: Mapping[str, object],
) -> dict[str, Any] | None:
    """One conformance vector, made without a model; None for a row that cannot be one."""
    signature = predictor.signature
    gold = {"reasoning": REASONING, **outputs}
    if any(field not in gold for field in signature.output_fields):
        return None
    messages = _messages(predictor, adapter, {field: inputs.get(field) for field in signature.input_fields})
    if not all(isinstance(message["content"], str) for message in messages):
        return None  # the row holds DSPy's marker of custom types, which splits a message into parts
    response = adapter.format_assistant_message_content(signature, gold)
    try:
        parsed = adapter.parse(signature, response)
    except AdapterParseError:
        return None  # a text that looks like a header, say: the model could not give this answer either
    return {
        "predictor": name,
        "inputs": {field: inputs.get(field) for field in signature.input_fields},
        "messages": messages,
        "response": response,
        "outputs": {field: parsed[field] for field in signature.output_fields},
    }


def _type(annotation: Any) -> dict[str, Any]:
    return {"schema": TypeAdapter(annotation).json_schema()}


def _render_rule(annotation: Any) -> str:
    if annotation is str or (get_origin(annotation) is Literal and isinstance(get_args(annotation)[0], str)):
        return "text"
    if annotation in (int, float, bool) or get_origin(annotation) is Literal:
        return "scalar"
    return "byValue" if _is_union(annotation) else "json"


def _parse_rule(annotation: Any) -> dict[str, Any]:
    members = get_args(annotation) if _is_union(annotation) else ()
    nullable = type(None) in members
    if get_origin(annotation) is Literal:
        return {"parse": "choice", "choices": list(get_args(annotation)), "nullable": False}
    # DSPy gives the text of a nullable union with str as it is: "None" stays a string, "5" too.
    as_text = annotation is str or (nullable and str in members)
    return {"parse": "text" if as_text else "json", "nullable": nullable}


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)
