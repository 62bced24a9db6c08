"""Code of one's own as metric, reward or program, through the real CLI: what it scores, what GEPA is told, and exact resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dspy_operator.cli.export import Target, export
from dspy_operator.cli.revisions import read_revision
from dspy_operator.contract.canonical import sha256_hex
from dspy_operator.contract.exits import RunFailed
from tests.integration.acceptance import (
    LONG,
    Point,
    passed_before,
    record,
    resumed_to_the_same,
    unanswered,
    uninterrupted,
)
from tests.integration.coded import METRIC, PROGRAM, SCORE, Coded, Written
from tests.integration.harness import OPTIMIZERS, SMALL, intruder, workplace
from tests.integration.test_kill import THREADS, kill_at_a_call, kill_at_ordinal
from tests.integration.test_metrics import feedback_told, judged

pytestmark = pytest.mark.timeout(600)

SHA256 = f"sha256:{sha256_hex(SCORE.encode())}"
POINTS = [
    Point(optimizer, seed, phase)
    for optimizer in OPTIMIZERS
    for seed, phase in enumerate(("baseline", "optimize", "judge"))
    if LONG or (optimizer, phase) in {("BootstrapFewShot", "optimize")}
]


def document(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def test_a_functions_scores_and_feedback_are_what_the_run_goes_by(tmp_path: Path) -> None:
    case = Coded({"type": "GEPA", "gepa": {"maxMetricCalls": 40}}, dev=12, test=6)
    with workplace(tmp_path, case, keep_requests=10_000) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        assert {arm["score"] for row in judged(place) for arm in row["arms"].values()} == {0.1, 1.0}
        said = [text for texts in feedback_told(place) for text in texts]
        assert any(" thing is not " in text for text in said) and "right." in said
        assert done.result["code"] == {"spec.metric.code": SHA256}
        assert document(place.run_folder / "revision" / "provenance.json")["code"] == {"spec.metric.code": SHA256}
        verified = place.verify(environment=intruder(denied=tmp_path / "attempts"))
        assert verified.code == 0, verified.stderr
        before = place.server.counts()["requests"]
        place.change(source=SCORE.replace("0.1", "0.2"))
        changed = place.run("--resume")
        assert (changed.code, place.server.counts()["requests"]) == (64, before)
        assert "was started with other inputs: the program changed since" in changed.stderr


@pytest.mark.parametrize("point", [pytest.param(point, id=point.id) for point in POINTS])
def test_a_killed_run_with_a_function_comes_to_the_same_revision(tmp_path: Path, point: Point) -> None:
    if passed_before("code-kill", point):
        print(f"{point.id}: on record as passed")
        return
    case = Coded(OPTIMIZERS[point.optimizer], dev=12, test=6, concurrency=THREADS)
    whole = uninterrupted(tmp_path / "uninterrupted", case)
    with workplace(tmp_path / "killed", case) as place:
        where = kill_at_a_call(place, point, whole)
        place.server.wait_until(lambda counts: counts["in_flight"] == 0)
        in_flight = unanswered(place)
        resumed_to_the_same(place, whole, in_flight)
        record("code-kill", point, where=where, in_flight=in_flight, uninterrupted=whole.requests)


REWARD = {"type": "Code", "code": {"configMap": {"name": "code", "key": "metric.py"}, "entrypoint": "metric:reward"}}
REWARDED = """
def reward(inputs, prediction):
    return prediction.label == "positive" and inputs["text"].startswith("item")
