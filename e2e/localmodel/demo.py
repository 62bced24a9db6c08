"""`make demo-local`: a real model, real text, two runs by the real CLI, and what the scores mean."""

import json
import logging
import shutil
import subprocess
import sys
import time
from pathlib import Path

from e2e.demo.lastscreen import Result, scores
from e2e.localmodel.serve import local_model
from e2e.localmodel.weights import ModelName

EXAMPLES = Path("examples")
OUT = Path("out/demo-local")

log = logging.getLogger(__name__)


class DemoFailed(Exception):
    """One of the demo's commands did not end with 0; it has said why itself."""


def demo(model: ModelName) -> None:
    """Set up, run, explain; each step says what it is and how long it took."""
    steps: list[tuple[str, float]] = []

    def step(title: str, minutes: str) -> None:
        log.info("\n== %s (about %s)", title, minutes)

    shutil.rmtree(OUT, ignore_errors=True)
    started = time.monotonic()
    step("A small language model on this machine", "1 minute the first time, then seconds")
    with local_model(model) as endpoint:
        steps.append(("model server", time.monotonic() - started))
        if endpoint.model != "qwen2.5-coder:0.5b":
            log.info(
                "the scores below are %s's: it is too small to show a gain, the steps are the same", endpoint.model
            )

        step(
            "The program as written, then improved by BootstrapFewShot, judged on 160 rows that it never saw",
            "6 minutes",
        )
        began = time.monotonic()
        optimized = _run("sentiment-bootstrap", [EXAMPLES / "sentiment"], endpoint.url)
        steps.append(("optimize and judge", time.monotonic() - began))

        step("The same program held to a JSON schema, not optimized, on the same 160 rows", "2 minutes")
        began = time.monotonic()
        sources = [
            EXAMPLES / "sentiment-constrained",
            EXAMPLES / "sentiment/dataset.yaml",
            EXAMPLES / "sentiment/endpoint.yaml",
        ]
        constrained = _run("sentiment-constrained", sources, endpoint.url)
        steps.append(("constrained baseline", time.monotonic() - began))
    _explain(optimized, constrained, steps)


def _run(name: str, manifests: list[Path], url: str) -> Result:
    command = [
        sys.executable,
        "-m",
        "dspy_operator.cli.main",
        "run",
        *map(str, manifests),
        "--endpoint",
        f"qwen={url}",
        "-o",
        str(OUT),
    ]
    log.info("$ dspy-operator %s", " ".join(command[3:]))
    code = subprocess.run(command, check=False).returncode
    if code != 0:
        raise DemoFailed(f"dspy-operator run ({name}) ended with exit code {code}")
    result: Result = json.loads((OUT / name / "result.json").read_bytes())
    return result


def _explain(optimized: Result, constrained: Result, steps: list[tuple[str, float]]) -> None:
    lines = [
        "",
        *scores(optimized, constrained),
        "",
        f"Minutes: {', '.join(f'{name} {seconds / 60:.1f}' for name, seconds in steps)}",
        f"The revision: {OUT}/sentiment-bootstrap/revision (program.py runs by itself; prompts.json needs no DSPy)",
        f"Check it:     .venv/bin/dspy-operator verify {OUT}/sentiment-bootstrap",
        "Your own:     copy examples/sentiment, change program.yaml and dataset.yaml, and run it with --endpoint NAME=URL",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
