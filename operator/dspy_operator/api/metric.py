"""How good one answer is, 0 to 1."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from dspy_operator.api.code import CodeRef
from dspy_operator.api.fields import (
    ApiModel,
    ColumnName,
    DecimalString,
    FieldClass,
    FieldName,
    UnionModel,
    spec_field,
)
from dspy_operator.api.rules import Rule, decimal_rule

INPUT = FieldClass.INPUT

Outputs = Annotated[list[FieldName], Field(min_length=1, max_length=32)]


class FieldsMetric(ApiModel):
    """Which outputs a metric compares."""

    fields: Outputs | None = spec_field(
        INPUT, "The outputs that are compared; unset means all outputs. The score is their mean.", default=None
    )


class ContainsMetric(FieldsMetric):
    """Whether the answer has what is expected somewhere in it."""

    ignore_case: bool | None = spec_field(
        INPUT, "true: upper and lower case are alike; unset means false.", default=None
    )


class RegexMetric(ApiModel):
    """Whether an output matches a pattern."""

    field: FieldName = spec_field(INPUT, "The output that is looked at.")
    pattern: Annotated[str, Field(min_length=1, max_length=1024)] = spec_field(
        INPUT, "A regular expression (RE2); it may match anywhere. What is no text is matched as JSON."
    )


class NumericMetric(FieldsMetric):
    """Whether numbers are near enough."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        decimal_rule("tolerance", at_least="0"),
        decimal_rule("relativeTolerance", at_least="0"),
    )

    tolerance: DecimalString | None = spec_field(
        INPUT, 'Most that an answer may be off; unset means "0".', default=None
    )
    relative_tolerance: DecimalString | None = spec_field(
        INPUT,
        'Most that an answer may be off, as a part of what is expected; unset means "0". The larger of the two counts.',
        default=None,
    )


class JudgeReward(ApiModel):
    """A model that plays the judge grades the answer."""

    instructions: Annotated[str, Field(min_length=1, max_length=32768)] = spec_field(
        INPUT,
        "The rubric: what the judge looks at, and when an answer is good. It is no template: the judge is shown the inputs and the answer.",
    )
    fields: Outputs | None = spec_field(INPUT, "The outputs that the judge reads; unset means all.", default=None)
    scale: Annotated[int, Field(ge=1, le=100)] | None = spec_field(
        INPUT, "Best grade, the worst is 0; unset means 1: good or not.", default=None
    )


class Calibration(ApiModel):
    """Answers that people graded: how far the judge agrees with them is told before anything else is asked."""

    RULES: ClassVar[tuple[Rule, ...]] = (decimal_rule("minKappa", at_least="0", at_most="1"),)

    answer: ColumnName = spec_field(
        INPUT,
        "The column with an answer that a person graded; where the judge reads several outputs, an object of them.",
    )
    grade: ColumnName = spec_field(
        INPUT,
        "The column with that person's grade, a whole number from 0 to `scale`; pairwise 0 is worse than what was expected, 1 "
        "neither, 2 better. A row without one is not asked about.",
    )
    min_kappa: DecimalString | None = spec_field(
        INPUT,
        'Least agreement, Cohen\'s kappa (of more than two grades with quadratic weights), for example "0.6"; below it the run ends '
        "before its baseline. Unset means that it is only told.",
        default=None,
    )


