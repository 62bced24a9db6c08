"""Programs that runs are killed with: one call a row, several calls, tools, lookups, a judge, and a model that samples."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from tests.integration.acceptance import Reference, reference, uninterrupted
from tests.integration.graded import RUBRIC, Graded
from tests.integration.graph import graph_case
from tests.integration.harness import OPTIMIZERS, SMALL, Case
from tests.integration.react import react_case

REWARD = {"type": "Regex", "regex": {"field": "label", "pattern": "^positive$"}}
REFINE = {"type": "Refine", "refine": {"attempts": 3, "threshold": "1", "reward": REWARD}}
WARM = {"temperature": "0.7"}
PROGRAMS = ("Predict", "ReAct", "Graph", "Refine", "judge", "temperature 0.7")
ROWS: dict[str, Any] = {"dev": 12, "test": 6}


def case_of(program: str, optimizer: str, tools: str, search: str) -> Case:
    """A run of one of PROGRAMS by one of OPTIMIZERS; the URLs are those of tools and lookups."""
    if program == "Predict":
        return Case(OPTIMIZERS[optimizer])
    if program == "ReAct":
        return react_case(SMALL[optimizer], tools, **ROWS)
    if program == "Graph":
        return graph_case(SMALL[optimizer], search)
    if program == "Refine":
        return Case(SMALL[optimizer], **ROWS, program={"program": {"single": {"module": REFINE}}})
    if program == "judge":  # three votes at temperature 0.7, of the task's own endpoint
        votes = {"type": "Judge", "judge": {**RUBRIC, "scale": 5, "votes": 3}}
        sampled = {"endpoints": {"judge": {"name": "fake", "request": WARM}}}
        return Graded(SMALL[optimizer], **ROWS, metric=votes, run=sampled)
    if program == "temperature 0.7":
        return Case(OPTIMIZERS[optimizer], program={"target": {"request": WARM}})
    raise ValueError(program)


@functools.cache
def whole_of(folder: Path, program: str, optimizer: str, tools: str, search: str) -> Reference:
    """That run, uninterrupted: once for all tests of a process, which share the two servers."""
    if program == "Predict":
        return reference(folder, optimizer)
    return uninterrupted(folder / f"reference-{optimizer}-{program}", case_of(program, optimizer, tools, search))
