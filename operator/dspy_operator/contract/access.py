"""Which namespaces an endpoint lets in: asked before a run is accepted, and by `validate` before there is a cluster. Pure."""

from __future__ import annotations

from dspy_operator.api.objects import ModelEndpoint


def closed(endpoint: ModelEndpoint, namespace: str) -> str | None:
    """Why runs of a namespace may not use an endpoint, and what opens it; None where they may."""
    spec = endpoint.spec
    if endpoint.metadata.namespace == namespace:
        return None
    if spec.access is None or spec.access.namespaces.from_ != "All":
        return f"may be used from its own namespace only; spec.access.namespaces.from: All opens it to {namespace}"
    openai = spec.provider.openai
    if openai is not None and openai.api_key_secret is not None:
        return (
            f"needs an API key, which no pod of namespace {namespace} can mount; "
            "an endpoint of the same URL in this namespace, with a Secret of its own, is one it can use"
        )
    return None
