"""`dspy-operator diff`: rows gained and lost between two revisions, and what the model is told differently."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests.integration.harness import OPTIMIZERS, Case, Ended, Workplace, ended, start_cli, workplace

pytestmark = pytest.mark.measured


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A program's baseline and what BootstrapFewShot made of it, judged on 12 rows."""
    folder = tmp_path_factory.mktemp("diff")
    with workplace(folder, Case(OPTIMIZERS["BootstrapFewShot"], dev=16, test=12)) as place:
        validate = ended(start_cli("validate", str(place.manifests), "-o", str(place.out)), place.out)
        assert validate.code == 0, validate.stderr
        done = place.run()
        assert done.code == 0, done.stderr
    return place


def diff(place: Workplace, *arguments: str) -> Ended:
    return ended(start_cli("diff", *arguments), place.out)


def test_rows_and_messages_are_those_of_the_report_and_the_prompts(place: Workplace) -> None:
    baseline, candidate = place.out / "sentiment.baseline", place.run_folder
    told = diff(place, str(baseline), str(candidate), "--json")
    assert (told.code, told.stderr) == (1, "")
    found = json.loads(told.stdout)

    report = json.loads((candidate / "revision" / "report.json").read_bytes())
    assert (found["from"]["digest"], found["to"]["digest"]) == (report["arms"]["baseline"], report["arms"]["candidate"])
    assert found["from"]["score"] == report["scores"]["baseline"]["score"]
    assert found["to"]["score"] == report["scores"]["candidate"]["score"]
    pairs = [(row["line"], row["baseline"]["score"], row["candidate"]["score"]) for row in report["rows"]]
    for name, better in (("gained", 1), ("lost", -1)):
        wanted = sorted((line, old, new) for line, old, new in pairs if (new - old) * better > 0)
        assert [(row["line"], row["from"], row["to"]) for row in found[name]] == wanted
    assert found["rows"] == len(pairs) == 12

    def told_lines(folder: Path) -> Counter[str]:
        (predictor,) = json.loads((folder / "revision" / "prompts.json").read_bytes())["predictors"].values()
        return Counter(line for message in predictor["messages"] for line in message["content"].splitlines())

    body = found["prompt"].splitlines()[2:]
    gained = Counter(line[1:] for line in body if line.startswith("+"))
    gained.subtract(line[1:] for line in body if line.startswith("-"))
    more = told_lines(candidate)
    more.subtract(told_lines(baseline))
    assert more == Counter({line: count for line, count in gained.items() if not line.startswith("## ")})
    assert sum(more.values()) > 8, "demonstrations were added"

    back = json.loads(diff(place, str(candidate), str(baseline), "--json").stdout)
    assert (back["gained"], back["lost"]) == tuple(
        [{"line": row["line"], "from": row["to"], "to": row["from"]} for row in found[name]]
        for name in ("lost", "gained")
    )


def test_people_read_names_scores_and_a_unified_diff(place: Workplace) -> None:
    told = diff(place, str(place.out / "sentiment.baseline" / "revision"), str(place.run_folder / "revision"))
    assert told.code == 1
    first, scores, gained, lost, old, new, *_ = told.stdout.splitlines()
    names = first.split(" -> ")
    assert [old, new] == [f"--- {names[0]}", f"+++ {names[1]}"]
    assert scores.startswith("Held-out test, 12 rows that both answered: ")
    assert gained.startswith("  gained ") and lost.startswith("  lost ")


def test_a_config_map_is_read_as_kubectl_prints_it_and_the_same_revision_is_told(
    place: Workplace, tmp_path: Path
) -> None:
    folder = place.run_folder / "revision"
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "sentiment-1f2e3d4c"},
        "data": {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir()},
    }
    (tmp_path / "cm.yaml").write_text(yaml.safe_dump(config_map), encoding="utf-8")
    same = diff(place, str(tmp_path / "cm.yaml"), str(folder))
    assert same.code == 0
    assert same.stdout.startswith("sentiment-1f2e3d4c and ") and "the same revision" in same.stdout
    other = diff(place, str(place.out / "sentiment.baseline"), str(tmp_path / "cm.yaml"))
    assert other.code == 1 and other.stdout.splitlines()[0].endswith(" -> sentiment-1f2e3d4c")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "prompts.json").unlink(), "prompts.json is missing; found program.json, program.py"),
        (lambda folder: (folder / "program.py").write_text("changed"), "its files were changed: report.json says v1:"),
        (lambda folder: (folder / "report.json").write_text("["), "report.json is no JSON"),
        (lambda folder: (folder / "program.py").write_bytes(b"\xff"), "program.py is not UTF-8"),
    ],
)
def test_what_is_no_revision_is_refused_with_what_is_wrong(
    place: Workplace, tmp_path: Path, spoil: object, message: str
) -> None:
    folder = tmp_path / "mine" / "revision"
    folder.mkdir(parents=True)
    for file in (place.run_folder / "revision").iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    spoil(folder)  # type: ignore[operator]
    told = diff(place, str(tmp_path / "mine"), str(place.run_folder))
    assert (told.code, told.stdout) == (64, "")
    assert told.stderr.startswith(f"InvalidManifest: {tmp_path / 'mine'}: ") and message in told.stderr


def test_a_file_that_is_absent_or_something_else(place: Workplace, tmp_path: Path) -> None:
    absent = diff(place, str(tmp_path / "nothing"), str(place.run_folder))
    assert (absent.code, "it cannot be read: No such file" in absent.stderr) == (64, True)
    (tmp_path / "pod.yaml").write_text("kind: Pod", encoding="utf-8")
    other = diff(place, str(tmp_path / "pod.yaml"), str(place.run_folder))
    assert (other.code, "no ConfigMap with a revision" in other.stderr) == (64, True)
