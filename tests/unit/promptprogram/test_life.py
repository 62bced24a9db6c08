"""Whatever happens to a program, in whatever order: it comes to rest, and what is served is whole."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dspy_operator.api.status import PromptProgramStatus
from dspy_operator.contract import names
from dspy_operator.contract.exits import Reason
from dspy_operator.controllers.promptprogram import current
from dspy_operator.controllers.promptprogram.current import Promoted
from dspy_operator.controllers.promptprogram.revisions import verified_digest
from tests.unit.promptprogram.world import PROGRAM, ROWS, Cluster, Crash, files_of, revision_config_map
from tests.unit.written import REMOVED

INSTRUCTIONS = ("Classify.", "Classify well.", "Classify very well.")
ACCIDENTS = (Reason.INTERNAL_ERROR, Reason.STOPPED, Reason.DATASET_NOT_FOUND)
REFUSALS = (Reason.INVALID_PROGRAM, Reason.INVALID_DATASET, Reason.SPLIT_EMPTY, Reason.INVALID_METRIC)


class Life(RuleBasedStateMachine):
    """People, pods, runs, time and crashes, against one program."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster = Cluster()
        self.changes: dict[str, Any] = {}
        self.data: dict[str, dict[str, str]] = {}
        """uid of each revision that was ever seen -> its files."""
        self.subjects: dict[str, str] = {}
        """Name of each spec ConfigMap that was ever seen -> what it validates."""
        self.promoted: Promoted | None = None
        self.truth_lost = False
        self.runs = 0
        self.ended_well: set[str] = set()

    @initialize(rows=st.booleans(), delete=st.booleans())
    def begin(self, rows: bool, delete: bool) -> None:
        self.changes = (ROWS if rows else {}) | ({"deletionPolicy": "Delete"} if delete else {})
        self._apply()

    def _apply(self) -> None:
        self.cluster.apply_program({name: value for name, value in self.changes.items() if value is not REMOVED})

    # --- people -----------------------------------------------------------------------------------------------------

    @rule(text=st.sampled_from(INSTRUCTIONS))
    def edit_instructions(self, text: str) -> None:
        self.changes["program.single.signature.instructions"] = text
        self._apply()

    @rule(mode=st.sampled_from(("Auto", "Manual")))
    def edit_promotion(self, mode: str) -> None:
        self.changes["promotion"] = {"mode": mode}
        self._apply()

    @rule(limit=st.integers(0, 3))
    def edit_history_limit(self, limit: int) -> None:
        self.changes["revisionHistoryLimit"] = limit
        self._apply()

    @rule(policy=st.sampled_from(("Retain", "Delete")))
    def edit_deletion_policy(self, policy: str) -> None:
        self.changes["deletionPolicy"] = policy
        self._apply()

    @rule(data=st.data())
    def pin(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from([*sorted(self.cluster.revisions()), "triage-nowhere", ""]))
        self.changes["revision"] = {"name": name} if name else REMOVED
        self._apply()

    @rule(broken=st.booleans())
    def break_or_mend_the_spec(self, broken: bool) -> None:
        self.changes["surprise"] = 1 if broken else REMOVED
        self._apply()

    @rule(text=st.sampled_from(("{}", "{}\n{}")))
    def apply_rows(self, text: str) -> None:
        self.cluster.apply_rows(text)

    @rule()
    def delete_rows(self) -> None:
        self.cluster.unwatched.pop(("ConfigMap", "tickets"), None)

    @rule(name=st.sampled_from(("triage-golden", "triage-old")))
    def git_brings_a_revision(self, name: str) -> None:
        if self.cluster.config_map(name) is None:
            self.cluster.put(revision_config_map(name, files_of(name)))

    @precondition(lambda self: self.cluster.revisions())
    @rule(data=st.data())
    def remove_a_revision(self, data: st.DataObject) -> None:
        self.cluster.remove("ConfigMap", data.draw(st.sampled_from(sorted(self.cluster.revisions()))))

    @precondition(lambda self: self.cluster.config_map("triage-current"))
    @rule()
    def remove_current(self) -> None:
        self.cluster.remove("ConfigMap", "triage-current")
        self.truth_lost = True

    @precondition(lambda self: self.cluster.config_map("triage-current"))
    @rule()
    def edit_current_by_hand(self) -> None:
        found = self.cluster.current
        self.cluster.put({**found, "data": {**found["data"], "program.py": "# mine"}})

    @rule()
    def lose_status(self) -> None:
        if "status" in self.cluster.program:
            self.cluster.lose_status()

    @rule()
    def somebody_takes_the_name(self) -> None:
        if self.cluster.config_map("triage-current") is None:
            self.cluster.put_foreign("ConfigMap", "triage-current")

    @precondition(lambda self: ("ConfigMap", "triage-current") in self.cluster.unwatched)
    @rule()
    def somebody_leaves_the_name(self) -> None:
        self.cluster.remove_foreign("ConfigMap", "triage-current")

    # --- pods -------------------------------------------------------------------------------------------------------

    def _runs_a_job(self) -> bool:
        channel = self.cluster.config_map("pp-triage-pod")
        return channel is not None and any("status" not in job for job in self.cluster.all("Job"))

    @precondition(_runs_a_job)
    @rule(ends=st.booleans())
    def the_pod_says_good(self, ends: bool) -> None:
        self.cluster.pod_reports()
        if ends:
            self.cluster.job_ends()

    @precondition(_runs_a_job)
    @rule(reason=st.sampled_from((*ACCIDENTS, *REFUSALS)))
    def the_pod_says_bad(self, reason: Reason) -> None:
        self.cluster.pod_reports(reason=reason, message="words")
        self.cluster.job_ends(complete=False)

    @precondition(_runs_a_job)
    @rule()
    def the_pod_is_killed(self) -> None:
        killed = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
        self.cluster.job_ends(complete=False, containerStatuses=[{"name": "runner", "state": killed}])

    @precondition(_runs_a_job)
    @rule()
    def the_pod_starts(self) -> None:
        self.cluster.put_pod(self.cluster.job, {"phase": "Running"})

    @precondition(lambda self: self.cluster.jobs())
    @rule(data=st.data())
    def the_job_vanishes(self, data: st.DataObject) -> None:
        self.cluster.remove("Job", data.draw(st.sampled_from(self.cluster.jobs())))

    @rule()
    def leaving_pods_go(self) -> None:
        for pod in self.cluster.all("Pod"):
            if "deletionTimestamp" in pod["metadata"]:
                self.cluster.remove("Pod", pod["metadata"]["name"])

    # --- runs -------------------------------------------------------------------------------------------------------

    @precondition(lambda self: "status" in self.cluster.program)
    @rule(promote=st.booleans(), data=st.data())
    def a_run_ends(self, promote: bool, data: st.DataObject) -> None:
        self.runs += 1
        names_of_runs = [body["metadata"]["name"] for body in self.cluster.all("OptimizationRun")]
        name = data.draw(st.sampled_from([f"run-{self.runs}", *names_of_runs]))
        incumbent = data.draw(st.sampled_from([self.cluster.incumbent(), None]))
        content = data.draw(st.sampled_from([f"by run {self.runs}", "found twice"]))
        self.cluster.run_ends(name, promote=promote, incumbent=incumbent, files=files_of(content))
        if promote:
            self.ended_well.add(name)

    @rule()
    def runs_see_their_revisions(self) -> None:
        self.cluster.runs_see_revisions()

    @precondition(lambda self: self.cluster.all("OptimizationRun"))
    @rule(data=st.data(), channel=st.booleans())
    def a_run_goes(self, data: st.DataObject, channel: bool) -> None:
        name = data.draw(st.sampled_from([body["metadata"]["name"] for body in self.cluster.all("OptimizationRun")]))
        if not channel:
            self.cluster.remove("OptimizationRun", name)
        if self.cluster.config_map(names.run_channel(name)) is not None:
            self.cluster.remove("ConfigMap", names.run_channel(name))

    # --- time and the operator --------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from((1, 10, 61, 301)))
    def time_passes(self, seconds: int) -> None:
        self.cluster.pass_time(seconds=seconds)

    @rule()
    def the_operator_restarts(self) -> None:
        self.cluster.restart()

    @rule(writes=st.integers(0, 4))
    def the_operator_dies_between_two_writes(self, writes: int) -> None:
        self.cluster.dies_after = writes
        try:
            self.cluster.look()
        except Crash:
            self.cluster.restart()
        finally:
            self.cluster.dies_after = None

    @rule()
    def the_operator_looks(self) -> None:
        self.cluster.look()

    @rule()
    def the_operator_comes_to_rest(self) -> None:
        cluster = self.cluster
        cluster.pass_time(minutes=5)  # rows are read again
        cluster.settle()
        assert cluster.look() == 0
        cluster.restart()
        assert cluster.look() == 0, "nor has a restart anything to do"
        self._is_consistent()

    def _is_consistent(self) -> None:
        cluster, status = self.cluster, self.cluster.status
        PromptProgramStatus.model_validate(status)
        parses = "surprise" not in cluster.program["spec"]
        assert cluster.says("Accepted")[1] != "InvalidSpec" or not parses
        ready = cluster.says("Ready")[0] == "True"
        assert not ready or cluster.says("Accepted")[0] == "True"
        taken = ("ConfigMap", "triage-current") in cluster.unwatched
        assert not (ready and taken)
        if not parses:
            return
        if "servedRevision" in status:
            served = status["servedRevision"]["name"]
            assert served in cluster.revisions(), "what is served is never collected, and made again where it is lost"
            assert cluster.current["data"] == cluster.objects["ConfigMap", served]["data"]
        pin = (cluster.program["spec"].get("revision") or {}).get("name")
        if ready:
            assert status["baselineRevision"] in cluster.revisions()
            assert pin in (None, status["servedRevision"]["name"])
            assert status["servedRevision"]["pinned"] is (pin is not None)
        if not taken and (said := current.read(cluster.config_map("triage-current"))) is not None:
            self._promotion_is_right(said.promoted)

    def _promotion_is_right(self, promoted: Promoted | None) -> None:
        before, self.promoted = self.promoted, promoted
        lost, self.truth_lost = self.truth_lost, False
        if promoted is not None:
            assert promoted.run in self.ended_well
        if before is None or lost:
            return
        assert promoted is not None, "a promotion is not forgotten"
        assert (before.at, before.run) <= (promoted.at, promoted.run), "no older run comes back"

    # --- always -----------------------------------------------------------------------------------------------------

    @invariant()
    def revisions_never_change(self) -> None:
        for child in self.cluster.children(PROGRAM):
            if (child["metadata"]["labels"].get(names.LABEL_COMPONENT)) == names.Component.REVISION:
                assert verified_digest(child) is not None
                assert self.data.setdefault(child["metadata"]["uid"], child["data"]) == child["data"]

    @invariant()
    def a_job_is_alone_and_its_attempt_has_one_meaning(self) -> None:
        active = [job for job in self.cluster.all("Job") if "status" not in job]
        assert len(active) <= 1
        for job in active:
            name = job["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"]
            assert name == names.validation_spec(PROGRAM.name, int(job["metadata"]["labels"][names.LABEL_ATTEMPT]))
            subject = self.cluster.objects["ConfigMap", name]["metadata"]["annotations"][names.ANNOTATION_DIGEST]
            assert self.subjects.setdefault(name, subject) == subject, "a kubelet may still serve the old content"

    @invariant()
    def what_git_brought_stays(self) -> None:
        for name in ("triage-golden", "triage-old"):
            if (found := self.cluster.config_map(name)) is not None and "annotations" in found["metadata"]:
                assert "ownerReferences" not in found["metadata"] or found["metadata"]["annotations"].get(
                    "dspy-operator.io/program-uid"
                ), "only one that we made again is ours"


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
