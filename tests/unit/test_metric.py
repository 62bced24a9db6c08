"""The metric: what counts as right, what GEPA is told, and that nothing but a score ever comes out."""

import math
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import dspy
import numpy as np
import pytest
from dspy.evaluate.metrics import f1_score
from dspy.teleprompt import BootstrapFewShot
from dspy.utils.dummies import DummyLM
from pydantic import BaseModel

from dspy_operator.api.metric import Metric
from dspy_operator.api.signature_types import ListOf, Member, Moment, Object, OneOf, Scalar, TypeExpr
from dspy_operator.contract.canonical import row_digest
from dspy_operator.contract.exits import Exit, Reason, RunFailed
from dspy_operator.runner.code import Function
from dspy_operator.runner.metric import ScoredMetric, check_metric
from dspy_operator.runner.rows import Row
from dspy_operator.runner.stop import RunStop

CODE = "spec.metric.code"


def a_metric(
    type: str = "ExactMatch",
    outputs: tuple[str, ...] = ("label",),
    function: Callable[..., Any] | None = None,
    **more: Any,
) -> ScoredMetric:
    """Of a type, or a function of one's own."""
    if function is None:
        return ScoredMetric(Metric.model_validate({"type": type, **more}), outputs)
    spec = {"type": "Code", "code": {"image": "a", "entrypoint": "metric:score"}, **more}
    code = {CODE: Function(CODE, function, "score", __file__, "")}
    return ScoredMetric(Metric.model_validate(spec), outputs, code=code)


def a_row(line: int = 1, label: str = "billing") -> Row:
    return Row(line=line, digest=str(line), inputs={"ticket": "no invoice"}, outputs={"label": label})


@pytest.mark.parametrize(
    ("gold", "predicted", "want"),
    [
        pytest.param("billing", "billing", 1, id="the same text"),
        pytest.param("billing", " billing\n", 1, id="white space around a text does not count"),
        pytest.param("billing", "Billing", 0, id="case counts"),
        pytest.param("a  b", "a b", 0, id="white space within counts"),
        pytest.param(1, 1.0, 1, id="numbers are compared by value"),
        pytest.param(0.3, 0.1 + 0.2, 0, id="exactly"),
        pytest.param(1, "1", 0, id="a number is no text"),
        pytest.param(True, True, 1, id="a bool is itself"),
        pytest.param(True, 1, 0, id="and no number"),
        pytest.param([0], [False], 0, id="also inside a list"),
        pytest.param(["a", "b "], ["a", "b"], 1, id="a list item by item, by the same rule"),
        pytest.param(["a", "b"], ["b", "a"], 0, id="the order of a list counts"),
        pytest.param(["a"], ["a", "b"], 0, id="so does its length"),
        pytest.param({"a": 1, "b": [2]}, {"b": [2.0], "a": 1}, 1, id="the order of keys does not"),
        pytest.param({"a": 1}, {"a": 1, "b": None}, 0, id="a key more counts"),
        pytest.param(None, None, 1, id="null is null"),
        pytest.param("None", None, 0, id="and no text"),
    ],
)
def test_exact_match_compares_typed_values(gold: object, predicted: object, want: float) -> None:
    assert a_metric().score({"label": gold}, {"label": predicted}) == want


class Line(BaseModel):
    """As program.py has it."""

    sku: str
    at: datetime


LINES = ListOf(Object("Line", (Member("sku", Scalar("str")), Member("at", Moment("datetime")))))


