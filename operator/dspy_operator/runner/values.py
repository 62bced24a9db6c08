"""Values on their way to DSPy and back: rows hold JSON, DSPy wants an Image, Audio or a History and answers with dates and objects."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from datetime import date
from typing import Any

import dspy
from pydantic import BaseModel

from dspy_operator.api.signature_types import iso


def input_fields(program: Any) -> Mapping[str, Any]:
    """What a module is called with: the parameters of its `forward`, by name, each with its annotation."""
    # Of the class: DSPy warns of whoever looks at an instance's.
    parameters = dict(inspect.signature(type(program).forward).parameters)
    del parameters["self"]
    return parameters


def for_dspy(fields: Mapping[str, Any], values: Mapping[str, object]) -> dict[str, Any]:
    """A row's inputs as DSPy takes them; `typed` in program.py does the same.

    Dates and objects stay JSON: the message is the same, and a trace reads better.

    Args:
        fields: what has an annotation: input fields of a dspy.Signature, or `input_fields` of a module.
        values: field -> JSON, as the types of the signature coerced it.
    """
    made = dict(values)
    for name, field in fields.items():
        if name in made and field.annotation in (dspy.Image, dspy.Audio):
            made[name] = field.annotation(made[name])
        if name in made and field.annotation is dspy.History:
            messages: Any = made[name]
            made[name] = dspy.History(messages=[for_dspy(fields, message) for message in messages["messages"]])
    return made


def plain(value: object) -> Any:
    """What DSPy answered with, or was given, as JSON: dates as ISO 8601 text, objects as mappings, an image as its URL, a sound as its data URI."""
    match value:
        case dspy.Image(url=url):
            return url
        case dspy.Audio(data=data, audio_format=format_):
            return f"data:audio/{format_};base64,{data}"
        case BaseModel():
            return {name: plain(getattr(value, name)) for name in type(value).model_fields}
        case date():
            return iso(value)
        case Mapping():
            return {name: plain(item) for name, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
    return value


def plain_fields(source: Any) -> dict[str, Any]:
    """The fields of a dspy.Example or dspy.Prediction as JSON."""
    return {name: plain(value) for name, value in source.items()}
