"""From objects to run.json: every reference followed, every default applied, nothing left to look up. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from dspy_operator.api.fields import decimal, parse_duration
from dspy_operator.api.metric import Metric
from dspy_operator.api.modelendpoint import ModelEndpointSpec
from dspy_operator.api.objects import ModelEndpoint, OptimizationRun, PromptProgram
from dspy_operator.api.optimizationrun import Budget, RoleEndpoint
from dspy_operator.api.program import judges_of
from dspy_operator.api.promptprogram import EndpointRef, SamplingRequest
from dspy_operator.contract.digests import input_digest, program_digest
from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.contract.repeats import repeats_of
from dspy_operator.contract.runspec import (
    CodePart,
    Control,
    DatasetPart,
    Endpoint,
    Gate,
    Incumbent,
    OptimizerPart,
    Paths,
    ProgramPart,
    RowsFile,
    RunIdentity,
    RunSpec,
    SplitPart,
    Start,
    Usage,
)

DEFAULT_CONCURRENCY = 4
DEFAULT_TIMEOUT_SECONDS = 60.0
DEFAULT_PARALLEL = 1
"""Of an Ollama pod: on few cores more slots bring no throughput."""
PROMPT_OPTIMIZERS = frozenset({"MIPROv2", "GEPA", "COPRO", "InferRules", "SIMBA"})
"""Optimizers that call a model in the prompt role."""


@dataclass(frozen=True)
class Surroundings:
    """What is known outside of the objects: where things are mounted, and what happened before."""

    data_path: str
    paths: Paths
    files: Mapping[str, RowsFile] = field(default_factory=dict)
    """Part ("" is the dataset's own) -> its file; what is not here is at `data_path`."""
    urls: Mapping[str, str] = field(default_factory=dict)
    """`namespace/name` of an endpoint -> its URL, where the object itself does not say it."""
    key_files: Mapping[str, str] = field(default_factory=dict)
    """`namespace/name` of an endpoint -> file of its API key."""
    model_digests: Mapping[str, str] = field(default_factory=dict)
    dataset_digest: str | None = None
    incumbent: Incumbent | None = None
    start: Start | None = None
    """What `startFrom` comes to; None for the baseline."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Secret that a server of the program is asked with -> folder with a file for each header."""
    test_looks: int = 0
    attempt: int = 1
    code: Mapping[str, CodePart] = field(default_factory=dict)
    """Path in the program -> the function that stands there."""


def resolve(
    run: OptimizationRun, program: PromptProgram, endpoints: Mapping[str, ModelEndpoint], around: Surroundings
) -> RunSpec:
    """The run.json of one attempt.

    Args:
        endpoints: by `namespace/name`.
    Raises:
        RunFailed: EndpointNotFound or PricingMissing, with the path of the field.
    """
    target = program.spec.target
    roles = run.spec.endpoints
    task = _role(run, roles.task if roles else None, target.endpoint, program.metadata.namespace, target.request)
    wanted = {"task": task}
    if not PROMPT_OPTIMIZERS.isdisjoint(run.spec.optimizer.types):
        # Prompt and judge sample on their own terms: only the endpoint is the task's.
        wanted["prompt"] = _role(run, roles.prompt if roles else None, None, "", None, role="prompt", default=task)
    if judges_of(program.spec.program, program.spec.metric):
        wanted["judge"] = _role(run, roles.judge if roles else None, None, "", None, role="judge", default=task)
        _check_votes(program.spec.metric, wanted["judge"][1])
    resolved: dict[str, Endpoint] = {}
    for role, (key, request, path) in wanted.items():
        resolved[role] = _endpoint(key, path, request, endpoints, around)
    _check_pricing(run.spec.budget, resolved)
    identity = RunIdentity(
        namespace=run.metadata.namespace, name=run.metadata.name, uid=run.metadata.uid, attempt=around.attempt
    )
    promotion = program.spec.promotion
    part = program_part(program, around.code)
    sampling = resolved["task"].request
    repeats = repeats_of(run.spec.repeats, sampling)
    return RunSpec(
        run=identity,
        mode=run.spec.mode or "Run",
        input_digest=input_digest(
            optimizer=run.spec.optimizer,
            seed=run.spec.seed or 0,
            mode=run.spec.mode or "Run",
            program=part.digest,
            dataset=around.dataset_digest or "",
            endpoints={role: (endpoint.model, endpoint.request) for role, endpoint in resolved.items()},
            goal=run.spec.goal,
            start=around.start.digest if around.start else None,
            repeats=repeats if repeats != repeats_of(None, sampling) else None,
        ),
        seed=run.spec.seed or 0,
        program=part,
        optimizer=OptimizerPart(
            type=run.spec.optimizer.type,
            options=run.spec.optimizer.options.document(),
        ),
        goal=run.spec.goal,
        dataset=dataset_part(program, around, around.dataset_digest),
        code=dict(around.code),
        endpoints=resolved,  # type: ignore[arg-type]  # keys are the three roles
        incumbent=around.incumbent,
        start_from=around.start,
        test_looks=around.test_looks,
        gate=Gate(
            mode=(promotion.mode if promotion else None) or "Auto",
            alpha=(promotion.alpha if promotion else None) or "0.05",
            min_improvement=(promotion.min_improvement if promotion else None) or "0",
        ),
        repeats=repeats,
        headers=dict(around.headers) or None,
        paths=around.paths,
    )


def resolve_validation(program: PromptProgram, around: Surroundings) -> RunSpec:
    """The run.json of a `validate` Job: program, rows and metric are checked, no endpoint is called."""
    identity = RunIdentity(
        namespace=program.metadata.namespace,
        name=program.metadata.name,
        uid=program.metadata.uid,
        attempt=around.attempt,
    )
    return RunSpec(
        kind="validate",
        run=identity,
        program=program_part(program, around.code),
        dataset=dataset_part(program, around),
        code=dict(around.code),
        headers=dict(around.headers) or None,
        paths=around.paths,
    )


def program_part(program: PromptProgram, code: Mapping[str, CodePart] = MappingProxyType({})) -> ProgramPart:
    """A program as run.json holds it.

    Args:
        code: path -> a function of somebody's own; what its file says is a part of the digest.
    """
    spec = program.spec
    known = {path: part.sha256 for path, part in code.items() if part.sha256 is not None}
    return ProgramPart(
        name=program.metadata.name,
        digest=program_digest(spec.program, spec.adapter, spec.metric, spec.target.request, spec.types, known),
        program=spec.program,
        types=spec.types,
        adapter=spec.adapter,
        metric=spec.metric,
        request=spec.target.request,
    )


def dataset_part(program: PromptProgram, around: Surroundings, digest: str | None = None) -> DatasetPart:
    """How a program's rows are read, defaults applied."""
    dataset = program.spec.dataset
    split = dataset.split
    by_hash = split.hash if split else None
    own = around.files.get("") or RowsFile(path=around.data_path)
    return DatasetPart(
        path=own.path,
        root=own.root,
        http=own.http,
        s3=own.s3,
        sha256=own.sha256,
        format=dataset.format,
        fields=dataset.fields or {},
        split=SplitPart(
            type=split.type if split else "Hash",
            seed=(by_hash.seed if by_hash else None) or 0,
            column=split.column.name if split and split.column else None,
            group_by=by_hash.group_by if by_hash else None,
            stratify_by=by_hash.stratify_by if by_hash else None,
            validation=around.files.get("validation"),
            test=around.files.get("test"),
        ),
        limit=dataset.limit,
        export_rows=True if dataset.export_rows is None else dataset.export_rows,
        digest=digest,
    )


def slots_of(endpoint: ModelEndpoint) -> int | None:
    """How many requests an endpoint answers at a time, or None where nothing says so."""
    spec = endpoint.spec
    limit = spec.limits.concurrency if spec.limits else None
    if spec.provider.ollama is None:
        return limit
    parallel = spec.provider.ollama.parallel or DEFAULT_PARALLEL
    return parallel if limit is None else min(parallel, limit)


def control_of(
    run: OptimizationRun, endpoints: Mapping[str, ModelEndpoint], *, generation: int = 1, floor: Usage | None = None
) -> Control:
    """The live part of a run, as its spec says it now, with each endpoint's slots for a run that has them alone.

    Args:
        endpoints: by `namespace/name`.
    """
    concurrency = run.spec.concurrency or DEFAULT_CONCURRENCY
    slots = {
        key: min(concurrency, found) for key, endpoint in endpoints.items() if (found := slots_of(endpoint)) is not None
    }
    return Control(
        generation=generation,
        budget=run.spec.budget,
        concurrency=concurrency,
        pacing=run.spec.pacing,
        floor=floor or Usage(),
        slots=slots,
    )


_Wanted = tuple[str, SamplingRequest | None, str]


def _role(
    run: OptimizationRun,
    written: RoleEndpoint | None,
    fallback: EndpointRef | None,
    fallback_namespace: str,
    request: SamplingRequest | None,
    *,
    role: str = "task",
    default: _Wanted | None = None,
) -> _Wanted:
    """(`namespace/name`, sampling request, path of the field that names it) of one role."""
    if written is not None:
        key = f"{written.namespace or run.metadata.namespace}/{written.name}"
        return key, _merged(request, written.request), f"spec.endpoints.{role}.name"
    if default is not None:
        return default[0], None, default[2]
    assert fallback is not None
    return f"{fallback.namespace or fallback_namespace}/{fallback.name}", request, "spec.target.endpoint.name"


def _merged(base: SamplingRequest | None, override: SamplingRequest | None) -> SamplingRequest | None:
    if base is None or override is None:
        return override or base
    return SamplingRequest.model_validate(base.document() | override.document())


def _endpoint(
    key: str, path: str, request: SamplingRequest | None, endpoints: Mapping[str, ModelEndpoint], around: Surroundings
) -> Endpoint:
    found = endpoints.get(key)
    if found is None:
        known = ", ".join(sorted(endpoints)) or "none"
        raise RunFailed(
            Reason.ENDPOINT_NOT_FOUND, f"ModelEndpoint {key} does not exist (there are: {known})", path=path
        )
    spec: ModelEndpointSpec = found.spec
    provider = spec.provider.ollama or spec.provider.openai
    assert provider is not None
    url = around.urls.get(key)
    source = None
    if spec.provider.openai is not None:
        url = url or spec.provider.openai.base_url
        secret = spec.provider.openai.api_key_secret
        source = f"key {secret.key} of Secret {found.metadata.namespace}/{secret.name}" if secret else None
    if url is None:
        raise RunFailed(Reason.ENDPOINT_NOT_FOUND, f"ModelEndpoint {key} has no URL yet", path=path)
    timeout = spec.request.timeout if spec.request else None
    return Endpoint(
        name=key,
        type=spec.provider.type,  # type: ignore[arg-type]  # what the runner has not is refused at admission: api/unsupported.py
        url=url,
        model=provider.model,
        model_digest=around.model_digests.get(key),
        api_key_file=around.key_files.get(key) if source else None,
        api_key_source=source,
        timeout_seconds=parse_duration(timeout).total_seconds() if timeout else DEFAULT_TIMEOUT_SECONDS,
        request=request or SamplingRequest(),
        pricing=spec.pricing,
    )


def _check_votes(metric: Metric, request: SamplingRequest | None) -> None:
    """Several votes at temperature 0 are one answer, asked for once."""
    temperature = decimal((request.temperature if request else None) or "0")
    for path, judge in metric.judges.items():
        if (judge.votes or 1) > 1 and temperature == 0:
            raise RunFailed(
                Reason.INVALID_METRIC,
                f"{judge.votes} votes of a judge at temperature 0 are one vote: set spec.endpoints.judge.request.temperature "
                "of the run above 0",
                path=f"spec.metric.{path}.votes",
            )


def _check_pricing(budget: Budget, endpoints: Mapping[str, Endpoint]) -> None:
    if budget.cost is None:
        return
    currencies = set()
    for role, endpoint in endpoints.items():
        if endpoint.pricing is None:
            raise RunFailed(
                Reason.PRICING_MISSING,
                f"a cost budget needs spec.pricing on every endpoint of the run; {endpoint.name} ({role}) has none",
                path="spec.budget.cost",
            )
        currencies.add(endpoint.pricing.currency)
    if len(currencies) > 1:
        raise RunFailed(
            Reason.PRICING_MISSING,
            f"the endpoints' prices are in {' and '.join(sorted(currencies))}: a cost budget needs one currency",
            path="spec.budget.cost",
        )
