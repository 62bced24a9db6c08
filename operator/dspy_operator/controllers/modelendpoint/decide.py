"""What an endpoint needs now, and what is to be said of it. Pure: everything that counts is an argument.

An endpoint is Ready when a pod answers with the model that the spec names now, when no pod is wanted, or when its provider
is not ours. How far a pull is changes all the time: a change of nothing but these numbers is told every 15 s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from dspy_operator.api.modelendpoint import OllamaProvider
from dspy_operator.api.objects import InvalidObject, ModelEndpoint, parse_object
from dspy_operator.api.reasons import ConditionType, EndpointReason
from dspy_operator.contract import names
from dspy_operator.controllers.modelendpoint import children, replica
from dspy_operator.controllers.modelendpoint.demand import Claim, Demand, demand
from dspy_operator.controllers.modelendpoint.replica import ON_THE_WAY, Replica
from dspy_operator.controllers.runnerpod import Owner, owned_by
from dspy_operator.engine.conditions import Condition, merged, parse_timestamp, timestamp
from dspy_operator.engine.plan import Body, Delete, Event, Guarded, Plan, Ref, Settings
from dspy_operator.engine.subset import difference

TELL_AFTER = timedelta(seconds=15)
"""Between two writes that only tell how far a pull is."""
READY = frozenset({EndpointReason.MODEL_LOADED, EndpointReason.SCALED_TO_ZERO, EndpointReason.EXTERNAL})
_NORMAL = READY | frozenset(ON_THE_WAY)


@dataclass(frozen=True)
class Seen:
    """What a decision rests on."""

    body: Body
    """The endpoint."""
    children: tuple[Body, ...] = ()
    """All that has its labels, its pods too."""
    claims: tuple[Claim, ...] = ()
    """Of active runs."""
    gone: frozenset[str] = frozenset()
    """Pods that still have a key in the channel, and are no more."""
    foreign: tuple[Ref, ...] = ()
    """Objects of somebody else under names that we need."""
    told_at: datetime | None = None
    """When the status last told how far a pull is; None is never, or before this operator started."""

    def child(self, kind: str, name: str) -> Body | None:
        """One of the children."""
        for body in self.children:
            if body["kind"] == kind and body["metadata"]["name"] == name:
                return body
        return None

    @property
    def before(self) -> Mapping[str, Any]:
        """The status as it is."""
        return self.body.get("status") or {}


def decide(seen: Seen, settings: Settings, now: datetime) -> Plan:
    """The Plan for an endpoint."""
    try:
        endpoint = parse_object(seen.body)
    except InvalidObject as error:
        return _rejected(seen, error, now)
    assert isinstance(endpoint, ModelEndpoint)
    ollama = endpoint.spec.provider.ollama
    if ollama is None:
        return _external(seen, endpoint, now)
    return _Served(seen, endpoint, ollama, settings, now).plan()


@dataclass(frozen=True)
class _Verdict:
    """Ready's reason, and what follows from it."""

    reason: EndpointReason
    message: str = ""
    unsettled: EndpointReason | None = None
    """Why pods are still missing, though the endpoint is Ready."""
    accepted: str = ""
    """Message of Accepted."""

    @property
    def ready(self) -> bool:
        return self.reason in READY

    @property
    def phase(self) -> str:
        """For eyes."""
        if self.reason is EndpointReason.INVALID_SPEC:
            return "Rejected"
        if self.ready:
            return "ScaledToZero" if self.reason is EndpointReason.SCALED_TO_ZERO else "Ready"
        return self.reason.value if self.reason in ON_THE_WAY else "Failed"

    def conditions(self) -> Iterator[Condition]:
        """Accepted and the kstatus trio."""
        invalid = self.reason is EndpointReason.INVALID_SPEC
        accepted = EndpointReason.INVALID_SPEC if invalid else EndpointReason.ACCEPTED
        yield Condition(ConditionType.ACCEPTED, not invalid, accepted, self.message if invalid else self.accepted)
        yield Condition(ConditionType.READY, self.ready, self.reason, self.message)
        why = self.unsettled if self.ready else self.reason
        moving = why in ON_THE_WAY
        stuck = why is not None and not moving
        settled = EndpointReason.SETTLED if why is None else why
        yield Condition(ConditionType.RECONCILING, moving, settled, self.message if moving else "")
        yield Condition(ConditionType.STALLED, stuck, settled, self.message if stuck else "")


