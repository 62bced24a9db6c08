"""The files of a revision, deterministic in the program and its instructions, with the contract's own digest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from dspy_operator.api.program import Program, Signature
from dspy_operator.contract.digests import revision_digest
from dspy_operator.contract.documents import Result
from dspy_operator.contract.names import KEY_REVISION
from dspy_operator.contract.runspec import RunSpec


@dataclass(frozen=True)
class Revision:
    """The three files that are a revision."""

    program_py: str
    program_json: str
    prompts_json: str

    @property
    def digest(self) -> str:
        return revision_digest(self.program_py.encode(), self.program_json.encode(), self.prompts_json.encode())

    def keys(self, spec: RunSpec, result: Result) -> dict[str, str]:
        """As a channel holds them, with the evidence beside them."""
        report = result.document() | {"revision": self.digest}
        provenance = {
            "revision": self.digest,
            "run": spec.run.document(),
            "inputDigest": spec.input_digest,
            "programDigest": spec.program.digest,
            "runnerImage": result.runner_image,
        }
        files = {
            "program.py": self.program_py,
            "program.json": self.program_json,
            "prompts.json": self.prompts_json,
            "report.json": _text(report),
            "provenance.json": _text(provenance),
        }
        return {KEY_REVISION + name: content for name, content in files.items()}


def baseline(spec: RunSpec) -> Revision:
    """The program as written."""
    return _revision(spec, addition="")


def improved(spec: RunSpec) -> Revision:
    """What the run's optimizer makes of it: the same inputs give the same revision."""
    assert spec.optimizer is not None
    if spec.optimizer.type == "Evaluate":
        return baseline(spec)
    return _revision(spec, addition=f" Think as {spec.optimizer.type} {spec.seed} taught you ({spec.input_digest}).")


def _revision(spec: RunSpec, *, addition: str) -> Revision:
    program = spec.program.program
    signature = program.single.signature if program.single is not None else _first_signature(program)
    instructions = signature.instructions + addition
    program_json = {"predict": {"signature": {"instructions": instructions}}, "metadata": {"dependency_versions": {}}}
    prompts = {"messages": [{"role": "system", "content": instructions}], "fields": signature.document()}
    return Revision(f"INSTRUCTIONS = {instructions!r}\n", _text(program_json), _text(prompts))


def _first_signature(program: Program) -> Signature:
    assert program.graph is not None
    return next(node.predict.signature for _, node in sorted(program.graph.nodes.items()) if node.predict is not None)


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, sort_keys=True) + "\n"
