"""Scores by class: which outputs have them, what they are, and how a terminal shows them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from dspy_operator.api.metric import Metric
from dspy_operator.api.program import Program
from dspy_operator.api.signature_types import Choice, parse_type
from dspy_operator.cli.screen import last_screen
from dspy_operator.contract.documents import CalibrationReport, DatasetReport, Result, Score
from dspy_operator.contract.runspec import DatasetPart, Paths, ProgramPart, RunIdentity, RunSpec, SplitPart
from dspy_operator.runner.classes import by_class, classified
from dspy_operator.runner.judge import Judged
from dspy_operator.runner.rows import Row

ABC = {"label": Choice(("a", "b", "c"))}


def judged(*pairs: tuple[object, object]) -> list[Judged]:
    """(label, answer) of each row; an answer of None cannot be read."""
    return [
        Judged(
            Row(line, str(line), {"text": str(line)}, {"label": wanted}),
            float(wanted == found),
            {} if found is None else {"label": found, "reasoning": "so"},
            "",
            "right" if wanted == found else "wrong",
        )
        for line, (wanted, found) in enumerate(pairs, start=1)
    ]


def part(metric: dict[str, Any], **outputs: str) -> ProgramPart:
    signature = {
        "instructions": "Classify.",
        "inputs": [{"name": "text", "type": "str"}],
        "outputs": [{"name": name, "type": type_} for name, type_ in outputs.items()],
    }
    program = Program.model_validate({"type": "Single", "single": {"signature": signature}})
    return ProgramPart(name="p", digest="v1:p", program=program, metric=Metric.model_validate(metric))


def test_precision_recall_and_f1_of_each_class_and_their_mean() -> None:
    """Reckoned by hand; scikit-learn's classification_report says the same of the rows whose answer can be read."""
    rows = judged(("a", "a"), ("a", "a"), ("a", "b"), ("b", "b"), ("b", "a"), ("c", "a"))
    assert by_class(rows, ABC) == {
        "label": {
            "macroF1": 35.7143,
            "classes": {
                "a": {"precision": 50.0, "recall": 66.6667, "f1": 57.1429, "support": 3},
                "b": {"precision": 50.0, "recall": 50.0, "f1": 50.0, "support": 2},
                "c": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1},
            },
        }
    }


def test_an_answer_that_cannot_be_read_is_missed_by_its_class_and_is_none_of_another() -> None:
    report = by_class(judged(("a", None), ("a", "a"), ("b", "b")), ABC)["label"]
    assert report["classes"]["a"] == {"precision": 100.0, "recall": 50.0, "f1": 66.6667, "support": 2}
    assert report["classes"]["b"] == {"precision": 100.0, "recall": 100.0, "f1": 100.0, "support": 1}
    assert report["macroF1"] == 83.3333


def test_a_class_counts_where_a_label_or_an_answer_has_it() -> None:
    report = by_class(judged(("a", "a"), ("a", "b")), ABC)["label"]
    assert report["classes"]["b"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    assert "c" not in report["classes"]
    assert report["macroF1"] == 33.3333


def test_classes_are_found_as_exact_match_compares() -> None:
    assert by_class(judged(("a", "a ")), ABC)["label"]["macroF1"] == 100
    numbers = by_class(judged((1, 1), (2, 1)), {"label": Choice((1, 2))})["label"]
    assert list(numbers["classes"]) == ["1", "2"]
    truths = by_class(judged((True, True), (False, True)), {"label": Choice((True, False))})["label"]
    assert truths["classes"]["true"]["recall"] == 100


def test_many_classes_are_told_by_their_mean_alone() -> None:
    choice = Choice(tuple(range(101)))
    assert by_class(judged(*((n, n) for n in range(101))), {"label": choice})["label"] == {"macroF1": 100.0}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["a", "b", "c", None])), min_size=1))
def test_scores_by_class_are_percent_and_all_right_is_100(pairs: list[tuple[object, object]]) -> None:
    report = by_class(judged(*pairs), ABC)["label"]
    assert 0 <= report["macroF1"] <= 100
    assert sum(each["support"] for each in report["classes"].values()) == len(pairs)
    assert (report["macroF1"] == 100) == all(wanted == found for wanted, found in pairs)


