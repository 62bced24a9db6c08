"""The model behind the server: a pure function from a request to a text.

It knows the right answers from the script, gives them with a probability that depends on the prompt (so that an
optimizer has something to find), and invents varied but fixed text where a prompt asks for prose.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from tests.counting_server.hashing import digest, fraction, pick
from tests.counting_server.prompts import Asked, Field, Schema, Style, input_value
from tests.counting_server.script import Script, Skill

# Outputs of DSPy's own signatures: dspy/propose/*.py, dspy/teleprompt/{copro_optimizer,simba_utils,infer_rules}.py,
# dspy/predict/refine.py. A row's answer never goes there, though the prompt quotes rows.
_PROPOSALS = frozenset(
    {
        "observations",
        "summary",
        "program_description",
        "module_description",
        "tip",
        "proposed_instruction",
        "improved_instruction",
        "new_instruction",
        "proposed_prefix_for_output_field",
        "discussion",
        "module_advice",
        "advice",
        "natural_language_rules",
    }
)
_STEPS = frozenset({"next_tool_name", "next_tool_args"})  # dspy/predict/react.py: its answer comes after them
_THOUGHTS = frozenset({"reasoning", "rationale", "next_thought", "thought"})
_MANNERS = ("Decide carefully", "Work step by step", "Be an exact judge", "Stay with the text", "Weigh every word")
_DEPTH = 3  # a schema that refers to itself ends here


@dataclass(frozen=True, kw_only=True)
class Mind:
    """What one answer is made from."""

    asked: Asked
    script: Script
    salt: str
    """"" at temperature 0, where sampling has no say."""

    def draw(self, *parts: object) -> str:
        """A digest that is fixed for this prompt, row and sample."""
        asked = self.asked
        return digest(asked.row, asked.instructions, asked.demos_hash, self.salt, *parts)


def sampling_salt(body: Mapping[str, Any], *, choice: int, repetition: int) -> str:
    """What sampling adds to a request: nothing at temperature 0, else the seed, the rollout and the like."""
    temperature = body.get("temperature") or 0
    if temperature <= 0:
        return ""
    return digest(temperature, *(body.get(name) for name in ("seed", "rollout_id", "metadata")), choice, repetition)


def answer(asked: Asked, script: Script, salt: str) -> str:
    """The completion's text."""
    mind = Mind(asked=asked, script=script, salt=salt)
    if asked.style is Style.JUDGE:
        return _verdict(mind)
    if asked.style is Style.FENCED:
        return f"```\n{_instruction(mind.draw('instruction'))}\n```"
    if asked.style is Style.TEXT:
        right = right_answer(asked.row, script.answers)
        gold = right is not None and _is_right(mind)
        return str(right) if gold else f"An answer of its own kind ({mind.draw('text')[:4]})."
    values = _values(mind)
    if asked.style is Style.CHAT:
        return "\n\n".join([*(f"[[ ## {k} ## ]]\n{_plain(v)}" for k, v in values.items()), "[[ ## completed ## ]]"])
    if asked.style is Style.XML:
        return "\n\n".join(_xml(name, value) for name, value in values.items())
    return json.dumps(values or {"answer": mind.draw("answer")[:4]}, sort_keys=script.sorted_properties)


def _verdict(mind: Mind) -> str:
    """Full marks for an answer that says what was expected, else some grade below; now and then the other way round."""
    if mind.asked.instructions.startswith("You compare"):
        return _comparison(mind)
    said, wanted = (
        re.findall(rf"<{tag} name=.*?>\n(.*?)\n</{tag}>", mind.asked.row, re.S) for tag in ("answer", "expected")
    )
    scale = re.search(r"to (\d+), the best", mind.asked.instructions)
    best = int(scale[1]) if scale else 1
    good = (said == wanted) is not (fraction(mind.draw("slip")) < mind.script.judge_slips)
    grade = best if good else int(fraction(mind.draw("grade")) * best)
    return f"Reason: It {'says' if good else 'does not say'} what was expected ({mind.draw('reason')[:4]}).\nGrade: {grade}"


def _comparison(mind: Mind) -> str:
    """The one that is right where the other is not; now and then what stands first, whatever it is."""
    right = str(right_answer(mind.asked.row, mind.script.answers))
    one, other = (re.findall(rf"<{tag} name=.*?>\n(.*?)\n</{tag}>", mind.asked.row, re.S) == [right] for tag in "AB")
    if fraction("slip", sorted(mind.asked.row)) < mind.script.judge_slips:
        return "Reason: It stands first.\nBetter: A"
    return f"Reason: Look at the label.\nBetter: {'neither' if one == other else 'A' if one else 'B'}"


