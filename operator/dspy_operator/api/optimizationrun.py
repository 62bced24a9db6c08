"""OptimizationRun: how to improve a program, and what that may cost."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from dspy_operator.api.fields import (
    ApiModel,
    DecimalString,
    Duration,
    FieldClass,
    ForeignName,
    ObjectName,
    UnionModel,
    spec_field,
)
from dspy_operator.api.podtemplate import PodTemplate, Quantity
from dspy_operator.api.promptprogram import EndpointRef, SamplingRequest
from dspy_operator.api.rules import Rule, above_zero_rule, decimal_rule, filled, kebab

INPUT, LIVE, IMMUTABLE = FieldClass.INPUT, FieldClass.LIVE, FieldClass.IMMUTABLE
EXECUTION, CONTROL = FieldClass.EXECUTION, FieldClass.CONTROL

Demos = Annotated[int, Field(ge=0, le=64)]
Errors = Annotated[int, Field(ge=1, le=1_000_000)]
_MAX_ERRORS = "Rows that may fail (an unreadable answer) before the run stops; unset means all of them."


class OptimizerOptions(ApiModel):
    """Base of each optimizer's options: what unset means is here and not in the schema, where an upgrade would look like an edit."""

    DEFAULTS: ClassVar[dict[str, Any]] = {}
    """Python name of the option -> what unset means; an option without an entry is decided by the run."""

    def value(self, name: str) -> Any:
        """An option, with its default applied."""
        written = getattr(self, name)
        return self.DEFAULTS.get(name) if written is None else written

    @property
    def fits_budget(self) -> bool:
        """Whether sizes come from the budget: `auto: FitBudget`, also where it is the default."""
        return False

    def deviations(self) -> dict[str, Any]:
        """camelCase options that were written and differ from their default: what an input digest covers."""
        return {
            str(field.alias): getattr(self, name)
            for name, field in type(self).model_fields.items()
            if getattr(self, name) is not None and getattr(self, name) != self.DEFAULTS.get(name)
        }


# A metric's own score, not the 0 to 100 of reports: "50" would never be reached, and nothing would say so.
_THRESHOLD = decimal_rule("metricThreshold", above="0", at_most="1")
_INIT_TEMPERATURE = decimal_rule("initTemperature", at_least="0", at_most="2")


class LabeledFewShotOptions(OptimizerOptions):
    """dspy.LabeledFewShot: labelled rows as demonstrations, no call of the model."""

    DEFAULTS: ClassVar[dict[str, Any]] = {"k": 16, "sample": True}

    k: Annotated[int, Field(ge=1, le=256)] | None = spec_field(INPUT, "Demonstrations; unset means 16.", default=None)
    sample: bool | None = spec_field(
        INPUT, "true: a seeded sample; false: the first k rows. Unset means true.", default=None
    )


class BootstrapFewShotOptions(OptimizerOptions):
    """dspy.BootstrapFewShot: demonstrations that the program itself solved."""

    DEFAULTS: ClassVar[dict[str, Any]] = {"max_bootstrapped_demos": 4, "max_labeled_demos": 16, "max_rounds": 1}
    RULES: ClassVar[tuple[Rule, ...]] = (_THRESHOLD,)

    metric_threshold: DecimalString | None = spec_field(
        INPUT,
        'Score from which a trace becomes a demonstration, above "0" to "1"; unset means the metric\'s `accept`.',
        default=None,
    )
    max_bootstrapped_demos: Demos | None = spec_field(
        INPUT, "Most bootstrapped demonstrations; unset means 4.", default=None
    )
    max_labeled_demos: Demos | None = spec_field(
        INPUT, "Most demonstrations in all, labelled ones fill up; unset means 16.", default=None
    )
    max_rounds: Annotated[int, Field(ge=1, le=16)] | None = spec_field(
        INPUT, "Attempts for each row, from the second on at temperature 1; unset means 1.", default=None
    )
    max_errors: Errors | None = spec_field(INPUT, _MAX_ERRORS, default=None)


_NO_MINIBATCH: Final = "{name} does nothing with minibatch: false: remove one of them"
_NO_MERGE: Final = "maxMergeInvocations does nothing with useMerge: false: remove one of them"


