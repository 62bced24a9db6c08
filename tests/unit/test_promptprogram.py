"""The rules of a PromptProgram: for each an object that keeps it, and one that does not, with what its author reads."""

from __future__ import annotations

from typing import Any

import pytest

from dspy_operator.api.program import ModuleType
from tests.unit.written import REMOVED, a_program, complaints, program

SIGNATURE = "program.single.signature"
AT_SIGNATURE = f"spec.{SIGNATURE}"
CONFIG_MAP = {"type": "ConfigMap", "configMap": {"name": "rows", "key": "data.jsonl"}}

RULES: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "inputs and outputs share one set of names": (
        {f"{SIGNATURE}.inputs": [{"name": "a", "type": "str"}, {"name": "b", "type": "str"}]},
        {f"{SIGNATURE}.inputs": [{"name": "label", "type": "str"}]},
        [f'{AT_SIGNATURE}: field "label" is there twice; inputs and outputs share one set of names'],
    ),
    "a signature has inputs": (
        {f"{SIGNATURE}.inputs": [{"name": "a", "type": "str"}]},
        {f"{SIGNATURE}.inputs": []},
        [f"{AT_SIGNATURE}.inputs: needs at least 1 item(s)"],
    ),
    "at most 32 of them": (
        {f"{SIGNATURE}.inputs": [{"name": f"a{number}", "type": "str"} for number in range(32)]},
        {f"{SIGNATURE}.inputs": [{"name": f"a{number}", "type": "str"} for number in range(33)]},
        [f"{AT_SIGNATURE}.inputs: has more than 32 items"],
    ),
    "a signature has outputs": (
        {},
        {f"{SIGNATURE}.outputs": REMOVED},
        [f"{AT_SIGNATURE}.outputs: is required"],
    ),
    "instructions are not empty": (
        {f"{SIGNATURE}.instructions": "Classify."},
        {f"{SIGNATURE}.instructions": ""},
        [f'{AT_SIGNATURE}.instructions: must have at least 1 character, found ""'],
    ),
    "a field's name is a snake_case identifier": (
        {f"{SIGNATURE}.inputs.0.name": "ticket_text"},
        {f"{SIGNATURE}.inputs.0.name": "ticketText"},
        [f'{AT_SIGNATURE}.inputs[0].name: must match ^[a-z_][a-z0-9_]*$, found "ticketText"'],
    ),
    "a field's name is no word of Python": (
        {f"{SIGNATURE}.inputs.0.name": "from_"},
        {f"{SIGNATURE}.inputs.0.name": "from"},
        [f'{AT_SIGNATURE}.inputs[0].name: "from" cannot be a field name: DSPy or Python uses it'],
    ),
    "a field's name is no word of DSPy": (
        {f"{SIGNATURE}.inputs.0.name": "demo"},
        {f"{SIGNATURE}.inputs.0.name": "demos"},
        [f'{AT_SIGNATURE}.inputs[0].name: "demos" cannot be a field name: DSPy or Python uses it'],
    ),
    "a description is not empty": (
        {f"{SIGNATURE}.inputs.0.description": "what the customer wrote"},
        {f"{SIGNATURE}.inputs.0.description": ""},
        [f'{AT_SIGNATURE}.inputs[0].description: must have at least 1 character, found ""'],
    ),
    "a ChainOfThought brings its own reasoning": (
        {"program.single.module": {"type": "Predict"}, f"{SIGNATURE}.outputs.0.name": "reasoning"},
        {"program.single.module": {"type": "ChainOfThought"}, f"{SIGNATURE}.outputs.0.name": "reasoning"},
        ['spec.program.single: "reasoning" cannot be a field of a ChainOfThought: the module adds it'],
    ),
    "the module is one that there is": (
        {"program.single.module": {"type": "ChainOfThought"}},
        {"program.single.module": {"type": "Chain"}},
        [
            "spec.program.single.module.type: must be one of Predict, ChainOfThought, ReAct, BestOfN, Refine, "
            'MultiChainComparison, found "Chain"'
        ],
    ),
    "type Single has its member": (
        {},
        {"program.single": REMOVED},
        ["spec.program.single: type is Single: single is required"],
    ),
    "Chat has no schema": (
        {"adapter": {"type": "Chat"}},
        {"adapter": {"type": "Chat", "constrained": "Required"}},
        ["spec.adapter.constrained: constrained is for types JSON and BAML: the Chat format has no schema"],
    ),
    "JSON says whether it is constrained": (
        {"adapter": {"type": "JSON", "constrained": "Disabled"}},
        {"adapter": {"type": "JSON"}},
        ["spec.adapter.constrained: type is JSON: constrained is required (Auto, Required or Disabled)"],
    ),
    "BAML says whether it is constrained": (
        {"adapter": {"type": "BAML", "constrained": "Required"}},
        {"adapter": {"type": "BAML"}},
        ["spec.adapter.constrained: type is BAML: constrained is required (Auto, Required or Disabled)"],
    ),
    "XML has no schema": (
        {"adapter": {"type": "XML"}},
        {"adapter": {"type": "XML", "constrained": "Disabled"}},
        ["spec.adapter.constrained: constrained is for types JSON and BAML: the XML format has no schema"],
    ),
    "the adapter is one that there is": (
        {"adapter": {"type": "Chat"}},
        {"adapter": {"type": "YAML"}},
        ['spec.adapter.type: must be one of Auto, Chat, JSON, XML, BAML, found "YAML"'],
    ),
    "temperature is a decimal string": (
        {"target.request": {"temperature": "0"}},
        {"target.request": {"temperature": 0}},
        ['spec.target.request.temperature: must be a decimal string in quotes, for example "0"'],
    ),
    "temperature is 0 to 2": (
        {"target.request": {"temperature": "2"}},
        {"target.request": {"temperature": "2.1"}},
        ['spec.target.request.temperature: temperature must be "0" to "2", found "2.1"'],
    ),
    "topP is above 0, at most 1": (
        {"target.request": {"topP": "1"}},
        {"target.request": {"topP": "0"}},
        ['spec.target.request.topP: topP must be above "0" and at most "1", found "0"'],
    ),
    "maxTokens is a whole number": (
        {"target.request": {"maxTokens": 1}},
        {"target.request": {"maxTokens": "512"}},
        ['spec.target.request.maxTokens: must be a whole number, found "512"'],
    ),
    "maxTokens is at least 1": (
        {"target.request": {"maxTokens": 1_000_000}},
        {"target.request": {"maxTokens": 0}},
        ["spec.target.request.maxTokens: must be greater than or equal to 1, found 0"],
    ),
    "stop has at most 4 texts": (
        {"target.request": {"stop": ["a", "b", "c", "d"]}},
        {"target.request": {"stop": ["a", "b", "c", "d", "e"]}},
        ["spec.target.request.stop: has more than 4 items"],
    ),
    "stop is a list": (
        {"target.request": {"stop": ["END"]}},
        {"target.request": {"stop": "END"}},
        ['spec.target.request.stop: must be a list, found "END"'],
    ),
    "a program has its target": ({}, {"target": REMOVED}, ["spec.target: is required"]),
    "a source has the member of its type": (
        {"dataset.source": CONFIG_MAP},
        {"dataset.source": {"type": "ConfigMap"}},
        ["spec.dataset.source.configMap: type is ConfigMap: configMap is required"],
    ),
    "and no other": (
        {"dataset.source": CONFIG_MAP},
        {"dataset.source": {**CONFIG_MAP, "inline": {"data": "{}"}}},
        ["spec.dataset.source.inline: inline is set, but type is ConfigMap: remove it or change type"],
    ),
    "rows in the manifest are not empty": (
        {"dataset.source.inline.data": "{}"},
        {"dataset.source.inline.data": ""},
        ['spec.dataset.source.inline.data: must have at least 1 character, found ""'],
    ),
    "the format is one that there is": (
        {"dataset.format": "JSONL"},
        {"dataset.format": "TSV"},
        ['spec.dataset.format: must be one of JSONL, JSON, CSV, found "TSV"'],
    ),
    "fields maps names to columns": (
        {"dataset.fields": {"ticket": "Ticket text"}},
        {"dataset.fields": ["ticket"]},
        ['spec.dataset.fields: must be a mapping, found ["ticket"]'],
    ),
    "a name in fields is a field's name": (
        {"dataset.fields": {"ticket": "Ticket text"}},
        {"dataset.fields": {"Ticket": "text"}},
        ['spec.dataset.fields.Ticket: must match ^[a-z_][a-z0-9_]*$, found "Ticket"'],
    ),
    "limit is at least 1": (
        {"dataset.limit": 1},
        {"dataset.limit": 0},
        ["spec.dataset.limit: must be greater than or equal to 1, found 0"],
    ),
    "a Hash split needs no options": ({"dataset.split": {"type": "Hash"}}, {"dataset.split": {}}, ["spec.dataset.split.type: is required"]),
    "a Column split names its column": (
        {"dataset.split": {"type": "Column", "column": {"name": "part"}}},
        {"dataset.split": {"type": "Column"}},
        ["spec.dataset.split.column: type is Column: column is required"],
    ),
    "a split has one type": (
        {"dataset.split": {"type": "Hash", "hash": {"seed": 1}}},
        {"dataset.split": {"type": "Hash", "column": {"name": "part"}}},
        ["spec.dataset.split.column: column is set, but type is Hash: remove it or change type"],
    ),
    "exportRows is true or false": (
        {"dataset.exportRows": False},
        {"dataset.exportRows": "no"},
        ['spec.dataset.exportRows: must be true or false, found "no"'],
    ),
    "a metric's options are those of its type": (
        {"metric": {"type": "F1", "f1": {"fields": ["label"]}}},
        {"metric": {"type": "F1", "exactMatch": {"fields": ["label"]}}},
        ["spec.metric.exactMatch: exactMatch is set, but type is F1: remove it or change type"],
    ),
    "accept is above 0, at most 1": (
        {"metric.accept": "0.5"},
        {"metric.accept": "50"},
        ['spec.metric.accept: accept must be above "0" and at most "1", found "50"'],
    ),
    "alpha is a probability": (
        {"promotion": {"alpha": "0.05"}},
        {"promotion": {"alpha": "5"}},
        ['spec.promotion.alpha: alpha must be between "0" and "1", found "5"'],
    ),
    "minImprovement is in points": (
        {"promotion": {"minImprovement": "100"}},
        {"promotion": {"minImprovement": "-1"}},
        ['spec.promotion.minImprovement: minImprovement must be "0" to "100", found "-1"'],
    ),
    "promotion is Auto or Manual": (
        {"promotion": {"mode": "Manual"}},
        {"promotion": {"mode": "Off"}},
        ['spec.promotion.mode: must be one of Auto, Manual, found "Off"'],
    ),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_an_object_that_keeps_the_rule_is_taken(rule: str) -> None:
    assert complaints(a_program(RULES[rule][0])) == []


@pytest.mark.parametrize("rule", RULES)
def test_an_object_that_breaks_the_rule_is_told_where_and_why(rule: str) -> None:
    _, broken, want = RULES[rule]
    assert complaints(a_program(broken)) == want


def test_a_module_that_is_not_written_is_predict() -> None:
    single = program().spec.program.single
    assert single is not None
    assert single.module is None
    assert single.module_type is ModuleType.PREDICT
