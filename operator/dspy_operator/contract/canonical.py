"""One byte form for every value that is hashed: digests of rows, datasets, programs and runs stand on it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping

_FLOAT = "$float"


def canonical_json(value: object) -> bytes:
    """The value as JSON without a choice left: keys sorted by code point, no spaces, UTF-8 unescaped, no float.

    A float is written `{"$float": "0.5"}`, its shortest text that reads back as the same float: writers of JSON differ
    in how they print one. A key of the caller's own that begins with "$" gets one more "$", so that no two values share
    a form. 1, 1.0 and True differ, and so do texts that differ only in Unicode normalization. RFC 8785 was rejected: it
    prints 1.0 as 1.

    Raises:
        ValueError: NaN or infinity, a lone surrogate, or nesting too deep for JSON.
        TypeError: a type that JSON does not know, or a key that is no string.
    """
    try:
        plain = _without_floats(value)
        text = json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return text.encode()


def sha256_hex(data: bytes) -> str:
    """SHA-256 in lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def digest(value: object, algorithm: str = "v1") -> str:
    """Digest of a value's canonical form, prefixed with the name of the algorithm: `v1:<hex>`."""
    return f"{algorithm}:{sha256_hex(canonical_json(value))}"


def row_digest(mapped_fields: Mapping[str, object]) -> str:
    """Digest of one row: signature field -> typed value. Columns that are not mapped do not count."""
    return sha256_hex(canonical_json(mapped_fields))


def dataset_digest(rows: Iterable[tuple[str, str] | tuple[str, str, str | None]]) -> str:
    """Digest of an ordered list of (row digest, part) or (row digest, part, feedback); no feedback is none that is written."""
    return digest([[text for text in row if text is not None] for row in rows])


def _without_floats(value: object) -> object:
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a number that JSON can hold")
        return {_FLOAT: repr(float(value))}
    if isinstance(value, Mapping):
        return {_key(key): _without_floats(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_floats(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no canonical form")


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a key must be a string, not {type(key).__name__}")
    return f"${key}" if key.startswith("$") else str(key)
