"""`dspy-operator validate`: everything that can be known to be wrong without a cluster and without a model, all at once."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path

from dspy_operator.api.fields import GROUP
from dspy_operator.api.objects import Kind, OptimizationRun, PromptProgram, field_path
from dspy_operator.api.program import judges_of
from dspy_operator.api.promptprogram import EndpointRef
from dspy_operator.api.reasons import RunReason
from dspy_operator.cli.findings import Finding, Severity
from dspy_operator.cli.local import Local, Options, owner_of, prepare_program, prepare_run_of
from dspy_operator.cli.manifests import (
    FieldPath,
    Manifests,
    ObjectId,
    Place,
    did_you_mean,
    survey_manifests,
)
from dspy_operator.contract.access import closed
from dspy_operator.contract.documents import Estimate, Result
from dspy_operator.contract.exits import EXIT_OF, Exit, Reason, RunFailed
from dspy_operator.contract.resolve import PROMPT_OPTIMIZERS

SHOWN_ROWS = 20
"""Dropped rows of one program that are told one by one."""
_NO_ROWS = "the rows were not checked"


@dataclass
class Checked:
    """What a check came to."""

    findings: list[Finding] = field(default_factory=list)
    valid: list[str] = field(default_factory=list)
    """One line for each program that is right."""

    @property
    def exit(self) -> int:
        """0, or the code of the first error."""
        errors = (finding for finding in self.findings if finding.severity is Severity.ERROR)
        return next((int(EXIT_OF[Reason(error.reason)]) for error in errors), int(Exit.COMPLETED))


def check(
    paths: Sequence[Path],
    output: Path,
    *,
    volumes: Mapping[str, Path] | None = None,
    secrets: Mapping[str, Path] | None = None,
) -> Checked:
    """Check every object of these files, and write each right program's baseline revision into `output`.

    Args:
        volumes: PersistentVolumeClaim name -> folder with its files.
        secrets: name of a Secret that rows, or servers of a program, need -> folder with its keys.
    """
    manifests, problems = survey_manifests(paths)
    checked = Checked(list(map(Finding.of, problems)))
    checked.findings += _not_looked_at(manifests, all_read=not problems)
    check_ = _Check(Options(paths, output, volumes=volumes, secrets=secrets), manifests, checked)
    for program in manifests.programs.values():
        check_.program(program)
    for run in manifests.runs.values():
        check_.run(run)
    return checked


def _not_looked_at(manifests: Manifests, *, all_read: bool) -> Iterator[Finding]:
    ignored = ", ".join(f"{kind} ({count})" for kind, count in sorted(manifests.ignored.items()))
    if ignored:
        yield Finding(Severity.NOTICE, "Ignored", f"not of {GROUP}: {ignored}")
    if all_read and not manifests.origins:
        where = ", ".join(manifests.sources)
        yield Finding(Severity.ERROR, Reason.INVALID_MANIFEST.value, f"there is no object of {GROUP} in {where}")


class _Check:
    """The checks that join objects; each looks at what the ones before it found right."""

    def __init__(self, options: Options, manifests: Manifests, checked: Checked) -> None:
        self._options = options
        self._manifests = manifests
        self._checked = checked
        self._wrong: set[ObjectId] = set()

    def program(self, program: PromptProgram) -> None:
        """Types, metric, rows, split; and that DSPy builds it."""
        target = program.spec.target.endpoint
        path = ("spec", "target", "endpoint", "name")
        self._look_for(program, path, "ModelEndpoint", target.namespace or program.metadata.namespace, target.name)
        problems = list(_program_problems(program))
        if not problems and self._has_all(program):
            try:
                local = prepare_program(self._options, self._manifests, program)
            except RunFailed as failure:
                problems = [failure]
            else:
                problems = self._built(local, program)
        for problem in problems:
            self._add(program, problem)

    def _has_all(self, program: PromptProgram) -> bool:
        """Whether everything is at hand: volumes and Secrets are in the cluster."""
        given = self._options.secrets or {}
        for _, at, source in program.spec.dataset.sources():
            claim, secret = source.persistent_volume_claim, source.secret()
            if claim is not None and claim.claim_name not in (self._options.volumes or {}):
                what, flag = f"PersistentVolumeClaim {claim.claim_name}", f"--volume {claim.claim_name}=FOLDER"
                path: FieldPath = (*at.split("."), "persistentVolumeClaim", "claimName")
                self._absent(program, path, Reason.DATASET_NOT_FOUND, f"{what} is in the cluster: {_NO_ROWS}; {flag}")
                return False
            if secret is not None and secret.name not in given:
                self._absent_secret(program, (*at.split("."), *secret.path), secret.name, _NO_ROWS)
                return False
        for server in program.spec.program.servers:
            wanted = server.http.headers_secret
            if wanted is not None and wanted.name not in given:
                path = (*server.path, "headersSecret", "name")
                self._absent_secret(program, path, wanted.name, "the program was not built")
                return False
        return True

    def _absent_secret(self, program: PromptProgram, path: FieldPath, name: str, then: str) -> None:
        message = f"Secret {name} is in the cluster: {then}; --secret {name}=FOLDER"
        self._absent(program, path, Reason.SECRET_MISSING, message)

    def _absent(self, program: PromptProgram, path: FieldPath, reason: Reason, message: str) -> None:
        identity = ObjectId.of(program)
        self._wrong.add(identity)
        place = self._manifests.place(identity, path)
        self._put(Severity.WARNING, reason.value, f"{message} gives its files", identity, path, place)

    def _built(self, local: Local, program: PromptProgram) -> list[RunFailed]:
        from dspy_operator.runner.process import validate_process

        result = validate_process(local.spec)
        if result.exit:
            return [_failure(result)]
        rows = result.dataset
        assert rows is not None
        if rows.dropped:
            self._tell_dropped(local, program)
        dropped = f", {rows.dropped} row{'s' if rows.dropped > 1 else ''} dropped" if rows.dropped else ""
        self._checked.valid.append(
            f"{program.metadata.name}: valid, {rows.rows} rows ({rows.train} train, {rows.validation} validation, "
            f"{rows.test} test){dropped}; baseline revision in {local.folder / 'revision'}"
        )
        return []

    def _tell_dropped(self, local: Local, program: PromptProgram) -> None:
        """Each at its line of the data."""
        from dspy_operator.runner.prepare import read_parts
        from dspy_operator.runner.rows import LINES

        rows = read_parts(local.spec)[0]
        for row in rows.dropped[:SHOWN_ROWS]:
            identity, path = _rows_of(program, row.source.part)
            # An item of a JSON list is on no line that we know, and bytes of binaryData have none.
            line = row.line if row.source.word == LINES.word else 0
            place = self._manifests.place_in_text(identity, path, line)
            self._put(Severity.WARNING, "RowsDropped", f"{row.place}: {row.why}", identity, path, place)
        if (more := rows.dropped_count - SHOWN_ROWS) > 0:
            identity, path = _rows_of(program, "")
            place = self._manifests.place(identity, path)
            self._put(Severity.WARNING, "RowsDropped", f"and {more} more rows", identity, path, place)

    def run(self, run: OptimizationRun) -> None:
        """That what it names is there; prices, budget, and rows enough for its optimizer."""
        namespace = run.metadata.namespace
        name = run.spec.program_ref.name
        found = [self._look_for(run, ("spec", "programRef", "name"), "PromptProgram", namespace, name)]
        roles = run.spec.endpoints
        for role in type(roles).model_fields if roles is not None else ():
            if (endpoint := getattr(roles, role)) is not None:
                path = ("spec", "endpoints", role, "name")
                of = endpoint.namespace or namespace
                found.append(self._look_for(run, path, "ModelEndpoint", of, endpoint.name))
        program = self._manifests.programs.get((namespace, name))
        if program is None or not all(found) or ObjectId.of(program) in self._wrong:
            return
        if refused := list(self._not_let_in(run, program)):
            for failure in refused:
                self._add(run, failure)
            return
        run = self._without_other_answers(self._from_what_is_here(run))
        with tempfile.TemporaryDirectory() as folder:
            options = replace(self._options, output=Path(folder), estimate=True)
            try:
                local = prepare_run_of(options, self._manifests, run)
            except RunFailed as failure:
                self._add(run, failure)
                return
            result = _estimated(local)
        if result.exit:
            self._add(run, _failure(result))
        elif result.estimate is not None:
            self._tell_perhaps_too_small(run, result.estimate)

    def _tell_perhaps_too_small(self, run: OptimizationRun, estimate: Estimate) -> None:
        """Tokens and money that the judgement takes by the estimate: no error, since it is good within a factor of 2."""
        identity, calls, budget = ObjectId.of(run), estimate.reserved_calls, run.spec.budget
        for name, limit, amount in (("tokens", budget.tokens, estimate.tokens), ("cost", budget.cost, estimate.cost)):
            if limit is None or amount is None:
                continue
            needed = Decimal(amount) * calls / estimate.calls
            if Decimal(limit) < needed:
                path = ("spec", "budget", name)
                about = f"takes about {needed:.0f} tokens" if name == "tokens" else f"costs about {needed:.6f}"
                message = f"the judgement alone {about} ({calls} calls, by the estimate), given {limit}"
                place = self._manifests.place(identity, path)
                self._put(Severity.WARNING, Reason.BUDGET_TOO_SMALL.value, message, identity, path, place)

    def _from_what_is_here(self, run: OptimizationRun) -> OptimizationRun:
        """The run, from the baseline where it starts from a revision: that is in the cluster."""
        if run.spec.start_from is None or run.spec.start_from.revision is None:
            return run
        identity, path = ObjectId.of(run), ("spec", "startFrom", "revision", "name")
        message = f"revision {run.spec.start_from.revision.name} is in the cluster: whether it fits was not checked"
        reason, place = RunReason.REVISION_NOT_FOUND.value, self._manifests.place(identity, path)
        self._put(Severity.WARNING, reason, message, identity, path, place)
        return run.model_copy(update={"spec": run.spec.model_copy(update={"start_from": None})})

    def _without_other_answers(self, run: OptimizationRun) -> OptimizationRun:
        """The run, with all its calls where it takes answers of others: their journals are in the cluster, or not written yet."""
        if run.spec.answers_from is None:
            return run
        identity, path = ObjectId.of(run), ("spec", "answersFrom", "runs")
        message = (
            f"the journals of {', '.join(run.spec.answers_from.runs)} are not here: the estimate counts every call"
        )
        place = self._manifests.place(identity, path)
        self._put(Severity.WARNING, RunReason.ANSWERS_NOT_FOUND.value, message, identity, path, place)
        return run.model_copy(update={"spec": run.spec.model_copy(update={"answers_from": None})})

    def _not_let_in(self, run: OptimizationRun, program: PromptProgram) -> Iterator[RunFailed]:
        """Endpoints of other namespaces that it calls and that are closed to it; its task may be the program's target."""
        roles = run.spec.endpoints
        named: dict[str, EndpointRef] = {
            f"spec.endpoints.{role}.name": endpoint
            for role in (type(roles).model_fields if roles is not None else ())
            if (endpoint := getattr(roles, role)) is not None
            and (role != "prompt" or not PROMPT_OPTIMIZERS.isdisjoint(run.spec.optimizer.types))
            and (role != "judge" or judges_of(program.spec.program, program.spec.metric))
        }
        if roles is None or roles.task is None:
            named["spec.target.endpoint.name"] = program.spec.target.endpoint
        for path, by_name in named.items():
            key = (by_name.namespace or run.metadata.namespace, by_name.name)
            if (why := closed(self._manifests.endpoints[key], run.metadata.namespace)) is not None:
                message = f"ModelEndpoint {'/'.join(key)} {why}"
                yield RunFailed(Reason.ENDPOINT_NOT_ALLOWED, message, path=path)

    def _look_for(self, by: Kind, path: FieldPath, kind: str, namespace: str, name: str) -> bool:
        """Whether a named object is there and right; one that no file holds may be in the cluster."""
        wanted = ObjectId(kind, namespace, name)
        if wanted not in self._manifests.origins:
            here = [of.name for of in self._manifests.origins if of[:2] == wanted[:2]]
            message = f"{kind} {namespace}/{name} is in none of these files: what depends on it was not checked"
            message += did_you_mean(name, here)
            reason = Reason.PROGRAM_NOT_FOUND if kind == "PromptProgram" else Reason.ENDPOINT_NOT_FOUND
            identity = ObjectId.of(by)
            self._wrong.add(identity)
            place = self._manifests.place(identity, path)
            self._put(Severity.WARNING, reason.value, message, identity, path, place)
            return False
        objects = self._manifests.programs if kind == "PromptProgram" else self._manifests.endpoints
        if (namespace, name) in objects:
            return True
        self._wrong.add(ObjectId.of(by))
        return False

    def _add(self, by: Kind, failure: RunFailed) -> None:
        identity = ObjectId.of(by)
        parts: FieldPath = ()
        self._wrong.add(identity)
        place = self._manifests.place(identity)
        if failure.path is not None:
            program = by.spec.program_ref.name if isinstance(by, OptimizationRun) else by.metadata.name
            identity, parts = owner_of(by.metadata.namespace, by.metadata.name, program, failure.path)
            place = self._manifests.place(identity, parts)
        self._put(Severity.ERROR, failure.reason.value, failure.message, identity, parts, place)

    def _put(self, severity: Severity, reason: str, message: str, of: ObjectId, path: FieldPath, place: Place) -> None:
        finding = Finding(severity, reason, message, *place, field_path(path) or None, of.kind, of.name)
        if finding not in self._checked.findings:  # two runs of one program
            self._checked.findings.append(finding)


