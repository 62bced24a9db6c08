"""A dataset as a pod reads it: rows, parts and digests, by the contract's functions."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping

from dspy_operator.api.object_types import program_types
from dspy_operator.api.signature_types import TypeExpr
from dspy_operator.contract.canonical import dataset_digest, row_digest
from dspy_operator.contract.documents import DatasetReport
from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.contract.runspec import DatasetPart, RunSpec


def check_and_read(spec: RunSpec, text: str, *, file: str) -> DatasetReport:
    """What `validate` finds out about program, rows and metric, without building a program.

    Args:
        text: the mounted file's content.
        file: its name, for messages.
    Raises:
        RunFailed: InvalidProgram, InvalidDataset, SplitEmpty or InvalidMetric, with the field's path.
    """
    types = _types(spec)
    rows, dropped = _read(spec.dataset, types, text, file=file)
    _check_metric(spec)
    sizes = {part: sum(part == of for _, of in rows) for part in ("train", "validation", "test")}
    if not all(sizes.values()):
        counts = ", ".join(f"{part} {size}" for part, size in sizes.items())
        raise RunFailed(Reason.SPLIT_EMPTY, f"the split leaves a part empty ({counts})", path="spec.dataset.split")
    report = DatasetReport(
        rows=len(rows),
        train=sizes["train"],
        validation=sizes["validation"],
        test=sizes["test"],
        dropped=len(dropped),
        dropped_message=f"{len(dropped)} rows dropped: {'; '.join(dropped[:5])}" if dropped else "",
        digest=dataset_digest(rows),
        test_digest=dataset_digest((digest, part) for digest, part in rows if part == "test"),
    )
    if spec.dataset.digest not in (None, report.digest):
        raise RunFailed(
            Reason.INVALID_DATASET,
            f"the rows changed since they were validated ({spec.dataset.digest} then, {report.digest} now)",
            path="spec.dataset.source",
        )
    return report


def _types(spec: RunSpec) -> Mapping[str, TypeExpr]:
    known = program_types(spec.program.program, spec.program.types)
    for problem in known.problems:
        position = f" (position {at[1]})" if (at := re.search(r" at ([0-9]+)", problem.message)) else ""
        raise RunFailed(Reason.INVALID_PROGRAM, f"{problem.message}{position}", path=problem.field)
    return known.fields


def _read(
    dataset: DatasetPart, types: Mapping[str, TypeExpr], text: str, *, file: str
) -> tuple[list[tuple[str, str]], list[str]]:
    rows: dict[str, str] = {}
    dropped: list[str] = []
    columns: dict[str, None] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            columns |= dict.fromkeys(values)
            typed = {name: type_.coerce(values[dataset.fields.get(name, name)]) for name, type_ in types.items()}
        except (ValueError, KeyError, AttributeError) as error:
            dropped.append(f"line {number}: {error}")
            continue
        rows.setdefault(row_digest(typed), str(values.get(dataset.split.column, "")))
    for name in types:
        column = dataset.fields.get(name, name)
        if column not in columns:
            message = f'column "{column}" is not in {file} (columns: {", ".join(columns)})'
            raise RunFailed(Reason.INVALID_DATASET, message, path=f"spec.dataset.fields.{name}")
    if not rows:
        raise RunFailed(Reason.INVALID_DATASET, f"no row of {file} can be used", path="spec.dataset")
    return _divided(rows), dropped


def _divided(digests: Mapping[str, str]) -> list[tuple[str, str]]:
    """(row digest, part) in the order of the digests; what no column divides goes to the parts in turn.

    Only the real runner's sizes need to be the real ones.
    """
    rows = []
    turn = {"": itertools.cycle(("train", "validation", "test")), "dev": itertools.cycle(("train", "validation"))}
    for digest, part in sorted(digests.items()):
        rows.append((digest, next(turn[part]) if part in turn else part))
    return rows


def _check_metric(spec: RunSpec) -> None:
    outputs = spec.program.program.output_names
    metric = spec.program.metric
    for member, options in (("exactMatch", metric.exact_match), ("f1", metric.f1)):
        for index, name in enumerate((options.fields if options else None) or ()):
            if name not in outputs:
                message = f'"{name}" is no output of the program (outputs: {", ".join(outputs)})'
                raise RunFailed(Reason.INVALID_METRIC, message, path=f"spec.metric.{member}.fields[{index}]")