class MIPROv2Options(OptimizerOptions):
    """dspy.MIPROv2: instructions and demonstrations, searched together by Bayesian optimization.

    Either `auto`, or `numCandidates` and `numTrials`. Unset means auto: FitBudget.
    """

    DEFAULTS: ClassVar[dict[str, Any]] = {
        "max_bootstrapped_demos": 4,
        "max_labeled_demos": 4,
        "init_temperature": "1",
        "minibatch_size": 35,
        "minibatch_full_eval_steps": 5,
        "program_aware_proposer": True,
        "data_aware_proposer": True,
        "tip_aware_proposer": True,
        "fewshot_aware_proposer": True,
        "view_data_batch_size": 10,
    }
    RULES: ClassVar[tuple[Rule, ...]] = (
        _THRESHOLD,
        _INIT_TEMPERATURE,
        Rule(
            id="auto-or-counts",
            cel="!has(self.auto) || !has(self.numCandidates) && !has(self.numTrials)",
            message="'auto and ' + (!has(self.numTrials) ? 'numCandidates' : !has(self.numCandidates) ? 'numTrials' : "
            "'numCandidates and numTrials') + ' exclude each other: write one or the other'",
            computed=True,
        ),
        Rule(
            id="both-counts",
            cel="has(self.auto) || has(self.numCandidates) == has(self.numTrials)",
            message="has(self.numTrials) ? 'numTrials needs numCandidates beside it: write both, or neither' : "
            "'numCandidates needs numTrials beside it: write both, or neither'",
            computed=True,
        ),
        *(
            Rule(
                id=f"{kebab(name)}-has-minibatches",
                cel=f"!has(self.{name}) || !has(self.minibatch) || self.minibatch",
                message=_NO_MINIBATCH.format(name=name),
                field=f".{name}",
            )
            for name in ("minibatchSize", "minibatchFullEvalSteps")
        ),
    )

    auto: Literal["FitBudget", "Light", "Medium", "Heavy"] | None = spec_field(
        INPUT,
        "FitBudget: as many trials as the budget pays for. Light, Medium, Heavy: DSPy's own sizes. Unset means FitBudget, where no numbers "
        "are written.",
        default=None,
    )
    num_candidates: Annotated[int, Field(ge=2, le=256)] | None = spec_field(
        INPUT,
        "Candidate instructions and demonstration sets, written with numTrials in place of `auto`; unset means as `auto` says.",
        default=None,
    )
    num_trials: Annotated[int, Field(ge=1, le=10_000)] | None = spec_field(
        INPUT,
        "Combinations that are tried, written with numCandidates in place of `auto`; unset means as `auto` says.",
        default=None,
    )
    max_bootstrapped_demos: Demos | None = spec_field(
        INPUT, "Most bootstrapped demonstrations; unset means 4.", default=None
    )
    max_labeled_demos: Demos | None = spec_field(INPUT, "Most labelled demonstrations; unset means 4.", default=None)
    max_errors: Errors | None = spec_field(INPUT, _MAX_ERRORS, default=None)
    init_temperature: DecimalString | None = spec_field(
        INPUT, 'Temperature of proposals; unset means "1".', default=None
    )
    metric_threshold: DecimalString | None = spec_field(
        INPUT,
        'Score from which a trace becomes a demonstration, above "0" to "1"; unset means the metric\'s `accept`.',
        default=None,
    )
    minibatch: bool | None = spec_field(
        INPUT,
        "Try a combination on a sample of the validation rows first; unset means: where there are more than 50.",
        default=None,
    )
    minibatch_size: Annotated[int, Field(ge=1, le=10_000)] | None = spec_field(
        INPUT, "Rows of that sample; unset means 35.", default=None
    )
    minibatch_full_eval_steps: Annotated[int, Field(ge=1, le=1000)] | None = spec_field(
        INPUT, "Trials between two full evaluations; unset means 5.", default=None
    )
    program_aware_proposer: bool | None = spec_field(
        INPUT, "Show the proposer the program; unset means true.", default=None
    )
    data_aware_proposer: bool | None = spec_field(
        INPUT, "Show the proposer a summary of the data; unset means true.", default=None
    )
    tip_aware_proposer: bool | None = spec_field(INPUT, "Give the proposer a tip; unset means true.", default=None)
    fewshot_aware_proposer: bool | None = spec_field(
        INPUT, "Show the proposer demonstrations; unset means true.", default=None
    )
    view_data_batch_size: Annotated[int, Field(ge=1, le=1000)] | None = spec_field(
        INPUT, "Rows that the data summary reads at a time; unset means 10.", default=None
    )

    @model_validator(mode="after")
    def _minibatch_is_on(self) -> Self:
        sizes = {"minibatchSize": self.minibatch_size, "minibatchFullEvalSteps": self.minibatch_full_eval_steps}
        name = next((name for name, value in sizes.items() if value is not None), None)
        if self.minibatch is False and name is not None:
            raise PydanticCustomError("range", _NO_MINIBATCH, {"name": name})
        return self

    @property
    def fits_budget(self) -> bool:
        """Unless a size is written."""
        return self.auto in (None, "FitBudget") and self.num_candidates is None and self.num_trials is None

    @model_validator(mode="after")
    def _auto_or_counts(self) -> Self:
        counts = [
            name
            for name, value in (("numCandidates", self.num_candidates), ("numTrials", self.num_trials))
            if value is not None
        ]
        if self.auto is not None and counts:
            raise PydanticCustomError(
                "auto_or_counts",
                "auto and {names} exclude each other: write one or the other",
                {"names": " and ".join(counts)},
            )
        if len(counts) == 1:
            raise PydanticCustomError(
                "auto_or_counts",
                "{name} needs {partner} beside it: write both, or neither",
                {"name": counts[0], "partner": "numTrials" if counts[0] == "numCandidates" else "numCandidates"},
            )
        return self


