"""A reward of one's own: it stands in program.py as it is, and what it must not give ends the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

from dspy_operator.api.program import Program
from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.runner.attempts import rewarding
from dspy_operator.runner.own_source import OWN, OwnText, own_text
from dspy_operator.runner.program import load_program
from dspy_operator.runner.program_source import NAMES, program_source
from dspy_operator.runner.stop import RunStop
from tests.unit.test_modules import REQUEST, Scripted

PATH = "spec.program.single.module.bestOfN.reward.code"
TEXT = '''"""Short labels are good."""

import re

SHORT = 4


def is_word(text):
    return re.fullmatch("[a-z]+", text) is not None


def brief(inputs, prediction):
    """1 for a short word."""
    assert inputs["ticket"] == "t"
    return is_word(prediction.label) and len(prediction.label) <= SHORT
'''


def a_program(module: str) -> Program:
    code = {"configMap": {"name": "code", "key": "reward.py"}, "entrypoint": "reward:brief"}
    options = {"attempts": 3, "threshold": "1", "reward": {"type": "Code", "code": code}}
    signature = {
        "instructions": "Classify.",
        "inputs": [{"name": "ticket", "type": "str"}],
        "outputs": [{"name": "label", "type": "str"}],
    }
    member = {"BestOfN": "bestOfN", "Refine": "refine"}[module]
    single = {"signature": signature, "module": {"type": module, member: options}}
    return Program.model_validate({"type": "Single", "single": single})


def text_of(content: str, function: str = "brief") -> OwnText:
    return own_text(content.encode(), function, PATH, NAMES | OWN)


@pytest.mark.parametrize(
    ("module", "answers", "want"),
    [
        pytest.param("BestOfN", ["lengthy", "a b", "bug"], "bug", id="BestOfN: the third is good"),
        pytest.param("BestOfN", ["lengthy", "bug"], "bug", id="BestOfN: the second, and no third"),
        pytest.param(
            "Refine", ["lengthy", {"discussion": "d", "advice": {"predict": "brief"}}, "bug"], "bug", id="Refine"
        ),
    ],
)
def test_the_best_answer_is_what_the_function_says(tmp_path: Path, module: str, answers: list[Any], want: str) -> None:
    program = a_program(module)
    source = program_source("triage", program, None, REQUEST, None, text_of(TEXT))
    assert TEXT.strip() in source and "reward_fn=brief" in source
    made = load_program(source, tmp_path, text_of(TEXT))
    lm = Scripted([answer if isinstance(answer, dict) else {"label": answer} for answer in answers], made.adapter)
    with dspy.context(lm=lm, adapter=made.adapter, trace=[]):
        assert made.module(ticket="t").label == want
    assert len(lm.asked) == len(answers)
    if module == "Refine":
        assert "return is_word(prediction.label)" in made.module.refine.reward_fn_code
        assert any("return is_word(prediction.label)" in str(messages) for messages, _ in lm.asked)


def test_program_py_runs_alone(tmp_path: Path) -> None:
    """Nothing of ours is imported."""
    source = program_source("triage", a_program("BestOfN"), None, REQUEST, None, text_of(TEXT))
    assert "dspy_operator" not in source
    namespace: dict[str, Any] = {"__file__": str(tmp_path / "program.py"), "__name__": "program"}
    exec(compile(source, str(tmp_path / "program.py"), "exec"), namespace)
    assert namespace["brief"]({"ticket": "t"}, dspy.Prediction(label="bug")) is True


def raising(inputs: Any, prediction: Any) -> float:
    raise KeyError("lable")


def gives(value: object) -> Callable[[Any, Any], Any]:
    def given(inputs: Any, prediction: Any) -> Any:
        return value

    return given


@pytest.mark.parametrize(
    ("function", "says"),
    [
        pytest.param(raising, "in raising raised KeyError: 'lable'", id="an exception"),
        pytest.param(gives(None), "given gave null, not a number from 0 to 1 or a bool", id="None"),
        pytest.param(gives(float("nan")), "given gave NaN, not a number", id="NaN"),
        pytest.param(gives(2), "given gave 2, not a number", id="above 1"),
    ],
)
def test_what_is_no_reward_ends_the_run_and_is_no_failed_attempt(function: Callable[..., Any], says: str) -> None:
    lm = Scripted([{"label": "bug"}] * 3, dspy.ChatAdapter())
    asked = dspy.BestOfN(dspy.Predict("ticket -> label"), N=3, reward_fn=rewarding(function, PATH), threshold=1.0)
    with dspy.context(lm=lm, adapter=dspy.ChatAdapter()), pytest.raises(RunStop) as stopped:
        asked(ticket="t")
    assert (stopped.value.reason, stopped.value.path) == (Reason.INVALID_PROGRAM, PATH)
    assert says in stopped.value.message
    assert len(lm.asked) == 1


@pytest.mark.parametrize(
    ("content", "line", "says"),
    [
        pytest.param(
            f"from __future__ import annotations\n{TEXT}", 1, "`from __future__` cannot stand there", id="future"
        ),
        pytest.param(TEXT + "\nprint(1)\n", 17, "only imports, definitions and assignments", id="a statement"),
        pytest.param(
            TEXT + "\nclass Program:\n    pass\n", 17, '"Program" is a name that program.py uses', id="a class"
        ),
        pytest.param(TEXT + "\nREQUEST = 1\n", 17, '"REQUEST" is a name that program.py uses', id="an assignment"),
        pytest.param("from my import load\n" + TEXT, 1, '"load" is a name that program.py uses', id="an import"),
    ],
)
def test_a_text_that_would_change_program_py_is_refused_with_its_line(content: str, line: int, says: str) -> None:
    with pytest.raises(RunFailed) as failed:
        text_of(content)
    assert (failed.value.reason, failed.value.path) == (Reason.INVALID_PROGRAM, PATH)
    assert failed.value.message.startswith(f"line {line} of the reward: {says}")


def test_a_reward_that_is_imported_from_elsewhere_is_refused() -> None:
    with pytest.raises(RunFailed, match="has to be a function") as failed:
        text_of("from os.path import basename\n", "basename")
    assert failed.value.path == f"{PATH}.entrypoint"


def test_imports_that_program_py_has_too_may_stand_there() -> None:
    content = "import json\nimport dspy\nfrom typing import Any\n\n\ndef brief(inputs: Any, prediction: Any) -> float:\n    return 1.0\n"
    assert text_of(content).text == content.strip()


@pytest.mark.parametrize(
    ("function", "shown"),
    [
        pytest.param(lambda example, prediction, trace: 1.0, "(example, prediction, trace)", id="a metric of DSPy's"),
        pytest.param(lambda prediction: 1.0, "(prediction)", id="the answer alone"),
        pytest.param(lambda inputs, prediction, *, scale: 1.0, "(inputs, prediction, *, scale)", id="an option"),
    ],
)
def test_a_reward_that_takes_something_else_is_refused_before_a_call(function: Any, shown: str) -> None:
    with pytest.raises(RunFailed) as failed:
        rewarding(function, PATH)
    assert (failed.value.reason, failed.value.path) == (Reason.INVALID_PROGRAM, f"{PATH}.entrypoint")
    assert failed.value.message == f'"<lambda>{shown}" cannot be called as a reward: (inputs, prediction)'


def test_a_reward_may_take_more_that_has_a_default() -> None:
    assert rewarding(lambda inputs, prediction, trace=None: 0.5, PATH)({}, None) == 0.5
