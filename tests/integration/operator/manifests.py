"""Objects as a person writes them; each test says only what it is about."""

from __future__ import annotations

import copy
import json
from typing import Any

API = "dspy-operator.io/v1alpha1"
Body = dict[str, Any]
ROWS = 180
"""A third of them is the test: 60 rows are the fewest on which the gate can promote at its first look."""


def rows(count: int = ROWS, *, column: str = "category") -> str:
    """JSON Lines: a ticket and its category."""
    return "\n".join(
        json.dumps({"text": f"ticket {number}", column: ("billing", "bug")[number % 2]}) for number in range(count)
    )


def a_dataset(name: str = "tickets", text: str | None = None, *, key: str = "data.jsonl") -> Body:
    """The user's ConfigMap."""
    data = {key: rows() if text is None else text}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def an_endpoint(name: str = "qwen", **spec: Any) -> Body:
    """An external endpoint: nothing has to start."""
    provider = {"type": "OpenAI", "openai": {"baseURL": "http://models.example/v1", "model": "qwen"}}
    return _object("ModelEndpoint", name, {"provider": provider, **spec})


def an_ollama_endpoint(name: str = "qwen", model: str = "qwen2.5:0.5b", **spec: Any) -> Body:
    """An endpoint whose pods the operator runs."""
    return _object("ModelEndpoint", name, {"provider": {"type": "Ollama", "ollama": {"model": model}}, **spec})


def a_program(name: str = "triage", **changes: Any) -> Body:
    """A program; a change names its path with "__": `metric__exactMatch={...}`."""
    spec: Body = {
        "program": {
            "type": "Single",
            "single": {
                "signature": {
                    "instructions": "Classify the ticket.",
                    "inputs": [{"name": "ticket", "type": "str"}],
                    "outputs": [{"name": "label", "type": 'Literal["billing", "bug"]'}],
                }
            },
        },
        "target": {"endpoint": {"name": "qwen"}},
        "dataset": {
            "source": {"type": "ConfigMap", "configMap": {"name": "tickets", "key": "data.jsonl"}},
            "format": "JSONL",
            "fields": {"ticket": "text", "label": "category"},
        },
        "metric": {"type": "ExactMatch"},
    }
    return changed(_object("PromptProgram", name, spec), **changes)


def a_run(name: str = "fast", **changes: Any) -> Body:
    """A run with a budget that is enough, and no journal volume: there is no storage here."""
    spec: Body = {
        "programRef": {"name": "triage"},
        "optimizer": {"type": "BootstrapFewShot"},
        "budget": {"calls": 1000},
        "journal": {"type": "EmptyDir"},
    }
    return changed(_object("OptimizationRun", name, spec), **changes)


def changed(body: Body, **changes: Any) -> Body:
    """A copy with fields of `spec` set; None takes a field away."""
    result = copy.deepcopy(body)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = result["spec"]
        for parent in parents:
            place = place.setdefault(parent, {})
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
    return result


def _object(kind: str, name: str, spec: Body) -> Body:
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": spec}
