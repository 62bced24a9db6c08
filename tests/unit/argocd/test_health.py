"""Argo CD's health checks, run as Argo CD runs them: Lua 5.1, its few libraries, the object as `obj`, a table back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lupa import lua51

from dspy_operator.api.resources import RESOURCES
from tests import yaml_text
from tests.unit.argocd import stories

KINDS = [resource.kind for resource in RESOURCES]


def cases() -> list[Any]:
    """Upstream's layout: each kind's folder has health_test.yaml, which names files of testdata and what is to be said of them."""
    return [
        pytest.param(kind, test, id=f"{kind}-{Path(test['inputPath']).stem}")
        for kind in KINDS
        for test in wanted_of(kind)
    ]


def wanted_of(kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml_text.document((stories.FOLDER / kind / "health_test.yaml").read_text())["tests"]
    return found


def health(kind: str, obj: dict[str, Any]) -> dict[str, str]:
    lua = lua51.LuaRuntime(register_eval=False, register_builtins=False)
    assert lua.lua_implementation == "Lua 5.1"
    # util/lua/lua.go: base, package, table and a part of os, unless somebody sets useOpenLibs.
    lua.execute('getmetatable("").__index = nil; string, math, io, debug, coroutine, python = nil')
    lua.globals()["obj"] = lua.table_from(obj, recursive=True)
    return dict(lua.execute((stories.FOLDER / kind / "health.lua").read_text()))


@pytest.mark.parametrize(("kind", "test"), cases())
def test_health(kind: str, test: dict[str, Any]) -> None:
    obj = yaml_text.document((stories.FOLDER / kind / test["inputPath"]).read_text())
    assert obj["kind"] == kind
    assert health(kind, obj) == test["healthStatus"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_object_is_looked_at(kind: str) -> None:
    files = {f"testdata/{path.name}" for path in (stories.FOLDER / kind / "testdata").iterdir()}
    assert files == {test["inputPath"] for test in wanted_of(kind)}


def test_the_objects_are_what_the_operator_says() -> None:
    there = {path: path.read_text() for path in stories.FOLDER.glob("*/testdata/*")}
    assert there == stories.files(), "run `python -m tests.unit.argocd.stories`"


def test_every_kind_has_the_same_check() -> None:
    """Argo CD wants a file for each; a rule that is one kind's own would be a surprise."""
    assert {path.name for path in stories.FOLDER.iterdir()} == set(KINDS)
    assert len({(stories.FOLDER / kind / "health.lua").read_text() for kind in KINDS}) == 1


def test_a_status_that_somebody_cut_down_is_waited_for() -> None:
    obj = stories.STORIES["ModelEndpoint"]["answers"]()
    cut = {**obj, "status": {**obj["status"], "conditions": []}}
    assert health("ModelEndpoint", cut) == {"status": "Progressing", "message": "waiting for the operator"}