def right_answer(row: str, answers: Mapping[str, Any]) -> Any:
    """The scripted answer of the longest text that `row` contains; None if it contains none."""
    known = [text for text in answers if text in row]
    return answers[max(known, key=len)] if known else None


def probability(asked: Asked, skill: Skill) -> float:
    """How probable a right answer to this prompt is."""
    effect = (2 * fraction("instructions", asked.instructions) - 1) * skill.instructions
    return min(max(skill.base + skill.per_demo * asked.demos + effect, 0.0), skill.max)


def _is_right(mind: Mind) -> bool:
    asked, skill = mind.asked, mind.script.skill
    prompt_decides = fraction(mind.draw("noise")) < skill.noise
    luck = fraction(mind.draw("luck")) if prompt_decides else fraction("difficulty", asked.row)
    return luck < probability(asked, skill)


def _values(mind: Mind) -> dict[str, Any]:
    """A value for each wanted field: the right ones, wrong ones, or free ones."""
    fields = mind.asked.fields
    golds = _golds(fields, right_answer(mind.asked.row, mind.script.answers))
    is_right = _is_right(mind)
    values: dict[str, Any] = {}
    for field in fields:
        if field.name in golds:
            values[field.name] = golds[field.name] if is_right else _wrong(field, golds[field.name], mind)
        else:
            values[field.name] = _free(field, mind, values)
    return values


def _golds(fields: tuple[Field, ...], right: Any) -> dict[str, Any]:
    """Which fields have a right answer. One value goes to the fields that list it as a choice, else to the last."""
    names = {field.name for field in fields}
    if right is None or not names or names & (_PROPOSALS | _STEPS):
        return {}
    if isinstance(right, Mapping):
        return {name: value for name, value in right.items() if name in names}
    listing = [field.name for field in fields if right in field.schema.get("enum", ())]
    return dict.fromkeys(listing or [fields[-1].name], right)


def _wrong(field: Field, right: Any, mind: Mind) -> Any:
    """A value that has the field's type and is not `right`."""
    if mind.asked.style is Style.XML and isinstance(right, dict | list):
        return _altered(right, mind.draw("wrong", field.name))  # its prompt shows the names inside, but no types
    others = [choice for choice in field.schema.get("enum", ()) if choice != right]
    if others:
        return pick(others, mind.draw("wrong", field.name))
    if isinstance(right, bool):
        return not right
    if isinstance(right, int | float):
        return right + 1
    if isinstance(right, str) and "format" not in field.schema:
        return f"unsure {mind.draw('wrong', field.name)[:4]}"
    return _of_schema(field.schema, mind.asked.definitions, mind.draw("wrong", field.name))


def _altered(value: Any, drawn: str) -> Any:
    """A value of the same shape with other leaves."""
    match value:
        case dict():
            return {name: _altered(each, drawn) for name, each in value.items()}
        case list():
            return [_altered(each, drawn) for each in value]
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str() if re.match(r"\d{4}-\d\d-\d\d", value):
            return f"1999{value[4:]}"
        case str():
            return f"unsure {drawn[:4]}"
    return value


def _free(field: Field, mind: Mind, before: Mapping[str, Any]) -> Any:
    """A value for a field without a right answer; `before` are the fields already written."""
    drawn = mind.draw(field.name)
    if field.name == "next_tool_name":
        return _next_tool(field, mind, drawn)
    if field.name == "next_tool_args":
        return _tool_arguments(str(before.get("next_tool_name")), mind, drawn)
    if field.name in ("module_advice", "advice"):
        names = re.findall(r'"([^"]+)"', input_value(mind.asked.row, "module_names"))
        return {name: _instruction(digest(drawn, name)) for name in names}
    if field.schema.get("type") != "string" or "enum" in field.schema:
        return _of_schema(field.schema, mind.asked.definitions, drawn)
    if field.name in _THOUGHTS:
        return f"The text speaks for itself (thought {drawn[:4]})."
    if field.name == "proposed_prefix_for_output_field":
        return f"Answer {drawn[:4]}:"
    if "instruction" in field.name or field.name in ("tip", "natural_language_rules"):
        return _instruction(drawn)
    if field.name in _PROPOSALS:
        return f"Short texts, each with one label (note {drawn[:4]})."
    return f"{field.name} {drawn[:4]}"


