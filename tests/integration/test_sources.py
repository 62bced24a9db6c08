"""Rows that are not in the manifests, through the real CLI."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import OPTIMIZERS, Case, workplace
from tests.integration.test_bad_input import assert_clean
from tests.integration.test_formats import as_json_lines
from tests.integration.test_validate import findings, validated

BOOTSTRAP, EVALUATE = OPTIMIZERS["BootstrapFewShot"], OPTIMIZERS["Evaluate"]


def on_a_volume(path: str = "2026/rows.jsonl.gz") -> dict[str, Any]:
    source = {"type": "PersistentVolumeClaim", "persistentVolumeClaim": {"claimName": "tickets", "path": path}}
    return {"dataset": {"source": source}}


def a_volume(folder: Path) -> Path:
    """A folder with what the claim's volume has."""
    file = folder / "volume" / "2026" / "rows.jsonl.gz"
    file.parent.mkdir(parents=True)
    file.write_bytes(gzip.compress(as_json_lines(Case(EVALUATE).rows()).encode()))
    return folder / "volume"


def test_rows_on_a_volume_run_to_the_same_revision_and_are_kept_beside_the_journal(tmp_path: Path) -> None:
    volume = a_volume(tmp_path)
    with workplace(tmp_path / "config-map", Case(BOOTSTRAP)) as place:
        first = place.run()
    with workplace(tmp_path / "volume-run", Case(BOOTSTRAP, program=on_a_volume())) as place:
        done = place.run("--volume", f"tickets={volume}")
        sent = place.server.counts()["requests"]
        again = place.run("--volume", f"tickets={volume}", "--resume")
        (volume / "2026" / "rows.jsonl.gz").unlink()
        verified = place.verify()
        assert place.server.counts()["requests"] == sent
    assert (first.code, done.code, again.code, verified.code) == (0, 0, 0, 0), done.stderr + verified.stderr
    assert done.result["candidate"] == first.result["candidate"] == again.result["candidate"]
    assert done.result["dataset"] == first.result["dataset"]


def test_rows_of_a_volume_that_changed_stop_a_resumed_run(tmp_path: Path) -> None:
    volume = a_volume(tmp_path)
    with workplace(tmp_path / "run", Case(EVALUATE, program=on_a_volume())) as place:
        assert place.run("--volume", f"tickets={volume}").code == 0
        sent = place.server.counts()["requests"]
        fewer = Case(EVALUATE, dev=20).rows()
        (volume / "2026" / "rows.jsonl.gz").write_bytes(gzip.compress(as_json_lines(fewer).encode()))
        again = place.run("--volume", f"tickets={volume}", "--resume")
        assert again.code == 64
        assert "was started with other inputs: the rows changed since" in again.stderr
        assert place.server.counts()["requests"] == sent


@pytest.mark.parametrize(
    ("arguments", "path", "code", "message"),
    [
        pytest.param(
            [], "2026/rows.jsonl.gz", 41,
            "spec.dataset.source.persistentVolumeClaim.claimName: PersistentVolumeClaim tickets is a volume; "
            "here --volume tickets=FOLDER gives its files",
            id="no folder for the claim",
        ),
        pytest.param(
            ["--volume", "tickets=VOLUME"], "2025/rows.jsonl", 41,
            "spec.dataset.source.persistentVolumeClaim.path: --volume tickets=VOLUME: there is no file 2025/rows.jsonl",
            id="no such file",
        ),
        pytest.param(
            ["--volume", "ticket=VOLUME"], "2026/rows.jsonl.gz", 64,
            "--volume ticket=...: no program reads from PersistentVolumeClaim ticket (there are: tickets)",
            id="a claim that no program names",
        ),
        pytest.param(
            ["--volume", "tickets"], "2026/rows.jsonl.gz", 64,
            "--volume tickets: write CLAIM=FOLDER, with the name of a PersistentVolumeClaim",
            id="no folder at all",
        ),
    ],
)  # fmt: skip
def test_a_mistake_with_a_volume_says_what_to_write(
    tmp_path: Path, arguments: list[str], path: str, code: int, message: str
) -> None:
    volume = a_volume(tmp_path)
    with workplace(tmp_path / "run", Case(EVALUATE, program=on_a_volume(path))) as place:
        done = place.run(*(argument.replace("VOLUME", str(volume)) for argument in arguments))
        assert done.code == code
        assert message.replace("VOLUME", str(volume)) in done.stderr
        assert_clean(place, done)


def test_validate_warns_of_a_volume_that_it_was_not_given(tmp_path: Path) -> None:
    volume = a_volume(tmp_path)
    folder = Case(EVALUATE, program=on_a_volume()).write(tmp_path / "manifests")
    code, found = findings(folder)
    assert code == 0
    assert [(each["severity"], each["reason"], each["path"]) for each in found] == [
        ("warning", "DatasetNotFound", "spec.dataset.source.persistentVolumeClaim.claimName")
    ]
    assert "the rows were not checked; --volume tickets=FOLDER gives its files" in found[0]["message"]
    done = validated(folder, "--volume", f"tickets={volume}")
    assert done.code == 0
    assert "sentiment: valid, 36 rows" in done.stdout


def test_dropped_rows_are_told_at_the_source_that_holds_them(tmp_path: Path) -> None:
    volume = a_volume(tmp_path)
    rows = volume / "2026" / "rows.jsonl.gz"
    rows.write_bytes(gzip.compress(gzip.decompress(rows.read_bytes()) + b"no row\n"))
    test = {"type": "Inline", "inline": {"data": '{"text": "held out", "label": "positive"}\nno row either\n'}}
    program = on_a_volume()
    program["dataset"]["split"] = {"type": "Sources", "sources": {"test": test}}
    folder = Case(EVALUATE, program=program).write(tmp_path / "manifests")
    done = validated(folder, "--volume", f"tickets={volume}", "--format", "json")
    found = [each for each in json.loads(done.stdout) if each["reason"] == "RowsDropped"]
    assert [(each["path"], each["message"].partition(":")[0]) for each in found] == [
        ("spec.dataset.source", "line 37"),
        ("spec.dataset.split.sources.test.inline.data", "line 2 of test"),
    ]
