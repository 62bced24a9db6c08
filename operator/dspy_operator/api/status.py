"""What the operator writes: the status of each kind. Bounded, no floats, nothing that changes without a reason.

Controllers write plain mappings, in the hot path; these models are what the CustomResourceDefinitions and the reference are
generated from, and what tests hold those mappings against: a field that is missing here would be dropped by the API server.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from dspy_operator.api.fields import ApiModel, DecimalString, Opaque

Count = Annotated[int, Field(ge=0, le=2**53)]
Small = Annotated[int, Field(ge=0, le=1_000_000)]
Percent = Annotated[int, Field(ge=0, le=100)]
Word = Annotated[str, Field(max_length=64)]
Name = Annotated[str, Field(max_length=253)]
"""Name of an object, `namespace/name` of one of ours, or a node's."""
Digest = Annotated[str, Field(max_length=128)]
Message = Annotated[str, Field(max_length=1024)]
Time = Annotated[str, Field(max_length=32, json_schema_extra={"format": "date-time"})]
Span = Annotated[str, Field(max_length=32)]
"""A length of time for eyes: "12m"."""
Role = Annotated[str, Field(max_length=32)]


def told(description: str) -> Any:
    """A field that is there when the operator knows it."""
    return Field(default=None, description=description)


def always(description: str) -> Any:
    """A field that is always there."""
    return Field(description=description)


class Condition(ApiModel):
    """One condition, as everywhere in Kubernetes."""

    type: Annotated[str, Field(max_length=64, pattern=r"^[A-Z][A-Za-z]*$")] = always("What the condition is about.")
    status: Literal["True", "False", "Unknown"] = always("Whether it holds.")
    reason: Annotated[str, Field(max_length=64, pattern=r"^[A-Z][A-Za-z0-9]*$")] = always(
        "Why, in one word that programs can rely on."
    )
    message: Message = always("Why, for people, with names and numbers.")
    last_transition_time: Time = always("When `status` last changed.")
    observed_generation: Count | None = told("Generation of the spec that was looked at.")


