"""What Auto comes to, and what an answer to the probe says of an endpoint."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dspy_operator.api.promptprogram import Adapter
from dspy_operator.contract.adapters import concrete, is_open
from dspy_operator.contract.runspec import ProgramPart
from dspy_operator.runner.probe import FIELDS, RESPONSE_FORMAT, why_not

TYPES = {"Line": {"fields": [{"name": "sku", "type": "str"}]}}


def a_part(adapter: dict[str, str] | None, output: str = "str", *inputs: str) -> ProgramPart:
    signature = {
        "instructions": "Do.",
        "inputs": [{"name": f"in{number}", "type": type_} for number, type_ in enumerate(inputs or ("str",))],
        "outputs": [{"name": "answer", "type": output}],
    }
    document: dict[str, Any] = {
        "name": "x",
        "digest": "v1:0",
        "program": {"type": "Single", "single": {"signature": signature}},
        "types": TYPES,
        "metric": {"type": "ExactMatch"},
    }
    return ProgramPart.model_validate(document | ({"adapter": adapter} if adapter else {}))


AUTO = {"type": "Auto"}
REQUIRED, DISABLED = {"constrained": "Required"}, {"constrained": "Disabled"}
JSON, BAML = {"type": "JSON"}, {"type": "BAML"}


@pytest.mark.parametrize(
    ("part", "in_words", "with_schemas"),
    [
        pytest.param(a_part(None), None, None, id="unset is Chat"),
        pytest.param(a_part({"type": "Chat", "constrained": "Auto"}), None, None, id="Chat has no schema"),
        pytest.param(a_part({"type": "XML", "constrained": "Auto"}), {"type": "XML"}, {"type": "XML"}, id="nor XML"),
        pytest.param(a_part(JSON | DISABLED), JSON | DISABLED, JSON | DISABLED, id="Disabled stays"),
        pytest.param(a_part(JSON | REQUIRED), JSON | REQUIRED, JSON | REQUIRED, id="Required stays"),
        pytest.param(a_part({"type": "BAML", "constrained": "Auto"}), BAML | DISABLED, BAML | REQUIRED, id="Auto"),
        pytest.param(a_part(AUTO), {"type": "Chat"}, JSON | REQUIRED, id="of plain answers"),
        pytest.param(a_part(AUTO, "list[str]"), {"type": "Chat"}, JSON | REQUIRED, id="of lists"),
        pytest.param(a_part(AUTO, "list[Line] | None"), BAML | DISABLED, BAML | REQUIRED, id="of objects"),
        pytest.param(a_part(AUTO, "Line", "Image"), JSON | DISABLED, JSON | REQUIRED, id="which BAML cannot take"),
        pytest.param(a_part(AUTO, "str", "Line"), {"type": "Chat"}, JSON | REQUIRED, id="objects that only go in"),
        pytest.param(a_part(AUTO | DISABLED), {"type": "Chat"}, {"type": "Chat"}, id="of type Auto, Disabled"),
        pytest.param(a_part(AUTO | REQUIRED), JSON | REQUIRED, JSON | REQUIRED, id="of type Auto, Required"),
        pytest.param(a_part(AUTO | REQUIRED, "Line"), BAML | REQUIRED, BAML | REQUIRED, id="of objects, Required"),
    ],
)
def test_an_adapter_becomes_a_concrete_one(part: ProgramPart, in_words: Any, with_schemas: Any) -> None:
    for keeps_schema, want in ((False, in_words), (True, with_schemas)):
        found = concrete(part, keeps_schema=keeps_schema)
        assert (found and found.document()) == want
        assert not is_open(found)
    assert is_open(part.adapter) == (in_words != with_schemas)


@pytest.mark.parametrize(
    ("adapter", "want"),
    [
        (None, False),
        ({"type": "Chat", "constrained": "Auto"}, False),
        (JSON | {"constrained": "Auto"}, True),
        (AUTO, True),
        (AUTO | DISABLED, False),
    ],
)
def test_endpoints_have_a_say_where_a_schema_could_be_sent(adapter: Any, want: bool) -> None:
    assert is_open(Adapter.model_validate(adapter) if adapter else None) is want


KEPT = {name: choices[0] for name, choices in FIELDS.items()}


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param(json.dumps(KEPT), None, id="as the schema says"),
        pytest.param(json.dumps(KEPT, indent=4), None, id="with white space"),
        pytest.param(json.dumps(KEPT, sort_keys=True), "in another order: area, mood, zone", id="sorted"),
        pytest.param(json.dumps(dict(reversed(KEPT.items()))), "in another order: area, zone, mood", id="reversed"),
        pytest.param("The sky scatters light.", "does not keep to a JSON schema: 'The sky", id="prose"),
        pytest.param(f"```json\n{json.dumps(KEPT)}\n```", "does not keep to a JSON schema", id="fenced"),
        pytest.param('{"answer": "blue"}', "does not keep to a JSON schema", id="other fields"),
        pytest.param(json.dumps(KEPT | {"mood": "blue"}), "does not keep to a JSON schema", id="another value"),
        pytest.param(json.dumps(KEPT | {"mood": ["calm"]}), "does not keep to a JSON schema", id="a list as a value"),
        pytest.param('["mood", "zone", "area"]', "does not keep to a JSON schema", id="a list"),
        pytest.param(json.dumps(KEPT)[:-4], "does not keep to a JSON schema", id="cut off"),
        pytest.param("", "does not keep to a JSON schema: ''", id="nothing"),
        pytest.param("3", "does not keep to a JSON schema", id="a number"),
    ],
)
def test_an_answer_to_the_probe_tells(answer: str, why: str | None) -> None:
    found = why_not(answer)
    assert (found is None) == (why is None)
    assert why is None or why in str(found)


def test_no_sorting_gives_the_order_of_the_probe() -> None:
    order = list(RESPONSE_FORMAT["json_schema"]["schema"]["properties"])
    assert order not in (sorted(order), sorted(order, reverse=True))
