"""What is served: pins, adopted revisions, names that are taken, what is collected and what outlives the program."""

from __future__ import annotations

from typing import Any

import pytest

from dspy_operator.contract import names
from tests.unit.promptprogram.test_promotion import after
from tests.unit.promptprogram.world import Cluster, digest_of, files_of, revision_config_map


def a_promoted(cluster: Cluster | None = None) -> Cluster:
    """A program whose run found something better."""
    cluster = cluster or Cluster().validated()
    cluster.run_ends("fast")
    return after(cluster)


def served(cluster: Cluster) -> str:
    """Name of what is served, by the status and by what applications mount."""
    name = str(cluster.status["servedRevision"]["name"])
    annotations = cluster.current["metadata"]["annotations"]
    assert annotations["dspy-operator.io/revision"] == name
    assert (
        annotations[names.ANNOTATION_DIGEST]
        == cluster.status["servedRevision"]["digest"]
        == digest_of(cluster.current["data"])
    )
    return name


# --- pins -------------------------------------------------------------------------------------------------------------


def test_a_pin_rolls_back_and_its_removal_goes_forward() -> None:
    cluster = a_promoted()
    promoted, baseline = served(cluster), cluster.status["baselineRevision"]

    cluster.apply_program({"revision": {"name": baseline}})
    cluster.settle()
    assert served(cluster) == baseline
    assert cluster.status["servedRevision"]["pinned"] is True
    assert cluster.status["promotedRevision"]["name"] == promoted, "the truth about promotion stays"
    cluster.lose_status()
    cluster.settle()
    assert cluster.status["promotedRevision"]["name"] == promoted

    cluster.apply_program()
    cluster.settle()
    assert served(cluster) == promoted
    assert cluster.status["servedRevision"]["pinned"] is False


def test_a_pin_to_nothing_serves_on_what_is_served() -> None:
    cluster = a_promoted()
    promoted = served(cluster)

    cluster.apply_program({"revision": {"name": "triage-gone"}})
    cluster.settle()

    assert served(cluster) == promoted
    assert cluster.says("Ready") == ("False", "RevisionNotFound")
    assert [event.reason for event in cluster.events][-1] == "RevisionNotFound"


def test_a_manual_promotion_is_a_pin() -> None:
    cluster = Cluster().validated({"promotion": {"mode": "Manual"}})
    cluster.run_ends("fast")
    after(cluster)
    (entry,) = cluster.status["candidates"]

    cluster.apply_program({"promotion": {"mode": "Manual"}, "revision": {"name": entry["revision"]}})
    cluster.settle()

    assert served(cluster) == entry["revision"]
    assert cluster.says("Ready") == ("True", "Pinned")


# --- adoption ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "revision",
    [
        pytest.param(revision_config_map("triage-golden", files_of("golden"), immutable=False), id="it can change"),
        pytest.param(
            revision_config_map("triage-golden", files_of("golden"), claimed="v1:0"), id="another digest than it says"
        ),
        pytest.param(revision_config_map("triage-golden", {"program.py": "x"}, claimed="v1:0"), id="files are missing"),
    ],
)
def test_what_cannot_be_trusted_is_no_revision(revision: dict[str, Any]) -> None:
    cluster = Cluster()
    cluster.put(revision)
    cluster.validated({"revision": {"name": "triage-golden"}})

    assert cluster.says("Ready") == ("False", "RevisionNotFound")


def test_an_adopted_revision_is_never_changed() -> None:
    cluster = Cluster()
    before = cluster.put(revision_config_map("triage-golden", files_of("golden")))
    cluster.validated({"revision": {"name": "triage-golden"}, "deletionPolicy": "Delete", "revisionHistoryLimit": 0})
    cluster.apply_program({"deletionPolicy": "Delete", "revisionHistoryLimit": 0})
    cluster.settle()

    assert cluster.config_map("triage-golden") == before


# --- names ------------------------------------------------------------------------------------------------------------


