"""Whether a run can be worked with, and whether it may start now: each no with its reason, its path and its numbers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dspy_operator.api.objects import OptimizationRun, PromptProgram
from dspy_operator.api.reasons import EndpointReason, RunReason
from dspy_operator.contract.access import closed
from dspy_operator.contract.adapters import is_open, probe_calls
from dspy_operator.contract.calls import (
    least_calibration_calls,
    least_row_calls,
    preflight_calls,
    scored_row_calls,
)
from dspy_operator.contract.effects import unsafe_tool
from dspy_operator.contract.exits import RunFailed
from dspy_operator.contract.repeats import by_validation, choice_calls
from dspy_operator.contract.reserve import judgement_calls, too_small
from dspy_operator.contract.runspec import RunSpec
from dspy_operator.controllers.optimizationrun.inputs import EndpointSeen, field_of
from dspy_operator.engine.conditions import find
from dspy_operator.engine.plan import Body


@dataclass(frozen=True)
class Refusal:
    """Why a run is not accepted, or not admitted."""

    reason: RunReason
    message: str
    waiting_for: str = ""
    """`Kind namespace/name` of what would change it; empty where the run itself has to."""

    @property
    def waits(self) -> bool:
        """Whether somebody else's doing recovers it, so that nothing is stalled. Prices do not come by themselves."""
        return bool(self.waiting_for) and self.reason is not RunReason.PRICING_MISSING

    @property
    def absent(self) -> bool:
        """Whether what the run names does not exist, or not yet."""
        return self.reason in (
            RunReason.PROGRAM_NOT_FOUND,
            RunReason.ENDPOINT_NOT_FOUND,
            RunReason.REVISION_NOT_FOUND,
        )


def program_missing(run: OptimizationRun, known: Sequence[str]) -> Refusal:
    """The program does not exist.

    Args:
        known: names of the programs of the namespace.
    """
    name = f"{run.metadata.namespace}/{run.spec.program_ref.name}"
    return Refusal(
        RunReason.PROGRAM_NOT_FOUND,
        f"spec.programRef.name: PromptProgram {name} does not exist (there are: {_few(known)})",
        f"PromptProgram {name}",
    )


def endpoints_allowed(
    run: OptimizationRun, roles: Mapping[str, str], endpoints: Mapping[str, EndpointSeen], known: Sequence[str]
) -> Refusal | None:
    """Each endpoint that plays a role exists, and lets this namespace use it.

    Args:
        known: `namespace/name` of the endpoints that there are.
    """
    for role, key in roles.items():
        found, path = endpoints.get(key), field_of(run, role)
        if found is None:
            return Refusal(
                RunReason.ENDPOINT_NOT_FOUND,
                f"{path}: ModelEndpoint {key} does not exist (there are: {_few(known)})",
                f"ModelEndpoint {key}",
            )
        if (why := closed(found.typed, run.metadata.namespace)) is not None:
            return Refusal(RunReason.ENDPOINT_NOT_ALLOWED, f"{path}: ModelEndpoint {key} {why}", f"ModelEndpoint {key}")
    return None


def revision_missing(run: OptimizationRun, name: str, known: Iterable[str]) -> Refusal | None:
    """The program has no revision of the name that `startFrom` means.

    Args:
        known: names of the revisions that there are.
    """
    if name in (known := sorted(known)):
        return None
    program, start = run.spec.program_ref.name, run.spec.start_from
    path = "spec.startFrom.revision.name" if start is not None and start.revision is not None else "spec.startFrom"
    return Refusal(
        RunReason.REVISION_NOT_FOUND,
        f"{path}: PromptProgram {run.metadata.namespace}/{program} has no revision {name} (there are: {_few(known)})",
        f"ConfigMap {run.metadata.namespace}/{name}",
    )


def answers_missing(run: OptimizationRun, journals: Mapping[str, str]) -> Refusal | None:
    """A run whose answers are to be taken has no journal.

    Args:
        journals: run -> claim of its journal.
    """
    for number, name in enumerate(run.spec.answers_from.runs if run.spec.answers_from else ()):
        if name not in journals:
            of = f"OptimizationRun {run.metadata.namespace}/{name}"
            return Refusal(
                RunReason.ANSWERS_NOT_FOUND,
                f"spec.answersFrom.runs[{number}]: {of} has no journal: it does not exist, never ran, or was cleaned up",
                of,
            )
    return None


def refused_inputs(failure: RunFailed, endpoints: Mapping[str, EndpointSeen]) -> Refusal:
    """What `resolve` refuses, in the run's own reasons.

    Args:
        endpoints: by `namespace/name`; a missing price is looked for again when the one that lacks it changes.
    """
    path, reason = f"{failure.path}: " if failure.path else "", RunReason(failure.reason.value)
    waiting_for = ""
    if reason is RunReason.PRICING_MISSING:
        unpriced = [key for key, endpoint in endpoints.items() if endpoint.typed.spec.pricing is None]
        waiting_for = f"ModelEndpoint {next(iter(unpriced or endpoints))}"
    return Refusal(reason, f"{path}{failure.message}", waiting_for)


