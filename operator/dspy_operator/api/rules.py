"""Rules that join fields, in the API server's words (CEL), declared beside the type they rule.

Each rule is told twice: here for the API server, and as a validator of the same model for local mode, where there is no API
server. That both refuse the same objects with the same words is a test: tests/integration/crd holds, for each id, an object
that keeps the rule and one that breaks it.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from pydantic import GetJsonSchemaHandler
from pydantic_core import CoreSchema

KEYWORD = "x-kubernetes-validations"
_TEXT = re.compile(r"'((?:[^'\\]|\\.)*)'")
"""A text in CEL."""


@dataclass(frozen=True)
class Rule:
    """One rule of `x-kubernetes-validations`."""

    id: str
    """Never changes, never used twice for two rules; names the rule's examples."""
    cel: str
    """True where the rule is kept; `self` is the value of the type that declares it."""
    message: str
    """What a person reads: a text, or where `computed` is set, a CEL expression that makes one."""
    computed: bool = False
    field: str | None = None
    """The field that the refusal names, ".temperature"; None names the type's own place."""
    reason: Literal["FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired"] = "FieldValueInvalid"
    """What the API server says before the message: Invalid value, Forbidden, Required value."""

    def says(self, message: str) -> bool:
        """Whether these are the rule's words; what a computed message puts between its texts may be anything."""
        return re.fullmatch(".+".join(map(re.escape, self.texts)), message) is not None

    @property
    def texts(self) -> tuple[str, ...]:
        """The message as one text, or the texts around what is computed: 'a ' + self.type + ' b' has "a " and " b"."""
        return texts_of(self.message) if self.computed else (self.message,)

    def document(self) -> dict[str, Any]:
        """As the schema has it."""
        made: dict[str, Any] = {"rule": self.cel, "messageExpression" if self.computed else "message": self.message}
        if self.field is not None:
            made["fieldPath"] = self.field
        if self.reason != "FieldValueInvalid":
            made["reason"] = self.reason
        return made


@dataclass(frozen=True)
class Ruled:
    """Puts rules on an annotated type that is no model: a string, a map."""

    rules: tuple[Rule, ...]

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The type's schema with the rules in it."""
        return self.put_into(handler(core))

    def put_into(self, schema: dict[str, Any]) -> dict[str, Any]:
        """The same schema with the rules added; `id` is for us, the API server knows none."""
        schema[KEYWORD] = [*schema.get(KEYWORD, ()), *({"id": rule.id} | rule.document() for rule in self.rules)]
        return schema


def texts_of(expression: str) -> tuple[str, ...]:
    """The texts of a CEL expression that makes a message, around what is computed: see `Rule.texts`."""
    outside, *parts = _TEXT.split(expression)
    texts = tuple(re.sub(r"\\(.)", r"\1", text) for text in parts[::2])
    return (*([""] if outside else []), *texts, *([""] if parts and parts[-1] else []))


def quoted(text: str) -> str:
    """The text as a CEL string."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def filled(template: str, **expressions: str) -> str:
    """The CEL that makes a message: each `{name}` of the template gives way to its expression."""
    texts = re.split(r"\{(\w+)\}", template)
    return " + ".join(expressions[text] if place % 2 else quoted(text) for place, text in enumerate(texts) if text)


DECIMAL = r"^-?[0-9]{1,9}(\.[0-9]{1,9})?$"
"""How a decimal string is written."""


@dataclass(frozen=True, kw_only=True)
class ValueRule(Rule):
    """A rule about what one optional text holds, by itself; every model checks those among its RULES."""

    name: str
    """The field's camelCase name."""
    must: str
    """What is said of it: "must be above zero"."""
    keeps: Callable[[str], bool]
    """The same as `cel`, here."""

    def refusal(self, value: str) -> str | None:
        """Why this value is refused, or None."""
        return None if self.keeps(value) else f'{self.name} {self.must}, found "{value}"'


def _value_rule(field: str, id_: str, cel: str, must: str, keeps: Callable[[str], bool]) -> ValueRule:
    message = filled(f'{field} {must}, found "{{value}}"', value=f"self.{field}")
    return ValueRule(
        id=id_, cel=cel, message=message, computed=True, field=f".{field}", name=field, must=must, keeps=keeps
    )


