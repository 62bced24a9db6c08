"""Numbers of a run as its status tells them: decimal strings, whole percents, times for eyes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from dspy_operator.api.optimizationrun import Budget
from dspy_operator.contract.documents import CalibrationReport, Estimate, GateReport, Progress, Score
from dspy_operator.contract.runspec import Usage

_NINTH = Decimal("0.000000001")
"""Digits that a decimal string of the API may have after its point."""


def decimal(number: float | str | Decimal) -> str:
    """A number without loss of what a person could read, and without an exponent: "93.75", "0"."""
    exact = Decimal(repr(number) if isinstance(number, float) else number)
    text = f"{exact.quantize(_NINTH, ROUND_HALF_EVEN):f}"
    return text.rstrip("0").rstrip(".") or "0"


def span(seconds: float) -> str:
    """A length of time for eyes, in its largest unit: "40s", "12m", "3h"."""
    for size, unit in ((3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{round(seconds / size)}{unit}"
    return f"{round(seconds / 10) * 10}s"


def progress(document: Progress, *, ended: bool = False) -> dict[str, Any]:
    """`status.progress`."""
    told: dict[str, Any] = {
        "step": document.step,
        "stage": document.stage,
        "trialsDone": document.trials_done,
        "trialsPlanned": document.trials_planned,
        "percent": min(100, max(0, document.percent)),
    }
    if document.eta_seconds is not None and not ended:
        told["eta"] = span(document.eta_seconds)
    return _known(told)


def live_scores(document: Progress) -> dict[str, Any]:
    """`status.scores` while the pod runs."""
    pairs = (("baseline", document.baseline), ("incumbent", document.incumbent), ("best", document.best))
    return {name: decimal(value) for name, value in pairs if value is not None}


def final_scores(scores: Mapping[str, Score]) -> dict[str, Any]:
    """`status.scores` of a result."""
    dev = (("baseline", "devBaseline"), ("incumbent", "devIncumbent"), ("start", "devStart"), ("best", "devBest"))
    told: dict[str, Any] = {name: decimal(scores[key].score) for name, key in dev if key in scores}
    test = {name: decimal(scores[name].score) for name in ("baseline", "incumbent", "candidate") if name in scores}
    return told | ({"test": test} if test else {})


def gate(report: GateReport) -> dict[str, Any]:
    """`status.gate`."""
    told: dict[str, Any] = {
        name: decimal(value) for name, value in (("p", report.p), ("alpha", report.alpha)) if value is not None
    }
    if report.delta is not None:
        told["delta"] = decimal(round(report.delta, 4))  # as the scores are rounded that it is the difference of
    return told | {"promote": report.promote, "why": report.why[:1024]}


def calibration(reports: Mapping[str, CalibrationReport]) -> dict[str, Any]:
    """`status.calibration`."""
    return {
        path: _known(
            {
                "kappa": decimal(report.kappa) if report.kappa is not None else None,
                "rows": report.rows,
                "agreed": report.agreed,
                "undecided": report.undecided,
            }
        )
        for path, report in reports.items()
    }


def estimate(document: Estimate) -> dict[str, Any]:
    """`status.estimate`."""
    cost = decimal(document.cost) if document.cost is not None else None
    return _known({"calls": document.calls, "tokens": document.tokens, "cost": cost})


def usage(of: Usage, *, priced: bool) -> dict[str, Any]:
    """`status.usage`, or one of its roles.

    Args:
        priced: False where no endpoint of the run has prices: that nothing was counted is not that nothing was spent.
    """
    told = {
        "calls": of.calls,
        "replayed": of.replayed,
        "failed": of.failed,
        "inputTokens": of.input_tokens,
        "cachedInputTokens": of.cached_input_tokens,
        "outputTokens": of.output_tokens,
        "cost": decimal(of.cost),
    }
    if not priced and Decimal(of.cost) == 0:
        del told["cost"]
    return told


def reserved(of: Usage, budget: Budget) -> dict[str, Any]:
    """What is set aside, of what the budget limits."""
    return _known(
        {
            "calls": of.calls if budget.calls is not None else None,
            "tokens": of.tokens if budget.tokens is not None else None,
            "cost": decimal(of.cost) if budget.cost is not None else None,
        }
    )


def _known(told: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if value is not None}
