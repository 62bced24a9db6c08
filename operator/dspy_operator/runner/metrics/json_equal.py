"""JSONEqual: the same JSON value, however it is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import NoReturn

from dspy_operator.runner.metrics.shape import Comparison, shown


class JSONEqual(Comparison):
    """A text is read as JSON; anything else is a JSON value already.

    White space and the order of keys do not count, the order of a list does. Numbers are compared by value (1 is 1.0, and
    0.10 is 0.1), texts as they are. A text that is no JSON, or has a key twice, equals nothing.
    """

    def score(self, wanted: object, found: object) -> float:
        """0 or 1."""
        try:
            return float(_same(_read(wanted), _read(found)))
        except (ValueError, RecursionError):
            return 0.0

    def got(self, found: object) -> str:
        """Says why a text is no JSON."""
        try:
            _read(found)
        except ValueError as error:
            return f"{shown(found)}, which is no JSON: {error}"
        return shown(found)

    def refusal(self, wanted: object) -> str | None:
        """A label that is no JSON."""
        try:
            value = _read(wanted)
            _same(value, value)
        except ValueError as error:
            return f"{shown(wanted)} is no JSON: {error}"
        except RecursionError:
            return "nested too deeply"
        return None


def _read(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(
            value, parse_float=Decimal, parse_constant=_refuse_constant, object_pairs_hook=_with_each_key_once
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at {error.pos}") from None
    except InvalidOperation:
        raise ValueError("a number is too large") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def _with_each_key_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {shown(next(key for key in keys if keys.count(key) > 1))} is there twice")
    return found


def _same(one: object, other: object) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(_exact(one) == _exact(other))


def _exact(value: object) -> object:
    """A float by its shortest text: 0.1 in a typed value is the 0.1 of a JSON text."""
    return Decimal(repr(value)) if isinstance(value, float) else value
