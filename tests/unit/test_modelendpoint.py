"""The rules of a ModelEndpoint: for each an object that keeps it, and one that does not, with what its author reads."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.written import an_endpoint, complaints

OLLAMA = {"type": "Ollama", "ollama": {"model": "qwen2.5-coder:0.5b"}}
PRICING = {"currency": "USD", "input": "0.15", "output": "0.60"}

RULES: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "a provider has the member of its type": (
        {"provider": OLLAMA},
        {"provider": {"type": "Ollama"}},
        ["spec.provider.ollama: type is Ollama: ollama is required"],
    ),
    "and no other": (
        {"provider": OLLAMA},
        {"provider": {**OLLAMA, "openai": {"baseURL": "http://a/v1", "model": "m"}}},
        ["spec.provider.openai: openai is set, but type is Ollama: remove it or change type"],
    ),
    "the provider is one that there is": (
        {"provider": OLLAMA},
        {"provider": {"type": "OpenAi", "openai": {"baseURL": "http://a/v1", "model": "m"}}},
        ['spec.provider.type: must be one of Ollama, OpenAI, Perplexity, found "OpenAi"'],
    ),
    "baseURL is written so": (
        {"provider.openai.baseURL": "https://models.example:8000/v1"},
        {"provider.openai": {"baseUrl": "http://a/v1", "model": "m"}},
        [
            "spec.provider.openai.baseURL: is required",
            "spec.provider.openai.baseUrl: unknown field; allowed: apiKeySecret, baseURL, caBundle, extraBody, headers, model",
        ],
    ),
    "a URL has its scheme": (
        {"provider.openai.baseURL": "http://a/v1"},
        {"provider.openai.baseURL": "models.example/v1"},
        ['spec.provider.openai.baseURL: must match ^https?://[^\\s/?#@]+(/[^\\s?#]*)?$, found "models.example/v1"'],
    ),
    "a URL holds no password": (
        {"provider.openai.baseURL": "http://a/v1"},
        {"provider.openai.baseURL": "http://me:secret@a/v1"},
        ['spec.provider.openai.baseURL: must match ^https?://[^\\s/?#@]+(/[^\\s?#]*)?$, found "http://me:secret@a/v1"'],
    ),
    "a model has a name": (
        {"provider.openai.model": "org/model-7b@q4:latest"},
        {"provider.openai.model": " m"},
        ['spec.provider.openai.model: must match ^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$, found " m"'],
    ),
    "an API key is a key of a Secret": (
        {"provider.openai.apiKeySecret": {"name": "openai", "key": "api-key"}},
        {"provider.openai.apiKeySecret": {"name": "openai"}},
        ["spec.provider.openai.apiKeySecret.key: is required"],
    ),
    "and is not written into the manifest": (
        {"provider.openai.apiKeySecret": {"name": "openai", "key": "api-key"}},
        {"provider.openai.apiKey": "sk-1"},
        [
            "spec.provider.openai.apiKey: unknown field; allowed: apiKeySecret, baseURL, caBundle, extraBody, headers, model"
        ],
    ),
    "contextLength is at least 256": (
        {"provider": {"type": "Ollama", "ollama": {"model": "m", "contextLength": 256}}},
        {"provider": {"type": "Ollama", "ollama": {"model": "m", "contextLength": 4}}},
        ["spec.provider.ollama.contextLength: must be greater than or equal to 256, found 4"],
    ),
    "parallel is at least 1": (
        {"provider": {"type": "Ollama", "ollama": {"model": "m", "parallel": 64}}},
        {"provider": {"type": "Ollama", "ollama": {"model": "m", "parallel": 0}}},
        ["spec.provider.ollama.parallel: must be greater than or equal to 1, found 0"],
    ),
    "concurrency is at least 1": (
        {"limits": {"concurrency": 1}},
        {"limits": {"concurrency": 0}},
        ["spec.limits.concurrency: must be greater than or equal to 1, found 0"],
    ),
    "prices are decimal strings": (
        {"pricing": PRICING},
        {"pricing": {**PRICING, "input": 0.15}},
        ['spec.pricing.input: must be a decimal string in quotes, for example "0.15"'],
    ),
    "and not negative": (
        {"pricing": {**PRICING, "cachedInput": "0"}},
        {"pricing": {**PRICING, "cachedInput": "-0.1"}},
        ['spec.pricing.cachedInput: cachedInput must be at least "0", found "-0.1"'],
    ),
    "a price list is whole": (
        {"pricing": PRICING},
        {"pricing": {"currency": "USD", "input": "1"}},
        ["spec.pricing.output: is required"],
    ),
    "a currency is its code": (
        {"pricing": {**PRICING, "currency": "EUR"}},
        {"pricing": {**PRICING, "currency": "usd"}},
        ['spec.pricing.currency: must match ^[A-Z]{3}$, found "usd"'],
    ),
    "a time-out has a unit": (
        {"request": {"timeout": "1m30s"}},
        {"request": {"timeout": 60}},
        ['spec.request.timeout: must be a duration with its unit, for example "60s"'],
    ),
    "and is above zero": (
        {"request": {"timeout": "1ms"}},
        {"request": {"timeout": "0s"}},
        ['spec.request.timeout: timeout must be above zero, found "0s"'],
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_an_object_that_keeps_the_rule_is_taken(rule: str) -> None:
    assert complaints(an_endpoint(RULES[rule][0])) == []


@pytest.mark.parametrize("rule", RULES)
def test_an_object_that_breaks_the_rule_is_told_where_and_why(rule: str) -> None:
    _, broken, want = RULES[rule]
    assert complaints(an_endpoint(broken)) == want