@pytest.mark.parametrize(
    ("type_", "gold", "predicted", "want"),
    [
        pytest.param(Moment("date"), "2026-11-26", date(2026, 11, 26), 1, id="a date"),
        pytest.param(Moment("date"), "2026-11-26", date(2026, 11, 27), 0, id="another date"),
        pytest.param(
            Moment("datetime"),
            "2026-11-26T11:00:00+01:00",
            datetime(2026, 11, 26, 10, tzinfo=UTC),
            1,
            id="one moment, written with two offsets",
        ),
        pytest.param(
            Moment("datetime"),
            "2026-11-26T10:00:00",
            datetime(2026, 11, 26, 10, tzinfo=UTC),
            0,
            id="no offset is no UTC",
        ),
        pytest.param(
            LINES,
            [{"at": "2026-11-26T11:00:00+01:00", "sku": "a"}],
            [Line(sku=" a", at=datetime(2026, 11, 26, 10, tzinfo=UTC))],
            1,
            id="objects field by field",
        ),
        pytest.param(
            LINES,
            [{"at": "2026-11-26T10:00:00Z", "sku": "a"}],
            [Line(sku="b", at=datetime(2026, 11, 26, 10, tzinfo=UTC))],
            0,
            id="another object",
        ),
        pytest.param(OneOf((Moment("date"),), nullable=True), None, None, 1, id="no date"),
        pytest.param(Scalar("str"), "2026-11-26T11:00:00+01:00", "2026-11-26T10:00:00Z", 0, id="a text is no moment"),
    ],
)
def test_exact_match_compares_what_dspy_parsed_with_what_a_row_says(
    type_: TypeExpr, gold: object, predicted: object, want: float
) -> None:
    metric = ScoredMetric(Metric.model_validate({"type": "ExactMatch"}), ["label"], types={"label": type_})
    told = metric.for_gepa(dspy.Example(label=gold), dspy.Prediction(label=predicted))
    assert told.score == want
    assert (told.feedback == "right.") == (want == 1)
    assert metric.for_dspy(dspy.Example(label=gold), dspy.Prediction(label=predicted)) == want


def test_feedback_shows_objects_and_dates_as_json() -> None:
    predicted = dspy.Prediction(label=[Line(sku="b", at=datetime(2026, 11, 26, 10, tzinfo=UTC))])
    gold = dspy.Example(label=[{"sku": "a", "at": "2026-11-26T10:00:00Z"}])
    assert a_metric().for_gepa(gold, predicted).feedback == (
        'label: expected [{"sku": "a", "at": "2026-11-26T10:00:00Z"}], got [{"sku": "b", "at": "2026-11-26T10:00:00Z"}]'
    )


@pytest.mark.parametrize(
    ("gold", "predicted", "want"),
    [
        pytest.param("the Eiffel Tower", "Eiffel tower!", 1.0, id="case, articles and punctuation do not count"),
        pytest.param("Paris", "Eiffel Tower is in Paris", 1 / 3, id="overlap of words"),
        pytest.param("Paris", "Rome", 0.0, id="no overlap"),
        pytest.param(["red", "green"], ["green", "red"], 1.0, id="a list is its words"),
        pytest.param(42, 42, 1.0, id="a number is its text"),
        pytest.param({"city": "Rome"}, {"city": "Rome"}, 1.0, id="an object is its keys and values"),
        pytest.param("A", "A", 1.0, id="where no word is left, ExactMatch decides"),
        pytest.param("A", "the", 0.0, id="either way"),
        pytest.param("", "", 1.0, id="an empty text that was wanted"),
    ],
)
def test_f1_is_overlap_of_normalized_words(
    gold: object, predicted: object, want: float, capsys: pytest.CaptureFixture[str]
) -> None:
    assert a_metric("F1").score({"label": gold}, {"label": predicted}) == pytest.approx(want)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("predicted", ["the quick brown fox", "Fox, quick", "slow dogs", "quick quick fox"])
def test_f1_of_texts_is_dspys_own(predicted: str) -> None:
    gold = "A quick, brown fox"
    assert a_metric("F1").score({"label": gold}, {"label": predicted}) == f1_score(predicted, gold)


