"""JSON Schemas for editors, from the models: one for each kind, and one for files that hold several.

What a schema can say is in it: fields and their texts, types, bounds, patterns, unions. What joins other fields (CEL) is not;
`dspy-operator validate` knows that too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dspy_operator.api.fields import GROUP, VERSION, UnionModel
from dspy_operator.api.objects import KINDS

ALL = "all.json"
DRAFT = "http://json-schema.org/draft-07/schema#"
"""What yaml-language-server speaks best."""

Schema = dict[str, Any]


def write(folder: Path) -> list[Path]:
    """Write all of them; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name, schema in files().items():
        path = folder / name
        path.write_text(json.dumps(schema, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        made.append(path)
    return made


def files() -> Mapping[str, Schema]:
    """Each schema by the name of its file: that of kubeconform's default layout."""
    head = {"$schema": DRAFT}
    kinds = {kind: of_kind(kind) for kind in KINDS}
    made: dict[str, Schema] = {f"{kind.lower()}_{VERSION}.json": head | schema for kind, schema in kinds.items()}
    definitions: Schema = {}
    branches: list[Schema] = []
    for kind, schema in kinds.items():
        for name, inner in schema.pop("definitions").items():
            definitions[f"{kind}.{name}"] = _moved(inner, kind)
        definitions[kind] = _moved(schema, kind)
        branches.append({"$ref": f"#/definitions/{kind}"})
    # A file holds ConfigMaps beside our kinds; another version of ours is a mistake all the same.
    foreign = {"not": {"properties": {"apiVersion": {"pattern": f"^{GROUP}/"}}}, "required": ["apiVersion", "kind"]}
    made[ALL] = head | {"oneOf": [*branches, foreign], "definitions": definitions}
    return made


def of_kind(kind: str) -> Schema:
    """The schema of one kind; unknown fields are refused."""
    whole = KINDS[kind].model_json_schema(by_alias=True)
    unions = {model.__name__: model for model in _unions(UnionModel)}
    definitions = {}
    for name, inner in whole.pop("$defs").items():
        made = _plain(inner)
        if (union := unions.get(name)) is not None:
            made["allOf"] = list(_members(union))
        definitions[name] = made
    # uid is the API server's to give; what else metadata holds is Kubernetes' own.
    definitions["Metadata"]["properties"].pop("uid")
    plain: Schema = _plain(whole)
    return plain | {"definitions": definitions}


def _plain(part: Any) -> Any:
    """Without what only a cluster reads, and without null: what is not written is absent."""
    if isinstance(part, list):
        return [_plain(item) for item in part]
    if not isinstance(part, dict):
        return part.replace("#/$defs/", "#/definitions/") if isinstance(part, str) else part
    made: Schema = {}
    for keyword, value in part.items():
        if keyword in ("properties", "$defs"):  # names of fields, no keywords
            made[keyword] = {name: _plain(field) for name, field in value.items()}
        elif keyword == "anyOf":
            choices = [_plain(choice) for choice in value if choice.get("type") != "null"]
            # Beside a $ref draft 7 reads nothing.
            made |= {"allOf": choices} if len(choices) == 1 else {"anyOf": choices}
        elif keyword == "$ref":
            made["allOf"] = [{"$ref": _plain(value)}]
        elif not keyword.startswith("x-") and keyword != "title" and not (keyword == "default" and value is None):
            made[keyword] = _plain(value)
    return made


def _moved(part: Any, kind: str) -> Any:
    """The same, with references to the kind's own definitions in a file of all kinds."""
    if isinstance(part, dict):
        return {
            keyword: value.replace("#/definitions/", f"#/definitions/{kind}.")
            if keyword == "$ref"
            else _moved(value, kind)
            for keyword, value in part.items()
        }
    return [_moved(item, kind) for item in part] if isinstance(part, list) else part


def _unions(model: type[UnionModel]) -> Iterator[type[UnionModel]]:
    for inner in model.__subclasses__():
        yield inner
        yield from _unions(inner)


def _members(union: type[UnionModel]) -> Iterator[Schema]:
    """No member but the one that `type` names, and that one where it has required fields."""
    for member in dict.fromkeys(union.MEMBERS.values()):
        types = [type_ for type_, of in union.MEMBERS.items() if of == member]
        yield {"if": {"required": [member]}, "then": {"properties": {"type": {"enum": types}}}}
        if needed := [type_ for type_ in types if type_ in union.REQUIRED]:
            condition = {"properties": {"type": {"enum": needed}}, "required": ["type"]}
            yield {"if": condition, "then": {"required": [member]}}
