"""A model as the metric, through the real CLI: who is asked, what is counted, and what a judge that fails comes to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.counting_server import CountingServer
from tests.integration.acceptance import resumed_to_the_same, unanswered, uninterrupted
from tests.integration.graded import RUBRIC, Graded
from tests.integration.harness import OPTIMIZERS, SMALL, Case, Workplace, workplace
from tests.integration.test_kill import kill_at_ordinal
from tests.integration.test_metrics import feedback_told, judged

ASKS_A_JUDGE = "You grade an answer"


def asked_of_judges(server: CountingServer) -> list[str]:
    """The bodies of the requests that ask for a grade."""
    return [seen["body"] for seen in server.requests() if ASKS_A_JUDGE in seen["body"]]


def usage(place: Workplace) -> tuple[dict[str, Any], dict[str, Any]]:
    """The result's usage, and by role."""
    result = json.loads((place.run_folder / "result.json").read_bytes())
    return result["usage"], result["usageByRole"]


def test_scores_are_the_judges_and_every_question_to_it_is_counted(tmp_path: Path) -> None:
    case = Graded(OPTIMIZERS["MIPROv2"])
    with workplace(tmp_path, case, keep_requests=10_000) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        used, by_role = usage(place)
        counts = place.server.counts()
        assert used["calls"] == counts["requests"] and set(by_role) == {"task", "prompt", "judge"}
        asked = asked_of_judges(place.server)
        assert by_role["judge"]["calls"] == len(asked) == len(set(asked)), "the same answer to a row is graded once"
        assert sum(role["calls"] for role in by_role.values()) == used["calls"]
        assert used["inputTokens"] + used["outputTokens"] == counts["prompt_tokens"] + counts["completion_tokens"]
        for line in judged(place):
            for arm in line["arms"].values():
                right = arm["outputs"]["label"] == line["expected"]["label"]
                assert (arm["score"], arm["class"]) == (float(right), "right" if right else "wrong")
                assert right or arm["feedback"].startswith("It does not say what was expected")
        verified = place.verify()
        assert verified.code == 0, verified.stderr


def test_an_endpoint_of_its_own_judges_at_temperature_0_with_its_own_price(tmp_path: Path) -> None:
    case = Graded(OPTIMIZERS["BootstrapFewShot"], judge={"name": "grader", "request": {"maxTokens": 99}})
    with workplace(tmp_path, case, keep_requests=10_000) as place, CountingServer({"keep_requests": 10_000}) as grader:
        done = place.run("--endpoint", f"grader={grader.url}")
        assert done.code == 0, done.stderr
        used, by_role = usage(place)
        assert not asked_of_judges(place.server) and len(asked_of_judges(grader)) == grader.counts()["requests"]
        for role, server, prices in (("task", place.server, ("0.15", "0.60")), ("judge", grader, ("3", "15"))):
            counts = server.counts()
            assert by_role[role]["calls"] == counts["requests"]
            assert by_role[role]["inputTokens"] == counts["prompt_tokens"]
            price = (counts["prompt_tokens"] * float(prices[0]) + counts["completion_tokens"] * float(prices[1])) / 1e6
            assert float(by_role[role]["cost"]) == pytest.approx(price)
        assert used["calls"] == place.server.counts()["requests"] + grader.counts()["requests"]
        bodies = [json.loads(body) for body in asked_of_judges(grader)]
        assert {body["temperature"] for body in bodies} == {0}
        assert {body.get("max_completion_tokens") or body.get("max_tokens") for body in bodies} == {99}


def test_task_and_judge_are_busy_together(tmp_path: Path) -> None:
    """As many on the wire as both may have, where one endpoint alone never has more than its own."""
    case = Graded(OPTIMIZERS["Evaluate"], judge={"name": "grader"}, concurrency=3, test=24)
    with (
        workplace(tmp_path, case, latency_ms=40) as place,
        CountingServer({"latency_ms": 40}) as grader,
    ):
        done = place.run("--endpoint", f"grader={grader.url}")
        assert done.code == 0, done.stderr
        assert place.server.counts()["highest_concurrency"] == grader.counts()["highest_concurrency"] == 3


