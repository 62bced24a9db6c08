"""A judge as the reward: program.py asks and reads as the metric Judge does, and no verdict is no score."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.utils.exceptions import LMError

from dspy_operator.api.metric import Metric
from dspy_operator.api.promptprogram import SamplingRequest
from dspy_operator.contract.calls import Calls, reward_calls, row_calls, scored_row_calls
from dspy_operator.contract.digests import program_digest
from dspy_operator.contract.exits import Reason
from dspy_operator.runner.attempts import Ungraded
from dspy_operator.runner.metrics.judge import Judge, read
from dspy_operator.runner.metrics.shape import NoVerdict
from dspy_operator.runner.program import LoadedProgram, check_program
from dspy_operator.runner.program_source import program_source
from dspy_operator.runner.stop import RunStop
from dspy_operator.runner.values import plain
from tests.counting_server import CountingServer
from tests.unit.test_modules import BAD, REQUEST, TICKET, Scripted, a_program, advice, loaded, repeated
from tests.unit.test_program_source import ruff

MANY = {"outputs": [{"name": "due", "type": "datetime"}, {"name": "found", "type": "list[str]"}, {"name": "sure", "type": "Optional[float]"}]}  # fmt: skip
ANSWER = {"due": datetime(2026, 11, 28, tzinfo=UTC), "found": ["é", "b"], "sure": None}


def judged(module: str = "BestOfN", instructions: str = "Is it right?\n", **options: Any) -> dict[str, Any]:
    """A module whose reward is a judge."""
    return repeated(module, reward={"type": "Judge", "judge": {"instructions": instructions, **options}})


def rewarded(made: LoadedProgram, *replies: str) -> tuple[Scripted, Any]:
    """(the model, what the reward is) of an answer to TICKET, where the judge replies so."""
    lm = Scripted(list(replies), made.adapter)
    with dspy.context(lm=lm):
        return lm, made.module.best_of_n.reward_fn(TICKET, dspy.Prediction(label="good", count=1))


@pytest.mark.parametrize("scale", [1, 5])
@pytest.mark.parametrize("replies", [["Grade: 1"], ["Hm.", "Grade: 7 of 9", "I say:\n_grade_: **1**"]])
def test_program_py_asks_what_the_metric_asks(tmp_path: Path, scale: int, replies: list[str]) -> None:
    made = loaded(tmp_path, a_program(judged(scale=scale, instructions=" Is it {right}?\n\n\tSay «so». ")))
    lm, reward = rewarded(made, *replies)
    asked: list[Any] = []

    def ask(messages: Any, rollout: int | None) -> str:
        asked.append((messages, 0.0))
        return replies[len(asked) - 1]

    own = Judge(rubric=" Is it {right}?\n\n\tSay «so». ", inputs=("ticket", "tags"), fields=("count", "label"), scale=scale, ask=ask)  # fmt: skip
    assert reward == own.opinion(TICKET, {"label": "good", "count": 1}).score == 1 / scale
    assert lm.asked == asked and len(asked) == len(replies)


def test_values_are_shown_as_the_metric_shows_them(tmp_path: Path) -> None:
    made = loaded(tmp_path, a_program(judged(), **MANY))
    lm = Scripted(["Grade: 1"], made.adapter)
    with dspy.context(lm=lm):
        made.module.best_of_n.reward_fn(TICKET, dspy.Prediction(**ANSWER))
    own = Judge(rubric="Is it right?", inputs=("ticket", "tags"), fields=("due", "found", "sure"))
    assert lm.asked == [(own.messages(TICKET, plain(ANSWER)), 0.0)]


@pytest.mark.parametrize("reply", ["3", " 3/4 ", "4/5", "Grade: 2/4", "Reason: x\n**Grade:** 3.", "Grade: 1\nGrade: 4", "- grade : 0", "Grade", "Grade:", "> Grade: 5", "Grade: 2\nwell", "", "Grade: 03", "Upgrade: 3", "a: b: 3\nGrade: 1 / 4"])  # fmt: skip
def test_a_reply_is_read_as_the_metric_reads_it(tmp_path: Path, reply: str) -> None:
    made = loaded(tmp_path, a_program(judged(scale=4)))

    def said(of: Any) -> int | str:
        try:
            found: int = of()
            return found
        except ValueError as error:
            return str(error)

    assert said(lambda: made.namespace.grade_of(reply, 4)) == said(lambda: read(reply, 4)[0])


@pytest.mark.parametrize("length", [90, 107, 200])
@pytest.mark.parametrize("scale", [1, 4])
def test_program_py_is_formatted(length: int, scale: int) -> None:
    for text in ("x" * length, "y" * (length // 2) + '\n "q"\n' + "z" * (length // 2)):
        source = program_source("triage", a_program(judged("Refine", text, scale=scale)), None, REQUEST)
        assert ruff("format", source=source) == source
    assert "dspy_operator" not in source
    checked = ruff("check", "--select", "E,F,I,B,UP", "--ignore", "E501", source=source)
    assert checked.strip() == "All checks passed!"


def test_refine_shows_the_model_the_rubric(tmp_path: Path) -> None:
    made = loaded(tmp_path, a_program(judged("Refine", "Only short labels are good.")))
    lm = Scripted([BAD, "Grade: 0", advice(), BAD, "Grade: 1"], made.adapter)
    with dspy.context(lm=lm, adapter=made.adapter, trace=[]):
        made.module(**TICKET)
    assert any("Only short labels are good." in str(asked) and "advice" in str(asked) for asked in lm.asked)


def test_an_attempt_without_a_verdict_leaves_the_row_undecided(tmp_path: Path) -> None:
    """DSPy takes it for a failed attempt, and answers with another one."""
    made = loaded(tmp_path, a_program(judged()))
    script = [BAD, "Well.", "Well.", "Well.", BAD, "Grade: 1"]
    lm = Scripted(script, made.adapter)
    with dspy.context(lm=lm, adapter=made.adapter, trace=[]), pytest.raises(Ungraded, match="no verdict") as failed:
        made.module(**TICKET)
    assert isinstance(failed.value, LMError) and len(lm.asked) == len(script)


def test_a_judge_that_is_not_answered_gives_no_verdict(tmp_path: Path) -> None:
    made = loaded(tmp_path, a_program(judged()))

    def lost(messages: Any) -> str:
        raise NoVerdict("the judge was not answered: timeout")

    made.namespace.ask_judge = lost  # type: ignore[attr-defined]
    with pytest.raises(Ungraded, match="timeout"):
        made.module.best_of_n.reward_fn(TICKET, dspy.Prediction(label="x", count=1))


def test_ten_answers_in_a_row_without_a_verdict_end_the_run(tmp_path: Path) -> None:
    made = loaded(tmp_path, a_program(judged()))
    for _ in range(9):
        with pytest.raises(Ungraded):
            rewarded(made, "Well.", "Well.", "Well.")
    with pytest.raises(RunStop) as stopped:
        rewarded(made, "Well.", "Well.", "Well.")
    assert (stopped.value.reason, stopped.value.path) == (Reason.MODEL_ANSWERS_UNUSABLE, "spec.endpoints.judge")


REWARD = "spec.program.single.module.bestOfN.reward.judge"


@pytest.mark.parametrize(
    ("options", "want"),
    [
        pytest.param({"fields": ["label"]}, [], id="an output"),
        pytest.param(
            {"fields": ["label", "lable"]},
            [f'{REWARD}.fields[1]: "lable" is no output of the program (outputs: count, label)'],
            id="no output",
        ),
        pytest.param(
            {"instructions": "Is {expected.label} right?"},
            [f"{REWARD}.instructions: {{expected.label}} is filled in by nobody: the judge is shown the inputs and the answer below the rubric"],
            id="a placeholder",
        ),
    ],
)  # fmt: skip
def test_a_judge_that_cannot_be_asked_is_refused(options: dict[str, Any], want: list[str]) -> None:
    assert [str(problem) for problem in check_program(a_program(judged(**options)))] == want


def test_each_attempt_costs_a_call_of_the_judge() -> None:
    best, refine = a_program(judged()), a_program(judged("Refine"))
    assert (row_calls(best), reward_calls(best)) == (Calls(4, 6), Calls(2, 3))
    assert (row_calls(refine), reward_calls(refine)) == (Calls(5, 8), Calls(2, 3))
    metric = Metric.model_validate({"type": "Judge", "judge": {"instructions": "?"}})
    assert scored_row_calls(best, metric) == Calls(5, 7)


def test_what_is_default_may_be_written() -> None:
    metric = Metric.model_validate({"type": "ExactMatch"})
    digests = [
        program_digest(a_program(judged(**options)), None, metric, None)
        for options in ({}, {"scale": 1}, {"fields": ["count", "label"]}, {"scale": 2})
    ]
    assert digests[0] == digests[1] == digests[2] != digests[3]


def test_program_py_alone_asks_the_model_that_answers_or_another(tmp_path: Path) -> None:
    """Plain DSPy: the task's tokens and stops are none of the judge's."""
    request = SamplingRequest.model_validate({"temperature": "0.3", "topP": "0.9", "maxTokens": 77, "stop": ["!"]})
    source = program_source("triage", a_program(judged(scale=4)), None, request)
    namespace: dict[str, Any] = {"__file__": str(tmp_path / "program.py"), "__name__": "program"}
    exec(compile(source, str(tmp_path / "program.py"), "exec"), namespace)
    with CountingServer({"keep_requests": 100}) as server, CountingServer({"keep_requests": 100}) as other:

        def asked(of: CountingServer) -> list[dict[str, Any]]:
            bodies = [json.loads(seen["body"]) for seen in of.requests()]
            return [body for body in bodies if "You grade" in body["messages"][0]["content"]]

        lm = dspy.LM("openai/fake", api_base=server.url, api_key="none", cache=False, **namespace["REQUEST"])
        with dspy.context(lm=lm, adapter=namespace["ADAPTER"]):
            namespace["Program"]()(**TICKET)
            assert 1 <= len(asked(server)) <= 3
            for body in asked(server):
                assert {"temperature": body.pop("temperature"), "model": body.pop("model")} == {
                    "temperature": 0,
                    "model": "fake",
                }
                assert set(body) == {"messages"}
            assert any(
                "max_tokens" in seen["body"] or "max_completion_tokens" in seen["body"] for seen in server.requests()
            )
            before = len(asked(server))
            namespace["JUDGE"] = dspy.LM("openai/big", api_base=other.url, api_key="none", cache=False)
            namespace["Program"]()(**TICKET)
        assert len(asked(server)) == before and {body["model"] for body in asked(other)} == {"big"}
