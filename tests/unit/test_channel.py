"""What an API server's refusal means for a run, and what fits into a ConfigMap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from dspy_operator.contract import names
from dspy_operator.contract.documents import Result
from dspy_operator.contract.exits import Outcome, Reason
from dspy_operator.contract.runspec import Usage
from dspy_operator.runner.channel import failure_of, fitted, revision_files

NOT_FOUND = {"kind": "Status", "reason": "NotFound", "message": 'configmaps "orun-a-pod" not found', "code": 404}
JUDGED = Result(candidate="v1:0", outcome=Outcome.IMPROVED, usage=Usage(calls=80))


@pytest.mark.parametrize(
    ("answer", "want"),
    [
        pytest.param(
            httpx.Response(404, json=NOT_FOUND), {"gone": True}, id="404 of the API server: the object is gone"
        ),
        pytest.param(
            httpx.Response(404, text="no such route"), {"gone": False}, id="404 of something else: a bad moment"
        ),
        pytest.param(httpx.Response(404, json=["x"]), {"gone": False}, id="404 with JSON of something else"),
        pytest.param(
            httpx.Response(403, json={"reason": "Forbidden"}), {"gone": False, "final": False}, id="403 passes"
        ),
        pytest.param(httpx.Response(409, json={}), {"gone": False, "final": False}, id="409 passes"),
        pytest.param(
            httpx.Response(429, headers={"Retry-After": "7"}),
            {"final": False, "retry_after": 7.0},
            id="429 with a time",
        ),
        pytest.param(
            httpx.Response(503, headers={"Retry-After": "86400"}), {"retry_after": 30.0}, id="a time that is too long"
        ),
        pytest.param(httpx.Response(500, text="<html>"), {"final": False, "retry_after": 0.0}, id="500 without a time"),
        pytest.param(httpx.Response(413, json={}), {"final": True}, id="413 will come again"),
        pytest.param(httpx.Response(422, json={}), {"final": True}, id="422 will come again"),
    ],
)
def test_a_refusal_is_understood(answer: httpx.Response, want: dict[str, Any]) -> None:
    failure = failure_of(answer)
    assert {name: getattr(failure, name) for name in want} == want
    assert failure.kind == f"HTTP {answer.status_code}"


def test_a_revision_of_900_kib_is_published_as_it_is() -> None:
    assert fitted(JUDGED, {"program.py": "x" * (names.REVISION_BYTES - 2), "report.json": "é"}) is JUDGED


def test_a_larger_revision_is_a_failure_that_says_what_to_cut() -> None:
    result = fitted(JUDGED, {"program.py": "x", "report.json": "x" * names.REVISION_BYTES})
    assert (result.reason, result.exit, result.candidate, result.outcome) == (Reason.REVISION_TOO_LARGE, 41, None, None)
    assert result.path == "spec.dataset.exportRows"
    assert f"report.json {names.REVISION_BYTES}" in result.message
    assert result.usage == JUDGED.usage


def test_half_a_character_in_a_report_does_not_lose_the_result(tmp_path: Path) -> None:
    for name in names.REVISION_FILES:
        (tmp_path / name).write_bytes(b"{}\n")
    (tmp_path / "report.json").write_bytes('{"message": "\ud83d"}'.encode("utf-8", "surrogatepass"))
    files = revision_files(tmp_path)
    assert files["program.json"] == "{}\n"
    files["report.json"].encode()  # it can be sent