_GEPA_SIZES = """\
(has(self.auto)
  ? (has(self.maxFullEvals)
    ? (has(self.maxMetricCalls) ? 'auto and maxFullEvals and maxMetricCalls' : 'auto and maxFullEvals')
    : 'auto and maxMetricCalls')
  : 'maxFullEvals and maxMetricCalls') + ' exclude each other: write one'"""


class GEPAOptions(OptimizerOptions):
    """dspy.GEPA: instructions, evolved by a model that reads feedback on failures.

    At most one of `auto`, `maxFullEvals`, `maxMetricCalls`. Unset means auto: FitBudget.
    """

    DEFAULTS: ClassVar[dict[str, Any]] = {
        "reflection_minibatch_size": 3,
        "candidate_selection_strategy": "Pareto",
        "skip_perfect_score": True,
        "add_format_failure_as_feedback": False,
        "component_selector": "RoundRobin",
        "use_merge": True,
        "max_merge_invocations": 5,
    }
    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            id="one-size",
            cel="[has(self.auto), has(self.maxFullEvals), has(self.maxMetricCalls)].filter(written, written).size() <= 1",
            # A text made by join() is too long for the cost that the API server allows.
            message=_GEPA_SIZES,
            computed=True,
        ),
        Rule(
            id="merge-is-on",
            cel="!has(self.useMerge) || self.useMerge || !has(self.maxMergeInvocations)",
            message=_NO_MERGE,
            field=".maxMergeInvocations",
        ),
    )

    auto: Literal["FitBudget", "Light", "Medium", "Heavy"] | None = spec_field(
        INPUT,
        "FitBudget: as many metric calls as the budget pays for. Light, Medium, Heavy: DSPy's own sizes. Unset means FitBudget, where no "
        "number is written.",
        default=None,
    )
    max_full_evals: Annotated[int, Field(ge=1, le=10_000)] | None = spec_field(
        INPUT, "Size in evaluations of all rows, in place of `auto`; unset means as `auto` says.", default=None
    )
    max_metric_calls: Annotated[int, Field(ge=1, le=10_000_000)] | None = spec_field(
        INPUT, "Size in scored rows, in place of `auto`; unset means as `auto` says.", default=None
    )
    reflection_minibatch_size: Annotated[int, Field(ge=1, le=256)] | None = spec_field(
        INPUT, "Rows that one reflection reads; unset means 3.", default=None
    )
    candidate_selection_strategy: Literal["Pareto", "CurrentBest"] | None = spec_field(
        INPUT, "Which candidate is mutated next; unset means Pareto.", default=None
    )
    skip_perfect_score: bool | None = spec_field(
        INPUT, "Do not reflect on rows that are right; unset means true.", default=None
    )
    add_format_failure_as_feedback: bool | None = spec_field(
        INPUT, "Tell the reflecting model about answers that could not be read; unset means false.", default=None
    )
    component_selector: Literal["RoundRobin", "All"] | None = spec_field(
        INPUT, "Which predictors one reflection changes; unset means RoundRobin.", default=None
    )
    use_merge: bool | None = spec_field(
        INPUT, "Merge candidates that are good at different rows; unset means true.", default=None
    )
    max_merge_invocations: Annotated[int, Field(ge=0, le=1000)] | None = spec_field(
        INPUT, "Most merges; unset means 5.", default=None
    )

    @property
    def fits_budget(self) -> bool:
        """Unless a size is written."""
        return self.auto in (None, "FitBudget") and self.max_full_evals is None and self.max_metric_calls is None

    @model_validator(mode="after")
    def _merge_is_on(self) -> Self:
        if self.use_merge is False and self.max_merge_invocations is not None:
            raise PydanticCustomError("range", _NO_MERGE)
        return self

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        sizes = [
            name
            for name, value in (
                ("auto", self.auto),
                ("maxFullEvals", self.max_full_evals),
                ("maxMetricCalls", self.max_metric_calls),
            )
            if value is not None
        ]
        if len(sizes) > 1:
            raise PydanticCustomError(
                "one_size", "{names} exclude each other: write one", {"names": " and ".join(sizes)}
            )
        return self


