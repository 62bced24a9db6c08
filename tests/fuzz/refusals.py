"""Whether the API server's refusal of an object says where in it: each cause on its own."""

from __future__ import annotations

import re
from typing import Any

Body = dict[str, Any]

NOT_CHECKED = "some validation rules were not checked because the object was invalid"
"""The API server's remark beside other causes; it is about no field (apiextensions-apiserver, pkg/registry/customresource)."""
_STRICT = re.compile(r'(?:unknown|duplicate) field "(?P<path>(?:[^"\\]|\\.)*)"')
_ANY_OF = re.compile(r'"(?P<path>[^"]+)" must validate at least one schema \(anyOf\)$')
_WHOLE = re.compile(r"(?P<path>metadata\.name|spec|metadata|apiVersion|kind)\b")
_INDEX = re.compile(r"\[([0-9]+)\]\.?")
_LAST = re.compile(r"[^.\[]+|\[[^\]]*\]")
"""A step with nothing behind it."""


def pathless_causes(document: Body, said: Body) -> list[str]:
    """The causes of a refusal that name no place of the object, or none that the object or a parent of it has.

    Args:
        said: the `Status` that the API server answers with.
    """
    message = str(said["message"])
    if "strict decoding error" in message:
        return [] if all(map(_is_path, _STRICT.findall(message))) and _STRICT.search(message) else [message]
    causes = (said.get("details") or {}).get("causes") or []
    if not causes:
        return [] if _WHOLE.search(message) else [message]
    told = [cause for cause in causes if NOT_CHECKED not in cause["message"]]
    lost = [f"{cause.get('field')}: {cause['message']}" for cause in told if not _is_there(document, _place(cause))]
    return lost if told else [message]


def _place(cause: Body) -> str | None:
    """Its field; of a number that is neither integer nor text the API server writes it into the message."""
    match = _ANY_OF.search(cause["message"])
    return match["path"] if match is not None else cause.get("field")


def _is_path(text: str) -> bool:
    return bool(text) and text.split(".")[0].split("[")[0] in ("spec", "metadata", "apiVersion", "kind", "status")


def _is_there(document: Body, path: str | None) -> bool:
    """Whether a path, or its parent, leads to something in the object."""
    # The scale subresource's own paths begin with a dot.
    at = (path or "").removeprefix(".")
    return _is_path(at) and _leads(document, at)


def _leads(here: Any, rest: str) -> bool:
    if rest == "" or _LAST.fullmatch(rest):
        return True
    if isinstance(here, list):
        index = _INDEX.match(rest)
        return index is not None and int(index[1]) < len(here) and _leads(here[int(index[1])], rest[index.end() :])
    if not isinstance(here, dict):
        return False
    # A key of a map is written as a name, dots and all, or in brackets.
    for key in here:
        for step in (f"[{key}]", key):
            behind = rest.removeprefix(step)
            if behind != rest and behind[:1] in ("", ".", "[") and _leads(here[key], behind.removeprefix(".")):
                return True
    return False
