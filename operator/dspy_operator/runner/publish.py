"""Publishing: a program becomes a revision, and a run leaves its evidence beside it."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from dspy_operator import __version__
from dspy_operator.api.object_types import program_types
from dspy_operator.api.promptprogram import SamplingRequest
from dspy_operator.contract.canonical import dataset_digest
from dspy_operator.contract.digests import revision_digest
from dspy_operator.contract.documents import Result
from dspy_operator.contract.runspec import RunSpec
from dspy_operator.runner.classes import Classes
from dspy_operator.runner.judge import Arm, Judged, worst
from dspy_operator.runner.prepare import Prepared
from dspy_operator.runner.program import document_bytes, program_json_bytes
from dspy_operator.runner.progress import write_bytes, write_json
from dspy_operator.runner.prompts import code_document, prompts_document
from dspy_operator.runner.took import distribution

VECTORS = 3
"""Conformance vectors of a revision: the first rows of dev by row digest."""


@dataclass(frozen=True)
class Revision:
    """The three files that are a revision, and their digest."""

    program_py: bytes
    program_json: bytes
    prompts_json: bytes

    @property
    def digest(self) -> str:
        """`v1:<sha256>`."""
        return revision_digest(self.program_py, self.program_json, self.prompts_json)


def revision_of(spec: RunSpec, prepared: Prepared, state: Mapping[str, Any]) -> Revision:
    """The revision of a program in a given state (instructions, demonstrations)."""
    module = prepared.program.in_state(state)
    rows = sorted(prepared.parts.dev, key=lambda row: row.digest)[:VECTORS]
    vectors = [(row.inputs, row.outputs) for row in rows] if spec.dataset.export_rows else None
    if spec.program.program.code is not None:
        prompts = code_document(spec.program.request or SamplingRequest())
        return Revision(prepared.program.source.encode(), program_json_bytes(module), document_bytes(prompts))
    prompts = prompts_document(
        module,
        prepared.program.adapter,
        prepared.adapter,
        spec.program.request or SamplingRequest(),
        vectors,
        program_types(spec.program.program, spec.program.types).graph,
        spec.program.program.single,
        prepared.headers,
        prepared.listed,
    )
    return Revision(prepared.program.source.encode(), program_json_bytes(module), document_bytes(prompts))


def write_revision(
    folder: Path, revision: Revision, *, report: Mapping[str, Any], provenance: Mapping[str, Any]
) -> None:
    """Write a revision and its evidence; each file is replaced as a whole."""
    write_content(folder, revision)
    write_json(folder / "report.json", report)
    write_json(folder / "provenance.json", provenance)


def write_content(folder: Path, revision: Revision) -> None:
    """Write the files that are the revision."""
    write_bytes(folder / "program.py", revision.program_py)
    write_bytes(folder / "program.json", revision.program_json)
    write_bytes(folder / "prompts.json", revision.prompts_json)


def digest_in(folder: Path) -> str | None:
    """The digest of the revision in a folder; None where not all of its files are there."""
    files = [folder / name for name in ("program.py", "program.json", "prompts.json")]
    return revision_digest(*(file.read_bytes() for file in files)) if all(file.is_file() for file in files) else None


def report_document(
    result: Result,
    arms: Mapping[str, Arm],
    digests: Mapping[str, str],
    *,
    classes: Mapping[str, Classes],
    programs: Mapping[str, Any] | None = None,
    export_rows: bool,
) -> dict[str, Any]:
    """report.json: the scores, the verdict, by arm each class' and each test row's score; without the rows' text.

    Args:
        arms: by name, on the test rows; none where nothing was judged.
        digests: arm -> digest of its revision, as far as it is known: what `dspy-operator diff` finds its rows by.
        classes: arm -> output -> its classes, for outputs that have some.
        programs: those that the optimizer scored, by score and tokens; None where it scored none.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, arm in arms.items():
        for score, answers in zip(arm.scores, arm.by_row, strict=True):
            of = answers[0].row
            row = rows.setdefault(of.digest, {"line": of.line, "digest": of.digest})
            row[name] = {"score": score, "class": worst(answers)}
            if arm.repeats > 1:
                row[name]["scores"] = [judged.score for judged in answers]
    answered = {name: [row.took for row in arm.rows if row.failure != "request"] for name, arm in arms.items()}
    costs = {name: distribution(took) for name, took in answered.items() if took}
    document = result.document()
    kept = (
        "outcome",
        "reason",
        "message",
        "scores",
        "gate",
        "calibration",
        "dataset",
        "usage",
        "usageByRole",
        "tools",
        "resolved",
        "seconds",
    )
    return {
        "revision": result.candidate,
        "arms": dict(digests),
        **{name: document[name] for name in kept if name in document},
        **({"classes": classes} if any(classes.values()) else {}),
        **({"answers": costs} if costs else {}),
        **({"programs": programs} if programs else {}),
        "rows": list(rows.values()) if export_rows else [],
    }


