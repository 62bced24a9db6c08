"""An answer of the API server becomes the error that says what to do, and a kind its URL."""

from __future__ import annotations

import json

import pytest

from dspy_operator.engine.client import (
    AlreadyExists,
    ApiError,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    TooMany,
    refusal,
)
from dspy_operator.engine.plan import Ref
from dspy_operator.engine.resources import Resource, Resources, UnknownKind

RUNS = Resource("dspy-operator.io/v1alpha1", "OptimizationRun", "optimizationruns")


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [
        pytest.param(400, "BadRequest", Invalid, id="malformed"),
        pytest.param(401, "Unauthorized", Forbidden, id="token not valid"),
        pytest.param(403, "Forbidden", Forbidden, id="role lacks a verb"),
        pytest.param(404, "NotFound", NotFound, id="not there"),
        pytest.param(409, "AlreadyExists", AlreadyExists, id="there already"),
        pytest.param(409, "Conflict", Conflict, id="changed since"),
        pytest.param(410, "Expired", Gone, id="continuation too old"),
        pytest.param(413, "RequestEntityTooLarge", Invalid, id="too large"),
        pytest.param(422, "Invalid", Invalid, id="refused by the schema"),
        pytest.param(429, "TooManyRequests", TooMany, id="asked to wait"),
        pytest.param(500, "InternalError", ApiError, id="etcd away"),
        pytest.param(503, "ServiceUnavailable", TooMany, id="starting or overloaded"),
    ],
)
def test_a_refusal_has_its_type(code: int, reason: str, error: type[ApiError]) -> None:
    found = refusal(code, json.dumps({"kind": "Status", "reason": reason, "message": "why"}).encode())
    assert type(found) is error
    assert str(found) == f"{code} {reason}: why"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        pytest.param("7", 7.0, id="seconds"),
        pytest.param(None, 1.0, id="nothing said"),
        pytest.param("0", 1.0, id="not at once"),
        pytest.param("Wed, 21 Oct 2026 07:28:00 GMT", 1.0, id="a date"),
    ],
)
def test_a_busy_server_is_given_time(header: str | None, seconds: float) -> None:
    found = refusal(429, b"{}", header)
    assert isinstance(found, TooMany) and found.retry_after_seconds == seconds


@pytest.mark.parametrize("raw", [b"404 page not found\n", b"<html>", b"[]", b"\xff"])
def test_an_answer_that_is_no_status_is_told_as_it_is(raw: bytes) -> None:
    assert isinstance(refusal(404, raw), NotFound)


def test_a_namespace_that_goes_away_is_told_from_a_missing_right() -> None:
    words = "configmaps is forbidden: unable to create new content in namespace x because it is being terminated"
    found = refusal(403, json.dumps({"reason": "Forbidden", "message": words}).encode())
    assert isinstance(found, Forbidden) and found.terminating
    missing = refusal(403, b'{"message": "cannot create"}')
    assert isinstance(missing, Forbidden) and not missing.terminating


@pytest.mark.parametrize(
    ("ref", "path"),
    [
        pytest.param(Ref("v1", "ConfigMap", "a", "b"), "/api/v1/namespaces/a/configmaps/b", id="core"),
        pytest.param(
            Ref("rbac.authorization.k8s.io/v1", "Role", "a", "b"),
            "/apis/rbac.authorization.k8s.io/v1/namespaces/a/roles/b",
            id="a group",
        ),
        pytest.param(
            Ref("dspy-operator.io/v1alpha1", "OptimizationRun", "a", "b"),
            "/apis/dspy-operator.io/v1alpha1/namespaces/a/optimizationruns/b",
            id="ours",
        ),
    ],
)
def test_a_kind_has_its_place(ref: Ref, path: str) -> None:
    assert Resources(own=[RUNS]).of(ref).path(ref.namespace, ref.name) == path


def test_collections_and_subresources_have_theirs() -> None:
    assert RUNS.path() == "/apis/dspy-operator.io/v1alpha1/optimizationruns"
    assert RUNS.path("a", "b", "status").endswith("/namespaces/a/optimizationruns/b/status")
    assert RUNS.crd == "optimizationruns.dspy-operator.io"


def test_a_kind_that_nobody_told_of_is_a_bug() -> None:
    with pytest.raises(UnknownKind, match="v1 Secret"):
        Resources(own=[RUNS]).of(Ref("v1", "Secret", "a", "b"))
