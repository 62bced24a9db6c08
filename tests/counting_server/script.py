"""The script: what the server is told to do, read from JSON and checked where it is given, not where it is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from types import UnionType
from typing import Any, get_type_hints


class ScriptError(ValueError):
    """The script is not one. The message names the full path and what was expected."""


class FaultType(StrEnum):
    """What a faulty request gets instead of its answer."""

    RATE_LIMIT = "429"
    SERVER_ERROR = "500"
    UNAVAILABLE = "503"
    UNAUTHORIZED = "401"
    NOT_FOUND = "404"
    """The server does not know the model."""
    BILLING = "billing"
    """429 with OpenAI's code insufficient_quota, which no retry repairs."""
    HANG = "hang"
    """The answer comes after `seconds`; without them, only when the server stops."""
    DROP = "drop"
    """The connection is closed: at once, or in the middle of the answer after `partial_bytes`."""
    GARBAGE = "garbage"
    """200 with a body that is not JSON."""
    GARBAGE_TEXT = "garbage_text"
    """200 with a completion that no adapter can parse."""
    CONTEXT_LENGTH = "context_length"
    CONTENT_FILTER = "content_filter"
    EMPTY = "empty"
    """200 with an empty completion."""
    NO_USAGE = "no_usage"
    """A right answer without its usage block (the server still counts the tokens)."""


@dataclass(frozen=True, kw_only=True)
class When:
    """Which requests a fault meets: those for which everything that is given holds. Ordinals count from 1."""

    after: int = 0
    """Only ordinals above this."""
    until: int | None = None
    """Only ordinals up to this one."""
    every: int = 1
    """Of those after `after`, each k-th."""
    probability: float = 1.0
    """The share of ordinals, decided by a hash of (seed, ordinal)."""
    seed: int = 0
    match: str = ""
    """Text that one of the messages, or the raw body, contains."""
    model: str | None = None
    max: int | None = None
    """How often the fault is met at most, since the script was given."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One scripted fault. The first one in the script whose `when` holds is met."""

    type: FaultType
    when: When = When()
    retry_after: float | None = None
    """Seconds in the Retry-After header of a 429 or 503; no header without it."""
    seconds: float | None = None
    partial_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Skill:
    """How probable a right answer is: base + per_demo * demos + an effect of the instructions, between 0 and max."""

    base: float = 0.5
    per_demo: float = 0.08
    instructions: float = 0.15
    """The instructions' effect lies within plus and minus this, by their hash."""
    max: float = 0.95
    noise: float = 1.0
    """1: each prompt draws each row anew. 0: a row has a fixed difficulty, and a better prompt never loses a row."""


@dataclass(frozen=True, kw_only=True)
class Latency:
    """How long an answer takes: between the two, by the hash of the request."""

    min_ms: float = 0.0
    max_ms: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Notify:
    """Tell a test that a request has come: one line with its ordinal, appended to `file` before it is answered."""

    at: frozenset[int]
    file: str


@dataclass(frozen=True, kw_only=True)
class Script:
    """All that the server can be told."""

    answers: Mapping[str, Any] = field(default_factory=dict)
    """Text within a row -> its right answer: one value, or {output field: value}."""
    skill: Skill = Skill()
    judge_slips: float = 0.0
    """The share of answers that a judge takes for bad where they are good, and the other way round."""
    faults: tuple[Fault, ...] = ()
    latency: Latency = Latency()
    api_key: str | None = None
    stochastic: bool = False
    """At temperature > 0, each repetition of a request gets another answer."""
    sorted_properties: bool = False
    """JSON answers have their properties in alphabetical order, as some constrained decoders write them."""
    ignores_schemas: bool = False
    """A `response_format` is taken, and nothing is done with it."""
    cached_tokens: int | None = None
    most_at_once: int | None = None
    """How many requests are worked at; the others get a 429 at once."""
    most_per_second: int | None = None
    """How many are taken within any second; the others get a 429 at once."""
    models: tuple[str, ...] = ("fake",)
    keep_requests: int = 1000
    notify: Notify | None = None
    hold_at: frozenset[int] = frozenset()
    """Ordinals that are answered only after POST /_release."""

    @classmethod
    def from_json(cls, data: object) -> Script:
        """The script in `data`, parsed JSON. Raises ScriptError."""
        given = dict(_mapping(data, "script"))
        path = "script"
        if "latency_ms" in given:
            given["latency"] = _latency(given.pop("latency_ms"), f"{path}.latency_ms")
        if "skill" in given:
            given["skill"] = Skill(**_checked(Skill, given["skill"], f"{path}.skill"))
        if "faults" in given:
            listed = _list(given["faults"], f"{path}.faults")
            given["faults"] = tuple(_fault(one, f"{path}.faults[{i}]") for i, one in enumerate(listed))
        if "notify" in given:
            given["notify"] = _notify(given["notify"], f"{path}.notify")
        if "hold_at" in given:
            given["hold_at"] = _ordinals(given["hold_at"], f"{path}.hold_at")
        if "models" in given:
            given["models"] = tuple(str(model) for model in _list(given["models"], f"{path}.models"))
        if "answers" in given:
            _mapping(given["answers"], f"{path}.answers")
        return cls(**_checked(cls, given, path))