def test_votes_are_asked_for_as_often_as_it_says(tmp_path: Path) -> None:
    metric = {"type": "Judge", "judge": {**RUBRIC, "scale": 5, "votes": 3, "combine": "Mean"}}
    judge = {"name": "fake", "request": {"temperature": "0.7"}}
    case = Graded(OPTIMIZERS["Evaluate"], metric=metric)
    case.run = {"endpoints": {"judge": judge}}
    with workplace(tmp_path, case, stochastic=True, keep_requests=1000) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        _, by_role = usage(place)
        assert (by_role["task"]["calls"], by_role["judge"]["calls"]) == (13, 39), "one row more before the judgement"
        assert done.result["estimate"]["calls"] == 13 * 4
        for line in judged(place):
            answer = line["arms"]["baseline"]
            assert (answer["score"] == 1) == (answer["outputs"]["label"] == line["expected"]["label"])
            assert round(15 * answer["score"]) == pytest.approx(15 * answer["score"])
        verified = place.verify()
        assert verified.code == 0, verified.stderr
        place.change(run={})
        refused = place.run("-o", str(tmp_path / "other"))
        assert refused.code == 42 and "3 votes of a judge at temperature 0 are one vote" in refused.stderr


def test_answers_are_compared_with_what_was_expected_in_both_places(tmp_path: Path) -> None:
    """Right is no better than what was expected, wrong is worse; a judge that looks at the place alone gives a tie."""
    case = Graded(OPTIMIZERS["Evaluate"], metric={"type": "Judge", "judge": {**RUBRIC, "pairwise": True}})
    with workplace(tmp_path, case, keep_requests=1000, judge_slips=0.3) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        answers = [(line["arms"]["baseline"], line["expected"]["label"]) for line in judged(place)]
        for answer, expected in answers:
            by_place = "It stands first" in answer["feedback"]
            assert answer["score"] == (0.5 if by_place or answer["outputs"]["label"] == expected else 0)
        assert {answer["score"] for answer, _ in answers} == {0, 0.5}
        assert done.result["usageByRole"]["judge"]["calls"] == done.result["usage"]["calls"] - 13 <= 2 * 13
        verified = place.verify()
        assert verified.code == 0, verified.stderr


@dataclass
class Checked(Graded):
    """Every dev row has an answer that a person graded; of the first ten answers two are graded as the judge would not."""

    def rows(self) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = [dict(row) for row in super().rows()]
        for number, row in enumerate(made[:10]):
            right = number % 2
            said = row["label"] if right else {"positive": "negative", "negative": "positive"}[row["label"]]
            row |= {"said": said, "human": 1 - right if number < 2 else right}
        return made


def test_a_judge_that_grades_as_people_do_not_ends_the_run_before_the_optimization(tmp_path: Path) -> None:
    def judge(least: str) -> dict[str, Any]:
        return {
            "type": "Judge",
            "judge": {**RUBRIC, "calibration": {"answer": "said", "grade": "human", "minKappa": least}},
        }

    with workplace(tmp_path, Checked(OPTIMIZERS["BootstrapFewShot"], metric=judge("0.7"))) as place:
        done = place.run()
        assert (done.code, done.result["reason"]) == (42, "InvalidMetric"), done.stderr
        assert done.result["path"] == "spec.metric.judge.calibration.minKappa"
        assert "Cohen's kappa is 0.60, minKappa is 0.7 (8 of 10 grades are the same" in done.result["message"]
        assert place.server.counts()["requests"] <= 2 + 10
        assert done.result["calibration"]["spec.metric.judge"]["kappa"] == pytest.approx(0.6)
        place.change(metric=judge("0.6"))
        done = place.run("-o", str(tmp_path / "other"))
        assert done.code == 0, done.stderr
        report = json.loads((tmp_path / "other" / "run" / "revision" / "report.json").read_bytes())
        told = {"kappa": 0.6, "rows": 10, "undecided": 0, "agreed": 8, "minKappa": "0.6"}
        assert report["calibration"] == {"spec.metric.judge": told}