def test_the_score_is_the_mean_over_the_named_fields() -> None:
    gold = {"label": "billing", "urgent": True, "note": "x"}
    predicted = {"label": "billing", "urgent": False, "note": "y"}
    outputs = ("label", "urgent", "note")
    assert a_metric(outputs=outputs).score(gold, predicted) == pytest.approx(1 / 3)
    assert a_metric(outputs=outputs, exactMatch={"fields": ["label", "urgent"]}).score(gold, predicted) == 0.5
    assert a_metric(outputs=outputs, exactMatch={"fields": ["label", "label"]}).score(gold, predicted) == 1


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        pytest.param(
            {"type": "ExactMatch", "exactMatch": {"fields": ["label", "lable"]}}, "exactMatch", id="ExactMatch"
        ),
        pytest.param({"type": "F1", "f1": {"fields": ["label", "lable"]}}, "f1", id="F1"),
    ],
)
def test_a_field_that_is_no_output_is_refused_with_its_path(spec: dict[str, Any], path: str) -> None:
    with pytest.raises(RunFailed) as failed:
        ScoredMetric(Metric.model_validate(spec), ["label", "urgent"])
    error = failed.value
    assert (error.reason, error.exit, error.path) == (
        Reason.INVALID_METRIC,
        Exit.INVALID_METRIC,
        f"spec.metric.{path}.fields[1]",
    )
    assert error.message == '"lable" is no output of the program (outputs: label, urgent)'


@pytest.mark.parametrize(
    "predicted",
    [
        pytest.param(dspy.Prediction(), id="an empty prediction"),
        pytest.param({}, id="a dict without fields"),
        pytest.param(None, id="no prediction"),
        pytest.param(dspy.Prediction(reasoning="so"), id="reasoning without an answer"),
        pytest.param(dspy.Prediction(label="billing"), id="one of two answers"),
    ],
)
def test_an_answer_without_a_field_scores_0(predicted: object) -> None:
    gold = dspy.Example(ticket="no invoice", label="billing", urgent=True).with_inputs("ticket")
    never = a_metric(outputs=("label", "urgent"), function=lambda example, prediction: 1 / 0)
    assert a_metric(outputs=("label", "urgent")).for_dspy(gold, predicted) == 0
    assert never.for_dspy(gold, predicted) == 0
    feedback = a_metric(outputs=("label", "urgent")).for_gepa(gold, predicted).feedback
    assert "urgent: expected true, got no answer that can be read" in feedback


@pytest.mark.parametrize(
    ("value", "want"),
    [
        pytest.param(0.25, 0.25, id="a float"),
        pytest.param(True, 1.0, id="a bool"),
        pytest.param(0, 0.0, id="an int"),
        pytest.param(np.float32(0.5), 0.5, id="numpy's"),
        pytest.param(Fraction(1, 4), 0.25, id="a fraction"),
        pytest.param(dspy.Prediction(score=0.5), 0.5, id="a prediction with a score"),
        pytest.param({"score": 0.5, "feedback": "so"}, 0.5, id="a mapping with one"),
    ],
)
def test_what_a_function_gives_is_the_score(value: object, want: float) -> None:
    score = a_metric(function=lambda example, prediction, trace=None: value).score({"label": "a"}, {"label": "b"})
    assert (score, type(score)) == (want, float)


def raising(example: Any, prediction: Any, trace: Any = None) -> float:
    raise KeyError("lable")


def leaving(example: Any, prediction: Any, trace: Any = None) -> float:
    raise SystemExit(3)


def misspelt(example: Any, prediction: Any, trace: Any = None) -> float:
    return float(example.lable == prediction.label)


def gives(value: object) -> Callable[..., object]:
    return lambda example, prediction, trace=None: value


_NOT = "not a number from 0 to 1, a bool, or dspy.Prediction(score=, feedback=)"
BROKEN = [
    pytest.param(gives(math.nan), f"score gave NaN, {_NOT}", id="NaN"),
    pytest.param(gives(math.inf), f"score gave Infinity, {_NOT}", id="infinity"),
    pytest.param(gives(None), f"score gave null, {_NOT}", id="None"),
    pytest.param(gives("1"), f'score gave "1", {_NOT}', id="a text"),
    pytest.param(gives(Decimal(1)), f'score gave "1", {_NOT}', id="a Decimal"),
    pytest.param(gives(1.01), f"score gave 1.01, {_NOT}", id="above 1: not clamped"),
    pytest.param(gives(-0.5), f"score gave -0.5, {_NOT}", id="below 0: not clamped"),
    pytest.param(gives(dspy.Prediction(feedback="so")), "score gave a prediction without a score", id="no score"),
    pytest.param(gives({"score": math.nan}), f"score gave NaN, {_NOT}", id="a prediction with NaN"),
    pytest.param(gives({"score": 1, "feedback": 5}), "score gave feedback that is no text (5)", id="feedback of 5"),
    pytest.param(raising, "test_metric.py, line {raising}, in raising raised KeyError: 'lable'", id="an exception"),
    pytest.param(leaving, "test_metric.py, line {leaving}, in leaving raised SystemExit: 3", id="an exit"),
    pytest.param(
        misspelt, "test_metric.py, line {misspelt}, in misspelt raised AttributeError", id="a field of another name"
    ),
]


