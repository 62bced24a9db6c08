"""A kind that asks for whatever its spec says, and the process that keeps it true: `python -m tests.integration.engine.toy`.

spec.text        -> ConfigMap `<toy>-applied` (server-side applied) and status.text
spec.note        -> ConfigMap `<toy>-made` (created once, immutable)
spec.job         -> Job `<toy>-job` (created once)
spec.quantity    -> Deployment `<toy>`, whose memory is spelled in a way that the API server rewrites
spec.friend      -> status.friend: the text in that toy's status
spec.mischief    -> raise | hang | war | verbose | unknown: what a controller must not do
spec.account     -> ConfigMap `<toy>-account`, guarded, not owned
spec.delete      -> what was applied is deleted
spec.event       -> an Event
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from dspy_operator.contract import names
from dspy_operator.engine import loop
from dspy_operator.engine.credentials import Credentials
from dspy_operator.engine.logs import log_to_stderr
from dspy_operator.engine.operator import Operation, Operator, run_process
from dspy_operator.engine.plan import Body, Delete, Event, Guarded, Key, Plan, Ref, World
from dspy_operator.engine.resources import Resource, Resources
from dspy_operator.engine.world import CacheWorld

GROUP = "engine-test.dspy-operator.io"
API_VERSION = f"{GROUP}/v1"
TOYS = Resource(API_VERSION, "Toy", "toys")
CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"toys.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"kind": "Toy", "plural": "toys", "singular": "toy"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                            "status": {
                                "type": "object",
                                "properties": {
                                    "text": {"type": "string"},
                                    "friend": {"type": "string"},
                                    "friends": {"type": "integer"},
                                    "conflicts": {"type": "array", "items": {"type": "string"}},
                                    "count": {"type": "integer"},
                                },
                            },
                        },
                    }
                },
            }
        ],
    },
}


class ToyController:
    """Keeps toys true."""

    kind = "Toy"

    def __init__(self) -> None:
        self._count = itertools.count(int.from_bytes(os.urandom(3)))

    def references(self, body: Body) -> Iterable[Key]:
        friend = body["spec"].get("friend")
        return [Key("Toy", body["metadata"]["namespace"], friend)] if friend else []

    def shown(self, body: Body) -> Any:
        """Of a toy others look at its text and its friend."""
        return (body.get("status") or {}).get("text"), body["spec"].get("friend")

    async def reconcile(self, key: Key, world: World) -> Plan:
        assert isinstance(world, CacheWorld)
        body = world.get(*key)
        assert body is not None
        spec, labels = body["spec"], _labels(key)
        match spec.get("mischief"):
            case "raise":
                raise RuntimeError("mischief")
            case "hang":
                await asyncio.sleep(3600)
            case "die":
                os._exit(9)
        status: dict[str, Any] = {
            "text": spec.get("text"),
            "conflicts": [ref.name for ref in world.foreign(key)] or None,
            "friends": len(list(world.referrers(key))) or None,
        }
        if spec.get("mischief") == "war":
            status["count"] = next(self._count)
        if spec.get("mischief") == "unknown":
            status["surprise"] = "not in the schema"
        if spec.get("mischief") == "verbose":
            status["text"] = "x" * 20_000
        if "friend" in spec:
            friend = world.get("Toy", key.namespace, spec["friend"])
            status["friend"] = ((friend or {}).get("status") or {}).get("text")
        return Plan(
            guarded=tuple(self._account(body, labels, world)) if "account" in spec else (),
            children=tuple(_applied(body, labels)),
            creates=tuple(_made(body, labels)),
            deletes=tuple(
                Delete(Ref.of(child), child["metadata"]["uid"])
                for child in world.children(key)
                if spec.get("delete") and child["metadata"]["name"] == f"{key.name}-applied"
            ),
            events=(Event("Normal", "Told", spec["event"]),) if "event" in spec else (),
            status=status,
            requeue_after=timedelta(seconds=spec["again"]) if "again" in spec else None,
        )

    def _account(self, body: Body, labels: dict[str, str], world: World) -> Iterable[Guarded]:
        name, namespace = f"{body['metadata']['name']}-account", body["metadata"]["namespace"]
        wanted = {"total": body["spec"]["account"]}
        there = world.get("ConfigMap", namespace, name)
        if there is None:
            metadata = {"name": name, "namespace": namespace, "labels": labels}
            yield Guarded({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": wanted})
        elif there["data"] != wanted:
            yield Guarded({**there, "data": wanted})


def _labels(key: Key) -> dict[str, str]:
    return {names.LABEL_KIND: key.kind, names.LABEL_NAME: key.name, names.LABEL_COMPONENT: "toy"}


def _metadata(body: Body, name: str, labels: dict[str, str]) -> Body:
    mine = body["metadata"]
    owner = {"apiVersion": API_VERSION, "kind": "Toy", "name": mine["name"], "uid": mine["uid"], "controller": True}
    return {"name": name, "namespace": mine["namespace"], "labels": labels, "ownerReferences": [owner]}


def _applied(body: Body, labels: dict[str, str]) -> Iterable[Body]:
    spec, name = body["spec"], body["metadata"]["name"]
    if "text" in spec and not spec.get("delete"):
        metadata = _metadata(body, f"{name}-applied", labels)
        yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"text": spec["text"]}}
    if "quantity" in spec:
        container = {
            "name": "main",
            "image": "none",
            "env": [{"name": "EMPTY", "value": ""}],
            "resources": {"requests": {"cpu": "1000m", "memory": spec["quantity"]}, "limits": {}},
        }
        yield {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": _metadata(body, name, labels),
            "spec": {
                "replicas": 0,
                "minReadySeconds": 0,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [container], "nodeSelector": {}, "hostNetwork": False},
                },
            },
        }


def _made(body: Body, labels: dict[str, str]) -> Iterable[Body]:
    spec, name = body["spec"], body["metadata"]["name"]
    if "note" in spec:
        metadata = _metadata(body, f"{name}-made", labels)
        yield {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "immutable": True,
            "data": {"note": spec["note"]},
        }
    if "job" in spec:
        container = {"name": "main", "image": "none"}
        yield {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": _metadata(body, f"{name}-job", labels),
            "spec": {
                "suspend": True,
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [container], "restartPolicy": "Never"},
                },
            },
        }


def main() -> None:
    log_to_stderr("info")
    loop.PASS_SECONDS = float(os.environ.get("TOY_PASS_SECONDS", loop.PASS_SECONDS))
    if "TOY_FOREIGN_SECONDS" in os.environ:
        loop.FOREIGN_AGAIN = timedelta(seconds=float(os.environ["TOY_FOREIGN_SECONDS"]))
    operation = Operation(
        workers=4,
        resync=timedelta(seconds=float(os.environ.get("TOY_RESYNC_SECONDS", "3600"))),
        health_port=int(os.environ.get("TOY_PORT", "0")),
        metrics_port=int(os.environ.get("TOY_PORT", "0")),
        instance="toy",
    )

    async def run() -> None:
        await Operator(Credentials.load(), Resources(own=(TOYS,)), [ToyController()], operation).run()

    os._exit(run_process(run))


if __name__ == "__main__":
    main()
