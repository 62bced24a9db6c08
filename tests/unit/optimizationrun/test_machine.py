"""A run's life by chance: pods that end in every way, people who edit, operators that die between any two writes.

Whatever happens, one Job at a time is live, no name means two Jobs, no spend is forgotten, slots are never given twice, what is
over stays over, and in the end every run comes to an end.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dspy_operator.api.status import OptimizationRunStatus
from dspy_operator.contract import names
from dspy_operator.contract.exits import Reason
from dspy_operator.controllers.optimizationrun.transitions import ENDED, TRANSITIONS, Phase
from dspy_operator.engine.plan import Body
from tests.unit.optimizationrun.builders import a_cluster, a_program_is, a_run_is, an_endpoint_is
from tests.unit.optimizationrun.cluster import NAMESPACE, Cluster, Killed

pytestmark = pytest.mark.unmeasured

SLOTS = 6
RUNS = ("fast", "slow")
CALLS = 4
"""Most calls that a pod has on the wire: what it may have spent and not told. The next pod finds them in a journal that is kept."""
runs = st.sampled_from(RUNS)
_ELSEWHERE = {Reason.INVALID_MANIFEST, Reason.ENDPOINT_NOT_FOUND, Reason.PROGRAM_NOT_FOUND, Reason.STOPPED}
"""Of local mode, or only where it was asked for."""


class Life(RuleBasedStateMachine):
    """Two runs of one program, on an endpoint that could not take both at a time."""

    cluster: Cluster

    @initialize(allow=st.booleans(), journal=st.sampled_from(["EmptyDir", "PersistentVolumeClaim"]))
    def begin(self, allow: bool, journal: str) -> None:
        self.cluster = a_cluster(slots=SLOTS)
        a_program_is(self.cluster, changes={"concurrencyPolicy": "Allow" if allow else "Queue"})
        self.alone = not allow
        self.paid = dict.fromkeys(RUNS, 0)
        """Calls that were really made."""
        self.told: dict[str, int] = {}
        """Pod -> calls over the run's life, as the pod knows them."""
        self.untold = dict.fromkeys(RUNS, 0)
        """Calls of pods that died without a word, since one spoke last: only a journal that is kept knows them."""
        self.touched = dict.fromkeys(RUNS, False)
        """Whether something was edited that may begin an ended run anew."""
        self.seen_phases = 0
        self.values = 0
        for run in RUNS:
            a_run_is(self.cluster, {"journal": {"type": journal}, "retries": 2}, name=run)
            self.cluster.pass_time(seconds=1)

    # --- the operator ------------------------------------------------------------------------------------------------

    @rule(run=runs)
    def look(self, run: str) -> None:
        self.cluster.look(run)

    @rule(run=runs, writes=st.integers(0, 8))
    def die_between_two_writes(self, run: str, writes: int) -> None:
        try:
            self.cluster.look(run, kill_after=writes)
        except Killed:
            self.cluster.restart()

    @rule()
    def restart(self) -> None:
        self.cluster.restart()

    @rule()
    def fall_behind(self) -> None:
        self.cluster.fall_behind()

    @rule()
    def come_to_rest(self) -> None:
        self.cluster.catch_up()
        self.cluster.settle()
        self._after_rest()

    @rule(seconds=st.sampled_from([1, 15, 61, 600, 86_400]))
    def pass_time(self, seconds: int) -> None:
        self.cluster.pass_time(seconds=seconds)

    @rule(run=runs, calls=st.integers(0, 40))
    def life_goes_on(self, run: str, calls: int) -> None:
        """The next thing that happens where nothing goes wrong."""
        self.come_to_rest()
        pod = self._pod(run)
        if pod is None or self._is_cut_off(pod):
            if pod is not None:
                self.cluster.leaves(run, calls=self._known(run))
            self.pod_comes(run, pending=False)
        elif pod["status"]["phase"] == "Pending":
            self.cluster.pod_starts(run)
        elif self._running(run):
            self.pod_works_and_reports(run, calls, "optimize")
        self.cluster.settle()

    @rule(run=runs, calls=st.integers(0, 40))
    def and_on(self, run: str, calls: int) -> None:
        self.life_goes_on(run, calls)

    @rule(calls=st.integers(0, 40))
    def for_both(self, calls: int) -> None:
        for run in RUNS:
            self.life_goes_on(run, calls)

    # --- nodes -------------------------------------------------------------------------------------------------------

    @precondition(lambda self: any(self._of("Job", run) for run in RUNS))
    @rule(run=runs, pending=st.booleans())
    def pod_comes(self, run: str, pending: bool) -> None:
        pod = self.cluster.pod_of(run, pending=pending)
        if pod is not None:
            self.told[pod["metadata"]["name"]] = self._floor(run)

    @precondition(lambda self: any(self._pod(run) is not None for run in RUNS))
    @rule(run=runs)
    def pod_starts(self, run: str) -> None:
        pod = self._pod(run)
        if pod is not None and pod["status"]["phase"] == "Pending":
            self.cluster.pod_starts(run)

    @precondition(lambda self: any(self._running(run) for run in RUNS))
    @rule(run=runs, calls=st.integers(1, 40), step=st.sampled_from(["optimize", "judge"]))
    def pod_works_and_reports(self, run: str, calls: int, step: str) -> None:
        if self._running(run):
            self._spend(run, calls)
            self.cluster.reports(run, calls=self._known(run), step=step)

    @precondition(lambda self: any(self._running(run) for run in RUNS))
    @rule(
        run=runs,
        reason=st.sampled_from([reason for reason in Reason if reason not in _ELSEWHERE]),
        calls=st.integers(0, 20),
    )
    def pod_ends(self, run: str, reason: Reason, calls: int) -> None:
        if self._running(run):
            self._spend(run, calls)
            self.cluster.ends(run, reason, calls=self._known(run))

    @precondition(lambda self: any(self._running(run) for run in RUNS))
    @rule(
        run=runs,
        code=st.sampled_from([0, 1, 44, 45, 46, 51, 70, 137, 143]),
        oom=st.booleans(),
        calls=st.integers(0, CALLS),
    )
    def pod_dies_without_a_word(self, run: str, code: int, oom: bool, calls: int) -> None:
        if self._running(run):
            self._spend(run, calls, report=False)
            self.cluster.exits(run, code, reason="OOMKilled" if oom and code == 137 else "")

    @precondition(lambda self: any(self._running(run) for run in RUNS))
    @rule(run=runs)
    def pod_vanishes(self, run: str) -> None:
        if self._pod(run) is not None:
            self.cluster.pod_vanishes(run)

    @precondition(lambda self: any(self._running(run) for run in RUNS))
    @rule(run=runs)
    def node_is_cut_off(self, run: str) -> None:
        if self._running(run):
            self.cluster.pod_is_cut_off(run)

    @precondition(lambda self: any(map(self._is_cut_off, [pod for run in RUNS for pod in self._of("Pod", run)])))
    @rule(run=runs, says_so=st.booleans())
    def pod_leaves(self, run: str, says_so: bool) -> None:
        self.cluster.leaves(run, calls=self._known(run), says_so=says_so)

    @precondition(lambda self: any(self._of("Job", run) for run in RUNS))
    @rule(run=runs)
    def job_is_deleted_by_hand(self, run: str) -> None:
        if self.cluster.jobs(run) and self._named(run) in self.cluster.jobs(run):
            self.cluster.job_is_deleted(run)

    # --- people ------------------------------------------------------------------------------------------------------

    @rule(run=runs, seed=st.integers(0, 2))
    def edit_an_input(self, run: str, seed: int) -> None:
        self.touched[run] = True
        self.cluster.edit(run, seed=seed)

    @rule(run=runs)
    def rerun(self, run: str) -> None:
        self.touched[run] = True
        self.values += 1
        self.cluster.edit(run, rerun=str(self.values))

    @rule(run=runs)
    def want_it_again(self, run: str) -> None:
        """Whatever kept it from running is taken back, and what was spent is allowed anew."""
        self.touched[run] = True
        self.values += 1
        calls = self.paid[run] + 200
        self.cluster.edit(run, rerun=str(self.values), suspend=None, stop=None, budget={"calls": calls})

    @rule(run=runs, calls=st.sampled_from([60, 100, 200, 400]))
    def change_the_budget(self, run: str, calls: int) -> None:
        self.touched[run] = True
        self.cluster.edit(run, budget={"calls": calls})

    @rule(run=runs, suspend=st.sampled_from([False, False, True]))
    def suspend(self, run: str, suspend: bool) -> None:
        self.cluster.edit(run, suspend=suspend)

    @rule(run=runs, stop=st.sampled_from([None, None, "Finish", "Cancel"]))
    def stop(self, run: str, stop: str | None) -> None:
        self.cluster.edit(run, stop=stop)

    @rule(run=runs, concurrency=st.integers(1, 8))
    def change_concurrency(self, run: str, concurrency: int) -> None:
        self.cluster.edit(run, concurrency=concurrency)

    @rule(run=runs, priority=st.sampled_from([None, "high"]))
    def edit_execution(self, run: str, priority: str | None) -> None:
        self.cluster.edit(run, priorityClassName=priority)

    @rule(changes=st.sampled_from([{}, {"metric.type": "F1"}]), state=st.sampled_from(["Ready", "InvalidDataset"]))
    def change_the_program(self, changes: dict[str, Any], state: str) -> None:
        policy = {"concurrencyPolicy": "Queue" if self.alone else "Allow"}
        a_program_is(self.cluster, state, changes | policy)

    @rule(reason=st.sampled_from(["External", "ScaledToZero", "Pulling"]))
    def change_the_endpoint(self, reason: str) -> None:
        an_endpoint_is(self.cluster, reason, slots=SLOTS)

    @rule(run=runs)
    def lose_the_status(self, run: str) -> None:
        """Its Job is there, or it has none: a status that is lost in the moment its Job is deleted is one fault too many."""
        self.cluster.catch_up()
        if (self._open(run) and not self.cluster.jobs(run)) or self._named(run) not in (None, *self.cluster.jobs(run)):
            return
        self.touched[run] = True
        self.cluster.lose_status(run)
        self.cluster.look(run)

    # --- what always holds -------------------------------------------------------------------------------------------

    @invariant()
    def one_job_at_a_time(self) -> None:
        for run in RUNS:
            live = [job for job in self._of("Job", run) if not (job.get("status") or {}).get("conditions")]
            assert len(live) <= 1, [job["metadata"]["name"] for job in live]
            pods = [
                pod
                for pod in self._of("Pod", run)
                if pod["status"].get("phase") == "Running" and not self._is_cut_off(pod)
            ]
            assert len(pods) <= 1, [pod["metadata"]["name"] for pod in pods]

    @invariant()
    def no_spend_is_forgotten(self) -> None:
        for run in RUNS:
            entry = self._entry(run)
            if not entry:
                assert self.paid[run] == 0
                continue
            used, reserved = entry.get("used", {}).get("calls", 0), entry.get("reserved", {}).get("calls", 0)
            known = max([used + reserved, *(self.told[pod["metadata"]["name"]] for pod in self._of("Pod", run))])
            assert known + self.untold[run] >= self.paid[run], (run, entry, self.paid, self.untold)

    @invariant()
    def slots_are_given_once(self) -> None:
        admitted = [run for run in RUNS if "admission" in self.cluster.status(run)]
        given = sum(
            slots for run in admitted for slots in self.cluster.status(run)["admission"].get("slots", {}).values()
        )
        assert given <= SLOTS
        assert len(admitted) <= 1 or not self.alone

    @invariant()
    def phases_follow_the_table_and_what_is_over_stays_over(self) -> None:
        for run, before, after in self.cluster.phases[self.seen_phases :]:
            assert after is not None
            known = Phase(before) if before is not None else None
            assert Phase(after) in TRANSITIONS[known], f"{run}: {before} -> {after}"
            if known in ENDED and after not in ENDED:
                assert self.touched[run] or self._failed_for_its_program(run), f"{run} left {before} by itself"
            if Phase(after) in ENDED:
                self.touched[run] = self._asks_for_more(run)
        self.seen_phases = len(self.cluster.phases)

    @invariant()
    def a_status_fits_its_schema(self) -> None:
        for run in RUNS:
            status = self.cluster.status(run)
            if status:
                OptimizationRunStatus.model_validate(status)
                assert len(json.dumps(status)) < 16 * 1024

    def teardown(self) -> None:
        """Whatever happened, let people want an end and nodes work: both runs come to it."""
        if not hasattr(self, "cluster"):
            return
        cluster = self.cluster
        cluster.restart()
        an_endpoint_is(cluster, slots=SLOTS)
        a_program_is(cluster, changes={"concurrencyPolicy": "Queue" if self.alone else "Allow"})
        for run in RUNS:
            cluster.edit(run, suspend=None, stop=None, retries=100, deadlines={"pending": "9000h"})
        for _ in range(40):
            cluster.settle()
            self.phases_follow_the_table_and_what_is_over_stays_over()
            for run in RUNS:
                cluster.leaves(run, calls=self._known(run))
                self.pod_comes(run, pending=False)
                if self._running(run):
                    cluster.ends(run, calls=self._known(run))
                elif (pod := self._pod(run)) is not None and pod["status"]["phase"] == "Pending":
                    cluster.pod_starts(run)
            cluster.pass_time(minutes=11)
            if all(Phase(cluster.status(run)["phase"]) in ENDED for run in RUNS) and not any(
                self._running(run) for run in RUNS
            ):
                break
        cluster.settle()
        for run in RUNS:
            assert Phase(cluster.status(run)["phase"]) in ENDED, (cluster.status(run), cluster.pods(run))
            assert "admission" not in cluster.status(run)

    # --- looking -----------------------------------------------------------------------------------------------------

    def _after_rest(self) -> None:
        """At rest, the account of a run without a pod knows everything that its pods told."""
        for run in RUNS:
            if not self._of("Pod", run) and not self._of("Job", run) and not self._open(run):
                used = self._entry(run).get("used", {}).get("calls", 0)
                assert used + self.untold[run] >= self.paid[run]

    def _spend(self, run: str, calls: int, *, report: bool = True) -> None:
        """As the ledger does: never above the budget of the control document that is in force."""
        pod = self._newest(run)
        limit = self.cluster.control(run).budget.calls
        assert limit is not None
        known = self.told[pod["metadata"]["name"]]
        on_the_wire = sum(self.cluster.control(run).slots.values())
        calls = max(0, min(calls, limit - known, calls if report else on_the_wire))
        self.paid[run] += calls
        if report:
            self.untold[run] = 0
        elif self._keeps(run):
            self.untold[run] += calls
        if report or self._keeps(run):
            self.told[pod["metadata"]["name"]] = known + calls

    def _floor(self, run: str) -> int:
        """What a new pod knows of the past: its journal, and what control.json says."""
        floor = self.cluster.control(run).floor.calls
        return max(floor, self.paid[run]) if self._keeps(run) else floor

    def _known(self, run: str) -> int:
        pods = self._of("Pod", run)
        return self.told[max(pods, key=_try)["metadata"]["name"]] if pods else 0

    def _keeps(self, run: str) -> bool:
        spec = self.cluster.server["OptimizationRun", NAMESPACE, run]["spec"]
        return bool(spec["journal"]["type"] == "PersistentVolumeClaim")

    def _entry(self, run: str) -> dict[str, Any]:
        account = self.cluster.server.get(("ConfigMap", NAMESPACE, names.program_account("triage")))
        return json.loads(account["data"].get(run, "{}")) if account is not None else {}

    def _open(self, run: str) -> bool:
        entry = self._entry(run)
        return bool(entry.get("tries", 0) > entry.get("settled", 0))

    def _asks_for_more(self, run: str) -> bool:
        """Whether something was edited before the end, which begins a new attempt after it: not seen yet, or a rerun."""
        body = self.cluster.server["OptimizationRun", NAMESPACE, run]
        rerun = body["spec"].get("rerun")
        unseen = body["metadata"]["generation"] != (body.get("status") or {}).get("observedGeneration")
        return unseen or (rerun is not None and rerun != self._entry(run).get("rerun"))

    def _failed_for_its_program(self, run: str) -> bool:
        ended = self._entry(run).get("ended") or {}
        return ended.get("exit") in (40, 41, 42) or not ended

    def _named(self, run: str) -> str | None:
        return self.cluster.status(run).get("jobName")

    def _of(self, kind: str, run: str) -> list[Body]:
        return self.cluster._of(kind, run)

    def _pod(self, run: str) -> Body | None:
        return self._newest(run) if self._of("Pod", run) else None

    def _newest(self, run: str) -> Body:
        return max(self._of("Pod", run), key=_try)

    def _running(self, run: str) -> bool:
        """The newest pod runs, and can be heard."""
        pod = self._pod(run)
        return pod is not None and pod["status"]["phase"] == "Running" and not self._is_cut_off(pod)

    def _is_cut_off(self, pod: Body) -> bool:
        going = pod["metadata"].get("deletionTimestamp")
        return going is not None