def tool_refused(run: OptimizationRun, spec: RunSpec) -> Refusal | None:
    """The program has a tool that a run must not call."""
    refused = unsafe_tool(spec.program.program.tools)
    if refused is None:
        return None
    path, why = refused
    program = f"PromptProgram {run.metadata.namespace}/{spec.program.name}"
    return Refusal(RunReason.INVALID_PROGRAM, f"{program}: {path}: {why}", program)


def budget_too_small(run: OptimizationRun, spec: RunSpec, dataset: Mapping[str, int]) -> Refusal | None:
    """A budget that certainly cannot pay for its own judgement, by the formula that the runner uses too.

    Args:
        dataset: rows by part, as the program's validation counted them.
    """
    served, begun_with = spec.incumbent and spec.incumbent.revision, spec.start_from and spec.start_from.revision
    candidate = begun_with not in (None, served) if run.spec.optimizer.type == "Evaluate" else True
    known = 1 + (1 if served else 0) + (1 if candidate else 0)
    # Where schemas are found to be kept, the program as it is served is measured beside the one that sends them.
    arms = known + (1 if is_open(spec.program.adapter) and not served else 0)
    per_row = scored_row_calls(spec.program.program, spec.program.metric).most
    test_rows = dataset.get("test", 0)
    judgement = judgement_calls(test_rows, arms, per_row, spec.repeats)
    compared = dataset.get("validation", 0) + (
        0 if by_validation(run.spec.optimizer.types) else dataset.get("train", 0)
    )
    choice = choice_calls(run.spec.optimizer.type, compared, per_row, spec.repeats)
    preflight = preflight_calls(spec) + probe_calls(spec)
    calibration = least_calibration_calls(spec.program.metric)
    made_of = (
        f"judgement {judgement}: {test_rows} test rows x {arms} programs"
        f"{f' x {per_row} calls' if per_row > 1 else ''}{f' x {spec.repeats} repeats' if spec.repeats > 1 else ''}"
        f"{f'; choice between the best {choice}' if choice else ''}; preflight {preflight}"
        f"{f'; calibration at least {calibration}' if calibration else ''}"
    )
    refused = too_small(
        run.spec.budget,
        judgement + choice + preflight + calibration,
        made_of,
        least=judgement_calls(test_rows, known, least_row_calls(spec.program.program), spec.repeats),
        prices=[endpoint.pricing for endpoint in spec.endpoints.values()],
    )
    return Refusal(RunReason.BUDGET_TOO_SMALL, ": ".join(refused)) if refused is not None else None


def program_not_ready(program: Body, typed: PromptProgram | None) -> Refusal | None:
    """The program has no validated rows and no baseline yet."""
    name = f"PromptProgram {program['metadata']['namespace']}/{program['metadata']['name']}"
    accepted = find(program, "Accepted")
    if typed is not None and accepted is not None and accepted["status"] == "True" and _digests(program):
        return None
    if accepted is None:
        return Refusal(RunReason.PROGRAM_NOT_READY, f"{name} was not looked at yet", name)
    words = f"{accepted['reason']}: {accepted.get('message', '')}".rstrip(": ")
    return Refusal(RunReason.PROGRAM_NOT_READY, f"{name} is not ready: {words}", name)


def _digests(program: Body) -> bool:
    status = program.get("status") or {}
    return bool(status.get("programDigest") and (status.get("dataset") or {}).get("digest"))


def endpoint_not_ready(endpoints: Mapping[str, EndpointSeen]) -> Refusal | None:
    """An endpoint that could not answer even if pods were asked for."""
    for key, endpoint in endpoints.items():
        ready = find(endpoint.body, "Ready")
        if ready is not None and ready["status"] == "True":
            continue
        words = (
            "it was not looked at yet"
            if ready is None
            else f"{ready['reason']}: {ready.get('message', '')}".rstrip(": ")
        )
        return Refusal(
            RunReason.ENDPOINT_NOT_READY, f"ModelEndpoint {key} is not ready: {words}", f"ModelEndpoint {key}"
        )
    return None


ANSWERS = frozenset({EndpointReason.MODEL_LOADED, EndpointReason.EXTERNAL})


def not_loaded(endpoints: Mapping[str, EndpointSeen]) -> str | None:
    """What an admitted run waits for before its pod is made: the model of each endpoint in memory."""
    for key, endpoint in endpoints.items():
        ready: Mapping[str, Any] = find(endpoint.body, "Ready") or {}
        if ready.get("status") == "True" and ready.get("reason") in ANSWERS:
            continue
        percent = (endpoint.status.get("pull") or {}).get("percent")
        share = f" {percent} %" if percent is not None and ready.get("reason") == EndpointReason.PULLING else ""
        reason = ready.get("reason", "Pending")
        words = f": {ready['message']}" if ready.get("message") else ""
        return f"ModelEndpoint {key}: {reason}{share}{words}"
    return None


def _few(names: Sequence[str], most: int = 10) -> str:
    """Names for a message."""
    if not names:
        return "none"
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
