"""How a run's status is put together: the conditions from what was decided, the figures from what was heard. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from dspy_operator.api.optimizationrun import OptimizationRunSpec
from dspy_operator.api.reasons import ConditionType, RunReason
from dspy_operator.controllers.optimizationrun.accept import Refusal
from dspy_operator.controllers.optimizationrun.account import Ended
from dspy_operator.controllers.optimizationrun.inputs import Outdated
from dspy_operator.controllers.optimizationrun.transitions import Phase
from dspy_operator.engine.conditions import Condition, merged
from dspy_operator.engine.plan import Body, Plan


@dataclass(frozen=True)
class Story:
    """Where a run is, and why."""

    phase: Phase
    reason: RunReason
    message: str = ""
    refused: Refusal | None = None
    """Why it is not accepted."""
    admitted: bool = False
    suspended: bool = False
    ended: Ended | None = None
    stalled: bool = False
    """Nothing moves until somebody changes something, though the run was accepted."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """The other fields of the status, by their names."""


def status_of(
    body: Body,
    spec: OptimizationRunSpec,
    story: Story,
    outdated: Outdated | None,
    now: datetime,
    *,
    is_code: bool = False,
) -> dict[str, Any]:
    """The whole status.

    Args:
        is_code: whether the program is, so that its budget cannot be held to.
    """
    generation = body["metadata"].get("generation", 1)
    before = (body.get("status") or {}).get("conditions") or ()
    told = {
        "phase": story.phase.value,
        "observedGeneration": generation,
        "conditions": merged(
            before, _conditions(spec, story, outdated, is_code=is_code), generation=generation, now=now
        ),
        **story.figures,
    }
    return {name: value for name, value in told.items() if value is not None and value != {}}


def _conditions(
    spec: OptimizationRunSpec, story: Story, outdated: Outdated | None, *, is_code: bool
) -> list[Condition]:
    conditions = [
        _accepted(story),
        _admitted(story),
        _suspended(spec, story),
        *_ends(story),
        *_kstatus(spec, story),
    ]
    if outdated is not None:
        conditions.append(Condition(ConditionType.INPUTS_OUTDATED, outdated.is_so, outdated.reason, outdated.message))
    if is_code:
        message = "the program is code: what it asks a model without dspy.LM is not counted"
        conditions.append(Condition(ConditionType.BUDGET_ENFORCED, False, RunReason.CODE_ASKS_BY_ITSELF, message))
    return conditions


def granted_words(slots: Mapping[str, int]) -> str:
    """`4 requests at a time on team-a/qwen`; of an estimate that it needs none."""
    words = (f"{number} {'request' if number == 1 else 'requests'} at a time on {on}" for on, number in slots.items())
    return ", ".join(words) or "no model is called"


def _accepted(story: Story) -> Condition:
    if story.refused is not None:
        return Condition(ConditionType.ACCEPTED, False, story.refused.reason, story.refused.message)
    return Condition(ConditionType.ACCEPTED, True, RunReason.ACCEPTED)


def _admitted(story: Story) -> Condition:
    if story.ended is not None:
        return Condition(ConditionType.ADMITTED, False, RunReason.ENDED, "the run is over and holds no slots")
    if story.admitted:
        granted = story.figures.get("admission") or {}
        return Condition(ConditionType.ADMITTED, True, RunReason.ADMITTED, granted_words(granted.get("slots") or {}))
    return Condition(ConditionType.ADMITTED, False, story.reason, story.message)


def _suspended(spec: OptimizationRunSpec, story: Story) -> Condition:
    if story.suspended:
        return Condition(ConditionType.SUSPENDED, True, RunReason.SUSPENDED)
    if spec.suspend and story.ended is None and story.reason is RunReason.SUSPENDING:
        return Condition(ConditionType.SUSPENDED, False, RunReason.SUSPENDING, story.message)
    return Condition(ConditionType.SUSPENDED, False, RunReason.NOT_SUSPENDED)


def _ends(story: Story) -> tuple[Condition, Condition]:
    ended = story.ended
    if ended is None:
        return (
            Condition(ConditionType.COMPLETE, False, story.reason, story.message),
            Condition(ConditionType.FAILED, False, story.reason),
        )
    words = f"{ended.path}: {ended.message}" if ended.path and ended.message else ended.message
    return (
        Condition(ConditionType.COMPLETE, ended.complete, ended.reason, words),
        Condition(ConditionType.FAILED, not ended.complete, ended.reason, "" if ended.complete else words),
    )


def _kstatus(spec: OptimizationRunSpec, story: Story) -> tuple[Condition, Condition, Condition]:
    """Ready, Reconciling, Stalled.

    kstatus takes Reconciling=True for "in progress" whatever Ready says, so that it is true only until Ready is: a run
    whose `readyWhen` is Accepted holds up neither `helm --wait` nor a sync wave of Argo CD.
    """
    reason, message = story.reason.value, story.message
    if story.ended is not None:
        reason, message = story.ended.reason, story.ended.message
    if story.stalled or (story.refused is not None and not story.refused.waits):
        ready, stalled = False, True
    elif story.ended is not None:
        ready, stalled = story.ended.complete, not story.ended.complete
    else:
        ready, stalled = story.refused is None and spec.ready_when != "Finished", False
    moving = not ready and not stalled and not story.suspended
    return (
        Condition(ConditionType.READY, ready, reason, message),
        Condition(
            ConditionType.RECONCILING,
            moving,
            reason if moving else RunReason.SETTLED,
            message if moving else "",
        ),
        Condition(
            ConditionType.STALLED,
            stalled,
            reason if stalled else RunReason.SETTLED,
            message if stalled else "",
        ),
    )


def stuck(body: Body, reason: RunReason, message: str, now: datetime, *, accepted: bool = True) -> Plan:
    """A run that nothing can be decided about: told, and nothing else is touched.

    A pod that runs goes on with its frozen inputs and its budget; what is over stays over.

    Args:
        accepted: False where the run's own spec is to blame.
    """
    before: Mapping[str, Any] = body.get("status") or {}
    generation = body["metadata"].get("generation", 1)
    said = [
        Condition(ConditionType.READY, False, reason, message),
        Condition(ConditionType.RECONCILING, False, RunReason.SETTLED),
        Condition(ConditionType.STALLED, True, reason, message),
    ]
    if not accepted:
        said.append(Condition(ConditionType.ACCEPTED, False, reason, message))
    types = {condition.type for condition in said}
    for known in before.get("conditions") or ():
        if known["type"] not in types:
            said.append(Condition(known["type"], known["status"] == "True", known["reason"], known.get("message", "")))
            types.add(known["type"])
    for of in (ConditionType.COMPLETE, ConditionType.FAILED):
        if of not in types:
            said.append(Condition(of, False, reason))
    at_rest = "admission" not in before and "completionTime" not in before
    status = {
        **before,
        "observedGeneration": generation,
        "phase": Phase.REJECTED.value if at_rest else before.get("phase"),
        "conditions": merged(before.get("conditions") or (), said, generation=generation, now=now),
    }
    return Plan(status={name: value for name, value in status.items() if value is not None})
