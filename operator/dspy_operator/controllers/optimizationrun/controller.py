"""Gathers what `decide` needs for one run, and hands its Plan to the engine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from dspy_operator.api.objects import InvalidObject, Kind, ModelEndpoint, OptimizationRun, PromptProgram, parse_object
from dspy_operator.api.reasons import RunReason
from dspy_operator.contract import names
from dspy_operator.controllers.admission.grants import ADMISSION, Grants
from dspy_operator.controllers.optimizationrun.decide import decide, unheard
from dspy_operator.controllers.optimizationrun.facts import Decision, Facts
from dspy_operator.controllers.optimizationrun.inputs import EndpointSeen, roles_of
from dspy_operator.controllers.optimizationrun.pace import held_back
from dspy_operator.controllers.optimizationrun.told import stuck
from dspy_operator.controllers.shown import shown
from dspy_operator.engine.plan import Body, Key, Plan, Ref, Settings, World

KNOWN_NAMES = 20
"""Of what exists, for a message that something does not."""

_OWN = frozenset({"progress", "usage", "effective", "queue"})
"""Of the status, for people: it changes while a run waits or its pod reports."""


class OptimizationRunController:
    """The room of one kind.

    Args:
        grants: shared with the room of admission.
    """

    kind = "OptimizationRun"

    def __init__(self, settings: Settings, grants: Grants) -> None:
        self._settings = settings
        self._grants = grants
        self._written: dict[Key, datetime] = {}
        """When a live run's status was written last, or first seen; a restart forgets it and waits a full interval."""

    def references(self, body: Body) -> Iterable[Key]:
        """Its program, its endpoints and the runs whose answers it takes.

        The target of its program is known by what the status tells: by the frozen inputs and the slots of a run that has
        them, by `queue.waitingFor` of one that waits for it.
        """
        namespace, spec, status = body["metadata"]["namespace"], body.get("spec") or {}, body.get("status") or {}
        yield Key("PromptProgram", namespace, spec["programRef"]["name"])
        for name in (spec.get("answersFrom") or {}).get("runs") or ():
            yield Key("OptimizationRun", namespace, name)
        endpoints = {
            f"{of.get('namespace') or namespace}/{of['name']}" for of in (spec.get("endpoints") or {}).values()
        }
        endpoints |= {of["name"] for of in ((status.get("inputs") or {}).get("endpoints") or {}).values()}
        endpoints |= ((status.get("admission") or {}).get("slots") or {}).keys()
        kind, _, waiting_for = ((status.get("queue") or {}).get("waitingFor") or "").partition(" ")
        if kind == "ModelEndpoint":
            endpoints.add(waiting_for)
        for endpoint in sorted(endpoints):
            where, _, name = endpoint.partition("/")
            yield Key("ModelEndpoint", where, name)

    def shown(self, body: Body) -> Any:
        """What runs, programs and endpoints look at; the engine asks."""
        return shown(body, _OWN)

    async def reconcile(self, key: Key, world: World) -> Plan:
        """One pass."""
        body = world.get(*key)
        if body is None:
            return Plan()
        try:
            run = parse_object(body)
        except InvalidObject as invalid:
            return self._paced(
                key, body, stuck(body, RunReason.INVALID_SPEC, str(invalid), world.now(), accepted=False), world
            )
        assert isinstance(run, OptimizationRun)
        facts = self._facts(key, body, run, world)
        if unheard(facts):
            # Pods and ConfigMaps are watched apart, and a watch may be deaf: the pod's last words may be there and not here.
            said = await world.read(Ref("v1", "ConfigMap", key.namespace, names.run_channel(key.name)))
            facts = replace(facts, channel=said or facts.channel)
        decision = decide(facts)
        return self._paced(key, body, self._asked(key, decision), world)

    def _asked(self, key: Key, decision: Decision) -> Plan:
        """The plan, with admission woken where it is asked for something else than before."""
        plan = decision.plan
        if self._grants.ask(key, decision.request) and ADMISSION not in plan.wake:
            return replace(plan, wake=(*plan.wake, ADMISSION))
        return plan

    def _facts(self, key: Key, body: Body, run: OptimizationRun, world: World) -> Facts:
        children = tuple(world.children(key))
        program = world.get("PromptProgram", key.namespace, run.spec.program_ref.name)
        if program is not None and "deletionTimestamp" in program["metadata"]:
            program = None
        typed = _typed(program)
        assert typed is None or isinstance(typed, PromptProgram)
        wanted = set(roles_of(run, typed).values())
        status = body.get("status") or {}
        wanted |= {of["name"] for of in ((status.get("inputs") or {}).get("endpoints") or {}).values()}
        endpoints = {endpoint: seen for endpoint in wanted if (seen := _endpoint(endpoint, world)) is not None}
        account = world.get("ConfigMap", key.namespace, names.program_account(run.spec.program_ref.name))
        revisions = _revisions(key.namespace, run.spec.program_ref.name, world)
        return Facts(
            now=world.now(),
            body=body,
            run=run,
            program=program,
            program_typed=typed,
            endpoints=endpoints,
            account=account,
            children=children,
            channel=_child(children, "ConfigMap", names.run_channel(key.name)),
            answer=self._grants.answer(key),
            revisions={digest: name for name, digest in revisions.items()},
            revision_digests=revisions,
            image=self._settings.runner_image,
            pull_policy=self._settings.image_pull_policy,
            journals=_journals(key.namespace, run, world),
            known_programs=_few(world.all("PromptProgram", key.namespace)) if program is None else (),
            known_endpoints=_few(_open_to(key.namespace, world)) if len(endpoints) < len(wanted) else (),
            foreign=tuple(world.foreign(key)),
        )

    def _paced(self, key: Key, body: Body, plan: Plan, world: World) -> Plan:
        """The plan with its status held back while that only moves, and was written a moment ago."""
        if plan.status is None:
            return plan
        before, now = body.get("status") or {}, world.now()
        if before == plan.status:
            if "completionTime" in before:
                self._written.pop(key, None)
            return plan
        wait = held_back(before, plan.status, self._written.setdefault(key, now), now) if before else None
        if wait is None:
            self._written[key] = now
            self._forget_the_gone(world)
            return plan
        return replace(plan, status=None, events=(), requeue_after=_sooner(plan.requeue_after, wait))

    def _forget_the_gone(self, world: World) -> None:
        if len(self._written) > 1000 and len(self._written) % 100 == 0:
            self._written = {key: at for key, at in self._written.items() if world.get(*key) is not None}


