"""Every rule for the API server (CEL) has its examples, and local mode keeps it too. What the API server says of them: tests/integration/crd."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest

from dspy_operator.api.objects import KINDS
from dspy_operator.api.rules import Rule, above_zero_rule, decimal_rule, kebab, quoted, union_rules
from dspy_operator.api.unsupported import NOT_YET, PREFIX
from dspy_operator.cli.crdgen import rules_of
from tests.integration.crd.rule_cases import Case, cases
from tests.unit.written import complaints

CASES = [pytest.param(case, id=f"{case.kind}-{case.id}") for case in cases()]

ONLY_THE_API_SERVER_KNOWS = {"program-ref-stays": "what the object was before"}


@pytest.mark.parametrize("kind", KINDS)
def test_each_rule_has_examples_and_each_example_a_rule(kind: str) -> None:
    ids = {rule["id"] for rule in rules_of(kind)}
    assert ids == {case.id for case in cases() if case.kind == kind and not case.id.startswith("schema-")}
    assert len(ids) > (3 if kind == "OptimizationQuota" else 10)


@pytest.mark.parametrize("kind", KINDS)
def test_an_id_means_one_rule(kind: str) -> None:
    meant = defaultdict(set)
    for rule in rules_of(kind):
        meant[rule["id"]].add(rule["rule"])
    assert {id_: len(rules) for id_, rules in meant.items() if len(rules) > 1} == {}


@pytest.mark.parametrize("case", CASES)
def test_local_mode_takes_an_object_that_keeps_the_rule(case: Case) -> None:
    assert [said for said in complaints(case.keeps) if not is_not_supported_yet(said)] == []


@pytest.mark.parametrize("case", CASES)
def test_local_mode_refuses_an_object_that_breaks_the_rule(case: Case) -> None:
    assert complaints(case.breaks) == case.local
    assert bool(case.local) != (case.id in ONLY_THE_API_SERVER_KNOWS)


@pytest.mark.parametrize("case", [each for each in CASES if not str(each.id).split("-", 1)[1].startswith("schema-")])
def test_both_say_it_in_the_same_words(case: Case) -> None:
    """Of keys of maps they cannot: local mode names the key, and CEL the map."""
    for said in case.local:
        path, _, message = said.partition(": ")
        if re.search(r'key "[^"]*" must match|keys must', case.server) and not re.search('key "|keys must', said):
            named = case.server.partition(" is invalid: ")[2]
            assert any(path.startswith(f"{each}.") for each in re.findall(r"spec[^:\s]*(?=: Invalid)", named))
        else:
            assert f": {message}" in case.server
            # Of an entry of a map: `nodes[reply]` to the API server.
            assert f"{path}: " in re.sub(r"\[([A-Za-z]\w*)\]", r".\1", case.server)


def is_not_supported_yet(said: str) -> bool:
    return said.partition(": ")[2].startswith(PREFIX)


def test_nothing_is_told_twice_and_each_line_of_the_list_is_of_a_field_that_there_is() -> None:
    ids = [entry.id for entry in NOT_YET]
    assert len(set(ids)) == len(ids)
    known = {rule["id"] for kind in KINDS for rule in rules_of(kind)}
    assert set(ids) <= known


def test_the_description_of_a_field_says_what_of_it_is_not_supported_yet() -> None:
    told = KINDS["OptimizationRun"].model_json_schema(by_alias=True)["$defs"]
    assert told["OptimizationRunSpec"]["properties"]["ttlAfterFinished"]["description"].endswith(" Not supported yet.")
    endpoint = KINDS["ModelEndpoint"].model_json_schema(by_alias=True)["$defs"]
    assert "Not supported yet: Perplexity" in endpoint["Provider"]["properties"]["type"]["description"]


def test_a_union_of_one_type_has_no_wrong_member() -> None:
    assert [rule.id for rule in union_rules("Program", ("Single",), {"Single": "single"}, frozenset({"Single"}))] == [
        "program-single-required"
    ]


def test_a_type_without_a_member_leaves_every_member_to_the_others() -> None:
    rules = union_rules("Journal", ("EmptyDir", "Disk"), {"Disk": "disk"}, frozenset())
    assert [(rule.id, rule.cel) for rule in rules] == [
        ("journal-disk-of-its-type", "!has(self.disk) || self.type == 'Disk'")
    ]


def test_bounds_are_compared_as_numbers() -> None:
    rule = decimal_rule("topP", above="0", at_most="1")
    assert rule.id == "top-p-in-range"
    assert rule.cel.endswith(" || double(self.topP) > 0.0 && double(self.topP) <= 1.0")
    said = 'topP must be above "0" and at most "1", found "{}"'
    assert [rule.refusal(value) for value in ("0", "0.1", "1", "1.1")] == [
        said.format(0),
        None,
        None,
        said.format("1.1"),
    ]
    assert rule.document()["fieldPath"] == ".topP"


def test_a_duration_is_above_zero_where_a_digit_of_it_is() -> None:
    assert above_zero_rule("wallClock").cel == "!has(self.wallClock) || self.wallClock.matches('[1-9]')"


@pytest.mark.parametrize(
    ("message", "computed", "said", "want"),
    [
        pytest.param("cost must not be negative", False, "cost must not be negative", True, id="a text"),
        pytest.param("cost must not be negative", False, "calls must not be negative", False, id="another text"),
        pytest.param("'type is ' + self.type + ': remove it'", True, "type is F1: remove it", True, id="with a value"),
        pytest.param("'no ' + self.type", True, "no F1", True, id="with a value at its end"),
        pytest.param("'it\\'s ' + self.type + '.'", True, "it's F1.", True, id="with a quote"),
        pytest.param("'no ' + self.type", True, "no ", False, id="without its value"),
    ],
)
def test_a_rule_knows_its_words(message: str, computed: bool, said: str, want: bool) -> None:
    assert Rule(id="a", cel="true", message=message, computed=computed).says(said) == want


def test_a_computed_message_is_an_expression_and_a_plain_one_a_text() -> None:
    assert Rule(id="a", cel="true", message="'a' + self", computed=True).document() == {
        "rule": "true",
        "messageExpression": "'a' + self",
    }
    assert Rule(id="a", cel="true", message="text").document() == {"rule": "true", "message": "text"}


@pytest.mark.parametrize(("text", "want"), [("a'b", r"'a\'b'"), (r"\.", r"'\\.'")])
def test_a_text_in_cel_is_escaped(text: str, want: str) -> None:
    assert quoted(text) == want


@pytest.mark.parametrize(("name", "want"), [("maxTokens", "max-tokens"), ("topP", "top-p"), ("Provider", "provider")])
def test_ids_are_in_kebab_case(name: str, want: str) -> None:
    assert kebab(name) == want
