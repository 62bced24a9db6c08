"""Programs with code of one's own in a ConfigMap: a metric, a reward, or the whole program."""

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


def config_map(key: str, text: str) -> dict[str, Any]:
    """The ConfigMap `code`, with one file."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "code"}, "data": {key: text}}


@dataclass
class Coded(Case):
    """A case with metric.py beside its rows."""

    source: str = SCORE
    metric: Mapping[str, Any] = field(default_factory=lambda: METRIC)

    def objects(self) -> list[dict[str, Any]]:
        """The manifests, with the code's ConfigMap behind them."""
        made = super().objects()
        made[2]["spec"]["metric"] = dict(self.metric)
        return [*made, config_map("metric.py", self.source)]


PROGRAM = '''\
"""First what the text is about, then its label."""

import dspy


class Label(dspy.Signature):
    """Classify the text."""

    text: str = dspy.InputField()
    topic: str = dspy.InputField()
    label: str = dspy.OutputField()


class Classifier(dspy.Module):
    def __init__(self):
        super().__init__()
        self.look = dspy.Predict("text -> topic")
        self.say = dspy.Predict(Label)

    def forward(self, text):
        topic = self.look(text=text).topic
        return dspy.Prediction(label=self.say(text=text, topic=topic).label.strip())


def build():
    return Classifier()
'''


def code_program(**more: Any) -> dict[str, Any]:
    """A program of type Code: program.py of the ConfigMap `code`."""
    code = {
        "configMap": {"name": "code", "key": "program.py"},
        "entrypoint": "program:build",
        "inputs": [{"name": "text", "type": "str"}],
        "outputs": [{"name": "label", "type": 'Literal["positive", "negative"]'}],
        "calls": 2,
    }
    return {"type": "Code", "code": {**code, **more}}


@dataclass
class Written(Case):
    """A case whose program is code."""

    source: str = PROGRAM
    code: Mapping[str, Any] = field(default_factory=code_program)

    def objects(self) -> list[dict[str, Any]]:
        """The manifests, with the code's ConfigMap behind them."""
        made = super().objects()
        made[2]["spec"]["program"] = dict(self.code)
        return [*made, config_map("program.py", self.source)]
