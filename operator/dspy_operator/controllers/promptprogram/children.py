"""What a validation is made of: run.json, the Job, and what its pod needs. Pure."""

from __future__ import annotations

from dspy_operator.api.objects import PromptProgram
from dspy_operator.contract import names
from dspy_operator.contract.resolve import Surroundings, resolve_validation
from dspy_operator.contract.runspec import Paths
from dspy_operator.controllers import codefiles, programheaders, rowsources, runnerpod
from dspy_operator.engine.plan import Body, Settings

DEADLINE_SECONDS = 3600
"""A validation takes seconds; one that takes an hour, image and rows included, hangs, and is tried again elsewhere."""
PATHS = Paths(journal=names.JOURNAL_FILE, out=names.OUT_FOLDER, control=names.CONTROL_FILE)


def lasting(owner: runnerpod.Owner) -> tuple[Body, ...]:
    """What all tries share: the channel, and the right to use it."""
    name = names.validation_channel(owner.name)
    return (runnerpod.channel(owner, name), *runnerpod.access(owner, name))


def frozen(owner: runnerpod.Owner, program: PromptProgram, settings: Settings, *, attempt: int, subject: str) -> Body:
    """The spec ConfigMap of an attempt.

    Args:
        subject: digest of what is validated, by which the attempt is known again.
    """
    mounts = _mounts(program, settings)
    dataset = program.spec.dataset
    around = Surroundings(
        data_path=mounts.data_path,
        files=rowsources.files_of(dataset, mounts.data),
        headers=programheaders.folders_of(mounts.headers),
        paths=PATHS,
        attempt=attempt,
        code=codefiles.parts_of(program, {}),
    )
    spec = runnerpod.spec_config_map(
        owner,
        names.validation_spec(owner.name, attempt),
        resolve_validation(program, around),
        mounts,
        inline=rowsources.inline_rows(dataset),
        **{names.LABEL_ATTEMPT: str(attempt)},
    )
    spec["metadata"]["annotations"] = {names.ANNOTATION_DIGEST: subject}
    return spec


def job(owner: runnerpod.Owner, program: PromptProgram, settings: Settings, *, attempt: int, try_: int) -> Body:
    """The Job of one try."""
    pod = runnerpod.Pod(
        attempt=attempt,
        try_=try_,
        spec_name=names.validation_spec(owner.name, attempt),
        channel_name=names.validation_channel(owner.name),
        mounts=_mounts(program, settings),
        pull_policy=settings.image_pull_policy,
    )
    made = runnerpod.job(owner, names.validation_job(owner.name, try_), pod)
    made["spec"]["activeDeadlineSeconds"] = DEADLINE_SECONDS
    return made


def _mounts(program: PromptProgram, settings: Settings) -> runnerpod.Mounts:
    return runnerpod.Mounts(
        data=rowsources.mounts_of(program.spec.dataset),
        code=codefiles.mounts_of(program),
        headers=programheaders.secrets_of(program.spec.program),
        image=codefiles.image_of(program, settings.runner_image),
    )
