"""Programs whose metric is a function of one's own, in a ConfigMap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.integration.harness import Case

METRIC: Mapping[str, Any] = {
    "type": "Code",
    "code": {"configMap": {"name": "code", "key": "metric.py"}, "entrypoint": "metric:score"},
}
SCORE = '''\
"""How good a label is."""

import dspy


def score(example, prediction, trace=None):
    """1 where it is right; else a tenth, and why."""
    if prediction.label == example.label:
        return True
    return dspy.Prediction(score=0.1, feedback=f"{example.text} is not {prediction.label}")
'''


@dataclass
class Coded(Case):
    """A case with metric.py beside its rows."""

    source: str = SCORE
    metric: Mapping[str, Any] = field(default_factory=lambda: METRIC)

    def objects(self) -> list[dict[str, Any]]:
        """The manifests, with the code's ConfigMap behind them."""
        code = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "code"},
            "data": {"metric.py": self.source},
        }
        made = super().objects()
        made[2]["spec"]["metric"] = dict(self.metric)
        return [*made, code]
