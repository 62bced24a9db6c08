"""What an attempt computes with: which endpoints, which program, which rows; frozen once, compared ever after. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from dspy_operator.api.fields import FieldClass
from dspy_operator.api.objects import ModelEndpoint, OptimizationRun, PromptProgram
from dspy_operator.api.optimizationrun import OptimizationRunSpec
from dspy_operator.api.program import judges_of
from dspy_operator.api.reasons import RunReason
from dspy_operator.contract import digests, names
from dspy_operator.contract.canonical import digest
from dspy_operator.contract.resolve import PROMPT_OPTIMIZERS, Surroundings, resolve
from dspy_operator.contract.runspec import Incumbent, Paths, RunSpec, Start
from dspy_operator.controllers import codefiles, programheaders, rowsources
from dspy_operator.controllers.runnerpod import KeyRef, Mounts
from dspy_operator.engine.plan import Body


@dataclass(frozen=True)
class EndpointSeen:
    """A ModelEndpoint, typed, with its status."""

    typed: ModelEndpoint
    body: Body

    @property
    def status(self) -> Mapping[str, Any]:
        """Empty before its first."""
        return self.body.get("status") or {}

    @property
    def url(self) -> str:
        """Where it answers; an Ollama endpoint's Service is known before any pod is up."""
        openai = self.typed.spec.provider.openai
        if openai is not None:
            return openai.base_url
        metadata = self.typed.metadata
        return str(self.status.get("url") or f"http://{metadata.name}.{metadata.namespace}.svc:11434/v1")

    @property
    def model_digest(self) -> str | None:
        """Of the model that is loaded, or was last."""
        return (self.status.get("model") or {}).get("digest")


@dataclass(frozen=True)
class Frozen:
    """run.json of an attempt, and what its pod mounts."""

    spec: RunSpec
    mounts: Mounts
    inline: Mapping[str, str] = field(default_factory=dict)
    """Key of the spec ConfigMap -> rows that are written in the program."""


def roles_of(run: OptimizationRun, program: PromptProgram | None) -> dict[str, str]:
    """Role -> `namespace/name` of its endpoint; without the program only those that the run itself names."""
    endpoints = run.spec.endpoints
    own = run.metadata.namespace
    roles: dict[str, str] = {}
    if endpoints is not None and endpoints.task is not None:
        roles["task"] = f"{endpoints.task.namespace or own}/{endpoints.task.name}"
    elif program is not None:
        target = program.spec.target.endpoint
        roles["task"] = f"{target.namespace or program.metadata.namespace}/{target.name}"
    if not PROMPT_OPTIMIZERS.isdisjoint(run.spec.optimizer.types):
        if endpoints is not None and endpoints.prompt is not None:
            roles["prompt"] = f"{endpoints.prompt.namespace or own}/{endpoints.prompt.name}"
        elif "task" in roles:
            roles["prompt"] = roles["task"]
    if program is None or judges_of(program.spec.program, program.spec.metric):
        if endpoints is not None and endpoints.judge is not None:
            roles["judge"] = f"{endpoints.judge.namespace or own}/{endpoints.judge.name}"
        elif program is not None and "task" in roles:
            roles["judge"] = roles["task"]
    return roles


def field_of(run: OptimizationRun, role: str) -> str:
    """The field that names a role's endpoint."""
    endpoints = run.spec.endpoints
    if role in ("prompt", "judge") and endpoints is not None and getattr(endpoints, role) is not None:
        return f"spec.endpoints.{role}.name"
    if endpoints is not None and endpoints.task is not None:
        return "spec.endpoints.task.name"
    return "spec.target.endpoint.name"


def own_digest(run: OptimizationRun) -> str:
    """Digest of the Input fields that the run itself holds: another one is an edit, and a new attempt.

    What the program, the rows or the endpoints say is not in it: a change of theirs re-runs nothing.
    """
    endpoints = run.spec.endpoints
    written = {
        role: (f"{endpoint.namespace or run.metadata.namespace}/{endpoint.name}", endpoint.request)
        for role, endpoint in (
            ("task", endpoints and endpoints.task),
            ("prompt", endpoints and endpoints.prompt),
            ("judge", endpoints and endpoints.judge),
        )
        if endpoint
    }
    return digests.input_digest(
        optimizer=run.spec.optimizer,
        seed=run.spec.seed or 0,
        mode=run.spec.mode or "Run",
        program="",
        dataset="",
        endpoints=written,
        goal=run.spec.goal,
        start=_start_as_written(run),
    )


def _start_as_written(run: OptimizationRun) -> str | None:
    start = run.spec.start_from
    if start is None or start.type == "Baseline":
        return None
    return f"{start.type} {start.revision.name}" if start.revision is not None else start.type


def start_revision(run: OptimizationRun, program_status: Mapping[str, Any]) -> str | None:
    """Name of the revision that `startFrom` means as everything is now; None for the baseline."""
    start = run.spec.start_from
    if start is None or start.type == "Baseline":
        return None
    current = (program_status.get("servedRevision") or {}).get("name")
    name = start.revision.name if start.revision is not None else current
    return name if name != program_status.get("baselineRevision") else None


def execution_digest(spec: OptimizationRunSpec) -> str:
    """Digest of the Execution fields: a pod that was made from another one is replaced."""
    written = spec.document()
    return digest(
        {
            str(field.alias): written[str(field.alias)]
            for field in OptimizationRunSpec.model_fields.values()
            if str(field.alias) in written
            and isinstance(field.json_schema_extra, dict)
            and field.json_schema_extra.get("x-field-class") == FieldClass.EXECUTION.value
        }
    )


