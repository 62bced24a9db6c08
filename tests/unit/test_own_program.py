"""A program of one's own: it stands in program.py with what calls it, and a mistake in it is told with its line."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.utils.exceptions import AdapterParseError, LMError

from dspy_operator.api.metric import Metric
from dspy_operator.api.object_types import program_types
from dspy_operator.api.program import Program
from dspy_operator.api.promptprogram import Adapter
from dspy_operator.contract.calls import Calls, changed_row_calls, row_calls
from dspy_operator.contract.digests import program_digest
from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.runner import attempts
from dspy_operator.runner.own_source import OWN, PROGRAM, OwnText, imported, own_text
from dspy_operator.runner.program import LoadedProgram, check_program, fields_of, load_program, settled, state_document
from dspy_operator.runner.program_source import NAMES, program_source
from dspy_operator.runner.stop import RunStop
from dspy_operator.runner.values import input_fields
from tests.integration.coded import PROGRAM as TEXT
from tests.integration.coded import code_program
from tests.unit.test_modules import REQUEST, Scripted
from tests.unit.test_program_source import ruff

METRIC = Metric.model_validate({"type": "ExactMatch"})
IMAGES = [{"name": "scan", "type": "Image"}, {"name": "text", "type": "str"}]


def a_program(**more: Any) -> Program:
    return Program.model_validate(code_program(**more))


def text_of(text: str, function: str = "build") -> OwnText:
    made = own_text(text.encode(), function, PROGRAM, NAMES | OWN, "program.py")
    return replace(made, outputs=("label",))


def loaded(folder: Path, text: str = TEXT, function: str = "build", **more: Any) -> LoadedProgram:
    own = text_of(text, function)
    return load_program(program_source("triage", a_program(**more), None, REQUEST, None, own), folder, own)


def test_program_py_has_the_text_and_runs_alone(tmp_path: Path) -> None:
    source = program_source("triage", a_program(), None, REQUEST, None, text_of(TEXT))
    assert TEXT.strip() in source and "dspy_operator" not in source
    assert ruff("format", source=source) == source
    namespace: dict[str, Any] = {"__file__": str(tmp_path / "program.py"), "__name__": "program"}
    exec(compile(source, str(tmp_path / "program.py"), "exec"), namespace)
    lm = Scripted([{"topic": "money"}, {"label": "positive"}], dspy.ChatAdapter())
    with dspy.context(lm=lm, adapter=namespace["ADAPTER"]):
        assert namespace["Program"]()(text="t").label == "positive"


@pytest.mark.parametrize(
    "adapter",
    [{"type": "JSON", "constrained": "Required"}, {"type": "XML"}, {"type": "BAML", "constrained": "Disabled"}],
)
def test_it_is_asked_in_any_adapter(tmp_path: Path, adapter: Mapping[str, str]) -> None:
    own = text_of(TEXT)
    source = program_source("triage", a_program(), Adapter.model_validate(adapter), REQUEST, None, own)
    made = load_program(source, tmp_path, own)
    lm = Scripted([{"topic": "money"}, {"label": "positive"}], made.adapter)
    with dspy.context(lm=lm, adapter=made.adapter, trace=[]):
        assert made.module(text="t").label == "positive"
        assert [id(predictor) for predictor, _, _ in dspy.settings.trace] == [id(p) for p in made.module.predictors()]
    assert ruff("format", source=source) == source


def test_its_predictors_are_the_modules_and_its_inputs_are_declared(tmp_path: Path) -> None:
    made = loaded(tmp_path)
    assert list(fields_of(made.module)) == ["program.look", "program.say"]
    assert list(input_fields(made.module)) == ["text"]
    with_scan = TEXT.replace("forward(self, text)", "forward(self, text, scan)")
    scans = loaded(tmp_path / "scans", with_scan, inputs=IMAGES)
    assert {name: field.annotation for name, field in input_fields(scans.module).items()} == {
        "scan": dspy.Image,
        "text": str,
    }
    made.module.predictors()[1].demos = [dspy.Example(text="t", topic="x", label="positive")]
    assert state_document(settled(made.module)) == state_document(made.module)
    assert made.fresh().predictors()[1].demos == []


def test_building_it_makes_dspy_warn_of_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It warns of whoever looks at the method forward of an instance."""
    warned: list[str] = []
    monkeypatch.setattr(logging.getLogger("dspy.primitives.module"), "warning", warned.append)
    loaded(tmp_path)
    assert warned == []


def test_a_class_may_be_the_entrypoint(tmp_path: Path) -> None:
    assert list(fields_of(loaded(tmp_path, function="Classifier").module)) == ["program.look", "program.say"]


def test_a_program_of_an_image_is_imported() -> None:
    own = imported("prompts.triage:build", PROGRAM, NAMES | OWN)
    source = program_source("triage", a_program(), None, REQUEST, None, own)
    assert "\nfrom prompts.triage import build\n" in source and "self.program = build()" in source
    assert ruff("format", source=source) == source
    with pytest.raises(RunFailed, match='"load" is a name') as failed:
        imported("prompts.triage:load", PROGRAM, NAMES | OWN)
    assert failed.value.path == f"{PROGRAM}.entrypoint"


