"""`prompts.json`: what a caller without DSPy needs to send the same messages and read the answers the same way.

Messages come from the adapter itself, formatted with placeholders for inputs, so nothing here repeats DSPy's formats.
tests/integration/conformance.py is the reader: a page of standard library.
"""

from __future__ import annotations

import json
import types
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, Literal, Union, get_args, get_origin

import dspy
from dspy.adapters.types.base_type import CUSTOM_TYPE_START_IDENTIFIER
from dspy.predict.refine import OfferFeedback
from dspy.utils.exceptions import AdapterParseError
from pydantic import TypeAdapter

from dspy_operator.api.graph import Graph
from dspy_operator.api.program import SingleProgram
from dspy_operator.api.promptprogram import Adapter, SamplingRequest
from dspy_operator.runner import graph_prompts
from dspy_operator.runner.mcp import Tools as Listings
from dspy_operator.runner.react_prompts import react_stand_ins, react_wiring
from dspy_operator.runner.values import for_dspy, plain
from dspy_operator.runner.wiring import completed, hidden, steps

FORMAT = "dspy-operator.io/prompts/v1"
VECTORS = 3
VECTOR_CHARACTERS = 32_000
"""Most of an image or a sound in a vector: a revision has to fit into a ConfigMap."""
REASONING = "The answer follows from the inputs."
"""What stands for the reasoning of a ChainOfThought, or of a comparison, in a vector; rows hold none."""

