"""Gathers who waits and who holds slots, has it decided, and wakes those whose answer changed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from dspy_operator.controllers.admission.decide import Active, decide
from dspy_operator.controllers.admission.grants import ADMISSION, Grants, Waits
from dspy_operator.engine.plan import Body, Key, Plan, World

LOOK_AGAIN = timedelta(seconds=10)
"""While anyone waits: a run that was deleted gives its slots back without a word, and its pod has 10 s to go."""


class AdmissionController:
    """The singleton's room. It writes nothing: each run writes its own admission."""

    kind = ADMISSION.kind

    def __init__(self, grants: Grants) -> None:
        self._grants = grants

    def references(self, body: Body) -> Iterable[Key]:
        """None: it is woken by the runs themselves."""
        return ()

    async def reconcile(self, key: Key, world: World) -> Plan:
        """One decision."""
        runs = {_key(body): body for body in world.all("OptimizationRun")}
        for run, _ in self._grants.requests():
            if run not in runs or "deletionTimestamp" in runs[run]["metadata"]:
                self._grants.forget(run)
        requests = dict(self._grants.requests())
        active = {run: found for run, body in runs.items() if (found := _active(body)) is not None}
        answers = decide(requests, active, self._grants.granted())
        waits = any(isinstance(answer, Waits) for answer in answers.values())
        return Plan(wake=self._grants.settle(answers), requeue_after=LOOK_AGAIN if waits else None)


def _key(body: Body) -> Key:
    return Key(body["kind"], body["metadata"]["namespace"], body["metadata"]["name"])


def _active(body: Body) -> Active | None:
    status = body.get("status") or {}
    admission = status.get("admission")
    if admission is None:
        return None
    program = ""
    if body["spec"].get("mode") != "Estimate":  # an estimate calls no model, and nobody waits for it
        program = f"{body['metadata']['namespace']}/{body['spec']['programRef']['name']}"
    eta = (status.get("progress") or {}).get("eta", "")
    return Active(slots=admission.get("slots") or {}, program=program, eta=eta)
