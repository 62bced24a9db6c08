"""A template of feedback: what GEPA is told of an answer, in the words of the program's author."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dspy_operator.runner.metrics.shape import Fields, shortened, shown

_ABSENT = "no answer that can be read"
_MARK = re.compile(r"\{\{|\}\}|\{(?P<name>[^{}]*)\}|[{}]")


class InvalidTemplate(ValueError):
    """A placeholder that means nothing; the message says which, where, and what is allowed."""


class Template:
    """A text with {expected.<output>}, {found.<output>} and {score} in it; {{ and }} are braces.

    A text stands there as it is, anything else as JSON, each with its first 1000 characters.

    Args:
        text: the template.
        outputs: of the program.
    Raises:
        InvalidTemplate: another placeholder, or a lone brace.
    """

    def __init__(self, text: str, outputs: Sequence[str]) -> None:
        known = [f"{side}.{name}" for side in ("expected", "found") for name in outputs] + ["score"]
        self._parts: list[tuple[str, str | None]] = []
        """(plain text, the placeholder behind it)."""
        end = 0
        for mark in _MARK.finditer(text):
            before, end = text[end : mark.start()], mark.end()
            if mark[0] in ("{{", "}}"):
                self._parts.append((before + mark[0][0], None))
            elif mark["name"] in known:
                self._parts.append((before, mark["name"]))
            else:
                what = "lone brace" if mark["name"] is None else "unknown placeholder"
                allowed = ", ".join(f"{{{name}}}" for name in known)
                raise InvalidTemplate(
                    f"{what} {mark[0]} at {mark.start()}; allowed: {allowed}; {{{{ and }}}} are braces"
                )
        self._parts.append((text[end:], None))

    def render(self, gold: Fields, predicted: Fields, score: float) -> str:
        """The feedback on one answer."""

        def value(placeholder: str) -> str:
            if placeholder == "score":
                return f"{score:.4g}"
            side, _, name = placeholder.partition(".")
            found = (gold if side == "expected" else predicted).get(name, _ABSENT)
            return shortened(found) if isinstance(found, str) else shown(found)

        return "".join(text + (value(placeholder) if placeholder else "") for text, placeholder in self._parts)
