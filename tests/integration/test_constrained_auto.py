"""`constrained: Auto` and type Auto through whole runs: what the endpoint shows decides, once, and every try goes on with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import OPTIMIZERS, Case, Workplace, workplace
from tests.integration.test_kill import kill_at_ordinal

JSON_AUTO, AUTO = {"type": "JSON", "constrained": "Auto"}, {"type": "Auto"}
SORTED, IGNORED = {"sorted_properties": True}, {"ignores_schemas": True}
REFUSED = {"faults": [{"type": "content_filter", "when": {"match": "json_schema"}}]}
TEST = 8


def a_case(adapter: dict[str, str], optimizer: str = "Evaluate", **more: Any) -> Case:
    return Case(OPTIMIZERS[optimizer], dev=8, test=TEST, module="ChainOfThought", program={"adapter": adapter}, **more)


def program_calls(place: Workplace) -> list[dict[str, Any]]:
    """Requests of the program; without the probe."""
    bodies = [json.loads(request["body"]) for request in place.server.requests()]
    return [body for body in bodies if "item0" in json.dumps(body["messages"][-1])]


@pytest.mark.parametrize(
    ("adapter", "script", "want", "why"),
    [
        pytest.param(JSON_AUTO, {}, {"type": "JSON", "constrained": "Required"}, "keep JSON schemas", id="kept"),
        pytest.param(
            JSON_AUTO,
            SORTED,
            {"type": "JSON", "constrained": "Disabled"},
            "fake writes the fields of a schema in another order: area, mood, zone instead of mood, zone, area",
            id="another order",
        ),
        pytest.param(
            JSON_AUTO,
            IGNORED,
            {"type": "JSON", "constrained": "Disabled"},
            "does not keep to a JSON schema",
            id="ignored",
        ),
        pytest.param(
            JSON_AUTO, REFUSED, {"type": "JSON", "constrained": "Disabled"}, "fake refuses a JSON schema", id="refused"
        ),
        pytest.param(AUTO, {}, {"type": "JSON", "constrained": "Required"}, "keep JSON schemas", id="Auto, kept"),
        pytest.param(AUTO, IGNORED, {"type": "Chat"}, "does not keep to a JSON schema", id="Auto, ignored"),
    ],
)
def test_the_probe_decides_and_is_told(
    tmp_path: Path, adapter: dict[str, str], script: dict[str, Any], want: dict[str, str], why: str
) -> None:
    with workplace(tmp_path, a_case(adapter), **script) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        found = done.result["resolved"]["adapter"]
        assert {name: value for name, value in found.items() if name != "why"} == want
        assert why in found["why"]
        provenance = json.loads((place.run_folder / "revision" / "provenance.json").read_bytes())
        assert provenance["resolved"]["adapter"] == found
        assert any(why in line["message"] for line in done.logs)
        kept = want.get("constrained") == "Required"
        source = (place.run_folder / "revision" / "program.py").read_text()
        assert ("ADAPTER = SchemaJSONAdapter()" in source) == kept
        # One probe; where schemas are kept, the program as validated is an arm of its own, asked in words.
        requests = program_calls(place)
        assert done.result["usage"]["calls"] == place.server.counts()["requests"] == 1 + len(requests)
        in_schema = sum("response_format" in body for body in requests)
        assert (in_schema, len(requests) - in_schema) == ((TEST + 1, TEST) if kept else (0, TEST + 1))
        assert ("incumbent" in done.result["scores"]) == kept
        verified = place.verify()
        assert verified.code == 0, verified.stderr


def test_a_schema_that_the_endpoint_does_not_take_is_found_before_it_is_relied_on(tmp_path: Path) -> None:
    refused = {"faults": [{"type": "content_filter", "when": {"match": '"reasoning": {"type"'}}]}
    refused["faults"].append({"type": "content_filter", "when": {"match": '"reasoning":{"type"'}})
    with workplace(tmp_path, a_case(JSON_AUTO), **refused) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        found = done.result["resolved"]["adapter"]
        assert found["constrained"] == "Disabled"
        assert found["why"].startswith("default/fake refuses the program's schema: ")
        assert done.result["usage"]["calls"] == 2 + TEST + 1


def test_a_budget_pays_for_the_probe_and_for_the_arm_that_may_come(tmp_path: Path) -> None:
    enough = 2 * TEST + 1 + 2  # two arms, the first row, the probe and one answer of no use
    with workplace(tmp_path, a_case(JSON_AUTO, budget={"calls": enough - 1})) as place:
        done = place.run()
        assert (done.code, place.server.counts()["requests"]) == (43, 0)
        assert (
            f"{enough} calls are needed (judgement {2 * TEST}, preflight 3), given {enough - 1}"
            in done.result["message"]
        )
        place.change(budget={"calls": enough})
        again = place.run()
        assert again.code == 0, again.stderr
        assert again.result["usage"]["calls"] <= enough
        assert again.result["estimate"]["calls"] >= again.result["usage"]["calls"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("ordinal", [1, 2, 20])
def test_a_killed_run_goes_on_with_what_the_probe_found(tmp_path: Path, ordinal: int) -> None:
    case = a_case(JSON_AUTO, "BootstrapFewShot", concurrency=1)
    with workplace(tmp_path / "whole", case) as place:
        whole = place.run()
        assert whole.code == 0, whole.stderr
        calls = place.server.counts()["requests"]
    with workplace(tmp_path / "killed", case) as place:
        kill_at_ordinal(place, ordinal, settled=True)
        resumed = place.run("--resume")
        assert resumed.code == 0, resumed.stderr
        assert resumed.result["candidate"] == whole.result["candidate"]
        assert resumed.result["resolved"] == whole.result["resolved"]
        assert place.server.counts()["requests"] <= calls + 1
        verified = place.verify()
        assert verified.code == 0, verified.stderr


def test_what_was_found_outlives_a_server_that_changes(tmp_path: Path) -> None:
    with workplace(tmp_path, a_case(JSON_AUTO, budget={"calls": 40})) as place:
        first = place.run()
        assert first.code == 0, first.stderr
        place.server.set_script(place.case.script(ignores_schemas=True))
        place.change(budget={"calls": 50})
        again = place.run("--resume")
        assert again.code == 0, again.stderr
        assert again.result["resolved"] == first.result["resolved"]
        assert again.result["candidate"] == first.result["candidate"]