class JudgeMetric(JudgeReward):
    """A model that plays the judge grades the answer, and is shown what was expected."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            id="votes-are-odd",
            cel="!has(self.votes) || self.votes % 2 == 1",
            message="votes must be odd",
            field=".votes",
        ),
        Rule(
            id="combine-needs-votes",
            cel="!has(self.combine) || has(self.votes)",
            message="combine needs votes",
            field=".combine",
        ),
        Rule(
            id="pairwise-has-no-scale",
            cel="!has(self.pairwise) || !self.pairwise || !has(self.scale)",
            message="scale must not be set with pairwise: an answer is better, worse, or neither",
            field=".scale",
        ),
    )

    pairwise: bool | None = spec_field(
        INPUT,
        "true: the answer is compared with what was expected, twice, each of the two once first and once second. Better both times "
        "scores 1, worse both times 0, anything else 0.5. Unset means false: it is graded.",
        default=None,
    )

    votes: Annotated[int, Field(ge=1, le=9)] | None = spec_field(
        INPUT,
        "How often the judge is asked for each answer, an odd number; above 1 the temperature of the run's judge must be above 0. Unset means 1.",
        default=None,
    )
    calibration: Calibration | None = spec_field(
        INPUT,
        "Dev rows that hold an answer and a person's grade of it; unset means that nobody checks the judge.",
        default=None,
    )
    combine: Literal["Median", "Mean"] | None = spec_field(
        INPUT,
        "What several grades come to. Median: the one in the middle, of good or not the majority. Mean: their mean. Unset means Median.",
        default=None,
    )

    @model_validator(mode="after")
    def _votes(self) -> Self:
        if self.votes is not None and self.votes % 2 == 0:
            raise PydanticCustomError("range", "votes must be odd")
        if self.combine is not None and self.votes is None:
            raise PydanticCustomError("range", "combine needs votes")
        if self.pairwise and self.scale is not None:
            raise PydanticCustomError(
                "range", "scale must not be set with pairwise: an answer is better, worse, or neither"
            )
        return self


Type = Literal["ExactMatch", "F1", "Contains", "Regex", "JSONEqual", "Numeric", "Judge", "Code"]


class PartMetric(UnionModel):
    """One metric of several; `type` names the member that may be set."""

    MEMBERS: ClassVar[dict[str, str]] = {
        "ExactMatch": "exactMatch",
        "F1": "f1",
        "Contains": "contains",
        "Regex": "regex",
        "JSONEqual": "jsonEqual",
        "Numeric": "numeric",
        "Judge": "judge",
        "Code": "code",
    }
    REQUIRED: ClassVar[frozenset[str]] = frozenset({"Regex", "Judge", "Code"})

    type: Type = spec_field(
        INPUT,
        "ExactMatch: equal or not. F1: overlap of words. Contains: it is in the answer. Regex: a pattern matches. JSONEqual: the same "
        "JSON value. Numeric: near enough. Judge: a model grades. Code: a function of one's own.",
    )
    exact_match: FieldsMetric | None = spec_field(INPUT, "Options of ExactMatch.", default=None)
    f1: FieldsMetric | None = spec_field(INPUT, "Options of F1.", default=None, alias="f1")
    contains: ContainsMetric | None = spec_field(INPUT, "Options of Contains.", default=None)
    regex: RegexMetric | None = spec_field(INPUT, "Options of Regex.", default=None)
    json_equal: FieldsMetric | None = spec_field(INPUT, "Options of JSONEqual.", default=None)
    numeric: NumericMetric | None = spec_field(INPUT, "Options of Numeric.", default=None)
    judge: JudgeMetric | None = spec_field(INPUT, "Options of Judge.", default=None)
    code: CodeRef | None = spec_field(INPUT, "Where the function is.", default=None)


class WeightedMetric(ApiModel):
    """A part of a composite metric."""

    RULES: ClassVar[tuple[Rule, ...]] = (decimal_rule("weight", above="0"),)

    metric: PartMetric = spec_field(INPUT, "How good the answer is in this respect.")
    weight: DecimalString | None = spec_field(
        INPUT, 'How much it counts beside the others; unset means "1".', default=None
    )


class CompositeMetric(ApiModel):
    """The weighted mean of several metrics; none of them is a composite itself."""

    parts: Annotated[list[WeightedMetric], Field(min_length=2, max_length=8)] = spec_field(INPUT, "The metrics.")


class Feedback(ApiModel):
    """What an optimizer that reads feedback (GEPA) is told of an answer."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            id="feedback-from-one-place",
            cel="has(self.template) != has(self.column)",
            message="exactly one of template, column is required",
        ),
    )

    template: Annotated[str, Field(min_length=1, max_length=4096)] | None = spec_field(
        INPUT,
        "A text with {expected.<output>}, {found.<output>} and {score} in it, braces written twice; unset where a column "
        "has the feedback.",
        default=None,
    )
    column: ColumnName | None = spec_field(
        INPUT,
        "The column of the dataset that has the feedback; unset where a template makes it. A row without one gets the "
        "metric's own.",
        default=None,
    )

    @model_validator(mode="after")
    def _from_one_place(self) -> Self:
        if (self.template is None) == (self.column is None):
            raise PydanticCustomError("exactly_one", "exactly one of template, column is required")
        return self


