"""A real model through the real CLI: examples/sentiment with fewer rows, since two cores answer about once a second."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from e2e.localmodel import ModelName, local_model
from tests.integration.harness import ended, start_cli

EXAMPLE = Path(__file__).parents[2] / "examples" / "sentiment"
ROWS = {"dev": 8, "test": 6}


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    """The example with the first rows of each part."""
    folder = tmp_path / "manifests"
    folder.mkdir()
    for name in ("endpoint.yaml", "program.yaml", "run.yaml"):
        (folder / name).write_text((EXAMPLE / name).read_text("utf-8"), "utf-8")
    dataset = yaml.safe_load((EXAMPLE / "dataset.yaml").read_text("utf-8"))
    rows = [json.loads(line) for line in dataset["data"]["data.jsonl"].splitlines()]
    kept = [row for part, count in ROWS.items() for row in [row for row in rows if row["part"] == part][:count]]
    dataset["data"]["data.jsonl"] = "".join(json.dumps(row) + "\n" for row in kept)
    (folder / "dataset.yaml").write_text(yaml.safe_dump(dataset), "utf-8")
    return folder


@pytest.mark.timeout(900)
def test_a_real_model_is_optimized_judged_and_verified(manifests: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    folder = out / "sentiment-bootstrap"
    with local_model(ModelName.QWEN) as endpoint:
        done = ended(
            start_cli("run", str(manifests), "--endpoint", f"qwen={endpoint.url}", "-o", str(out)), folder, timeout=800
        )
    assert done.code == 0, done.stderr
    result = done.result
    assert result["reason"] == "Completed"
    assert result["scores"]["candidate"]["score"] >= result["scores"]["baseline"]["score"]
    # A request that a busy machine answers too late is asked again; no row may be lost by it.
    assert {arm["failed"] for arm in result["scores"].values() if arm} == {0}
    assert result["usage"]["inputTokens"] > 0
    state = json.loads((folder / "revision" / "program.json").read_bytes())
    assert len(state["predict"]["demos"]) == 4
    # The model server is gone: what verifies now comes from the journal alone.
    verified = ended(start_cli("verify", str(folder)), folder)
    assert verified.code == 0, verified.stderr