def test_gepa_reads_the_judges_reason(tmp_path: Path) -> None:
    metric = {"type": "Judge", "judge": {**RUBRIC, "scale": 4}}
    case = Graded({"type": "GEPA", "gepa": {"maxMetricCalls": 70}}, metric=metric)
    with workplace(tmp_path, case, keep_requests=10_000) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        told = [text for each in feedback_told(place) for text in each]
        assert any(text.endswith(" of 4)") and "does not say what was expected" in text for text in told)
        assert all(text == "right." or "(graded " in text for text in told)


def test_a_budget_covers_the_judge(tmp_path: Path) -> None:
    """12 test rows, two programs, an answer and a grade each: 48 calls, and 2 before."""
    case = Graded(OPTIMIZERS["MIPROv2"], budget={"calls": 49})
    with workplace(tmp_path, case) as place:
        done = place.run()
        assert done.code == 43 and done.result["reason"] == "BudgetTooSmall"
        assert "50 calls are needed (judgement 48, preflight 2), given 49" in done.stderr
        assert place.server.counts()["requests"] == 0
        place.change(budget={"calls": 150})
        done = place.run()
        assert done.code == 44, done.stderr
        assert done.result["usage"]["calls"] == place.server.counts()["requests"] <= 150
        assert done.result["outcome"] != "NotJudged"


@pytest.mark.usefixtures("short_waits")
def test_a_judge_that_is_down_stops_the_run_and_no_answer_is_scored_0_for_it(tmp_path: Path) -> None:
    case = Graded(OPTIMIZERS["MIPROv2"], judge={"name": "grader"}, concurrency=2)
    outage = {"faults": [{"type": "503", "when": {"after": 20}}], "keep_requests": 10_000}
    with workplace(tmp_path, case) as place, CountingServer(outage) as grader:
        done = place.run("--endpoint", f"grader={grader.url}", timeout=240)
        assert (done.code, done.result["reason"]) == (45, "EndpointUnavailable"), done.stderr
        assert "default/grader" in done.result["message"]
        grader.set_script({"keep_requests": 10_000})
        done = place.run("--resume", "--endpoint", f"grader={grader.url}")
        assert done.code == 0, done.stderr
        interrupted = done.result
    with workplace(tmp_path / "whole", case) as place, CountingServer({}) as grader:
        whole = place.run("--endpoint", f"grader={grader.url}")
        assert whole.code == 0, whole.stderr
        assert (whole.result["candidate"], whole.result["scores"]) == (interrupted["candidate"], interrupted["scores"])


def test_a_judge_that_never_grades_is_found_before_anything_is_spent(tmp_path: Path) -> None:
    garbage = [{"type": "garbage_text", "when": {"match": ASKS_A_JUDGE}}]
    with workplace(tmp_path, Graded(OPTIMIZERS["MIPROv2"]), faults=garbage) as place:
        done = place.run()
        assert (done.code, done.result["reason"]) == (53, "ModelAnswersUnusable"), done.stderr
        assert done.result["path"] == "spec.endpoints.judge"
        assert "does not judge the program's first answers: the judge gave no verdict" in done.result["message"]
        assert "the weather" in done.result["message"]
        assert place.server.counts()["requests"] == 3 + 3 * 2, (
            "three answers, each asked again; once more is the same question"
        )


def test_an_answer_that_has_no_verdict_is_no_wrong_answer(tmp_path: Path) -> None:
    """One test row's verdict cannot be read: it is no part of the score, it is told, and 1 of 12 blocks promotion."""
    garbage = [{"type": "garbage_text", "when": {"match": "item030 thing\n</input>"}}]
    with workplace(tmp_path, Graded(OPTIMIZERS["BootstrapFewShot"]), faults=garbage) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        lines = [line for line in judged(place) if line["split"] == "test"]
        for arm, score in (
            ("baseline", done.result["scores"]["baseline"]),
            ("candidate", done.result["scores"]["candidate"]),
        ):
            answers = [line["arms"][arm] for line in lines]
            decided = [answer["score"] for answer in answers if answer["class"] != "judge"]
            assert len(decided) == 11 and (score["rows"], score["failed"], score["undecided"]) == (12, 1, 1)
            assert score["score"] == pytest.approx(100 * sum(decided) / 11, abs=1e-3)
        undecided = [
            answer["feedback"] for line in lines for answer in line["arms"].values() if answer["class"] == "judge"
        ]
        assert all("the judge gave no verdict" in text for text in undecided)
        assert "11 rows" in done.result["gate"]["why"] and not done.result["gate"]["promote"]
        verified = place.verify()
        assert verified.code == 0, verified.stderr