def _rejected(seen: Seen, error: InvalidObject, now: datetime) -> Plan:
    """Whatever runs keeps running: an edit that cannot be understood takes nothing away."""
    verdict = _Verdict(EndpointReason.INVALID_SPEC, str(error))
    status = {**seen.before, **_common(seen, verdict, (), now)}
    return Plan(status=status, events=_transition(seen, verdict))


def _external(seen: Seen, endpoint: ModelEndpoint, now: datetime) -> Plan:
    openai = endpoint.spec.provider.openai
    assert openai is not None
    verdict = _Verdict(EndpointReason.EXTERNAL, "it is not probed: a call shows whether it answers")
    status = _common(seen, verdict, _scale_ignored(endpoint), now) | {
        "url": openai.base_url,
        "activeRuns": len(seen.claims),
    }
    return Plan(deletes=_leftovers(seen, ()), status=status, events=_transition(seen, verdict))


@dataclass
class _Served:
    """An endpoint whose pods are ours."""

    seen: Seen
    endpoint: ModelEndpoint
    ollama: OllamaProvider
    settings: Settings
    now: datetime
    owner: Owner = field(init=False)
    live: Body | None = field(init=False)
    channel: Body | None = field(init=False)
    template: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.owner = Owner.of(self.seen.body)
        self.live = self.seen.child("Deployment", names.endpoint_server(self.owner.name))
        self.channel = self.seen.child("ConfigMap", names.endpoint_channel(self.owner.name))
        self.template = self._template()

    def plan(self) -> Plan:
        need = self._need()
        claim = children.cache_claim(self.owner, self.endpoint.spec)
        wanted = (
            *children.supporting(self.owner),
            children.service(self.owner),
            children.deployment(self.owner, self.template, need.replicas),
        )
        creates = (claim,) if claim is not None else ()
        replicas = self._replicas()
        verdict, status, look_again = self._told(need, replicas, claim)
        return Plan(
            guarded=self._without_gone(),
            children=wanted,
            creates=creates,
            deletes=_leftovers(self.seen, (*wanted, *creates)),
            events=(*_scaled(need), *_transition(self.seen, verdict)),
            status=status,
            requeue_after=_sooner(need.look_again, look_again),
        )

    def _need(self) -> Demand:
        before: int | None = self.seen.before.get("desiredReplicas")
        if before is None and self.live is not None:  # the status was lost
            before = self.live["spec"].get("replicas")
        since = self.seen.before.get("idleSince")
        return demand(
            self.endpoint.spec,
            self.seen.claims,
            before=before,
            idle_since=parse_timestamp(since) if since else None,
            now=self.now,
        )

    def _template(self) -> dict[str, Any]:
        """The pods that are wanted.

        An upgrade of the operator that brings other images waits until no run is active: it would take the model from
        under them, and with an EmptyDir pull it again.
        """
        images = children.Images(self.settings.ollama_image, self.settings.operator_image)
        made = self._made_with(images)
        if self.live is not None and self.seen.claims:
            kept = self._made_with(children.Images.of(self.live))
            if children.digest_of(kept) == children.digest_of(self.live["spec"]["template"]):
                return kept
        return made

    def _made_with(self, images: children.Images) -> dict[str, Any]:
        return children.pod_template(self.owner, self.ollama, images, self.settings.image_pull_policy)

    def _replicas(self) -> tuple[Replica, ...]:
        """Pods of the template that is wanted now, the nearest to being ready first. Others are on their way out."""
        found = []
        wanted = children.digest_of(self.template)
        for pod in self.seen.children:
            metadata = pod["metadata"]
            if (
                pod["kind"] == "Pod"
                and children.digest_of(pod) == wanted
                and "deletionTimestamp" not in metadata
                and (pod.get("status") or {}).get("phase") not in ("Failed", "Succeeded")
            ):
                found.append(replica.look(pod, replica.progress_of(self.channel, metadata["name"])))
        return tuple(sorted(found, key=lambda one: (one.rank, one.pod)))

    def _told(
        self, need: Demand, replicas: tuple[Replica, ...], claim: Body | None
    ) -> tuple[_Verdict, dict[str, Any], timedelta | None]:
        """Verdict and status; where only a pull's numbers moved, the old ones until it is time to tell them."""
        pulling = next((one for one in replicas if one.reason is EndpointReason.PULLING), None)
        fresh = _pull(pulling)
        verdict, status = self._status(need, replicas, claim, fresh)
        told = self.seen.before.get("pull")
        if fresh is None or told is None or fresh == told:
            return verdict, status, None
        old_verdict, old_status = self._status(need, replicas, claim, told)
        if old_status != self.seen.before:
            return verdict, status, None
        waited = self.now - (self.seen.told_at or self.now)
        if waited >= TELL_AFTER:
            return verdict, status, None
        return old_verdict, old_status, TELL_AFTER - waited

    def _status(
        self, need: Demand, replicas: tuple[Replica, ...], claim: Body | None, pull: Mapping[str, Any] | None
    ) -> tuple[_Verdict, dict[str, Any]]:
        verdict = self._verdict(need, replicas, claim, pull)
        common = _common(self.seen, verdict, _scale_ignored(self.endpoint), self.now)
        scale = self.seen.before.get("lastScale")
        if need.changed_from is not None:
            scale = {"time": timestamp(self.now), "from": need.changed_from, "to": need.replicas, "why": need.why}
        told = {
            "url": children.url(self.owner),
            "model": self._model(replicas),
            "pull": pull,
            "replicas": ((self.live or {}).get("status") or {}).get("replicas", 0),
            "readyReplicas": sum(one.ready for one in replicas),
            "selector": children.selector(self.owner),
            "activeRuns": len(self.seen.claims),
            "desiredReplicas": need.replicas,
            "idleSince": timestamp(need.idle_since) if need.idle_since else None,
            "lastScale": scale,
        }
        return verdict, common | {name: value for name, value in told.items() if value is not None}

    def _verdict(
        self, need: Demand, replicas: tuple[Replica, ...], claim: Body | None, pull: Mapping[str, Any] | None
    ) -> _Verdict:
        accepted = self._stale_claim(claim)
        if self.seen.foreign:
            taken = " and ".join(f"{ref.kind} {ref.namespace}/{ref.name}" for ref in self.seen.foreign)
            message = f"{taken} is there and not ours: remove it, or give the endpoint another name"
            return _Verdict(EndpointReason.NAME_CONFLICT, message, accepted=accepted)
        if need.replicas == 0:
            return _Verdict(EndpointReason.SCALED_TO_ZERO, self._why_zero(), accepted=accepted)
        ready = [one for one in replicas if one.ready]
        missing = [one for one in replicas if not one.ready]
        first = missing[0] if missing else None
        reason, words = self._first(first, pull)
        if not ready:
            return _Verdict(reason, words, accepted=accepted)
        if len(ready) >= need.replicas:
            return _Verdict(EndpointReason.MODEL_LOADED, f"{self.ollama.model} answers", accepted=accepted)
        message = f"{len(ready)} of {need.replicas} pods answer; the next: {reason.value}: {words}"
        return _Verdict(EndpointReason.MODEL_LOADED, message, unsettled=reason, accepted=accepted)

    def _first(self, first: Replica | None, pull: Mapping[str, Any] | None) -> tuple[EndpointReason, str]:
        """Reason and words of the pod that is nearest to being ready."""
        if first is None:
            refused = _refusal(self.live)
            if refused is not None:
                return EndpointReason.START_FAILED, refused
            return EndpointReason.STARTING, "waiting for its pod"
        if first.reason is EndpointReason.PULLING:
            return first.reason, f"pulling {self.ollama.model}: {_far(pull or {})}"
        if first.reason is EndpointReason.LOADING:
            return first.reason, f"loading {self.ollama.model}"
        return first.reason, first.message or f"pod {first.pod} starts"

    def _why_zero(self) -> str:
        if self.endpoint.spec.scaling is None:
            return "spec.replicas is 0: nothing answers until it is raised"
        return "no run needs it; the first that is admitted starts it"

    def _model(self, replicas: tuple[Replica, ...]) -> Mapping[str, Any] | None:
        """The model that answers, or answered last under this very template."""
        for one in replicas:
            if one.progress is not None and (found := one.progress.model) is not None:
                told = {
                    "digest": found.digest,
                    "sizeBytes": found.size_bytes,
                    "contextLength": found.context_length,
                    "quantization": found.quantization,
                }
                return {name: value for name, value in told.items() if value}
        if self.live is None or children.digest_of(self.live["spec"]["template"]) != children.digest_of(self.template):
            return None
        kept: Mapping[str, Any] | None = self.seen.before.get("model")
        return kept

    def _stale_claim(self, wanted: Body | None) -> str:
        live = self.seen.child("PersistentVolumeClaim", names.endpoint_server(self.owner.name))
        if wanted is None or live is None or (where := difference(wanted["spec"], live["spec"])) is None:
            return ""
        return (
            f"PersistentVolumeClaim {live['metadata']['name']} stays as it was claimed ({where} differs): "
            "remove it, and it is claimed anew"
        )

    def _without_gone(self) -> tuple[Guarded, ...]:
        """The channel without the keys of pods that are no more. Replaced, for what an apply leaves out stays there."""
        if self.channel is None or not self.seen.gone:
            return ()
        dropped = {names.loader_key(pod) for pod in self.seen.gone}
        data = {key: text for key, text in (self.channel.get("data") or {}).items() if key not in dropped}
        return (Guarded({**self.channel, "data": data}),)


