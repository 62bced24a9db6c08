"""Candidates: what the runs of a program found, and which of it is promoted.

A candidate is decided about once, when its run ends: one that has to wait for a person goes on waiting, whatever is served or
edited later. Candidates are taken in the order in which their runs ended, and none that ended before the last promotion is
promoted after it: so what is promoted does not depend on when the operator looks, and cannot go in circles.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dspy_operator.api.objects import PromptProgram
from dspy_operator.api.promptprogram import Promotion
from dspy_operator.api.reasons import ProgramReason
from dspy_operator.contract import names
from dspy_operator.contract.exits import Outcome
from dspy_operator.contract.gate import is_underpowered
from dspy_operator.controllers.promptprogram.current import Promoted
from dspy_operator.controllers.promptprogram.revisions import Damaged, Revision, Shelf, TooLarge, files_in
from dspy_operator.controllers.promptprogram.testset import too_few
from dspy_operator.engine.plan import Body

SHOWN = 10
"""Candidates in the status; an older one that nobody pinned will not be pinned from there."""
MESSAGE_BYTES = 300
REUSED = "Reused"
"""Outcome of a run that called nothing."""
WAITS = frozenset(
    {
        ProgramReason.MANUAL_PROMOTION,
        ProgramReason.INCUMBENT_CHANGED,
        ProgramReason.DIFFERENT_MODEL,
        ProgramReason.PROGRAM_CHANGED,
        ProgramReason.TEST_UNDERPOWERED,
        ProgramReason.TEST_WORN,
    }
)
"""Verdicts that stay, as long as the run's own says that it passed."""


@dataclass(frozen=True)
class Candidate:
    """What one ended run found."""

    run: Body
    digest: str
    revision: Revision | None
    """None where it could not be made, or is gone."""
    trouble: tuple[ProgramReason, str] | None = None
    """Why it could not be made."""

    @property
    def name(self) -> str:
        """Of the run."""
        return str(self.run["metadata"]["name"])

    @property
    def status(self) -> Mapping[str, Any]:
        """Of the run."""
        found: Mapping[str, Any] = self.run["status"]
        return found

    @property
    def order(self) -> tuple[str, str]:
        """When its run ended; of two in one second, by name."""
        return str(self.status["completionTime"]), self.name


@dataclass(frozen=True)
class Entry:
    """One line of `status.candidates`."""

    revision: str
    run: str
    verdict: str
    message: str = ""
    delta: str = ""
    p: str = ""

    @staticmethod
    def of(document: Mapping[str, Any]) -> Entry:
        """From the status."""
        known = ("revision", "run", "verdict", "message", "delta", "p")
        return Entry(**{key: str(document.get(key, "")) for key in known})

    def document(self) -> dict[str, Any]:
        """For the status."""
        found = {
            "revision": self.revision,
            "run": self.run,
            "delta": self.delta,
            "p": self.p,
            "verdict": self.verdict,
            "message": self.message,
        }
        return {key: value for key, value in found.items() if value}


@dataclass(frozen=True)
class Stage:
    """What candidates are compared with, from one to the next."""

    promoted: Promoted | None
    served: str | None
    """Name of what is served, as a run's incumbent would name it: None for the baseline."""
    pinned: bool


@dataclass(frozen=True)
class Program:
    """What the program says of itself."""

    parsed: PromptProgram
    digest: str
    endpoint: Body | None
    test_rows: int | None
    """Of the rows that were validated last."""

    @property
    def promotion(self) -> Promotion | None:
        """As written."""
        return self.parsed.spec.promotion


def collect(runs: Iterable[Body], channels: Mapping[str, Body], shelf: Shelf) -> tuple[tuple[Candidate, ...], Shelf]:
    """The candidates of ended runs, oldest first, and the shelf with a revision for each that lies in its channel.

    Args:
        channels: by run. As long as a run has its channel its revision is there, and no longer than that it is needed.
    """
    candidates = []
    for run in sorted(
        filter(has_candidate, runs), key=lambda run: (run["status"]["completionTime"], run["metadata"]["name"])
    ):
        digest, name = run["status"]["revision"]["digest"], run["metadata"]["name"]
        revision, trouble = shelf.find(digest), None
        if revision is None and (channel := channels.get(name)) is not None:
            try:
                shelf = shelf.add(digest, files_in(channel), run=name)
            except TooLarge as large:
                trouble = ProgramReason.REVISION_TOO_LARGE, str(large)
            except Damaged as damaged:
                trouble = ProgramReason.REVISION_DAMAGED, str(damaged)
            revision = shelf.find(digest)
        candidates.append(Candidate(run, digest, revision, trouble))
    return tuple(candidates), shelf


