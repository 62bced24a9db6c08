"""The adapter of a program.py: the class that DSPy lacks, where it lacks one, and the call that makes the adapter.

None of them falls back to another format: DSPy's ChatAdapter and XMLAdapter ask once more as JSON where an answer cannot be
read, unless they are told not to; its JSON adapters do not, but send a response_format of their own choice to the models that
DSPy knows. Each can be made without arguments, as DSPy itself makes copies.
"""

from __future__ import annotations

from dataclasses import dataclass

from dspy_operator.api.promptprogram import Adapter
from dspy_operator.api.signature_types import MEDIA, Choice, DictOf, History, ListOf, Object, OneOf, TypeExpr

CLASSES = frozenset({"BAMLAdapter", "PlainBAMLAdapter", "PlainJSONAdapter", "SchemaBAMLAdapter", "SchemaJSONAdapter"})
"""Names that program.py may have for an adapter's class."""


@dataclass(frozen=True)
class AdapterSource:
    """What program.py says of its adapter."""

    definition: str
    """A class; empty where DSPy's own does."""
    call: str
    imports: tuple[str, ...] = ()
    """From DSPy, beside `import dspy`."""


def adapter_source(adapter: Adapter | None, *, has_objects: bool) -> AdapterSource:
    """The source of an adapter.

    Args:
        adapter: as written; None means Chat.
        has_objects: whether the outputs hold named types, whose schemas refer to each other.
    """
    if adapter is None or adapter.type == "Chat":
        return AdapterSource("", "dspy.ChatAdapter(use_json_adapter_fallback=False)")
    if adapter.type == "XML":
        return AdapterSource("", "dspy.XMLAdapter(use_json_adapter_fallback=False)")
    schema = _OBJECTS_ADAPTER if has_objects else _SCHEMA_ADAPTER
    name, definition = ("Schema", schema) if adapter.constrained == "Required" else ("Plain", _PLAIN_ADAPTER)
    if adapter.type == "BAML":
        definition = definition.replace("(dspy.JSONAdapter)", "(BAMLAdapter)").replace("JSONAdapter", "BAMLAdapter")
        imports = ("from dspy.adapters.baml_adapter import BAMLAdapter",)
        return AdapterSource(definition, f"{name}BAMLAdapter()", imports)
    return AdapterSource(definition, f"{name}JSONAdapter()")


def not_for(adapter: Adapter, type_: TypeExpr, *, is_output: bool) -> str | None:
    """Why the adapter cannot be used with a field of the type; None where it can."""
    if adapter.type == "XML" and is_output:
        return _unreadable_in_xml(type_)
    if adapter.type == "BAML" and isinstance(type_, (*MEDIA, History)):
        # BAMLAdapter dumps what is a pydantic model; out of program.json they are none, and a demonstration reads otherwise.
        name = type_.render()
        return f"adapter BAML writes {name} in another way before and after a revision is saved; adapter Chat, JSON or XML does not"
    return None


def _unreadable_in_xml(type_: TypeExpr) -> str | None:
    """Why an output of the type never comes back from XML as it was; None where it does.

    XMLAdapter has only text inside a list or object: it cannot tell 2 from "2" where the type leaves the choice, and of
    several types it tries the first.
    """
    match type_:
        case OneOf(members=members) if len(members) > 1 and any(map(_has_parts, members)):
            wrong: TypeExpr | None = type_
        case OneOf(members=[member]):
            return _unreadable_in_xml(member)
        case ListOf() | DictOf() | Object():
            wrong = _ambiguous_as_text(type_)
        case _:
            return None
    if wrong is None:
        return None
    return f"adapter XML cannot read {wrong.render()} back from text; adapter JSON or BAML can"


def _has_parts(type_: TypeExpr) -> bool:
    return isinstance(type_, (ListOf, DictOf, Object))


def _ambiguous_as_text(type_: TypeExpr) -> TypeExpr | None:
    """The first part that a text alone does not decide."""
    match type_:
        case ListOf(inner) | DictOf(inner):
            return _ambiguous_as_text(inner)
        case Object(members=members):
            parts = [member.type for member in members]
        case OneOf(members=members) if len(members) > 1:
            return type_
        case OneOf(members=members):
            parts = list(members)
        case Choice(values) if not all(isinstance(value, str) for value in values):
            return type_
        case _:
            return None
    return next((found for part in parts if (found := _ambiguous_as_text(part)) is not None), None)


_SCHEMA_ADAPTER = '''\
class SchemaJSONAdapter(dspy.JSONAdapter):
    """Sends the outputs' JSON schema with every request; DSPy itself does so only for models that it knows."""

    def response_format(self, signature: type[dspy.Signature]) -> dict[str, Any]:
        """The outputs, in the signature's order, as a strict schema."""
        fields = signature.output_fields.items()
        properties = {name: TypeAdapter(field.annotation).json_schema() for name, field in fields}
        schema = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
        return {"type": "json_schema", "json_schema": {"name": "outputs", "schema": schema, "strict": True}}

    def _prepare_response_format(self, lm: Any, lm_kwargs: dict[str, Any], signature: type[dspy.Signature]) -> None:
        lm_kwargs["response_format"] = self.response_format(signature)'''

_OBJECTS_ADAPTER = _SCHEMA_ADAPTER.replace(
    """\
        schema = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
""",
    """\
        schema = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
        schema["$defs"] = {name: part for each in properties.values() for name, part in each.pop("$defs", {}).items()}
""",
)
"""The same where outputs hold objects: a `$ref` is looked up at the root of a schema."""

_PLAIN_ADAPTER = '''\
class PlainJSONAdapter(dspy.JSONAdapter):
    """Asks for JSON in words only; DSPy itself adds a response_format for models that it knows."""

    def _prepare_response_format(self, lm: Any, lm_kwargs: dict[str, Any], signature: type[dspy.Signature]) -> None:
        lm_kwargs.pop("response_format", None)'''