class Metric(UnionModel):
    """How good one answer is, 0 to 1; `type` names the member that may be set."""

    MEMBERS: ClassVar[dict[str, str]] = {**PartMetric.MEMBERS, "Composite": "composite"}
    REQUIRED: ClassVar[frozenset[str]] = PartMetric.REQUIRED | {"Composite"}

    RULES: ClassVar[tuple[Rule, ...]] = (decimal_rule("accept", above="0", at_most="1"),)

    type: Literal["ExactMatch", "F1", "Contains", "Regex", "JSONEqual", "Numeric", "Judge", "Composite", "Code"] = (
        spec_field(
            INPUT,
            "ExactMatch: equal or not. F1: overlap of words. Contains: it is in the answer. Regex: a pattern matches. JSONEqual: the "
            "same JSON value. Numeric: near enough. Judge: a model grades. Composite: several together. Code: a function of one's own.",
        )
    )
    exact_match: FieldsMetric | None = spec_field(INPUT, "Options of ExactMatch.", default=None)
    f1: FieldsMetric | None = spec_field(INPUT, "Options of F1.", default=None, alias="f1")
    contains: ContainsMetric | None = spec_field(INPUT, "Options of Contains.", default=None)
    regex: RegexMetric | None = spec_field(INPUT, "Options of Regex.", default=None)
    json_equal: FieldsMetric | None = spec_field(INPUT, "Options of JSONEqual.", default=None)
    numeric: NumericMetric | None = spec_field(INPUT, "Options of Numeric.", default=None)
    judge: JudgeMetric | None = spec_field(INPUT, "Options of Judge.", default=None)
    composite: CompositeMetric | None = spec_field(INPUT, "Options of Composite.", default=None)
    code: CodeRef | None = spec_field(INPUT, "Where the function is.", default=None)
    feedback: Feedback | None = spec_field(INPUT, "What GEPA is told of an answer.", default=None)
    accept: DecimalString | None = spec_field(
        INPUT,
        'The score from which an answer is good enough to become a demonstration, above "0" to "1"; unset means "1".',
        default=None,
    )

    @property
    def judges(self) -> dict[str, JudgeMetric]:
        """Path within the metric -> what a judge grades: itself, or parts of a composite."""
        parts = self.composite.parts if self.composite is not None else ()
        found = {"judge": self.judge} | {
            f"composite.parts[{number}].metric.judge": part.metric.judge for number, part in enumerate(parts)
        }
        return {path: judge for path, judge in found.items() if judge is not None}

    @property
    def codes(self) -> dict[str, CodeRef]:
        """Path within the metric -> a function of one's own: itself, or parts of a composite."""
        parts = self.composite.parts if self.composite is not None else ()
        found = {"code": self.code} | {
            f"composite.parts[{number}].metric.code": part.metric.code for number, part in enumerate(parts)
        }
        return {path: code for path, code in found.items() if code is not None}


class Reward(UnionModel):
    """How good an answer is where nothing says what is expected; `type` names the member that is set."""

    MEMBERS: ClassVar[dict[str, str]] = {"Regex": "regex", "Judge": "judge", "Code": "code"}
    REQUIRED: ClassVar[frozenset[str]] = frozenset({"Regex", "Judge", "Code"})

    type: Literal["Regex", "Judge", "Code"] = spec_field(
        INPUT, "Regex: a pattern matches. Judge: a model grades. Code: a function of one's own."
    )
    regex: RegexMetric | None = spec_field(INPUT, "Options of Regex.", default=None)
    judge: JudgeReward | None = spec_field(INPUT, "Options of Judge.", default=None)
    code: CodeRef | None = spec_field(INPUT, "Where the function is.", default=None)