def freeze(
    run: OptimizationRun,
    program: PromptProgram,
    program_status: Mapping[str, Any],
    endpoints: Mapping[str, EndpointSeen],
    *,
    attempt: int,
    looks: int,
    image: str,
    revisions: Mapping[str, str],
) -> Frozen:
    """The inputs as everything is now.

    Args:
        endpoints: by `namespace/name`.
        looks: at this test set, over all runs of the program.
        image: of the runner, as configured.
        revisions: name -> digest of those of the program; what `startFrom` means is among them.
    Raises:
        RunFailed: EndpointNotFound or PricingMissing, with the path of the field.
    """
    dataset = program.spec.dataset
    served = (program_status.get("servedRevision") or {}).get("name")
    incumbent = served if served != program_status.get("baselineRevision") else None
    start = start_revision(run, program_status)
    roles = roles_of(run, program)
    keys: dict[str, KeyRef] = {}
    key_files: dict[str, str] = {}
    for role, endpoint in roles.items():
        openai = endpoints[endpoint].typed.spec.provider.openai if endpoint in endpoints else None
        if openai is not None and openai.api_key_secret is not None:
            keys[role] = KeyRef(name=openai.api_key_secret.name, key=openai.api_key_secret.key)
            key_files.setdefault(endpoint, names.key_file(role))
    mounts = Mounts(
        data=rowsources.mounts_of(dataset),
        code=codefiles.mounts_of(program),
        headers=programheaders.secrets_of(program.spec.program),
        incumbent=incumbent,
        start=start,
        keys=keys,
        image=codefiles.image_of(program, image),
        uids={role: str(endpoints[of].body["metadata"]["uid"]) for role, of in roles.items() if of in endpoints},
    )
    validated = (program_status.get("dataset") or {}).get("digest")
    around = Surroundings(
        data_path=mounts.data_path,
        files=rowsources.files_of(dataset, mounts.data, digest=validated),
        headers=programheaders.folders_of(mounts.headers),
        paths=_paths(""),
        urls={key: endpoint.url for key, endpoint in endpoints.items()},
        key_files=key_files,
        model_digests={key: found for key, endpoint in endpoints.items() if (found := endpoint.model_digest)},
        dataset_digest=validated,
        incumbent=Incumbent(revision=incumbent, path=names.INCUMBENT_FOLDER) if incumbent else None,
        start=Start(revision=start, digest=revisions[start], path=names.START_FOLDER) if start else None,
        test_looks=looks,
        attempt=attempt,
        code=codefiles.parts_of(program, program_status.get("code") or {}),
    )
    spec = resolve(run, program, {key: endpoint.typed for key, endpoint in endpoints.items()}, around)
    # A journal is for one set of inputs. In a folder of its own it waits for the day when an edit is taken back.
    spec = spec.model_copy(update={"paths": _paths(digests.short(spec.input_digest))})
    return Frozen(spec, mounts, rowsources.inline_rows(dataset))


def _paths(folder: str) -> Paths:
    work = f"{names.WORK_FOLDER}/{folder}" if folder else names.WORK_FOLDER
    return Paths(journal=f"{work}/journal.jsonl", out=f"{work}/out", control=names.CONTROL_FILE)


def frozen_in(config_map: Body) -> Frozen | None:
    """What a spec ConfigMap holds; None where it is not readable (it is immutable, so somebody made it so)."""
    data = config_map.get("data") or {}
    try:
        spec = RunSpec.model_validate_json(data.get(names.KEY_RUN_SPEC, ""))
        return Frozen(spec, Mounts.model_validate_json(data.get(names.KEY_MOUNTS, "")))
    except ValidationError:
        return None


def inputs_status(frozen: Frozen) -> dict[str, Any]:
    """`status.inputs`."""
    spec = frozen.spec
    endpoints = {}
    for role, endpoint in spec.endpoints.items():
        told = {"name": endpoint.name, "uid": frozen.mounts.uids.get(role), "modelDigest": endpoint.model_digest}
        endpoints[str(role)] = {name: value for name, value in told.items() if value}
    known: dict[str, Any] = {
        "inputDigest": spec.input_digest,
        "programDigest": spec.program.digest,
        "datasetDigest": spec.dataset.digest,
        "incumbent": spec.incumbent.revision if spec.incumbent else None,
        "startFrom": spec.start_from.revision if spec.start_from else None,
        "endpoints": endpoints,
        "runnerImage": frozen.mounts.image,
    }
    return {name: value for name, value in known.items() if value}


@dataclass(frozen=True)
class Outdated:
    """How the world differs from what a run froze."""

    reason: RunReason
    message: str = ""

    @property
    def is_so(self) -> bool:
        """Whether it does."""
        return self.reason is not RunReason.UP_TO_DATE


def outdated(
    inputs: Mapping[str, Any], program_status: Mapping[str, Any] | None, models: Mapping[str, str | None]
) -> Outdated:
    """Whether the program, the rows or a model changed since.

    Args:
        inputs: `status.inputs`.
        program_status: None where the program is gone.
        models: `namespace/name` of an endpoint -> digest of its model, None where nobody knows it now.
    """
    now = program_status or {}
    pairs = (
        (RunReason.PROGRAM_CHANGED, "program", inputs.get("programDigest"), now.get("programDigest")),
        (RunReason.DATASET_CHANGED, "rows", inputs.get("datasetDigest"), (now.get("dataset") or {}).get("digest")),
        *(
            (RunReason.MODEL_CHANGED, f"model of {of['name']}", of.get("modelDigest"), models.get(of["name"]))
            for of in (inputs.get("endpoints") or {}).values()
        ),
    )
    for reason, what, before, after in pairs:
        if before and after and before != after:
            return Outdated(reason, f"the {what} changed since this attempt began; `rerun` takes the new one")
    return Outdated(RunReason.UP_TO_DATE)
