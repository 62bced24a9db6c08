"""The fixtures: a real Ollama pulls a model from the registry in the cluster, answers, and keeps it on its volume."""

from __future__ import annotations

from typing import Any

from ..fixtures.images import OLLAMA
from ..steps.fixtures import NAMESPACE as FIXTURES
from ..steps.fixtures import REGISTRY_HOST
from .forward import Http, forwarded
from .pods import NAMESPACE, NONROOT, eventually, in_namespace, make
from .volumes import claim

_MODEL = f"{REGISTRY_HOST}/library/smollm2:135m"
_MODEL_BYTES = 98_362_432
# 98 MB in 2.5 s and a line of progress every 60 ms: far more than the three that are wanted.
_RATE = 40_000_000


def a_pull_shows_its_progress() -> str:
    """Ollama pulls a model from the registry, with at least three percents between 0 and 100."""
    claim("models", megabytes=1000)
    _make_ollama()
    with _registry() as registry, _ollama() as ollama:
        registry.ask("DELETE", "/control")
        registry.ask("PUT", "/control", {"rate_bytes_per_second": _RATE})
        lines = _pull(ollama)
        registry.ask("PUT", "/control", {"rate_bytes_per_second": 0})
        _, state = registry.ask("GET", "/control")
    assert lines[-1] == {"status": "success"}, lines[-1]
    percents = sorted({100 * line["completed"] // line["total"] for line in lines if line.get("completed")} - {0, 100})
    assert len(percents) >= 3, percents
    assert state["bytes_sent"] >= _MODEL_BYTES, state
    return f"{len(percents)} percents, {state['bytes_sent'] / 1e6:.1f} MB"


def a_chat_is_answered_with_usage() -> str:
    """/v1/chat/completions answers, and says how many tokens it took."""
    body = {"model": _MODEL, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8}
    with _ollama() as ollama:
        code, answer = ollama.ask("POST", "/v1/chat/completions", body)
    assert code == 200, answer
    text, usage = answer["choices"][0]["message"]["content"], answer["usage"]
    assert text.strip() and usage["prompt_tokens"] > 0 and 0 < usage["completion_tokens"] <= 8, answer
    return f"{text!r}, {usage['prompt_tokens']} + {usage['completion_tokens']} tokens"


def a_second_pull_costs_nothing() -> str:
    """A new pod with the same volume pulls again: not one byte of a blob is sent."""
    in_namespace("scale", "deployment/ollama", "--replicas=0")
    eventually("the old pod is gone", lambda: in_namespace("get", "pods", "-l", "app=ollama", "-o", "name") == "")
    in_namespace("scale", "deployment/ollama", "--replicas=1")
    in_namespace("rollout", "status", "deployment/ollama", "--timeout=60s")
    with _registry() as registry, _ollama() as ollama:
        registry.ask("DELETE", "/control")
        lines = _pull(ollama)
        _, state = registry.ask("GET", "/control")
    assert lines[-1] == {"status": "success"}, lines[-1]
    assert state["requests"] >= 1 and state["bytes_sent"] == 0, state
    return f"{state['requests']} request, {state['bytes_sent']} bytes"


def a_broken_pull_says_so() -> str:
    """A pull of a file that is damaged on its way fails, with HTTP 200 and an error in its last line."""
    with _registry() as registry, _ollama() as ollama:
        code, said = ollama.ask("DELETE", "/api/delete", {"model": _MODEL})
        assert code == 200, said
        registry.ask("PUT", "/control", {"fault": "corrupt"})
        try:
            lines = _pull(ollama)
        finally:
            registry.ask("DELETE", "/control")
    assert "digest mismatch" in lines[-1].get("error", ""), lines[-1]
    return str(lines[-1]["error"])[:120]


CHECKS = [a_pull_shows_its_progress, a_chat_is_answered_with_usage, a_second_pull_costs_nothing, a_broken_pull_says_so]


def _pull(ollama: Http) -> list[dict[str, Any]]:
    code, lines = ollama.stream("POST", "/api/pull", {"model": _MODEL, "insecure": True})
    assert code == 200, lines
    return lines


def _ollama() -> Any:
    return forwarded(NAMESPACE, "service/ollama", 11434)


def _registry() -> Any:
    return forwarded(FIXTURES, "service/model-registry", 5001)


def _make_ollama() -> None:
    labels = {"app": "ollama"}
    container = {
        "name": "ollama",
        "image": OLLAMA.name,
        "imagePullPolicy": "Never",
        "ports": [{"containerPort": 11434}],
        "readinessProbe": {"httpGet": {"path": "/", "port": 11434}, "periodSeconds": 1},
        "resources": {"limits": {"memory": "1Gi"}},
        "volumeMounts": [{"name": "models", "mountPath": "/models"}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec = {
        "containers": [container],
        "terminationGracePeriodSeconds": 5,
        "securityContext": {"runAsNonRoot": True, "runAsUser": NONROOT, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}],
    }
    template = {"metadata": {"labels": labels}, "spec": spec}
    deployment = {"strategy": {"type": "Recreate"}, "selector": {"matchLabels": labels}, "template": template}
    make("Deployment", "ollama", deployment, version="apps/v1")
    make("Service", "ollama", {"selector": labels, "ports": [{"port": 11434}]})
    in_namespace("rollout", "status", "deployment/ollama", "--timeout=90s")
