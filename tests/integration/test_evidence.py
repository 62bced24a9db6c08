"""What a run leaves beside its score: tokens and seconds of each answer, and score against tokens of each program."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
import zstandard

from dspy_operator.contract.evidence import Example, Report
from tests.integration.acceptance import LONG
from tests.integration.graph import graph_case
from tests.integration.harness import OPTIMIZERS, Case, Workplace, ended, merged, start_cli, workplace


def examples(place: Workplace) -> list[dict[str, Any]]:
    """The lines of examples.jsonl.zst."""
    packed = (place.run_folder / "examples.jsonl.zst").read_bytes()
    return [json.loads(line) for line in zstandard.decompress(packed).decode().splitlines()]


def report(place: Workplace) -> dict[str, Any]:
    """report.json."""
    found: dict[str, Any] = json.loads((place.run_folder / "revision" / "report.json").read_bytes())
    return found


def are_as_documented(place: Workplace) -> None:
    """report.json and examples.jsonl.zst have the fields of docs/reference/contract.md and no others."""
    found = report(place)
    assert Report.model_validate(found).document() == found
    for line in examples(place):
        assert Example.model_validate(line).document() == line


def journaled(place: Workplace) -> dict[str, dict[str, Any]]:
    """Text of a row -> the journal's answer to the baseline's request for it."""
    lines = place.journal()
    asked = {
        line["key"]: json.dumps(line["request"]) for line in lines if line["kind"] == "start" and "request" in line
    }
    done = {line["key"]: line for line in lines if line["kind"] == "done"}
    texts = [row["text"] for row in place.case.rows()]
    plain = {key: text for key, text in asked.items() if sum(each in text for each in texts) == 1}  # no demonstrations
    return {each: done[key] for key, text in plain.items() for each in texts if each in text}


def test_each_answer_has_its_tokens_and_seconds_as_journaled_and_a_replay_gives_the_same(tmp_path: Path) -> None:
    with workplace(tmp_path, Case(OPTIMIZERS["LabeledFewShot"], dev=8, test=6), latency_ms=20) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        lines, found, first = examples(place), report(place), journaled(place)
        are_as_documented(place)
        assert sorted(line["split"] for line in lines) == ["test"] * 6 + ["train"] * 4 + ["validation"] * 4
        for line in lines:
            assert set(line["arms"]) == {"baseline", "candidate"}
            answer, baseline = first[line["inputs"]["text"]], line["arms"]["baseline"]
            usage = answer["response"]["usage"]
            took = {name: baseline[name] for name in ("calls", "inputTokens", "outputTokens", "seconds")}
            assert took == {
                "calls": 1,
                "inputTokens": usage["input_tokens"],
                "outputTokens": usage["output_tokens"],
                "seconds": answer["seconds"],
            }
            assert line["arms"]["candidate"]["inputTokens"] > baseline["inputTokens"], "demonstrations cost tokens"
        test_lines = [line for line in lines if line["split"] == "test"]
        for arm, told in found["answers"].items():
            for name in ("inputTokens", "outputTokens", "seconds"):
                values = [line["arms"][arm][name] for line in test_lines]
                assert told[name]["mean"] == pytest.approx(sum(values) / 6, abs=1e-4)
                assert told[name]["max"] == max(values)
            assert told["answers"] == 6

        packed = (place.run_folder / "examples.jsonl.zst").read_bytes()
        assert place.run("--resume").code == 0
        assert (place.run_folder / "examples.jsonl.zst").read_bytes() == packed
        again = report(place)
        assert (again["answers"], again["programs"]) == (found["answers"], found["programs"])


@pytest.mark.parametrize(
    "optimizer", ["BootstrapFewShotWithRandomSearch", "GEPA", "MIPROv2", "SIMBA"] if LONG else ["MIPROv2", "SIMBA"]
)
def test_programs_that_were_scored_lie_on_the_front_or_not(tmp_path: Path, optimizer: str) -> None:
    """SIMBA scores without events of DSPy's: its programs are seen all the same."""
    with workplace(tmp_path, Case(OPTIMIZERS[optimizer], dev=24, test=4)) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        programs, lines = report(place)["programs"], place.journal()
        dev = 24 if optimizer == "SIMBA" else 12
        whole = {
            line["program"]: 100 * sum(line["scores"]) / len(line["scores"])
            for line in reversed(lines)
            if line["kind"] == "mark" and line["mark"] == "evaluate" and len(line["scores"]) == dev
        }
        shown = {each["program"]: each for each in programs["shown"]}
        assert programs["scored"] == len(shown) == len(whole) > 1
        assert {name: pytest.approx(score, abs=1e-3) for name, score in whole.items()} == {
            name: each["score"] for name, each in shown.items()
        }
        (baseline,) = [each for each in shown.values() if "baseline" in each.get("arms", [])]
        of_dev = [line["arms"]["baseline"] for line in examples(place) if line["split"] != "test"]
        tokens = [each["inputTokens"] + each["outputTokens"] for each in of_dev if "inputTokens" in each]
        assert baseline["tokens"] == pytest.approx(sum(tokens) / dev, abs=0.01)
        assert all(each["tokens"] > 0 and each["seconds"] >= 0 for each in shown.values())
        assert any(each["front"] for each in shown.values())


