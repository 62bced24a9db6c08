"""A model in this process, behind DSPy's engine interface: it answers whatever is asked, counts, and stops where told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dspy import lm15
from dspy._vendor.lm15.serde import request_to_dict

from tests.counting_server.answers import answer, sampling_salt
from tests.counting_server.prompts import read
from tests.counting_server.script import Script, Skill

ANSWERS: dict[str, Any] = {f"text {number}.": ("yes", "no")[number % 2] for number in range(24)}


class Stop(BaseException):
    """What nothing in DSPy may swallow; the runner's RunStop is one."""


@dataclass
class Engine:
    """As dspy.LM wants it."""

    script: Script = field(default_factory=lambda: Script(answers=ANSWERS, skill=Skill(base=0.5)))
    says: str | None = None
    """What it answers always, in place of what the script has."""
    fails: Callable[[int], BaseException | None] = lambda _: None
    """What the call of this number raises; they count from 1."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def complete(self, request: lm15.Request) -> lm15.Response:
        document = request_to_dict(request)
        with self._lock:
            self.requests.append(document)
            number = len(self.requests)
        if (failure := self.fails(number)) is not None:
            raise failure
        body = _openai(document)
        said = answer(read(body), self.script, sampling_salt(body, choice=0, repetition=number))
        return lm15.Response(
            id=f"r{number}",
            model=request.model,
            message=lm15.Message.assistant(said if self.says is None else self.says),
            finish_reason="stop",
            usage=lm15.Usage(input_tokens=7, output_tokens=3, total_tokens=10),
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Engine:
        return self


def stops_from(first: int) -> Callable[[int], BaseException | None]:
    """As a budget that is used up: no call from this one on is answered."""
    return lambda number: Stop(f"call {number}") if number >= first else None


def _openai(document: dict[str, Any]) -> dict[str, Any]:
    """lm15's form of a request as the counting server reads it."""
    system = [{"role": "system", "content": document["system"]}] if document.get("system") else []
    turns = [{"role": turn["role"], "content": turn["parts"]} for turn in document["messages"]]
    config = document.get("config", {})
    return {"messages": [*system, *turns], "temperature": config.get("temperature")}
