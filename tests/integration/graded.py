"""A run whose metric is a judge, on the harness's rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.integration.harness import Case

RUBRIC = {"instructions": "Is the label the right one for the text?"}
JUDGED = {"type": "Judge", "judge": RUBRIC}
PRICES = {"currency": "USD", "input": "3", "output": "15"}


@dataclass
class Graded(Case):
    """A program whose metric is a judge; with `judge` an endpoint of its own plays it."""

    metric: Mapping[str, Any] = field(default_factory=lambda: JUDGED)
    judge: Mapping[str, Any] | None = None
    """The run's `endpoints.judge`."""

    def objects(self) -> list[dict[str, Any]]:
        made = super().objects()
        made[2]["spec"]["metric"] = dict(self.metric)
        if self.judge is not None:
            made[3]["spec"]["endpoints"] = {"judge": dict(self.judge)}
            spec = {**made[1]["spec"], "pricing": PRICES}
            made.append({**made[1], "metadata": {"name": "grader"}, "spec": spec})
        return made
