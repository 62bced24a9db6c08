"""The metrics' page is made from the metrics."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import generate_latest

from dspy_operator.engine.metrics import Metrics, documentation

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"


def test_the_page_is_as_the_code_says() -> None:
    assert PAGE.read_text() == documentation(), "python -m dspy_operator.engine.metrics > docs/reference/metrics.md"


def test_every_metric_is_served_with_its_words_and_none_else() -> None:
    metrics = Metrics()
    served = {
        line.split()[2].removesuffix("_total"): line.split(maxsplit=3)[3]
        for line in generate_latest(metrics.registry).decode().splitlines()
        if line.startswith("# HELP")
    }
    assert served == {name.removesuffix("_total"): text for name, _, _, text in metrics.documented}
    assert len(served) >= 15
    assert all(text.endswith(".") or ";" in text for text in served.values())