def _fault(data: object, path: str) -> Fault:
    given = dict(_mapping(data, path))
    if given.get("type") not in set(FaultType):
        raise ScriptError(f"{path}.type: {given.get('type')!r} is not a fault (faults: {', '.join(FaultType)})")
    given["type"] = FaultType(given["type"])
    when = _checked(When, given.get("when", {}), f"{path}.when")
    if when.get("every", 1) < 1:
        raise ScriptError(f"{path}.when.every: {when['every']} is not a positive number")
    given["when"] = When(**when)
    return Fault(**_checked(Fault, given, path))


def _latency(data: object, path: str) -> Latency:
    if isinstance(data, int | float):
        return Latency(min_ms=data, max_ms=data)
    given = _mapping(data, path)
    if set(given) != {"min", "max"}:
        raise ScriptError(f'{path}: expected a number or {{"min": ..., "max": ...}}, got {data!r}')
    return Latency(min_ms=float(given["min"]), max_ms=float(given["max"]))


def _notify(data: object, path: str) -> Notify:
    given = _mapping(data, path)
    if set(given) != {"at", "file"}:
        raise ScriptError(f'{path}: expected {{"at": [ordinals], "file": path}}, got {data!r}')
    return Notify(at=_ordinals(given["at"], f"{path}.at"), file=str(given["file"]))


def _ordinals(data: object, path: str) -> frozenset[int]:
    listed = [data] if isinstance(data, int) else _list(data, path)
    if not all(isinstance(ordinal, int) and ordinal >= 1 for ordinal in listed):
        raise ScriptError(f"{path}: expected ordinals from 1 on, got {data!r}")
    return frozenset(listed)


def _mapping(data: object, path: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise ScriptError(f"{path}: expected an object, got {type(data).__name__}")
    return data


def _list(data: object, path: str) -> list[Any]:
    if not isinstance(data, list | tuple):
        raise ScriptError(f"{path}: expected a list, got {type(data).__name__}")
    return list(data)


def _checked(of: type, data: object, path: str) -> dict[str, Any]:
    """`data`, if `of` has a field for each of its keys and its numbers, texts and switches are such."""
    given = dict(_mapping(data, path))
    known = {each.name for each in fields(of)}
    if unknown := sorted(set(given) - known):
        raise ScriptError(f"{path}.{unknown[0]}: unknown (known: {', '.join(sorted(known))})")
    hints = get_type_hints(of)
    for name, value in given.items():
        allowed = hints[name].__args__ if isinstance(hints[name], UnionType) else (hints[name],)
        plain = tuple(each for each in allowed if each in (int, float, str, bool, type(None)))
        accepted = (*plain, int) if float in plain else plain
        wrong_switch = isinstance(value, bool) and bool not in plain
        if len(plain) == len(allowed) and (wrong_switch or not isinstance(value, accepted)):
            raise ScriptError(f"{path}.{name}: expected {' or '.join(t.__name__ for t in plain)}, got {value!r}")
    return given