def decimal_rule(
    field: str,
    *,
    above: str | None = None,
    at_least: str | None = None,
    below: str | None = None,
    at_most: str | None = None,
) -> ValueRule:
    """The rule that an optional decimal string lies within bounds; what is no number is the pattern's business.

    Args:
        field: its camelCase name.
        above, at_least, below, at_most: the bounds, a lower one and perhaps an upper one, as decimal strings.
    """
    given = (("above", above), ("at_least", at_least), ("below", below), ("at_most", at_most))
    bounds = {name: bound for name, bound in given if bound is not None}
    kept = " && ".join(f"double(self.{field}) {_SIGN[name]} {float(bound)}" for name, bound in bounds.items())
    return _value_rule(
        field,
        f"{kebab(field)}-in-range",
        f"!has(self.{field}) || !self.{field}.matches({quoted(DECIMAL)}) || {kept}",
        _MUST[tuple(bounds)].format(**bounds),
        lambda value: all(_HOLDS[name](Decimal(value), Decimal(bound)) for name, bound in bounds.items()),
    )


_SIGN = {"above": ">", "at_least": ">=", "below": "<", "at_most": "<="}
_HOLDS = {"above": operator.gt, "at_least": operator.ge, "below": operator.lt, "at_most": operator.le}
_MUST = {
    ("above",): 'must be above "{above}"',
    ("at_least",): 'must be at least "{at_least}"',
    ("above", "below"): 'must be between "{above}" and "{below}"',
    ("above", "at_most"): 'must be above "{above}" and at most "{at_most}"',
    ("at_least", "at_most"): 'must be "{at_least}" to "{at_most}"',
}


def above_zero_rule(field: str) -> ValueRule:
    """The rule that an optional duration is not "0s"."""
    cel = f"!has(self.{field}) || self.{field}.matches('[1-9]')"
    return _value_rule(
        field,
        f"{kebab(field)}-above-zero",
        cel,
        "must be above zero",
        lambda value: re.search("[1-9]", value) is not None,
    )


def unique_names_rule(id_: str, field: str) -> Rule:
    """The rule that no two entries of an optional list have one name.

    Args:
        field: the list's camelCase name, a plural: "tools".
    """
    names = f"self.{field}.map(each, each.name)"
    return Rule(
        id=id_,
        cel=f"!has(self.{field}) || self.{field}.all(a, self.{field}.exists_one(b, a.name == b.name))",
        message=f"""'two {field} have the name "' + {names}.filter(a, !{names}.exists_one(b, a == b))[0] + '"'""",
        computed=True,
        field=f".{field}",
    )


def kebab(name: str) -> str:
    """`maxTokens` -> `max-tokens`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()


def union_rules(
    name: str, types: tuple[str, ...], members: dict[str, str], required: frozenset[str]
) -> tuple[Rule, ...]:
    """The rules of a union: no member but the one that `type` names, and that one where it has required fields.

    Args:
        name: of the union, for the ids: "provider".
        types: every value of its `type`.
        members: type -> the camelCase name of its member.
        required: types whose member must be written.
    """
    # With one type there is no other that the member could be wrong for.
    alone = (
        Rule(
            id=f"{kebab(name)}-{kebab(member)}-of-its-type",
            cel=f"!has(self.{member}) || self.type == {quoted(type_name)}",
            message=f"{quoted(f'{member} is set, but type is ')} + self.type + ': remove it or change type'",
            computed=True,
            field=f".{member}",
            reason="FieldValueForbidden",
        )
        for type_name, member in members.items()
        if len(types) > 1
    )
    needed = (
        Rule(
            id=f"{kebab(name)}-{kebab(members[type_name])}-required",
            cel=f"self.type != {quoted(type_name)} || has(self.{members[type_name]})",
            message=f"type is {type_name}: {members[type_name]} is required",
            field=f".{members[type_name]}",
            reason="FieldValueRequired",
        )
        for type_name in members
        if type_name in required
    )
    return (*alone, *needed)
