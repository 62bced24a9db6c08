"""What a program asks for: validate what is written, keep its revisions, serve one of them. Pure.

Nothing is derived from an earlier phase. What was validated lies in the spec ConfigMap and the channel, what is promoted on
`<program>-current`, what a run found in the run's status and channel; the status remembers only what people decided about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from dspy_operator.api.objects import InvalidObject, PromptProgram, parse_object
from dspy_operator.api.reasons import ProgramReason
from dspy_operator.contract import names
from dspy_operator.controllers import codefiles
from dspy_operator.controllers.promptprogram import children, current, report, testset
from dspy_operator.controllers.promptprogram.current import Current
from dspy_operator.controllers.promptprogram.promotion import Candidate
from dspy_operator.controllers.promptprogram.report import Fact, Report
from dspy_operator.controllers.promptprogram.revisions import (
    DEFAULT_HISTORY,
    config_map,
    reowned,
    shelf_of,
    surplus,
)
from dspy_operator.controllers.promptprogram.seen import RowsMissing, Seen, next_reading, version_of
from dspy_operator.controllers.promptprogram.serving import Held, serve
from dspy_operator.controllers.promptprogram.validation import LEFT_LOOK, Stage, Standing, stand, subject_of
from dspy_operator.controllers.runnerpod import Owner
from dspy_operator.engine.plan import Body, Delete, Plan, Ref

_PARTS = {
    "program": ProgramReason.INVALID_PROGRAM,
    "adapter": ProgramReason.INVALID_PROGRAM,
    "target": ProgramReason.INVALID_PROGRAM,
    "dataset": ProgramReason.INVALID_DATASET,
    "metric": ProgramReason.INVALID_METRIC,
}


def decide(seen: Seen) -> Plan:
    """The plan of one pass."""
    if seen.leftovers():
        waits = Fact(None, ProgramReason.VALIDATING, "objects of an earlier program of this name are being removed")
        found = Report(waits, replace(waits, holds=False), moving=True, fields=_remembered(seen))
        return _plan(seen, found, Plan(requeue_after=LEFT_LOOK))
    said = current.read(seen.config_map(names.program_current(seen.name)))
    try:
        program = parse_object(seen.body)
    except InvalidObject as invalid:
        return _plan(seen, _unreadable(seen, invalid, said), Plan())
    assert isinstance(program, PromptProgram)
    return _decide(seen, program, said)


def _unreadable(seen: Seen, invalid: InvalidObject, said: Current | None) -> Report:
    """What is served stays; what is written cannot be read."""
    path = invalid.problems[0].path
    part = str(path[1]) if len(path) > 1 and path[0] == "spec" else ""
    refused = Fact(False, _PARTS.get(part, ProgramReason.INVALID_SPEC), "; ".join(map(str, invalid.problems)))
    kept = _remembered(seen)
    if said is not None:
        kept["servedRevision"] = {"name": said.revision, "digest": said.digest, "pinned": said.pinned}
        kept["promotedRevision"] = said.promoted.document() if said.promoted else None
    return Report(refused, refused, moving=False, fields=kept)


def _remembered(seen: Seen) -> dict[str, Any]:
    """The status as it is, but for what each pass tells anew."""
    told = ("conditions", "phase", "observedGeneration")
    return {name: value for name, value in seen.status.items() if name not in told}


def _decide(seen: Seen, program: PromptProgram, said: Current | None) -> Plan:
    spec, owner = program.spec, Owner.of(seen.body)
    shelf = shelf_of(
        owner, seen.children, seen.digests, foreign=[ref.name for ref in seen.foreign if ref.kind == "ConfigMap"]
    )
    rows = version_of(spec.dataset, seen.rows, seen.namespace, codefiles.codes(program))
    subject = "" if isinstance(rows, RowsMissing) else subject_of(program, rows)
    image = codefiles.image_of(program, seen.settings.runner_image)
    standing = stand(seen, subject, shelf, image) if subject else None
    pods = _Validation.of(seen, program, owner, standing, subject)
    dataset, code = _dataset(seen, standing), _code(seen, standing)
    held = serve(seen, program, shelf, said, standing.result if standing else None, dataset, code)

    goes_with_owner = spec.deletion_policy == "Delete"
    wanted = [*pods.children]
    if held.served is not None and not held.taken:
        wanted.append(
            current.config_map(owner, held.served, held.promoted, pinned=held.pinned, goes_with_owner=goes_with_owner)
        )
    keep = {held.pin, held.baseline, said.revision if said else None, held.name}
    keep |= {held.promoted.name} if held.promoted else set()
    limit = DEFAULT_HISTORY if spec.revision_history_limit is None else spec.revision_history_limit
    old = surplus(held.shelf, limit=limit, keep={name for name in keep if name} | _needed(seen, held.candidates))
    found = _report(seen, program, rows, standing, pods.conflict, held, dataset, code)
    plan = Plan(
        guarded=reowned(held.shelf, goes_with_owner=goes_with_owner),
        children=tuple(wanted),
        creates=(
            *pods.creates,
            *(config_map(owner, revision, goes_with_owner=goes_with_owner) for revision in held.shelf.added),
        ),
        deletes=(*pods.deletes, *(_delete(revision.body) for revision in old if revision.body is not None)),
    )
    plan = _plan(seen, found, plan)
    assert plan.status is not None
    return replace(plan, requeue_after=_look_again(seen, standing, plan.status))


def _plan(seen: Seen, found: Report, plan: Plan) -> Plan:
    status = report.status_of(seen, found)
    return replace(plan, status=status, events=report.events(seen.status, status, found))


# --- the validation's objects ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Validation:
    """What the validation asks for, unless one of its names is somebody else's."""

    children: tuple[Body, ...] = ()
    creates: tuple[Body, ...] = ()
    deletes: tuple[Delete, ...] = ()
    conflict: Ref | None = None

    @staticmethod
    def of(seen: Seen, program: PromptProgram, owner: Owner, standing: Standing | None, subject: str) -> _Validation:
        if standing is None:
            return _Validation()
        deletes = tuple(map(_delete, standing.remove))
        if not standing.attempt:
            return _Validation(deletes=deletes)
        lasting = children.lasting(owner)
        made: tuple[Body, ...] = ()
        if standing.freeze:
            made = (children.frozen(owner, program, seen.settings, attempt=standing.attempt, subject=subject),)
        if standing.start:
            made += (children.job(owner, program, seen.settings, attempt=standing.attempt, try_=standing.try_),)
        conflict = next((ref for ref in map(Ref.of, (*lasting, *made)) if ref in seen.foreign), None)
        if conflict is not None:
            return _Validation(conflict=conflict)
        return _Validation(lasting, made, deletes)


