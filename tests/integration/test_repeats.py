"""A task model that samples: each row is asked several times, what leads is asked anew, and all of it is counted, kept and replayed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.integration.acceptance import LONG, unanswered, uninterrupted
from tests.integration.harness import OPTIMIZERS, Case, Workplace, ended, merged, start_cli, workplace
from tests.integration.test_evidence import are_as_documented, examples, report
from tests.integration.test_kill import THREADS, kill_at_ordinal

SAMPLED = {"target": {"request": {"temperature": "0.7"}}}


def a_case(optimizer: str, **more: Any) -> Case:
    more["program"] = merged(SAMPLED, more.get("program", {}))
    return Case(OPTIMIZERS[optimizer], **{"dev": 12, "test": 8, **more})


def judgements(place: Workplace) -> list[dict[str, Any]]:
    return [line for line in place.journal() if line["kind"] == "mark" and line["mark"] == "judge"]


def choices(place: Workplace, rows: int) -> dict[str, list[float]]:
    """Program -> its scores on fresh answers to dev rows."""
    found: dict[str, list[float]] = {}
    for mark in judgements(place):
        if len(mark["scores"]) == rows:
            found.setdefault(mark["program"], []).extend(mark["scores"])
    return found


@pytest.mark.parametrize(("repeats", "want"), [(None, 3), *([(1, 1), (5, 5)] if LONG else [])])
def test_each_row_is_asked_so_often_and_its_mean_is_judged(tmp_path: Path, repeats: int | None, want: int) -> None:
    case = a_case("LabeledFewShot", run={"repeats": repeats} if repeats else {})
    with workplace(tmp_path, case, stochastic=True) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        calls = place.server.counts()["requests"]
        assert calls == done.result["usage"]["calls"] == 12 + 12 + 2 * 8 * want
        scores, found = done.result["scores"], report(place)
        are_as_documented(place)
        for arm in ("baseline", "candidate"):
            score = scores[arm]
            assert (score["rows"], score["repeats"]) == (8, want)
            means = [row[arm]["score"] for row in found["rows"]]
            assert score["score"] == pytest.approx(100 * sum(means) / 8, abs=1e-3)
            assert found["answers"][arm]["answers"] == 8 * want
            if want > 1:
                assert any(0 < mean < 1 for mean in means), "the server answers otherwise each time"
                assert all(sum(row[arm]["scores"]) / want == row[arm]["score"] for row in found["rows"])
            classes = found["classes"][arm]["label"]["classes"]
            assert sum(each["support"] for each in classes.values()) == 8
        assert found["gate"]["method"] == ("McNemar" if want == 1 else "SignFlip")
        assert (f"on 8 rows asked {want} times" in found["gate"]["why"]) is (want > 1)
        answers = [line["arms"]["candidate"].get("answers", [0]) for line in examples(place) if line["split"] == "test"]
        assert [len(each) for each in answers] == [want] * 8

        again = place.run("--resume")
        assert (again.code, place.server.counts()["requests"]) == (0, calls)
        assert again.result["scores"] == scores
        verified = place.verify()
        assert verified.code == 0, verified.stderr
        written = ended(start_cli("report", str(place.run_folder)), place.out)
        assert written.code == 0, written.stderr
        page = (place.run_folder / "report.html").read_text("utf-8")
        assert (f"8 x {want}</td>" in page) is (want > 1)
        assert page.count(f"<summary>{want} answers</summary>") == (2 * 8 if want > 1 else 0)


def test_at_temperature_0_a_row_is_asked_once_whatever_is_written(tmp_path: Path) -> None:
    with workplace(tmp_path, Case({"type": "Evaluate"}, dev=4, test=6, run={"repeats": 5})) as place:
        done = place.run()
        assert (done.code, done.result["usage"]["calls"]) == (0, 7), done.stderr
        assert json.loads((place.run_folder / "run.json").read_bytes())["repeats"] == 1


@pytest.mark.parametrize("optimizer", ["MIPROv2", "SIMBA", "Stages"] if LONG else ["Stages"])
def test_of_those_that_lead_the_best_on_fresh_answers_is_judged(tmp_path: Path, optimizer: str) -> None:
    """The server's answers are all luck, so what led by its first answers seldom leads again."""
    dev = 24 if optimizer == "SIMBA" else 6  # SIMBA compares on all of dev
    case = a_case(optimizer, dev=24 if optimizer == "SIMBA" else 12, budget={"calls": 2000})
    with workplace(tmp_path, case, stochastic=True) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        found = choices(place, dev)
        scored = {each["program"]: each for each in report(place)["programs"]["shown"]}
        assert len(found) == min(3, len(scored)) > 1
        assert all(len(scores) == 3 * dev for scores in found.values())
        leading = sorted(scored.values(), key=lambda each: -each["score"])[:3]
        assert {each["score"] for each in leading} == {scored[program]["score"] for program in found}
        means = {program: sum(scores) / len(scores) for program, scores in found.items()}
        (candidate,) = [program for program, each in scored.items() if "candidate" in each.get("arms", [])]
        assert means[candidate] == max(means.values())
        assert done.result["scores"]["devAgain"]["score"] == pytest.approx(100 * means[candidate], abs=1e-3)
        assert done.result["scores"]["devAgain"]["repeats"] == 3
        asked = Counter(mark.get("repeat", 0) for mark in judgements(place) if len(mark["scores"]) == 8)
        assert asked[0] == asked[1] == asked[2] >= 1, "the test rows have numbers of their own"
        verified = place.verify()
        assert verified.code == 0, verified.stderr


