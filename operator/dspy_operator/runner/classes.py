"""Scores by class, where ExactMatch compares an output of type Literal: a program that never says a rare class is seen here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from dspy_operator.api.object_types import program_types
from dspy_operator.api.signature_types import Choice
from dspy_operator.contract.runspec import ProgramPart
from dspy_operator.runner.judge import Judged
from dspy_operator.runner.metrics.exact_match import equal

MOST_CLASSES = 100
"""More are not told one by one: the report lies in a ConfigMap."""

Classes = Mapping[str, Mapping[str, Any]]
"""Output -> {"macroF1": 0 to 100, "classes": {value: {"precision", "recall", "f1", "support"}}}."""


def classified(program: ProgramPart, compared: Sequence[str]) -> dict[str, Choice]:
    """The outputs that have classes: those of type Literal that ExactMatch compares."""
    if program.metric.type != "ExactMatch":
        return {}
    types = program_types(program.program, program.types).fields
    return {name: choice for name in compared if isinstance(choice := types[name], Choice)}


def by_class(rows: Sequence[Judged], outputs: Mapping[str, Choice], repeats: int = 1) -> Classes:
    """What one program came to, over all answers.

    As scikit-learn's `f1_score(average="macro", zero_division=0)`: over the classes that some label or answer has, each
    counts alike. An answer that cannot be read is of no class: its row's class misses it, none has it too many.
    """
    return {name: _report(rows, name, choice, repeats) for name, choice in outputs.items()}


def _report(rows: Sequence[Judged], output: str, choice: Choice, repeats: int) -> dict[str, Any]:
    wanted = [_class(choice, judged.row.outputs[output]) for judged in rows]
    found = [_class(choice, judged.outputs.get(output)) for judged in rows]
    scores, f1 = {}, []
    for number, value in enumerate(choice.values):
        support, said = wanted.count(number), found.count(number)
        if support or said:
            right = sum(one == other == number for one, other in zip(wanted, found, strict=True))
            f1.append(200 * right / (support + said))
            scores[value if isinstance(value, str) else json.dumps(value)] = {
                "precision": round(100 * right / said, 4) if said else 0.0,
                "recall": round(100 * right / support, 4) if support else 0.0,
                "f1": round(f1[-1], 4),
                "support": support // repeats,
            }
    report: dict[str, Any] = {"macroF1": round(sum(f1) / len(f1), 4)}
    return report | ({"classes": scores} if len(scores) <= MOST_CLASSES else {})


def _class(choice: Choice, value: object) -> int | None:
    return next((number for number, each in enumerate(choice.values) if equal(each, value)), None)
