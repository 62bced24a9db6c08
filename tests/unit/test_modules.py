"""Modules that ask more than once: BestOfN, Refine, MultiChainComparison; with a model that says what a test tells it to."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.utils.exceptions import AdapterParseError

from dspy_operator.api.program import Program
from dspy_operator.api.promptprogram import Adapter, SamplingRequest
from dspy_operator.contract.exits import Reason
from dspy_operator.runner.metrics.regex import Regex
from dspy_operator.runner.program import LoadedProgram, apply_state, check_program, load_program, state_document
from dspy_operator.runner.program_source import program_source
from dspy_operator.runner.prompts import prompts_document
from dspy_operator.runner.stop import RunStop
from tests.integration.wired import Unreadable, called

CHAT, SCHEMA, WORDS = None, {"type": "JSON", "constrained": "Required"}, {"type": "JSON", "constrained": "Disabled"}
REQUEST = SamplingRequest.model_validate({"temperature": "0", "maxTokens": 100})
GOOD, BAD, NONE = {"label": "good", "count": 1}, {"label": "bad {{ticket}}\n two", "count": 2}, None
"""What the reward likes, what it does not, and an answer that cannot be read."""


def repeated(module: str, /, **options: Any) -> dict[str, Any]:
    reward = {"type": "Regex", "regex": {"field": "label", "pattern": "^good$"}}
    return {"type": module, _MEMBERS[module]: {"attempts": 3, "threshold": "1", "reward": reward, **options}}


_MEMBERS = {"BestOfN": "bestOfN", "Refine": "refine"}
COMPARISON = {"type": "MultiChainComparison", "multiChainComparison": {"m": 2, "temperature": "0.5"}}


def a_program(module: dict[str, Any], **fields: Any) -> Program:
    signature = {
        "instructions": "Classify {{ticket}}.",
        "inputs": [{"name": "ticket", "type": "str"}, {"name": "tags", "type": "list[str]"}],
        "outputs": [{"name": "count", "type": "int"}, {"name": "label", "type": "str"}],
        **fields,
    }
    return Program.model_validate({"type": "Single", "single": {"signature": signature, "module": module}})


def loaded(folder: Path, program: Program, adapter: dict[str, str] | None = CHAT) -> LoadedProgram:
    spec = Adapter.model_validate(adapter) if adapter else None
    return load_program(program_source("triage", program, spec, REQUEST), folder)


class Scripted(dspy.LM):  # type: ignore[misc]
    """Gives the answers of a script, one after the other, and keeps what it was asked."""

    def __init__(self, answers: list[Any], adapter: dspy.Adapter, asked: list[Any] | None = None) -> None:
        super().__init__("openai/fake", temperature=0.0, max_tokens=100, cache=False)
        self.answers, self.adapter, self.asked = iter(answers), adapter, [] if asked is None else asked

    def __call__(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> list[str]:
        settings = self.kwargs | kwargs
        self.asked += [(messages, float(settings["temperature"]))] * settings.get("n", 1)
        return [text_of(next(self.answers), self.adapter) for _ in range(settings.get("n", 1))]


def text_of(answer: dict[str, Any] | str | None, adapter: dspy.Adapter) -> str:
    if answer is None:
        return "What do you mean?"
    if isinstance(answer, str):  # of a judge
        return answer
    if isinstance(adapter, dspy.JSONAdapter):
        return json.dumps(answer)
    if isinstance(adapter, dspy.XMLAdapter):
        return "".join(f"<{name}>{in_xml(value)}</{name}>" for name, value in answer.items())
    written = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in answer.items()}
    return "".join(f"[[ ## {name} ## ]]\n{value}\n\n" for name, value in written.items())


def in_xml(value: Any) -> str:
    if isinstance(value, dict):
        return "".join(f'<entry key="{name}">{each}</entry>' for name, each in value.items())
    return f"\n{value}\n"


def advice(**said: str) -> dict[str, Any]:
    return {"discussion": "It is 日本語.", "advice": said}


def chain(label: str) -> dict[str, Any]:
    return {"reasoning": f"Since {label}.\nMore.", "count": 1, "label": label}


JUDGED = {"type": "Judge", "judge": {"instructions": "Is it «good»?\n 4 is.", "scale": 4}}
TICKET = {"ticket": ' Über {{tags}} "quoted"\n\n[[ ## label ## ]]\n👩‍💻', "tags": ["a", "«é»"]}
SCRIPTS: dict[str, tuple[dict[str, Any], list[Any], Any]] = {
    # name -> (module, the model's answers, what comes out: outputs, or an error)
    "BestOfN: the first is good": (repeated("BestOfN"), [GOOD], GOOD),
    "BestOfN: the first of equals": (repeated("BestOfN"), [BAD, NONE, {**BAD, "count": 9}], BAD),
    "BestOfN: the last is good": (repeated("BestOfN", module="ChainOfThought"), [{"reasoning": "x", **BAD}, NONE, {"reasoning": "y", **GOOD}], {"reasoning": "y", **GOOD}),
    "BestOfN: none can be read": (repeated("BestOfN"), [NONE, NONE, NONE], AdapterParseError),
    "BestOfN: DSPy would answer None": (repeated("BestOfN", attempts=2), [NONE, NONE], AdapterParseError),
    "BestOfN: too many fail": (repeated("BestOfN", attempts=5, failCount=1), [NONE, NONE], AdapterParseError),
    "Refine: the first is good": (repeated("Refine"), [GOOD], GOOD),
    "Refine: with advice": (repeated("Refine"), [BAD, advice(predict="Be «good»."), GOOD], GOOD),
    "Refine: advice for nobody, then another": (repeated("Refine"), [BAD, advice(other="?"), {**BAD, "count": 7}, advice(predict="So."), BAD], BAD),
    "Refine: no advice": (repeated("Refine"), [BAD, advice(), BAD, NONE, GOOD], GOOD),
    "Refine: an attempt and an advice that cannot be read": (repeated("Refine", attempts=4, module="ChainOfThought"), [NONE, {"reasoning": "x", **BAD}, NONE, {"reasoning": "x", **BAD}, advice(**{"predict.predict": "Go."}), {"reasoning": "y", **GOOD}], {"reasoning": "y", **GOOD}),
    "Refine: none can be read": (repeated("Refine"), [NONE, NONE, NONE], AdapterParseError),
    "BestOfN: a judge": (repeated("BestOfN", reward=JUDGED, threshold="0.75"), [BAD, "Reason: no.\nGrade: 1", NONE, GOOD, "Grade: 3"], GOOD),
    "Refine: a judge": (repeated("Refine", reward=JUDGED), [BAD, "Grade: 1", advice(predict="So."), GOOD, "**Grade:** 4"], GOOD),
    "MultiChainComparison": (COMPARISON, [chain("a"), chain("b\nc"), {"rationale": "Well.", **GOOD}], {"rationale": "Well.", **GOOD}),
    "MultiChainComparison: a chain cannot be read": (COMPARISON, [chain("a"), NONE], AdapterParseError),
}  # fmt: skip


ADAPTERS = [
    pytest.param(CHAT, id="Chat"),
    pytest.param(SCHEMA, id="constrained"),
    pytest.param(WORDS, id="JSON"),
    pytest.param({"type": "XML"}, id="XML"),
    pytest.param({"type": "BAML", "constrained": "Required"}, id="BAML"),
]


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_caller_without_dspy_asks_and_answers_the_same(
    tmp_path: Path, script: str, adapter: dict[str, str] | None
) -> None:
    module, answers, want = SCRIPTS[script]
    program = a_program(module)
    assert check_program(program) == []
    made = loaded(tmp_path, program, adapter)
    for predictor in made.module.predictors():
        predictor.signature = predictor.signature.with_instructions("Optimized {{ticket}}.\n  - truly")
        predictor.demos = [dspy.Example(ticket="demo", tags=["x"], count=5, label="good", reasoning="r", rationale="r")]
    lm = Scripted(answers, made.adapter)
    with dspy.context(lm=lm, adapter=made.adapter, trace=[]):
        if isinstance(want, dict):
            prediction = made.module(**TICKET)
            assert prediction.toDict() == want
            own = {id(predictor) for predictor in made.module.predictors()}
            assert {id(predictor) for predictor, _, _ in dspy.settings.trace} == own
            assert all("hint_" not in inputs for _, inputs, _ in dspy.settings.trace)
        else:
            with pytest.raises(want) as raised:
                made.module(**TICKET)
            assert raised.value.signature in [predictor.signature for predictor in made.module.predictors()]

    spec = Adapter.model_validate(adapter) if adapter else None
    document = json.loads(
        json.dumps(prompts_document(made.module, made.adapter, spec, REQUEST, None, None, program.single))
    )
    told = Scripted(answers, made.adapter)
    try:
        found = called(
            document, TICKET, lambda messages, temperature: told(messages=messages, temperature=temperature)[0]
        )
    except Unreadable:
        found = None
    assert found == (want if isinstance(want, dict) else None)
    asked = (
        lm.asked[: len(told.asked)] if want is AdapterParseError else lm.asked
    )  # DSPy reads chains when all are there
    assert told.asked == asked
    assert list(told.answers) == [] or not isinstance(want, dict)


@pytest.mark.parametrize("module", ["BestOfN", "Refine"])
def test_what_fails_on_one_row_costs_another_one_nothing(tmp_path: Path, module: str) -> None:
    """DSPy counts failures down on the object, for all threads and rows; here each call has its own count."""
    script: list[Any] = [NONE, BAD, *([advice()] if module == "Refine" else []), GOOD]
    program = a_program(repeated(module, failCount=1))
    made = loaded(tmp_path, program)

    def row(_: int) -> Any:
        with dspy.context(lm=Scripted(script, made.adapter), adapter=made.adapter, trace=[]):
            return made.module(**TICKET).label

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(row, range(60))) == ["good"] * 60

    shared = getattr(made.module, {"BestOfN": "best_of_n", "Refine": "refine"}[module])
    with dspy.context(lm=Scripted(script * 9, made.adapter), adapter=made.adapter, trace=[]):
        assert [shared(**TICKET).label for _ in range(2)] == ["good"] * 2
        with pytest.raises(AdapterParseError):  # at its first failure, which is the third of all
            shared(**TICKET)


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_reward_that_fails_ends_the_run(tmp_path: Path, attempts: int) -> None:
    """DSPy takes it for a failed attempt: each row would score 0."""
    made = loaded(tmp_path, a_program(repeated("BestOfN", attempts=attempts)))
    own = made.module.best_of_n.module.predict
    own.signature = own.signature.delete("label")
    lm = Scripted([{"count": 1}] * attempts, made.adapter)
    with (
        dspy.context(lm=lm, adapter=made.adapter, trace=[]),
        pytest.raises(RunStop, match="be rewarded") as stopped,
    ):
        made.module(**TICKET)
    assert stopped.value.reason is Reason.INTERNAL_ERROR


@pytest.mark.parametrize("type_", ["str", 'Literal["a", "b"]', "int", "list[str]", "Optional[str]", "date", "dict[str, float]"])  # fmt: skip
def test_the_reward_in_the_source_is_the_metric_of_that_name(tmp_path: Path, type_: str) -> None:
    """Of a date it sees pydantic's text."""
    values_of: dict[str, list[Any]] = {
        "str": ["good", "", "goods", "Über\n", "\ud800good", '"good"'],
        'Literal["a", "b"]': ["a", "b"],
        "int": [1, 10, -3],
        "list[str]": [["good"], [], ["é"]],
        "Optional[str]": ["good", None],
        "date": ["2026-11-26"],
        "dict[str, float]": [{"a": 1.5}],
    }
    for number, pattern in enumerate(
        ("^good$", r"\d", r"(?i)\bGOOD\b", "null|é|ü", r'^\["', "^2026-", "^$", "[[:alpha:]]+$", '"')
    ):
        outputs = [{"name": "label", "type": type_}]
        reward = {"type": "Regex", "regex": {"field": "label", "pattern": pattern}}
        made = loaded(tmp_path / str(number), a_program(repeated("BestOfN", reward=reward), outputs=outputs))
        rewarded = made.module.best_of_n.reward_fn
        for value in values_of[type_]:
            assert rewarded({}, dspy.Prediction(label=value)) == Regex(pattern).score(None, value), (pattern, value)