def _program_problems(program: PromptProgram) -> Iterator[RunFailed]:
    """What is wrong with types, names and metric, whatever the rows are."""
    from dspy_operator.runner.metric import ScoredMetric
    from dspy_operator.runner.program import check_program

    for problem in check_program(program.spec.program, program.spec.types, program.spec.adapter):
        yield RunFailed(Reason.INVALID_PROGRAM, problem.message, path=problem.field)
    try:
        ScoredMetric(program.spec.metric, program.spec.program.output_names)
    except RunFailed as failure:
        yield failure


def _estimated(local: Local) -> Result:
    """The run's own way as far as the first call."""
    from dspy_operator.runner.flow import Run
    from dspy_operator.runner.process import guarded
    from dspy_operator.runner.progress import FileChannel

    paths = local.spec.paths
    channel = FileChannel(Path(paths.out) / "progress.json", Path(paths.control))
    return guarded(Run(local.spec, local.control, channel).execute)


def _failure(result: Result) -> RunFailed:
    return RunFailed(result.reason, result.message, path=result.path)


def _rows_of(program: PromptProgram, part: str) -> tuple[ObjectId, FieldPath]:
    """Which object holds the rows of a part as a text, and where in it; the field that says where they are, if none does."""
    at, source = next((at, source) for of, at, source in program.spec.dataset.sources() if of == part)
    if source.config_map is not None:
        holder = ObjectId("ConfigMap", program.metadata.namespace, source.config_map.name)
        return holder, ("data", source.config_map.key)
    path = tuple(at.split("."))
    return ObjectId.of(program), (*path, "inline", "data") if source.inline is not None else path
