"""Logs: one JSON object a line on stderr, with the object that it is about: kind, namespace, name, attempt."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import structlog

from dspy_operator.engine.plan import Body, Key

LEVELS = ("debug", "info", "warning", "error")


def log_to(stream: IO[str], *, level: str = "info") -> None:
    """Send everything that is logged to a stream, libraries' lines too.

    Args:
        stream: where lines go.
        level: one of LEVELS, of our own lines; libraries never go below info, since kopf's debug lines hold whole
            objects.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
        structlog.processors.EventRenamer("message"),
    ]
    structlog.configure(
        processors=[*shared[:-2], structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared[:-2],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *shared[-2:],
                structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    wanted = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(max(wanted, logging.INFO))
    logging.getLogger("dspy_operator").setLevel(wanted)
    for noisy in ("kopf", "aiohttp", "asyncio"):
        logging.getLogger(noisy).setLevel(max(wanted, logging.WARNING))
    logging.captureWarnings(True)


def log_to_stderr(level: str) -> None:
    """For a process."""
    log_to(sys.stderr, level=level)


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """A module's logger; takes facts as keyword arguments."""
    found: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return found


@contextmanager
def about(key: Key, body: Body | None) -> Iterator[None]:
    """Every line inside is about this object."""
    facts: dict[str, Any] = {"kind": key.kind, "namespace": key.namespace, "name": key.name}
    attempt = ((body or {}).get("status") or {}).get("attempt")
    if attempt is not None:
        facts["attempt"] = attempt
    with structlog.contextvars.bound_contextvars(**facts):
        yield
