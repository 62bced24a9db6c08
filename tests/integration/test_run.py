"""Each optimizer, from manifests to a revision, through the real CLI."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.harness import OPTIMIZERS, Case, workplace

pytestmark = pytest.mark.measured


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_ends_with_a_judged_revision_and_verifies(tmp_path: Path, optimizer: str) -> None:
    with workplace(tmp_path, Case(OPTIMIZERS[optimizer]), latency_ms=3) as place:
        place.fresh = True
        done = place.run()
        assert done.code == 0, done.stderr
        result = done.result
        counts = place.server.counts()
        assert result["reason"] == "Completed"
        assert result["scores"]["baseline"]["rows"] == result["scores"]["candidate"]["rows"] == 12
        assert result["usage"]["calls"] == counts["requests"]
        assert result["usage"]["inputTokens"] + result["usage"]["outputTokens"] == (
            counts["prompt_tokens"] + counts["completion_tokens"]
        )
        for name in ("program.py", "program.json", "prompts.json", "report.json", "provenance.json"):
            assert (place.run_folder / "revision" / name).stat().st_size > 0
        assert all(line["level"] != "error" for line in done.logs)

        verified = place.verify()
        assert verified.code == 0, verified.stderr
        assert result["candidate"] in verified.stdout
        assert place.server.counts()["requests"] == counts["requests"]


def test_a_finished_run_resumed_sends_nothing_and_ends_the_same(tmp_path: Path) -> None:
    with workplace(tmp_path, Case(OPTIMIZERS["BootstrapFewShot"])) as place:
        first = place.run()
        sent = place.server.counts()["requests"]
        again = place.run("--resume")
        assert (first.code, again.code) == (0, 0), again.stderr
        assert again.result["candidate"] == first.result["candidate"]
        assert again.result["gate"] == first.result["gate"]
        assert place.server.counts()["requests"] == sent
