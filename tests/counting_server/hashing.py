"""Every decision of the server is a hash of what it was asked: no clock, no random state, no arrival order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

# Sent with a request, without any say in what the model sees or how it samples.
_NOT_PART_OF_THE_KEY = frozenset({"stream", "stream_options", "user", "store"})


def digest(*parts: object) -> str:
    """A hex digest of `parts`; their boundaries count, so that ("a", "bc") and ("ab", "c") differ."""
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()


def fraction(*parts: object) -> float:
    """A number in [0, 1) that looks uniform over different `parts` and is the same for the same `parts`."""
    return int(digest(*parts)[:13], 16) / 16**13


def pick(choices: Sequence[T], *parts: object) -> T:
    """One of the non-empty `choices`."""
    return choices[int(fraction(*parts) * len(choices))]


def request_key(body: Mapping[str, Any]) -> str:
    """The identity of a request: its canonical body. Two requests with one key ask for the same answer."""
    kept = {name: value for name, value in body.items() if name not in _NOT_PART_OF_THE_KEY}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
