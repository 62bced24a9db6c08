"""What an input digest covers: every Input field moves it; order, spelled-out defaults and everything else never do."""

from __future__ import annotations

import random
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from dspy_operator.api.fields import FieldClass
from dspy_operator.api.objects import KINDS, ModelEndpoint, OptimizationRun, PromptProgram, parse_object
from dspy_operator.api.optimizationrun import OPTIONS, OptimizationRunSpec, Optimizer
from dspy_operator.api.unsupported import NOT_YET
from dspy_operator.contract.resolve import Surroundings, resolve
from dspy_operator.contract.runspec import Paths, Start
from dspy_operator.controllers.optimizationrun.inputs import start_revision
from tests.unit.graphs import SUMMARIES
from tests.unit.written import a_program, a_run, an_endpoint, changed

_OPENAI = {"baseURL": "http://models.example/v1"}
ENDPOINTS = {
    f"default/{name}": an_endpoint({"provider.openai": {**_OPENAI, "model": model}})
    for name, model in {"qwen": "qwen", "big": "qwen-72b"}.items()
} | {"models/qwen": an_endpoint({"provider.openai": {**_OPENAI, "model": "another"}})}
MEMBER = Optimizer.MEMBERS


def digest(run: dict[str, Any] | None = None, program: dict[str, Any] | None = None, dataset: str = "v1:rows") -> str:
    """The input digest of what a person wrote."""
    typed_run, typed_program = parse_object(run or a_run()), parse_object(program or a_program())
    assert isinstance(typed_run, OptimizationRun)
    assert isinstance(typed_program, PromptProgram)
    endpoints = {}
    for key, document in ENDPOINTS.items():
        typed = parse_object(document)
        assert isinstance(typed, ModelEndpoint)
        endpoints[key] = typed
    around = Surroundings("/data", Paths(journal="j", out="o", control="c"), dataset_digest=dataset)
    if (name := start_revision(typed_run, {"servedRevision": {"name": "served"}})) is not None:
        around = replace(around, start=Start(revision=name, digest=f"v1:{name}", path="/start"))
    found = resolve(typed_run, typed_program, endpoints, around).input_digest
    assert found is not None
    return found


# Every Input field: where it is written -> a base (what has to be there for it) and another value of it.
Other = tuple[dict[str, Any], Any]
REQUEST = {"temperature": "0.5", "topP": "0.9", "maxTokens": 9, "stop": ["END"]}
OPTIONS_OF: dict[str, dict[str, Any]] = {
    "LabeledFewShot": {"k": 3, "sample": False},
    "BootstrapFewShot": {
        "metricThreshold": "0.5",
        "maxBootstrappedDemos": 2,
        "maxLabeledDemos": 3,
        "maxRounds": 2,
        "maxErrors": 5,
    },
    "BootstrapFewShotWithRandomSearch": {
        "metricThreshold": "0.5",
        "maxBootstrappedDemos": 2,
        "maxLabeledDemos": 3,
        "maxRounds": 2,
        "maxErrors": 5,
        "numCandidatePrograms": 3,
        "stopAtScore": "90",
        "labeledSample": False,
        "racing": True,
    },
    "MIPROv2": {
        "auto": "Light",
        "numCandidates": 9,
        "numTrials": 9,
        "maxBootstrappedDemos": 2,
        "maxLabeledDemos": 3,
        "maxErrors": 5,
        "initTemperature": "0.5",
        "metricThreshold": "0.5",
        "minibatch": True,
        "minibatchSize": 20,
        "minibatchFullEvalSteps": 3,
        "programAwareProposer": False,
        "dataAwareProposer": False,
        "tipAwareProposer": False,
        "fewshotAwareProposer": False,
        "viewDataBatchSize": 5,
    },
    "GEPA": {
        "auto": "Light",
        "maxFullEvals": 3,
        "maxMetricCalls": 300,
        "reflectionMinibatchSize": 4,
        "candidateSelectionStrategy": "CurrentBest",
        "skipPerfectScore": False,
        "addFormatFailureAsFeedback": True,
        "componentSelector": "All",
        "useMerge": False,
        "maxMergeInvocations": 2,
    },
    "COPRO": {"breadth": 4, "depth": 2, "initTemperature": "0.5"},
    "InferRules": {
        "metricThreshold": "0.5",
        "maxBootstrappedDemos": 2,
        "maxLabeledDemos": 3,
        "maxRounds": 2,
        "maxErrors": 5,
        "numCandidates": 3,
        "numRules": 4,
        "racing": True,
    },
    "SIMBA": {
        "bsize": 8,
        "numCandidates": 3,
        "maxSteps": 2,
        "maxDemos": 2,
        "demoInputFieldMaxlen": 100,
        "temperatureForSampling": "0.5",
        "temperatureForCandidates": "0.5",
    },
}


