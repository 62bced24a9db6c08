"""Saying in words how a request differs from a recorded one."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any


def nearest_difference(request: Mapping[str, Any], recorded: Iterable[Mapping[str, Any] | None]) -> str:
    """The most similar recorded request, and the lines in which the two differ (at most 12)."""
    new = _lines(request)
    best: tuple[float, list[str]] | None = None
    for other in recorded:
        if other is None:
            continue
        old = _lines(other)
        ratio = difflib.SequenceMatcher(None, old, new, autojunk=False).quick_ratio()
        if best is None or ratio > best[0]:
            best = (ratio, old)
    if best is None:
        return "the journal holds no request that was not asked for yet"
    changed = list(difflib.unified_diff(best[1], new, "recorded", "now", lineterm="", n=0))[2:]
    shown = "\n".join(line[:200] for line in changed[:12])
    more = f"\n... and {len(changed) - 12} lines more" if len(changed) > 12 else ""
    return f"the nearest recorded request differs in:\n{shown}{more}"


def _lines(request: Mapping[str, Any]) -> list[str]:
    """A request as lines: its settings, then each message's text as it reads."""
    lines = [
        f"{key}: {json.dumps(value, sort_keys=True)}"
        for key, value in sorted(request.items())
        if key not in {"messages", "system"}
    ]
    lines += _text_lines("system", request.get("system"))
    for message in request.get("messages", ()):
        lines += _text_lines(str(message.get("role")), message.get("parts", message.get("content")))
    return lines


def _text_lines(role: str, content: Any) -> list[str]:
    texts = [content] if isinstance(content, str) else [part.get("text", json.dumps(part)) for part in content or ()]
    return [f"{role}: {line}" for text in texts for line in str(text).splitlines()]
