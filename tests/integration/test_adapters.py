"""Each adapter through a whole run: what was judged is what the revision does, and an answer it cannot read is one call."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.graph import graph_case
from tests.integration.harness import OPTIMIZERS, Case, workplace
from tests.integration.test_revision_files import BAML, BAML_SCHEMA, XML, conforms
from tests.integration.test_rich_types import Orders, seen

ADAPTERS = [
    pytest.param(XML, id="XML"),
    pytest.param(BAML, id="BAML in words"),
    pytest.param(BAML_SCHEMA, id="BAML with a schema"),
]


def orders(adapter: dict[str, str], optimizer: str) -> Orders:
    """Objects, lists and dates out of texts."""
    case = Orders(OPTIMIZERS[optimizer], dev=16, test=8)
    program: Any = case.program
    signature = seen(adapter, program["program"]["single"]["signature"])
    kept = [field for field in signature["inputs"] if field["name"] not in ("scan", "chat")]
    single = {"signature": {**signature, "inputs": kept}, "module": {"type": "ChainOfThought"}}
    case.program = {**program, "program": {"type": "Single", "single": single}, "adapter": adapter}
    return case


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_run_is_judged_verified_and_conforms(tmp_path: Any, adapter: dict[str, str]) -> None:
    with workplace(tmp_path, orders(adapter, "BootstrapFewShot")) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        assert done.result["dataset"]["dropped"] == 0
        for arm in ("baseline", "candidate"):
            score = done.result["scores"][arm]
            assert (score["unreadable"], score["failed"]) == (0, 0)
        assert 0 < done.result["scores"]["baseline"]["score"] < 100
        requests = [json.loads(seen_["body"]) for seen_ in place.server.requests()]
        assert len(requests) == done.result["usage"]["calls"]
        assert {"response_format" in request for request in requests} == {adapter.get("constrained") == "Required"}
        verified = place.verify()
        assert verified.code == 0, verified.stderr

        document = json.loads((place.run_folder / "revision" / "prompts.json").read_bytes())
        assert document["answer"]["type"] == ("XML" if adapter["type"] == "XML" else "JSON")
        assert len(document["vectors"]) == 3
        assert conforms(tmp_path, document)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_unreadable_answer_is_of_class_parse_and_asked_once(tmp_path: Any, adapter: dict[str, str]) -> None:
    case = Case(OPTIMIZERS["Evaluate"], dev=4, test=8, program={"adapter": adapter})
    spoilt = [{"type": "garbage_text", "when": {"match": f"item{number:03d}"}} for number in (5, 9)]
    with workplace(tmp_path, case, faults=spoilt) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        score = done.result["scores"]["candidate"]
        assert (score["rows"], score["unreadable"], score["failed"]) == (8, 2, 0)
        report = json.loads((place.run_folder / "revision" / "report.json").read_bytes())
        assert sum(row["candidate"]["class"] == "parse" for row in report["rows"]) == 2
        for number in (5, 9):
            assert sum(f"item{number:03d}" in request["body"] for request in place.server.requests()) == 1


@pytest.mark.parametrize(
    ("adapter", "want"),
    [
        pytest.param(XML, "dspy.XMLAdapter(use_json_adapter_fallback=False)", id="XML"),
        pytest.param(BAML, "PlainBAMLAdapter()", id="BAML in words"),
        pytest.param({"type": "Auto"}, "SchemaJSONAdapter()", id="Auto"),
    ],
)
def test_every_step_of_a_graph_is_asked_in_it(tmp_path: Any, adapter: dict[str, str], want: str) -> None:
    case = graph_case(OPTIMIZERS["Evaluate"], dev=2, test=4)
    case.program = {**case.program, "adapter": adapter}
    with workplace(tmp_path, case) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        score = done.result["scores"]["candidate"]
        assert (score["rows"], score["unreadable"], score["failed"]) == (4, 0, 0)
        assert f"ADAPTER = {want}\n" in (place.run_folder / "revision" / "program.py").read_text()
        assert place.server.counts()["requests"] == done.result["usage"]["calls"]
        verified = place.verify()
        assert verified.code == 0, verified.stderr
