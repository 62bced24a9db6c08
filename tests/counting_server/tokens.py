"""A tokenization that needs no vocabulary: a token is up to four characters of a word, with the space before it.

Counting and cutting use the same pattern, so `count(cut(text, n))` is exactly `min(n, count(text))`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_TOKEN = re.compile(r"\s*\S{1,4}")
_PER_MESSAGE = 4  # OpenAI's own rule of thumb for the role and the separators of one message


def count(text: str) -> int:
    """The number of tokens in `text`."""
    return len(_TOKEN.findall(text))


def cut(text: str, limit: int) -> str:
    """The first `limit` tokens of `text`; `text` itself if it has no more than that."""
    tokens = _TOKEN.findall(text)
    return text if len(tokens) <= limit else "".join(tokens[:limit])


def count_prompt(contents: Sequence[str]) -> int:
    """The prompt tokens of a conversation, given the text of each message."""
    return sum(_PER_MESSAGE + count(content) for content in contents)