def staged(type_: str, options: dict[str, Any] | None = None) -> dict[str, Any]:
    member = {MEMBER[type_]: options} if options is not None else {}
    return {"type": "Stages", "stages": {"stages": [{"type": type_, **member}, {"type": "GEPA"}]}}


# MIPROv2's two counts go together.
_COUNTS = {"numCandidates": {"numTrials": 5, "numCandidates": 5}, "numTrials": {"numTrials": 5, "numCandidates": 5}}
RUN_FIELDS: dict[str, Other] = {
    "optimizer.type": ({}, "GEPA"),
    **{
        f"optimizer.{MEMBER[type_]}.{option}": (
            {"optimizer": {"type": type_, MEMBER[type_]: _COUNTS.get(option, {}) if type_ == "MIPROv2" else {}}},
            value,
        )
        for type_, options in OPTIONS_OF.items()
        for option, value in options.items()
    },
    "optimizer.stages.stages.type": ({"optimizer": staged("BootstrapFewShot")}, "GEPA"),
    **{
        f"optimizer.stages.stages.{MEMBER[type_]}.{option}": (
            {"optimizer": staged(type_, _COUNTS.get(option, {}) if type_ == "MIPROv2" else {})},
            value,
        )
        for type_, options in OPTIONS_OF.items()
        for option, value in options.items()
    },
    **{
        f"endpoints.{role}.{field}": ({"optimizer.type": "GEPA", f"endpoints.{role}": {"name": "qwen"}}, value)
        for role in ("task", "prompt", "judge")
        for field, value in (
            ("name", "big"),
            ("namespace", "models"),
            *((f"request.{name}", value) for name, value in REQUEST.items()),
        )
    },
    "startFrom.type": ({}, "Current"),
    "startFrom.revision.name": ({"startFrom": {"type": "Revision", "revision": {"name": "a"}}}, "b"),
    "goal.score": ({"optimizer.type": "GEPA", "goal": {"patience": 5}}, "90"),
    "goal.patience": ({"optimizer.type": "GEPA", "goal": {"score": "90"}}, 5),
    "seed": ({}, 1),
    "repeats": ({"endpoints.task": {"name": "qwen", "request": {"temperature": "0.5"}}}, 5),
    "mode": ({}, "Estimate"),
}
_SIGNATURE = "program.single.signature"
TWO_OUTPUTS = [{"name": "label", "type": "str"}, {"name": "why", "type": "str"}]
JUDGED = {"type": "Judge", "judge": {"instructions": "Is it right?"}}
CALIBRATED = {
    "type": "Judge",
    "judge": {"instructions": "Is it right?", "calibration": {"answer": "said", "grade": "human"}},
}
CODED = {"type": "Code", "code": {"image": "registry.example/code:1", "entrypoint": "metric:score"}}
METRIC: dict[str, tuple[dict[str, Any], Any]] = {
    "type": ({"type": "ExactMatch"}, "F1"),
    "exactMatch.fields": ({"type": "ExactMatch"}, ["label"]),
    "f1.fields": ({"type": "F1"}, ["label"]),
    "contains.fields": ({"type": "Contains"}, ["label"]),
    "contains.ignoreCase": ({"type": "Contains"}, True),
    "regex.field": ({"type": "Regex", "regex": {"field": "label", "pattern": "a"}}, "why"),
    "regex.pattern": ({"type": "Regex", "regex": {"field": "label", "pattern": "a"}}, "b"),
    "jsonEqual.fields": ({"type": "JSONEqual"}, ["label"]),
    "numeric.fields": ({"type": "Numeric"}, ["label"]),
    "numeric.tolerance": ({"type": "Numeric"}, "0.1"),
    "numeric.relativeTolerance": ({"type": "Numeric"}, "0.1"),
    "code.image": (CODED, "registry.example/code:2"),
    "code.entrypoint": (CODED, "metric:other"),
    "judge.instructions": (JUDGED, "Is it polite?"),
    "judge.fields": (JUDGED, ["label"]),
    "judge.scale": (JUDGED, 5),
    "judge.votes": (JUDGED, 3),
    "judge.combine": ({"type": "Judge", "judge": {"instructions": "Is it right?", "votes": 3}}, "Mean"),
    "judge.pairwise": (JUDGED, True),
    "judge.calibration.answer": (CALIBRATED, "found"),
    "judge.calibration.grade": (CALIBRATED, "found"),
    "judge.calibration.minKappa": (CALIBRATED, "0.5"),
}