def _common(seen: Seen, verdict: _Verdict, more: tuple[Condition, ...], now: datetime) -> dict[str, Any]:
    """What every status has."""
    generation = seen.body["metadata"].get("generation", 0)
    return {
        "observedGeneration": generation,
        "phase": verdict.phase,
        "conditions": merged(
            seen.before.get("conditions", ()), (*verdict.conditions(), *more), generation=generation, now=now
        ),
    }


def _scale_ignored(endpoint: ModelEndpoint) -> tuple[Condition, ...]:
    replicas = endpoint.spec.replicas
    if endpoint.spec.scaling is None or replicas is None or replicas == 1:
        return ()
    message = f"spec.replicas is {replicas}, but spec.scaling rules: remove one of them"
    return (Condition(ConditionType.SCALE_IGNORED, True, EndpointReason.SCALING_RULES, message),)


def _leftovers(seen: Seen, wanted: tuple[Body, ...]) -> tuple[Delete, ...]:
    """What an earlier spec needed: all of an Ollama endpoint that became an external one, a cache that became an EmptyDir."""
    keep = {Ref.of(body) for body in wanted}
    uid = seen.body["metadata"]["uid"]
    return tuple(
        Delete(Ref.of(body), body["metadata"]["uid"])
        for body in seen.children
        if body["kind"] in children.MANAGED
        and owned_by(body, uid)
        and Ref.of(body) not in keep
        and "deletionTimestamp" not in body["metadata"]
    )