def _try(body: Body) -> int:
    return int(body["metadata"]["labels"][names.LABEL_TRY])


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=50, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


# --- long lives ------------------------------------------------------------------------------------------------------

_ENDINGS = (
    Reason.COMPLETED,
    Reason.BUDGET_EXHAUSTED,
    Reason.ENDPOINT_UNAVAILABLE,
    Reason.SECRET_MISSING,
    Reason.INTERNAL_ERROR,
    Reason.AUTHENTICATION_FAILED,
    Reason.INVALID_DATASET,
    Reason.BUDGET_TOO_SMALL,
    Reason.STOPPED_EARLY,
    Reason.GOAL_REACHED,
    Reason.OPTIMIZER_GAVE_UP,
)
_CODES = (0, 45, 51, 70, 137, 143)
Step = Callable[[Life, str, int, random.Random], None]
_STEPS: tuple[tuple[int, Step], ...] = (
    (40, lambda life, run, calls, _: life.life_goes_on(run, calls)),
    (10, lambda life, run, _, __: life.look(run)),
    (10, lambda life, run, _, chance: life.die_between_two_writes(run, chance.randint(0, 8))),
    (2, lambda life, _, __, ___: life.fall_behind()),
    (10, lambda life, _, __, chance: life.pass_time(chance.choice((1, 15, 61, 600)))),
    (12, lambda life, run, calls, chance: life.pod_ends(run, chance.choice(_ENDINGS), calls)),
    (4, lambda life, run, calls, chance: life.pod_dies_without_a_word(run, chance.choice(_CODES), True, calls % 5)),
    (2, lambda life, run, _, __: life.pod_vanishes(run)),
    (2, lambda life, run, _, __: life.node_is_cut_off(run)),
    (4, lambda life, run, _, chance: life.pod_leaves(run, chance.random() < 0.8)),
    (2, lambda life, run, _, __: life.job_is_deleted_by_hand(run)),
    (3, lambda life, run, _, chance: life.edit_an_input(run, chance.randint(0, 2))),
    (6, lambda life, run, _, __: life.rerun(run)),
    (10, lambda life, run, _, __: life.want_it_again(run)),
    (4, lambda life, run, _, chance: life.change_the_budget(run, chance.choice((60, 100, 200, 400, 800)))),
    (4, lambda life, run, _, chance: life.suspend(run, chance.random() < 0.3)),
    (3, lambda life, run, _, chance: life.stop(run, chance.choice((None, None, None, "Finish", "Cancel")))),
    (2, lambda life, run, _, chance: life.change_concurrency(run, chance.randint(1, 8))),
    (2, lambda life, run, _, chance: life.edit_execution(run, chance.choice((None, "high")))),
    (1, lambda life, _, __, chance: life.change_the_program({"metric.type": "F1"}, "Ready")),
    (1, lambda life, _, __, chance: life.change_the_program({}, chance.choice(("Ready", "InvalidDataset")))),
    (2, lambda life, _, __, chance: life.change_the_endpoint(chance.choice(("External", "External", "Pulling")))),
    (2, lambda life, run, _, __: life.lose_the_status(run)),
)


def a_long_life(seed: int, steps: int) -> Life:
    """Hypothesis prefers short lives, which it can explain; these are long ones, mostly natural, by a fixed seed."""
    chance = random.Random(seed)
    life = Life()
    life.begin(chance.random() < 0.5, chance.choice(("EmptyDir", "PersistentVolumeClaim")))
    weights = [weight for weight, _ in _STEPS]
    for _ in range(steps):
        (_, step) = chance.choices(_STEPS, weights)[0]
        step(life, chance.choice(RUNS), chance.randint(0, 30), chance)
        life.one_job_at_a_time()
        life.no_spend_is_forgotten()
        life.slots_are_given_once()
        life.phases_follow_the_table_and_what_is_over_stays_over()
        life.a_status_fits_its_schema()
    life.teardown()
    return life


@pytest.mark.parametrize("seed", range(8))
def test_a_long_life_keeps_every_promise(seed: int) -> None:
    life = a_long_life(seed, 150)
    assert len(life.cluster.jobs_made) >= 5, "too quiet to mean anything"
