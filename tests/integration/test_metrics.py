"""Each new metric through the real CLI: scores that can be reckoned again from what was answered, and what GEPA was told."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.counting_server.prompts import text_of
from tests.integration.harness import Case, Workplace, workplace

GEPA = {"type": "GEPA", "gepa": {"maxMetricCalls": 70}}
EXACT = {"type": "ExactMatch"}
KNOWN = {"type": "Regex", "regex": {"field": "label", "pattern": "^(positive|negative)$"}}
COMPOSITE = {
    "type": "Composite",
    "composite": {"parts": [{"metric": EXACT, "weight": "0.3"}, {"metric": KNOWN, "weight": "0.7"}]},
}


@dataclass
class Labelled(Case):
    """Rows with labels of another type, and why they are right."""

    type: str = "str"
    label: Callable[[int], Any] = lambda number: "positive" if number % 2 else "negative"
    metric: dict[str, Any] = field(default_factory=dict)
    why: str = "Note {} says so."

    def rows(self) -> list[dict[str, Any]]:
        return [
            {**row, "label": self.label(number), "why": self.why.format(number)}
            for number, row in enumerate(super().rows())
        ]

    def objects(self) -> list[dict[str, Any]]:
        made = super().objects()
        program = made[2]["spec"]
        program["program"]["single"]["signature"]["outputs"] = [{"name": "label", "type": self.type}]
        program["metric"] = self.metric
        return made


def judged(place: Workplace) -> list[dict[str, Any]]:
    """The lines of examples.jsonl.zst, of the test rows."""
    packed = (place.run_folder / "examples.jsonl.zst").read_bytes()
    lines = [json.loads(line) for line in zstandard.decompress(packed).decode().splitlines()]
    return [line for line in lines if line["split"] == "test"]


def feedback_told(place: Workplace) -> list[list[str]]:
    """What each request for a better instruction said of the rows of its minibatch."""
    requests = [json.loads(seen["body"])["messages"] for seen in place.server.requests()]
    texts = ["\n".join(text_of(part["content"]) for part in messages) for messages in requests]
    told = [[json.loads(found) for found in re.findall(r'"Feedback": ("(?:[^"\\]|\\.)*")', text)] for text in texts]
    return [each for each in told if each]


@pytest.mark.parametrize(
    ("case", "score", "method", "told"),
    [
        pytest.param(
            Labelled(
                GEPA,
                type="float",
                label=lambda number: number + 0.5,
                metric={"type": "Numeric", "numeric": {"tolerance": "0.5"}},
            ),
            lambda wanted, found: float(abs(wanted - found) <= 0.5),
            "McNemar",
            r"label: expected (\d+\.5) \(off by at most 0\.5\), got (\d+\.5)",
            id="Numeric",
        ),
        pytest.param(
            Labelled(GEPA, metric=KNOWN),
            lambda wanted, found: float(re.search("^(positive|negative)$", found) is not None),
            "McNemar",
            r'label: expected a match of \^\(positive\|negative\)\$, got "unsure [0-9a-f]{4}"',
            id="Regex",
        ),
        pytest.param(
            Labelled(GEPA, type='Literal["positive", "negative"]', metric=COMPOSITE),
            lambda wanted, found: 1.0 if wanted == found else 0.7,
            "SignFlip",
            r'ExactMatch: label: expected "(positive|negative)", got "(positive|negative)"',
            id="Composite",
        ),
    ],
)
def test_scores_are_what_the_answers_are_worth_and_gepa_reads_what_was_wrong(
    tmp_path: Path, case: Labelled, score: Callable[[Any, Any], float], method: str, told: str
) -> None:
    with workplace(tmp_path, case, keep_requests=10_000) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        assert done.result["usage"]["calls"] == place.server.counts()["requests"]
        scores: dict[str, list[float]] = {"baseline": [], "candidate": []}
        for line in judged(place):
            for arm, found in scores.items():
                answer = line["arms"][arm]
                found.append(score(line["expected"]["label"], answer["outputs"]["label"]))
                assert answer["score"] == found[-1]
                assert re.fullmatch(told, answer["feedback"]) or (answer["feedback"], answer["score"]) == ("right.", 1)
        for arm, found in scores.items():
            assert done.result["scores"][arm]["score"] == pytest.approx(100 * sum(found) / 12, abs=1e-3)
        assert len(set(scores["baseline"])) == 2, "some are right, some are not"
        assert done.result["gate"]["method"] == method
        reflected = feedback_told(place)
        assert reflected
        for each in reflected:
            assert len(each) == 3 and any(text != "right." for text in each)
            assert all(text == "right." or re.fullmatch(told, text) for text in each)
        verified = place.verify()
        assert verified.code == 0, verified.stderr


def test_gepa_reads_a_template_of_ones_own(tmp_path: Path) -> None:
    feedback = {"template": "{{note}} wanted <{expected.label}>, found <{found.label}>, worth {score}"}
    with workplace(tmp_path, Labelled(GEPA, metric={**COMPOSITE, "feedback": feedback})) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        told = (
            r"\{note\} wanted <(positive|negative)>, found <(positive|negative|unsure [0-9a-f]{4})>, worth (0|0.7|1)\b"
        )
        reflected = feedback_told(place)
        assert reflected and all(
            len(each) == 3 and all(re.fullmatch(told, text) for text in each) for each in reflected
        )
        assert all(re.fullmatch(told, arm["feedback"]) for line in judged(place) for arm in line["arms"].values())


def test_gepa_reads_the_column_that_the_metric_names_and_another_column_is_another_run(tmp_path: Path) -> None:
    case = Labelled(GEPA, metric={"type": "Contains", "feedback": {"column": "why"}})
    with workplace(tmp_path, case) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        reflected = feedback_told(place)
        notes = {row["why"] for row in case.rows() if row["part"] == "dev"}
        assert reflected and all(len(set(each)) == 3 and set(each) <= notes for each in reflected)
        prompts = [json.loads(seen["body"])["messages"] for seen in place.server.requests()]
        assert sum("says so" in json.dumps(messages) for messages in prompts) == len(reflected), "and nobody else does"
        verified = place.verify()
        assert verified.code == 0, verified.stderr
        for change, undo, what in (
            ({"why": "Other words for {}."}, {"why": case.why}, "the rows"),
            ({"metric": {"type": "Contains"}}, {"metric": case.metric}, "the program, the rows"),
        ):
            place.change(**change)
            other = place.run("--resume")
            assert other.code == 64 and f"was started with other inputs: {what} changed since" in other.stderr
            place.change(**undo)


def test_classes_are_told_in_the_result_and_in_the_report(tmp_path: Path) -> None:
    case = Case({"type": "BootstrapFewShot"})
    with workplace(tmp_path, case) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        report = json.loads((place.run_folder / "revision" / "report.json").read_bytes())
        for arm in ("baseline", "candidate"):
            pairs = [(line["expected"]["label"], line["arms"][arm]["outputs"].get("label")) for line in judged(place)]
            classes = report["classes"][arm]["label"]["classes"]
            assert list(classes) == ["positive", "negative"]
            for name, told in classes.items():
                right = pairs.count((name, name))
                support, said = sum(wanted == name for wanted, _ in pairs), sum(found == name for _, found in pairs)
                assert told["support"] == support == 6
                assert told["recall"] == pytest.approx(100 * right / support, abs=1e-3)
                assert told["precision"] == pytest.approx(100 * right / said if said else 0, abs=1e-3)
            macro = sum(told["f1"] for told in classes.values()) / 2
            assert report["classes"][arm]["label"]["macroF1"] == pytest.approx(macro, abs=1e-3)
            assert done.result["scores"][arm]["macroF1"] == {"label": report["classes"][arm]["label"]["macroF1"]}
