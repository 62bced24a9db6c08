"""What a person sees and does with plain kubectl."""

from __future__ import annotations

import yaml

from tests.integration.operator.manifests import a_dataset, a_program, a_run, an_endpoint, an_ollama_endpoint
from tests.integration.operator.namespace import Namespace


def test_wait_get_and_describe(namespace: Namespace) -> None:
    namespace.apply(an_endpoint(), a_dataset(), a_program(), a_run())
    waited = kubectl(namespace, "wait", "--for=condition=Complete", "orun/fast", "--timeout=40s")
    assert "condition met" in waited
    namespace.wait("PromptProgram", "triage", lambda body: "promotedRevision" in body.get("status", {}), "promoting")

    listed = kubectl(namespace, "get", "prompts")
    assert all(word in listed for word in ("modelendpoint", "promptprogram", "optimizationrun", "Succeeded"))
    described = kubectl(namespace, "describe", "orun", "fast")
    assert "Completed" in described and "Events:" in described


def test_scale_is_what_the_deployment_gets(namespace: Namespace) -> None:
    namespace.apply(an_ollama_endpoint())
    namespace.condition("ModelEndpoint", "qwen", "Ready", "True", "ModelLoaded")
    kubectl(namespace, "scale", "mep", "qwen", "--replicas=2")
    namespace.wait(
        "ModelEndpoint", "qwen", lambda body: body["status"].get("readyReplicas") == 2, "at 2 ready replicas"
    )
    kubectl(namespace, "scale", "mep", "qwen", "--replicas=0")
    namespace.condition("ModelEndpoint", "qwen", "Ready", "True", "ScaledToZero")
    namespace.wait("ModelEndpoint", "qwen", lambda body: body["status"].get("replicas", 0) == 0, "without replicas")


def test_applying_twice_changes_nothing(namespace: Namespace) -> None:
    manifests = yaml.safe_dump_all([an_endpoint(), a_dataset(), a_program(), a_run()])
    for options in (["--server-side", "--force-conflicts"], []):
        kubectl(namespace, "apply", "-f", "-", *options, stdin=manifests)
    namespace.condition("OptimizationRun", "fast", "Complete", "True", "Completed")
    before = generations(namespace)
    for options in ([], ["--server-side", "--force-conflicts"], []):
        kubectl(namespace, "apply", "-f", "-", *options, stdin=manifests)
    assert generations(namespace) == before == {"ModelEndpoint": 1, "PromptProgram": 1, "OptimizationRun": 1}
    assert namespace.simulator.tries(namespace.name, "fast") == [1]


def test_the_operator_may_do_what_it_has_to_and_no_more(namespace: Namespace) -> None:
    may = kubectl(namespace, "auth", "can-i", "--list", f"--as={namespace.operator.user}")
    print(may)
    for question in ("get secrets", "list secrets", "create pods", "update modelendpoints.dspy-operator.io"):
        code = namespace.plane.kubectl("auth", "can-i", *question.split(), f"--as={namespace.operator.user}", "-A")
        assert code.stdout.strip() == "no", question


def test_a_namespace_goes_without_the_operator(namespace: Namespace) -> None:
    namespace.apply(
        an_endpoint(),
        an_ollama_endpoint("local"),
        a_dataset(),
        a_program(),
        a_run(journal={"type": "PersistentVolumeClaim"}),
    )
    namespace.condition("OptimizationRun", "fast", "Complete", "True", "Completed")
    namespace.operator.stop()

    waited = namespace.plane.kubectl("delete", "namespace", namespace.name, "--timeout=60s")

    assert waited.returncode == 0, waited.stderr
    assert namespace.plane.request("GET", f"/api/v1/namespaces/{namespace.name}")[0] == 404


def kubectl(space: Namespace, *words: str, stdin: str | None = None) -> str:
    done = space.plane.kubectl(*words, f"--namespace={space.name}", stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout


def generations(space: Namespace) -> dict[str, int]:
    kinds = {"ModelEndpoint": "qwen", "PromptProgram": "triage", "OptimizationRun": "fast"}
    return {kind: space.get(kind, name)["metadata"]["generation"] for kind, name in kinds.items()}
