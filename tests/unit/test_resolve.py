"""From objects to run.json: references followed, defaults applied, and what is told where that cannot be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dspy_operator.api.objects import ModelEndpoint, parse_object
from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.contract.resolve import Surroundings, control_of, resolve, resolve_validation, slots_of
from dspy_operator.contract.runspec import Paths, RunSpec, Usage
from tests.unit.written import a_run, an_endpoint, changed, endpoint, program, run

AROUND = Surroundings(data_path="/data/rows", paths=Paths(journal="/j", out="/o", control="/c"), dataset_digest="v1:d")
PRICING = {"currency": "USD", "input": "0.15", "output": "0.60"}
OLLAMA = {"provider": {"type": "Ollama", "ollama": {"model": "llama"}}}


def resolved(
    of_run: dict[str, Any] | None = None,
    of_program: dict[str, Any] | None = None,
    endpoints: dict[str, ModelEndpoint] | None = None,
    around: Surroundings = AROUND,
) -> RunSpec:
    return resolve(run(of_run), program(of_program), endpoints or {"default/qwen": endpoint()}, around)


GEPA = {"optimizer": {"type": "GEPA"}}
BIG = endpoint({"provider.openai.model": "big", "provider.openai.baseURL": "http://big.example/v1"})
TWO = {"default/qwen": endpoint(), "models/big": BIG}
JUDGED = {"metric": {"type": "Judge", "judge": {"instructions": "Is it right?"}}}
VOTES = {"metric": {"type": "Judge", "judge": {"instructions": "Is it right?", "votes": 3}}}


# Roles


@pytest.mark.parametrize(
    ("of_run", "want"),
    [
        pytest.param({}, {"task": "qwen"}, id="an optimizer that writes no prompts has the task alone"),
        pytest.param({"optimizer": {"type": "BootstrapFewShot"}}, {"task": "qwen"}, id="bootstrapping too"),
        pytest.param(GEPA, {"task": "qwen", "prompt": "qwen"}, id="the prompt model is the task's unless given"),
        pytest.param({"optimizer": {"type": "MIPROv2"}}, {"task": "qwen", "prompt": "qwen"}, id="also for MIPROv2"),
        pytest.param(
            GEPA | {"endpoints": {"prompt": {"name": "big", "namespace": "models"}}},
            {"task": "qwen", "prompt": "big"},
            id="a prompt model of another namespace",
        ),
        pytest.param(
            GEPA | {"endpoints": {"task": {"name": "big", "namespace": "models"}}},
            {"task": "big", "prompt": "big"},
            id="another task model takes the prompt role with it",
        ),
        pytest.param(
            {"endpoints": {"prompt": {"name": "big", "namespace": "models"}}},
            {"task": "qwen"},
            id="a prompt model that nothing asks is left out",
        ),
    ],
)
def test_who_plays_which_role(of_run: dict[str, Any], want: dict[str, str]) -> None:
    assert {str(role): each.model for role, each in resolved(of_run, endpoints=TWO).endpoints.items()} == want


def test_a_role_overrides_the_targets_request_field_by_field() -> None:
    spec = resolved(
        {"endpoints": {"task": {"name": "qwen", "request": {"maxTokens": 64, "stop": ["END"]}}}},
        {"target.request": {"temperature": "0.5", "maxTokens": 512}},
    )
    assert spec.endpoints["task"].request.document() == {"temperature": "0.5", "maxTokens": 64, "stop": ["END"]}
    assert spec.program.request is not None
    assert spec.program.request.document() == {"temperature": "0.5", "maxTokens": 512}


def test_the_prompt_role_samples_on_its_own_terms() -> None:
    request = {"target.request": {"temperature": "0", "maxTokens": 16}}
    assert resolved(GEPA, request).endpoints["prompt"].request.document() == {}
    given = GEPA | {"endpoints": {"prompt": {"name": "qwen", "request": {"temperature": "0.9"}}}}
    assert resolved(given, request).endpoints["prompt"].request.document() == {"temperature": "0.9"}


def test_the_judge_is_the_tasks_endpoint_unless_given_and_samples_on_its_own_terms() -> None:
    request = JUDGED | {"target.request": {"temperature": "1", "maxTokens": 16}}
    own = resolved({}, request).endpoints
    assert own["judge"].name == own["task"].name and own["judge"].request.document() == {}
    given = {"endpoints": {"judge": {"name": "big", "namespace": "models", "request": {"maxTokens": 9}}}}
    of = resolved(given, request, TWO).endpoints
    assert (of["judge"].model, of["judge"].request.document()) == ("big", {"maxTokens": 9})
    assert list(resolved(given, {}, TWO).endpoints) == ["task"], "a judge that nothing asks is left out"


def test_a_part_of_a_composite_needs_a_judge_too() -> None:
    parts = [{"metric": {"type": "ExactMatch"}}, {"metric": JUDGED["metric"]}]
    composite = {"metric": {"type": "Composite", "composite": {"parts": parts}}}
    assert list(resolved({}, composite).endpoints) == ["task", "judge"]


def test_a_reward_needs_a_judge_too() -> None:
    reward = {"type": "Judge", "judge": {"instructions": "Is it right?"}}
    options = {"attempts": 2, "threshold": "1", "reward": reward}
    asked = {"program.single.module": {"type": "BestOfN", "bestOfN": options}}
    assert list(resolved({}, asked).endpoints) == ["task", "judge"]
    given = {"endpoints": {"judge": {"name": "big", "namespace": "models"}}}
    assert resolved(given, asked, TWO).endpoints["judge"].model == "big"


def test_a_judge_moves_the_input_digest_with_its_model_and_request_alone() -> None:
    hot = {"endpoints": {"judge": {"name": "qwen", "request": {"temperature": "0.3"}}}}
    cold = {"endpoints": {"judge": {"name": "qwen", "request": {"temperature": "0.0"}}}}
    plain, sampled, spelled = (resolved(of, JUDGED).input_digest for of in ({}, hot, cold))
    assert plain == spelled != sampled


def test_several_votes_need_a_judge_that_samples() -> None:
    with pytest.raises(RunFailed) as failed:
        resolved({}, VOTES)
    assert (failed.value.reason, failed.value.path) == (Reason.INVALID_METRIC, "spec.metric.judge.votes")
    assert "3 votes of a judge at temperature 0 are one vote" in failed.value.message
    assert resolved({"endpoints": {"judge": {"name": "qwen", "request": {"temperature": "0.7"}}}}, VOTES)


# Names and namespaces


def test_an_endpoint_without_a_namespace_is_looked_for_beside_who_names_it() -> None:
    of_run = parse_object(changed(a_run(), "metadata.namespace", "team-a"))
    beside = {"team-a/qwen": endpoint(), "default/qwen": BIG}
    assert of_run.kind == "OptimizationRun"
    spec = resolve(of_run, program(), beside, AROUND)
    assert spec.endpoints["task"].name == "default/qwen", "the program names it, and is in default"
    named = parse_object(changed(changed(a_run(), "metadata.namespace", "team-a"), "spec.endpoints.task.name", "qwen"))
    assert named.kind == "OptimizationRun"
    assert resolve(named, program(), beside, AROUND).endpoints["task"].name == "team-a/qwen"
    assert spec.run.document() == {"namespace": "team-a", "name": "fast", "uid": "", "attempt": 1}


@pytest.mark.parametrize(
    ("of_run", "of_program", "path", "message"),
    [
        pytest.param(
            {},
            {"target.endpoint.name": "qwne"},
            "spec.target.endpoint.name",
            "ModelEndpoint default/qwne does not exist (there are: default/qwen, models/big)",
            id="the program's target",
        ),
        pytest.param(
            {"endpoints": {"task": {"name": "big"}}},
            {},
            "spec.endpoints.task.name",
            "ModelEndpoint default/big does not exist (there are: default/qwen, models/big)",
            id="the run's task, without its namespace",
        ),
        pytest.param(
            GEPA | {"endpoints": {"prompt": {"name": "huge", "namespace": "models"}}},
            {},
            "spec.endpoints.prompt.name",
            "ModelEndpoint models/huge does not exist (there are: default/qwen, models/big)",
            id="the run's prompt model",
        ),
        pytest.param(
            {"endpoints": {"judge": {"name": "huge", "namespace": "models"}}},
            JUDGED,
            "spec.endpoints.judge.name",
            "ModelEndpoint models/huge does not exist (there are: default/qwen, models/big)",
            id="the run's judge",
        ),
    ],
)
def test_an_endpoint_that_does_not_exist_is_told_by_who_names_it(
    of_run: dict[str, Any], of_program: dict[str, Any], path: str, message: str
) -> None:
    with pytest.raises(RunFailed) as failed:
        resolved(of_run, of_program, TWO)
    assert (failed.value.reason, failed.value.path, failed.value.message) == (Reason.ENDPOINT_NOT_FOUND, path, message)


# Where things are


def test_a_url_from_outside_goes_before_the_manifests() -> None:
    around = replace(AROUND, urls={"default/qwen": "http://127.0.0.1:1/v1"})
    assert resolved(around=around).endpoints["task"].url == "http://127.0.0.1:1/v1"
    assert resolved().endpoints["task"].url == "http://models.example/v1"


def test_an_ollama_endpoint_has_its_url_from_outside_only() -> None:
    endpoints = {"default/qwen": endpoint(OLLAMA)}
    with pytest.raises(RunFailed, match="ModelEndpoint default/qwen has no URL yet"):
        resolved(endpoints=endpoints)
    around = replace(AROUND, urls={"default/qwen": "http://qwen:11434/v1"}, model_digests={"default/qwen": "sha256:1"})
    task = resolved(endpoints=endpoints, around=around).endpoints["task"]
    assert (task.type, task.url, task.model, task.model_digest) == (
        "Ollama",
        "http://qwen:11434/v1",
        "llama",
        "sha256:1",
    )


def test_a_key_file_is_used_where_the_endpoint_asks_for_a_key() -> None:
    around = replace(AROUND, key_files={"default/qwen": "/secrets/task/api-key"})
    asks = endpoint({"provider.openai.apiKeySecret": {"name": "openai", "key": "k"}})
    task = resolved(endpoints={"default/qwen": asks}, around=around).endpoints["task"]
    assert (task.api_key_file, task.api_key_source) == ("/secrets/task/api-key", "key k of Secret default/openai")
    assert resolved(around=around).endpoints["task"].api_key_file is None


# Money


def test_a_cost_budget_needs_a_price_on_every_endpoint() -> None:
    with pytest.raises(RunFailed) as failed:
        resolved({"budget": {"cost": "1"}})
    assert (failed.value.reason, failed.value.path) == (Reason.PRICING_MISSING, "spec.budget.cost")
    assert failed.value.message == (
        "a cost budget needs spec.pricing on every endpoint of the run; default/qwen (task) has none"
    )


def test_a_cost_budget_needs_one_currency() -> None:
    euro = endpoint({"pricing": {**PRICING, "currency": "EUR"}})
    of_run = GEPA | {"budget": {"cost": "1"}, "endpoints": {"prompt": {"name": "big"}}}
    with pytest.raises(RunFailed, match="the endpoints' prices are in EUR and USD: a cost budget needs one currency"):
        resolved(of_run, endpoints={"default/qwen": endpoint({"pricing": PRICING}), "default/big": euro})


def test_without_a_cost_budget_no_price_is_needed() -> None:
    assert resolved().endpoints["task"].pricing is None


# Defaults


def test_what_is_not_written_has_its_default() -> None:
    spec = resolved()
    assert (spec.mode, spec.seed, spec.kind, spec.test_looks) == ("Run", 0, "run", 0)
    assert spec.gate.document() == {"mode": "Auto", "alpha": "0.05", "minImprovement": "0"}
    assert spec.dataset.split.document() == {"type": "Hash", "seed": 0}
    assert (spec.dataset.export_rows, spec.dataset.fields, spec.dataset.digest) == (True, {}, "v1:d")
    assert spec.endpoints["task"].timeout_seconds == 60.0


def test_what_is_written_is_taken() -> None:
    spec = resolved(
        {"seed": 7, "mode": "Estimate"},
        {
            "dataset.split": {"type": "Hash", "hash": {"seed": 5}},
            "dataset.exportRows": False,
            "dataset.limit": 9,
            "promotion": {"mode": "Manual", "alpha": "0.01", "minImprovement": "2"},
        },
        {"default/qwen": endpoint({"request": {"timeout": "1m30s"}})},
    )
    assert (spec.mode, spec.seed) == ("Estimate", 7)
    assert spec.gate.document() == {"mode": "Manual", "alpha": "0.01", "minImprovement": "2"}
    assert (spec.dataset.split.seed, spec.dataset.export_rows, spec.dataset.limit) == (5, False, 9)
    assert spec.endpoints["task"].timeout_seconds == 90.0


@pytest.mark.parametrize(
    ("change", "moves"),
    [
        pytest.param({"around": replace(AROUND, urls={"default/qwen": "http://other/v1"})}, False, id="a URL"),
        pytest.param({"around": replace(AROUND, model_digests={"default/qwen": "sha256:1"})}, False, id="a model's digest"),
        pytest.param({"around": replace(AROUND, attempt=2, test_looks=3)}, False, id="what happened before"),
        pytest.param({"of_run": {"budget": {"calls": 5000}}}, False, id="a budget"),
        pytest.param({"of_run": {"concurrency": 9}}, False, id="concurrency"),
        pytest.param({"of_run": {"pacing": "Fixed"}}, False, id="the pace"),
        pytest.param({"of_program": {"promotion": {"alpha": "0.01"}}}, False, id="the rules of promotion"),
        pytest.param({"of_run": {"seed": 0}}, False, id="a default that is spelled out"),
        pytest.param({"of_run": {"seed": 1}}, True, id="a seed"),
        pytest.param({"of_program": {"target.request": {"maxTokens": 5}}}, True, id="a request"),
        pytest.param({"around": replace(AROUND, dataset_digest="v1:e")}, True, id="rows"),
        pytest.param({"of_run": {"optimizer": {"type": "GEPA"}}}, True, id="an optimizer"),
    ],
)  # fmt: skip
def test_what_moves_the_input_digest(change: dict[str, Any], moves: bool) -> None:
    assert (resolved(**change).input_digest != resolved().input_digest) is moves


def test_validation_needs_no_endpoint_and_no_optimizer() -> None:
    spec = resolve_validation(program(), AROUND)
    assert (spec.kind, spec.optimizer, spec.endpoints, spec.dataset.digest) == ("validate", None, {}, None)
    assert spec.program.digest == resolved().program.digest


# The live part


@pytest.mark.parametrize(
    ("of_endpoint", "want"),
    [
        pytest.param({}, None, id="a URL without limits says nothing"),
        pytest.param({"limits": {"concurrency": 3}}, 3, id="its limit"),
        pytest.param(OLLAMA, 1, id="an Ollama pod answers one at a time"),
        pytest.param({"provider": {"type": "Ollama", "ollama": {"model": "m", "parallel": 4}}}, 4, id="or parallel"),
        pytest.param(
            {"provider": {"type": "Ollama", "ollama": {"model": "m", "parallel": 4}}, "limits": {"concurrency": 2}},
            2,
            id="the lesser of both",
        ),
    ],
)
def test_slots_of_an_endpoint(of_endpoint: dict[str, Any], want: int | None) -> None:
    found = parse_object(an_endpoint(of_endpoint))
    assert isinstance(found, ModelEndpoint)
    assert slots_of(found) == want


def test_a_run_takes_no_more_slots_than_it_wants() -> None:
    endpoints = {"default/qwen": endpoint({"limits": {"concurrency": 8}}), "default/free": endpoint()}
    assert control_of(run({"concurrency": 2}), endpoints).slots == {"default/qwen": 2}
    assert control_of(run({"pacing": "Fixed"}), endpoints).pacing == "Fixed"
    control = control_of(run(), endpoints, generation=5, floor=Usage(calls=3))
    assert (control.concurrency, control.slots, control.generation, control.floor.calls) == (
        4,
        {"default/qwen": 4},
        5,
        3,
    )
    assert control.budget.calls == 100
