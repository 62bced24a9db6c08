"""What is particular to one optimizer: sizes, progress, and answers of a model that does not do what DSPy hopes for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.acceptance import Reference, reference
from tests.integration.harness import OPTIMIZERS, Case, Workplace, workplace
from tests.integration.test_kill import THREADS, kill_at_ordinal

PROPOSAL = "proposed_prefix_for_output_field"
"""What each request of COPRO for proposals contains."""

INDUCTION = "natural_language_rules"
"""The same of InferRules for rules."""

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """The uninterrupted run of the optimizer that the test names."""
    return reference(tmp_path_factory.getbasetemp(), request.getfixturevalue("optimizer"))


@pytest.mark.parametrize("optimizer", [each for each in OPTIMIZERS if each != "COPRO"])
def test_the_estimate_is_within_a_factor_of_two(whole: Reference, optimizer: str) -> None:
    assert whole.requests / 2 <= whole.result["estimate"]["calls"] <= 2 * whole.requests


def test_copro_scores_as_many_different_proposals_as_it_estimates(tmp_path: Path) -> None:
    """Where the server samples; elsewhere it proposes the same thing again and again."""
    with workplace(tmp_path, Case(OPTIMIZERS["COPRO"], concurrency=THREADS), stochastic=True) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        estimated, sent = done.result["estimate"], place.server.counts()["requests"]
        assert estimated["optimizeCalls"] == 8 + 8 * 24
        assert estimated["calls"] - 24 <= sent <= estimated["calls"]  # the baseline may stay the best
        assert len(programs(place)) == 9


@pytest.mark.parametrize("optimizer", ["COPRO"])
def test_proposals_that_cannot_be_read_are_left_out(tmp_path: Path, whole: Reference, optimizer: str) -> None:
    """The first of two: whose place the second takes, which is the same for this server."""
    faults = [{"type": "garbage_text", "when": {"match": PROPOSAL, "max": 1}}]
    with workplace(tmp_path, Case(OPTIMIZERS[optimizer], concurrency=THREADS), faults=faults) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        assert place.server.counts()["by_fault"]["garbage_text"] == 1
        assert done.result["candidate"] == whole.result["candidate"]
        assert place.verify().code == 0


def test_proposals_of_which_none_can_be_read_end_the_run(tmp_path: Path) -> None:
    faults = [{"type": "garbage_text", "when": {"match": PROPOSAL}}]
    with workplace(tmp_path, Case(OPTIMIZERS["COPRO"], concurrency=THREADS), faults=faults) as place:
        done = place.run()
        assert (done.code, done.result["reason"]) == (53, "ModelAnswersUnusable"), done.stderr
        assert "COPRO: it cannot go on without an answer" in done.result["message"]
        assert place.server.counts()["requests"] == 24 + 2
        assert "Traceback" not in done.stderr


def test_each_candidate_of_infer_rules_has_its_own_rules_and_the_baseline_none(tmp_path: Path) -> None:
    """DSPy 3.4.1 writes them into one class that all of them share."""
    with workplace(tmp_path, Case(OPTIMIZERS["InferRules"], concurrency=THREADS), stochastic=True) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        assert len(programs(place)) == 1 + 5
        asked = [instructions(entry["request"]) for entry in place.journal() if entry["kind"] == "start"]
        answers = [text for text in asked if "Classify the text." in text]
        rules = {text for text in answers if "Please adhere to the following rules" in text}
        assert len(rules) == 5 and all(text.count("Please adhere") == 1 for text in rules)
        plain = len(answers) - sum(text in rules for text in answers)
        assert plain >= 12 + 12  # the baseline on the validation rows, and on the test rows
        assert place.verify().code == 0


@pytest.mark.parametrize("optimizer", ["InferRules"])
def test_rules_that_cannot_be_read_cost_their_candidate_alone(tmp_path: Path, whole: Reference, optimizer: str) -> None:
    faults = [{"type": "garbage_text", "when": {"match": INDUCTION, "max": 1}}]
    with workplace(tmp_path, Case(OPTIMIZERS[optimizer], concurrency=THREADS), faults=faults) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        assert place.server.counts()["by_fault"]["garbage_text"] == 1
        assert len(programs(place)) == 3  # the baseline, demonstrations without rules, and the rules of this server
        assert done.result["resolved"] == whole.result["resolved"]
        assert place.verify().code == 0


def test_rows_that_exceed_the_prompt_models_context_are_halved_until_they_fit(tmp_path: Path) -> None:
    faults = [{"type": "context_length", "when": {"match": INDUCTION, "max": 2}}]
    with workplace(tmp_path, Case(OPTIMIZERS["InferRules"], concurrency=THREADS), faults=faults) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        asked = [text_of(entry["request"]) for entry in place.journal() if entry["kind"] == "start"]
        rows = [text.count("Input Fields:") for text in asked if INDUCTION in text]
        assert rows == [12, 6, 3, 3, 3, 3, 3]
        assert place.verify().code == 0


@pytest.mark.parametrize("optimizer", ["BootstrapFewShotWithRandomSearch", "InferRules"])
def test_racing_comes_to_the_same_candidate_for_fewer_calls(tmp_path: Path, optimizer: str) -> None:
    ends = []
    for racing in (False, True):
        case = Case(changed(optimizer, racing=racing), dev=48, concurrency=THREADS)
        with workplace(tmp_path / str(racing), case, stochastic=optimizer == "InferRules") as place:
            done = place.run()
            assert done.code == 0, done.stderr
            ends.append((done.result, place.server.counts()["requests"]))
            assert place.verify().code == 0
    (whole, calls), (raced, fewer) = ends
    assert raced["candidate"] == whole["candidate"]
    assert raced["scores"] == whole["scores"]
    assert fewer < calls


def test_more_rows_in_a_step_of_simba_than_there_are_is_refused_unpaid(tmp_path: Path) -> None:
    case = Case(changed("SIMBA", bsize=25))
    with workplace(tmp_path, case) as place:
        done = place.run()
        assert (done.code, done.result["path"]) == (41, "spec.optimizer.simba"), done.stderr
        assert "SIMBA: bsize 25 is more than the 24 dev rows" in done.result["message"]
        assert place.server.counts()["requests"] == 0
        place.change(optimizer=changed("SIMBA", bsize=None, maxSteps=1))
        done = place.run()
        assert (done.code, done.result["resolved"]["bsize"]) == (0, 24), done.stderr


@dataclass
class Sampled(Case):
    """On a server that answers the same request differently each time."""

    def script(self, **more: Any) -> dict[str, Any]:
        return super().script(stochastic=True, **more)


def test_simba_with_a_model_that_samples_is_replayed_exactly_after_kills(tmp_path: Path) -> None:
    """A step's rollouts are the same request on the wire: which answer is whose is the journal's to know."""
    with workplace(tmp_path, Sampled(OPTIMIZERS["SIMBA"], concurrency=THREADS)) as place:
        for ordinal in (30, 60, 110):
            kill_at_ordinal(place, ordinal, settled=True)
            place.server.wait_until(lambda counts: counts["in_flight"] == 0)
        done = place.run("--resume")
        assert done.code == 0, done.stderr
        sampled = [entry["scores"] for entry in place.journal() if entry.get("mark") == "bootstrap"]
        assert len(sampled) == 3
        rollouts = [tuple(scores[row::6]) for scores in sampled for row in range(6)]
        assert any(len(set(scores)) > 1 for scores in rollouts), "the model does not sample"
        sent = place.server.counts()["requests"]
        assert place.verify().code == 0
        again = place.run("--resume")
        assert (again.code, again.result["candidate"]) == (0, done.result["candidate"])
        assert place.server.counts()["requests"] == sent


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_progress_counts_all_the_trials_that_it_planned(whole: Reference, optimizer: str) -> None:
    progress = json.loads((whole.run_folder / "progress.json").read_bytes())
    if optimizer == "Evaluate":
        assert "trialsPlanned" not in progress
    elif optimizer in {"BootstrapFewShot", "GEPA"}:  # the one stops when it has enough, the other at a whole minibatch
        assert progress["trialsDone"] > 0 and progress["trialsPlanned"] > 0
    else:
        assert progress["trialsDone"] == progress["trialsPlanned"] > 0


@pytest.mark.parametrize("optimizer", ["BootstrapFewShot", "BootstrapFewShotWithRandomSearch", "InferRules", "MIPROv2"])
def test_as_many_failed_rows_as_max_errors_end_the_run_by_that_name(tmp_path: Path, optimizer: str) -> None:
    with unreadable_from_the_optimizer_on(tmp_path, optimizer, maxErrors=2) as place:
        done = place.run()
        assert (done.code, done.result["reason"], done.result["path"]) == (53, "ModelAnswersUnusable", "spec.optimizer")
        assert f"{optimizer}: maxErrors: 2 rows failed" in done.result["message"], done.result["message"]
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("optimizer", ["MIPROv2"])
def test_rows_that_fail_in_the_search_of_miprov2_end_the_run_and_are_no_score(
    tmp_path: Path, whole: Reference, optimizer: str
) -> None:
    """DSPy's MIPROv2 scores an evaluation that was ended for its errors 0, and goes on."""
    after_the_proposals = next(sent for sent in whole.evaluations if sent > whole.evaluations[1])
    faults = [{"type": "garbage_text", "when": {"after": after_the_proposals}}]
    case = Case(changed(optimizer, maxErrors=2), concurrency=THREADS)
    with workplace(tmp_path, case, faults=faults) as place:
        done = place.run()
        assert (done.code, done.result["reason"], done.result["path"]) == (53, "ModelAnswersUnusable", "spec.optimizer")
        assert "MIPROv2: maxErrors: 2 rows failed" in done.result["message"]
        evaluated = [entry for entry in place.journal() if entry.get("mark") == "evaluate"]
        assert len(evaluated) == len([sent for sent in whole.evaluations if sent <= after_the_proposals])


def text_of(request: dict[str, Any]) -> str:
    """All that a recorded request says."""
    return json.dumps(request)


def instructions(request: dict[str, Any]) -> str:
    """What a recorded request says before its row."""
    return json.dumps(request.get("system"))


def programs(place: Workplace) -> set[str]:
    """Hashes of the programs that the optimization scored."""
    return {entry["program"] for entry in place.journal() if entry["kind"] == "mark" and entry["mark"] == "evaluate"}


def unreadable_from_the_optimizer_on(folder: Path, optimizer: str, **options: Any) -> Any:
    """A case whose model answers the baseline, and then nothing that can be read."""
    spec = changed(optimizer, **options)
    baseline = 24 if optimizer == "BootstrapFewShot" else 12
    faults = [{"type": "garbage_text", "when": {"after": baseline}}]
    return workplace(folder, Case(spec, concurrency=THREADS), faults=faults)


def changed(optimizer: str, **options: Any) -> dict[str, Any]:
    """The harness's case of an optimizer with other options."""
    (member,) = set(OPTIMIZERS[optimizer]) - {"type"}
    return {"type": optimizer, member: {**OPTIMIZERS[optimizer][member], **options}}
