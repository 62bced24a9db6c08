"""What others look at of an object: all but what its own room counts for people. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from dspy_operator.engine.plan import Body

_OF_ONE_VERSION = frozenset({"resourceVersion", "managedFields"})


def shown(body: Body, own: Collection[str]) -> tuple[Any, ...]:
    """To compare an object with itself as it was.

    Args:
        own: fields of the status that no other room reads.
    """
    return tuple(
        {name: value for name, value in part.items() if name not in passed_over}
        for part, passed_over in (
            (body["metadata"], _OF_ONE_VERSION),
            (body.get("spec") or {}, ()),
            (body.get("status") or {}, own),
        )
    )