_RACING = (
    "Drop a candidate as soon as it cannot become the best any more, and ask the rows first that others got wrong: the same winner for "
    "fewer calls. Unset means false."
)


class BootstrapFewShotWithRandomSearchOptions(BootstrapFewShotOptions):
    """dspy.BootstrapFewShotWithRandomSearch: many such sets of demonstrations; the best one is kept."""

    DEFAULTS: ClassVar[dict[str, Any]] = {
        **BootstrapFewShotOptions.DEFAULTS,
        "num_candidate_programs": 16,
        "labeled_sample": True,
        "racing": False,
    }
    RULES: ClassVar[tuple[Rule, ...]] = (
        *BootstrapFewShotOptions.RULES,
        decimal_rule("stopAtScore", above="0", at_most="100"),
    )

    max_bootstrapped_demos: Annotated[int, Field(ge=1, le=64)] | None = spec_field(
        INPUT, "Most bootstrapped demonstrations; each set has from 1 to so many. Unset means 4.", default=None
    )
    num_candidate_programs: Annotated[int, Field(ge=1, le=1000)] | None = spec_field(
        INPUT,
        "Sets that are tried, beside none, labelled rows alone, and one from the rows as they come; unset means 16.",
        default=None,
    )
    stop_at_score: DecimalString | None = spec_field(
        INPUT, "Score of 0 to 100 at which no further set is tried; unset means none: all are tried.", default=None
    )
    labeled_sample: bool | None = spec_field(
        INPUT,
        "true: labelled demonstrations are a seeded sample; false: the first rows. Unset means true.",
        default=None,
    )
    racing: bool | None = spec_field(INPUT, _RACING, default=None)


class COPROOptions(OptimizerOptions):
    """dspy.COPRO: instructions, improved round by round by a model that reads earlier ones and their scores."""

    DEFAULTS: ClassVar[dict[str, Any]] = {"breadth": 10, "depth": 3, "init_temperature": "1.4"}
    RULES: ClassVar[tuple[Rule, ...]] = (_INIT_TEMPERATURE,)

    breadth: Annotated[int, Field(ge=2, le=256)] | None = spec_field(
        INPUT, "Instructions in each round; unset means 10.", default=None
    )
    depth: Annotated[int, Field(ge=1, le=64)] | None = spec_field(INPUT, "Rounds; unset means 3.", default=None)
    init_temperature: DecimalString | None = spec_field(
        INPUT, 'Temperature of proposals; unset means "1.4".', default=None
    )


class SIMBAOptions(OptimizerOptions):
    """dspy.SIMBA: rules and demonstrations from the rows on which answers differ most."""

    DEFAULTS: ClassVar[dict[str, Any]] = {
        "bsize": 32,
        "num_candidates": 6,
        "max_steps": 8,
        "max_demos": 4,
        "demo_input_field_maxlen": 100_000,
        "temperature_for_sampling": "0.2",
        "temperature_for_candidates": "0.2",
    }
    RULES: ClassVar[tuple[Rule, ...]] = tuple(
        decimal_rule(name, at_least="0.01", at_most="2")  # below, its softmax overflows
        for name in ("temperatureForSampling", "temperatureForCandidates")
    )

    bsize: Annotated[int, Field(ge=1, le=10_000)] | None = spec_field(
        INPUT, "Rows of a step; unset means 32, or all dev rows where there are fewer.", default=None
    )
    num_candidates: Annotated[int, Field(ge=1, le=256)] | None = spec_field(
        INPUT, "Candidates of a step; unset means 6.", default=None
    )
    max_steps: Annotated[int, Field(ge=1, le=1000)] | None = spec_field(INPUT, "Steps; unset means 8.", default=None)
    max_demos: Demos | None = spec_field(INPUT, "Most demonstrations; unset means 4.", default=None)
    demo_input_field_maxlen: Annotated[int, Field(ge=1, le=10_000_000)] | None = spec_field(
        INPUT, "Characters that an input keeps in a demonstration; unset means 100000.", default=None
    )
    temperature_for_sampling: DecimalString | None = spec_field(
        INPUT, 'Temperature of the choice of what is run, not of a model; unset means "0.2".', default=None
    )
    temperature_for_candidates: DecimalString | None = spec_field(
        INPUT, 'Temperature of the choice of what is improved, not of a model; unset means "0.2".', default=None
    )