def _instruction(drawn: str) -> str:
    return f"{pick(_MANNERS, drawn)} (variant {drawn[:4]}): read the text and answer with the label."


def _next_tool(field: Field, mind: Mind, drawn: str) -> Any:
    """ReAct: one call of some tool, then `finish`, so that a trajectory has a use and an end."""
    tools = [tool for tool in field.schema.get("enum", ()) if tool != "finish"]
    called = "observation_0" in mind.asked.row
    return "finish" if called or not tools else pick(tools, drawn)


def _tool_arguments(tool: str, mind: Mind, drawn: str) -> dict[str, Any]:
    """Arguments for `tool`, whose schema DSPy writes as Python into the instructions."""
    pattern = rf"\(\d+\) {re.escape(tool)}, whose description is .*?It takes arguments (\{{.*?\}})\. ?(?=\(|When|$)"
    found = re.search(pattern, mind.asked.instructions)
    try:
        arguments = ast.literal_eval(found.group(1)) if found else {}
    except (ValueError, SyntaxError):
        return {}
    return {name: _of_schema(schema, {}, digest(drawn, name)) for name, schema in arguments.items()}


def _of_schema(schema: Schema, definitions: Schema, drawn: str, depth: int = 0) -> Any:
    """A value that satisfies `schema`, as far as OpenAI's strict mode and pydantic go."""
    definitions = schema.get("$defs", definitions)
    if "$ref" in schema:
        return _of_schema(definitions[str(schema["$ref"]).rpartition("/")[2]], definitions, drawn, depth)
    if "enum" in schema:
        return pick(schema["enum"], drawn)
    if "const" in schema:
        return schema["const"]
    for union in ("anyOf", "oneOf", "allOf"):
        if union in schema:
            options = schema[union]
            # the last option of a recursive type is the one that ends it (`Node | None`)
            return _of_schema(options[-1 if depth > _DEPTH else 0], definitions, drawn, depth + 1)
    type_ = schema.get("type", "string")
    match type_[0] if isinstance(type_, list) else type_:
        case "object":
            properties = schema.get("properties", {})
            return {
                name: _of_schema(each, definitions, digest(drawn, name), depth + 1) for name, each in properties.items()
            }
        case "array":
            length = schema.get("minItems", 0 if depth > _DEPTH else 1)
            items = schema.get("items", {})
            return [_of_schema(items, definitions, digest(drawn, i), depth + 1) for i in range(length)]
        case "boolean":
            return fraction(drawn) < 0.5
        case "integer":
            low, high = _range(schema, span=10, step=1)
            return int(low + fraction(drawn) * (high - low + 1))
        case "number":
            low, high = _range(schema, span=1, step=0)
            return round(low + (0.01 + 0.98 * fraction(drawn)) * (high - low), 3)
        case "null":
            return None
        case _ if schema.get("format") in ("date", "date-time"):
            day = f"2020-01-{1 + int(28 * fraction(drawn)):02}"
            return day if schema["format"] == "date" else f"{day}T12:00:00Z"
        case _:
            return f"text {drawn[: max(schema.get('minLength', 0) - 5, 4)]}"[: schema.get("maxLength")]


def _range(schema: Schema, *, span: int, step: int) -> tuple[float, float]:
    """The lowest and the highest number that `schema` allows, `span` apart where it leaves an end open."""
    low = schema["minimum"] if "minimum" in schema else schema.get("exclusiveMinimum", -step) + step
    high = schema["maximum"] if "maximum" in schema else schema.get("exclusiveMaximum", low + span + step) - step
    return min(low, high), high


def _plain(value: Any) -> str:
    """A value as ChatAdapter reads it: JSON for containers, Python's words for the rest."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def _xml(name: str, value: Any, key: str | None = None) -> str:
    """A value as XMLAdapter reads it."""
    tag = f"{name} key={quoteattr(key)}" if key is not None else name
    if isinstance(value, dict):
        members = (
            _xml(each, inner) if each.isidentifier() else _xml("entry", inner, each) for each, inner in value.items()
        )
        return f"<{tag}>{''.join(members)}</{name}>"
    if isinstance(value, list):
        return f"<{tag}>{''.join(_xml('item', each) for each in value)}</{name}>"
    return f"<{tag} />" if value is None else f"<{tag}>\n{escape(str(value))}\n</{name}>"
