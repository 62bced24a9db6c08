"""OptimizationQuota: what a platform team grants to the namespaces that it selects."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dspy_operator.api.fields import ApiModel, DecimalString, FieldClass, spec_field
from dspy_operator.api.rules import Rule, decimal_rule
from dspy_operator.api.selector import NamespaceSelector

CONTROL = FieldClass.CONTROL

Calls = Annotated[int, Field(ge=0, le=100_000_000_000)]
Tokens = Annotated[int, Field(ge=0, le=1_000_000_000_000_000)]

_COST = decimal_rule("cost", at_least="0")


class Amounts(ApiModel):
    """Calls, tokens and money."""

    RULES: ClassVar[tuple[Rule, ...]] = (_COST,)

    calls: Calls | None = spec_field(CONTROL, "HTTP requests, retries included; unset means no limit.", default=None)
    tokens: Tokens | None = spec_field(CONTROL, "Input and output tokens; unset means no limit.", default=None)
    cost: DecimalString | None = spec_field(
        CONTROL, "Money, in the currency of the endpoints' pricing; unset means no limit.", default=None
    )


class QuotaLimits(Amounts):
    """What all runs of the selected namespaces may take together."""

    concurrent_runs: Annotated[int, Field(ge=0, le=10_000)] | None = spec_field(
        CONTROL, "Runs that are admitted at a time; unset means no limit.", default=None
    )


class RunBudget(ApiModel):
    """What one run may ask for."""

    default: Amounts | None = spec_field(CONTROL, "The limits of a run that sets none of that sort.", default=None)
    max: Amounts | None = spec_field(
        CONTROL, "The highest limits of a run; one that asks for more is refused.", default=None
    )


class FairSharing(ApiModel):
    """Who comes first where there is not enough for all."""

    weight: Annotated[int, Field(ge=1, le=1000)] = spec_field(
        CONTROL, "Share of these namespaces beside those of other quotas."
    )


class OptimizationQuotaSpec(ApiModel):
    """What runs of the selected namespaces may take."""

    namespace_selector: NamespaceSelector = spec_field(
        CONTROL, "Namespaces whose runs count; every quota of a namespace must admit."
    )
    limits: QuotaLimits = spec_field(CONTROL, "What all of them may take together, in one period.")
    period: Literal["Day", "Week", "Month", "Total"] | None = spec_field(
        CONTROL, "When calls, tokens and cost begin anew, at midnight UTC; unset means Total: never.", default=None
    )
    run_budget: RunBudget | None = spec_field(CONTROL, "What one run may ask for.", default=None)
    fair_sharing: FairSharing | None = spec_field(CONTROL, "Who comes first.", default=None)
