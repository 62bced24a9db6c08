"""Values to DSPy and back: JSON in, JSON out, nothing lost."""

from __future__ import annotations

import datetime
import json
from typing import Any

import dspy
from pydantic import BaseModel

from dspy_operator.contract.canonical import row_digest
from dspy_operator.runner.values import for_dspy, plain, plain_fields

PIXEL = "data:image/png;base64,iVBORw0KGgo="


class Line(BaseModel):
    sku: str
    day: datetime.date | None


class Chat(dspy.Signature):  # type: ignore[misc]
    photo: dspy.Image = dspy.InputField()
    voice: dspy.Audio = dspy.InputField()
    chat: dspy.History = dspy.InputField()
    day: datetime.date = dspy.InputField()
    answer: Line = dspy.OutputField()


ROW: dict[str, Any] = {
    "photo": PIXEL,
    "voice": "data:audio/mp3;base64,SUQz",
    "chat": {
        "messages": [
            {
                "photo": "https://a/b.png",
                "voice": "data:audio/wav;base64,UklGRg==",
                "day": "2026-01-01",
                "answer": {"sku": "a", "day": None},
            }
        ]
    },
    "day": "2026-11-26",
}


def test_a_row_comes_back_as_it_was() -> None:
    typed = for_dspy(Chat.input_fields, ROW)
    assert isinstance(typed["photo"], dspy.Image)
    assert isinstance(typed["voice"], dspy.Audio)
    assert isinstance(typed["chat"].messages[0]["photo"], dspy.Image)
    assert isinstance(typed["chat"].messages[0]["voice"], dspy.Audio)
    assert plain(typed) == ROW
    assert row_digest(plain_fields(dspy.Example(**typed))) == row_digest(ROW)


def test_what_dspy_answers_with_is_json() -> None:
    moment = datetime.datetime(2026, 11, 26, 10, tzinfo=datetime.UTC)
    answer = dspy.Prediction(lines=[Line(sku="ä", day=datetime.date(2026, 1, 2))], at={"x": moment}, none=None, n=1.0)
    want = {"lines": [{"sku": "ä", "day": "2026-01-02"}], "at": {"x": "2026-11-26T10:00:00Z"}, "none": None, "n": 1.0}
    assert plain_fields(answer) == want
    assert json.loads(json.dumps(plain_fields(answer))) == want


def test_json_is_left_alone() -> None:
    value = {"a": [1, 1.0, True, None, "x"], "b": {"c": {}}}
    assert json.dumps(plain(value)) == json.dumps(value)
