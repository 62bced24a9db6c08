"""Whatever is killed in the middle of a run, it ends as if nothing had happened, and no answer is paid for twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from e2e.cluster import kubectl
from e2e.demo import release
from e2e.demo.apiserver import Body
from e2e.tests.conftest import Uninterrupted, a_case, digest_of
from e2e.tests.counting import Counting
from e2e.tests.killing import sigkill
from e2e.tests.space import Space

_CONCURRENCY = a_case().concurrency


def _delete_at_once(pod: Body) -> None:
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    kubectl.kubectl("delete", "pod", name, "-n", namespace, "--grace-period=0", "--force", "--wait=false")


@pytest.mark.parametrize("kill", [sigkill, _delete_at_once], ids=["SIGKILL", "deleted"])
def test_a_killed_runner_goes_on_where_it_was(
    space: Space, counting: Counting, uninterrupted: Uninterrupted, kill: Callable[[Body], None]
) -> None:
    space.apply(*a_case().objects())
    for requests in (uninterrupted.requests // 4, uninterrupted.requests // 2):
        counting.reaches(requests)
        before = space.status("OptimizationRun", "run")["try"]
        (pod,) = space.pods_of_run()
        kill(pod)
        space.until(
            "the next try runs",
            lambda before=before: space.status("OptimizationRun", "run").get("try", 0) > before,  # type: ignore[misc]
            seconds=90,
        )

    status = space.ended()

    assert digest_of(status) == uninterrupted.digest
    assert (status["attempt"], status["try"]) == (1, 3)
    # An answer that had not come when the pod was killed is asked for again.
    assert uninterrupted.requests <= counting.requests <= uninterrupted.requests + 2 * _CONCURRENCY
    assert space.account()["run"]["used"]["calls"] >= counting.counts()["answered"]


def test_a_killed_operator_disturbs_no_run(space: Space, counting: Counting, uninterrupted: Uninterrupted) -> None:
    space.apply(*a_case().objects())
    for part in (1, 2, 3):
        counting.reaches(uninterrupted.requests * part // 4)
        selector = ("-l", f"app.kubernetes.io/name={release.NAME}", "-n", release.NAMESPACE)
        kubectl.kubectl("delete", "pod", *selector, "--grace-period=0", "--force", "--wait=false")

    status = space.ended()

    assert digest_of(status) == uninterrupted.digest
    assert (status["attempt"], status["try"]) == (1, 1)
    assert len(space.jobs_of_run()) == len(space.pods_of_run()) == 1
    assert counting.requests == uninterrupted.requests
