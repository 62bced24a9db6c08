"""An endpoint, its pods and its runs in memory: `look` has the room decide and does what it planned, as the engine would."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from dspy_operator.api.status import STATUSES
from dspy_operator.contract import names
from dspy_operator.contract.documents import LoadedModel, LoaderProgress
from dspy_operator.controllers.modelendpoint.controller import ModelEndpointController
from dspy_operator.engine.plan import Body, Key, Plan, Ref, Settings
from tests.unit import heard

SETTINGS = Settings(runner_image="registry.example/runner:1", operator_image="registry.example/operator:1")
START = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
KEY = Key("ModelEndpoint", "models", "qwen")
MODEL = "qwen2.5-coder:0.5b"
DIGEST = "sha256:" + "ab" * 32


def ollama(**changes: Any) -> Body:
    """A spec with an Ollama provider; `changes` are fields of `spec`, or with `ollama_` before them of the provider."""
    provider: Body = {"model": MODEL}
    spec: Body = {"provider": {"type": "Ollama", "ollama": provider}}
    for name, value in changes.items():
        if name.startswith("ollama_"):
            provider[name.removeprefix("ollama_")] = value
        else:
            spec[name] = value
    return spec


def openai(**provider: Any) -> Body:
    """A spec of an external endpoint."""
    return {"provider": {"type": "OpenAI", "openai": {"baseURL": "https://api.example/v1", "model": "gpt", **provider}}}


def loaded(model: str = MODEL) -> LoaderProgress:
    """What the loader of a ready pod says."""
    found = LoadedModel(name=model, digest=DIGEST, size_bytes=491_000_000, context_length=4096, quantization="Q4_K_M")
    return LoaderProgress(phase="ready", percent=100, model=found)


def pulling(percent: int, *, total: int = 491_000_000, eta: float | None = None) -> LoaderProgress:
    """What the loader of a pulling pod says."""
    return LoaderProgress(phase="pulling", percent=percent, completed=total * percent // 100, total=total, eta=eta)


class Scene:
    """The cluster around one endpoint. It is a World too."""

    def __init__(self, spec: Body | None = None, settings: Settings = SETTINGS) -> None:
        self.time = START
        self.objects: dict[Ref, Body] = {}
        self.taken: set[Ref] = set()
        """Names that objects of somebody else have."""
        self.writes = 0
        """Of the status."""
        self.room = ModelEndpointController(settings)
        self.plan = Plan()
        self.body: Body = {
            "apiVersion": "dspy-operator.io/v1alpha1",
            "kind": "ModelEndpoint",
            "metadata": {"name": KEY.name, "namespace": KEY.namespace, "uid": "uid-of-qwen", "generation": 1},
            "spec": ollama() if spec is None else spec,
        }

    # --- what happens -----------------------------------------------------------------------------------------------

    def edit(self, spec: Body) -> None:
        """kubectl apply."""
        self.body["spec"] = spec
        self.body["metadata"]["generation"] += 1

    def passes(self, **span: float) -> None:
        """Time."""
        self.time += timedelta(**span)

    def restart(self, settings: Settings = SETTINGS) -> None:
        """Another process of the operator, which remembers nothing."""
        self.room = ModelEndpointController(settings)

    def admit(self, run: str, slots: int, *, namespace: str = "team-a", endpoint: str = "models/qwen") -> Body:
        """A run that has its slots."""
        body: Body = {
            "apiVersion": "dspy-operator.io/v1alpha1",
            "kind": "OptimizationRun",
            "metadata": {"name": run, "namespace": namespace, "generation": 1},
            "status": {"admission": {"time": "2026-11-23T12:00:00Z", "slots": {endpoint: slots}}, "conditions": []},
        }
        self.objects[Ref.of(body)] = body
        return body

    def end(self, run: Body, condition: str = "Complete") -> None:
        """A run comes to its end."""
        run["status"]["conditions"] = [{"type": condition, "status": "True", "observedGeneration": 1}]

    def start_pod(self, name: str, progress: LoaderProgress | None = None, **status: Any) -> Body:
        """The Deployment's controller makes a pod of the template as it is now."""
        template = copy.deepcopy(self.deployment["spec"]["template"])
        pod: Body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": KEY.namespace, "uid": f"uid-of-{name}", **template["metadata"]},
            "spec": template["spec"],
            "status": {"phase": "Pending", **status},
        }
        self.objects[Ref.of(pod)] = pod
        if progress is not None:
            self.say(name, progress)
        self.deployment["status"] = {"replicas": len(list(self.pods()))}
        return pod

    def say(self, pod: str, progress: LoaderProgress) -> None:
        """A loader patches its key."""
        self.channel.setdefault("data", {})[names.loader_key(pod)] = json.dumps(progress.document())

    def make_ready(self, pod: Body) -> None:
        """Its model is loaded, and the kubelet has seen it."""
        self.say(pod["metadata"]["name"], loaded())
        pod["status"] = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}

    def remove(self, body: Body) -> None:
        """It is gone."""
        del self.objects[Ref.of(body)]

    def ready_pod(self, name: str = "a") -> Body:
        """A pod that answers."""
        pod = self.start_pod(name)
        self.make_ready(pod)
        return pod

    def look(self) -> Plan:
        """One pass: decide, and do it. Whatever the status says must fit the CustomResourceDefinition."""
        self.plan = asyncio.run(self.room.reconcile(KEY, self))
        heard.says(KEY.kind, self.plan)
        for guarded in self.plan.guarded:
            self.objects[Ref.of(guarded.body)] = guarded.body
        for child in self.plan.children:
            if Ref.of(child) not in self.taken:
                self._apply(child)
        for child in self.plan.creates:
            self.objects.setdefault(Ref.of(child), self._born(child))
        for unwanted in self.plan.deletes:
            assert self.objects[unwanted.ref]["metadata"]["uid"] == unwanted.uid
            del self.objects[unwanted.ref]
        if self.plan.status is not None and self.plan.status != self.body.get("status"):
            STATUSES["ModelEndpoint"].model_validate(self.plan.status)
            self.body["status"] = json.loads(json.dumps(self.plan.status))
            self.writes += 1
        return self.plan

    def _apply(self, child: Body) -> None:
        ref = Ref.of(child)
        before = self.objects.get(ref)
        merged = self._born(child)
        if before is not None:
            merged |= {part: before[part] for part in ("data", "status") if part in before and part not in child}
        self.objects[ref] = merged

    def _born(self, child: Body) -> Body:
        born = json.loads(json.dumps(child))
        born["metadata"]["uid"] = f"uid-of-{child['kind']}-{child['metadata']['name']}"
        return dict(born)

    # --- what is to be seen ------------------------------------------------------------------------------------------

    @property
    def status(self) -> Body:
        return dict(self.body.get("status", {}))

    def condition(self, type_: str) -> tuple[str, str, str]:
        """(status, reason, message); fails where there is none."""
        (found,) = (one for one in self.status["conditions"] if one["type"] == type_)
        return found["status"], found["reason"], found["message"]

    @property
    def ready(self) -> tuple[str, str]:
        """Status and reason of Ready."""
        return self.condition("Ready")[:2]

    @property
    def message(self) -> str:
        """Of Ready."""
        return self.condition("Ready")[2]

    @property
    def deployment(self) -> Body:
        return self.objects[Ref("apps/v1", "Deployment", KEY.namespace, "mep-qwen")]

    @property
    def channel(self) -> Body:
        return self.objects[Ref("v1", "ConfigMap", KEY.namespace, "mep-qwen-pod")]

    def pods(self) -> Iterator[Body]:
        return (body for ref, body in self.objects.items() if ref.kind == "Pod")

    @property
    def kinds(self) -> list[str]:
        """Kinds of the endpoint's children that are there."""
        return sorted(ref.kind for ref in self.objects if ref.kind not in ("Pod", "OptimizationRun"))

    # --- World --------------------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        return self.time

    def get(self, kind: str, namespace: str, name: str) -> Body | None:
        if (kind, namespace, name) == KEY:
            return self.body
        return next(
            (body for ref, body in self.objects.items() if (ref.kind, ref[2], ref[3]) == (kind, namespace, name)), None
        )

    def all(self, kind: str, namespace: str | None = None) -> Iterable[Body]:
        return [body for ref, body in self.objects.items() if ref.kind == kind and namespace in (None, ref.namespace)]

    def children(self, owner: Key) -> Iterable[Body]:
        assert owner == KEY
        return [
            body
            for ref, body in self.objects.items()
            if ref.namespace == KEY.namespace and ref.kind != "OptimizationRun"
        ]

    def referrers(self, key: Key) -> Iterable[Key]:
        yield Key("PromptProgram", "team-a", "triage")  # as in life: programs name endpoints too
        for ref in self.objects:
            if ref.kind == "OptimizationRun":
                yield Key(ref.kind, ref.namespace, ref.name)

    async def read(self, ref: Ref) -> Body | None:
        return self.objects.get(ref)

    def foreign(self, key: Key) -> tuple[Ref, ...]:
        return tuple(sorted(self.taken))