def has_candidate(run: Body) -> bool:
    """Whether a run ended with one. A reused result is a candidate of the run that found it."""
    status = run.get("status") or {}
    return status.get("outcome") != REUSED and bool(
        status.get("completionTime") and (status.get("revision") or {}).get("digest")
    )


def judge(
    candidates: Sequence[Candidate],
    before: Iterable[Mapping[str, Any]],
    shelf: Shelf,
    program: Program,
    stage: Stage,
) -> tuple[tuple[Entry, ...], Promoted | None]:
    """Decide about the last candidates; the lines of the status, newest first, and what is promoted now.

    Args:
        candidates: oldest first.
        before: `status.candidates`; what runs that are gone left there stays as long as its revision.
    """
    remembered = [Entry.of(document) for document in before]
    known = {(entry.run, entry.revision): entry for entry in remembered}
    lines: list[Entry] = []
    judged = candidates[-SHOWN:]
    for candidate in judged:
        if candidate.revision is None:
            if candidate.trouble is not None:
                reason, message = candidate.trouble
                name = names.program_revision(program.parsed.metadata.name, candidate.digest)
                lines.append(_entry(candidate, name, reason, message))
            continue
        earlier = known.get((candidate.name, candidate.revision.name))
        verdict, message = _verdict(candidate, candidate.revision, earlier, program, stage)
        if verdict is ProgramReason.PROMOTED and not _is_promoted(candidate, stage.promoted):
            stage = _promote(candidate, candidate.revision, stage)
            lines = [_superseded(line) for line in lines]
        lines.append(_entry(candidate, candidate.revision.name, verdict, message))
    runs = {candidate.name for candidate in judged}
    gone = [entry for entry in remembered if entry.run not in runs and shelf.get(entry.revision) is not None]
    promoted = (stage.promoted.run, stage.promoted.name) if stage.promoted is not None else None
    kept = [entry if (entry.run, entry.revision) == promoted else _superseded(entry) for entry in gone]
    return tuple([*reversed(lines), *kept][:SHOWN]), stage.promoted


def _verdict(
    candidate: Candidate, revision: Revision, earlier: Entry | None, program: Program, stage: Stage
) -> tuple[ProgramReason, str]:
    """What becomes of a candidate, and why."""
    if _is_promoted(candidate, stage.promoted):
        return ProgramReason.PROMOTED, str(_gate(candidate).get("why", ""))
    if earlier is not None and earlier.verdict in (ProgramReason.PROMOTED, ProgramReason.SUPERSEDED):
        return ProgramReason.SUPERSEDED, _SUPERSEDED
    gate = _gate(candidate)
    why = str(gate.get("why", ""))
    outcome = candidate.status.get("outcome")
    if not gate or outcome == Outcome.NOT_JUDGED:
        return ProgramReason.NOT_JUDGED, why or "the run ended before its candidate was judged"
    if not gate.get("promote") and outcome != Outcome.IMPROVED:
        return ProgramReason.GATE_NOT_PASSED, why
    if earlier is not None and earlier.verdict in WAITS:
        return ProgramReason(earlier.verdict), earlier.message
    if not gate.get("promote"):
        return _waits(gate, program), why
    pin = f"to serve it, set spec.revision.name to {revision.name}"
    if program.promotion is not None and program.promotion.mode == "Manual":
        return ProgramReason.MANUAL_PROMOTION, f"passed; promotion.mode is Manual: {pin}"
    inputs = candidate.status.get("inputs") or {}
    if inputs.get("programDigest", program.digest) != program.digest:
        return ProgramReason.PROGRAM_CHANGED, f"passed, but the program was edited since the run began: {pin}"
    if (other := _other_model(candidate, program)) is not None:
        return ProgramReason.DIFFERENT_MODEL, f"passed on {other}: {pin}"
    if not _is_incumbent_served(candidate, stage):
        compared, served = inputs.get("incumbent") or "the baseline", stage.served or "the baseline"
        message = f"passed against {compared}, but {served} is served now: {pin}"
        if compared == served:
            message = f"passed, but another run was promoted after this one ended: {pin}"
        return ProgramReason.INCUMBENT_CHANGED, message
    return ProgramReason.PROMOTED, why