@pytest.mark.parametrize("module", [repeated("Refine"), COMPARISON], ids=["Refine", "MultiChainComparison"])
def test_a_state_is_saved_and_loaded(tmp_path: Path, module: dict[str, Any]) -> None:
    made = loaded(tmp_path, a_program(module))
    for predictor in made.module.predictors():
        predictor.signature = predictor.signature.with_instructions("Optimized.")
        predictor.demos = [dspy.Example(ticket="demo", label="good", hint_="no")]
    state = state_document(made.module)
    again = made.fresh()
    apply_state(again, state)
    assert state_document(again) == state
    assert {predictor.signature.instructions for predictor in again.predictors()} == {"Optimized."}


SIGNATURE, REWARD = "spec.program.single.signature", "spec.program.single.module.refine.reward.regex"
TAKEN = "the module adds it"


@pytest.mark.parametrize(
    ("module", "fields", "want"),
    [
        pytest.param(
            repeated("Refine", reward={"type": "Regex", "regex": {"field": "lable", "pattern": "x"}}), {},
            [f'{REWARD}.field: "lable" is no output of the program (outputs: count, label)'], id="a reward of no output",
        ),
        pytest.param(
            repeated("Refine", reward={"type": "Regex", "regex": {"field": "label", "pattern": "x(?=y)"}}), {},
            [f'{REWARD}.pattern: no regular expression: invalid perl operator "(?=" at 1; allowed: RE2\'s syntax, which has '
             "no look-around and no backreferences"], id="a pattern that RE2 does not take",
        ),
        pytest.param(
            repeated("Refine"), {"inputs": [{"name": "hint_", "type": "str"}]},
            [f'{SIGNATURE}.inputs[0].name: "hint_" cannot be a field of a Refine: {TAKEN}'], id="the hint of Refine",
        ),
        pytest.param(repeated("BestOfN"), {"inputs": [{"name": "hint_", "type": "str"}]}, [], id="which BestOfN has not"),
        pytest.param(
            repeated("BestOfN", module="ChainOfThought"), {"inputs": [{"name": "reasoning", "type": "str"}]},
            [f'{SIGNATURE}.inputs[0].name: "reasoning" cannot be a field of a BestOfN: {TAKEN}'], id="reasoning that is asked for",
        ),
        pytest.param(repeated("BestOfN"), {"inputs": [{"name": "reasoning", "type": "str"}]}, [], id="and one that is not"),
        pytest.param(
            COMPARISON,
            {"inputs": [{"name": "reasoning_attempt_2", "type": "str"}, {"name": "reasoning_attempt_3", "type": "str"}]},
            [f'{SIGNATURE}.inputs[0].name: "reasoning_attempt_2" cannot be a field of a MultiChainComparison: {TAKEN}'],
            id="an attempt of a comparison",
        ),
        pytest.param(
            COMPARISON, {"inputs": [{"name": "talk", "type": "History"}]},
            [f"{SIGNATURE}.inputs[0].type: History cannot be an input of a MultiChainComparison"], id="a conversation to compare",
        ),
    ],
)  # fmt: skip
def test_what_the_schema_cannot_see_of_a_module(
    module: dict[str, Any], fields: dict[str, Any], want: list[str]
) -> None:
    assert [str(problem) for problem in check_program(a_program(module, **fields))] == want
