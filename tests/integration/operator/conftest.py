"""One control plane, one operator and one simulator for the tests of a process; a namespace of its own for each test."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.controlplane.fixture import control_plane
from tests.controlplane.processes import ControlPlane
from tests.integration.operator.installation import Operator, an_operator, install
from tests.integration.operator.mistakes import MISTAKES, make_and_mend
from tests.integration.operator.namespace import Namespace
from tests.simulator import Simulator

__all__ = ["control_plane"]

_count = itertools.count(1)


@pytest.fixture(scope="package")
def installed(control_plane: ControlPlane) -> ControlPlane:
    """CRDs and access rules are there."""
    install(control_plane)
    return control_plane


@pytest.fixture(scope="package")
def _simulator(installed: ControlPlane) -> Iterator[Simulator]:
    with Simulator(installed) as running:
        yield running


@pytest.fixture
def simulator(_simulator: Simulator) -> Iterator[Simulator]:
    """Plays the pods; whatever it could not do fails the test."""
    _simulator.problems.clear()
    yield _simulator
    assert not _simulator.problems, "\n".join(_simulator.problems)


@pytest.fixture(scope="package")
def _operator(installed: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    operator = an_operator(installed, tmp_path_factory.mktemp("operator"))
    operator.start()
    yield operator
    operator.stop()
    # Whatever users did wrong and whatever died, that was not an error of the operator's own.
    assert not operator.complaints(), "\n".join(operator.complaints()[:5])


@pytest.fixture
def operator(_operator: Operator) -> Operator:
    """The operator; started again where an earlier test ended it."""
    if not _operator.is_running:
        _operator.start()
    return _operator


@dataclass(frozen=True)
class Spaces:
    """Makes namespaces."""

    plane: ControlPlane
    simulator: Simulator
    operator: Operator

    def new(self, words: str) -> Namespace:
        """One whose name tells what it is for."""
        name = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:50].strip("-")
        space = Namespace(f"{name}-{next(_count)}", self.plane, self.simulator, self.operator)
        space.create()
        return space


@pytest.fixture(scope="package")
def slow(installed: ControlPlane, _simulator: Simulator, _operator: Operator) -> Iterator[Mapping[str, Future[None]]]:
    """Mistakes that wait for a clock, all at once and from the start, so that their waiting costs the others nothing.

    Other tests restart and kill the operator meanwhile; that must not matter to them.
    """
    made = Spaces(installed, _simulator, _operator)
    waiting = [mistake for mistake in MISTAKES if mistake.is_slow]
    pool = ThreadPoolExecutor(len(waiting))
    yield {mistake.sentence: pool.submit(make_and_mend, mistake, made.new(mistake.sentence)) for mistake in waiting}
    pool.shutdown(wait=False, cancel_futures=True)  # where another process of the tests asked for them


@pytest.fixture(scope="module")
def spaces(installed: ControlPlane, _simulator: Simulator, _operator: Operator) -> Spaces:
    """For tests that make their namespaces themselves."""
    if not _operator.is_running:
        _operator.start()
    return Spaces(installed, _simulator, _operator)


@pytest.fixture
def namespace(
    request: pytest.FixtureRequest, installed: ControlPlane, simulator: Simulator, operator: Operator, slow: object
) -> Namespace:
    """A namespace named after the test. It stays, as all do: to remove one is a hundred requests, and the API server goes too."""
    return Spaces(installed, simulator, operator).new(request.node.name.removeprefix("test_"))
