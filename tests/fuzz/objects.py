"""Objects of each kind by seed: made from the CRD's schema, then changed a little, or spoiled on purpose.

An object is a function of (kind, seed) and of the schema: a seed that found something is kept in seeds.json.
"""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests import yaml_text

Schema = dict[str, Any]
CRDS = Path(__file__).parents[2] / "crds"

_TEXTS = (
    *("a", "qwen", "x-1", "a_b", "label", "text", "str", 'Literal["a", "b"]', "list[str]", "data.jsonl", "llama:1b"),
    *("0", "1", "0.5", "0.05", "100", "90s", "1h30m", "500ms", "1Gi", "250m", "USD", "team/role", "example.com/x"),
    *("http://x.example/v1", "registry.example:5000", "NoSchedule", "kubernetes.io/arch", "sha256:" + "a" * 64),
    *("a" * 64, "https://x.example/a?b=c", "/data/rows.jsonl", "big", "2026-01-01"),
)
"""Candidates for a pattern: one of them fits each that we use."""
_HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 0.5, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, 10**40, 1e300),
    *("", " ", "0", "1", "-1", "1e3", "NaN", "Off", "No", "null", "~", "0x10", "1_000", "2026-01-01", "12:30:45"),
    *("é", "\u202e", "\ufeff", "\u0000", "\u0007", "\n", "a\r\nb", "\U0001f600" * 30, "\u0301" * 50, "\u2028"),
    *("x" * 300, "x" * 70_000, "{{ .Values.x }}", "'; DROP", "../../etc/passwd", "$(id)", "a\\b", '"', "self", "None"),
    *(
        "list[" * 60 + "str" + "]" * 60,
        "Literal[" + ",".join('"a"' for _ in range(500)) + "]",
        "9" * 400,
        "0." + "0" * 30,
    ),
    *([], [None], [1, "a", {}], [[[[]]]], ["a"] * 300, {}, {"": ""}, {"a": None}, {"type": "X"}, {"name": "a"}),
    {"x" * 300: "y"},
    {str(number): "y" for number in range(200)},
)


def schemas() -> dict[str, Schema]:
    """The schema of each kind's spec."""
    found = {}
    for path in sorted(CRDS.glob("*.yaml")):
        crd = yaml_text.document(path.read_text("utf-8"))
        (version,) = crd["spec"]["versions"]
        found[crd["spec"]["names"]["kind"]] = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return found