def _validation(seen: Seen, standing: Standing | None, rows: str | RowsMissing) -> dict[str, Any] | None:
    before: dict[str, Any] | None = seen.status.get("validation")
    if standing is None or isinstance(rows, RowsMissing) or standing.try_ == 0:
        return before
    return {"try": standing.try_, "jobName": names.validation_job(seen.name, standing.try_), "source": rows}


def _dataset(seen: Seen, standing: Standing | None) -> dict[str, Any] | None:
    """What the rows came to when they were validated last."""
    if standing is None or standing.result is None or standing.result.dataset is None:
        return seen.status.get("dataset")
    document = standing.result.dataset.document()
    return {name: value for name, value in document.items() if name != "droppedMessage"}


def _code(seen: Seen, standing: Standing | None) -> dict[str, str]:
    """Path of code -> sha256 of what it said when it was validated last."""
    if standing is None or standing.result is None:
        return seen.status.get("code") or {}
    return standing.result.code or {}


def _needed(seen: Seen, candidates: Iterable[Candidate]) -> set[str]:
    """Revisions that a run mounts, or would be made again from their run's channel."""
    needed = {
        candidate.revision.name
        for candidate in candidates
        if candidate.revision is not None and candidate.name in seen.channels
    }
    for run in seen.runs:
        status = run.get("status") or {}
        inputs = status.get("inputs") or {}
        if not status.get("completionTime"):
            needed |= {inputs[name] for name in ("incumbent", "startFrom") if inputs.get(name)}
    return needed