TYPES = {"label": 'Literal["a", "b"]', "rank": "Literal[1, 2]", "note": "str", "maybe": 'Optional[Literal["a"]]'}


@pytest.mark.parametrize(
    ("metric", "compared", "want"),
    [
        pytest.param({"type": "ExactMatch"}, list(TYPES), ["label", "rank"], id="outputs of type Literal"),
        pytest.param({"type": "ExactMatch"}, ["rank", "note"], ["rank"], id="that are compared"),
        pytest.param({"type": "F1"}, list(TYPES), [], id="by ExactMatch"),
    ],
)
def test_outputs_that_have_classes(metric: dict[str, Any], compared: list[str], want: list[str]) -> None:
    found = classified(part(metric, **TYPES), compared)
    assert list(found) == want
    assert all(found[name] == parse_type(TYPES[name]) for name in want)


def shown(folder: Path, *, macro: bool, classes: int = 3, **more: Any) -> str:
    """The last screen of a run whose report has that many classes."""
    scores = {
        name: {str(n): {"precision": 0.0, "recall": 0.0, "f1": float(n + add), "support": n} for n in range(classes)}
        for name, add in (("baseline", 0), ("candidate", 10))
    }
    scores["candidate"].pop("0", None)
    report = {name: {"label": {"macroF1": 40.0, "classes": each}} for name, each in scores.items()}
    (folder / "revision").mkdir()
    (folder / "revision" / "report.json").write_text(json.dumps({"classes": report} if macro else {}))
    result = Result(
        candidate="v1:12345678",
        dataset=DatasetReport(rows=9, train=3, validation=3, test=3, dropped=0, digest="", test_digest=""),
        scores={
            arm: Score(score=50.0, rows=3, macro_f1={"label": 40.0} if macro else None)
            for arm in ("baseline", "candidate")
        },
        **more,
    )
    spec = RunSpec(
        run=RunIdentity(namespace="default", name="run"),
        program=part({"type": "ExactMatch"}, label='Literal["a"]'),
        dataset=DatasetPart(path="x", split=SplitPart(type="Hash")),
        paths=Paths(journal="", out="", control=""),
    )
    text = io.StringIO()
    last_screen(Console(file=text, width=120), spec, result, folder)
    return text.getvalue()


def test_the_last_screen_shows_macro_f1_and_each_class_the_worst_first(tmp_path: Path) -> None:
    lines = [line.rstrip() for line in shown(tmp_path, macro=True).splitlines()]
    assert any("macro-F1 of label" in line for line in lines)
    assert any(line.split("│")[1:4] == [" baseline  ", "  50.0 ", "              40.0 "] for line in lines), lines
    start = lines.index("F1 of each label")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines[start:] if line.startswith("│")]
    assert rows == [["0", "0", "0.0", "0.0"], ["1", "1", "1.0", "11.0"], ["2", "2", "2.0", "12.0"]]


def test_the_last_screen_shows_no_more_than_20_classes(tmp_path: Path) -> None:
    text = shown(tmp_path, macro=True, classes=30)
    assert "F1 of each label, the worst 20 of 30" in text
    assert "│ 19 " in text and "│ 20 " not in text


def test_the_last_screen_of_a_program_without_classes_is_as_it_was(tmp_path: Path) -> None:
    text = shown(tmp_path, macro=False)
    assert "F1" not in text and "score" in text


def test_the_last_screen_says_how_far_each_judge_agrees_with_people(tmp_path: Path) -> None:
    found = CalibrationReport(kappa=0.714, rows=40, undecided=2, agreed=31, min_kappa="0.6")
    text = shown(tmp_path, macro=False, calibration={"spec.metric.judge": found})
    told = "kappa 0.71 (minKappa 0.6), 31 of 38 grades are the same, 2 without a verdict"
    assert f"Judge spec.metric.judge against people: {told}" in " ".join(text.split())