def provenance_document(spec: RunSpec, result: Result) -> dict[str, Any]:
    """provenance.json: everything that decided what came out."""
    return {
        "revision": result.candidate,
        "run": spec.run.document(),
        "inputDigest": spec.input_digest,
        "programDigest": spec.program.digest,
        "datasetDigest": result.dataset.digest if result.dataset else None,
        **({"code": result.code} if result.code else {}),
        "seed": spec.seed,
        **({"repeats": spec.repeats} if spec.repeats > 1 else {}),
        "optimizer": spec.optimizer.document() if spec.optimizer else None,
        **({"startFrom": spec.start_from.digest} if spec.start_from else {}),
        "resolved": result.resolved,
        "endpoints": {
            role: {
                "name": endpoint.name,
                "model": endpoint.model,
                "modelDigest": endpoint.model_digest,
                "request": endpoint.request.document(),
            }
            for role, endpoint in spec.endpoints.items()
        },
        "runnerImage": result.runner_image,
        "versions": result.versions,
    }


def write_examples(path: Path, prepared: Prepared, arms: Mapping[str, Arm], dev_arms: Mapping[str, Arm]) -> None:
    """examples.jsonl.zst: each row with every arm's prediction, score, feedback, class of failure, tokens and seconds.

    Args:
        arms: on the test rows.
        dev_arms: on dev, where we asked it ourselves.
    """
    lines: dict[str, dict[str, Any]] = {}
    split_of = {row.digest: "train" for row in prepared.parts.train} | {
        row.digest: "validation" for row in prepared.parts.validation
    }
    for name, arm in (*arms.items(), *dev_arms.items()):
        for score, answers in zip(arm.scores, arm.by_row, strict=True):
            row = answers[0].row
            entry = lines.setdefault(
                row.digest,
                {
                    "line": row.line,
                    "split": split_of.get(row.digest, "test"),
                    "inputs": row.inputs,
                    "expected": row.outputs,
                    "arms": {},
                },
            )
            told = [_answer(judged) for judged in answers]
            entry["arms"][name] = (
                told[0] if arm.repeats == 1 else {"score": score, "class": worst(answers), "answers": told}
            )
    text = "".join(json.dumps(line, ensure_ascii=False, default=str) + "\n" for line in lines.values())
    write_bytes(path, zstandard.compress(text.encode("utf-8", "surrogatepass")))


def _answer(judged: Judged) -> dict[str, Any]:
    return {
        "outputs": judged.outputs,
        "score": judged.score,
        "feedback": judged.feedback,
        "class": judged.failure,
        **judged.took.document(),
    }


def versions() -> dict[str, str]:
    """What ran."""
    found = {"dspy-operator": __version__, "python": platform.python_version()}
    for name in ("dspy", "gepa", "optuna", "numpy", "pydantic"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def rows_digest(prepared: Prepared) -> str:
    """Digest of the test rows in the order in which they are judged, as marks carry it."""
    return dataset_digest((row.digest, "") for row in prepared.parts.test)