def _sooner(one: timedelta | None, other: timedelta) -> timedelta:
    return other if one is None else min(one, other)


def _typed(body: Body | None) -> Kind | None:
    """None too where it does not parse: its own room says so, and ours that it is not ready."""
    if body is None:
        return None
    try:
        return parse_object(body)
    except InvalidObject:
        return None


def _endpoint(name: str, world: World) -> EndpointSeen | None:
    namespace, _, bare = name.partition("/")
    body = world.get("ModelEndpoint", namespace, bare)
    typed = _typed(body)
    if body is None or "deletionTimestamp" in body["metadata"] or not isinstance(typed, ModelEndpoint):
        return None
    return EndpointSeen(typed, body)


def _child(children: Iterable[Body], kind: str, name: str) -> Body | None:
    return next((of for of in children if (of["kind"], of["metadata"]["name"]) == (kind, name)), None)


def _journals(namespace: str, run: OptimizationRun, world: World) -> dict[str, str]:
    """Run that `answersFrom` names -> the claim of its journal."""
    found = {}
    for name in run.spec.answers_from.runs if run.spec.answers_from else ():
        children = world.children(Key("OptimizationRun", namespace, name))
        claim = _child(children, "PersistentVolumeClaim", names.run_journal(name))
        if claim is not None and "deletionTimestamp" not in claim["metadata"]:
            found[name] = names.run_journal(name)
    return found


def _revisions(namespace: str, program: str, world: World) -> dict[str, str]:
    """Name -> digest of the program's revision ConfigMaps."""
    found = {}
    for child in world.children(Key("PromptProgram", namespace, program)):
        metadata = child["metadata"]
        if (metadata.get("labels") or {}).get(names.LABEL_COMPONENT) == names.Component.REVISION:
            digest = (metadata.get("annotations") or {}).get(names.ANNOTATION_DIGEST)
            if digest:
                found[metadata["name"]] = digest
    return found


def _open_to(namespace: str, world: World) -> Iterable[Body]:
    """Endpoints that a message may name: what else there is in other namespaces is not this one's business."""
    for body in world.all("ModelEndpoint"):
        access = (body.get("spec") or {}).get("access") or {}
        if body["metadata"]["namespace"] == namespace or (access.get("namespaces") or {}).get("from") == "All":
            yield body


def _few(bodies: Iterable[Body]) -> tuple[str, ...]:
    found = []
    for body in bodies:
        metadata = body["metadata"]
        name = metadata["name"]
        found.append(name if body["kind"] == "PromptProgram" else f"{metadata['namespace']}/{name}")
        if len(found) == KNOWN_NAMES:
            break
    return tuple(found)
