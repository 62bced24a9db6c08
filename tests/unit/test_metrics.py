"""What is right for each metric, what it says of an answer that is not, and which labels and patterns it refuses."""

from __future__ import annotations

import itertools
import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_operator.api.metric import Metric
from dspy_operator.contract import gate
from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.contract.runspec import Gate
from dspy_operator.runner.metric import ScoredMetric, check_metric
from dspy_operator.runner.rows import Row


def metric(type: str, outputs: tuple[str, ...] = ("label",), **options: Any) -> ScoredMetric:
    return ScoredMetric(Metric.model_validate({"type": type, **options}), outputs)


def score(type: str, wanted: object, found: object, **options: Any) -> float:
    return metric(type, **options).score({"label": wanted}, {"label": found})


def said(type: str, wanted: object, found: object, **options: Any) -> str:
    return metric(type, **options).feedback({"label": wanted}, {"label": found})


def refused(of: ScoredMetric, *labels: object) -> RunFailed:
    rows = [Row(number, str(number), {}, {"label": label}) for number, label in enumerate(labels, start=1)]
    with pytest.raises(RunFailed) as failed:
        check_metric(of, rows)
    assert failed.value.reason == Reason.INVALID_METRIC
    return failed.value


def invalid(type: str, **options: Any) -> RunFailed:
    with pytest.raises(RunFailed) as failed:
        metric(type, ("label", "note"), **options)
    assert failed.value.reason == Reason.INVALID_METRIC
    return failed.value


# Contains


@pytest.mark.parametrize(
    ("wanted", "found", "want"),
    [
        pytest.param("Paris", "It is Paris.", 1, id="part of the text"),
        pytest.param(" Paris\n", "It is Paris.", 1, id="white space around what is expected does not count"),
        pytest.param("It is Paris.", "Paris", 0, id="not the other way round"),
        pytest.param("Paris", "It is paris.", 0, id="case counts"),
        pytest.param("", "anything", 0, id="nothing expected is not in everything"),
        pytest.param("", " ", 1, id="but in nothing"),
        pytest.param(4, 42, 0, id="a number has no parts"),
        pytest.param(4, 4.0, 1, id="it is itself"),
        pytest.param(True, True, 1, id="so is a bool"),
        pytest.param(["a"], ["b", "a "], 1, id="an item of a list"),
        pytest.param(["a", "b"], ["b", "c", "a"], 1, id="in any order"),
        pytest.param(["a", "b"], ["a", "c"], 0, id="each of them"),
        pytest.param(["a"], ["cat"], 0, id="an item is a whole item"),
        pytest.param([], ["a"], 0, id="an empty list is not in everything"),
        pytest.param({"a": 1}, {"b": 2, "a": 1.0}, 1, id="an entry of an object"),
        pytest.param({"a": 1}, {"a": 2}, 0, id="with its value"),
        pytest.param({"a": 1}, {"b": 1}, 0, id="and its key"),
        pytest.param(None, None, 1, id="null is null"),
    ],
)
def test_contains_finds_what_is_expected_somewhere_in_the_answer(wanted: object, found: object, want: float) -> None:
    assert score("Contains", wanted, found) == want


@pytest.mark.parametrize(
    ("wanted", "found"),
    [("PARIS", "it is Paris"), ("straße", "STRASSE 5"), (["A"], ["a", "b"]), ({"a": "X"}, {"a": "x"})],
)
def test_contains_can_ignore_case(wanted: object, found: object) -> None:
    assert score("Contains", wanted, found) == 0
    assert score("Contains", wanted, found, contains={"ignoreCase": True}) == 1
    assert score("Contains", "London", found, contains={"ignoreCase": True}) == 0


# Regex


