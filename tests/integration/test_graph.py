"""A graph through the whole runner: every optimizer, kills, and a revision that a caller without DSPy can walk."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.integration.acceptance import LONG, resumed_to_the_same, unanswered, uninterrupted
from tests.integration.graph import graph_case
from tests.integration.harness import SMALL, Workplace, intruder, workplace
from tests.integration.search_server import Answer, passages, search_server
from tests.integration.test_kill import THREADS, kill_at_ordinal

pytestmark = [pytest.mark.measured, pytest.mark.timeout(600)]

SLICE = tuple(SMALL) if LONG else ("MIPROv2", "GEPA")


@pytest.mark.parametrize("optimizer", SLICE)
def test_an_optimizer_runs_a_graph_and_its_run_verifies_without_the_network(tmp_path: Path, optimizer: str) -> None:
    with search_server() as search, workplace(tmp_path, graph_case(SMALL[optimizer], search.url)) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        # All; of Evaluate the test rows and one to begin with. InferRules learns from train until it has its demos, and scores the others.
        rows = {"Evaluate": 7, "InferRules": 16}.get(optimizer, 18)
        assert set(search.asked.values()) == {1} and len(search.asked) == rows  # once each, in all of the run
        counts = place.server.counts()
        assert counts["requests"] == done.result["usage"]["calls"]
        assert done.result["usage"]["failed"] == 0
        if optimizer not in ("GEPA", "COPRO", "SIMBA"):  # here they propose and sample the same again, which replays
            assert counts["requests"] / 2 <= done.result["estimate"]["calls"] <= 2 * counts["requests"]
        scores = done.result["scores"]
        assert scores["candidate"]["unreadable"] == scores["candidate"]["failed"] == 0
        verified = place.verify(environment=intruder(denied=tmp_path / "attempts"))
        assert verified.code == 0, verified.stderr
        assert not (tmp_path / "attempts").exists()
        assert place.server.counts()["requests"] == counts["requests"]
        assert search.asked.total() == rows


def test_a_killed_run_looks_nothing_up_again_but_what_was_in_flight(tmp_path: Path) -> None:
    draw = random.Random("graph/SIMBA/0")
    with search_server() as search:
        case = graph_case(SMALL["SIMBA"], search.url, concurrency=THREADS)
        whole = uninterrupted(tmp_path / "uninterrupted", case)
        looked_up = search.asked.total()
        search.asked.clear()
        with workplace(tmp_path / "killed", case) as place:
            kill_at_ordinal(place, draw.randint(1, whole.requests), settled=draw.random() < 0.5)
            place.server.wait_until(lambda counts: counts["in_flight"] == 0)
            resumed_to_the_same(place, whole, unanswered(place))
            assert looked_up <= search.asked.total() <= looked_up + THREADS


def test_a_caller_without_dspy_walks_the_steps_and_the_program_alone_sends_the_same(tmp_path: Path) -> None:
    with search_server() as search, workplace(tmp_path, graph_case(SMALL["LabeledFewShot"], search.url)) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        revision = place.run_folder / "revision"
        reader = Path(__file__).with_name("conformance.py")
        subprocess.run([sys.executable, "-I", str(reader), str(revision / "prompts.json")], check=True)
        prompts = json.loads((revision / "prompts.json").read_bytes())
        assert [vector["predictor"] for vector in prompts["vectors"]] == ["views", "mood", "mood", "verdict"]
        assert walked(prompts) == prompts["example"]["outputs"]

        before, looked_up = place.server.counts()["requests"], search.asked["item003 thing"]
        answered = alone(place, revision)
        assert answered["label"] in ("positive", "negative")
        assert place.server.counts()["requests"] == before + 3  # the server's list has one part
        assert search.asked["item003 thing"] == looked_up + 1 and search.top_ks == {2}


def alone(place: Workplace, revision: Path) -> dict[str, Any]:
    """What the revision's program.py says, as a program of its own."""
    command = [sys.executable, str(revision / "program.py"), "--model", "openai/fake"]
    command += ["--api-base", place.server.url, json.dumps({"text": "item003 thing"})]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outputs: dict[str, Any] = json.loads(done.stdout)
    return outputs


