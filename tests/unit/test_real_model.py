"""The table of the real model: what the script would run is accepted, and the document says what its results say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dspy_operator.api.optimizationrun import Optimizer
from dspy_operator.cli.manifests import read_manifests
from tests.perf import real_model
from tests.perf.real_model import DOCUMENT, OPTIMIZERS, results, table, with_table


def test_every_optimizer_of_the_api_has_a_row() -> None:
    types = Optimizer.model_fields["type"].annotation
    assert set(OPTIMIZERS) - {"Constrained"} == set(getattr(types, "__args__", ()))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_schema_accepts_what_is_run(optimizer: str, tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(real_model.objects("sentiment", optimizer)), "utf-8")
    manifests = read_manifests([tmp_path])
    assert [run.metadata.name for run in manifests.runs.values()] == [real_model.name_of("sentiment", optimizer)]


def test_the_document_has_the_table_of_the_results() -> None:
    document = DOCUMENT.read_text("utf-8")
    assert with_table(document, results()) == document, "python -m tests.perf.real_model --table"


def row(optimizer: str, *, baseline: list[int], candidate: list[int] | None = None, **more: Any) -> dict[str, Any]:
    arms = {"baseline": baseline} | ({"candidate": candidate} if candidate is not None else {})
    return {
        "task": "sentiment",
        "optimizer": optimizer,
        "reason": "Completed",
        "scores": {arm: {"score": 100 * sum(of) / max(1, len(of)), "unreadable": 0} for arm, of in arms.items()},
        "gate": {"p": 0.9, "promote": False} if candidate is not None else {},
        "rows": {f"{place}": {arm: float(of[place]) for arm, of in arms.items()} for place in range(len(baseline))},
        "calls": 12,
        "tokens": 3456,
        "minutes": 1.5,
        **more,
    }


def test_a_row_says_where_it_hurt_and_what_the_schema_alone_gives() -> None:
    told = table(
        [
            row("Evaluate", baseline=[1, 1, 1, 0]),
            row("Constrained", baseline=[1, 1, 1, 1]),
            row("GEPA", baseline=[1, 1, 1, 0], candidate=[1, 0, 0, 1]),
        ]
    )
    assert "as written 75.0 (0 unreadable; 12 calls, 3,456 tokens, 1.5 minutes)" in told
    assert "| GEPA | 75.0 | 100.0 | 50.0 | 1, 2 | 0.9 | no | 0, 2 | 1 | 12 | 3,456 | 1.5 |" in told


def test_a_candidate_that_is_the_baseline_and_a_run_without_a_judgement_are_told_as_such() -> None:
    told = table(
        [
            row("Constrained", baseline=[1, 1, 1, 1]),
            row("SIMBA", baseline=[1, 0, 1, 0], gate={"passed": False, "promote": False}),
            row("InferRules", baseline=[], scores={}, gate=None, reason="ModelAnswersUnusable"),
        ]
    )
    assert "| SIMBA | 50.0 | 100.0 | 50.0 | the baseline itself | - | no | 0, 2 | 1 | 12" in told
    assert "| InferRules | - | 100.0 | ModelAnswersUnusable | - | - | no | - | - | 12" in told
