"""Regex: a pattern matches somewhere in the answer, whatever was expected."""

from __future__ import annotations

import json

import re2

from dspy_operator.runner.metrics.shape import Comparison

ALLOWED = "RE2's syntax, which has no look-around and no backreferences"


class InvalidPattern(ValueError):
    """No pattern of RE2; the message says why, where that is known, and what is allowed."""


class Regex(Comparison):
    """RE2 (google/re2), not Python's `re`: it takes time in proportion to the text whatever pattern and text are.

    `(a+)+$` on 100,000 letters takes 0.1 ms; `re` needs 1.2 s for 24 of them and four times that for two more, and could
    not be stopped (measured 2026-11). What is no text is matched as JSON: 42, true, ["a", "b"].

    Args:
        pattern: may match anywhere; `^` and `$` are the ends of the text.
    Raises:
        InvalidPattern: what RE2 does not take.
    """

    def __init__(self, pattern: str) -> None:
        options = re2.Options()
        options.log_errors = False
        options.never_capture = True
        try:
            self._pattern = re2.compile(pattern, options)
        except re2.error as error:
            raise InvalidPattern(_said(error, pattern)) from None
        self._text = pattern

    def score(self, wanted: object, found: object) -> float:
        """0 or 1."""
        text = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False, default=str)
        # A lone surrogate, which a model's JSON may hold, has no UTF-8.
        return float(self._pattern.search(text.encode("utf-8", "replace")) is not None)

    def expected(self, wanted: object) -> str:
        """The pattern."""
        return f"a match of {self._text}"


def _said(error: re2.error, pattern: str) -> str:
    """RE2 names the part that is wrong but not where it is; where that part stands once, it is there."""
    told = error.args[0].decode("utf-8", "replace") if isinstance(error.args[0], bytes) else str(error)
    what, _, part = told.partition(": ")
    where = f" at {pattern.index(part)}" if part and pattern.count(part) == 1 else ""
    return f"no regular expression: {what}{f' {json.dumps(part, ensure_ascii=False)}' if part else ''}{where}; allowed: {ALLOWED}"