def composite_of(metric: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Composite", "composite": {"parts": [{"metric": metric}, {"metric": {"type": "F1"}}]}}


PROGRAM_FIELDS: dict[str, Other] = {
    "program.type": ({}, None),
    f"{_SIGNATURE}.instructions": ({}, "Other."),
    **{
        f"{_SIGNATURE}.{side}.{field}": ({}, value)
        for side in ("inputs", "outputs")
        for field, value in (("name", "other"), ("type", "int"), ("description", "What it is."))
    },
    "program.single.module.type": ({}, "ChainOfThought"),
    "adapter.type": ({"adapter": {"type": "JSON", "constrained": "Disabled"}}, None),
    "adapter.constrained": ({"adapter": {"type": "JSON", "constrained": "Disabled"}}, "Required"),
    "target.endpoint.name": ({}, "big"),
    "target.endpoint.namespace": ({}, "models"),
    **{f"target.request.{name}": ({}, value) for name, value in REQUEST.items()},
    **{
        f"metric.{field}": ({f"{_SIGNATURE}.outputs": TWO_OUTPUTS, "metric": metric}, value)
        for field, (metric, value) in METRIC.items()
    },
    **{
        f"metric.composite.parts.metric.{field}": (
            {f"{_SIGNATURE}.outputs": TWO_OUTPUTS, "metric": composite_of(metric)},
            value,
        )
        for field, (metric, value) in METRIC.items()
    },
    "metric.composite.parts.weight": ({"metric": composite_of({"type": "F1"})}, "2"),
    "metric.feedback.template": (
        {"metric": {"type": "ExactMatch", "feedback": {"template": "{score}"}}},
        "{found.label}",
    ),
    "metric.feedback.column": ({"metric": {"type": "ExactMatch", "feedback": {"column": "why"}}}, "because"),
    "metric.accept": ({}, "0.5"),
    **{
        f"types.fields.{field}": (
            {
                "types": {"Line": {"fields": [{"name": "quantity", "type": "int"}]}},
                f"{_SIGNATURE}.outputs.0.type": "Line",
            },
            value,
        )
        for field, value in (
            ("name", "other"),
            ("type", "float"),
            ("description", "What it is."),
            ("minimum", 1),
            ("maximum", 1),
        )
    },
}
_STEP = "program.graph.nodes.predict"
_WIRED = {"program": {"type": "Graph", "graph": SUMMARIES}}
GRAPH_FIELDS: dict[str, Any] = {
    **{
        f"{side}.{field}": value
        for side in ("program.graph.inputs", f"{_STEP}.signature.inputs", f"{_STEP}.signature.outputs")
        for field, value in (("name", "other"), ("type", "int"), ("description", "What it is."))
    },
    f"{_STEP}.signature.instructions": "Other.",
    f"{_STEP}.module.type": "ChainOfThought",
    "program.graph.nodes.inputs": {"topic": "topic.topic", "paper": "inputs.question"},
    "program.graph.nodes.forEach": "inputs.others",
    "program.graph.nodes.maxItems": 2,
    "program.graph.output": {"answer": "answer.answer"},
}
PROGRAM_FIELDS |= {path: (_WIRED, value) for path, value in GRAPH_FIELDS.items()}
_LOOKUP = {"retrieve": {"http": {"url": "http://search.example/a"}}, "inputs": {"query": "topic.topic"}}
_SEARCH = {"program": {"type": "Graph", "graph": {**SUMMARIES, "nodes": {**SUMMARIES["nodes"], "note": _LOOKUP}}}}
_FILLED = {"template": {"text": "Of {topic}"}, "inputs": {"topic": "topic.topic"}}
PROGRAM_FIELDS |= {
    "program.graph.nodes.retrieve.http.url": (_SEARCH, "http://search.example/b"),
    "program.graph.nodes.retrieve.topK": (_SEARCH, 3),
    "program.graph.nodes.template.text": (
        {"program": {"type": "Graph", "graph": {**SUMMARIES, "nodes": {**SUMMARIES["nodes"], "note": _FILLED}}}},
        "On {topic}",
    ),
}
_TOOL = {"name": "look_up", "description": "Looks up.", "http": {"url": "http://tools.example/look-up"}}
_REACT = {
    "program.single.module": {
        "type": "ReAct",
        "react": {"tools": [{**_TOOL, "arguments": [{"name": "thing", "type": "str"}]}]},
    }
}
REACT_FIELDS: dict[str, Any] = {
    "maxIters": 3,
    "tools.name": "other",
    "tools.description": "Looks down.",
    "tools.http.url": "http://tools.example/other",
    "tools.effects": "Unsafe",
    "tools.arguments.name": "other",
    "tools.arguments.type": "int",
    "tools.arguments.description": "Which thing.",
}
PROGRAM_FIELDS |= {f"program.single.module.react.{path}": (_REACT, value) for path, value in REACT_FIELDS.items()}
_MCP = {"name": "things", "mcp": {"url": "http://things.example/mcp", "tools": ["look_up"]}}
_OVER_MCP = {"program.single.module": {"type": "ReAct", "react": {"tools": [_MCP]}}}
PROGRAM_FIELDS |= {
    "program.single.module.react.tools.mcp.url": (_OVER_MCP, "http://things.example/other"),
    "program.single.module.react.tools.mcp.tools": (_OVER_MCP, ["other"]),
}
_REWARD = {"type": "Regex", "regex": {"field": "label", "pattern": "a"}}
for _type, _member in (("BestOfN", "bestOfN"), ("Refine", "refine")):
    _repeated = {
        "program.single.module": {"type": _type, _member: {"attempts": 3, "threshold": "1", "reward": _REWARD}}
    }
    PROGRAM_FIELDS |= {
        f"program.single.module.{_member}.{field}": (_repeated, value)
        for field, value in {
            "attempts": 4,
            "failCount": 2,
            "module": "ChainOfThought",
            "threshold": "0.5",
            "reward.type": "another type is another member",
            "reward.regex.field": "other",
            "reward.regex.pattern": "b",
        }.items()
    }
    _rewarded = {"program.single.module": {"type": _type, _member: {"attempts": 3, "threshold": "1", "reward": CODED}}}
    PROGRAM_FIELDS |= {
        f"program.single.module.{_member}.reward.code.{field}": (_rewarded, value)
        for field, value in (("image", "registry.example/code:2"), ("entrypoint", "metric:other"))
    }
    _graded = {
        f"{_SIGNATURE}.outputs": TWO_OUTPUTS,
        "program.single.module": {"type": _type, _member: {"attempts": 3, "threshold": "1", "reward": JUDGED}},
    }
    PROGRAM_FIELDS |= {
        f"program.single.module.{_member}.reward.judge.{field}": (_graded, value)
        for field, value in (("instructions", "Is it polite?"), ("fields", ["label"]), ("scale", 5))
    }
_WRITTEN = {
    "program": {
        "type": "Code",
        "code": {
            "image": "registry.example/code:1",
            "entrypoint": "program:build",
            "inputs": [{"name": "ticket", "type": "str"}],
            "outputs": [{"name": "label", "type": "str"}],
        },
    }
}
PROGRAM_FIELDS |= {
    **{
        f"program.code.{field}": (_WRITTEN, value)
        for field, value in (("image", "registry.example/code:2"), ("entrypoint", "program:other"), ("calls", 2))
    },
    **{
        f"program.code.{side}.{field}": (_WRITTEN, value)
        for side in ("inputs", "outputs")
        for field, value in (("name", "other"), ("type", "int"), ("description", "What it is."))
    },
}
_COMPARED = {"program.single.module": {"type": "MultiChainComparison"}}
PROGRAM_FIELDS |= {
    "program.single.module.multiChainComparison.m": (_COMPARED, 5),
    "program.single.module.multiChainComparison.temperature": (_COMPARED, "0.5"),
}
ALONE = {
    **{path: value for path, (_, value) in PROGRAM_FIELDS.items() if path.endswith(".reward.type")},
    "program.type": "another type is another member",
    "adapter.type": "Chat is no adapter at all: see below",
}


@pytest.mark.parametrize("path", list(RUN_FIELDS))
def test_every_input_field_of_a_run_moves_it(path: str) -> None:
    base, value = RUN_FIELDS[path]
    before, program = a_run(base), a_program({"metric": JUDGED} if ".judge." in path else {})
    at = path.replace("stages.stages.", "stages.stages.0.")
    assert digest(changed(before, f"spec.{at}", value), program) != digest(before, program)


@pytest.mark.parametrize("path", [path for path in PROGRAM_FIELDS if path not in ALONE])
def test_every_input_field_of_a_program_moves_it(path: str) -> None:
    base, value = PROGRAM_FIELDS[path]
    before = a_program(base)
    at = (
        re.sub(r"\b(inputs|outputs|parts|tools|arguments)\.", r"\1.0.", path)
        .replace("types.fields.", "types.Line.fields.0.")
        .replace("nodes.", "nodes.note.")
    )
    run = a_run({"endpoints.judge": {"name": "qwen", "request": {"temperature": "0.5"}}})  # several votes need it
    assert digest(run, changed(before, f"spec.{at}", value)) != digest(run, before)


def test_another_adapter_moves_it_and_so_do_other_rows() -> None:
    assert digest(program=a_program({"adapter": {"type": "JSON", "constrained": "Disabled"}})) != digest()
    assert digest(dataset="v1:others") != digest()


def test_no_input_field_is_forgotten() -> None:
    """What is refused needs no place yet."""
    assert set(input_fields(OptimizationRunSpec)) == RUN_FIELDS.keys()
    (spec,) = models_of(KINDS["PromptProgram"].model_fields["spec"].annotation)
    assert {path for path in input_fields(spec) if not is_what_it_holds(path)} == PROGRAM_FIELDS.keys()


def is_what_it_holds(path: str) -> bool:
    """Whether a field says where rows or code are: what they say counts, and not where they lie."""
    return path.startswith("dataset.") or ".code.configMap." in path


# What never moves it.

OPTIMIZERS = st.sampled_from(sorted(OPTIONS.keys() - {"Stages"}))


@st.composite
def runs(draw: st.DrawFn) -> dict[str, Any]:
    """A run with some of its Input fields written."""
    type_ = draw(OPTIMIZERS)
    options = dict(OPTIONS_OF.get(type_, {}))
    for name in ("numCandidates", "numTrials", "maxFullEvals", "maxMetricCalls"):
        options.pop(name, None)
    chosen = draw(st.sets(st.sampled_from(sorted(options)))) if options else set()
    if "useMerge" in chosen:
        chosen.discard("maxMergeInvocations")  # refused beside useMerge: false
    run = a_run({"optimizer": {"type": type_, **({MEMBER[type_]: {n: options[n] for n in chosen}} if chosen else {})}})
    if draw(st.booleans()):
        run = changed(run, "spec.seed", draw(st.integers(0, 5)))
    request = draw(st.fixed_dictionaries({}, optional={name: st.just(value) for name, value in REQUEST.items()}))
    return changed(run, "spec.endpoints", {"task": {"name": "big", "request": request}})


@given(run=runs(), seed=st.integers(0, 1000))
def test_the_order_in_which_fields_are_written_does_not_move_it(run: dict[str, Any], seed: int) -> None:
    assert digest(shuffled(run, random.Random(seed))) == digest(run)


@given(run=runs())
def test_a_default_that_is_spelled_out_does_not_move_it(run: dict[str, Any]) -> None:
    spelled = run
    optimizer = run["spec"]["optimizer"]
    model = OPTIONS[optimizer["type"]]
    for name, value in model.DEFAULTS.items():
        alias = model.model_fields[name].alias
        path = f"spec.optimizer.{MEMBER[optimizer['type']]}.{alias}"
        written = optimizer.get(MEMBER[optimizer["type"]], {})
        refused = alias == "maxMergeInvocations" and "useMerge" in written
        if alias not in written and not refused:
            spelled = changed(spelled, path, value)
    spelled = changed(spelled, "spec.mode", "Run")
    spelled = changed(spelled, "spec.startFrom", {"type": "Baseline"})
    spelled = changed(spelled, "spec.repeats", 3)  # above temperature 0; at 0 no number counts
    if "seed" not in run["spec"]:
        spelled = changed(spelled, "spec.seed", 0)
    assert digest(spelled) == digest(run)


@given(run=runs())
def test_a_field_that_a_later_version_adds_does_not_move_what_leaves_it_out(run: dict[str, Any]) -> None:
    """As this version added them: each new field of this schema is unset here, and null to a client that fills in all."""
    unset = {str(field.alias): None for field in OptimizationRunSpec.model_fields.values()}
    assert digest({**run, "spec": {**unset, **run["spec"]}}) == digest(run)


@given(run=runs(), calls=st.integers(1, 10**8), concurrency=st.integers(1, 256), suspend=st.booleans())
def test_what_is_no_input_does_not_move_it(run: dict[str, Any], calls: int, concurrency: int, suspend: bool) -> None:
    other = changed(changed(run, "spec.budget", {"calls": calls}), "spec.concurrency", concurrency)
    other = changed(changed(other, "spec.suspend", suspend), "metadata.name", "another")
    assert digest(changed(other, "spec.reuse", "Never")) == digest(run)


def test_the_classes_of_a_runs_fields_are_those_that_its_users_were_promised() -> None:
    promised = {
        FieldClass.IMMUTABLE: "programRef",
        FieldClass.INPUT: "optimizer endpoints startFrom seed goal mode repeats",
        FieldClass.LIVE: "budget concurrency pacing stop",
        FieldClass.EXECUTION: "podTemplate answersFrom journal deadlines retries priorityClassName",
        FieldClass.CONTROL: "suspend rerun readyWhen cleanup ttlAfterFinished reuse",
    }
    found = {field.alias: class_of(field) for field in OptimizationRunSpec.model_fields.values()}
    assert found == {name: class_ for class_, names in promised.items() for name in names.split()}


def input_fields(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """Paths of all Input fields that hold a value and are not refused as a whole."""
    refused = {(entry.model, entry.field) for entry in NOT_YET if not entry.values}
    unbuilt = {(entry.model, value) for entry in NOT_YET for value in entry.values}
    members = {member: type_ for type_, member in getattr(model, "MEMBERS", {}).items()}
    for field in model.model_fields.values():
        alias = str(field.alias)
        names = {base.__name__ for base in model.__mro__}
        gone = any((name, alias) in refused or (name, members.get(alias)) in unbuilt for name in names)
        if gone or class_of(field) is not FieldClass.INPUT:
            continue
        inner = list(models_of(field.annotation))
        if not inner:
            yield f"{path}{alias}"
        for each in inner:
            yield from input_fields(each, f"{path}{alias}.")


def class_of(field: Any) -> FieldClass:
    return FieldClass(field.json_schema_extra["x-field-class"])


def models_of(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for argument in typing.get_args(annotation):
        yield from models_of(argument)


def shuffled(value: Any, rng: random.Random) -> Any:
    """The same with the fields of each mapping in another order."""
    if isinstance(value, dict):
        items = list(value.items())
        rng.shuffle(items)
        return {key: shuffled(inner, rng) for key, inner in items}
    return [shuffled(item, rng) for item in value] if isinstance(value, list) else value