def test_a_report_of_a_run_says_what_its_files_say(tmp_path: Path) -> None:
    with workplace(tmp_path, Case(OPTIMIZERS["BootstrapFewShotWithRandomSearch"], dev=12, test=8)) as place:
        assert place.run().code == 0
        calls = place.server.counts()["requests"]
        written = ended(start_cli("report", str(place.run_folder)), place.out)
        assert (written.code, written.stdout, written.stderr) == (0, f"{place.run_folder / 'report.html'}\n", "")
        text = (place.run_folder / "report.html").read_text(encoding="utf-8")
        found = report(place)
        assert html.escape(found["gate"]["why"]) in text
        for arm in ("baseline", "candidate"):
            assert f'<th scope="row">{arm}</th><td class="number">{found["scores"][arm]["score"]:.1f}</td>' in text
            assert f"{found['answers'][arm]['inputTokens']['mean']:,.1f}</td>" in text
            assert found["arms"][arm] in text
        assert text.count('<circle class="dot') == len(found["programs"]["shown"])
        assert text.count("<tr data-kinds=") == len(examples(place)) == 8 + 6
        assert f'<td class="number">{calls:,}</td>' in text
        waited = sum(line["seconds"] for line in place.journal() if line["kind"] == "done")
        assert f'<td class="number">{waited:,.1f}</td><td class="number">0.' in text, "seconds and money"
        added = re.findall(r'<span class="add" dir="auto">\+(.*?)</span>', text)
        assert len(added) > 4, "demonstrations"

        other = tmp_path / "other.html"
        assert ended(start_cli("report", str(place.run_folder), "-o", str(other)), place.out).code == 0
        assert other.read_bytes() == (place.run_folder / "report.html").read_bytes()
        nowhere = ended(start_cli("report", str(place.run_folder), "-o", str(tmp_path / "no" / "x.html")), place.out)
        assert (nowhere.code, "No such file or directory" in nowhere.stderr) == (64, True)
        absent = ended(start_cli("report", str(tmp_path)), place.out)
        assert (absent.code, "program.py is missing" in absent.stderr) == (64, True)


def test_a_revisions_config_map_is_reported_without_texts(tmp_path: Path) -> None:
    with workplace(tmp_path, Case(OPTIMIZERS["LabeledFewShot"], dev=8, test=6)) as place:
        assert place.run().code == 0
        files = {file.name: file.read_text(encoding="utf-8") for file in (place.run_folder / "revision").iterdir()}
        path = tmp_path / "revision.json"
        path.write_text(json.dumps({"kind": "ConfigMap", "metadata": {"name": "sentiment-1"}, "data": files}))
        written = ended(start_cli("report", str(path), "-o", str(tmp_path / "r.html")), place.out)
        assert written.code == 0, written.stderr
        text = (tmp_path / "r.html").read_text(encoding="utf-8")
        assert text.count("<tr data-kinds=") == 6
        assert "The rows&#39; texts are in examples.jsonl.zst" in text and "dspy-operator diff OLD NEW" in text


def test_an_answer_of_a_graph_took_what_all_its_steps_took(tmp_path: Path) -> None:
    """Repeated and sampled, too: each answer has its own calls, and all together are what the server counted."""
    case = graph_case({"type": "Evaluate"}, dev=4, test=5)
    case.program = merged(case.program, {"target": {"request": {"temperature": "0.7"}}})
    with workplace(tmp_path, case, stochastic=True) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        answers = [answer for line in examples(place) for answer in line["arms"]["candidate"]["answers"]]
        assert len(answers) == 5 * 3 and {answer["calls"] for answer in answers} <= {2, 3, 4}
        usage = done.result["usage"]
        preflight = usage["calls"] - sum(answer["calls"] for answer in answers)
        assert preflight in (2, 3, 4), "one dev row"
        for name in ("inputTokens", "outputTokens"):
            mean = sum(answer[name] for answer in answers) / sum(answer["calls"] for answer in answers)
            assert usage[name] == pytest.approx(sum(answer[name] for answer in answers) + preflight * mean, rel=0.05)
        are_as_documented(place)
        written = ended(start_cli("report", str(place.run_folder)), place.out)
        assert written.code == 0, written.stderr
