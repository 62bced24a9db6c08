"""What controllers say while tests run: the worlds in memory pass on each Plan, and whoever listens has all of its words.

So that a test can ask what the other tests reach, without scenes of its own.
"""

from __future__ import annotations

import itertools
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from dspy_operator.engine.plan import Plan


@dataclass
class Heard:
    """Words of one kind."""

    conditions: set[tuple[str, str, str]] = field(default_factory=set)
    """Type, status and reason."""
    phases: set[str] = field(default_factory=set)
    outcomes: set[str] = field(default_factory=set)
    events: set[str] = field(default_factory=set)
    """Their reasons."""
    verdicts: set[str] = field(default_factory=set)
    """On candidates."""


_listeners: list[tuple[str, Heard]] = []


def says(kind: str, plan: Plan) -> None:
    """A controller has decided."""
    for of, heard in _listeners:
        if of != kind:
            continue
        status = plan.status or {}
        heard.conditions |= {(one["type"], one["status"], one["reason"]) for one in status.get("conditions", ())}
        heard.phases |= {status["phase"]} if status.get("phase") else set()
        heard.outcomes |= {status["outcome"]} if status.get("outcome") else set()
        heard.verdicts |= {one["verdict"] for one in status.get("candidates", ())}
        heard.events |= {event.reason for event in plan.events}


@contextmanager
def listening(kind: str) -> Iterator[Heard]:
    """All that is said of a kind meanwhile."""
    entry = (kind, Heard())
    _listeners.append(entry)
    try:
        yield entry[1]
    finally:
        _listeners.remove(entry)


def cases(module: types.ModuleType) -> Iterator[Callable[[], Any]]:
    """Each test of a module with each of its parameters, as something to call; tests here have no fixtures."""
    for name, test in vars(module).items():
        if not name.startswith("test_") or not callable(test):
            continue
        marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
        for chosen in itertools.product(*(_arguments(*mark.args) for mark in marks)):
            arguments = {name: value for one in chosen for name, value in one.items()}
            yield partial(test, **arguments)


def _arguments(argnames: Any, values: Any) -> list[dict[str, Any]]:
    names = [name.strip() for name in argnames.split(",")] if isinstance(argnames, str) else list(argnames)
    found = []
    for value in values:
        given = getattr(value, "values", value) if hasattr(value, "marks") else value
        if len(names) == 1 and not hasattr(value, "marks"):
            given = (value,)
        found.append(dict(zip(names, given, strict=True)))
    return found