class InferRulesOptions(BootstrapFewShotOptions):
    """dspy.InferRules: demonstrations, and rules in words that a model finds in them."""

    DEFAULTS: ClassVar[dict[str, Any]] = {
        **BootstrapFewShotOptions.DEFAULTS,
        "num_candidates": 10,
        "num_rules": 10,
        "racing": False,
    }

    num_candidates: Annotated[int, Field(ge=1, le=256)] | None = spec_field(
        INPUT, "Sets of rules that are tried; unset means 10.", default=None
    )
    num_rules: Annotated[int, Field(ge=1, le=100)] | None = spec_field(
        INPUT, "Rules in a set; unset means 10.", default=None
    )
    racing: bool | None = spec_field(INPUT, _RACING, default=None)


class _Optimizers(UnionModel):
    """What can be a run's optimizer, and a stage of one."""

    MEMBERS: ClassVar[dict[str, str]] = {
        "LabeledFewShot": "labeledFewShot",
        "BootstrapFewShot": "bootstrapFewShot",
        "BootstrapFewShotWithRandomSearch": "bootstrapFewShotWithRandomSearch",
        "MIPROv2": "miproV2",
        "GEPA": "gepa",
        "COPRO": "copro",
        "SIMBA": "simba",
        "InferRules": "inferRules",
    }

    labeled_few_shot: LabeledFewShotOptions | None = spec_field(INPUT, "Options of LabeledFewShot.", default=None)
    bootstrap_few_shot: BootstrapFewShotOptions | None = spec_field(INPUT, "Options of BootstrapFewShot.", default=None)
    bootstrap_few_shot_with_random_search: BootstrapFewShotWithRandomSearchOptions | None = spec_field(
        INPUT, "Options of BootstrapFewShotWithRandomSearch.", default=None
    )
    mipro_v2: MIPROv2Options | None = spec_field(INPUT, "Options of MIPROv2.", default=None, alias="miproV2")
    gepa: GEPAOptions | None = spec_field(INPUT, "Options of GEPA.", default=None)
    copro: COPROOptions | None = spec_field(INPUT, "Options of COPRO.", default=None)
    simba: SIMBAOptions | None = spec_field(INPUT, "Options of SIMBA.", default=None)
    infer_rules: InferRulesOptions | None = spec_field(INPUT, "Options of InferRules.", default=None)

    @property
    def options(self) -> OptimizerOptions:
        """The member that `type` names; where it was not written, one with nothing set."""
        members = (getattr(self, name) for name in type(self).model_fields if name != "type")
        return next((member for member in members if member is not None), None) or OPTIONS[self.type]()


class Stage(_Optimizers):
    """One optimizer of several."""

    type: Literal[
        "LabeledFewShot",
        "BootstrapFewShot",
        "BootstrapFewShotWithRandomSearch",
        "MIPROv2",
        "GEPA",
        "COPRO",
        "SIMBA",
        "InferRules",
    ] = spec_field(INPUT, "The optimizer; it starts from what the stage before made.")


class StagesOptions(OptimizerOptions):
    """Optimizers one after the other (dspy.BetterTogether), each on what the one before made; none is Stages itself."""

    stages: Annotated[list[Stage], Field(min_length=2, max_length=4)] = spec_field(INPUT, "The optimizers, in order.")

    @property
    def fits_budget(self) -> bool:
        """Whether any stage does."""
        return any(stage.options.fits_budget for stage in self.stages)