def test_a_judge_that_stops_grading_ends_the_run(tmp_path: Path) -> None:
    garbage = [{"type": "garbage_text", "when": {"match": ASKS_A_JUDGE, "after": 100}}]
    with workplace(tmp_path, Graded(OPTIMIZERS["MIPROv2"]), faults=garbage) as place:
        done = place.run()
        assert (done.code, done.result["reason"]) == (53, "ModelAnswersUnusable"), done.stderr
        assert "10 answers in a row have no verdict" in done.result["message"]


def test_a_judge_rewards_attempts_and_a_killed_run_comes_to_the_same(tmp_path: Path) -> None:
    """Its calls are in usage, budget and journal; each attempt at an answer is graded once."""
    reward = {"type": "Judge", "judge": {**RUBRIC, "scale": 4}}
    module = {"type": "Refine", "refine": {"attempts": 2, "threshold": "0.5", "reward": reward}}
    case = Case(SMALL["BootstrapFewShot"], dev=8, test=4, program={"program": {"single": {"module": module}}})
    whole = uninterrupted(tmp_path / "uninterrupted", case)
    assert whole.result["usage"]["calls"] <= whole.result["estimate"]["calls"] * 2
    by_role = json.loads((whole.run_folder / "result.json").read_bytes())["usageByRole"]
    assert by_role["judge"]["calls"] > 0 and sum(role["calls"] for role in by_role.values()) == whole.requests
    with workplace(tmp_path / "killed", case) as place:
        kill_at_ordinal(place, whole.requests // 2, settled=True)
        place.server.wait_until(lambda counts: counts["in_flight"] == 0)
        resumed_to_the_same(place, whole, unanswered(place))


def test_a_judge_that_rewards_no_attempt_is_found_before_anything_is_spent(tmp_path: Path) -> None:
    reward = {"type": "Judge", "judge": RUBRIC}
    module = {"type": "BestOfN", "bestOfN": {"attempts": 2, "threshold": "1", "reward": reward}}
    case = Case(OPTIMIZERS["Evaluate"], program={"program": {"single": {"module": module}}})
    garbage = [{"type": "garbage_text", "when": {"match": ASKS_A_JUDGE}}]
    with workplace(tmp_path, case, faults=garbage) as place:
        done = place.run()
        assert (done.code, done.result["reason"]) == (53, "ModelAnswersUnusable"), done.stderr
        assert done.result["path"] == "spec.endpoints.judge"
        assert "does not judge the program's first answers: the judge gave no verdict" in done.result["message"]
        assert place.server.counts()["requests"] <= 3 * 2 * 4, "three rows, two attempts, each asked about three times"


def test_a_composite_has_a_judge_as_one_of_its_parts(tmp_path: Path) -> None:
    parts = [{"metric": {"type": "ExactMatch"}, "weight": "3"}, {"metric": {"type": "Judge", "judge": RUBRIC}}]
    case = Graded(OPTIMIZERS["Evaluate"], metric={"type": "Composite", "composite": {"parts": parts}})
    with workplace(tmp_path, case, judge_slips=0.3) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        scores = {line["arms"]["baseline"]["score"] for line in judged(place)}
        assert scores <= {0, 0.25, 0.75, 1} and scores & {0.25, 0.75}
        feedback = [line["arms"]["baseline"]["feedback"] for line in judged(place)]
        assert any(text.startswith("Judge: ") or "\nJudge: " in text for text in feedback)
