"""Decides which scripted fault, if any, a request meets, and how OpenAI words it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.counting_server.hashing import fraction
from tests.counting_server.script import Fault, FaultType, When


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An HTTP answer, ready to be written."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_json(cls, status: int, payload: object, headers: Mapping[str, str] | None = None) -> Reply:
        """`payload` as JSON."""
        return cls(status=status, body=json.dumps(payload, ensure_ascii=False).encode(), headers=headers or {})


class FaultPlan:
    """The faults of one script, and how often each was met. Not thread-safe: the server's loop alone asks it."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self._faults = tuple(faults)
        self._met: Counter[int] = Counter()

    def choose(self, *, ordinal: int, model: str, texts: Sequence[str]) -> Fault | None:
        """The fault that the request with this ordinal meets; counts it. `texts` are what `match` looks at."""
        for index, fault in enumerate(self._faults):
            spent = fault.when.max is not None and self._met[index] >= fault.when.max
            if not spent and holds(fault.when, ordinal=ordinal, model=model, texts=texts):
                self._met[index] += 1
                return fault
        return None


def holds(when: When, *, ordinal: int, model: str, texts: Sequence[str]) -> bool:
    """Whether `when` describes this request, its `max` aside."""
    return (
        ordinal > when.after
        and (when.until is None or ordinal <= when.until)
        and (ordinal - when.after) % when.every == 0
        and (when.model is None or when.model == model)
        and (not when.match or any(when.match in text for text in texts))
        and fraction("fault", when.seed, ordinal) < when.probability
    )


def error(status: int, message: str, *, type_: str, code: str | None = None, param: str | None = None) -> Reply:
    """An error as OpenAI writes it."""
    return Reply.of_json(status, {"error": {"message": message, "type": type_, "param": param, "code": code}})


def error_reply(fault: Fault, *, prompt_tokens: int) -> Reply | None:
    """The error with which `fault` answers; None for faults that are no errors (a hang, a drop, a bad 200)."""
    reply = _ERRORS.get(fault.type)
    if fault.type is FaultType.CONTEXT_LENGTH:
        return error(
            400,
            f"This model's maximum context length is {max(prompt_tokens - 1, 1)} tokens. However, your messages "
            f"resulted in {prompt_tokens} tokens. Please reduce the length of the messages.",
            type_="invalid_request_error",
            code="context_length_exceeded",
            param="messages",
        )
    if reply is None or fault.retry_after is None:
        return reply
    return Reply(status=reply.status, body=reply.body, headers={"Retry-After": f"{fault.retry_after:g}"})


def wrong_key() -> Reply:
    """What a request without the right API key gets."""
    return error(401, "Incorrect API key provided.", type_="invalid_request_error", code="invalid_api_key")


def invalid(message: str, **more: Any) -> Reply:
    """What a request gets that is none."""
    return error(400, message, type_="invalid_request_error", **more)


_ERRORS: Mapping[FaultType, Reply] = {
    FaultType.RATE_LIMIT: error(429, "Rate limit reached.", type_="requests", code="rate_limit_exceeded"),
    FaultType.SERVER_ERROR: error(500, "The server had an error.", type_="server_error"),
    FaultType.UNAVAILABLE: error(503, "The engine is currently overloaded.", type_="server_error"),
    FaultType.UNAUTHORIZED: wrong_key(),
    FaultType.NOT_FOUND: error(
        404,
        "The model does not exist or you do not have access to it.",
        type_="invalid_request_error",
        code="model_not_found",
    ),
    FaultType.BILLING: error(
        429,
        "You exceeded your current quota, please check your plan and billing details.",
        type_="insufficient_quota",
        code="insufficient_quota",
    ),
    FaultType.CONTENT_FILTER: invalid(
        "Your request was rejected as a result of our safety system.", code="content_policy_violation"
    ),
}