def _transition(seen: Seen, verdict: _Verdict) -> tuple[Event, ...]:
    """An Event where Ready has another reason than before."""
    known = {condition["type"]: condition for condition in seen.before.get("conditions", ())}
    if known.get(ConditionType.READY, {}).get("reason") == verdict.reason:
        return ()
    return (
        Event("Normal" if verdict.reason in _NORMAL else "Warning", verdict.reason, verdict.message or verdict.phase),
    )


def _scaled(need: Demand) -> tuple[Event, ...]:
    if need.changed_from is None:
        return ()
    return (Event("Normal", EndpointReason.SCALED, f"from {need.changed_from} to {need.replicas}: {need.why}"),)


def _refusal(deployment: Body | None) -> str | None:
    """Why the controller manager cannot make pods (a quota, a policy), in its own words."""
    for condition in ((deployment or {}).get("status") or {}).get("conditions") or ():
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return str(condition.get("message", ""))
    return None


def _pull(pulling: Replica | None) -> dict[str, Any] | None:
    """`status.pull` of the pod that is farthest."""
    if pulling is None or pulling.progress is None:
        return None
    progress = pulling.progress
    told = {"percent": progress.percent, "completedBytes": progress.completed, "totalBytes": progress.total}
    return told if progress.eta is None else {**told, "eta": _span(progress.eta)}


def _far(pull: Mapping[str, Any]) -> str:
    """`43 % of 491 MB, about 2m left`."""
    size = f" of {_bytes(pull['totalBytes'])}" if pull.get("totalBytes") else ""
    left = f", about {pull['eta']} left" if "eta" in pull else ""
    return f"{pull.get('percent', 0)} %{size}{left}"


def _bytes(count: int) -> str:
    """As registries and disks count: 491 MB."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}" if count < 10 * size else f"{count // size} {unit}"
    return f"{count} B"


def _span(seconds: float) -> str:
    """To one unit, rounded up, so that it does not change with each look: 40s, 3m, 2h."""
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds > 2 * size:
            return f"{-int(-seconds // size)}{unit}"
    return f"{max(10, -int(-seconds // 10) * 10)}s"


def _sooner(*waits: timedelta | None) -> timedelta | None:
    return min((wait for wait in waits if wait is not None), default=None)
