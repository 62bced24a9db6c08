"""Load and check everything that costs nothing: program, rows, split, metric, sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import dspy

from dspy_operator.api.object_types import program_types
from dspy_operator.api.optimizationrun import OPTIONS, OptimizerOptions
from dspy_operator.api.program import ModuleType, Program
from dspy_operator.api.promptprogram import Adapter
from dspy_operator.api.signature_types import MEDIA
from dspy_operator.contract.adapters import concrete
from dspy_operator.contract.calls import changed_row_calls, scored_row_calls
from dspy_operator.contract.documents import DatasetReport
from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.contract.runspec import ProgramPart, RunSpec
from dspy_operator.runner.asking import ask_judge
from dspy_operator.runner.calibration import Calibration, calibrations, columns_of
from dspy_operator.runner.code import Function, load
from dspy_operator.runner.headers import Names, header_names
from dspy_operator.runner.mcp import Tools as Listings
from dspy_operator.runner.mcp import listed_tools
from dspy_operator.runner.metric import CHECKED_ROWS, ScoredMetric, check_metric
from dspy_operator.runner.optimizers.shape import Optimizer, Sizes
from dspy_operator.runner.own_source import OWN, PROGRAM, OwnText, imported, own_text
from dspy_operator.runner.program import LoadedProgram, check_program, load_program
from dspy_operator.runner.program_source import NAMES, program_source, title_of
from dspy_operator.runner.rows import Row, Rows, read_rows
from dspy_operator.runner.split import Parts, split
from dspy_operator.runner.stop import RunStop
from dspy_operator.runner.values import for_dspy, input_fields


@dataclass(frozen=True)
class Prepared:
    """What a run stands on; made without a call."""

    program: LoadedProgram
    rows: Rows
    parts: Parts
    metric: ScoredMetric
    adapter: Adapter | None
    """The one that the program is asked in: `spec.program.adapter` with nothing left to choose."""
    optimizer: Optimizer | None
    options: OptimizerOptions
    sizes: Sizes
    calibrations: tuple[Calibration, ...] = ()
    code: Mapping[str, str] = field(default_factory=dict)
    """Path of code of one's own -> sha256 of its file."""
    own: OwnText | None = None
    """What of program.py somebody else wrote: its reward, or the program."""
    headers: Names = field(default_factory=dict)
    """What servers of the program want, by names."""
    listed: Listings = field(default_factory=dict)
    """MCP server -> its tools."""

    @property
    def calibration_calls(self) -> int:
        """Calls that ask judges about what people graded."""
        return sum(calibration.calls for calibration in self.calibrations)

    @property
    def scored(self) -> Sequence[Row]:
        """The dev rows on which programs are compared before the judgement."""
        return (
            self.parts.validation if self.optimizer is not None and self.optimizer.uses_validation else self.parts.dev
        )

    @property
    def by_digest(self) -> Mapping[str, Row]:
        """Rows by their digest."""
        return {row.digest: row for row in self.rows.rows}

    def report(self) -> DatasetReport:
        """What the rows came to."""
        return DatasetReport(
            rows=len(self.rows.rows),
            train=len(self.parts.train),
            validation=len(self.parts.validation),
            test=len(self.parts.test),
            dropped=self.rows.dropped_count,
            dropped_message=self.rows.dropped_message() or "",
            digest=self.parts.digest,
            test_digest=self.parts.test_digest,
        )


def prepare(spec: RunSpec) -> Prepared:
    """Read, build and check.

    Raises:
        RunFailed: InvalidProgram, DatasetNotFound, InvalidDataset, SplitEmpty, CodeNotFound, InvalidMetric, SecretMissing, or, of an
            MCP server, EndpointUnavailable or AuthenticationFailed; with the field's path.
    """
    rows, parts = read_parts(spec)
    part = spec.program
    outputs = part.program.output_names
    told = {row.digest: row.feedback for row in rows.rows if row.feedback is not None}
    types = program_types(part.program, part.types).fields
    inputs = [field.name for field in part.program.inputs if not isinstance(types[field.name], MEDIA)]
    functions = load(spec.code)
    metric = ScoredMetric(
        part.metric,
        outputs,
        told=told,
        types=types,
        inputs=inputs,
        code=functions,
        beside=_beside(part.program),
        place_of=lambda digest: next((row.place for row in rows.rows if row.digest == digest), None),
        ask=ask_judge,
    )
    check_metric(metric, rows.rows)
    calibrated = calibrations(part.metric, metric.every_judge, parts.dev, lambda name, value: types[name].coerce(value))
    adapter = concrete(part)
    own, headers = _own(spec, functions), header_names(spec)
    listed = listed_tools(spec)
    source = source_in(part, adapter, own, headers, listed)
    program = load_program(source, Path(spec.paths.out) / "program", own)
    if own is not None and not own.is_program:
        _check_reward(program, rows.rows[:CHECKED_ROWS], part.program)
    optimizer, options = None, OptimizerOptions()
    sizes = Sizes(
        len(parts.train),
        len(parts.validation),
        len(parts.dev),
        predictors=len(program.module.predictors()),
        calls_per_row=scored_row_calls(part.program, part.metric).usual,
        calls_per_change=changed_row_calls(part.program, part.metric),
    )
    if spec.optimizer is not None:
        from dspy_operator.runner.optimizers import optimizer_of, parts_of

        type_ = spec.optimizer.type
        options = OPTIONS[type_].model_validate(spec.optimizer.options)
        optimizer = optimizer_of(type_, options)
        for each in parts_of(type_, optimizer, options, sizes):
            why = each.optimizer.check(each.options, each.sizes)
            if why is not None:
                raise RunFailed(Reason.INVALID_DATASET, f"{each.type}: {why}", path=each.path)
    code = {path: function.sha256 for path, function in functions.items()}
    return Prepared(
        *(program, rows, parts, metric, adapter, optimizer, options, sizes, calibrated, code, own, headers, listed)
    )