_RENDER_RULES = {
    "text": "A string, as it is.",
    "scalar": "A number or truth value as Python prints it: 3, 0.5, 1e-05, True, False.",
    "json": "JSON on one line, ', ' between items and ': ' after keys, non-ASCII characters as they are.",
    "byValue": "A string as text; a list or object as json; a number or truth value as scalar; null as None.",
    "placeholders": "All placeholders of a message are replaced in one pass, so that one in a value stays.",
}
_IMAGE_RULE = "The URL, as it is, where the placeholder stands: in the url of a part of the content."
_AUDIO_RULES = {
    "audio": "What follows the comma of the data URI, where the placeholder stands: in the data of a part of the content.",
    "audioFormat": "What stands between `audio/` and `;` of the data URI, wav or mp3, where formatPlaceholder stands: in the format of that part.",
}
_INDENTED_RULE = (
    "JSON indented by 2, non-ASCII characters as they are; a date is ISO 8601 text, an object of a named type or an image is the "
    'text "<non-serializable: TYPE>", TYPE being its name or Image.'
)
_ADVICE: dict[str, dict[str, Any]] = {
    "program_inputs": {"type": "object"},
    "program_trajectory": {"type": "array", "items": {"type": "object"}},
    "program_outputs": {"type": "object"},
}
"""What Refine asks for advice with: the inputs that are values."""
_HISTORY_RULES = {
    "turn": "For each item of the input's `messages` the messages of `turn`, filled with that item, stand before the last "
    "message. What an item lacks is null.",
    "jsonInside": "JSON indented by 2, without ASCII escapes; the lines after its first by 2 more.",
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
_XML_RULES = {
    "element": "Put inside one root element, the answer is XML; a child of the root named as an output is that output. "
    "What is not well-formed is unusable.",
    "members": "By the output's `schema`, references followed: of an array each `item` inside is an item, of an object each "
    "element inside is the member of its name, an `entry` that of its attribute `key`; what is empty and may be null is null; "
    "any other is the text inside, stripped, of integer, number and boolean read as json says.",
    "text": "A text is then read as `parse` says. That of type string with elements inside is all inside, as it stands.",
}
_XML_RENDER_RULES = {
    "xmlText": "As text, & as &amp; and < as &lt;.",
    "xml": "A list or object as an element named as the field: of a list each item as an element `item`, of an object each "
    "member as an element of its name (where it is no Python identifier, also with '-' and '.' after its first character as '_': "
    "an element `entry` with its name as attribute `key`), other values as scalar with & as &amp; and < as &lt;, null and an "
    "empty list as an element closed by ' />'. Any other value as a text between the element's tags on lines of their own.",
}
_ANSWERS = {"Chat": _CHAT_RULES, "XML": _XML_RULES}
"""By adapter; BAML and JSON are read alike."""
_PARSE_RULES = {
    "text": "The string itself.",
    "choice": "The one of `choices` whose text it is (True and False for truth values).",
    "json": "JSON (line ends in its strings are taken), True, False or None; in a union anything else is a string.",
    "missing": "A missing output is null where it is `nullable`; else the answer is unusable.",
}

_MOMENT_RULE = "As json says; what is neither JSON nor None is the string itself: an ISO 8601 date or time."


def prompts_document(
    module: dspy.Module,
    adapter: dspy.Adapter,
    adapter_spec: Adapter | None,
    request: SamplingRequest,
    vectors_rows: Sequence[tuple[Mapping[str, object], Mapping[str, object]]] | None,
    graph: Graph | None = None,
    single: SingleProgram | None = None,
    headers: Mapping[str, Sequence[str]] | None = None,
    listed: Listings | None = None,
) -> dict[str, Any]:
    """The content of `prompts.json`; no model, no URL, nothing random.

    Args:
        module: the program in its final state.
        adapter: what `program.py` calls ADAPTER.
        adapter_spec: what it was made from; None means Chat.
        request: how the target samples.
        vectors_rows: (inputs, outputs) of dev rows in the order of their digests; None where rows must not be exported.
        graph: what a program of type Graph means.
        single: a program of type Single; None where its module asks once, with one predictor.
        headers: tool or node -> names of the headers that it wants.
        listed: MCP server -> its tools.
    """
    kind = adapter_spec.type if adapter_spec else "Chat"
    tools = single.tools if single is not None else ()
    wiring, rules = steps(single, module, request) if graph is None and not tools else ([], {})
    asked: dict[str, tuple[dspy.Predict, dict[str, str]]] = {
        name: (predictor, {}) for name, predictor in module.named_predictors()
    }
    asked |= hidden(single, module) if single is not None else {}
    wiring += [react_wiring(module.predict, adapter, list(asked), tools, headers or {}, listed or {})] if tools else []
    document: dict[str, Any] = {
        "format": FORMAT,
        **({"wiring": wiring} if graph is None else graph_prompts.wiring(graph, list(asked), headers or {})),
        "predictors": {name: _predictor(predictor, adapter, fixed) for name, (predictor, fixed) in asked.items()},
        "request": {"temperature": "0", **request.document()},
        "answer": {"type": kind, **_ANSWERS[kind]} if kind in _ANSWERS else {"type": "JSON", **_JSON_RULES},
        "rules": _rules([predictor for predictor, _ in asked.values()], adapter)
        | (graph_prompts.rules(graph, headers or {}) if graph is not None else {"wiring": rules} if rules else {}),
    }
    if vectors_rows is None:
        return {**document, "vectors": None, "note": "dataset.exportRows is false: no vectors, since they copy rows"}
    if graph is not None:
        return {**document, **graph_prompts.walked(module, graph, vectors_rows, step_answers(adapter))}
    given, told = react_stand_ins(adapter) if tools else ({}, {})
    vectors = []
    for name, (predictor, _) in asked.items():
        whole = (completed(single, *row, REASONING) for row in vectors_rows)
        rows = (({**inputs, **given}, {**told, **outputs}) for inputs, outputs in whole)
        made = [vector for row in rows if (vector := _vector(name, predictor, adapter, *row))]
        vectors += made[:VECTORS]
    if not vectors:
        return {**document, "vectors": None, "note": "no row labels every output: no vectors"}
    return {**document, "vectors": vectors}


def code_document(request: SamplingRequest) -> dict[str, Any]:
    """The content of `prompts.json` of a program that is code: nothing but its code says what is asked, in which order."""
    return {
        "format": FORMAT,
        "wiring": [],
        "predictors": {},
        "request": {"temperature": "0", **request.document()},
        "vectors": None,
        "note": "a program of type Code: only its program.py says what is asked; it runs with DSPy",
    }


def step_answers(adapter: dspy.Adapter) -> graph_prompts.Answer:
    """For a walk through a graph: a step's vector, and what the adapter reads out of its answer."""

    def answer(
        name: str, predictor: dspy.Predict, inputs: Mapping[str, object], outputs: Mapping[str, object]
    ) -> tuple[dict[str, Any], dict[str, Any]] | None:
        if (vector := _vector(name, predictor, adapter, inputs, outputs)) is None:
            return None
        return vector, adapter.parse(predictor.signature, vector["response"])

    return answer


def _rules(predictors: Sequence[dspy.Predict], adapter: dspy.Adapter) -> dict[str, dict[str, str]]:
    """How values are written and read; of rare types only where a signature has one."""
    inputs = [field.annotation for each in predictors for field in each.signature.input_fields.values()]
    outputs = [field.annotation for each in predictors for field in each.signature.output_fields.values()]
    render, parse = dict(_RENDER_RULES), dict(_PARSE_RULES)
    if dspy.Image in inputs:
        render["image"] = _IMAGE_RULE
    if dspy.Audio in inputs:
        render |= _AUDIO_RULES
    if dspy.History in inputs:
        render |= _HISTORY_RULES | (_XML_RENDER_RULES if isinstance(adapter, dspy.XMLAdapter) else {})
    if any(predictor.signature is OfferFeedback for predictor in predictors):
        render["jsonIndented"] = _INDENTED_RULE
    if any(map(_is_moment, outputs)):
        parse["moment"] = _MOMENT_RULE
    return {"render": render, "parse": parse}


def _predictor(predictor: dspy.Predict, adapter: dspy.Adapter, fixed: Mapping[str, str]) -> dict[str, Any]:
    """A predictor's messages with placeholders for its inputs, but for those that are always the same."""
    signature = predictor.signature
    history = next((name for name, field in signature.input_fields.items() if field.annotation is dspy.History), None)
    fields = dict(signature.input_fields if history is None else signature.fields)
    for name in (history, *fixed):
        fields.pop(name, None)
    empty: dict[str, Any] = dict(fixed) | {name: _stand_in(field.annotation, "") for name, field in fields.items()}
    turns: Any = {} if history is None else {history: {"messages": [empty]}}
    bare = "".join(_text(message["content"]) for message in _messages(predictor, adapter, empty | turns))
    placeholders = {name: _placeholder(name, bare) for name in fields}
    given = {name: _stand_in(field.annotation, placeholders[name]) for name, field in fields.items()}
    placeholders |= {name: given[name] for name, field in fields.items() if field.annotation is dspy.Image}
    if history is not None:
        turns = {history: {"messages": [given]}}
    messages = _messages(predictor, adapter, dict(fixed) | given | turns)
    response_format = getattr(adapter, "response_format", None)  # of the class in program.py that sends one
    inputs: dict[str, Any] = {
        name: _type(field.annotation) | _filled(field.annotation, placeholders[name], _render_rule(field.annotation))
        for name, field in signature.input_fields.items()
        if name in placeholders
    }
    if signature is OfferFeedback:  # DSPy writes its texts from values
        for name, schema in _ADVICE.items():
            inputs[name] |= {"schema": schema, "render": "jsonIndented"}
    if history is not None:
        inputs[history] = _history(signature, history, placeholders, messages[-3:-1], adapter)
    return {
        "messages": messages if history is None else [*messages[:-3], messages[-1]],
        "inputs": {name: inputs[name] for name in signature.input_fields if name in inputs},
        "outputs": {
            name: {**_type(field.annotation), **_parse_rule(field.annotation)}
            for name, field in signature.output_fields.items()
        },
        "responseFormat": response_format(signature) if response_format else None,
    }


def _history(
    signature: Any, name: str, placeholders: Mapping[str, str], turn: list[dict[str, Any]], adapter: dspy.Adapter
) -> dict[str, Any]:
    """An input that becomes earlier messages: one turn of them, with placeholders for the fields of an item."""
    rules = {field: _render_rule(signature.fields[field].annotation) for field in placeholders}
    asked, answered = turn
    if isinstance(adapter, dspy.JSONAdapter):
        # The answer of a turn is one JSON object, in which a value stands without further quotes.
        for field in signature.output_fields:
            quoted = json.dumps(placeholders[field], ensure_ascii=False)
            answered = answered | {"content": answered["content"].replace(quoted, placeholders[field])}
            rules[field] = "jsonInside"
    if isinstance(adapter, dspy.XMLAdapter):
        for field, info in signature.output_fields.items():
            text = placeholders[field]
            if adapter._uses_nested_xml(info.annotation):
                # The element that DSPy makes of a list or object has no line ends around what is inside.
                element = f"<{field}>\n{text}\n</{field}>"
                answered = answered | {"content": answered["content"].replace(element, text)}
                rules[field] = "xml"
            elif info.annotation is str:
                rules[field] = "xmlText"
    return {
        **_type(signature.fields[name].annotation),
        "render": "turn",
        "turn": [asked, answered],
        "fields": {
            field: _filled(signature.fields[field].annotation, text, rules[field])
            for field, text in placeholders.items()
        },
    }


def _messages(predictor: dspy.Predict, adapter: dspy.Adapter, inputs: Mapping[str, object]) -> list[dict[str, Any]]:
    typed = for_dspy(predictor.signature.input_fields, inputs)
    messages: list[dict[str, Any]] = adapter.format(predictor.signature, predictor.demos, typed)
    return messages


def _text(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def _stand_in(annotation: Any, text: str) -> str:
    """The text, as what DSPy takes for a value: of an image only a URL, of a sound only a data URI."""
    if annotation is dspy.Audio:
        return f"data:audio/{_format_of(text) or 'wav'};base64,{text}"
    return f"data:{text}" if annotation is dspy.Image else text


def _format_of(placeholder: str) -> str:
    """The placeholder of a sound's format beside its own; no field can have the name."""
    return placeholder.replace("}}", ".format}}")


def _filled(annotation: Any, placeholder: str, rule: str) -> dict[str, str]:
    """What takes an input's place, and how it is written there."""
    written = {"placeholder": placeholder, "render": rule}
    return written | ({"formatPlaceholder": _format_of(placeholder)} if annotation is dspy.Audio else {})


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
    if CUSTOM_TYPE_START_IDENTIFIER in json.dumps([inputs, outputs], ensure_ascii=False):
        return None  # it splits a message into parts, as only images and sounds do
    media = (dspy.Image, dspy.Audio)
    shown = [inputs[field] for field, info in signature.input_fields.items() if info.annotation in media]
    if any(len(str(each)) > VECTOR_CHARACTERS for each in shown):
        return None
    response = adapter.format_assistant_message_content(signature, gold)
    try:
        parsed = adapter.parse(signature, response)
    except (AdapterParseError, UnicodeEncodeError):  # the second of XML with half a surrogate pair
        return None  # a text that looks like a header, say: the model could not give this answer either
    return {
        "predictor": name,
        "inputs": {field: inputs.get(field) for field in signature.input_fields},
        "messages": messages,
        "response": response,
        "outputs": {field: plain(parsed[field]) for field in signature.output_fields},
    }


def _type(annotation: Any) -> dict[str, Any]:
    if annotation in (dspy.Image, dspy.Audio):  # as a caller gives it, not as DSPy keeps it
        return {"schema": {"type": "string", "format": "uri"}}
    if annotation is dspy.History:
        messages = {"type": "array", "items": {"type": "object"}}
        return {"schema": {"type": "object", "properties": {"messages": messages}, "required": ["messages"]}}
    return {"schema": TypeAdapter(annotation).json_schema()}


def _render_rule(annotation: Any) -> str:
    if annotation is dspy.Image:
        return "image"
    if annotation is dspy.Audio:
        return "audio"
    if annotation in (str, date, datetime) or (
        get_origin(annotation) is Literal and isinstance(get_args(annotation)[0], str)
    ):
        return "text"
    if annotation in (int, float, bool) or get_origin(annotation) is Literal:
        return "scalar"
    return "byValue" if _is_union(annotation) else "json"


def _parse_rule(annotation: Any) -> dict[str, Any]:
    members = get_args(annotation) if _is_union(annotation) else ()
    nullable = type(None) in members
    if get_origin(annotation) is Literal:
        return {"parse": "choice", "choices": list(get_args(annotation)), "nullable": False}
    if _is_moment(annotation):
        return {"parse": "moment", "nullable": nullable}
    # DSPy gives the text of a nullable union with str as it is: "None" stays a string, "5" too.
    as_text = annotation is str or (nullable and str in members)
    return {"parse": "text" if as_text else "json", "nullable": nullable}


def _is_moment(annotation: Any) -> bool:
    """Whether it is a date or datetime, or None beside one."""
    members = get_args(annotation) if _is_union(annotation) else (annotation,)
    return all(member in (date, datetime, type(None)) for member in members)


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)
