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
from tests.integration.harness import OPTIMIZERS, Case, Workplace, intruder, workplace
from tests.integration.test_kill import THREADS, kill_at_ordinal
from tests.unit.graphs import a_field, a_step

pytestmark = [pytest.mark.timeout(600), pytest.mark.unmeasured]

LABEL = 'Literal["positive", "negative"]'
GRAPH: dict[str, Any] = {
    "inputs": [a_field("text")],
    "nodes": {
        "views": a_step({"text": "inputs.text"}, a_field("parts", "list[str]"), asks="Take the text apart."),
        "mood": a_step({"text": "inputs.text", "part": "item"}, a_field("mood"), asks="Name the mood of the part.")
        | {"forEach": "views.parts", "maxItems": 2},
        "verdict": a_step(
            {"text": "inputs.text", "moods": "mood.mood"},
            a_field("label", LABEL),
            asks="Classify the text.",
            types={"moods": "list[str]"},
        ),
    },
    "output": {"label": "verdict.label"},
}
SMALL: dict[str, dict[str, Any]] = OPTIMIZERS | {
    "MIPROv2": {"type": "MIPROv2", "miproV2": {"numCandidates": 3, "numTrials": 4, "minibatch": False}},
    "GEPA": {"type": "GEPA", "gepa": {"maxMetricCalls": 60}},
    "SIMBA": {"type": "SIMBA", "simba": {"bsize": 6, "numCandidates": 2, "maxSteps": 1}},
}
"""A row costs four calls here, so that fewer rows and trials say as much."""
SLICE = tuple(SMALL) if LONG else ("MIPROv2", "GEPA")
KILLED = tuple(SMALL) if LONG else ("SIMBA",)


def a_case(optimizer: Mapping[str, Any], graph: Mapping[str, Any] = GRAPH, **more: Any) -> Case:
    """The harness's rows, answered by a graph; only its last step has a right answer."""
    return GraphCase(optimizer, program={"program": {"type": "Graph", "graph": graph}}, **{"dev": 12, "test": 6} | more)


class GraphCase(Case):
    """The server's right answers are of the last step."""

    def answers(self) -> dict[str, Any]:
        return {text: {"label": label} for text, label in super().answers().items()}


@pytest.mark.parametrize("optimizer", SLICE)
def test_an_optimizer_runs_a_graph_and_its_run_verifies_without_the_network(tmp_path: Path, optimizer: str) -> None:
    with workplace(tmp_path, a_case(SMALL[optimizer])) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        counts = place.server.counts()
        assert counts["requests"] == done.result["usage"]["calls"]
        assert done.result["usage"]["failed"] == 0
        assert counts["requests"] / 2 <= done.result["estimate"]["calls"] <= 2 * counts["requests"]
        scores = done.result["scores"]
        assert scores["candidate"]["unreadable"] == scores["candidate"]["failed"] == 0
        verified = place.verify(environment=intruder(denied=tmp_path / "attempts"))
        assert verified.code == 0, verified.stderr
        assert not (tmp_path / "attempts").exists()
        assert place.server.counts()["requests"] == counts["requests"]


@pytest.mark.parametrize("optimizer", KILLED)
@pytest.mark.parametrize("seed", range(20 if LONG else 1))
def test_a_killed_run_of_a_graph_resumes_to_the_same_revision(tmp_path: Path, optimizer: str, seed: int) -> None:
    case = a_case(SMALL[optimizer], concurrency=THREADS)
    whole = uninterrupted(tmp_path / "uninterrupted", case)
    draw = random.Random(f"graph/{optimizer}/{seed}")
    with workplace(tmp_path / "killed", case) as place:
        kill_at_ordinal(place, draw.randint(1, whole.requests), settled=draw.random() < 0.5)
        place.server.wait_until(lambda counts: counts["in_flight"] == 0)
        resumed_to_the_same(place, whole, unanswered(place))


def test_a_caller_without_dspy_walks_the_steps_and_the_program_alone_sends_the_same(tmp_path: Path) -> None:
    with workplace(tmp_path, a_case(SMALL["LabeledFewShot"])) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        revision = place.run_folder / "revision"
        reader = Path(__file__).with_name("conformance.py")
        subprocess.run([sys.executable, "-I", str(reader), str(revision / "prompts.json")], check=True)
        prompts = json.loads((revision / "prompts.json").read_bytes())
        assert [vector["predictor"] for vector in prompts["vectors"]] == ["views", "mood", "mood", "verdict"]
        assert walked(prompts) == prompts["example"]["outputs"]

        before = place.server.counts()["requests"]
        answered = alone(place, revision)
        assert answered["label"] in ("positive", "negative")
        assert place.server.counts()["requests"] == before + 3  # the server's list has one part


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
    vectors = iter(prompts["vectors"])
    for step in prompts["wiring"]:
        items = known[step["forEach"]][: step["maxItems"]] if "forEach" in step else [None]
        done = []
        for item in items:
            vector = next(vectors)
            wanted = {name: (known | {"item": item})[reference] for name, reference in step["inputs"].items()}
            assert (vector["predictor"], vector["inputs"]) == (step["predictor"], wanted)
            done.append(vector["outputs"])
        for field in done[0]:
            values = [outputs[field] for outputs in done]
            known[f"{step['node']}.{field}"] = values if "forEach" in step else values[0]
    assert next(vectors, None) is None
    return {name: known[reference] for name, reference in prompts["output"].items()}


def test_a_budget_that_cannot_pay_all_steps_of_the_judgement_is_refused(tmp_path: Path) -> None:
    """Two arms, 6 rows, at most 4 calls a row; and 4 to begin with."""
    with workplace(tmp_path, a_case(SMALL["LabeledFewShot"], budget={"calls": 51})) as place:
        done = place.run()
        assert done.code == 43
        assert "52 calls are needed (judgement 48, preflight 4), given 51" in done.stderr
        assert place.server.counts()["requests"] == 0
