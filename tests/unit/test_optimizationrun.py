"""The rules of an OptimizationRun: for each an object that keeps it, and one that does not, with what its author reads."""

from __future__ import annotations

from typing import Any

import pytest

from dspy_operator.api.optimizationrun import OPTIONS, Optimizer, OptimizerOptions
from tests.unit.written import REMOVED, a_run, complaints, run

MIPRO, GEPA = "optimizer.miproV2", "optimizer.gepa"

RULES: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "a run names its program": ({}, {"programRef": REMOVED}, ["spec.programRef: is required"]),
    "a program's name is a name": (
        {"programRef.name": "triage-2"},
        {"programRef.name": "Triage"},
        ['spec.programRef.name: must match ^[a-z]([-a-z0-9]*[a-z0-9])?$, found "Triage"'],
    ),
    "the optimizer is one that there is": (
        {"optimizer.type": "GEPA"},
        {"optimizer.type": "Gepa"},
        ['spec.optimizer.type: must be one of Evaluate, LabeledFewShot, BootstrapFewShot, BootstrapFewShotWithRandomSearch, MIPROv2, GEPA, COPRO, SIMBA, InferRules, Stages, found "Gepa"'],
    ),
    "an optimizer needs no options": (
        {"optimizer.type": "MIPROv2"},
        {"optimizer": {}},
        ["spec.optimizer.type: is required"],
    ),
    "options are those of the type": (
        {"optimizer.type": "GEPA", GEPA: {}},
        {"optimizer.type": "GEPA", GEPA: {}, MIPRO: {}},
        ["spec.optimizer.miproV2: miproV2 is set, but type is GEPA: remove it or change type"],
    ),
    "Evaluate has no options": (
        {"optimizer.type": "Evaluate"},
        {"optimizer.type": "Evaluate", GEPA: {}},
        ["spec.optimizer.gepa: gepa is set, but type is Evaluate: remove it or change type"],
    ),
    "numCandidates brings numTrials": (
        {"optimizer.type": "MIPROv2", MIPRO: {"numCandidates": 6, "numTrials": 12}},
        {"optimizer.type": "MIPROv2", MIPRO: {"numCandidates": 6}},
        ["spec.optimizer.miproV2: numCandidates needs numTrials beside it: write both, or neither"],
    ),
    "numTrials brings numCandidates": (
        {"optimizer.type": "MIPROv2", MIPRO: {}},
        {"optimizer.type": "MIPROv2", MIPRO: {"numTrials": 12}},
        ["spec.optimizer.miproV2: numTrials needs numCandidates beside it: write both, or neither"],
    ),
    "auto has no counts beside it": (
        {"optimizer.type": "MIPROv2", MIPRO: {"auto": "Light"}},
        {"optimizer.type": "MIPROv2", MIPRO: {"auto": "Light", "numCandidates": 6, "numTrials": 12}},
        ["spec.optimizer.miproV2: auto and numCandidates and numTrials exclude each other: write one or the other"],
    ),
    "GEPA has one size": (
        {"optimizer.type": "GEPA", GEPA: {"maxMetricCalls": 200}},
        {"optimizer.type": "GEPA", GEPA: {"auto": "Light", "maxFullEvals": 2, "maxMetricCalls": 200}},
        ["spec.optimizer.gepa: auto and maxFullEvals and maxMetricCalls exclude each other: write one"],
    ),
    "auto is a size that there is": (
        {"optimizer.type": "GEPA", GEPA: {"auto": "FitBudget"}},
        {"optimizer.type": "GEPA", GEPA: {"auto": "light"}},
        ['spec.optimizer.gepa.auto: must be one of FitBudget, Light, Medium, Heavy, found "light"'],
    ),
    "k is at least 1": (
        {"optimizer.type": "LabeledFewShot", "optimizer.labeledFewShot": {"k": 1}},
        {"optimizer.type": "LabeledFewShot", "optimizer.labeledFewShot": {"k": 0}},
        ["spec.optimizer.labeledFewShot.k: must be greater than or equal to 1, found 0"],
    ),
    "demonstrations may be none": (
        {"optimizer.type": "BootstrapFewShot", "optimizer.bootstrapFewShot": {"maxBootstrappedDemos": 0}},
        {"optimizer.type": "BootstrapFewShot", "optimizer.bootstrapFewShot": {"maxBootstrappedDemos": -1}},
        ["spec.optimizer.bootstrapFewShot.maxBootstrappedDemos: must be greater than or equal to 0, found -1"],
    ),
    "a threshold is a score of 0 to 1": (
        {"optimizer.type": "BootstrapFewShot", "optimizer.bootstrapFewShot": {"metricThreshold": "0.5"}},
        {"optimizer.type": "BootstrapFewShot", "optimizer.bootstrapFewShot": {"metricThreshold": "50"}},
        ['spec.optimizer.bootstrapFewShot.metricThreshold: metricThreshold must be above "0" and at most "1", found "50"'],
    ),
    "also MIPROv2's": (
        {"optimizer.type": "MIPROv2", MIPRO: {"metricThreshold": "1"}},
        {"optimizer.type": "MIPROv2", MIPRO: {"metricThreshold": "0"}},
        ['spec.optimizer.miproV2.metricThreshold: metricThreshold must be above "0" and at most "1", found "0"'],
    ),
    "initTemperature is 0 to 2": (
        {"optimizer.type": "MIPROv2", MIPRO: {"initTemperature": "2"}},
        {"optimizer.type": "MIPROv2", MIPRO: {"initTemperature": "20"}},
        ['spec.optimizer.miproV2.initTemperature: initTemperature must be "0" to "2", found "20"'],
    ),
    "a budget limits calls, tokens or cost": (
        {"budget": {"cost": "0.01"}},
        {"budget": {"wallClock": "2h"}},
        ["spec.budget: at least one of calls, tokens, cost is required"],
    ),
    "money is a decimal string": (
        {"budget": {"cost": "4.00"}},
        {"budget": {"cost": 4.5}},
        ['spec.budget.cost: must be a decimal string in quotes, for example "4.5"'],
    ),
    "a budget is more than nothing": (
        {"budget": {"calls": 1}},
        {"budget": {"calls": 0}},
        ["spec.budget.calls: must be greater than or equal to 1, found 0"],
    ),
    "also in money": (
        {"budget": {"cost": "0.000001"}},
        {"budget": {"cost": "0.00"}},
        ['spec.budget.cost: cost must be above "0", found "0.00"'],
    ),
    "also in time": (
        {"budget": {"calls": 1, "wallClock": "1ms"}},
        {"budget": {"calls": 1, "wallClock": "0s"}},
        ['spec.budget.wallClock: wallClock must be above zero, found "0s"'],
    ),
    "time has a unit": (
        {"budget": {"calls": 1, "wallClock": "1h30m"}},
        {"budget": {"calls": 1, "wallClock": 90}},
        ['spec.budget.wallClock: must be a duration with its unit, for example "90s"'],
    ),
    "a seed is a whole number": (
        {"seed": 2**31 - 1},
        {"seed": 1.5},
        ["spec.seed: must be a whole number, found 1.5"],
    ),
    "and not negative": ({"seed": 0}, {"seed": -1}, ["spec.seed: must be greater than or equal to 0, found -1"]),
    "concurrency is 1 to 256": (
        {"concurrency": 256},
        {"concurrency": 257},
        ["spec.concurrency: must be less than or equal to 256, found 257"],
    ),
    "mode is Run or Estimate": (
        {"mode": "Estimate"},
        {"mode": "DryRun"},
        ['spec.mode: must be one of Run, Estimate, found "DryRun"'],
    ),
    "a role is one that there is": (
        {"endpoints": {"task": {"name": "a"}, "prompt": {"name": "b", "namespace": "models"}}},
        {"endpoints": {"reflection": {"name": "a"}}},
        ["spec.endpoints.reflection: unknown field; allowed: judge, prompt, task"],
    ),
    "a role's request follows the rules of requests": (
        {"endpoints": {"prompt": {"name": "b", "request": {"temperature": "0.7"}}}},
        {"endpoints": {"prompt": {"name": "b", "request": {"temperature": "7"}}}},
        ['spec.endpoints.prompt.request.temperature: temperature must be "0" to "2", found "7"'],
    ),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_an_object_that_keeps_the_rule_is_taken(rule: str) -> None:
    assert complaints(a_run(RULES[rule][0])) == []