@pytest.mark.parametrize(
    ("pattern", "found", "want"),
    [
        pytest.param(r"[0-9]{4}", "in 2024, I think", 1, id="anywhere"),
        pytest.param(r"^[0-9]{4}$", "in 2024", 0, id="unless it says where"),
        pytest.param(r"^[0-9]{4}$", "2024\n", 0, id="the end is the end, not before a last line break as in Python"),
        pytest.param(r"(?i)paris", "PARIS", 1, id="flags inside the pattern"),
        pytest.param(r"^.$", "é", 1, id="characters, not bytes"),
        pytest.param(r"\p{Han}", "in 東京", 1, id="Unicode's classes"),
        pytest.param(r"^42$", 42, 1, id="a number is its JSON"),
        pytest.param(r"^true$", True, 1, id="so is a bool"),
        pytest.param(r'"b"', ["a", "b"], 1, id="and a list"),
        pytest.param(r"^a.b$", "a\ud800b", 1, id="a lone surrogate, which has no UTF-8, is some character"),
        pytest.param(r"(a+)+$", "a" * 100_000 + "b", 0, id="in linear time: Python's re would not come back"),
    ],
)
def test_regex_matches_whatever_was_expected(pattern: str, found: object, want: float) -> None:
    options = {"regex": {"field": "label", "pattern": pattern}}
    assert score("Regex", "not looked at", found, **options) == want


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        pytest.param("(a", 'missing ) "(a" at 0', id="an open group"),
        pytest.param("ab{2,1}", 'invalid repetition size "{2,1}" at 2', id="a wrong count"),
        pytest.param("x(?=y)", 'invalid perl operator "(?=" at 1', id="look-around"),
        pytest.param(r"(a)\1", r'invalid escape sequence "\\1" at 3', id="a backreference"),
        pytest.param(
            "[**]a**", 'bad repetition operator "**"', id="a part that stands twice is quoted without a place"
        ),
        pytest.param("é[", 'missing ] "[" at 1', id="places are of characters"),
        pytest.param("a\\", "trailing \\", id="a last backslash"),
    ],
)
def test_a_pattern_that_re2_does_not_take_is_refused_with_its_place(
    pattern: str, says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    error = invalid("Regex", regex={"field": "label", "pattern": pattern})
    assert error.path == "spec.metric.regex.pattern"
    allowed = "RE2's syntax, which has no look-around and no backreferences"
    assert error.message == f"no regular expression: {says}; allowed: {allowed}"
    assert capfd.readouterr() == ("", ""), "RE2 logs nothing of its own"


def test_the_field_of_a_regex_is_an_output() -> None:
    error = invalid("Regex", regex={"field": "lable", "pattern": "a"})
    assert error.path == "spec.metric.regex.field"
    assert error.message == '"lable" is no output of the program (outputs: label, note)'


# JSONEqual


@pytest.mark.parametrize(
    ("wanted", "found", "want"),
    [
        pytest.param('{"a": 1, "b": [2]}', '{"b":[2.0],\n"a":1}', 1, id="the order of keys and white space"),
        pytest.param("[1, 2]", "[2, 1]", 0, id="the order of a list counts"),
        pytest.param("1", "1.0", 1, id="numbers by value"),
        pytest.param("0.1", "0.10", 1, id="also fractions"),
        pytest.param("1e400", "1e401", 0, id="also numbers that no float holds"),
        pytest.param("12345678901234567890", "12345678901234567891", 0, id="to the last digit"),
        pytest.param("true", "1", 0, id="a bool is no number"),
        pytest.param('"a"', '"a "', 0, id="texts as they are"),
        pytest.param('"é"', '"\\u00e9"', 1, id="however they are escaped"),
        pytest.param("null", "null", 1, id="null"),
        pytest.param('{"a": 1}', '{"a": 1, "b": null}', 0, id="a key more"),
        pytest.param('{"a": 1}', '{"a": 1, "a": 1}', 0, id="a key twice"),
        pytest.param('{"a": 1}', '```json\n{"a": 1}\n```', 0, id="a fence is no JSON"),
        pytest.param('{"a": 1}', "NaN", 0, id="neither is NaN"),
        pytest.param("[1]", "[" * 5000 + "]" * 5000, 0, id="nor what is nested too deeply"),
        pytest.param("1", "1e99999999999999999999", 0, id="nor what no decimal holds"),
        pytest.param({"a": 0.1}, {"a": 0.1}, 1, id="a typed value is JSON already"),
        pytest.param({"a": 0.1}, '{"a": 0.1}', 1, id="and equals its text"),
        pytest.param(["1"], [1], 0, id="a text within a value is a text"),
        pytest.param(None, "null", 1, id="null by type"),
    ],
)
def test_json_equal_compares_values_and_not_how_they_are_written(wanted: object, found: object, want: float) -> None:
    assert score("JSONEqual", wanted, found) == want


@pytest.mark.parametrize(
    ("label", "says"),
    [
        ("billing", 'label: "billing" is no JSON: Expecting value at 0'),
        ('{"a": 1, "b": 2, "b": 3}', 'is no JSON: the key "b" is there twice'),
        ("[NaN]", 'label: "[NaN]" is no JSON: NaN is no number'),
    ],
)
def test_a_label_that_is_no_json_is_refused_on_whichever_line_it_stands(label: str, says: str) -> None:
    error = refused(metric("JSONEqual"), *["{}"] * 7, label)
    assert error.path == "spec.metric.type"
    assert error.message.startswith("line 8: label: ") and error.message.endswith(says)


# Numeric


@pytest.mark.parametrize(
    ("wanted", "found", "options", "want"),
    [
        pytest.param(5, 5.0, {}, 1, id="by value"),
        pytest.param(5, 5.0000001, {}, 0, id="exactly, where nothing is said"),
        pytest.param(0.3, 0.4, {"tolerance": "0.1"}, 1, id="in decimal: in binary it is a bit more than 0.1"),
        pytest.param(0.3, 0.41, {"tolerance": "0.1"}, 0, id="and no more"),
        pytest.param(0.3, 0.2, {"tolerance": "0.1"}, 1, id="below, too"),
        pytest.param(200, 210, {"relativeTolerance": "0.05"}, 1, id="a part of what is expected"),
        pytest.param(200, 211, {"relativeTolerance": "0.05"}, 0, id="and no more of it"),
        pytest.param(-200, -210, {"relativeTolerance": "0.05"}, 1, id="of a negative number"),
        pytest.param(0, 0.01, {"relativeTolerance": "0.5"}, 0, id="a part of 0 is 0"),
        pytest.param(0, 0.01, {"relativeTolerance": "0.5", "tolerance": "0.01"}, 1, id="the larger of the two counts"),
        pytest.param("42", " 42.0\n", {}, 1, id="a text is its number"),
        pytest.param("1e3", "1000", {}, 1, id="with an exponent"),
        pytest.param("-.5", "-0.5", {}, 1, id="with nothing before the point"),
        pytest.param("42", "42 kg", {}, 0, id="a unit makes it none"),
        pytest.param("1000", "1,000", {}, 0, id="so does a separator"),
        pytest.param("1000", "1_000", {}, 0, id="also Python's"),
        pytest.param("4", "٤", {}, 0, id="digits are 0 to 9"),
        pytest.param(5.0, float("nan"), {"tolerance": "100"}, 0, id="NaN is none"),
        pytest.param(5.0, float("inf"), {"relativeTolerance": "100"}, 0, id="nor is infinity"),
        pytest.param("1", "Infinity", {"tolerance": "100"}, 0, id="in words"),
        pytest.param(1, True, {}, 0, id="a bool is no number"),
        pytest.param("1", "9" * 1_000_001, {}, 0, id="a text of digits without end is none"),
        pytest.param("1e999", "-1e999", {"tolerance": "1"}, 0, id="numbers that no float holds"),
        pytest.param(10**30 + 1, 10**30, {}, 0, id="to the last digit"),
        pytest.param([1, 2.5], [1, 2.4], {"tolerance": "0.1"}, 1, id="each item of a list"),
        pytest.param([1, 2], [1, 2, 3], {"tolerance": "9"}, 0, id="as many as there are"),
        pytest.param({"x": 1}, {"x": 1.1}, {"tolerance": "0.1"}, 1, id="each of an object"),
        pytest.param({"x": 1}, {"y": 1}, {"tolerance": "0.1"}, 0, id="under its key"),
        pytest.param(None, None, {}, 1, id="no number where none is expected"),
        pytest.param(None, 0, {"tolerance": "1"}, 0, id="null is not 0"),
        pytest.param(0, None, {"tolerance": "1"}, 0, id="either way"),
    ],
)
def test_numeric_compares_numbers(wanted: object, found: object, options: dict[str, str], want: float) -> None:
    assert score("Numeric", wanted, found, numeric=options) == want


@pytest.mark.parametrize("label", ["billing", "5 kg", "nan", True, ["1", "two"], {"x": "?"}])
def test_a_label_that_is_no_number_is_refused(label: object) -> None:
    error = refused(metric("Numeric"), 1, "2", [3], None, label)
    assert error.path == "spec.metric.type"
    inner = label[1] if isinstance(label, list) else label["x"] if isinstance(label, dict) else label
    assert error.message == f"line 5: label: {json.dumps(inner)} is no number"


# Composite


def composite(*parts: tuple[dict[str, Any], str | None], outputs: tuple[str, ...] = ("label",)) -> ScoredMetric:
    written = [{"metric": part, **({"weight": weight} if weight else {})} for part, weight in parts]
    return metric("Composite", outputs, composite={"parts": written})


EXACT: dict[str, Any] = {"type": "ExactMatch"}
YEAR = {"type": "Regex", "regex": {"field": "label", "pattern": "[0-9]{4}"}}


@pytest.mark.parametrize(
    ("weights", "found", "want"),
    [
        pytest.param((None, None), "in 2024", 0.5, id="weights are 1"),
        pytest.param(("0.2", "0.8"), "in 2024", 0.8, id="unless they say otherwise"),
        pytest.param(("2", "6"), "in 2024", 0.75, id="their sum need not be 1"),
        pytest.param(("0.1", "0.2"), "2024", 1.0, id="all right is 1, not 0.99999"),
        pytest.param(("0.1", "0.2"), "never", 0.0, id="all wrong is 0"),
    ],
)
def test_composite_is_the_weighted_mean_of_its_parts(weights: tuple[str, str], found: str, want: float) -> None:
    of = composite((EXACT, weights[0]), (YEAR, weights[1]))
    assert of.score({"label": "2024"}, {"label": found}) == want


def test_an_answer_that_lacks_a_field_of_one_part_scores_0_as_a_whole() -> None:
    parts = [{"type": "ExactMatch", "exactMatch": {"fields": [name]}} for name in ("label", "note")]
    of = composite((parts[0], None), (parts[1], None), outputs=("label", "note", "free"))
    assert of.fields == ("label", "note")
    gold = {"label": "a", "note": "b", "free": "c"}
    assert of.score(gold, {"label": "a", "note": "x"}) == 0.5
    assert of.score(gold, {"label": "a"}) == 0
    assert of.feedback(gold, {"label": "a"}) == 'ExactMatch: note: expected "b", got no answer that can be read'


def test_accept_of_a_composite_is_met_exactly() -> None:
    parts = [{"metric": EXACT, "weight": "0.2"}, {"metric": YEAR, "weight": "0.8"}]
    of = metric("Composite", composite={"parts": parts}, accept="0.8")
    assert of.accepts(of.score({"label": "2024"}, {"label": "in 2024"}))


@pytest.mark.parametrize(
    ("part", "path", "message"),
    [
        (
            {"type": "F1", "f1": {"fields": ["lable"]}},
            "f1.fields[0]",
            '"lable" is no output of the program (outputs: label)',
        ),
        (
            {"type": "Regex", "regex": {"field": "label", "pattern": "("}},
            "regex.pattern",
            'no regular expression: missing ) "(" at 0; allowed: RE2\'s syntax, which has no look-around and no backreferences',
        ),
    ],
)
def test_a_mistake_in_a_part_is_told_with_the_path_of_the_part(part: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(RunFailed) as failed:
        composite((EXACT, None), (part, None))
    assert (failed.value.path, failed.value.message) == (f"spec.metric.composite.parts[1].metric.{path}", message)


def test_a_label_that_a_part_refuses_is_told_with_the_path_of_the_part() -> None:
    error = refused(composite((EXACT, None), ({"type": "Numeric"}, None)), "billing")
    assert error.path == "spec.metric.composite.parts[1].metric.type"
    assert error.message == 'line 1: label: "billing" is no number'


# What GEPA is told


@pytest.mark.parametrize(
    ("spec", "wanted", "found", "want"),
    [
        pytest.param({"type": "Contains"}, "a", "b", 'label: expected "a" somewhere in it, got "b"', id="Contains"),
        pytest.param(YEAR, "2024", "soon", 'label: expected a match of [0-9]{4}, got "soon"', id="Regex"),
        pytest.param({"type": "JSONEqual"}, "{}", "[]", 'label: expected "{}", got "[]"', id="JSONEqual"),
        pytest.param(
            {"type": "JSONEqual"},
            "[]",
            "[,]",
            'label: expected "[]", got "[,]", which is no JSON: Expecting value at 1',
            id="JSONEqual, of what is no JSON",
        ),
        pytest.param({"type": "Numeric"}, 5, 6, "label: expected 5, got 6", id="Numeric"),
        pytest.param(
            {"type": "Numeric", "numeric": {"tolerance": "0.50", "relativeTolerance": "0.1"}},
            5,
            6,
            "label: expected 5 (off by at most 0.5 or 10 %), got 6",
            id="Numeric, with what it may be off",
        ),
        pytest.param(
            {"type": "Numeric"},
            "5",
            "5 kg",
            'label: expected "5", got "5 kg", where "5 kg" is no number',
            id="Numeric, of what is no number",
        ),
        pytest.param(
            {"type": "Composite", "composite": {"parts": [{"metric": EXACT}, {"metric": YEAR}, {"metric": {"type": "F1"}}]}},
            "in 2024",
            "in May",
            'ExactMatch: label: expected "in 2024", got "in May"\n'
            'Regex: label: expected a match of [0-9]{4}, got "in May"\n'
            'F1: label: expected "in 2024", got "in May"',
            id="Composite, each part by its name",
        ),
        pytest.param(
            {"type": "Composite", "composite": {"parts": [{"metric": EXACT}, {"metric": YEAR}]}},
            "2024",
            "in 2024",
            'ExactMatch: label: expected "2024", got "in 2024"',
            id="Composite, only what is wrong",
        ),
    ],
)  # fmt: skip
def test_feedback_of_each_metric(spec: dict[str, Any], wanted: object, found: object, want: str) -> None:
    assert ScoredMetric(Metric.model_validate(spec), ["label"]).feedback({"label": wanted}, {"label": found}) == want
    right = wanted if spec["type"] != "Regex" else "2024"
    assert said(**spec, wanted=wanted, found=right) == "right."


# Of every metric

TEXTS = st.text(max_size=20)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
ANYTHING = JSON | st.floats()
METRICS: dict[str, dict[str, Any]] = {
    "ExactMatch": {},
    "F1": {},
    "Contains": {"contains": {"ignoreCase": True}},
    "Regex": {"regex": {"field": "label", "pattern": "a"}},
    "JSONEqual": {},
    "Numeric": {"numeric": {"tolerance": "0.5", "relativeTolerance": "0.1"}},
    "Composite": {"composite": {"parts": [{"metric": EXACT, "weight": "0.3"}, {"metric": {"type": "Contains"}}]}},
}


@pytest.mark.parametrize("type", METRICS)
@given(wanted=ANYTHING, found=ANYTHING)
def test_a_score_is_0_to_1_whatever_the_values_are(type: str, wanted: object, found: object) -> None:
    got = score(type, wanted, found, **METRICS[type])
    assert isinstance(got, float) and 0 <= got <= 1
    assert said(type, wanted, found, **METRICS[type])


@pytest.mark.parametrize("type", ["ExactMatch", "F1", "Contains", "Composite"])
@given(label=JSON)
def test_a_label_is_right_by_itself(type: str, label: object) -> None:
    assert score(type, label, label, **METRICS[type]) == 1


@given(label=JSON)
def test_a_json_label_is_right_by_itself_typed_and_as_text(label: object) -> None:
    text = json.dumps(label)
    assert score("JSONEqual", text, text) == 1
    assert score("JSONEqual", text, json.dumps(label, indent=1, sort_keys=True)) == 1
    if not isinstance(label, str):
        assert score("JSONEqual", label, label) == score("JSONEqual", label, text) == 1


@given(label=NUMBERS, as_text=st.booleans())
def test_a_number_is_right_by_itself(label: float, as_text: bool) -> None:
    assert score("Numeric", str(label) if as_text else label, label) == 1


@given(
    wanted=st.decimals(-1000, 1000, places=3), off=st.decimals(0, 10, places=3), tolerance=st.decimals(0, 10, places=3)
)
def test_a_number_is_right_where_it_is_off_by_no_more_than_its_tolerance(
    wanted: Decimal, off: Decimal, tolerance: Decimal
) -> None:
    options = {"numeric": {"tolerance": f"{tolerance:f}"}}
    for found in (wanted + off, wanted - off):
        assert score("Numeric", float(wanted), float(found), **options) == (off <= tolerance)


WEIGHTS = st.decimals("0.001", 9, places=3)


@given(weights=st.lists(WEIGHTS, min_size=2, max_size=8), right=st.lists(st.booleans(), min_size=8, max_size=8))
def test_a_composite_is_the_exact_weighted_mean(weights: list[Decimal], right: list[bool]) -> None:
    parts = [
        ({"type": "Regex", "regex": {"field": "label", "pattern": "a" if good else "b"}}, f"{weight:f}")
        for weight, good in zip(weights, right, strict=False)
    ]
    won = sum(Fraction(weight) for weight, good in zip(weights, right, strict=False) if good)
    want = float(won / sum(map(Fraction, weights)))
    assert composite(*parts).score({"label": "a"}, {"label": "a"}) == want


# The gate


def exact_p(differences: list[Fraction]) -> float:
    """By counting every assignment of signs."""
    signs = itertools.product((1, -1), repeat=len(differences))
    sums = [sum(sign * abs(each) for sign, each in zip(some, differences, strict=True)) for some in signs]
    return sum(each >= sum(differences) for each in sums) / len(sums)


@pytest.mark.parametrize("type", ["Contains", "JSONEqual", "Numeric"])
def test_a_metric_of_right_and_wrong_is_judged_by_mcnemar(type: str) -> None:
    of = metric(type)
    candidate = [of.score({"label": "1"}, {"label": found}) for found in "1111112"]
    incumbent = [of.score({"label": "1"}, {"label": found}) for found in "1222221"]
    verdict = gate.judge(candidate, incumbent, Gate(), 0)
    assert verdict.method == gate.Method.MCNEMAR
    assert verdict.p == gate.mcnemar(won=5, lost=1) == exact_p([Fraction(1)] * 5 + [Fraction(-1)])


def test_a_composite_is_judged_by_signs_of_its_exact_differences() -> None:
    """Also where a weight has no binary fraction, and where the scores of these rows happen to be 0 and 1: as McNemar's."""
    of = composite((EXACT, "0.3"), (YEAR, "0.7"))
    candidate = [
        of.score({"label": "2024"}, {"label": found}) for found in ("2024", "2024", "in 2024", "in 2024", "no")
    ]
    incumbent = [of.score({"label": "2024"}, {"label": found}) for found in ("in 2024", "no", "no", "2024", "in 2024")]
    verdict = gate.judge(candidate, incumbent, Gate(), 0)
    assert verdict.method == gate.Method.SIGN_FLIP
    differences = [Fraction(3, 10), Fraction(1), Fraction(7, 10), Fraction(-3, 10), Fraction(-7, 10)]
    assert verdict.p == exact_p(differences)
    whole = [Fraction(1), Fraction(1), Fraction(-1)]
    assert gate.sign_flip([float(each) for each in whole])[0] == gate.mcnemar(won=2, lost=1) == exact_p(whole)
