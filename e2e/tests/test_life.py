"""What a person does to a run while it runs, and after."""

from __future__ import annotations

import time

from e2e.cluster import kubectl
from e2e.tests.conftest import Uninterrupted, a_case, digest_of
from e2e.tests.counting import Counting
from e2e.tests.space import OURS, Space

RUN = "OptimizationRun"
_QUIET_SECONDS = 20


def test_no_call_beyond_the_budget_is_made(space: Space, counting: Counting, uninterrupted: Uninterrupted) -> None:
    calls = uninterrupted.requests - 12
    space.apply(*a_case(budget={"calls": calls}).objects())

    status = space.ended()

    assert space.condition(RUN, "run", "Complete", "True", "BudgetExhausted")
    assert status["usage"]["calls"] == space.account()["run"]["used"]["calls"] == counting.requests <= calls


def test_a_suspended_run_asks_nothing_and_goes_on_where_it_was(
    space: Space, counting: Counting, uninterrupted: Uninterrupted
) -> None:
    space.apply(*a_case().objects())
    counting.reaches(uninterrupted.requests // 3)

    space.apply(*a_case(run={"suspend": True}).objects())
    space.condition(RUN, "run", "Suspended", "True", "Suspended")
    space.until("no pod of the run is left", lambda: not space.pods_of_run(), seconds=60)
    while_suspended = counting.requests
    time.sleep(5)
    assert counting.requests == while_suspended < uninterrupted.requests

    space.apply(*a_case().objects())
    status = space.ended()
    assert digest_of(status) == uninterrupted.digest
    assert counting.requests <= uninterrupted.requests + a_case().concurrency


def test_a_run_that_is_deleted_ends_and_its_reservation_stays_on_the_account(
    space: Space, counting: Counting, uninterrupted: Uninterrupted
) -> None:
    space.apply(*a_case().objects())
    counting.reaches(uninterrupted.requests // 3)

    space.delete("orun", "run")
    space.until("its pod is gone", lambda: not space.pods_of_run(), seconds=30)

    asked = counting.requests
    time.sleep(5)
    assert counting.requests == asked < uninterrupted.requests
    space.until("its job is gone", lambda: not space.jobs_of_run(), seconds=30)
    # Nobody is left to settle what was reserved for it: it counts as spent.
    assert space.account()["run"]["reserved"]["calls"] >= counting.counts()["answered"] > 0


def test_whatever_is_applied_again_writes_nothing_and_asks_nothing(
    space: Space, counting: Counting, uninterrupted: Uninterrupted
) -> None:
    space.apply(*a_case().objects())
    assert digest_of(space.ended()) == uninterrupted.digest
    # The operator ends what it has to write after the end: nothing changes for as long as is watched afterwards.
    time.sleep(5)
    before, asked = _versions(space), counting.requests

    said = [space.apply(*a_case().objects()) for _ in range(3)]
    time.sleep(_QUIET_SECONDS)

    assert all(line.endswith("unchanged") for text in said for line in text.splitlines()), said
    assert (_versions(space), counting.requests) == (before, asked)


def _versions(space: Space) -> dict[str, str]:
    """Object -> resourceVersion, of everything that the operator makes or writes to."""
    kinds = [*OURS.values(), "configmaps", "jobs", "serviceaccounts", "roles", "rolebindings", "persistentvolumeclaims"]
    found = kubectl.read(",".join(kinds), "-n", space.name)
    return {
        f"{body['kind']}/{body['metadata']['name']}": body["metadata"]["resourceVersion"] for body in found["items"]
    }