def test_a_taken_name_gets_more_digits_and_is_not_overwritten() -> None:
    digest = Cluster().validated().status["servedRevision"]["digest"]
    short, longer = (names.program_revision("triage", digest, digits) for digits in (8, 12))
    cluster = Cluster()
    cluster.put_foreign("ConfigMap", short)
    theirs = dict(cluster.unwatched["ConfigMap", short])
    cluster.validated()

    assert served(cluster) == longer
    assert cluster.unwatched["ConfigMap", short] == theirs
    assert cluster.says("Ready") == ("True", "Serving")


def test_a_damaged_object_of_ours_keeps_its_name_too() -> None:
    digest = Cluster().validated().status["servedRevision"]["digest"]
    cluster = Cluster()
    cluster.put(revision_config_map(names.program_revision("triage", digest), files_of("other"), claimed=digest))
    cluster.validated()

    assert served(cluster) == names.program_revision("triage", digest, 12)


# --- what is lost -----------------------------------------------------------------------------------------------------


def test_a_served_revision_that_somebody_removed_is_made_again_from_what_is_mounted() -> None:
    cluster = a_promoted()
    name = served(cluster)
    data = dict(cluster.objects["ConfigMap", name]["data"])
    cluster.remove("OptimizationRun", "fast")
    cluster.remove("ConfigMap", "orun-fast-pod")

    cluster.remove("ConfigMap", name)
    cluster.settle()

    assert cluster.objects["ConfigMap", name]["data"] == data
    assert cluster.objects["ConfigMap", name]["immutable"] is True
    assert served(cluster) == name


def test_a_promoted_revision_lost_behind_a_pin_is_made_again_from_its_run() -> None:
    cluster = a_promoted()
    promoted = served(cluster)
    cluster.apply_program({"revision": {"name": cluster.status["baselineRevision"]}})
    cluster.settle()

    cluster.remove("ConfigMap", promoted)
    cluster.settle()

    assert promoted in cluster.revisions()


def test_a_promoted_revision_that_nobody_has_any_more_is_told_and_not_guessed() -> None:
    cluster = a_promoted()
    promoted, baseline = served(cluster), cluster.status["baselineRevision"]
    cluster.apply_program({"revision": {"name": baseline}})
    cluster.settle()
    cluster.remove("ConfigMap", "orun-fast-pod")
    cluster.remove("ConfigMap", promoted)
    cluster.apply_program()
    cluster.settle()

    assert served(cluster) == baseline
    assert cluster.says("Ready") == ("False", "RevisionNotFound")
    assert promoted in cluster.condition("Ready")[2]


def test_a_hand_edit_of_what_is_mounted_is_set_back() -> None:
    cluster = a_promoted()
    name = served(cluster)
    cluster.put({**cluster.current, "data": {**cluster.current["data"], "program.py": "# mine"}})
    cluster.settle()

    assert served(cluster) == name


# --- what is collected ------------------------------------------------------------------------------------------------


def cleaned_up(cluster: Cluster, run: str) -> Cluster:
    """A run's `cleanup` is over: its channel is gone."""
    cluster.remove("ConfigMap", names.run_channel(run))
    return after(cluster)


def with_runs(count: int, **changes: Any) -> Cluster:
    """A program with so many runs, none promoted, all cleaned up."""
    cluster = Cluster().validated(changes)
    for number in range(count):
        cluster.run_ends(run := f"run-{number:02}", promote=False)
        cleaned_up(after(cluster), run)
    return cluster


def test_old_revisions_are_collected_beyond_the_limit() -> None:
    cluster = with_runs(5, revisionHistoryLimit=2)

    kept = {names.program_revision("triage", digest_of(files_of(f"improved by run-{n:02}"))) for n in (3, 4)}
    assert set(cluster.revisions()) == kept | {cluster.status["baselineRevision"]}
    assert set(cluster.candidates()) == {"run-03", "run-04"}
    assert cluster.settle() == 0, "and not made again from their runs"


def test_ten_are_kept_where_nothing_is_said() -> None:
    assert len(with_runs(13).revisions()) == 11  # with the baseline


