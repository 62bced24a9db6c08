"""SIGKILL while a judge is asked: the revision of a run that nothing interrupted, and no question is paid twice but those in flight."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.acceptance import (
    LONG,
    Point,
    passed_before,
    record,
    resumed_to_the_same,
    unanswered,
    uninterrupted,
)
from tests.integration.harness import OPTIMIZERS, workplace
from tests.integration.test_judge import RUBRIC, Graded
from tests.integration.test_kill import THREADS, kill_at_a_call

pytestmark = pytest.mark.unmeasured

PHASES = ("baseline", *("optimize",) * 5, *("judge",) * 4)
VOTES = {"type": "Judge", "judge": {**RUBRIC, "scale": 5, "votes": 3}}
SAMPLED = {"endpoints": {"judge": {"name": "fake", "request": {"temperature": "0.7"}}}}
POINTS = [
    Point(optimizer, seed, phase)
    for optimizer in ("MIPROv2", "GEPA", "SIMBA")
    for seed, phase in enumerate(PHASES)
    if LONG or (optimizer, seed) in {("MIPROv2", 2), ("GEPA", 7)}
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("point", [pytest.param(point, id=point.id) for point in POINTS])
def test_a_run_with_a_judge_resumes_to_the_same_revision(tmp_path: Path, point: Point) -> None:
    """Three votes at temperature 0.7, judged by the task's own endpoint."""
    if passed_before("judge-kill", point):
        print(f"{point.id}: on record as passed")
        return
    case = Graded(OPTIMIZERS[point.optimizer], metric=VOTES, run=SAMPLED, dev=12, test=8, concurrency=THREADS)
    whole = uninterrupted(tmp_path / "uninterrupted", case)
    with workplace(tmp_path / "killed", case) as place:
        where = kill_at_a_call(place, point, whole)
        place.server.wait_until(lambda counts: counts["in_flight"] == 0)
        in_flight = unanswered(place)
        assert in_flight <= THREADS
        resumed_to_the_same(place, whole, in_flight)
        roles = place.run_folder / "result.json"
        assert '"judge"' in roles.read_text("utf-8")
        record("judge-kill", point, where=where, in_flight=in_flight, uninterrupted=whole.requests)