@pytest.mark.parametrize("rule", RULES)
def test_an_object_that_breaks_the_rule_is_told_where_and_why(rule: str) -> None:
    _, broken, want = RULES[rule]
    assert complaints(a_run(broken)) == want


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_default_is_one_of_an_option_that_there_is_and_its_description_says_it(
    options: type[OptimizerOptions],
) -> None:
    for name, value in options.DEFAULTS.items():
        said = str(value).lower() if isinstance(value, bool) else str(value)
        assert said in (options.model_fields[name].description or "")


def test_an_option_has_its_default_where_it_is_unset() -> None:
    options = run({"optimizer.type": "MIPROv2", MIPRO: {"maxLabeledDemos": 0}}).spec.optimizer.options
    assert (options.value("max_labeled_demos"), options.value("max_bootstrapped_demos")) == (0, 4)
    assert options.value("minibatch") is None
    assert options.deviations() == {"maxLabeledDemos": 0}


@pytest.mark.parametrize("kind", sorted(OPTIONS.keys() - Optimizer.REQUIRED))
def test_an_optimizer_without_a_member_has_all_options_unset(kind: str) -> None:
    options = run({"optimizer.type": kind}).spec.optimizer.options
    assert type(options) is OPTIONS[kind]
    assert options.document() == options.deviations() == {}