def at(says: str) -> str:
    """With the lines of the functions above."""
    functions = {function.__name__: function.__code__.co_firstlineno + 1 for function in (raising, leaving, misspelt)}
    return says.format(**functions) if "{" in says else says


@pytest.mark.parametrize(("function", "says"), BROKEN)
def test_what_is_no_score_ends_the_run_where_no_optimizer_can_swallow_it(
    function: Callable[..., Any], says: str
) -> None:
    metric = a_metric(function=function)
    example = dspy.Example(ticket="x", label="billing").with_inputs("ticket")
    for call in (metric.for_dspy, metric.for_threshold, metric.for_gepa):
        with pytest.raises(RunStop) as stopped:
            call(example, dspy.Prediction(label="bug"))
        assert not isinstance(stopped.value, Exception)
        assert (stopped.value.reason, stopped.value.path) == (Reason.INVALID_METRIC, CODE)
        assert stopped.value.message.startswith(at(says))


@pytest.mark.parametrize(("function", "says"), BROKEN)
def test_the_check_names_the_line_before_any_call_is_made(function: Callable[..., Any], says: str) -> None:
    row = Row(4, row_digest({"ticket": "no", "label": "bug"}), inputs={"ticket": "no"}, outputs={"label": "bug"})
    metric = a_metric(function=function)
    metric.place_of = {row.digest: row.place}.get
    with pytest.raises(RunFailed) as failed:
        check_metric(metric, [row])
    assert (failed.value.reason, failed.value.path) == (Reason.INVALID_METRIC, CODE)
    assert failed.value.message.startswith(f"the row of line 4: {at(says)}")


def test_the_check_asks_for_numbers_of_three_rows_and_not_for_ones() -> None:
    asked: list[object] = []

    def half(example: Any, prediction: Any, trace: Any = None) -> float:
        asked.append(example)
        assert example.labels() == dspy.Example(prediction.toDict())
        assert trace is None
        return 0.5

    check_metric(a_metric(function=half), [a_row(line) for line in range(1, 10)])
    assert len(asked) == 3


def test_a_function_has_the_inputs_and_copies_of_what_it_may_change() -> None:
    def greedy(example: Any, prediction: Any) -> float:
        prediction.label.append("x")
        return float(example.inputs().toDict() == {"ticket": "no invoice"})

    predicted: dict[str, object] = {"label": ["a"]}
    assert a_metric(function=greedy).score({"ticket": "no invoice", "label": ["a"]}, predicted) == 1
    assert predicted == {"label": ["a"]}


@pytest.mark.parametrize(
    ("function", "want"),
    [
        pytest.param(lambda example, prediction: 1, 1, id="two arguments"),
        pytest.param(lambda example, prediction, trace: trace is None, 1, id="three"),
        pytest.param(lambda gold, pred, trace, name, pred_trace: pred_trace is None, 1, id="five, as GEPA's"),
        pytest.param(dspy.evaluate.answer_exact_match, 0, id="a metric of DSPy"),
    ],
)
def test_a_function_is_called_as_it_was_written(function: Callable[..., Any], want: float) -> None:
    metric = a_metric(outputs=("answer",), function=function)
    assert metric.score({"answer": "a"}, {"answer": "b"}) == want


async def waiting(example: Any, prediction: Any, trace: Any = None) -> float:
    return 1.0