class Optimizer(_Optimizers):
    """The DSPy optimizer; `type` names the member that may be set."""

    MEMBERS: ClassVar[dict[str, str]] = {**_Optimizers.MEMBERS, "Stages": "stages"}
    REQUIRED: ClassVar[frozenset[str]] = frozenset({"Stages"})

    type: Literal[
        "Evaluate",
        "LabeledFewShot",
        "BootstrapFewShot",
        "BootstrapFewShotWithRandomSearch",
        "MIPROv2",
        "GEPA",
        "COPRO",
        "SIMBA",
        "InferRules",
        "Stages",
    ] = spec_field(
        INPUT, "The optimizer. Evaluate changes nothing: a judged score, for gates in CI and for a change of model."
    )
    stages: StagesOptions | None = spec_field(INPUT, "Options of Stages.", default=None)

    @property
    def types(self) -> tuple[str, ...]:
        """The optimizers that run: itself, or those of its stages."""
        return tuple(stage.type for stage in self.stages.stages) if self.stages is not None else (self.type,)


OPTIONS: dict[str, type[OptimizerOptions]] = {
    "Evaluate": OptimizerOptions,
    "LabeledFewShot": LabeledFewShotOptions,
    "BootstrapFewShot": BootstrapFewShotOptions,
    "BootstrapFewShotWithRandomSearch": BootstrapFewShotWithRandomSearchOptions,
    "MIPROv2": MIPROv2Options,
    "GEPA": GEPAOptions,
    "COPRO": COPROOptions,
    "InferRules": InferRulesOptions,
    "SIMBA": SIMBAOptions,
    "Stages": StagesOptions,
}
"""The options of each optimizer type that the runner has."""


class ProgramRef(ApiModel):
    """A PromptProgram of the same namespace."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            id="program-ref-stays",
            cel="self.name == oldSelf.name",
            message="the program of a run cannot be changed: make another run",
            field=".name",
            reason="FieldValueForbidden",
        ),
    )

    name: ObjectName = spec_field(IMMUTABLE, "Name of the PromptProgram.")


class RoleEndpoint(EndpointRef):
    """The endpoint that plays a role, and how it samples there."""

    request: SamplingRequest | None = spec_field(
        INPUT,
        "Overrides for this role, field by field. Unset means as the program's target says for the task; prompt and judge sample on "
        "their own terms: temperature 1 and 0, and nothing else.",
        default=None,
    )


class RoleEndpoints(ApiModel):
    """Which endpoint plays which role."""

    task: RoleEndpoint | None = spec_field(
        INPUT, "Answers the program's calls; unset means the program's target.", default=None
    )
    prompt: RoleEndpoint | None = spec_field(
        INPUT,
        "Writes and criticizes prompts (MIPROv2, GEPA, COPRO, InferRules, SIMBA); unset means the task endpoint.",
        default=None,
    )
    judge: RoleEndpoint | None = spec_field(
        INPUT,
        "Grades answers where the metric is Judge, or a part of it or the reward of BestOfN or Refine is; at temperature 0 unless its request "
        "says otherwise. Unset means the task endpoint.",
        default=None,
    )


Pacing = Literal["Adaptive", "Fixed"]
"""Whether a 429 makes a run ask less at a time."""


class Budget(ApiModel):
    """Hard limits over this run's whole life; at least one of calls, tokens, cost."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            id="budget-has-a-limit",
            cel="has(self.calls) || has(self.tokens) || has(self.cost)",
            message="at least one of calls, tokens, cost is required",
            reason="FieldValueRequired",
        ),
        decimal_rule("cost", above="0"),
        above_zero_rule("wallClock"),
    )

    calls: Annotated[int, Field(ge=1, le=100_000_000)] | None = spec_field(
        LIVE, "Most HTTP requests, retries included; unset means no limit of calls.", default=None
    )
    tokens: Annotated[int, Field(ge=1, le=1_000_000_000_000)] | None = spec_field(
        LIVE, "Most input and output tokens, as the servers report them; unset means no limit of tokens.", default=None
    )
    cost: DecimalString | None = spec_field(
        LIVE,
        'Most money, in the currency of the endpoints\' `pricing`, for example "4.00"; unset means no limit of cost.',
        default=None,
    )
    wall_clock: Duration | None = spec_field(
        LIVE, 'Longest run time of all tries together, for example "2h"; unset means no limit of time.', default=None
    )

    @model_validator(mode="after")
    def _at_least_one(self) -> Self:
        if self.calls is None and self.tokens is None and self.cost is None:
            raise PydanticCustomError("budget", "at least one of calls, tokens, cost is required")
        return self


class StartRevision(ApiModel):
    """A revision of the program by name."""

    name: ForeignName = spec_field(INPUT, "Name of the revision's ConfigMap, for example triage-1f2e3d4c.")