def test_what_choice_and_judgement_need_is_kept_back_told_and_estimated(tmp_path: Path) -> None:
    needed = 2 * 8 * 3 + 3 * 6 * 3 + 1
    with workplace(tmp_path, a_case("MIPROv2", budget={"calls": needed - 1})) as place:
        refused = place.run()
        assert refused.code == 43
        assert f"{needed} calls are needed (judgement 48, choice between the best 54, preflight 1)" in refused.stderr
        assert place.server.counts()["requests"] == 0
        estimated = place.run("--estimate")
        assert estimated.code == 43
        place.change(budget={"calls": needed + 70})
        estimated = place.run("--estimate")
        assert estimated.logs[-1]["result"]["estimate"]["reservedCalls"] == needed - 1
        done = place.run()
        assert (done.code, done.result["reason"]) == (44, "BudgetExhausted"), done.stderr
        assert done.result["usage"]["calls"] == place.server.counts()["requests"] <= needed + 70
        assert done.result["scores"]["candidate"]["repeats"] == 3
        assert "devAgain" in done.result["scores"]

        place.change(budget={"calls": 2000})
        more = place.run("--resume")
        assert more.code == 0, more.stderr
        assert more.result["usage"]["calls"] == place.server.counts()["requests"]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("optimizer", ["MIPROv2", "BootstrapFewShot", "GEPA", "COPRO"] if LONG else ["MIPROv2"])
def test_killed_while_it_chooses_and_judges_it_comes_to_the_same_revision(tmp_path: Path, optimizer: str) -> None:
    case = a_case(optimizer, concurrency=THREADS)
    whole = uninterrupted(tmp_path / "uninterrupted", case)
    with workplace(tmp_path / "killed", case) as place:
        place.fresh = True
        kept = 2 * 8 * 3 + (3 * 6 * 3 if optimizer != "BootstrapFewShot" else 0)
        for left in (kept + 10, kept - 12, 20) if LONG else (kept - 12,):
            ordinal = max(whole.requests - left, place.server.counts()["requests"] + 1)
            kill_at_ordinal(place, ordinal, settled=True)
            place.server.wait_until(lambda counts: counts["in_flight"] == 0)
        lost = unanswered(place)
        done = place.run("--resume")
        assert done.code == 0, done.stderr
        for name in ("candidate", "gate", "scores"):
            assert done.result[name] == whole.result[name]
        assert place.server.counts()["requests"] <= done.result["usage"]["calls"] <= whole.requests + lost
        verified = place.verify()
        assert verified.code == 0, verified.stderr
