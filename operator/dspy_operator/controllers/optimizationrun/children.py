"""A run's children: what each try needs before its pod can start, and the live part of its channel. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from dspy_operator.api.optimizationrun import OptimizationRunSpec
from dspy_operator.contract import names
from dspy_operator.contract.resolve import DEFAULT_CONCURRENCY
from dspy_operator.contract.runspec import Control
from dspy_operator.controllers import runnerpod
from dspy_operator.controllers.optimizationrun.account import Entry
from dspy_operator.controllers.optimizationrun.inputs import Frozen, execution_digest
from dspy_operator.engine.plan import Body


def keeps_journal(spec: OptimizationRunSpec) -> bool:
    """Whether answers outlive a pod. An estimate asks nobody, and needs no volume for it."""
    if spec.mode == "Estimate":
        return False
    return spec.journal is None or spec.journal.type == "PersistentVolumeClaim"


def control(spec: OptimizationRunSpec, entry: Entry, slots: Mapping[str, int], channel: Body | None) -> Control:
    """The live part as it should be; one that differs from what is there gets the next generation."""
    before = control_in(channel)
    wanted = Control(
        generation=before.generation if before is not None else 1,
        budget=spec.budget,
        concurrency=spec.concurrency or DEFAULT_CONCURRENCY,
        pacing=spec.pacing,
        floor=entry.used,
        floor_seconds=entry.seconds,
        slots=dict(slots),
        stop=spec.stop,
    )
    if before is None or wanted == before:
        return wanted
    return wanted.model_copy(update={"generation": before.generation + 1})


def control_in(channel: Body | None) -> Control | None:
    """The live part as the channel has it."""
    text = ((channel or {}).get("data") or {}).get(names.KEY_CONTROL)
    if text is None:
        return None
    try:
        return Control.model_validate_json(text)
    except ValidationError:
        return None


def standing(owner: runnerpod.Owner, live: Control) -> tuple[Body, ...]:
    """What has to be there as long as a pod may run: the channel, and the right to it."""
    name = names.run_channel(owner.name)
    return (runnerpod.channel(owner, name, live), *runnerpod.access(owner, name))


def starting(
    owner: runnerpod.Owner,
    spec: OptimizationRunSpec,
    entry: Entry,
    frozen: Frozen,
    pull_policy: str,
    *,
    answers: Mapping[str, str],
) -> tuple[Body, ...]:
    """What is made once: the frozen inputs, the journal's volume, and last the Job.

    Args:
        answers: run whose answers may be taken -> claim of its journal.
    """
    attempt = {names.LABEL_ATTEMPT: str(entry.attempt)}
    made: list[Body] = [
        runnerpod.spec_config_map(
            owner,
            names.run_spec(owner.name, entry.attempt),
            frozen.spec,
            frozen.mounts,
            inline=frozen.inline,
            **attempt,
        )
    ]
    claim = names.run_journal(owner.name) if keeps_journal(spec) else None
    if claim is not None:
        volume = spec.journal.persistent_volume_claim if spec.journal else None
        size = volume.size if volume else None
        made.append(runnerpod.journal(owner, claim, size or runnerpod.DEFAULT_JOURNAL_SIZE))
    pod = runnerpod.Pod(
        attempt=entry.attempt,
        try_=entry.tries,
        spec_name=names.run_spec(owner.name, entry.attempt),
        channel_name=names.run_channel(owner.name),
        mounts=frozen.mounts,
        pull_policy=pull_policy,
        journal_claim=claim,
        template=spec.pod_template.document() if spec.pod_template else None,
        priority_class=spec.priority_class_name,
        answers=answers,
        execution=execution_digest(spec),
    )
    made.append(runnerpod.job(owner, names.run_job(owner.name, entry.tries), pod))
    return tuple(made)


def execution_of(job: Body) -> Any:
    """The digest of the Execution fields that a Job was made from."""
    return (job["metadata"].get("annotations") or {}).get(names.ANNOTATION_EXECUTION)
