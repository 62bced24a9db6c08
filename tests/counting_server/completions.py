"""Writes a chat completion as OpenAI does, and says what it used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.counting_server import answers, prompts, tokens
from tests.counting_server.script import FaultType, Script

_CREATED = 1_700_000_000  # fixed: an answer must not depend on when it was given
_UNPARSABLE = "I would rather talk about the weather."


@dataclass(frozen=True, kw_only=True)
class Completion:
    """A completion's body and its usage."""

    payload: Mapping[str, Any]
    prompt_tokens: int
    completion_tokens: int


def prompt_tokens(body: Mapping[str, Any]) -> int:
    """The prompt tokens of a request."""
    return tokens.count_prompt([prompts.text_of(message.get("content")) for message in body["messages"]])


def complete(
    body: Mapping[str, Any], *, key: str, script: Script, repetition: int = 0, fault: FaultType | None = None
) -> Completion:
    """The completion of `body`, spoilt as `fault` says. `repetition` matters at temperature > 0 alone."""
    asked = prompts.read({**body, "response_format": None} if script.ignores_schemas else body)
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    choices: list[dict[str, Any]] = []
    used = 0
    for index in range(body.get("n") or 1):
        whole = _content(asked, script, answers.sampling_salt(body, choice=index, repetition=repetition), fault)
        content = tokens.cut(whole, limit) if limit else whole
        used += tokens.count(content)
        choices.append(
            {
                "index": index,
                "message": {"role": "assistant", "content": content},
                "finish_reason": "stop" if content == whole else "length",
            }
        )
    prompt = prompt_tokens(body)
    usage: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": used, "total_tokens": prompt + used}
    if script.cached_tokens is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": min(script.cached_tokens, prompt)}
    payload: dict[str, Any] = {
        "id": f"chatcmpl-{key[:24]}",
        "object": "chat.completion",
        "created": _CREATED,
        "model": body.get("model"),
        "choices": choices,
        "usage": usage,
    }
    if fault is FaultType.NO_USAGE:
        del payload["usage"]
    return Completion(payload=payload, prompt_tokens=prompt, completion_tokens=used)


def _content(asked: prompts.Asked, script: Script, salt: str, fault: FaultType | None) -> str:
    if fault is FaultType.EMPTY:
        return ""
    return _UNPARSABLE if fault is FaultType.GARBAGE_TEXT else answers.answer(asked, script, salt)
