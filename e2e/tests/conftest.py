"""The cluster and the operator for all tests; a namespace of its own for each."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from e2e.cluster import kubectl
from e2e.cluster.steps.origin import decision
from e2e.cluster.wheelhouse import ROOT
from e2e.demo import release
from e2e.demo.apiserver import ApiServer, Body, api_server
from e2e.demo.supply import FIXTURES, PUBLIC, Supply
from e2e.tests.counting import URL, Counting
from e2e.tests.space import Space
from tests.integration.harness import OPTIMIZERS, Case

_KEPT = ROOT / "build" / "e2e"
_FAILED = pytest.StashKey[bool]()
# Each answer takes so long that a run of some 70 calls lasts long enough to be hit in its middle.
_LATENCY_MS = 250


@pytest.fixture(scope="session")
def api() -> Iterator[ApiServer]:
    """The cluster's API; the cluster is made where it is missing, or is not of these sources."""
    assert "PYTEST_XDIST_WORKER" not in os.environ, (
        "one operator for all: these tests run one after the other, without -n"
    )
    up = subprocess.run([sys.executable, "-m", "e2e.cluster", "up"], check=False)
    assert up.returncode == 0, "there is no cluster: see above"
    with api_server() as found:
        yield found


@pytest.fixture(scope="session")
def supply(api: ApiServer) -> Supply:
    """Where images and models come from."""
    return FIXTURES if decision().choice == "built" else PUBLIC


@pytest.fixture(scope="session")
def operator(api: ApiServer, supply: Supply) -> None:
    """Installed from its chart, with the images of this tree."""
    release.install(api, supply, print)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Says to the fixtures, which end later, that the test failed."""
    report: Any = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


@pytest.fixture
def space(request: pytest.FixtureRequest, api: ApiServer, operator: None) -> Iterator[Space]:
    """The test's namespace; build/e2e/<test> keeps what was in it where the test fails."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")
    made = Space(f"e2e-{name}"[:50].rstrip("-"), api)
    folder = _KEPT / name
    shutil.rmtree(folder, ignore_errors=True)
    kubectl.kubectl("delete", "namespace", made.name, "--ignore-not-found", "--timeout=90s", timeout_seconds=100)
    made.create()
    yield made
    if request.node.stash.get(_FAILED, False):
        made.keep(folder)
        print(f"kept: {folder.relative_to(ROOT)}")
    kubectl.kubectl("delete", "namespace", made.name, "--wait=false")


@dataclass(frozen=True)
class Uninterrupted:
    """What a run comes to that nobody disturbs."""

    digest: str
    requests: int


def a_case(**changes: Any) -> Case:
    """A run of BootstrapFewShot against the counting server, with a journal that outlives its pods."""
    endpoint = {"provider": {"openai": {"baseURL": URL}}}
    return Case(OPTIMIZERS["BootstrapFewShot"], endpoint=endpoint, concurrency=4, **changes)


@pytest.fixture
def counting(space: Space) -> Counting:
    """The counting server, which answers the rows of `a_case`."""
    server = Counting(space)
    server.start(a_case().script(latency_ms=_LATENCY_MS))
    return server


@pytest.fixture(scope="session")
def uninterrupted(api: ApiServer, operator: None) -> Uninterrupted:
    """The same run in a namespace of its own, left alone."""
    space = Space("e2e-uninterrupted", api)
    kubectl.kubectl("delete", "namespace", space.name, "--ignore-not-found", "--timeout=90s", timeout_seconds=100)
    space.create()
    server = Counting(space)
    server.start(a_case().script())
    space.apply(*a_case().objects())
    status = space.ended()
    found = Uninterrupted(digest_of(status), server.requests)
    kubectl.kubectl("delete", "namespace", space.name, "--wait=false")
    return found


def digest_of(status: Body) -> str:
    """Of the revision of a run that ended well."""
    assert status["phase"] == "Succeeded", status
    return str(status["revision"]["digest"])