class StartFrom(UnionModel):
    """What the optimizer begins with; `type` names the member that is set."""

    MEMBERS: ClassVar[dict[str, str]] = {"Revision": "revision"}
    REQUIRED: ClassVar[frozenset[str]] = frozenset({"Revision"})

    type: Literal["Baseline", "Current", "Revision"] = spec_field(
        INPUT,
        "Baseline: the program as it is written. Current: what is served when the attempt begins. Revision: the one that is named.",
    )
    revision: StartRevision | None = spec_field(INPUT, "The revision that is begun with.", default=None)


class Goal(ApiModel):
    """When the optimizer may stop early; at least one of score, patience."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            id="goal-says-when",
            cel="has(self.score) || has(self.patience)",
            message="at least one of score, patience is required",
            reason="FieldValueRequired",
        ),
        decimal_rule("score", above="0", at_most="100"),
    )

    score: DecimalString | None = spec_field(
        INPUT,
        "Score on the rows that the optimizer compares on, of 0 to 100, that is good enough; unset means none is.",
        default=None,
    )
    patience: Annotated[int, Field(ge=1, le=10_000)] | None = spec_field(
        INPUT,
        "Candidates in a row, scored on those rows and none of them better, after which it stops; unset means it goes on.",
        default=None,
    )

    @model_validator(mode="after")
    def _says_when(self) -> Self:
        if self.score is None and self.patience is None:
            raise PydanticCustomError("goal", "at least one of score, patience is required")
        return self


class Deadlines(ApiModel):
    """How long a run may stand still."""

    RULES: ClassVar[tuple[Rule, ...]] = (above_zero_rule("pending"), above_zero_rule("progress"))

    pending: Duration | None = spec_field(
        EXECUTION, 'Longest wait for a Secret, an endpoint or a node in one go; unset means "24h".', default=None
    )
    progress: Duration | None = spec_field(
        EXECUTION, 'Longest time without a sign of life from the pod; unset means "15m".', default=None
    )


class Cleanup(ApiModel):
    """When the Job, the pod and the journal of an ended run are removed; the object itself stays."""

    succeeded: Duration | None = spec_field(
        CONTROL, 'After success; "0s" means at once; unset means "24h".', default=None
    )
    failed: Duration | None = spec_field(
        CONTROL, 'After a failure, a cancellation or an exhausted budget; unset means "168h".', default=None
    )


class JournalVolume(ApiModel):
    """The volume that is claimed for a journal."""

    size: Quantity | None = spec_field(EXECUTION, 'How much is claimed; unset means "1Gi".', default=None)
    storage_class_name: ForeignName | None = spec_field(
        EXECUTION, "StorageClass of the volume; unset means the cluster's default.", default=None
    )


class Journal(UnionModel):
    """Where the journal of paid answers is; `type` names the member that may be set."""

    MEMBERS: ClassVar[dict[str, str]] = {"PersistentVolumeClaim": "persistentVolumeClaim"}

    type: Literal["PersistentVolumeClaim", "EmptyDir"] = spec_field(
        EXECUTION,
        "PersistentVolumeClaim: outlives pods and nodes. EmptyDir: a lost pod costs the answers that it had.",
    )
    persistent_volume_claim: JournalVolume | None = spec_field(
        EXECUTION, "Options of PersistentVolumeClaim.", default=None
    )


class AnswersFrom(ApiModel):
    """Other runs whose answers are taken where they answered the same request."""

    runs: Annotated[list[ForeignName], Field(min_length=1, max_length=8)] = spec_field(
        EXECUTION, "Names of OptimizationRuns of this namespace whose journals are kept."
    )


SCORE_NO_CANDIDATES = ("Evaluate", "LabeledFewShot", "BootstrapFewShot", "SIMBA")
"""Optimizers that score no candidate on all rows before their end, so that nothing could end them earlier."""
_GOAL_FOR_NOTHING = "ends nothing early here: {type} scores no candidate on all rows before its end"


class OptimizationRunSpec(ApiModel):
    """How to improve a program, and what that may cost."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            id="goal-ends-something",
            cel=f"!has(self.goal) || !(self.optimizer.type in {list(SCORE_NO_CANDIDATES)})",
            message=filled(f"goal {_GOAL_FOR_NOTHING}", type="self.optimizer.type"),
            computed=True,
            field=".goal",
            reason="FieldValueForbidden",
        ),
    )

    program_ref: ProgramRef = spec_field(IMMUTABLE, "The program to improve.")
    optimizer: Optimizer = spec_field(INPUT, "How it is improved.")
    endpoints: RoleEndpoints | None = spec_field(
        INPUT, "Which endpoint plays which role; unset means that the program's target plays all.", default=None
    )
    start_from: StartFrom | None = spec_field(
        INPUT, "What the optimizer begins with, looked up once; unset means Baseline.", default=None
    )
    goal: Goal | None = spec_field(
        INPUT,
        "When it may stop early; refused where the optimizer scores no candidate on all rows before its end. Unset means not before its end.",
        default=None,
    )
    seed: int | None = spec_field(INPUT, "Seed of everything random; unset means 0.", default=None, ge=0, le=2**31 - 1)
    repeats: int | None = spec_field(
        INPUT,
        "Answers to each row where the task model samples: each program's mean is judged, and the best are asked anew before one is "
        "chosen; 1 asks once. At temperature 0 a row is asked once. Unset means 3.",
        default=None,
        ge=1,
        le=16,
    )
    budget: Budget = spec_field(
        LIVE, "What the run may spend in its whole life, over all tries; at least one of calls, tokens, cost."
    )
    concurrency: int | None = spec_field(
        LIVE, "Most requests of this run at a time; unset means 4.", default=None, ge=1, le=256
    )
    pacing: Pacing | None = spec_field(
        LIVE,
        "Adaptive: an endpoint that answers 429 is asked half as much at a time, and more again as it answers, up to `concurrency`. "
        "Fixed: always as much as `concurrency` says; each 429 is a call of the budget. Unset means Adaptive.",
        default=None,
    )
    mode: Literal["Run", "Estimate"] | None = spec_field(
        INPUT,
        "Estimate: validate and estimate calls, tokens and cost without calling a model. Unset means Run.",
        default=None,
    )
    suspend: bool | None = spec_field(
        CONTROL, "true: the pod is stopped, nothing is lost; false: it goes on. Unset means false.", default=None
    )
    stop: Literal["Finish", "Cancel"] | None = spec_field(
        LIVE,
        "Finish: judge and publish the best so far, now. Cancel: end as failed. Unset means that it comes to its own end.",
        default=None,
    )
    rerun: Annotated[str, Field(min_length=1, max_length=64)] | None = spec_field(
        CONTROL,
        "Any text; another one than before runs an ended run again, with its journal and what it spent. Unset means never.",
        default=None,
    )
    ready_when: Literal["Accepted", "Finished"] | None = spec_field(
        CONTROL,
        "What the condition Ready waits for, and with it helm --wait and Argo CD; unset means Accepted.",
        default=None,
    )
    priority_class_name: ForeignName | None = spec_field(
        EXECUTION, "PriorityClass of the pod; unset means the cluster's default.", default=None
    )
    deadlines: Deadlines | None = spec_field(
        EXECUTION, "How long the run may stand still; unset means as its fields say.", default=None
    )
    retries: Annotated[int, Field(ge=0, le=100)] | None = spec_field(
        EXECUTION,
        "Tries after a pod that was lost, killed or ended by a bug; an endpoint's outage takes none. Unset means 6.",
        default=None,
    )
    cleanup: Cleanup | None = spec_field(
        CONTROL, "When Job, pod and journal of an ended run are removed; unset means as its fields say.", default=None
    )
    ttl_after_finished: Duration | None = spec_field(
        CONTROL,
        "When the object itself is removed after its end; for generateName and hooks, since Git would make it again. Unset means never.",
        default=None,
    )
    reuse: Literal["IfSameInputs", "Never"] | None = spec_field(
        CONTROL,
        "IfSameInputs: a kept result of the same inputs is taken, without a call. Never: they are computed again. Unset means IfSameInputs.",
        default=None,
    )
    journal: Journal | None = spec_field(
        EXECUTION, "Where the journal is; unset means a PersistentVolumeClaim of 1Gi.", default=None
    )
    answers_from: AnswersFrom | None = spec_field(
        EXECUTION,
        "Runs whose journals are read for answers at temperature 0 before a model is asked: what they paid for is not paid again. "
        "Unset means none.",
        default=None,
    )
    pod_template: PodTemplate | None = spec_field(
        EXECUTION, "What is added to the pod; unset means nothing.", default=None
    )

    @model_validator(mode="after")
    def _goal_ends_something(self) -> Self:
        if self.goal is not None and self.optimizer.type in SCORE_NO_CANDIDATES:
            raise PydanticCustomError("goal", f"goal {_GOAL_FOR_NOTHING}", {"type": self.optimizer.type})
        return self
