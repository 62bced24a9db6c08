"""One JSON object a line, and it says what it is about."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from dspy_operator.engine.logs import about, log_to, logger
from dspy_operator.engine.plan import Key

KEY = Key("OptimizationRun", "team-a", "mine")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    log_to(stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_names_the_object_and_its_attempt(stream: io.StringIO) -> None:
    with about(KEY, {"status": {"attempt": 2}}):
        logger("dspy_operator.test").info("hello", seconds=3)
    (line,) = lines(stream)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "dspy_operator.test",
        "message": "hello",
        "kind": "OptimizationRun",
        "namespace": "team-a",
        "name": "mine",
        "attempt": 2,
        "seconds": 3,
    }


def test_a_library_line_inside_names_the_object_too(stream: io.StringIO) -> None:
    with about(KEY, None):
        logging.getLogger("some.library").warning("it said %s", "so")
    (line,) = lines(stream)
    assert (line["message"], line["name"], line["logger"]) == ("it said so", "mine", "some.library")


def test_an_exception_is_one_line(stream: io.StringIO) -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger("dspy_operator.test").exception("failed")
    (line,) = lines(stream)
    assert "ValueError: two\nlines" in line["exception"]


def test_chatter_of_libraries_is_left_out(stream: io.StringIO) -> None:
    for noisy in ("kopf.objects", "aiohttp.access", "asyncio"):
        logging.getLogger(noisy).info("whole objects")
    logging.getLogger("dspy_operator.test").debug("details")
    assert lines(stream) == []