# --- words ----------------------------------------------------------------------------------------------------------


def _report(
    seen: Seen,
    program: PromptProgram,
    rows: str | RowsMissing,
    standing: Standing | None,
    conflict: Ref | None,
    held: Held,
    dataset: dict[str, Any] | None,
    code: dict[str, str],
) -> Report:
    use = testset.use_of(dataset, next(iter(seen.of(names.Component.ACCOUNT)), None), program.spec.promotion)
    accepted = _accepted(program, rows, standing, conflict)
    ready = _ready(seen, accepted, held)
    if ready.holds and dataset is not None and use is not None:
        ready = replace(ready, message=ready.message + testset.remark(dataset["test"], use, program.spec.promotion))
    fields = {
        "programDigest": held.program_digest,
        "validation": seen.status.get("validation") if conflict else _validation(seen, standing, rows),
        "dataset": dataset,
        "code": code or None,
        "baselineRevision": held.baseline,
        "promotedRevision": held.promoted.document() if held.promoted else None,
        "servedRevision": held.document(),
        "candidates": [entry.document() for entry in held.entries] or None,
        "testUse": use.document() if use else None,
    }
    return Report(
        accepted,
        ready,
        moving=_is_moving(rows, standing, conflict),
        accident=standing is not None and standing.accident,
        fields=fields,
    )


def _accepted(program: PromptProgram, rows: str | RowsMissing, standing: Standing | None, conflict: Ref | None) -> Fact:
    if isinstance(rows, RowsMissing):
        return Fact(False, rows.reason, rows.message)
    assert standing is not None
    if conflict is not None:
        return Fact(None, ProgramReason.NAME_CONFLICT, _conflict(conflict))
    holds = {Stage.PASSED: True, Stage.REFUSED: False}.get(standing.stage)
    return Fact(holds, standing.reason, standing.message + (codefiles.unpinned(program) if holds else ""))


def _ready(seen: Seen, accepted: Fact, held: Held) -> Fact:
    if held.taken:
        name = names.program_current(seen.name)
        return Fact(False, ProgramReason.NAME_CONFLICT, _conflict(Ref("v1", "ConfigMap", seen.namespace, name)))
    if not accepted.holds:
        return replace(accepted, holds=False)
    if held.missing is not None:
        kept = f"; {held.name} is served on" if held.name else ""
        return Fact(False, ProgramReason.REVISION_NOT_FOUND, f"there is no revision {held.missing}{kept}")
    if held.pinned:
        return Fact(True, ProgramReason.PINNED, f"{held.name} is served, as spec.revision says")
    how = f"promoted by run {held.promoted.run}" if held.promoted is not None else "the baseline"
    return Fact(True, ProgramReason.SERVING, f"{held.name} is served, {how}")


def _conflict(ref: Ref) -> str:
    return f"{ref.kind} {ref.namespace}/{ref.name} exists and is not ours: it is left alone, rename or remove it"


def _is_moving(rows: str | RowsMissing, standing: Standing | None, conflict: Ref | None) -> bool:
    if isinstance(rows, RowsMissing):
        return True
    return conflict is None and standing is not None and standing.stage in (Stage.RUNNING, Stage.HELD)


def _look_again(seen: Seen, standing: Standing | None, status: Mapping[str, Any]) -> timedelta | None:
    looks = [standing.look_again] if standing is not None and standing.look_again is not None else []
    if seen.rows is not None:
        looks.append(max(timedelta(seconds=1), next_reading(seen.rows.read_at, status) - seen.now))
    return min(looks, default=None)


def _delete(body: Mapping[str, Any]) -> Delete:
    return Delete(Ref.of(body), body["metadata"]["uid"])
