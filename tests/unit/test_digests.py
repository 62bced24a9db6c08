"""Digests of inputs: what moves them, what must never, and the values that the first release fixed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dspy_operator.api.fields import FieldClass, spec_field
from dspy_operator.api.metric import Metric
from dspy_operator.api.optimizationrun import MIPROv2Options, Optimizer
from dspy_operator.api.program import ObjectType, Program
from dspy_operator.api.promptprogram import Adapter, SamplingRequest
from dspy_operator.contract.canonical import dataset_digest, row_digest
from dspy_operator.contract.digests import input_digest, program_digest, revision_digest, short

GOLDEN = Path(__file__).with_name("golden")

PROGRAM: dict[str, Any] = {
    "type": "Single",
    "single": {
        "signature": {
            "instructions": "Classify the ticket — bitte auf Deutsch.",
            "inputs": [{"name": "ticket", "type": "str", "description": "what the customer wrote"}],
            "outputs": [{"name": "label", "type": 'Literal["billing", "bug"]'}, {"name": "urgency", "type": "int"}],
        }
    },
}


LINE: list[dict[str, Any]] = [{"name": "sku", "type": "str"}, {"name": "quantity", "type": "int", "minimum": 1}]


def of_program(
    program: dict[str, Any] = PROGRAM,
    *,
    module: dict[str, Any] | None = None,
    adapter: dict[str, Any] | None = None,
    metric: dict[str, Any] | None = None,
    request: dict[str, Any] | None = None,
    types: dict[str, Any] | None = None,
    code: dict[str, str] | None = None,
) -> str:
    document = json.loads(json.dumps(program))
    if module is not None:
        document["single"]["module"] = module
    return program_digest(
        Program.model_validate(document),
        Adapter.model_validate(adapter) if adapter else None,
        Metric.model_validate(metric or {"type": "ExactMatch"}),
        SamplingRequest.model_validate(request) if request is not None else None,
        {name: ObjectType.model_validate(fields) for name, fields in types.items()} if types else None,
        code or {},
    )


def of_inputs(optimizer: dict[str, Any] | None = None, **changes: Any) -> str:
    endpoints = {
        role: (model, SamplingRequest.model_validate(request) if request is not None else None)
        for role, (model, request) in changes.pop("endpoints", {"task": ("qwen", None)}).items()
    }
    inputs: dict[str, Any] = {"seed": 0, "mode": "Run", "program": "v1:p", "dataset": "v1:d"} | changes
    return input_digest(
        optimizer=Optimizer.model_validate(optimizer or {"type": "Evaluate"}), endpoints=endpoints, **inputs
    )


def mipro(**options: Any) -> dict[str, Any]:
    return {"type": "MIPROv2", "miproV2": options} if options else {"type": "MIPROv2"}


def composite(part: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Composite", "composite": {"parts": [part, {"metric": {"type": "ExactMatch"}}]}}


def with_signature(**changes: Any) -> dict[str, Any]:
    single = PROGRAM["single"]
    return {"type": "Single", "single": {**single, "signature": {**single["signature"], **changes}}}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(of_program(), of_program(module={"type": "Predict"}), id="module: unset is Predict"),
        pytest.param(of_program(), of_program(adapter={"type": "Chat"}), id="adapter: unset is Chat"),
        pytest.param(
            of_program(adapter={"type": "XML"}),
            of_program(adapter={"type": "XML", "constrained": "Auto"}),
            id="constrained: XML has none",
        ),
        pytest.param(
            of_program(adapter={"type": "Auto"}),
            of_program(adapter={"type": "Auto", "constrained": "Auto"}),
            id="constrained: of type Auto, unset is Auto",
        ),
        pytest.param(of_program(), of_program(request={}), id="request: unset is empty"),
        pytest.param(
            of_program(types={"A": {"fields": LINE}, "B": {"fields": LINE}}),
            of_program(types={"B": {"fields": LINE}, "A": {"fields": LINE}}),
            id="the order of named types, which is none",
        ),
        pytest.param(of_program(), of_program(request={"temperature": "0"}), id="temperature: unset is 0"),
        pytest.param(of_program(), of_program(request={"temperature": "0.00"}), id="temperature: 0 has one value"),
        pytest.param(
            of_program(request={"temperature": "0.5"}),
            of_program(request={"temperature": "0.50"}),
            id="temperature: a number has one value",
        ),
        pytest.param(
            of_program(),
            of_program(metric={"type": "ExactMatch", "exactMatch": {}}),
            id="metric: empty options are none",
        ),
        pytest.param(
            of_program(),
            of_program(metric={"type": "ExactMatch", "exactMatch": {"fields": ["label", "urgency"]}}),
            id="metric: unset is all outputs",
        ),
        pytest.param(of_program(), of_program(metric={"type": "ExactMatch", "accept": "1"}), id="accept: unset is 1"),
        pytest.param(of_program(), of_program(metric={"type": "ExactMatch", "accept": "1.0"}), id="accept: 1 is 1.0"),
        pytest.param(
            of_program(metric={"type": "Contains"}),
            of_program(metric={"type": "Contains", "contains": {"fields": ["label", "urgency"], "ignoreCase": False}}),
            id="Contains: case counts by default",
        ),
        pytest.param(
            of_program(metric={"type": "JSONEqual"}),
            of_program(metric={"type": "JSONEqual", "jsonEqual": {"fields": ["label", "urgency"]}}),
            id="JSONEqual: unset is all outputs",
        ),
        pytest.param(
            of_program(metric={"type": "Numeric"}),
            of_program(metric={"type": "Numeric", "numeric": {"tolerance": "0.0", "relativeTolerance": "0"}}),
            id="Numeric: no tolerance by default",
        ),
        pytest.param(
            of_program(metric={"type": "Numeric", "numeric": {"tolerance": "0.50"}}),
            of_program(metric={"type": "Numeric", "numeric": {"tolerance": "0.5"}}),
            id="Numeric: a tolerance has one value",
        ),
        pytest.param(
            of_program(metric=composite({"metric": {"type": "Numeric"}})),
            of_program(
                metric=composite({"metric": {"type": "Numeric", "numeric": {"tolerance": "0"}}, "weight": "1.0"})
            ),
            id="Composite: its parts by the same rules, their weight is 1",
        ),
        pytest.param(of_inputs(mipro()), of_inputs(mipro(maxBootstrappedDemos=4)), id="an option's default"),
        pytest.param(
            of_inputs(mipro()), of_inputs(mipro(initTemperature="1.0")), id="an option's default, spelled out"
        ),
        pytest.param(
            of_inputs(mipro()),
            of_inputs(
                mipro(
                    maxLabeledDemos=4,
                    minibatchSize=35,
                    minibatchFullEvalSteps=5,
                    programAwareProposer=True,
                    dataAwareProposer=True,
                    tipAwareProposer=True,
                    fewshotAwareProposer=True,
                    viewDataBatchSize=10,
                )
            ),
            id="every option's default",
        ),
        pytest.param(
            of_inputs(endpoints={"task": ("qwen", None)}),
            of_inputs(endpoints={"task": ("qwen", {"temperature": "0"})}),
            id="the task's temperature: unset is 0",
        ),
        pytest.param(
            of_inputs(endpoints={"task": ("qwen", None), "prompt": ("big", None)}),
            of_inputs(endpoints={"prompt": ("big", {"temperature": "1"}), "task": ("qwen", None)}),
            id="the prompt model's temperature: unset is 1, and the order of roles is none",
        ),
    ],
)
def test_what_means_the_same_digests_alike(one: str, other: str) -> None:
    assert one == other


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(of_program(), of_program(with_signature(instructions="Classify.")), id="instructions"),
        pytest.param(
            of_program(),
            of_program(with_signature(outputs=PROGRAM["single"]["signature"]["outputs"][::-1])),
            id="the order of outputs, which the prompt shows",
        ),
        pytest.param(of_program(), of_program(module={"type": "ChainOfThought"}), id="module"),
        pytest.param(of_program(), of_program(adapter={"type": "JSON", "constrained": "Disabled"}), id="adapter"),
        pytest.param(of_program(), of_program(adapter={"type": "XML"}), id="adapter XML"),
        pytest.param(
            of_program(adapter={"type": "JSON", "constrained": "Disabled"}),
            of_program(adapter={"type": "BAML", "constrained": "Disabled"}),
            id="adapter BAML",
        ),
        pytest.param(
            of_program(adapter={"type": "JSON", "constrained": "Disabled"}),
            of_program(adapter={"type": "JSON", "constrained": "Required"}),
            id="constrained",
        ),
        pytest.param(
            of_program(adapter={"type": "JSON", "constrained": "Auto"}),
            of_program(adapter={"type": "JSON", "constrained": "Required"}),
            id="constrained Auto, whatever it comes to",
        ),
        pytest.param(
            of_program(adapter={"type": "Auto"}),
            of_program(adapter={"type": "Auto", "constrained": "Disabled"}),
            id="constrained of type Auto",
        ),
        pytest.param(of_program(), of_program(metric={"type": "F1"}), id="metric"),
        pytest.param(
            of_program(),
            of_program(metric={"type": "ExactMatch", "exactMatch": {"fields": ["label"]}}),
            id="its fields",
        ),
        pytest.param(of_program(), of_program(metric={"type": "ExactMatch", "accept": "0.5"}), id="accept"),
        pytest.param(
            of_program(metric={"type": "Numeric"}),
            of_program(metric={"type": "Numeric", "numeric": {"tolerance": "0.1"}}),
            id="a tolerance",
        ),
        pytest.param(
            of_program(metric=composite({"metric": {"type": "F1"}})),
            of_program(metric=composite({"metric": {"type": "F1"}, "weight": "2"})),
            id="the weight of a part",
        ),
        pytest.param(
            of_program(), of_program(metric={"type": "ExactMatch", "feedback": {"column": "why"}}), id="feedback"
        ),
        pytest.param(of_program(), of_program(types={"Line": {"fields": LINE}}), id="a named type"),
        pytest.param(
            of_program(types={"Line": {"fields": LINE}}),
            of_program(types={"Line": {"fields": LINE[::-1]}}),
            id="the order of its fields, which the prompt shows",
        ),
        pytest.param(of_program(), of_program(request={"temperature": "1"}), id="temperature"),
        pytest.param(of_program(), of_program(request={"topP": "0.9"}), id="topP"),
        pytest.param(of_program(), of_program(request={"maxTokens": 64}), id="maxTokens"),
        pytest.param(
            of_program(request={"stop": ["1"]}), of_program(request={"stop": ["1.0"]}), id="a stop text is no number"
        ),
        pytest.param(of_inputs(), of_inputs(seed=1), id="seed"),
        pytest.param(of_inputs(), of_inputs(mode="Estimate"), id="mode"),
        pytest.param(of_inputs(), of_inputs(program="v1:q"), id="program"),
        pytest.param(of_inputs(), of_inputs(dataset="v1:e"), id="dataset"),
        pytest.param(of_inputs(), of_inputs(mipro()), id="optimizer"),
        pytest.param(of_inputs(mipro()), of_inputs(mipro(auto="Light")), id="auto: unset is FitBudget"),
        pytest.param(of_inputs(mipro()), of_inputs(mipro(minibatch=False)), id="an option that the run decides"),
        pytest.param(of_inputs(), of_inputs(endpoints={"task": ("other", None)}), id="model"),
        pytest.param(of_inputs(), of_inputs(endpoints={"task": ("qwen", {"temperature": "1"})}), id="request"),
        pytest.param(
            of_inputs(), of_inputs(endpoints={"task": ("qwen", None), "prompt": ("qwen", None)}), id="another role"
        ),
    ],
)
def test_what_computes_something_else_digests_differently(one: str, other: str) -> None:
    assert one != other


class _LaterRequest(SamplingRequest):
    min_p: str | None = spec_field(FieldClass.INPUT, "A field of a later release.", default=None)


class _LaterOptions(MIPROv2Options):
    DEFAULTS: ClassVar[dict[str, Any]] = {**MIPROv2Options.DEFAULTS, "patience": 7}

    patience: int | None = spec_field(FieldClass.INPUT, "An option of a later release.", default=None)


class _LaterOptimizer(Optimizer):
    mipro_v2: _LaterOptions | None = spec_field(FieldClass.INPUT, "Its options.", default=None, alias="miproV2")


def test_a_later_release_adds_fields_with_defaults_and_moves_no_digest() -> None:
    def later(options: dict[str, Any], request: dict[str, Any]) -> str:
        return input_digest(
            optimizer=_LaterOptimizer.model_validate(mipro(**options)),
            seed=0,
            mode="Run",
            program="v1:p",
            dataset="v1:d",
            endpoints={"task": ("qwen", _LaterRequest.model_validate(request))},
        )

    now = of_inputs(mipro(tipAwareProposer=False), endpoints={"task": ("qwen", {"maxTokens": 9})})
    assert later({"tipAwareProposer": False}, {"maxTokens": 9}) == now
    assert later({"tipAwareProposer": False, "patience": 7}, {"maxTokens": 9}) == now
    assert later({"tipAwareProposer": False, "patience": 8}, {"maxTokens": 9}) != now
    assert later({"tipAwareProposer": False}, {"maxTokens": 9, "minP": "0.1"}) != now


# The fixtures are never edited: a digest that moves re-runs, and pays for, what its users have already.


def goldens(kind: str) -> list[Any]:
    cases: dict[str, Any] = json.loads((GOLDEN / f"{kind}.json").read_text("utf-8"))
    return [pytest.param(case["from"], case["digest"], id=name) for name, case in cases.items()]


@pytest.mark.parametrize(("made_from", "want"), goldens("program_digests"))
def test_program_digests_are_those_of_the_first_release(made_from: dict[str, Any], want: str) -> None:
    assert of_program(**made_from) == want


@pytest.mark.parametrize(("made_from", "want"), goldens("input_digests"))
def test_input_digests_are_those_of_the_first_release(made_from: dict[str, Any], want: str) -> None:
    assert of_inputs(**made_from) == want


@pytest.mark.parametrize(("made_from", "want"), goldens("dataset_digests"))
def test_dataset_digests_are_those_of_the_first_release(made_from: list[Any], want: str) -> None:
    assert dataset_digest((row_digest(row), part) for row, part in made_from) == want


@pytest.mark.parametrize(("made_from", "want"), goldens("revision_digests"))
def test_revision_digests_are_those_of_the_first_release(made_from: list[str], want: str) -> None:
    assert revision_digest(*(text.encode() for text in made_from)) == want


def test_each_file_of_a_revision_counts_and_where_it_ends_counts_too() -> None:
    digests = {
        revision_digest(b"a", b"b", b"c"),
        revision_digest(b"A", b"b", b"c"),
        revision_digest(b"a", b"B", b"c"),
        revision_digest(b"a", b"b", b"C"),
        revision_digest(b"ab", b"", b"c"),
        revision_digest(b"b", b"a", b"c"),
    }
    assert len(digests) == 6


def test_a_short_digest_is_its_first_8_hex_digits() -> None:
    assert short("v1:1f2e3d4c5b6a") == short("1f2e3d4c5b6a") == "1f2e3d4c"


def test_what_code_says_counts_and_not_which_configmap_has_it() -> None:
    def of(name: str, sha256: str, entrypoint: str = "metric:score") -> str:
        code = {"configMap": {"name": name, "key": "metric.py"}, "entrypoint": entrypoint}
        return of_program(metric={"type": "Code", "code": code}, code={"spec.metric.code": sha256})

    assert of("a", "sha256:1") == of("b", "sha256:1")
    assert len({of("a", "sha256:1"), of("a", "sha256:2"), of("a", "sha256:1", "metric:other")}) == 3
    assert of_program(code={"spec.metric.code": "sha256:1"}) == of_program(), (
        "what the program does not name is nothing"
    )
