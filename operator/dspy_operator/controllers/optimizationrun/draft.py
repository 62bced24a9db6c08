"""One pass while it is made: what it looks at, what it has found out, and the Plan that it comes to.

The entry changes as the pass goes on (a try is settled, an attempt begins); what the status tells is always of the entry as
it then is. What a pass did not hear again is told as the status told it before, as long as it is of the same attempt:
figures are kept that way, and nothing is ever decided by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from typing import Any, Literal

from dspy_operator.api.fields import parse_duration
from dspy_operator.api.reasons import RunReason
from dspy_operator.contract import names
from dspy_operator.contract.resolve import DEFAULT_CONCURRENCY
from dspy_operator.contract.runspec import Usage
from dspy_operator.controllers.admission.grants import ADMISSION, Granted, Request
from dspy_operator.controllers.admission.slots import capacity, wanted
from dspy_operator.controllers.optimizationrun import account as accounts
from dspy_operator.controllers.optimizationrun import children, figures
from dspy_operator.controllers.optimizationrun.accept import Refusal
from dspy_operator.controllers.optimizationrun.account import Entry
from dspy_operator.controllers.optimizationrun.facts import Decision, Facts, Following
from dspy_operator.controllers.optimizationrun.inputs import (
    EndpointSeen,
    Frozen,
    Outdated,
    frozen_in,
    inputs_status,
    outdated,
    own_digest,
    roles_of,
)
from dspy_operator.controllers.optimizationrun.told import Story, status_of
from dspy_operator.controllers.optimizationrun.transitions import Phase
from dspy_operator.controllers.optimizationrun.tries import Channel, last_told
from dspy_operator.controllers.pods import attempt_of, of_try, try_of
from dspy_operator.controllers.runnerpod import Owner, owned_by
from dspy_operator.engine.conditions import parse_timestamp, timestamp
from dspy_operator.engine.plan import Body, Delete, Event, Plan, Ref

PENDING_DEADLINE = timedelta(hours=24)
PROGRESS_DEADLINE = timedelta(minutes=15)
LOOK_AGAIN = timedelta(seconds=60)
"""For what wakes nobody when it changes."""
ARRIVAL = timedelta(seconds=10)
"""One `kubectl apply` makes a run, its program and its endpoints in any order (kustomize: the run first): what is absent for
no longer than this is worth no Event. The condition says it at once."""


class Draft:
    """One pass over one run."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.now = facts.now
        self.run = facts.run
        self.spec = facts.run.spec
        self.metadata = facts.body["metadata"]
        self.namespace: str = self.metadata["namespace"]
        self.name: str = self.metadata["name"]
        self.uid: str = self.metadata["uid"]
        self.owner = Owner.of(facts.body)
        self.before: Mapping[str, Any] = facts.body.get("status") or {}
        self.own = own_digest(facts.run)
        # A pod's owner is its Job, which may be gone; its try is enough, for no number is ever used twice.
        self.mine = [child for child in facts.children if child["kind"] == "Pod" or owned_by(child, self.uid)]
        self.entry = Entry()
        """As the account should have it after this pass."""
        self.deletes: list[Delete] = []
        self.events: list[Event] = []

    def plan(self, story: Story, *, requeue: timedelta | None = None) -> Plan:
        """The Plan that tells this story, with all that the pass wants removed and said; children are added to it."""
        if self.facts.foreign:
            taken = " and ".join(f"{ref.kind} {ref.namespace}/{ref.name}" for ref in self.facts.foreign)
            words = f"{taken} belongs to somebody else and has a name that this run needs"
            story = replace(story, reason=RunReason.NAME_CONFLICT, message=words, stalled=True)
        changed = self.outdated(story.figures.get("inputs"))
        program = self.facts.program_typed
        is_code = program is not None and program.spec.program.code is not None
        status = status_of(self.facts.body, self.spec, story, changed, self.now, is_code=is_code)
        self._tell(story, status)
        gave_back = "admission" in self.before and self.before["admission"] != status.get("admission")
        return Plan(
            deletes=tuple(self.deletes),
            events=tuple(self.events),
            status=status,
            requeue_after=requeue,
            wake=(ADMISSION,) if gave_back else (),
        )

    def _tell(self, story: Story, status: Mapping[str, Any]) -> None:
        """Events for what a person would want to have seen."""
        if story.ended is not None:
            known = (self.before.get("phase"), self.before.get("completionTime"))
            if known != (story.phase, status.get("completionTime")):
                kind: Literal["Normal", "Warning"] = "Normal" if story.ended.complete else "Warning"
                self.events.append(Event(kind, story.ended.reason, story.ended.message))
            return
        held_back = False
        if story.refused is not None and story.refused.absent:
            if self._age < ARRIVAL:
                return
            held_back = (
                self._age < 2 * ARRIVAL
            )  # told by the first pass that follows; the same Event is not written twice
        if story.phase == self.before.get("phase") and not held_back:
            return
        if story.phase is Phase.REJECTED:
            self.events.append(Event("Warning", story.reason.value, story.message))
        elif story.phase is Phase.RUNNING:
            self.events.append(Event("Normal", RunReason.RUNNING.value, f"try {self.entry.tries}: the pod runs"))
        elif story.phase is Phase.SUSPENDED:
            self.events.append(Event("Normal", RunReason.SUSPENDED.value, "no pod runs any more"))

    def waits(
        self,
        phase: Phase,
        reason: RunReason,
        message: str,
        waiting_for: str,
        following: Following,
        *,
        position: int | None = None,
        requeue: timedelta = LOOK_AGAIN,
    ) -> Decision:
        """Without slots, until something else changes.

        Args:
            waiting_for: `Kind namespace/name`, or nothing; the run is woken when an endpoint named here changes.
            position: in a queue; 1 is next.
        """
        queue = {"waitingFor": waiting_for or None, "position": position}
        told = self.kept(following) | {"queue": {name: value for name, value in queue.items() if value} or None}
        story = Story(phase, reason, message, figures=told)
        return Decision(self.plan(story, requeue=requeue))

    def refuses(self, refusal: Refusal, following: Following) -> Decision:
        """Not accepted, as things are."""
        told = self.kept(following)
        if refusal.waiting_for:
            told["queue"] = {"waitingFor": refusal.waiting_for}
        story = Story(Phase.REJECTED, refusal.reason, refusal.message, refused=refusal, figures=told)
        again = LOOK_AGAIN if refusal.reason is RunReason.REVISION_NOT_FOUND else None
        if refusal.absent and self._age < ARRIVAL:
            again = ARRIVAL - self._age
        return Decision(self.plan(story, requeue=again))

    def kept(self, following: Following | None = None) -> dict[str, Any]:
        """What a status goes on to tell, though this pass did not hear it again: of the same attempt, and nothing else."""
        entry = following.entry if following is not None else self.entry
        new = following is not None and following.fresh
        names_kept = ("startTime", "resolved", "estimate", "progress", "scores", "gate", "calibration", "effective")
        same = not new and self.before.get("attempt") == entry.attempt
        told: dict[str, Any] = {name: self.before.get(name) for name in names_kept} if same else {}
        if told.get("progress"):
            told["progress"] = {name: value for name, value in told["progress"].items() if name != "eta"}
        told["attempt"] = entry.attempt
        told["rerun"] = entry.rerun
        told["inputs"] = self.inputs(following) or None
        told["usage"] = self.usage(None)
        if entry.tries:
            told["try"] = entry.tries
        if same and self.before.get("try") == entry.tries:
            told |= {name: self.before.get(name) for name in ("jobName", "podName")}
        if entry.backoff is not None:
            backoff = entry.backoff
            told["retry"] = {"count": backoff.count, "waits": backoff.waits} | (
                {"notBefore": backoff.not_before} if backoff.not_before else {}
            )
        return told

    def of_the_try(self) -> dict[str, Any]:
        """Job and start of the try that has one."""
        job = next(iter(of_try(self.mine, "Job", self.entry.tries)), None)
        if job is None or attempt_of(job) != self.entry.attempt:
            return {}
        told = {"jobName": job["metadata"]["name"]}
        if not (self.before.get("attempt") == self.entry.attempt and self.before.get("startTime")):
            told["startTime"] = job["metadata"]["creationTimestamp"]
        return told

    def usage(self, by_role: Mapping[str, Usage] | None) -> dict[str, Any] | None:
        """Over the run's whole life; by role where a pod told it."""
        used = self.entry.used
        roles = (self.before.get("usage") or {}).get("byRole")
        if by_role is not None:
            used = accounts.most(used, accounts.total(by_role))
            roles = {role: figures.usage(usage, priced=self._priced) for role, usage in by_role.items()}
        set_aside = figures.reserved(self.entry.reserved, self.spec.budget) if self.entry.open_try else None
        if used == Usage() and not set_aside and not roles:
            return None
        told = figures.usage(used, priced=self._priced) | {"reserved": set_aside, "byRole": roles}
        return {name: value for name, value in told.items() if value is not None}

    @property
    def _priced(self) -> bool:
        frozen = self.frozen(self.entry.attempt)
        return frozen is None or any(endpoint.pricing is not None for endpoint in frozen.spec.endpoints.values())

    def admission(self, slots: Mapping[str, int]) -> dict[str, Any]:
        """`status.admission` of a run that has it; rebuilt from its children where the status was lost."""
        known = self.before.get("admission")
        if known is not None:
            return {**known, "slots": dict(slots)}
        job = next(iter(of_try(self.mine, "Job", self.entry.tries)), None)
        since = job["metadata"]["creationTimestamp"] if job is not None else timestamp(self.now)
        return {
            "time": since,
            "slots": dict(slots),
            "reserved": figures.reserved(self.entry.reserved, self.spec.budget),
        }

    def held(self) -> dict[str, int]:
        """Slots that the run has, as its status says; as its pod was told, where the status was lost."""
        admission = self.before.get("admission")
        if admission is not None:
            return dict(admission.get("slots") or {})
        if self.entry.open_try is None:
            return {}
        live = children.control_in(self.channel())
        return dict(live.slots) if live is not None else {}

    def on_the_wire(self) -> int:
        """Most requests that the pod may have sent and not told: the status follows what the pod is told, or leads it."""
        live = children.control_in(self.channel())
        return max(sum(self.held().values()), sum(live.slots.values()) if live is not None else 0)

    def slots(self) -> dict[str, int]:
        """The same after an edit of `concurrency`: fewer at once, more when admission gives them."""
        held = self.held()
        answer = self.facts.answer
        if isinstance(answer, Granted) and answer.slots.keys() == held.keys():
            held = {endpoint: max(slots, answer.slots[endpoint]) for endpoint, slots in held.items()}
        concurrency = self.spec.concurrency or DEFAULT_CONCURRENCY
        return {endpoint: min(slots, concurrency) for endpoint, slots in held.items()}

    def request(self, following: Following, held: Mapping[str, int] | None = None) -> Request:
        """What the run asks of admission.

        Args:
            held: slots of a run that is admitted already.
        """
        capacities = {key: capacity(endpoint.typed.spec) for key, endpoint in self.endpoints(following).items()}
        if self.spec.mode == "Estimate":
            capacities = {}
        program, typed = self.facts.program, self.facts.program_typed
        queues = typed is None or typed.spec.concurrency_policy != "Allow"
        return Request(
            created=self.metadata.get("creationTimestamp", ""),
            slots=wanted(self.spec.concurrency or DEFAULT_CONCURRENCY, capacities),
            capacities=capacities,
            program=f"{self.namespace}/{program['metadata']['name']}"
            if program is not None and queues and self.spec.mode != "Estimate"
            else None,
            held=held,
        )

    def roles(self, following: Following) -> dict[str, str]:
        """Role -> `namespace/name` of its endpoint: as frozen, else as written."""
        if following.frozen is not None:
            return {str(role): endpoint.name for role, endpoint in following.frozen.spec.endpoints.items()}
        return roles_of(self.run, self.facts.program_typed)

    def endpoints(self, following: Following) -> dict[str, EndpointSeen]:
        """Those of the roles that exist, each once."""
        wanted_keys = dict.fromkeys(self.roles(following).values())
        return {key: self.facts.endpoints[key] for key in wanted_keys if key in self.facts.endpoints}

    @property
    def _age(self) -> timedelta:
        return self.now - parse_timestamp(self.metadata["creationTimestamp"])

    @cached_property
    def _specs(self) -> dict[int, Frozen]:
        found = {}
        for child in self.mine:
            if component(child) == names.Component.SPEC and "deletionTimestamp" not in child["metadata"]:
                frozen = frozen_in(child)
                if frozen is not None:
                    found[attempt_of(child)] = frozen
        return found

    def frozen(self, attempt: int) -> Frozen | None:
        """The inputs of an attempt; None where it has not begun, or somebody removed its ConfigMap."""
        return self._specs.get(attempt)

    def inputs(self, following: Following | None = None) -> dict[str, Any]:
        """`status.inputs`: of the frozen ones; of the status where their ConfigMap is gone."""
        if following is not None and following.frozen is not None:
            return inputs_status(following.frozen)
        if following is not None and following.fresh:
            return {}
        frozen = self.frozen(self.entry.attempt)
        if frozen is not None:
            return inputs_status(frozen)
        same = self.before.get("attempt") == self.entry.attempt
        return dict(self.before.get("inputs") or {}) if same else {}

    def outdated(self, inputs: Mapping[str, Any] | None) -> Outdated | None:
        """None where nothing is frozen."""
        if not inputs:
            return None
        status = self.facts.program.get("status") if self.facts.program is not None else None
        models = {key: endpoint.model_digest for key, endpoint in self.facts.endpoints.items()}
        return outdated(inputs, status, models)

    def heard(self) -> Channel:
        """What the pod of the last try told."""
        return Channel.of(self.channel(), self.entry.attempt, self.entry.tries)

    def channel(self) -> Body | None:
        """The channel of this very object."""
        channel = self.facts.channel
        return channel if channel is not None and owned_by(channel, self.uid) else None

    def jobs(self) -> list[Body]:
        """Of this very object, of any try."""
        return [child for child in self.mine if child["kind"] == "Job"]

    def last_try(self) -> int:
        """The highest number that was ever used, also where the account was lost, or the status, or both."""
        seen = [try_of(child) for child in self.facts.children if child["kind"] in ("Job", "Pod")]
        return max(self.entry.tries, int(self.before.get("try", 0)), last_told(self.channel()), *seen)

    def deadline(self, which: Literal["pending", "progress"]) -> timedelta:
        """How long the run may stand still."""
        written = getattr(self.spec.deadlines, which, None)
        default = PENDING_DEADLINE if which == "pending" else PROGRESS_DEADLINE
        return parse_duration(written) if written is not None else default

    def delete(self, child: Body) -> None:
        """Want a child gone."""
        delete = Delete(Ref.of(child), child["metadata"]["uid"])
        if delete not in self.deletes:
            self.deletes.append(delete)


def component(child: Body) -> str:
    """What a child is, a names.Component."""
    return str((child["metadata"].get("labels") or {}).get(names.LABEL_COMPONENT, ""))