@pytest.mark.parametrize(
    ("text", "function", "path", "says"),
    [
        pytest.param("def build():\n    return 5\n", "build", ".entrypoint", "build gives a int, not a dspy.Module", id="no module"),
        pytest.param("import dspy\n\n\ndef build():\n    return dspy.Module()\n", "build", ".entrypoint", "without a dspy.Predict in it", id="no predictor"),
        pytest.param(TEXT.replace("def forward", "def forwrd"), "build", ".entrypoint", "build gives a Classifier without the method forward (its own methods: forwrd)", id="no forward"),
        pytest.param("def build():\n    x = 1\n    return x.y\n", "build", "", "program.py, line 3, in build raised AttributeError", id="an exception"),
        pytest.param(TEXT + "\nprint(1)\n", "build", "", "line 28 of the program: only imports, definitions", id="a statement"),
        pytest.param(TEXT.replace("Classifier", "Program"), "build", "", 'line 14 of the program: "Program" is a name that program.py uses', id="a name of ours"),
        pytest.param("from os.path import basename\n", "basename", ".entrypoint", "has to be a function (def) or class of its own file", id="of another file"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_told_with_its_line(
    tmp_path: Path, text: str, function: str, path: str, says: str
) -> None:
    with pytest.raises(RunFailed) as failed:
        loaded(tmp_path, text, function)
    assert (failed.value.reason, failed.value.path) == (Reason.INVALID_PROGRAM, PROGRAM + path)
    assert says in failed.value.message


DECORATED = """import functools
import dspy


def with_hint(forward):
    @functools.wraps(forward)
    def filled(self, **inputs):
        return forward(self, hint="none", **inputs)

    return filled
"""
FILLED_IN = TEXT.replace("import dspy\n", DECORATED, 1).replace(
    "    def forward(self, text)", "    @with_hint\n    def forward(self, text, hint)"
)


@pytest.mark.parametrize(
    "taken",
    [
        pytest.param("self, text", id="the input"),
        pytest.param("self, *, text: str", id="the input, by name only"),
        pytest.param("self, **text", id="any name"),
        pytest.param("self, text, hint='none', *more, loud=False", id="more that has a default"),
        pytest.param("self, text=None, /, **more", id="by position only, and any name"),
        pytest.param("*arguments, **text", id="anything"),
    ],
)
def test_a_forward_that_can_be_called_with_the_inputs_is_taken(tmp_path: Path, taken: str) -> None:
    assert list(input_fields(loaded(tmp_path, TEXT.replace("forward(self, text)", f"forward({taken})")).module)) == [
        "text"
    ]


@pytest.mark.parametrize(
    ("text", "function"),
    [
        pytest.param(FILLED_IN, "build", id="decorated, and the decorator fills in an argument"),
        pytest.param(TEXT.replace("    def forward(self, text)", "    def __call__(self, **inputs):\n        return self.forward(inputs['text'], 'none')\n\n    def forward(self, text, hint)"), "build", id="called in a way of its own"),
        pytest.param(TEXT.replace("    def forward(self, text)", "    @staticmethod\n    def forward(ticket)"), "build", id="no plain method"),
        pytest.param(TEXT.replace("return Classifier()", "return dspy.ChainOfThought('text -> label')"), "build", id="a module of DSPy"),
    ],
)  # fmt: skip
def test_a_forward_is_not_judged_where_it_is_not_certain_how_it_is_called(
    tmp_path: Path, text: str, function: str
) -> None:
    assert loaded(tmp_path, text, function).module.predictors()


@pytest.mark.parametrize(
    ("taken", "says"),
    [
        pytest.param("self, ticket", 'forward(self, ticket) does not take the input "text"', id="another name"),
        pytest.param("self", 'forward(self) does not take the input "text"', id="none"),
        pytest.param("self, text: str, hint", 'forward(self, text, hint) needs "hint", which is no input of the program', id="one too many"),
        pytest.param("self, *, hint, **inputs", 'forward(self, *, hint, **inputs) needs "hint", which is no input', id="one too many, and any name"),
        pytest.param("self, text, /", 'forward(self, text, /) does not take the input "text" by its name', id="by position only"),
        pytest.param("self, text, /, **more", 'forward(self, text, /, **more) needs "text", by position', id="by position only, and any name"),
        pytest.param("text", "forward(text) has no self", id="no self"),
        pytest.param("", "forward() has no self", id="nothing"),
    ],
)  # fmt: skip
def test_a_forward_that_cannot_be_called_with_the_inputs_is_refused_where_it_is_built(
    tmp_path: Path, taken: str, says: str
) -> None:
    with pytest.raises(RunFailed) as failed:
        loaded(tmp_path, TEXT.replace("forward(self, text)", f"forward({taken})"))
    assert (failed.value.reason, failed.value.path) == (Reason.INVALID_PROGRAM, f"{PROGRAM}.entrypoint")
    assert failed.value.message.startswith(f"build gives a Classifier whose {says}")
    assert failed.value.message.endswith(" (inputs of the program: text)")


@pytest.mark.parametrize(
    ("ending", "path", "says"),
    [
        pytest.param('return {"label": 1}', "", "the module gave a dict, not a dspy.Prediction", id="a dict"),
        pytest.param("return None", "", "the module gave a NoneType", id="None"),
        pytest.param("return dspy.Prediction(lable=1)", ".outputs", "prediction has no label (it has: lable)", id="another output"),
        pytest.param('raise KeyError("x")', "", "program.py, line 10, in forward raised KeyError: 'x'", id="an exception"),
        pytest.param("raise SystemExit(3)", "", "program.py, line 10, in forward raised SystemExit: 3", id="an exit"),
    ],
)  # fmt: skip
def test_what_is_no_answer_ends_the_run(tmp_path: Path, ending: str, path: str, says: str) -> None:
    """DSPy would score the row 0."""
    text = f"import dspy\n\n\nclass Asks(dspy.Module):\n    def __init__(self):\n        self.ask = dspy.Predict('text -> label')\n\n    def forward(self, text):\n        self.ask(text=text)\n        {ending}\n"
    made = loaded(tmp_path, text, "Asks")
    lm = Scripted([{"label": "positive"}], made.adapter)
    with dspy.context(lm=lm, adapter=made.adapter), pytest.raises(RunStop) as stopped:
        made.module(text="t")
    assert (stopped.value.reason, stopped.value.path) == (Reason.INVALID_PROGRAM, PROGRAM + path)
    assert says in stopped.value.message


def test_an_answer_that_cannot_be_read_or_never_came_is_no_mistake_of_the_code(tmp_path: Path) -> None:
    made = loaded(tmp_path)
    with dspy.context(lm=Scripted([None], made.adapter), adapter=made.adapter), pytest.raises(AdapterParseError):
        made.module(text="t")

    class Lost(Scripted):
        def __call__(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> list[str]:
            raise LMError("lost")

    with dspy.context(lm=Lost([], made.adapter), adapter=made.adapter), pytest.raises(LMError, match="lost"):
        made.module(text="t")


def test_a_lost_request_loses_the_row_also_where_the_code_goes_on_without_it(tmp_path: Path) -> None:
    text = TEXT.replace(
        "        topic = self.look(text=text).topic\n",
        "        try:\n            topic = self.look(text=text).topic\n        except Exception:\n            topic = 'none'\n",
    )
    made = loaded(tmp_path, text)

    class Losing(Scripted):
        def __call__(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> list[str]:
            if not self.asked:
                self.asked.append(messages)
                attempts.unanswered(error := LMError("lost"))  # as the Ledger's LM does
                raise error
            return super().__call__(prompt, messages, **kwargs)

    lm = Losing([{"label": "positive"}], made.adapter)
    with dspy.context(lm=lm, adapter=made.adapter), pytest.raises(LMError, match="lost"):
        made.module(text="t")
    assert len(lm.asked) == 2


@pytest.mark.parametrize(
    ("fields", "want"),
    [
        pytest.param({}, [], id="as it is"),
        pytest.param({"inputs": [{"name": "text", "type": "strr"}]}, ["spec.program.code.inputs[0].type: "], id="a type"),
        pytest.param({"outputs": [{"name": "label", "type": "Image"}]}, ["spec.program.code.outputs[0].type: "], id="an image as output"),
        pytest.param({"inputs": [{"name": "dspy", "type": "str"}]}, ['spec.program.code.inputs[0].name: "dspy" cannot be a field name'], id="dspy"),
        pytest.param({"inputs": [{"name": "text", "type": "History"}]}, ['spec.program.code.inputs[0].type: "History" at 0 is for a program of one signature'], id="a History"),
        pytest.param({"outputs": [{"name": "base", "type": "str"}]}, ['spec.program.code.outputs[0].name: "base" cannot be an output'], id="an output of DSPy's"),
    ],
)  # fmt: skip
def test_declared_fields_are_checked(fields: dict[str, Any], want: list[str]) -> None:
    found = [str(problem) for problem in check_program(a_program(**fields))]
    assert len(found) == len(want) and all(each.startswith(start) for each, start in zip(found, want, strict=True))


def test_what_it_takes_and_costs_is_as_declared() -> None:
    program = a_program()
    assert (
        list(program_types(program, None).fields)
        == ["text", "label"]
        == [*[f.name for f in program.inputs], *program.output_names]
    )
    assert (row_calls(program), row_calls(a_program(calls=None))) == (Calls(2, 2), Calls(1, 1))
    assert changed_row_calls(program, METRIC) == 2


def test_the_texts_digest_counts_and_not_where_it_lies() -> None:
    elsewhere = a_program(configMap={"name": "other", "key": "program.py"})
    one, other = ({PROGRAM: "sha256:1"}, {PROGRAM: "sha256:2"})
    digests = [
        program_digest(program, None, METRIC, None, None, code)
        for program, code in ((a_program(), one), (elsewhere, one), (a_program(), other), (a_program(calls=3), one))
    ]
    assert digests[0] == digests[1] and len(set(digests)) == 3