@pytest.mark.parametrize(
    ("function", "says"),
    [
        pytest.param(
            lambda gold: 1, "cannot be called as a metric: (example, prediction, trace=None)", id="one argument"
        ),
        pytest.param(waiting, "is async: a metric is a plain function", id="async"),
    ],
)
def test_a_function_that_is_no_metric_is_refused_before_any_row(function: Callable[..., Any], says: str) -> None:
    with pytest.raises(RunFailed) as failed:
        a_metric(function=function)
    assert (failed.value.reason, failed.value.path) == (Reason.INVALID_METRIC, f"{CODE}.entrypoint")
    assert says in failed.value.message


def test_a_functions_own_feedback_is_what_gepa_reads_also_of_a_right_answer() -> None:
    metric = a_metric(function=gives(dspy.Prediction(score=1.0, feedback="shorter next time")))
    assert metric.feedback({"label": "a"}, {"label": "a"}) == "shorter next time"
    told = metric.for_gepa(dspy.Example(label="a"), dspy.Prediction(label="a"))
    assert (told.score, told.feedback) == (1.0, "shorter next time")


@pytest.mark.parametrize(
    ("type", "predicted", "want"),
    [
        pytest.param("ExactMatch", {"label": "bug", "n": 3}, 'label: expected "billing", got "bug"', id="one wrong"),
        pytest.param("ExactMatch", {"label": "billing", "n": 3}, "right.", id="all right"),
        pytest.param(
            "ExactMatch",
            {"label": "bug", "n": None},
            'label: expected "billing", got "bug"\nn: expected 3, got null',
            id="one line per wrong field",
        ),
        pytest.param(
            "F1", {"label": "billing team", "n": 3}, 'label: expected "billing", got "billing team"', id="partly"
        ),
    ],
)
def test_feedback_says_what_was_expected(type: str, predicted: dict[str, object], want: str) -> None:
    assert a_metric(type, outputs=("label", "n")).feedback({"label": "billing", "n": 3}, predicted) == want


def test_feedback_of_a_function_that_misses_something_else_tells_its_score() -> None:
    metric = a_metric(function=lambda example, prediction: 0.25)
    assert metric.feedback({"label": "a"}, {"label": "a"}) == "scored 0.25 of 1."


def test_feedback_quotes_no_more_than_1000_characters_of_a_value() -> None:
    assert len(a_metric().feedback({"label": "x" * 5000}, {"label": "y"})) < 1100


def test_accept_decides_what_may_become_a_demonstration() -> None:
    assert a_metric().accepts(1.0)
    assert not a_metric().accepts(0.99)
    assert a_metric(accept="0.8").accepts(4 / 5)


def test_an_evaluation_gets_the_score_and_bootstrapping_a_yes_or_no() -> None:
    metric = a_metric("F1")
    gold, answer = dspy.Example(label="billing"), dspy.Prediction(label="billing team")
    assert metric.for_dspy(gold, answer) == pytest.approx(2 / 3)
    assert metric.for_dspy(gold, answer, trace=[]) is False
    assert a_metric("F1", accept="0.5").for_dspy(gold, answer, trace=[]) is True
    assert metric.for_threshold(gold, answer, trace=[]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("accept", "threshold", "want_demos"),
    [
        pytest.param("1", None, 0, id="a half-right answer is no demonstration by default"),
        pytest.param("0.5", None, 1, id="accept lets it be one"),
        pytest.param("1", 0.5, 1, id="so does the optimizer's own metric_threshold"),
        pytest.param("0.5", 0.9, 0, id="which also keeps it out"),
    ],
)
def test_dspy_bootstraps_what_is_accepted(accept: str, threshold: float | None, want_demos: int) -> None:
    metric = a_metric("F1", accept=accept)
    chosen = metric.for_dspy if threshold is None else metric.for_threshold
    optimizer = BootstrapFewShot(metric=chosen, metric_threshold=threshold, max_labeled_demos=0)
    example = dspy.Example(ticket="no invoice", label="billing").with_inputs("ticket")
    with dspy.context(lm=DummyLM([{"label": "billing team"}])):
        compiled = optimizer.compile(dspy.Predict("ticket -> label"), trainset=[example])
    assert len(compiled.demos) == want_demos