def _own(spec: RunSpec, functions: Mapping[str, Function]) -> OwnText | None:
    """What somebody else wrote of program.py, where the program has a reward of its own or is code."""
    part, types = spec.program, spec.program.types or {}
    for path, function in functions.items():
        if path == PROGRAM:
            code, taken = spec.code[path], NAMES | OWN | types.keys()
            if code.file is None:
                own = imported(code.entrypoint, path, taken)
            else:
                own = own_text(function.content, function.name, path, taken, Path(code.file).name)
            return dataclasses.replace(own, outputs=tuple(part.program.output_names))
        if path.startswith("spec.program.single.module."):
            taken = NAMES | OWN | {*types, title_of(part.name, types)}
            return own_text(function.content, function.name, path, taken)
    return None


def _check_reward(program: LoadedProgram, rows: Sequence[Row], spec: Program) -> None:
    """Ask it about labels, so that a broken one costs no call.

    Raises:
        RunFailed: InvalidProgram, with the row and the line.
    """
    module = program.module
    reward = (module.best_of_n if hasattr(module, "best_of_n") else module.refine).reward_fn
    for row in rows:
        inputs = for_dspy(input_fields(module), row.inputs)
        try:
            reward(inputs, dspy.Prediction(**_beside(spec), **row.outputs))
        except RunStop as stop:
            raise RunFailed(stop.reason, f"the row of {row.place}: {stop.message}", path=stop.path) from stop


def _beside(program: Program) -> dict[str, object]:
    """What an answer of the program holds beside its outputs, with a value that means nothing."""
    single = program.single
    if single is not None and single.module_type is ModuleType.REACT:
        return {"reasoning": "", "trajectory": {}}
    if single is not None and single.thinks:
        return {"reasoning": ""}
    return {}


def source_in(part: ProgramPart, adapter: Adapter | None, own: OwnText | None, headers: Names, listed: Listings) -> str:
    """program.py of a program that is asked in a certain adapter."""
    return program_source(part.name, part.program, adapter, part.request, part.types, own, headers, listed)


def held_to_schemas(spec: RunSpec, prepared: Prepared, folder: str) -> Prepared:
    """The same with the adapter of endpoints that keep JSON schemas, written to `out/<folder>`."""
    adapter = concrete(spec.program, keeps_schema=True)
    source = source_in(spec.program, adapter, prepared.own, prepared.headers, prepared.listed)
    program = load_program(source, Path(spec.paths.out) / folder, prepared.own)
    return dataclasses.replace(prepared, program=program, adapter=adapter)


def read_parts(spec: RunSpec) -> tuple[Rows, Parts]:
    """The rows, typed by the signature and divided.

    Raises:
        RunFailed: InvalidProgram, DatasetNotFound, InvalidDataset, SplitEmpty or InvalidMetric, with the field's path.
    """
    problems = check_program(spec.program.program, spec.program.types, spec.program.adapter)
    if problems:
        raise RunFailed(Reason.INVALID_PROGRAM, problems[0].message, path=problems[0].field)
    program = spec.program.program
    types = program_types(program, spec.program.types).fields
    feedback = spec.program.metric.feedback
    rows = read_rows(
        spec.dataset,
        inputs=[field.name for field in program.inputs],
        outputs=program.output_names,
        coerce=lambda name, value: types[name].coerce(value),
        feedback_column=feedback.column if feedback is not None else None,
        graded_columns=columns_of(spec.program.metric),
    )
    parts = split(rows.rows, spec.dataset.split)
    if spec.dataset.digest is not None and spec.dataset.digest != parts.digest:
        for file in spec.dataset.files().values():
            if file.is_fetched:
                Path(file.path).unlink(missing_ok=True)  # the next try asks again, and may be told the right ones
        raise RunFailed(
            Reason.INVALID_DATASET,
            f"the rows changed since they were validated ({spec.dataset.digest} then, {parts.digest} now)",
            path="spec.dataset.source",
        )
    return rows, parts
