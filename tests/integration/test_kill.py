"""SIGKILL anywhere, then --resume: the revision of a run that nothing interrupted, and only what was in flight is paid twice."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.counting_server import CountingServer
from tests.integration.acceptance import (
    Point,
    Reference,
    passed_before,
    points,
    record,
    resumed_to_the_same,
    unanswered,
    uninterrupted,
)
from tests.integration.harness import OPTIMIZERS, Case, Workplace, intruder, workplace
from tests.integration.programs import PROGRAMS, case_of, whole_of
from tests.integration.search_server import SearchServer, search_server
from tests.integration.tool_server import ToolServer, tool_server

THREADS = 8
START_SECONDS = 120
"""Until a process has started and come to its point; generous, the machine may be busy."""
MOMENTS = (
    "the last answer",
    "/revision/program.py",
    "/revision/program.json",
    "/revision/prompts.json",
    "/revision/report.json",
    "/revision/provenance.json",
    "/examples.jsonl.zst",
    "/run/result.json",
    ".account.json",
)
"""Of publishing: the answer that it waits for, and each rename."""


@pytest.fixture(scope="module")
def tools() -> Iterator[ToolServer]:
    """One for all runs of a process: its URL is a part of the program."""
    with tool_server() as serving:
        yield serving


@pytest.fixture(scope="module")
def search() -> Iterator[SearchServer]:
    """Likewise."""
    with search_server() as serving:
        yield serving


@pytest.mark.timeout(600)
@pytest.mark.parametrize("point", points(tuple(OPTIMIZERS), PROGRAMS))
def test_a_killed_run_resumes_to_the_same_revision(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, point: Point, tools: ToolServer, search: SearchServer
) -> None:
    if passed_before("kill", point):
        print(f"{point.id}: on record as passed")
        return
    whole = whole_of(tmp_path_factory.getbasetemp(), point.program, point.optimizer, tools.url, search.url)
    started_at = time.monotonic()
    case = case_of(point.program, point.optimizer, tools.url, search.url)
    case.concurrency = THREADS
    with workplace(tmp_path, case) as place:
        where = (kill_publishing if point.phase == "publish" else kill_at_a_call)(place, point, whole)
        place.server.wait_until(lambda counts: counts["in_flight"] == 0)
        sent, in_flight = place.server.counts()["requests"], unanswered(place)
        assert in_flight <= THREADS
        resumed_to_the_same(place, whole, in_flight)
        counts = place.server.counts()
        record(
            "kill",
            point,
            where=where,
            sent_at_the_kill=sent,
            in_flight=in_flight,
            requests=counts["requests"],
            uninterrupted=whole.requests,
            repeated_keys=counts["repeated_keys"],
            digest_equal=True,
            seconds=round(time.monotonic() - started_at, 1),
        )


AGAIN = {
    "BootstrapFewShot in rounds": Case(
        {"type": "BootstrapFewShot", "bootstrapFewShot": {"maxBootstrappedDemos": 8, "maxRounds": 3}},
        module="ChainOfThought",
    ),
    "MIPROv2 with minibatches": Case(
        {"type": "MIPROv2", "miproV2": {"numCandidates": 4, "numTrials": 8, "minibatch": True, "minibatchSize": 6}}
    ),
    "RandomSearch in rounds": Case(
        {
            "type": "BootstrapFewShotWithRandomSearch",
            "bootstrapFewShotWithRandomSearch": {"numCandidatePrograms": 3, "maxRounds": 2, "labeledSample": False},
        },
        module="ChainOfThought",
    ),
    "InferRules racing": Case(
        {**OPTIMIZERS["InferRules"], "inferRules": {**OPTIMIZERS["InferRules"]["inferRules"], "racing": True}}, dev=48
    ),
    "SIMBA with reasoning": Case(
        {"type": "SIMBA", "simba": {"bsize": 8, "numCandidates": 2, "maxSteps": 4, "maxDemos": 2}},
        module="ChainOfThought",
    ),
    "COPRO sampled": Case(OPTIMIZERS["COPRO"], program={"target": {"request": {"temperature": "0.7"}}}),
    "GEPA sampled": Case(OPTIMIZERS["GEPA"], program={"target": {"request": {"temperature": "0.7"}}}),
}
"""Ways of the optimizers that the points do not go: rollouts, reasoning, minibatches, dropped candidates, samples that are verified."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", AGAIN)
def test_a_run_killed_again_and_again_comes_to_the_same_revision_and_verifies(tmp_path: Path, way: str) -> None:
    case = AGAIN[way]
    whole = uninterrupted(tmp_path / "uninterrupted", case)
    with workplace(tmp_path / "killed", case) as place:
        place.fresh = way == "SIMBA with reasoning"
        for share in (0.2, 0.5, 0.9):
            ordinal = max(int(whole.requests * share), place.server.counts()["requests"] + 1)
            kill_at_ordinal(place, ordinal, settled=True)
            place.server.wait_until(lambda counts: counts["in_flight"] == 0)
        lost = unanswered(place)  # of all three: a request that was sent again has one start more than answers
        assert 3 <= lost <= 3 * THREADS
        resumed_to_the_same(place, whole, lost)
        verified = place.verify()
        assert verified.code == 0, verified.stderr


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("optimizer", "budget"),
    [
        pytest.param("MIPROv2", {"calls": 150}, id="MIPROv2 fitted to calls"),
        pytest.param("GEPA", {"tokens": 40000}, id="GEPA fitted to tokens"),
        pytest.param("MIPROv2", {"cost": "0.01"}, id="MIPROv2 fitted to money"),
    ],
)
def test_counts_fitted_to_the_budget_are_the_same_after_a_kill_in_the_baseline(
    tmp_path: Path, optimizer: str, budget: dict[str, Any]
) -> None:
    case = Case({"type": optimizer}, budget=budget, concurrency=THREADS)
    whole = uninterrupted(tmp_path / "uninterrupted", case, codes=(0, 44))
    with workplace(tmp_path / "killed", case) as place:
        kill_at_ordinal(place, whole.optimize_from // 2, settled=True)
        place.server.wait_until(lambda counts: counts["in_flight"] == 0)
        done = place.run("--resume")
        assert done.code == whole.result["exit"], done.stderr
        assert done.result["resolved"] == whole.result["resolved"] != {}
        assert done.result["candidate"] == whole.result["candidate"]


def kill_at_a_call(place: Workplace, point: Point, whole: Reference) -> str:
    """SIGKILL when a request of the phase arrives: half of the points at once, half when all threads wait for answers."""
    draw = point.draw()
    # Evaluate asks nothing between the baseline and the judgement.
    ordinal = draw.choice(whole.ordinals(point.phase) or range(1, whole.requests + 1))
    settled = draw.random() < 0.5
    kill_at_ordinal(place, ordinal, settled=settled)
    return f"request {ordinal} of {whole.requests}, {'when all wait' if settled else 'as it arrives'}"


def kill_publishing(place: Workplace, point: Point, whole: Reference) -> str:
    """SIGKILL when the last answer is out, or just before one of publishing's renames."""
    turn = point.seed + 4 * list(OPTIMIZERS).index(point.optimizer)
    moment = MOMENTS[turn % len(MOMENTS)]
    if moment == MOMENTS[0]:
        process = place.start()
        until(place.server, process, lambda: place.server.counts()["answered"] >= whole.requests)
        killed(process)
    else:
        process = place.start(environment=intruder(path=moment))
        process.communicate(timeout=START_SECONDS)
        assert process.returncode == -9
    return f"before {moment}" if moment.startswith(("/", ".")) else moment


def kill_at_ordinal(place: Workplace, ordinal: int, *, settled: bool, arguments: tuple[str, ...] = ()) -> None:
    """Hold every request from this one on, and kill; `settled`: once the threads have nothing left but to wait."""
    place.server.set_script(place.case.script(hold_at=list(range(ordinal, ordinal + 2 * THREADS))))
    process = place.start(*arguments, *(("--resume",) if (place.run_folder / "run.json").exists() else ()))
    until(place.server, process, lambda: place.server.counts()["requests"] >= ordinal)
    if settled:
        quiet_since, before = time.monotonic(), place.server.counts()
        while time.monotonic() < quiet_since + 0.3:
            if (now := place.server.counts()) != before:
                quiet_since, before = time.monotonic(), now
            time.sleep(0.01)
        assert before["held"] == before["in_flight"] >= 1
    killed(process)
    place.server.set_script(place.case.script())


def until(server: CountingServer, process: subprocess.Popen[str], holds: Any) -> None:
    """Wait for something to hold while a process runs."""
    end = time.monotonic() + START_SECONDS
    while not holds():
        assert process.poll() is None, f"ended before its point: {process.communicate()}"
        assert time.monotonic() < end, server.counts()
        time.sleep(0.001)


def killed(process: subprocess.Popen[str]) -> None:
    """SIGKILL, and reap."""
    process.kill()
    process.communicate()
