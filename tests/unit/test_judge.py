"""Answers that never came are told from each other by what was asked."""

from __future__ import annotations

from typing import Any

import dspy
from dspy.utils.exceptions import LMError

from dspy_operator.runner.judge import Attempt


def test_two_images_of_one_length_are_two_rows() -> None:
    """DSPy's own text of an image shows only how many letters it has."""
    lost, answered = ("data:image/png;base64,AAAA", "data:image/png;base64,BBBB")

    def program(**inputs: Any) -> Any:
        if inputs["scan"].url == lost:
            raise LMError("no answer")
        return dspy.Prediction(label="a")

    attempt = Attempt(program)
    for url in (lost, answered):
        attempt(scan=dspy.Image(url), asked="2026-11-26")
    assert attempt.failure_of({"scan": lost, "asked": "2026-11-26"}) == "request"
    assert attempt.failure_of({"asked": "2026-11-26", "scan": answered}) is None