_SUPERSEDED = "was promoted; another revision was since"


def _is_promoted(candidate: Candidate, promoted: Promoted | None) -> bool:
    return promoted is not None and (promoted.run, promoted.digest) == (candidate.name, candidate.digest)


def _is_incumbent_served(candidate: Candidate, stage: Stage) -> bool:
    """Whether what the candidate was measured against still is what it would replace."""
    promoted = stage.promoted
    if promoted is not None and candidate.order < (promoted.at, promoted.run):
        return False
    if promoted is not None and promoted.run == candidate.name and stage.served == promoted.name:
        return True  # its own earlier revision: a raised budget went on from there
    incumbent = (candidate.status.get("inputs") or {}).get("incumbent") or None
    return bool(incumbent == stage.served)


def _promote(candidate: Candidate, revision: Revision, stage: Stage) -> Stage:
    scores = (candidate.status.get("scores") or {}).get("test") or {}
    promoted = Promoted(
        name=revision.name,
        digest=revision.digest,
        run=candidate.name,
        score=str(scores.get("candidate", "")),
        at=str(candidate.status["completionTime"]),
    )
    return replace(stage, promoted=promoted, served=stage.served if stage.pinned else revision.name)


def _waits(gate: Mapping[str, Any], program: Program) -> ProgramReason:
    """Why a candidate that passed was not to be promoted without a person's word."""
    alpha = float(gate.get("alpha", "1"))
    if program.test_rows is None or not is_underpowered(program.test_rows, alpha):
        return ProgramReason.MANUAL_PROMOTION
    return too_few(program.test_rows, program.promotion)


def _other_model(candidate: Candidate, program: Program) -> str | None:
    """What the candidate was measured on, where that is not the target's model."""
    metadata = program.parsed.metadata
    target = program.parsed.spec.target.endpoint
    wanted = f"{target.namespace or metadata.namespace}/{target.name}"
    task = ((candidate.status.get("inputs") or {}).get("endpoints") or {}).get("task") or {}
    name = str(task.get("name") or wanted)
    ran_on = name if "/" in name else f"{candidate.run['metadata']['namespace']}/{name}"
    loaded = (((program.endpoint or {}).get("status") or {}).get("model") or {}).get("digest")
    if task.get("modelDigest") and loaded:  # the same weights are the same model, wherever they run
        return None if task["modelDigest"] == loaded else f"another model ({ran_on}) than the target's ({wanted})"
    if ran_on != wanted:
        return f"{ran_on}, and the program is tuned for {wanted}"
    asked, now = _asked_model(candidate), _model_of(program.endpoint)
    if asked and now and asked != now:
        return f"model {asked}, and {wanted} answers with {now} now"
    return None


def _asked_model(candidate: Candidate) -> str | None:
    """The model's name in the evidence beside the revision, where that is of this run."""
    files = candidate.revision.files if candidate.revision is not None else {}
    try:
        provenance = json.loads(files.get("provenance.json", "{}"))
        if provenance["run"]["name"] != candidate.name:
            return None
        return str(provenance["endpoints"]["task"]["model"])
    except (ValueError, KeyError, TypeError):
        return None  # of another engine, or adopted without its evidence


def _model_of(endpoint: Body | None) -> str | None:
    provider = ((endpoint or {}).get("spec") or {}).get("provider") or {}
    return next((member.get("model") for member in provider.values() if isinstance(member, dict)), None)


def _gate(candidate: Candidate) -> Mapping[str, Any]:
    return candidate.status.get("gate") or {}


def _entry(candidate: Candidate, revision: str, verdict: ProgramReason, message: str) -> Entry:
    gate = _gate(candidate)
    return Entry(
        revision=revision,
        run=candidate.name,
        verdict=verdict.value,
        message=cut(message, MESSAGE_BYTES),
        delta=str(gate.get("delta", "")),
        p=str(gate.get("p", "")),
    )


def _superseded(line: Entry) -> Entry:
    if line.verdict != ProgramReason.PROMOTED:
        return line
    return replace(line, verdict=ProgramReason.SUPERSEDED.value, message=_SUPERSEDED)


def cut(text: str, limit: int) -> str:
    """At most so many bytes of UTF-8."""
    raw = text.encode()
    return text if len(raw) <= limit else raw[: limit - 3].decode(errors="ignore") + "..."
