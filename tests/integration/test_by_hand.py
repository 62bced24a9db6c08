"""The scripts that benchmarks compare us with (tests/perf/by_hand) do the same work: as many calls, the same score where nothing is drawn."""

from __future__ import annotations

import pytest

from tests.perf.benchmarks import SCRIPTS, finished, placed

PREFLIGHT_AND_PROBES = 4
"""Calls that are ours alone: a word from the prompt model, and what both threads of a pair may ask at once."""


@pytest.mark.parametrize("optimizer", ["COPRO", "BootstrapFewShotWithRandomSearch"])
def test_by_hand_and_ours_ask_the_same(optimizer: str) -> None:
    assert optimizer in SCRIPTS
    requests, scores = {}, {}
    for who in ("hand", "ours"):
        with placed(optimizer, 1, parts=(12, 12, 24), latency=0) as (place, server):
            took = finished(place.start(who), place)
            requests[who], scores[who] = server.counts()["requests"], place.scores(who, took)[1]
    assert abs(requests["ours"] - requests["hand"]) <= max(PREFLIGHT_AND_PROBES, requests["hand"] // 10)
    if optimizer == "COPRO":  # nothing in it depends on the order of rows
        assert scores["ours"] == pytest.approx(scores["hand"], abs=0.01)