@pytest.mark.parametrize(
    "which", ["served", "promoted", "pinned", "incumbent of a run", "start of a run", "in its run's channel"]
)
def test_what_is_needed_is_never_collected(which: str) -> None:
    cluster = Cluster().validated({"revisionHistoryLimit": 0})
    changes: dict[str, Any] = {"revisionHistoryLimit": 0}
    digest = cluster.run_ends("keep", promote=which in ("served", "promoted"))
    name = names.program_revision("triage", digest)
    if which == "pinned":
        changes["revision"] = {"name": name}
        cluster.apply_program(changes)
    if which == "promoted":
        after(cluster)
        changes["revision"] = {"name": cluster.status["baselineRevision"]}
        cluster.apply_program(changes)
    if which in ("incumbent of a run", "start of a run"):
        role = "incumbent" if which == "incumbent of a run" else "startFrom"
        run = {"apiVersion": "v1", "kind": "OptimizationRun", "metadata": {"name": "active"}, "spec": {}}
        cluster.put({**run, "status": {"inputs": {role: name}}})
    after(cluster)
    if which != "in its run's channel":
        cleaned_up(cluster, "keep")
    cluster.run_ends("next", promote=False)
    cleaned_up(after(cluster), "next")

    assert name in cluster.revisions()
    assert cluster.status["baselineRevision"] in cluster.revisions()
    assert len(cluster.revisions()) == 2


def test_a_run_that_ended_lets_its_incumbent_go() -> None:
    cluster = Cluster().validated({"revisionHistoryLimit": 0})
    cluster.run_ends("old", promote=False)
    cleaned_up(after(cluster), "old")
    assert cluster.revisions() == [cluster.status["baselineRevision"]]


# --- what outlives the program ----------------------------------------------------------------------------------------


def test_what_was_paid_for_outlives_the_program() -> None:
    cluster = a_promoted()
    revisions, name, current = cluster.revisions(), served(cluster), cluster.current

    cluster.remove("PromptProgram", "triage")

    assert cluster.revisions() == revisions
    assert cluster.current == current
    assert cluster.config_map("pp-triage-pod") is None
    assert cluster.jobs() == []
    cluster.apply_program()
    cluster.settle()
    assert served(cluster) == name, "and a program of that name goes on with it"


def test_with_delete_it_goes_with_the_program() -> None:
    cluster = a_promoted(Cluster().validated({"deletionPolicy": "Delete"}))
    assert len(cluster.revisions()) == 2

    cluster.remove("PromptProgram", "triage")

    assert cluster.revisions() == []
    assert cluster.config_map("triage-current") is None


@pytest.mark.parametrize(("first", "then"), [("Retain", "Delete"), ("Delete", "Retain")])
def test_the_policy_may_be_changed_later(first: str, then: str) -> None:
    cluster = a_promoted(Cluster().validated({"deletionPolicy": first}))
    data = {name: cluster.objects["ConfigMap", name]["data"] for name in cluster.revisions()}

    cluster.apply_program({"deletionPolicy": then})
    cluster.settle()

    assert cluster.settle() == 0
    assert {name: cluster.objects["ConfigMap", name]["data"] for name in cluster.revisions()} == data
    for name in (*cluster.revisions(), "triage-current"):
        references = cluster.objects["ConfigMap", name]["metadata"].get("ownerReferences") or []
        uids = [reference["uid"] for reference in references]
        assert uids == ([cluster.program["metadata"]["uid"]] if then == "Delete" else [])


def test_revisions_of_an_earlier_program_of_the_name_are_not_ours_to_collect() -> None:
    cluster = with_runs(3)
    made_by = cluster.program["metadata"]["uid"]
    old = cluster.revisions()
    for run in ("run-00", "run-01", "run-02"):
        cluster.remove("OptimizationRun", run)
    cluster.remove("PromptProgram", "triage")
    cluster.validated({"revisionHistoryLimit": 0})

    assert set(old) <= set(cluster.revisions())
    for name in old:
        assert cluster.objects["ConfigMap", name]["metadata"]["annotations"][names.ANNOTATION_MADE_BY] == made_by


def test_a_restart_writes_nothing() -> None:
    cluster = a_promoted()
    before = dict(cluster.objects)
    for _ in range(3):
        cluster.restart()
        cluster.pass_time(minutes=7)
        assert cluster.look() == 0
    assert cluster.objects == before