"""


@pytest.mark.parametrize("module", ["BestOfN", "Refine"] if LONG else ["BestOfN"])
def test_a_killed_run_with_a_reward_of_ones_own_comes_to_the_same_revision(tmp_path: Path, module: str) -> None:
    """It is a part of the revision, so an answer is as good for whoever runs program.py."""
    options = {"attempts": 2, "threshold": "1", "reward": REWARD}
    member = {"BestOfN": "bestOfN", "Refine": "refine"}[module]
    program = {"program": {"single": {"module": {"type": module, member: options}}}}
    case = Coded(OPTIMIZERS["BootstrapFewShot"], dev=8, test=4, program=program, source=REWARDED, concurrency=THREADS)
    case.metric = {"type": "ExactMatch"}
    whole = uninterrupted(tmp_path / "uninterrupted", case)
    assert REWARDED.strip().encode() in whole.files()["program.py"]
    with workplace(tmp_path / "killed", case) as place:
        kill_at_ordinal(place, whole.requests // 2, settled=True)
        place.server.wait_until(lambda counts: counts["in_flight"] == 0)
        resumed_to_the_same(place, whole, unanswered(place))
        assert place.verify().code == 0


@pytest.mark.parametrize("optimizer", OPTIMIZERS if LONG else ["BootstrapFewShot"])
def test_a_killed_run_of_a_program_of_ones_own_comes_to_the_same_revision(tmp_path: Path, optimizer: str) -> None:
    case = Written(SMALL[optimizer], dev=8, test=4, concurrency=THREADS)
    whole = uninterrupted(tmp_path / "uninterrupted", case)
    assert PROGRAM.strip().encode() in whole.files()["program.py"]
    assert {"program.look", "program.say"} < document(whole.run_folder / "revision" / "program.json").keys()
    assert whole.result["code"].keys() == {"spec.program.code"}
    with pytest.raises(RunFailed, match="it is code"):
        export(read_revision(str(whole.run_folder)), Target.OPENAI)
    with workplace(tmp_path / "killed", case) as place:
        kill_at_ordinal(place, whole.requests // 2, settled=True)
        place.server.wait_until(lambda counts: counts["in_flight"] == 0)
        resumed_to_the_same(place, whole, unanswered(place))
        assert place.verify().code == 0


def test_a_program_whose_answer_lacks_an_output_ends_the_run_at_its_first_row(tmp_path: Path) -> None:
    case = Written(OPTIMIZERS["Evaluate"], dev=2, test=4, source=PROGRAM.replace("(label=", "(lable="))
    with workplace(tmp_path, case) as place:
        done = place.run()
        assert (done.code, done.result["path"]) == (40, "spec.program.code.outputs"), done.stderr
        assert place.server.counts()["requests"] == 2


@pytest.mark.parametrize(
    ("taken", "says"),
    [
        pytest.param("self, ticket", 'whose forward(self, ticket) does not take the input "text" (inputs', id="another name"),
        pytest.param("self, text, hint", 'forward(self, text, hint) needs "hint", which is no input', id="one too many"),
    ],
)  # fmt: skip
def test_a_program_that_does_not_take_its_inputs_ends_the_run_before_any_call(
    tmp_path: Path, taken: str, says: str
) -> None:
    source = PROGRAM.replace("forward(self, text)", f"forward({taken})")
    with workplace(tmp_path, Written(OPTIMIZERS["Evaluate"], dev=2, test=4, source=source)) as place:
        done = place.run()
        assert (done.code, done.result["path"]) == (40, "spec.program.code.entrypoint"), done.stderr
        assert says in done.stderr
        assert place.server.counts()["requests"] == 0


def test_a_function_that_does_not_say_the_same_twice_is_found(tmp_path: Path) -> None:
    """Resume is replay: its scores are in the marks."""
    source = "import uuid\n\n\ndef score(example, prediction):\n    return uuid.uuid4().int % 1000 / 1000\n"
    with workplace(tmp_path, Coded(OPTIMIZERS["Evaluate"], dev=2, test=4, source=source)) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        assert place.verify().code == 48


def test_a_function_is_a_part_of_a_composite(tmp_path: Path) -> None:
    parts = [{"metric": {"type": "ExactMatch"}}, {"metric": dict(METRIC), "weight": "3"}]
    case = Coded(OPTIMIZERS["Evaluate"], dev=2, test=12, metric={"type": "Composite", "composite": {"parts": parts}})
    with workplace(tmp_path, case) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        wrong = [arm for row in judged(place) for arm in row["arms"].values() if arm["score"] < 1]
        assert wrong and {round(arm["score"], 9) for arm in wrong} == {0.075}
        assert all("Code: item" in arm["feedback"] for arm in wrong)
