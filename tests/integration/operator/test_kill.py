"""SIGKILL of the operator between any two of its writes: every run ends as if nothing had happened, and nothing runs twice."""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass
from typing import Any

import pytest

from tests.controlplane.processes import ControlPlane
from tests.integration.acceptance import LONG, RESULTS, source_digest
from tests.integration.operator.installation import Operator, an_operator
from tests.integration.operator.manifests import a_dataset, a_program, a_run, an_endpoint
from tests.integration.operator.namespace import Namespace, condition_of
from tests.integration.operator.writes import jobs_created
from tests.simulator import Crash, Ends, Play, Simulator, Step

RUNS, KILLS = (20, 50) if LONG else (5, 6)
SEED = 5
_QUIET_SECONDS = 3.0
_ENDED = ("Complete", "Failed")


@dataclass(frozen=True)
class Story:
    """One run's spec and plays."""

    number: int

    @property
    def name(self) -> str:
        return f"run-{self.number}"

    @property
    def program(self) -> str:
        return f"program-{self.number}"

    def tell(self, space: Namespace) -> None:
        """Each run has a program of its own, so that no run's end depends on another's time."""
        volume = {"type": "PersistentVolumeClaim"}
        kinds: list[tuple[dict[str, Any], tuple[Play, ...]]] = [
            ({}, (Play(),)),
            ({"journal": volume}, (Play(ends=Ends(Crash(137), after_calls=20)), Play())),
            ({"budget": {"calls": 150}}, (Play(),)),
            ({"retries": 0}, (Play(ends=Ends(Crash(70), at=Step.LOAD)), Play())),
            ({"journal": volume, "cleanup": {"succeeded": "0s"}}, (Play(reports=8),)),
        ]
        changes, plays = kinds[self.number % len(kinds)]
        space.simulator.run_plays(space.name, self.name, *plays)
        space.apply(a_program(self.program), a_run(self.name, programRef={"name": self.program}, **changes))


def test_a_killed_operator_changes_no_end(
    installed: ControlPlane, simulator: Simulator, tmp_path: Any, request: pytest.FixtureRequest
) -> None:
    # An operator of its own: two would undo each other's work, so the shared one has to be away.
    stop_shared(request)
    operator = an_operator(installed, tmp_path)
    calm = Namespace("calm", installed, simulator, operator)
    stormy = Namespace("stormy", installed, simulator, operator)
    stories = [Story(number) for number in range(RUNS)]
    try:
        operator.start()
        begin(calm, stories)
        wait_for_ends(calm, stories)
        operator.stop()

        since = installed.audit.mark()
        draw = random.Random(SEED)
        operator.start()
        begin(stormy, stories)
        kills = [kill_after(operator, draw.randrange(0, 10)) for _ in range(KILLS)]
        wait_for_ends(stormy, stories)
        operator.stop()
    finally:
        operator.stop()  # beside the shared one it would spoil the tests that follow

    print(f"seed {SEED}: killed after {kills} writes")
    created = jobs_created(installed.audit, "stormy", since=since)
    assert set(created.values()) == {1}, created
    assert {key: most for key, most in simulator.most_at_once.items() if key[0] == "stormy" and most > 1} == {}
    for story in stories:
        assert end_of(stormy, story) == end_of(calm, story), story.name
    record(kills)
    calm.delete()
    stormy.delete()


def begin(space: Namespace, stories: list[Story]) -> None:
    space.create()
    space.apply(an_endpoint(), a_dataset())
    for story in stories:
        story.tell(space)


def wait_for_ends(space: Namespace, stories: list[Story]) -> None:
    """Until each run is over and its program has decided about the candidate."""
    for story in stories:
        run = space.wait(
            "OptimizationRun",
            story.name,
            lambda body: any(condition_of(body, type_).get("status") == "True" for type_ in _ENDED),
            "over",
            seconds=120,
        )
        if run["status"].get("outcome") in ("Improved", "NoImprovement"):
            space.wait(
                "OptimizationRun", story.name, lambda body: "name" in body["status"].get("revision", {}), "published"
            )
            if run["status"]["phase"] == "Succeeded":
                space.wait(
                    "PromptProgram", story.program, lambda body: "promotedRevision" in body["status"], "promoting"
                )


def kill_after(operator: Operator, writes: int) -> int:
    """SIGKILL as soon as so many writes were answered since its start (or it is quiet), and start it again; the writes."""
    since = operator.plane.audit.path.stat().st_size
    quiet_since, seen = time.monotonic(), 0
    while seen < writes and time.monotonic() - quiet_since < _QUIET_SECONDS:
        found = operator.plane.audit.path.read_bytes()[since:].decode(errors="replace")
        now = sum(f'"username":"{operator.user}"' in line and is_write(line) for line in found.splitlines())
        if now > seen:
            seen, quiet_since = now, time.monotonic()
        time.sleep(0.001)
    operator.kill()
    operator.start()
    return seen


def is_write(line: str) -> bool:
    return any(f'"verb":"{verb}"' in line for verb in ("create", "update", "patch", "delete"))


def end_of(space: Namespace, story: Story) -> dict[str, Any]:
    """What a run came to, without times, uids and names of namespaces."""
    status = space.get("OptimizationRun", story.name)["status"]
    program = space.get("PromptProgram", story.program)["status"]
    account = space.account(story.program)[story.name]
    kept = ("phase", "outcome", "attempt", "try", "scores", "gate", "usage", "revision")
    return {
        **{name: status.get(name) for name in kept},
        "conditions": {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]},
        "inputDigest": status["inputs"]["inputDigest"],
        "served": program["servedRevision"],
        "promoted": {name: program.get("promotedRevision", {}).get(name) for name in ("name", "run", "score")},
        "account": {name: account.get(name) for name in ("attempt", "tries", "used", "reserved", "testLooks")},
        "tries": space.simulator.tries(space.name, story.name),
    }


def stop_shared(request: pytest.FixtureRequest) -> None:
    shared: Operator = request.getfixturevalue("_operator")
    if shared.is_running:
        shared.stop()


def record(kills: list[int]) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    entry = {"seed": SEED, "runs": RUNS, "kills": kills, "passed": True, "sources": source_digest()}
    with (RESULTS / "operator_kill.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