def an_object(kind: str, schema: Schema, seed: int, good: list[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """(how it was made, the object).

    Args:
        good: specs that are right; rules that join fields leave little of what a schema alone allows.
    """
    draw = random.Random(f"{kind}/{seed}")
    how = draw.choice(("schema", "good", "near", "near", "near", "hostile"))
    spec = value(draw, schema) if how == "schema" else copy.deepcopy(draw.choice(good))
    if how == "good":
        _add_field(draw, schema, spec)
    for _ in range(draw.randint(1, 3) if how in ("near", "hostile") else 0):
        _change(draw, schema, spec, hostile=how == "hostile")
    name = f"fuzz-{seed}"
    metadata: dict[str, Any] = {"name": name}
    document = {"apiVersion": "dspy-operator.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
    if how == "hostile" and draw.random() < 0.2:
        at = draw.choice(("name", "spec", "deep"))
        if at == "name":
            metadata["name"] = draw.choice(("A", "a.b", "-a", "a" * 41, "1a", "é", ""))
        elif at == "spec":
            document["spec"] = copy.deepcopy(draw.choice(_HOSTILE))
        else:
            deep: Any = "x"
            for _ in range(draw.choice((50, 500))):
                deep = {"a": deep} if draw.random() < 0.5 else [deep]
            document["spec"] = {**spec, "deep": deep}
    return how, document


def value(draw: random.Random, schema: Schema, depth: int = 0) -> Any:
    """Something that the schema allows, rules that join fields aside."""
    if "x-kubernetes-int-or-string" in schema:
        return draw.choice((1, "1Gi", "250m"))
    if "enum" in schema:
        return draw.choice(schema["enum"])
    match schema.get("type"):
        case "boolean":
            return draw.random() < 0.5
        case "integer":
            low, high = schema.get("minimum", 0), schema.get("maximum", 100)
            return draw.choice((low, high, draw.randint(low, high)))
        case "string":
            return _text(draw, schema)
        case "array":
            count = draw.randint(schema.get("minItems", 0), min(schema.get("maxItems", 3), 3))
            return [value(draw, schema["items"], depth + 1) for _ in range(count)]
    if "additionalProperties" in schema:
        return {
            key: value(draw, schema["additionalProperties"], depth + 1) for key in ("a", "label")[: draw.randint(0, 2)]
        }
    made = {}
    fields = schema.get("properties", {})
    if "type" in fields and "enum" in fields["type"]:  # a union: the member that its type names, most of the time
        made["type"] = draw.choice(fields["type"]["enum"])
        wanted = made["type"].lower()
        for name, field in fields.items():
            if name.lower() == wanted and (name != "type") and draw.random() < 0.9:
                made[name] = value(draw, field, depth + 1)
        return made
    for name, field in fields.items():
        if name in schema.get("required", ()) or draw.random() < 0.25:
            made[name] = value(draw, field, depth + 1)
    return made


def _text(draw: random.Random, schema: Schema) -> str:
    low, high, pattern = schema.get("minLength", 0), schema.get("maxLength", 64), schema.get("pattern", "")
    fits = [text for text in _TEXTS if low <= len(text) <= high and re.search(pattern, text)]
    return draw.choice(fits or ["a"])


def _places(part: Any, schema: Schema) -> Iterator[tuple[Any, str | int, Schema]]:
    """(container, key, schema) of everything inside."""
    if isinstance(part, dict):
        for key, inner in part.items():
            of = schema.get("properties", {}).get(key) or schema.get("additionalProperties") or {}
            of = of if isinstance(of, dict) else {}
            yield part, key, of
            yield from _places(inner, of)
    elif isinstance(part, list):
        for index, inner in enumerate(part):
            yield part, index, schema.get("items", {})
            yield from _places(inner, schema.get("items", {}))


def _add_field(draw: random.Random, schema: Schema, spec: dict[str, Any]) -> None:
    """One more field that the schema knows, at the top or in a mapping below."""
    mappings = [(spec, schema)]
    mappings += [(part[key], of) for part, key, of in _places(spec, schema) if isinstance(part[key], dict)]
    part, of = draw.choice(mappings)
    free = [name for name in of.get("properties", {}) if name not in part]
    if free:
        name = draw.choice(free)
        part[name] = value(draw, of["properties"][name])


def _change(draw: random.Random, schema: Schema, spec: dict[str, Any], *, hostile: bool) -> None:
    places = list(_places(spec, schema))
    if not places:
        return
    part, key, of = draw.choice(places)
    before = part[key]
    if hostile:
        part[key] = copy.deepcopy(draw.choice(_HOSTILE))
        return
    match draw.randint(0, 6):
        case 0:
            del part[key]
        case 1:
            part[key] = value(draw, of) if of else before
        case 2:
            part[key] = (
                str(before) if not isinstance(before, str) else int(before) if before.isdecimal() else f"{before} "
            )
        case 3 if isinstance(part, list):
            part.append(copy.deepcopy(before))
        case 3 if isinstance(key, str):
            part[f"{key}s"] = before
        case 4 if isinstance(before, int):
            part[key] = draw.choice((before - 1, before + 1, -before, before * 1000))
        case 5 if isinstance(before, str):
            part[key] = before.upper() if draw.random() < 0.5 else before[: len(before) // 2]
        case _:
            _add_field(draw, schema, spec)