def test_gepa_takes_the_metric_and_dspy_sums_what_it_gives() -> None:
    metric = a_metric()
    dspy.GEPA(metric=metric.for_gepa, max_metric_calls=1, reflection_lm=DummyLM([{"x": "y"}]))
    examples = [dspy.Example(ticket=str(n), label="billing").with_inputs("ticket") for n in range(2)]
    evaluate = dspy.Evaluate(devset=examples, metric=metric.for_gepa, num_threads=1)
    with dspy.context(lm=DummyLM([{"label": "billing"}, {"label": "bug"}])):
        result = evaluate(dspy.Predict("ticket -> label"))
    assert result.score == 50.0
    assert [score.feedback for *_, score in result.results] == ["right.", 'label: expected "billing", got "bug"']


# Feedback of one's own


def test_a_template_makes_the_feedback() -> None:
    template = "{{Expected}} {expected.label} ({expected.n}), found {found.label} ({found.n}): {score}"
    metric = a_metric(outputs=("label", "n"), feedback={"template": template})
    gold = {"label": "billing", "n": [1]}
    assert metric.feedback(gold, {"label": "bug", "n": [1]}) == "{Expected} billing ([1]), found bug ([1]): 0.5"
    assert metric.feedback(gold, gold) == "{Expected} billing ([1]), found billing ([1]): 1"
    absent = "{Expected} billing ([1]), found bug (no answer that can be read): 0"
    assert metric.feedback(gold, {"label": "bug"}) == absent
    assert metric.for_gepa(dspy.Example(**gold), dspy.Prediction(label="bug")).feedback == absent
    assert len(metric.feedback(gold | {"label": "x" * 5000}, gold)) < 1200


@pytest.mark.parametrize(
    ("template", "says"),
    [
        pytest.param("a {expected.lable}", "unknown placeholder {expected.lable} at 2", id="an output that is none"),
        pytest.param("{label}", "unknown placeholder {label} at 0", id="an output without its side"),
        pytest.param("{score} {score:.2f}", "unknown placeholder {score:.2f} at 8", id="a format"),
        pytest.param("{}", "unknown placeholder {} at 0", id="nothing"),
        pytest.param("{{{score}}} {found.ticket}", "unknown placeholder {found.ticket} at 12", id="an input"),
        pytest.param("a { b", "lone brace { at 2", id="an open brace"),
        pytest.param("a } {score}", "lone brace } at 2", id="a closing brace"),
    ],
)
def test_a_placeholder_that_means_nothing_is_refused_with_its_place(template: str, says: str) -> None:
    with pytest.raises(RunFailed) as failed:
        a_metric(outputs=("label", "n"), feedback={"template": template})
    error = failed.value
    assert (error.reason, error.path) == (Reason.INVALID_METRIC, "spec.metric.feedback.template")
    allowed = "{expected.label}, {expected.n}, {found.label}, {found.n}, {score}"
    assert error.message == f"{says}; allowed: {allowed}; {{{{ and }}}} are braces"


def test_a_column_has_the_feedback_of_its_row_whatever_the_answer_is() -> None:
    rows = [{"ticket": "no invoice", "label": "billing"}, {"ticket": "it is slow", "label": "bug"}]
    told = {row_digest(rows[0]): "It is about money."}
    spec = Metric.model_validate({"type": "ExactMatch", "feedback": {"column": "why"}})
    metric = ScoredMetric(spec, ["label"], told=told)
    examples = [dspy.Example(**row).with_inputs("ticket") for row in rows]
    said = [metric.for_gepa(example, dspy.Prediction(label="bug")) for example in examples]
    assert [(each.score, each.feedback) for each in said] == [(0, "It is about money."), (1, "right.")]
    assert metric.for_gepa(examples[0].copy(), dspy.Prediction()).feedback == "It is about money.", (
        "DSPy copies examples"
    )
    assert metric.feedback({"label": "billing"}, {"label": "bug"}, row_digest(rows[0])) == "It is about money."
    without = metric.feedback({"label": "bug"}, {"label": "billing"}, row_digest(rows[1]))
    assert without == 'label: expected "bug", got "billing"', "a row without one gets the metric's own words"