class _Status(ApiModel):
    """What every kind tells."""

    observed_generation: Count | None = told("Generation of the spec that this status is about.")
    conditions: Annotated[list[Condition], Field(max_length=16)] | None = Field(
        default=None,
        description="What holds and why; one entry for each type.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )


# PromptProgram


class Validation(ApiModel):
    """The last validation."""

    try_: Small | None = Field(default=None, alias="try", description="How many validations there were.")
    job_name: Name | None = told("The Job that validates, or did last.")
    source: Name | None = told("The rows that were validated: digest of inline rows, uid and version of a ConfigMap.")


class DatasetStatus(ApiModel):
    """What the rows came to."""

    rows: Count | None = told("Rows that can be used.")
    train: Count | None = told("Rows that optimizers learn from.")
    validation: Count | None = told("Rows by which optimizers choose.")
    test: Count | None = told("Rows that no optimizer sees: candidates are judged on them.")
    dropped: Count | None = told("Rows that are left out: they cannot be read, or repeat another.")
    digest: Digest | None = told("Digest of all rows and their parts.")
    test_digest: Digest | None = told("Digest of the test rows; looks are counted for it.")


class PromotedRevision(ApiModel):
    """The revision that was promoted last."""

    name: Name | None = told("Its ConfigMap.")
    run: Name | None = told("The OptimizationRun that found it.")
    score: DecimalString | None = told("Its score on the test rows, 0 to 100.")
    promoted_at: Time | None = told("When it was promoted.")


class ServedRevision(ApiModel):
    """The revision that `<program>-current` holds."""

    name: Name | None = told("Its ConfigMap.")
    digest: Digest | None = told("Digest of its files.")
    pinned: bool | None = told("Whether `spec.revision` asks for it.")


class Candidate(ApiModel):
    """A judged revision that is not served."""

    revision: Name | None = told("Its ConfigMap.")
    run: Name | None = told("The OptimizationRun that found it.")
    delta: DecimalString | None = told("Gain over the incumbent on the test rows, in points of 0 to 100.")
    p: DecimalString | None = told("Probability of such a gain by chance.")
    verdict: Word | None = told("What became of it, one word of the program's reasons.")
    message: Message | None = told("Why, for people.")


class TestUse(ApiModel):
    """How worn the test rows are."""

    __test__ = False  # no test, whatever pytest makes of the name

    looks: Small | None = told("Judgements that were made on these test rows.")
    alpha_left: DecimalString | None = told("Highest p with which the next judgement passes.")


class PromptProgramStatus(_Status):
    """What is true of a program."""

    phase: Word | None = told(
        "Pending, Validating, Ready or Rejected: where it is, for eyes only; programs read conditions."
    )
    program_digest: Digest | None = told("Digest of program, adapter, metric and the target's request.")
    validation: Validation | None = told("The last validation.")
    dataset: DatasetStatus | None = told("What the rows came to.")
    code: Annotated[dict[Name, Digest], Field(max_length=16)] | None = told(
        "Path of code of one's own -> sha256 of its file, as it was validated."
    )
    baseline_revision: Name | None = told("The revision of the program as written, before any optimization.")
    promoted_revision: PromotedRevision | None = told("The revision that was promoted last.")
    served_revision: ServedRevision | None = told("The revision that `<program>-current` holds.")
    candidates: Annotated[list[Candidate], Field(max_length=10)] | None = told(
        "The last judged revisions, newest first."
    )
    test_use: TestUse | None = told("How often the test rows were judged on, and what is left of them.")


# OptimizationRun


class FrozenEndpoint(ApiModel):
    """An endpoint as it was when the attempt began."""

    name: Name | None = told("Its namespace and name.")
    uid: Word | None = told("Its uid.")
    model_digest: Digest | None = told("Digest of its model, where the provider tells one.")


class FrozenInputs(ApiModel):
    """What this attempt computes with, whatever is edited meanwhile."""

    input_digest: Digest | None = told("Digest of everything that decides what is computed.")
    program_digest: Digest | None = told("Digest of the program.")
    dataset_digest: Digest | None = told("Digest of the rows.")
    incumbent: Name | None = told(
        "The revision that was served, which a candidate has to beat; absent for the baseline."
    )
    start_from: Name | None = told("The revision that the optimizer begins with; absent for the baseline.")
    endpoints: Annotated[dict[Role, FrozenEndpoint], Field(max_length=8)] | None = told("Role -> endpoint.")
    runner_image: Annotated[str, Field(max_length=512)] | None = told("The runner's image as it was configured.")


class EstimateStatus(ApiModel):
    """What the run would spend."""

    calls: Count | None = told("HTTP requests.")
    tokens: Count | None = told("Input and output tokens.")
    cost: DecimalString | None = told("Money, in the currency of the endpoints' pricing.")


class RunProgress(ApiModel):
    """How far the pod is."""

    step: Word | None = told("load, preflight, baseline, optimize, judge or publish.")
    stage: Word | None = told('Of Stages: which one, for example "2 of 3: MIPROv2"; trials are of the stage.')
    trials_done: Count | None = told("Trials of the optimizer that are done.")
    trials_planned: Count | None = told("Trials that it plans.")
    percent: Percent | None = told("Percent of the whole run that is done.")
    eta: Span | None = told('Time left, for example "12m".')


class TestScores(ApiModel):
    """Scores on the test rows, 0 to 100."""

    __test__ = False

    baseline: DecimalString | None = told("Of the program as written.")
    incumbent: DecimalString | None = told("Of the revision that was served.")
    candidate: DecimalString | None = told("Of what the run found.")


class Scores(ApiModel):
    """Scores, 0 to 100."""

    baseline: DecimalString | None = told("Of the program as written, on the rows that the optimizer sees.")
    incumbent: DecimalString | None = told("Of the revision that was served, on the rows that the optimizer sees.")
    start: DecimalString | None = told("Of the revision that the optimizer began with, on the rows that it sees.")
    best: DecimalString | None = told("The best so far, on the rows that the optimizer sees.")
    test: TestScores | None = told("On the test rows, which no optimizer sees.")


class CalibrationStatus(ApiModel):
    """How far a judge grades as people do."""

    kappa: DecimalString | None = told(
        "Cohen's kappa, of more than two grades with quadratic weights; absent where it cannot be computed."
    )
    rows: Count | None = told("Answers that a person graded.")
    agreed: Count | None = told("Of them, those that both grade alike.")
    undecided: Count | None = told("Of them, those that the judge gave no verdict on; no part of kappa.")


class GateStatus(ApiModel):
    """The verdict on the candidate."""

    p: DecimalString | None = told("Probability of such a gain over the incumbent by chance.")
    alpha: DecimalString | None = told("What p had to reach at this look at the test rows.")
    delta: DecimalString | None = told("Gain over the incumbent on the test rows, in points of 0 to 100.")
    promote: bool | None = told("Whether the candidate may be served without a person's word.")
    why: Message | None = told("The verdict in words.")


class Amount(ApiModel):
    """What is set aside and not spent yet."""

    calls: Count | None = told("HTTP requests.")
    tokens: Count | None = told("Input and output tokens.")
    cost: DecimalString | None = told("Money, in the currency of the endpoints' pricing.")


class RoleUsage(ApiModel):
    """What was spent in one role."""

    calls: Count | None = told("HTTP requests put on the wire, retries included.")
    replayed: Count | None = told("Answers that came from the journal and cost nothing.")
    failed: Count | None = told("Requests that failed for good.")
    input_tokens: Count | None = told("Input tokens as the servers report them.")
    cached_input_tokens: Count | None = told("Those of the input tokens that the provider had cached.")
    output_tokens: Count | None = told("Output tokens as the servers report them.")
    cost: DecimalString | None = told("Money, in the currency of the endpoints' pricing.")


class RunUsage(RoleUsage):
    """What was spent over all tries of this run's name."""

    reserved: Amount | None = told("What is set aside for the try that runs, and counts as spent until it is settled.")
    by_role: Annotated[dict[Role, RoleUsage], Field(max_length=8)] | None = told("Role -> what was spent there.")


class Admission(ApiModel):
    """What the run was granted."""

    time: Time | None = told("When.")
    slots: Annotated[dict[Name, Small], Field(max_length=8)] | None = told(
        "Endpoint (`namespace/name`) -> requests at a time."
    )
    reserved: Amount | None = told("Budget that was set aside before the Job was made.")


class Queue(ApiModel):
    """Where the run stands while it waits."""

    waiting_for: Name | None = told("What it waits for.")
    position: Small | None = told("Its place, 1 is next; told for the first 20.")


class Retry(ApiModel):
    """How often the run was tried again."""

    count: Small | None = told("Tries that failed and count against `retries`.")
    waits: Small | None = told(
        "Tries that ended for an endpoint's outage or a missing Secret, and count against nothing."
    )
    not_before: Time | None = told("When the next try may begin.")


class RunRevision(ApiModel):
    """The revision that the run found."""

    name: Name | None = told("Its ConfigMap, once the program has made it.")
    digest: Digest | None = told("Digest of its files.")


class OptimizationRunStatus(_Status):
    """What is true of a run."""

    phase: Word | None = told(
        "Pending, Queued, Starting, Running, Judging, Suspended, Succeeded, Failed, BudgetExhausted, Cancelled or Rejected: "
        "where it is, for eyes only; programs read conditions."
    )
    outcome: Literal["Improved", "NoImprovement", "NotJudged", "Reused"] | None = told("What an ended run found.")
    attempt: Small | None = told("Counts sets of inputs, and reruns of one.")
    try_: Small | None = Field(default=None, alias="try", description="Counts Jobs over the whole life of this name.")
    job_name: Name | None = told("The Job of this try.")
    pod_name: Name | None = told("The pod of this try.")
    start_time: Time | None = told("When this attempt's first Job was made.")
    completion_time: Time | None = told("When the run ended.")
    inputs: FrozenInputs | None = told("What this attempt computes with.")
    resolved: Annotated[dict[str, Any], Opaque()] | None = told(
        "What the optimizer's options came to, by its own names; and under `adapter`, where it was left open, the adapter that the "
        "program is asked in, and why."
    )
    estimate: EstimateStatus | None = told("What the run would spend.")
    progress: RunProgress | None = told("How far the pod is.")
    scores: Scores | None = told("Scores so far.")
    gate: GateStatus | None = told("The verdict on the candidate.")
    calibration: Annotated[dict[Name, CalibrationStatus], Field(max_length=8)] | None = told(
        "Path of a judge in the program, for example `spec.metric.judge` -> how far it grades as people do."
    )
    usage: RunUsage | None = told("What was spent.")
    effective: Count | None = told(
        "Generation of the control document that the pod works by: live fields have reached it."
    )
    admission: Admission | None = told("What the run was granted.")
    queue: Queue | None = told("Where the run stands while it waits.")
    retry: Retry | None = told("How often it was tried again.")
    rerun: Word | None = told("The value of `spec.rerun` that this attempt is for.")
    revision: RunRevision | None = told("The revision that the run found.")


# ModelEndpoint


class ModelStatus(ApiModel):
    """The model that answers."""

    digest: Digest | None = told("Its digest, where the provider tells one.")
    size_bytes: Count | None = told("Its size.")
    context_length: Count | None = told("Tokens of context that it was loaded with.")
    quantization: Word | None = told("How its weights are quantized.")


class PullStatus(ApiModel):
    """How far the download is."""

    percent: Percent | None = told("Percent that is there.")
    completed_bytes: Count | None = told("Bytes that are there.")
    total_bytes: Count | None = told("Bytes in all.")
    eta: Span | None = told('Time left, for example "3m".')


class LastScale(ApiModel):
    """The last change of the number of pods."""

    time: Time | None = told("When.")
    from_: Small | None = Field(default=None, alias="from", description="Pods before.")
    to: Small | None = told("Pods wanted since.")
    why: Message | None = told("Why, for people.")


class ModelEndpointStatus(_Status):
    """What is true of an endpoint."""

    phase: Word | None = told("Where it is, for eyes only; programs read conditions.")
    url: Annotated[str, Field(max_length=2048)] | None = told("Where it answers, up to and including /v1.")
    model: ModelStatus | None = told("The model that answers.")
    pull: PullStatus | None = told("How far the download is; absent when there is none.")
    replicas: Small | None = told("Pods that there are.")
    ready_replicas: Small | None = told("Pods that answer.")
    selector: Annotated[str, Field(max_length=512)] | None = told("Label selector of the pods, for autoscalers.")
    active_runs: Small | None = told("Admitted runs that use it.")
    desired_replicas: Small | None = told("Pods that are wanted.")
    last_scale: LastScale | None = told("The last change of the number of pods.")
    idle_since: Time | None = told("Since when no run needs the pods that there are; they go after `scaleDownDelay`.")


# OptimizationQuota


class QuotaUse(ApiModel):
    """What the runs of a quota took in its period."""

    calls: Count | None = told("HTTP requests, what is reserved included.")
    tokens: Count | None = told("Tokens, what is reserved included.")
    cost: DecimalString | None = told("Money, what is reserved included.")


class OptimizationQuotaStatus(_Status):
    """What is true of a quota."""

    phase: Word | None = told("Where it is, for eyes only; programs read conditions.")
    period_start: Time | None = told("When the period began.")
    used: QuotaUse | None = told("What was taken since.")
    admitted_runs: Small | None = told("Runs that are admitted.")
    waiting_runs: Small | None = told("Runs that wait for this quota.")
    namespaces: Small | None = told("Namespaces that it selects.")


STATUSES: dict[str, type[_Status]] = {
    "PromptProgram": PromptProgramStatus,
    "OptimizationRun": OptimizationRunStatus,
    "ModelEndpoint": ModelEndpointStatus,
    "OptimizationQuota": OptimizationQuotaStatus,
}
"""The status of each kind."""
