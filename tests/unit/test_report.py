"""The HTML report: its intervals against published ones, its plot, and that nothing of a row becomes markup."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import zstandard

from dspy_operator.cli import intervals
from dspy_operator.cli.compare import without_media
from dspy_operator.cli.plot import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, plot
from dspy_operator.cli.report import MOST_ROWS, report
from dspy_operator.contract.exits import Reason, RunFailed

HOSTILE = (
    "<script>alert('x')</script> \"&\" <img src=http://evil.test/a.png onerror=alert(1)> \ud83d {{ 7 * 7 }} {% if %}"
)


def scores(right: int, rows: int) -> list[float]:
    return [1.0] * right + [0.0] * (rows - right)


@pytest.mark.parametrize(
    ("right", "rows", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_intervals_of_scores_are_newcombes_table_of_wilsons(right: int, rows: int, low: float, high: float) -> None:
    """Newcombe (1998), Statistics in Medicine 17, table I, method 3."""
    found = intervals.of_mean(scores(right, rows))
    assert found == pytest.approx((100 * low, 100 * high), abs=0.006)


def test_intervals_of_gains_are_agresti_and_mins() -> None:
    """(won, lost) = (12, 2) of 50 rows: (12 - 2) / 52 +- 1.96 sqrt(15 - 100 / 52) / 52."""
    differences = [1.0] * 12 + [-1.0] * 2 + [0.0] * 36
    half = 1.959964 * (15 - 100 / 52) ** 0.5 / 52
    assert intervals.of_gain(differences) == pytest.approx((100 * (10 / 52 - half), 100 * (10 / 52 + half)))
    assert intervals.of_gain([0.0] * 50)[0] < 0 < intervals.of_gain([0.0] * 50)[1]


def test_other_scores_have_a_bootstrap_that_is_the_same_each_time() -> None:
    values = [0.1 * (number % 7) for number in range(200)]
    low, high = intervals.of_mean(values)
    mean = 100 * sum(values) / len(values)
    spread = (sum((100 * value - mean) ** 2 for value in values) / len(values)) ** 0.5 / len(values) ** 0.5
    assert (low, high) == pytest.approx((mean - 1.96 * spread, mean + 1.96 * spread), abs=0.25)
    assert intervals.of_mean(values) == (low, high)
    assert intervals.of_gain([-0.5, 0.5] * 20)[0] < 0


def test_a_plot_keeps_its_dots_inside_and_its_front_in_steps() -> None:
    programs = [
        {"program": f"{number:064x}", "score": score, "tokens": tokens, "front": front, "seconds": 0.1}
        for number, (score, tokens, front) in enumerate([(20, 100, True), (80, 400, True), (60, 900, False)])
    ]
    programs[0]["arms"] = ["baseline"]
    made = plot(programs)
    for dot in made.dots:
        assert LEFT <= dot.x <= WIDTH - RIGHT and TOP <= dot.y <= HEIGHT - BOTTOM
    first, second, third = made.dots
    assert first.x < second.x < third.x and first.y > third.y > second.y
    assert made.front == f"{first.x},{first.y} {second.x},{first.y} {second.x},{second.y}"
    assert (first.label, first.anchor, third.anchor) == ("baseline", "start", "end")
    assert 3 <= len(made.across) <= 12 and 3 <= len(made.up) <= 12


@pytest.mark.parametrize("score", [0.0, 50.0, 100.0])
def test_programs_that_are_all_alike_can_be_plotted(score: float) -> None:
    made = plot([{"program": "a" * 64, "score": score, "tokens": 0.0, "front": True}] * 2)
    assert len({(dot.x, dot.y) for dot in made.dots}) == 1
    assert all(0 <= float(tick.label) <= 100 for tick in made.up)


# --- the file ---------------------------------------------------------------------------------------------------------


class Seen(HTMLParser):
    """Elements with their attributes, and the texts outside of script and style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, Mapping[str, str | None]]] = []
        self.texts: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.texts.append(data)

    def all(self, tag: str) -> list[Mapping[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def a_line(number: int, text: str, baseline: float, candidate: float, **more: Any) -> dict[str, Any]:
    def answer(score: float) -> dict[str, Any]:
        return {
            "outputs": {"label": text, "why": ["a", 1]},
            "score": score,
            "feedback": text,
            "class": "right" if score == 1 else "wrong",
            "calls": 1,
            "inputTokens": 1200,
            "outputTokens": 7,
            "seconds": 0.25,
        }

    arms = {"baseline": answer(baseline), "candidate": answer(candidate)}
    return {"line": number, "split": "test", "inputs": {"text": text}, "expected": {"label": "x"}, "arms": arms} | more


def a_run(folder: Path, lines: list[dict[str, Any]], **report_more: Any) -> Path:
    prompts = {
        "predictors": {HOSTILE: {"messages": [{"role": "system", "content": HOSTILE}], "responseFormat": None}},
        "request": {},
    }
    rows = [
        {
            "line": line["line"],
            "digest": str(line["line"]),
            **{arm: {"score": each["score"], "class": each["class"]} for arm, each in line["arms"].items()},
        }
        for line in lines
    ]
    document = {
        "outcome": "Improved",
        "reason": "Completed",
        "scores": {arm: {"score": 50, "rows": len(lines), "failed": 0, "unreadable": 0} for arm in ("baseline", "candidate")},
        "gate": {"why": HOSTILE, "passed": True, "promote": False},
        "usage": {"calls": 9, "inputTokens": 1234567, "cost": "0.5"},
        "usageByRole": {HOSTILE: {"calls": 9}},
        "classes": {arm: {HOSTILE: {"macroF1": 1, "classes": {HOSTILE: {"precision": 1, "recall": 2, "f1": 3, "support": 4}}}} for arm in ("baseline", "candidate")},
        "rows": rows,
        "seconds": 61,
        **report_more,
    }  # fmt: skip
    revision = folder / "revision"
    revision.mkdir(parents=True)
    (revision / "program.py").write_text("")
    (revision / "program.json").write_text("{}")
    (revision / "prompts.json").write_text(json.dumps(prompts))
    (revision / "report.json").write_text(json.dumps(document))
    (revision / "provenance.json").write_text(json.dumps({"run": {"name": HOSTILE, "namespace": "n"}, "seed": 0}))
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "examples.jsonl.zst").write_bytes(zstandard.compress(text.encode()))
    return folder


def test_nothing_of_a_row_a_prompt_or_a_name_becomes_markup_or_a_request(tmp_path: Path) -> None:
    text = report(str(a_run(tmp_path, [a_line(1, HOSTILE, 0, 1), a_line(2, HOSTILE, 1, 0)]))).decode()
    seen = Seen(text)
    assert len(seen.all("script")) == len(seen.all("style")) == 1
    assert seen.all("img") == seen.all("link") == seen.all("iframe") == []
    shown = HOSTILE.replace("\ud83d", "?")
    assert sum(shown in each for each in seen.texts) >= 8, "it is shown as it is written"
    for tag, attributes in seen.elements:
        assert not {"src", "href", "onerror", "onload", "onclick", "style"} & set(attributes), (tag, attributes)
    policy = next(
        each["content"] or "" for each in seen.all("meta") if each.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; ")
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, flags=re.DOTALL)
        hashed = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{hashed}'" in policy, f"the browser would refuse our own {tag}"


def test_rows_say_what_they_are_and_their_filters_count_them(tmp_path: Path) -> None:
    unreadable = a_line(4, "d", 1, 0)
    unreadable["arms"]["candidate"]["class"] = "parse"
    of_dev = a_line(9, "e", 1, 1, split="train")
    del of_dev["arms"]["candidate"]
    lines = [a_line(1, "a", 0, 1), a_line(2, "b", 1, 0), a_line(3, "c", 1, 1), unreadable, of_dev]
    seen = Seen(report(str(a_run(tmp_path, lines))).decode())
    kinds = [each["data-kinds"] for each in seen.all("tr") if "data-kinds" in each]
    assert kinds == ["test gained", "test lost wrong", "test", "test lost wrong failed", "dev"]
    text = " ".join(" ".join(seen.texts).split())
    for told in (
        "all (5)",
        "test (4)",
        "dev (1)",
        "gained (1)",
        "lost (2)",
        "candidate wrong (2)",
        "candidate unreadable or failed (1)",
    ):
        assert told in text
    assert "1,200 + 7 tokens, 0.25 s" in text and '["a", 1]' in text


def test_letters_of_an_image_or_a_sound_are_told_by_their_number_and_hash(tmp_path: Path) -> None:
    sound = base64.b64encode(bytes(range(256)) * 3).decode()
    hashed = hashlib.sha256(sound.encode()).hexdigest()[:12]
    folder = a_run(tmp_path, [a_line(1, f"data:audio/wav;base64,{sound}", 0, 1)])
    text = report(str(folder)).decode()
    assert f"data:audio/wav;base64,...1,024 characters, SHA-256 {hashed}" in text
    assert sound[:200] not in text
    image = json.dumps([{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{sound}"}}])
    part = json.dumps([{"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}}])
    told = f"...1,024 characters, SHA-256 {hashed}"
    assert without_media(image) == image.replace(sound, told)
    assert without_media(part) == part.replace(sound, told)
    assert without_media(sound) == sound, "a text, whatever its letters"


def test_of_many_rows_those_that_changed_are_told(tmp_path: Path) -> None:
    lines = [a_line(number, "same", 1, 1) for number in range(MOST_ROWS)] + [a_line(9999, "other", 0, 1)]
    seen = Seen(report(str(a_run(tmp_path, lines))).decode())
    kinds = [each["data-kinds"] for each in seen.all("tr") if "data-kinds" in each]
    assert len(kinds) == MOST_ROWS and kinds[-1] == "test gained"
    assert any(f"{MOST_ROWS} of {MOST_ROWS + 1} rows; examples.jsonl.zst has all." in each for each in seen.texts)


def test_every_table_has_a_caption_and_headers_and_every_scrolled_part_can_be_reached(tmp_path: Path) -> None:
    programs = {
        "scored": 2,
        "shown": [
            {"program": c * 64, "score": 50 + n, "tokens": 100 + n, "seconds": 0.1, "front": True}
            for n, c in enumerate("ab")
        ],
    }
    text = report(str(a_run(tmp_path, [a_line(1, "a", 0, 1)], programs=programs))).decode()
    tables = re.findall(r"<table.*?</table>", text, flags=re.DOTALL)
    assert len(tables) >= 6
    for table in tables:
        assert "<caption>" in table and 'scope="row"' in table
    seen = Seen(text)
    for attributes in (*seen.all("div"), *seen.all("pre")):
        if attributes.get("class") in ("wide", "diff"):
            assert attributes["tabindex"] == "0" and ("aria-labelledby" in attributes or "aria-label" in attributes)
    assert [each["lang"] for each in seen.all("html")] == ["en"]
    (svg,) = seen.all("svg")
    assert svg["role"] == "img" and "2 programs" in (svg["aria-label"] or "")


def test_a_report_says_how_far_each_judge_agrees_with_people(tmp_path: Path) -> None:
    found = {"spec.metric.judge": {"kappa": 0.5, "rows": 8, "undecided": 1, "agreed": 6}, HOSTILE: {"rows": 2}}
    seen = Seen(report(str(a_run(tmp_path, [], calibration=found))).decode())
    told = " ".join(" ".join(seen.texts).split())
    assert "spec.metric.judge against people: kappa 0.50, 6 of 7 grades are the same, 1 without a verdict." in told
    assert "against people: kappa cannot be computed, 0 of 2 grades are the same." in told
    assert seen.all("img") == []


def test_a_report_without_rows_or_judgement_says_so(tmp_path: Path) -> None:
    folder = a_run(
        tmp_path,
        [],
        outcome="NotJudged",
        reason="BudgetExhausted",
        message="80 of 80 calls used",
        scores={},
        gate=None,
        classes={},
    )
    (folder / "examples.jsonl.zst").unlink()
    text = " ".join(Seen(report(str(folder)).decode()).texts)
    assert "Not judged: nothing is known of the candidate" in text
    assert "Ended as BudgetExhausted: 80 of 80 calls used" in text
    assert "nothing was judged, or dataset.exportRows is false" in text


def test_a_revision_without_its_report_is_refused(tmp_path: Path) -> None:
    folder = a_run(tmp_path, [])
    (folder / "revision" / "report.json").unlink()
    with pytest.raises(RunFailed, match=r"report\.json is missing") as refused:
        report(str(folder))
    assert refused.value.reason is Reason.INVALID_MANIFEST
