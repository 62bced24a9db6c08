"""Ollama's words (0.34, collected from its source and from real pulls), and what they mean."""

from __future__ import annotations

import pytest

from dspy_operator.api.reasons import EndpointReason
from dspy_operator.loader.failure import of_load, of_pull
from dspy_operator.loader.ollama import same_model
from dspy_operator.loader.serving import Wanted


@pytest.mark.parametrize(
    ("words", "want"),
    [
        ("pull model manifest: file does not exist", EndpointReason.MODEL_NOT_FOUND),
        ("invalid model name", EndpointReason.MODEL_NOT_FOUND),
        ('pull model manifest: Get "http://r:5000/v2/": dial tcp 10.0.0.1:5000: connect: connection refused', EndpointReason.PULL_FAILED),
        ('pull model manifest: Get "https://r/v2/": dial tcp: lookup r: no such host', EndpointReason.PULL_FAILED),
        ('pull model manifest: Get "https://localhost:5001/v2/": EOF', EndpointReason.PULL_FAILED),
        ("pull model manifest: 503: overloaded", EndpointReason.PULL_FAILED),
        ("unauthorized: access denied", EndpointReason.PULL_FAILED),
        ("max retries exceeded: unexpected EOF", EndpointReason.PULL_FAILED),
        ("http: no Location header in response", EndpointReason.PULL_FAILED),
        ("digest mismatch, file must be downloaded again: want sha256:a, got sha256:b", EndpointReason.PULL_FAILED),
        ("write /models/blobs/sha256-a-partial: no space left on device", EndpointReason.STORAGE_FULL),
        ("max retries exceeded: write /models/x: disk quota exceeded", EndpointReason.STORAGE_FULL),
    ],
)  # fmt: skip
def test_a_pull_that_failed_has_a_reason(words: str, want: EndpointReason) -> None:
    failure = of_pull("r:5000/library/qwen:0.5b", words)
    assert (failure.reason, failure.message) == (want, f"pull of r:5000/library/qwen:0.5b: {words}")


def test_two_attempts_that_fail_alike_say_the_same() -> None:
    one, other = (
        of_pull("q", f"max retries exceeded: read tcp 10.1.0.7:{port}->10.0.0.9:5000: read: connection reset by peer")
        for port in (41234, 41236)
    )
    assert one.message == other.message == (
        "pull of q: max retries exceeded: read tcp 10.0.0.9:5000: read: connection reset by peer"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "want"),
    [
        ("model requires more system memory (5.6 GiB) than is available (3.0 GiB)", EndpointReason.LOAD_FAILED),
        ("read GGUF metadata: offset+size exceeds file size", EndpointReason.LOAD_FAILED),
        ("llama runner process has terminated: signal: killed", EndpointReason.LOAD_FAILED),
        ("mkdir /models/x: no space left on device", EndpointReason.STORAGE_FULL),
    ],
)
def test_a_load_that_failed_has_a_reason(words: str, want: EndpointReason) -> None:
    assert of_load("qwen:0.5b", words).reason == want


@pytest.mark.parametrize(
    ("wanted", "source"),
    [
        (Wanted("qwen2.5-coder:0.5b"), "qwen2.5-coder:0.5b"),
        (Wanted("qwen2.5-coder:0.5b", "r.models.svc:5000"), "r.models.svc:5000/library/qwen2.5-coder:0.5b"),
        (Wanted("team/model:v1", "r:5000"), "r:5000/team/model:v1"),
    ],
)
def test_a_registry_is_part_of_the_name_that_is_pulled(wanted: Wanted, source: str) -> None:
    assert wanted.source == source


@pytest.mark.parametrize(
    ("one", "other", "want"),
    [
        ("qwen:0.5b", "qwen:0.5b", True),
        ("qwen", "qwen:latest", True),
        ("Qwen:0.5B", "qwen:0.5b", True),
        ("library/qwen:1b", "qwen:1b", True),
        ("registry.ollama.ai/library/qwen", "qwen:latest", True),
        ("r:5000/library/qwen", "r:5000/library/qwen:latest", True),
        ("qwen:0.5b", "qwen:1b", False),
        ("r:5000/library/qwen:1b", "qwen:1b", False),
        ("team/qwen:1b", "qwen:1b", False),
    ],
)
def test_names_of_one_model(one: str, other: str, want: bool) -> None:
    assert same_model(one, other) is want