def walked(prompts: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs of `example`, by the wiring alone; each step's answer is the next vector's."""
    known: dict[str, Any] = {f"inputs.{name}": value for name, value in prompts["example"]["inputs"].items()}
    vectors, looked_up = iter(prompts["vectors"]), iter(prompts["example"]["retrieved"])
    for step in prompts["wiring"]:
        items = known[step["forEach"]][: step["maxItems"]] if "forEach" in step else [None]
        done = []
        for item in items:
            wanted = {name: (known | {"item": item})[reference] for name, reference in step["inputs"].items()}
            if "retrieve" in step:
                found = next(looked_up)
                assert {name: found[name] for name in ("query", "url", "topK")} == wanted | step["retrieve"]
                done.append({"passages": found["passages"]})
                continue
            if "template" in step:
                done.append({"text": step["template"].format_map(wanted)})
                continue
            vector = next(vectors)
            assert (vector["predictor"], vector["inputs"]) == (step["predictor"], wanted)
            done.append(vector["outputs"])
        for field in done[0]:
            values = [outputs[field] for outputs in done]
            known[f"{step['node']}.{field}"] = values if "forEach" in step else values[0]
    assert next(vectors, None) is next(looked_up, None) is None
    return {name: known[reference] for name, reference in prompts["output"].items()}


def test_a_budget_that_cannot_pay_all_steps_of_the_judgement_is_refused(tmp_path: Path) -> None:
    """Two arms, 6 rows, at most 4 calls a row; and 4 to begin with."""
    case = graph_case(SMALL["LabeledFewShot"], "http://127.0.0.1:9/search", budget={"calls": 51})
    with workplace(tmp_path, case) as place:
        done = place.run()
        assert done.code == 43
        assert "52 calls are needed (judgement 48, preflight 4), given 51" in done.stderr
        assert place.server.counts()["requests"] == 0


def half_of_the_time(query: str, count: int) -> Answer:
    return (503, "busy") if count < 2 else passages(query, count)


def test_passing_faults_of_the_server_of_passages_change_nothing(tmp_path: Path) -> None:
    results = []
    for answers in (passages, half_of_the_time):
        with search_server(answers) as search:
            case = graph_case(SMALL["Evaluate"], search.url)
            with workplace(tmp_path / answers.__name__, case) as place:
                done = place.run()
                assert done.code == 0, done.stderr
                results.append(done.result)
                assert set(search.asked.values()) == {1 if answers is passages else 2}
    assert results[0]["scores"] == results[1]["scores"]


def test_a_query_that_never_has_an_answer_is_a_row_that_was_never_answered(tmp_path: Path) -> None:
    def poisoned(query: str, count: int) -> Answer:
        return (400, "too short") if "item013" in query else passages(query, count)

    with search_server(poisoned) as search, workplace(tmp_path, graph_case(SMALL["Evaluate"], search.url)) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        assert done.result["scores"]["candidate"]["failed"] == 1
        assert search.asked["item013 thing"] == 1
        assert place.verify().code == 0


@pytest.mark.parametrize(
    ("answers", "code", "reason", "said"),
    [
        pytest.param(
            lambda query, count: (500, "down"),
            45,
            "EndpointUnavailable",
            "left 10 requests in a row unanswered",
            id="down",
        ),
        pytest.param(
            lambda query, count: (401, "who are you?"), 46, "AuthenticationFailed", "HTTP 401", id="wants a key"
        ),
        pytest.param(
            lambda query, count: (200, {"results": []}),
            40,
            "InvalidProgram",
            "no list of texts",
            id="says something else",
        ),
        pytest.param(lambda query, count: (404, "no"), 40, "InvalidProgram", "HTTP 404", id="is not there"),
    ],
)
@pytest.mark.usefixtures("short_waits")
def test_a_server_of_passages_that_answers_nothing_ends_the_run_and_nothing_is_scored(
    tmp_path: Path, answers: Any, code: int, reason: str, said: str
) -> None:
    with search_server(answers) as search, workplace(tmp_path, graph_case(SMALL["Evaluate"], search.url)) as place:
        done = place.run()
        assert (done.code, done.result["reason"]) == (code, reason), done.stderr
        assert said in done.result["message"] and search.url in done.result["message"]
        assert done.result["scores"] == {}
        asked = search.asked.total()
    assert asked <= 20
