"""A restart of the operator writes nothing, and a run costs few writes: counted by the API server."""

from __future__ import annotations

from typing import Any

from tests.integration.acceptance import LONG
from tests.integration.operator.manifests import a_dataset, a_program, a_run, an_endpoint, an_ollama_endpoint
from tests.integration.operator.namespace import Namespace
from tests.integration.operator.writes import counted, table

FINISHED = 200 if LONG else 20
MOST_WRITES = 15


def test_finished_runs_cost_a_restarted_operator_no_write(namespace: Namespace) -> None:
    operator, audit = namespace.operator, namespace.plane.audit
    namespace.apply(an_endpoint(), an_ollama_endpoint("local"), a_dataset(), a_program(concurrencyPolicy="Allow"))
    names = [f"run-{number}" for number in range(FINISHED)]
    namespace.apply(*[a_run(name, seed=seed) for seed, name in enumerate(names)])
    for name in names:
        namespace.condition("OptimizationRun", name, "Complete", "True", seconds=60 + FINISHED)
        namespace.wait("OptimizationRun", name, points_at_its_revision, "pointing at its revision")
    namespace.condition("ModelEndpoint", "local", "Ready", "True", "ModelLoaded")
    settle(namespace, "before")
    operator.stop()
    before = {name: namespace.get("OptimizationRun", name)["status"] for name in names}

    since = audit.mark()
    operator.start()
    settle(namespace, "after")

    for name in names:
        assert namespace.get("OptimizationRun", name)["status"] == before[name]
    writes = [
        write
        for write in audit.writes(since=since, user=operator.user)
        if write.namespace == namespace.name and not write.name.startswith("sentinel-after")
    ]
    assert not writes, table(writes) + "\n" + "\n".join(map(str, writes[:10]))


def test_a_run_costs_few_writes(namespace: Namespace) -> None:
    operator, audit = namespace.operator, namespace.plane.audit
    namespace.apply(an_endpoint(), a_dataset(), a_program())
    namespace.condition("PromptProgram", "triage", "Ready", "True")
    settle(namespace, "before")
    since = audit.mark()

    namespace.apply(a_run())
    namespace.wait(
        "PromptProgram", "triage", lambda body: "promotedRevision" in body["status"], "promoting the candidate"
    )
    namespace.wait("OptimizationRun", "fast", points_at_its_revision, "pointing at its revision")
    settle(namespace, "after")

    all_writes = [
        write
        for write in audit.writes(since=since, user=operator.user)
        if write.namespace == namespace.name and not write.name.startswith("sentinel")
    ]
    of_run = [write for write in counted(all_writes) if not is_of_program(write.resource, write.name)]
    print(
        f"{len(of_run)} writes of the run, {len(all_writes)} with events, deletes and the program's:\n{table(all_writes)}"
    )
    assert len(of_run) <= MOST_WRITES, table(of_run)
    assert not [write for write in all_writes if write.code >= 400], table(all_writes)


def points_at_its_revision(run: dict[str, Any]) -> bool:
    """The last thing that a run's status gets."""
    return "name" in run["status"].get("revision", {})


def is_of_program(resource: str, name: str) -> bool:
    """The revision, what is served, and the program's own status: written when a candidate is promoted."""
    return resource == "promptprograms" or (
        resource == "configmaps" and name.startswith("triage-") and name != "triage-account"
    )


def settle(space: Namespace, name: str) -> None:
    """Until the operator's queue has come to an object that was added last, twice."""
    for change in ("http://one.example/v1", "http://two.example/v1"):
        provider = {"type": "OpenAI", "openai": {"baseURL": change, "model": "qwen"}}
        space.apply(an_endpoint(f"sentinel-{name}", provider=provider))
        space.wait(
            "ModelEndpoint",
            f"sentinel-{name}",
            lambda body: body.get("status", {}).get("observedGeneration") == body["metadata"]["generation"],
            "looked at",
        )
