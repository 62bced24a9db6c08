"""What becomes of what runs found: promoted, or waiting for a person, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dspy_operator.api.reasons import ProgramReason
from dspy_operator.contract import names
from tests.unit.promptprogram.world import NAMESPACE, Cluster, files_of, revision_config_map
from tests.unit.written import an_endpoint

Hands = Callable[[Cluster], Any]
EDIT = {"program.single.signature.instructions": "Classify the ticket well."}


def after(cluster: Cluster, **seconds: float) -> Cluster:
    """Some time later, everything that follows by itself has followed."""
    cluster.pass_time(**(seconds or {"minutes": 1}))
    cluster.settle()
    cluster.runs_see_revisions()
    cluster.settle()
    return cluster


def _ends(**changes: Any) -> Hands:
    return lambda cluster: cluster.run_ends("fast", **changes)


def _an_endpoint_with(model: str, digest: str = "") -> Hands:
    def happens(cluster: Cluster) -> None:
        endpoint = an_endpoint({"provider.openai.model": model})
        cluster.put({**endpoint, "status": {"model": {"digest": digest}} if digest else {}})

    return happens


def _both(*hands: Hands) -> Hands:
    return lambda cluster: [hand(cluster) for hand in hands]


def _manual(cluster: Cluster) -> None:
    cluster.apply_program({"promotion": {"mode": "Manual"}})


def _edited(cluster: Cluster) -> None:
    digest = cluster.status["programDigest"]
    cluster.apply_program(EDIT)
    cluster.run_ends("fast", program_digest=digest)


def _another_was_faster(cluster: Cluster) -> None:
    incumbent = cluster.incumbent()
    cluster.run_ends("other", incumbent=incumbent)
    after(cluster)
    cluster.run_ends("fast", incumbent=incumbent)


def _provenance(model: str) -> dict[str, str]:
    evidence = f'{{"run": {{"name": "fast"}}, "endpoints": {{"task": {{"model": "{model}"}}}}}}'
    return files_of("improved") | {"provenance.json": evidence}


@pytest.mark.parametrize(
    ("happens", "verdict", "says"),
    [
        pytest.param(_ends(), ProgramReason.PROMOTED, "...", id="passed against what is served: it is served"),
        pytest.param(_ends(promote=False), ProgramReason.GATE_NOT_PASSED, "...", id="did not pass the gate"),
        pytest.param(
            _ends(outcome="NotJudged", promote=False),
            ProgramReason.NOT_JUDGED,
            "...",
            id="the budget ended before the judgement",
        ),
        pytest.param(
            _both(_manual, _ends()),
            ProgramReason.MANUAL_PROMOTION,
            "set spec.revision.name to triage-",
            id="passed, and the program was set to Manual meanwhile",
        ),
        pytest.param(
            _ends(promote=False, outcome="Improved"),
            ProgramReason.MANUAL_PROMOTION,
            "...",
            id="passed, and the program was Manual when the run began",
        ),
        pytest.param(
            _ends(promote=False, outcome="Improved", alpha="0.0001"),
            ProgramReason.TEST_WORN,
            "...",
            id="passed on rows that were looked at too often",
        ),
        pytest.param(
            _another_was_faster,
            ProgramReason.INCUMBENT_CHANGED,
            "passed against the baseline, but triage-",
            id="another run was promoted while this one ran",
        ),
        pytest.param(
            _edited,
            ProgramReason.PROGRAM_CHANGED,
            "the program was edited since the run began",
            id="the program was edited while the run ran",
        ),
        pytest.param(
            _ends(task="models/big"),
            ProgramReason.DIFFERENT_MODEL,
            "passed on models/big, and the program is tuned for team-a/qwen",
            id="measured on another endpoint",
        ),
        pytest.param(
            _both(_an_endpoint_with("qwen", "sha256:1"), _ends(task="models/big", loaded="sha256:1")),
            ProgramReason.PROMOTED,
            "...",
            id="measured on another endpoint with the same weights",
        ),
        pytest.param(
            _both(_an_endpoint_with("qwen", "sha256:2"), _ends(loaded="sha256:1")),
            ProgramReason.DIFFERENT_MODEL,
            "passed on another model",
            id="the endpoint has loaded another model since",
        ),
        pytest.param(
            _both(_an_endpoint_with("new"), _ends(files=_provenance("old"))),
            ProgramReason.DIFFERENT_MODEL,
            "passed on model old, and team-a/qwen answers with new now",
            id="the endpoint asks its provider for another model since",
        ),
        pytest.param(
            _both(_an_endpoint_with("same"), _ends(files=_provenance("same"))),
            ProgramReason.PROMOTED,
            "...",
            id="the endpoint asks its provider for the same model",
        ),
    ],
)
def test_verdict(happens: Hands, verdict: ProgramReason, says: str) -> None:
    cluster = Cluster().validated()
    baseline = cluster.status["servedRevision"]["name"]

    happens(cluster)
    after(cluster)

    entry = next(entry for entry in cluster.status["candidates"] if entry["run"] == "fast")
    assert entry["verdict"] == verdict
    assert says in entry["message"]
    assert entry["revision"] in cluster.revisions()
    assert (entry["delta"], entry["p"]) == ("23", "0.004")
    served = cluster.status["servedRevision"]["name"]
    if verdict is ProgramReason.PROMOTED:
        assert served == entry["revision"] == cluster.status["promotedRevision"]["name"]
        assert cluster.status["promotedRevision"]["score"] == "83.5"
    else:
        assert served != entry["revision"]
        assert served == baseline or verdict is ProgramReason.INCUMBENT_CHANGED
    assert cluster.current["data"] == dict(cluster.objects["ConfigMap", served]["data"])
    told = [event.reason for event in cluster.events if entry["revision"] in event.message]
    assert told.count(verdict) == 1


def test_a_reused_result_is_no_candidate_once_more() -> None:
    cluster = Cluster().validated()
    cluster.run_ends("first", promote=False)
    after(cluster)
    cluster.run_ends("second", outcome="Reused")

    assert after(cluster).candidates() == {"first": ProgramReason.GATE_NOT_PASSED}


def test_too_few_rows_leave_a_passed_candidate_to_a_person() -> None:
    cluster = Cluster().validated(test=40)
    cluster.run_ends("fast", promote=False, outcome="Improved")

    assert after(cluster).candidates() == {"fast": ProgramReason.TEST_UNDERPOWERED}


def test_a_chain_of_promotions_ends_with_the_last() -> None:
    cluster = Cluster().validated()
    for run in ("one", "two", "three"):
        cluster.run_ends(run)
        after(cluster)

    assert cluster.candidates() == {
        "three": ProgramReason.PROMOTED,
        "two": ProgramReason.SUPERSEDED,
        "one": ProgramReason.SUPERSEDED,
    }
    assert cluster.status["promotedRevision"]["run"] == "three"


def test_a_candidate_that_lost_once_is_not_promoted_by_a_pin() -> None:
    cluster = Cluster().validated()
    baseline = cluster.status["baselineRevision"]
    cluster.run_ends("one", incumbent=None)
    after(cluster)
    cluster.run_ends("two", incumbent=None)
    after(cluster)
    assert cluster.candidates()["two"] == ProgramReason.INCUMBENT_CHANGED

    cluster.apply_program({"revision": {"name": baseline}})  # a person goes back to what "two" was measured against
    after(cluster)

    assert cluster.candidates()["two"] == ProgramReason.INCUMBENT_CHANGED
    assert cluster.status["promotedRevision"]["run"] == "one"


def test_of_two_runs_that_beat_a_pinned_revision_the_later_one_is_promoted_and_stays() -> None:
    cluster = Cluster().validated()
    baseline = cluster.status["baselineRevision"]
    cluster.apply_program({"revision": {"name": baseline}})
    after(cluster)
    cluster.run_ends("one", incumbent=None)
    cluster.pass_time(seconds=5)
    cluster.run_ends("two", incumbent=None)

    after(cluster)

    assert cluster.status["servedRevision"] == {
        "name": baseline,
        "digest": cluster.current["metadata"]["annotations"][names.ANNOTATION_DIGEST],
        "pinned": True,
    }
    assert cluster.status["promotedRevision"]["run"] == "two"
    assert cluster.candidates() == {"two": ProgramReason.PROMOTED, "one": ProgramReason.SUPERSEDED}
    assert cluster.look() == 0


def test_a_raised_budget_may_replace_its_own_revision() -> None:
    cluster = Cluster().validated()
    cluster.run_ends("fast", incumbent=None)
    after(cluster)
    first = cluster.status["servedRevision"]["name"]

    cluster.run_ends("fast", incumbent=None, files=files_of("even better"))
    after(cluster)

    assert cluster.candidates() == {"fast": ProgramReason.PROMOTED}
    assert cluster.status["servedRevision"]["name"] != first


def test_a_candidate_judged_late_is_decided_anew() -> None:
    cluster = Cluster().validated()
    cluster.run_ends("fast", outcome="NotJudged", promote=False)
    after(cluster)
    assert cluster.candidates() == {"fast": ProgramReason.NOT_JUDGED}

    cluster.run_ends("fast")  # the budget was raised, and the same revision judged

    assert after(cluster).candidates() == {"fast": ProgramReason.PROMOTED}


def test_a_lost_status_is_rebuilt_without_a_second_promotion() -> None:
    cluster = Cluster().validated()
    cluster.run_ends("one")
    after(cluster)
    cluster.run_ends("two")
    after(cluster)
    before, told = dict(cluster.status), len(cluster.events)

    cluster.lose_status()
    cluster.restart()
    cluster.settle()

    for name in ("promotedRevision", "servedRevision", "baselineRevision", "dataset", "validation", "testUse"):
        assert cluster.status.get(name) == before.get(name)
    assert cluster.candidates()["two"] == ProgramReason.PROMOTED
    assert "Promoted" not in [event.reason for event in cluster.events[told:]]


def test_a_deleted_current_is_rebuilt_from_the_status() -> None:
    cluster = Cluster().validated()
    cluster.run_ends("fast")
    after(cluster)
    before = cluster.current

    cluster.remove("ConfigMap", "triage-current")
    cluster.settle()

    assert cluster.current["data"] == before["data"]
    assert cluster.current["metadata"]["annotations"] == before["metadata"]["annotations"]
    assert cluster.candidates() == {"fast": ProgramReason.PROMOTED}


def test_both_lost_the_promotions_are_found_again_from_the_runs() -> None:
    cluster = Cluster().validated()
    for run in ("one", "two"):
        cluster.run_ends(run)
        after(cluster)
    want = dict(cluster.status["promotedRevision"])

    cluster.remove("ConfigMap", "triage-current")
    cluster.lose_status()
    cluster.restart()
    cluster.settle()

    assert cluster.status["promotedRevision"] == want


def test_files_that_are_not_what_the_run_said_make_no_revision() -> None:
    cluster = Cluster().validated()
    cluster.run_ends("fast", channel=False)
    cluster.put_run_channel("fast", files_of("something else"))
    after(cluster)

    assert cluster.candidates() == {"fast": ProgramReason.REVISION_DAMAGED}
    assert cluster.revisions() == [cluster.status["baselineRevision"]]


def test_a_candidate_too_large_for_a_config_map_says_what_to_cut() -> None:
    cluster = Cluster().validated()
    cluster.run_ends("fast", files=files_of("x") | {"program.json": "y" * 950_000})
    after(cluster)

    (entry,) = cluster.status["candidates"]
    assert entry["verdict"] == ProgramReason.REVISION_TOO_LARGE
    assert "program.json 950000" in entry["message"]


def test_a_run_that_is_gone_leaves_its_line_as_long_as_its_revision_is_there() -> None:
    cluster = Cluster().validated()
    cluster.run_ends("fast", promote=False)
    after(cluster)
    revision = cluster.status["candidates"][0]["revision"]

    cluster.remove("OptimizationRun", "fast")
    cluster.settle()
    assert cluster.candidates() == {"fast": ProgramReason.GATE_NOT_PASSED}

    cluster.remove("ConfigMap", revision)
    cluster.remove("ConfigMap", "orun-fast-pod")
    cluster.settle()
    assert cluster.candidates() == {}


def test_the_line_of_a_run_that_is_gone_tells_when_it_was_superseded() -> None:
    cluster = Cluster().validated()
    cluster.run_ends("one")
    after(cluster)
    cluster.remove("OptimizationRun", "one")
    assert after(cluster).candidates() == {"one": ProgramReason.PROMOTED}

    cluster.run_ends("two")

    assert after(cluster).candidates() == {"two": ProgramReason.PROMOTED, "one": ProgramReason.SUPERSEDED}


def test_the_status_shows_the_last_ten_and_stays_small() -> None:
    cluster = Cluster().validated()
    for number in range(14):
        cluster.run_ends(f"run-{number:02}", promote=False)
        after(cluster)

    assert list(cluster.candidates()) == [f"run-{number:02}" for number in range(13, 3, -1)]


def test_the_same_revision_found_twice_is_one_config_map() -> None:
    cluster = Cluster().validated()
    cluster.run_ends("one", files=files_of("same"), promote=False)
    after(cluster)
    cluster.run_ends("two", files=files_of("same"), promote=False)
    after(cluster)

    lines = cluster.status["candidates"]
    assert lines[0]["revision"] == lines[1]["revision"]
    assert len(cluster.revisions()) == 2  # with the baseline


def test_a_candidate_is_made_again_as_long_as_its_run_has_it() -> None:
    cluster = Cluster().validated()
    cluster.run_ends("fast", promote=False)
    after(cluster)
    revision = cluster.status["candidates"][0]["revision"]

    cluster.remove("ConfigMap", revision)
    after(cluster)
    assert revision in cluster.revisions()

    cluster.remove("ConfigMap", "orun-fast-pod")
    cluster.remove("ConfigMap", revision)
    assert after(cluster).candidates() == {}


def test_an_adopted_revision_is_found_by_its_content() -> None:
    cluster = Cluster().validated()
    cluster.put(revision_config_map("from-dev", files_of("improved by fast")))
    cluster.run_ends("fast")
    after(cluster)

    assert cluster.status["servedRevision"]["name"] == "from-dev"


def test_nothing_is_promoted_where_it_could_not_be_recorded() -> None:
    cluster = Cluster().validated()
    cluster.remove("ConfigMap", "triage-current")
    cluster.put_foreign("ConfigMap", "triage-current")
    cluster.settle()
    cluster.run_ends("fast")
    after(cluster)
    assert cluster.candidates() == {}
    assert "servedRevision" not in cluster.status

    cluster.remove_foreign("ConfigMap", "triage-current")

    assert after(cluster).candidates() == {"fast": ProgramReason.PROMOTED}


def test_references_name_the_target() -> None:
    cluster = Cluster()
    program = cluster.apply_program({"target.endpoint": {"name": "big", "namespace": "models"}})
    assert list(cluster.controller.references(program)) == [("ModelEndpoint", "models", "big")]
    local = cluster.apply_program()
    assert list(cluster.controller.references(local)) == [("ModelEndpoint", NAMESPACE, "qwen")]
    assert list(cluster.controller.references({**local, "spec": {}})) == []
