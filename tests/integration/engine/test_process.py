"""The operator as a process: it starts when it can, ends when it is told, and a restart changes nothing."""

from __future__ import annotations

import random
import signal
import time

import pytest

from tests.controlplane.processes import ControlPlane
from tests.integration.engine.harness import AGENT, Bench, eventually, install_crd, remove_crd
from tests.integration.engine.proxy import Proxy

pytestmark = pytest.mark.measured

TOYS = 30
KILLS = 6


def test_a_restart_over_handled_objects_writes_nothing(lab: Bench) -> None:
    operator = lab.start()
    for number in range(TOYS):
        lab.toy(f"t{number}", text="hello", note="once", job=True, quantity="1024Mi", account="3", event="hi")
    eventually(lambda: all(lab.status(f"t{number}") == {"text": "hello"} for number in range(TOYS)), within=60)
    lab.calm(operator)
    mark = lab.plane.audit.mark()
    operator.terminate()

    again = lab.start()
    eventually(lambda: again.metric("reconciles_total", kind="Toy") >= TOYS)
    lab.calm(again)

    assert lab.writes(mark, everywhere=True) == []


def test_an_idle_operator_writes_nothing_also_when_it_resyncs(lab: Bench) -> None:
    operator = lab.start(TOY_RESYNC_SECONDS="2")
    lab.toy("a", text="hello", note="once", job=True, account="3", event="hi")
    lab.toy("late", text="hello", again=1)
    eventually(lambda: lab.status("a") and lab.status("late"))

    def found_nothing() -> bool:
        """The first resyncs may be ahead of the watches, and find what the tests before have left in this API server."""
        operator.begin()
        eventually(lambda: operator.metric("resync_seconds_count") >= 2)
        return operator.metric("resync_found_total") == 0

    eventually(found_nothing, within=60)
    lab.calm(operator, quiet_seconds=0.1)
    operator.begin()
    mark = lab.plane.audit.mark()

    eventually(lambda: operator.metric("resync_seconds_count") >= 3)

    assert lab.writes(mark) == []
    assert operator.metric("resync_found_total") == 0


def test_kills_at_any_moment_double_nothing_and_lose_nothing(lab: Bench) -> None:
    moments = random.Random(7)
    mark = lab.plane.audit.mark()
    operator = lab.start()
    for kill in range(KILLS):
        for number in range(5):
            lab.toy(f"t{kill}-{number}", text="hello", note="once", job=True, account="3")
        time.sleep(moments.uniform(0.0, 0.15))  # the moment is the test
        operator.popen.send_signal(signal.SIGKILL)
        operator.popen.wait()
        operator = lab.start()

    names = [f"t{kill}-{number}" for kill in range(KILLS) for number in range(5)]
    eventually(lambda: all(lab.status(name) == {"text": "hello"} for name in names))
    lab.calm(operator)
    jobs = [write.code for write in lab.writes(mark, resource="jobs")]
    assert sorted(set(jobs)) in ([201], [201, 409])
    assert jobs.count(201) == len(names)
    assert all(lab.data(f"{name}-made") and lab.data(f"{name}-account") for name in names)


def test_it_ends_within_five_seconds_in_the_middle_of_its_work(lab: Bench) -> None:
    operator = lab.start()
    lab.toy("stuck", mischief="hang")
    for number in range(20):
        lab.toy(f"t{number}", text="hello")

    assert operator.terminate() < 5
    assert operator.lines("stopped")


def test_it_ends_within_five_seconds_while_a_page_is_kept_open(lab: Bench) -> None:
    import http.client

    operator = lab.start()
    connection = http.client.HTTPConnection("127.0.0.1", operator.port, timeout=10)
    connection.request("GET", "/metrics")
    connection.getresponse().read()

    assert operator.terminate() < 5
    connection.close()


def test_it_says_what_it_waits_for_and_starts_by_itself(lab: Bench) -> None:
    remove_crd(lab.plane)
    operator = lab.start(wait=False)

    said = eventually(lambda: operator.lines("cannot start yet"))
    assert "CustomResourceDefinition toys.engine-test.dspy-operator.io is not installed" in said[0]["why"]
    assert operator.page("/healthz") == (200, "ok"), "a restart would not help"
    assert operator.page("/readyz")[0] == 503

    install_crd(lab.plane)
    lab.toy("a", text="hello")
    eventually(lambda: lab.status("a") == {"text": "hello"})
    assert operator.page("/readyz")[0] == 200


def test_it_ends_when_told_while_it_waits_to_start(lab: Bench, proxy: Proxy) -> None:
    proxy.faults.fail("GET", "/", code=403, times=10_000, reason="Forbidden")
    operator = lab.start(server=proxy.url, wait=False)

    said = eventually(lambda: operator.lines("cannot start yet"))
    assert "may not list toys: does the operator's ClusterRole fit its version?" in said[0]["why"]
    assert operator.terminate() < 5


def test_it_waits_for_an_api_server_that_is_not_there_yet(lab: Bench) -> None:
    operator = lab.start(server="http://127.0.0.1:9", wait=False)

    eventually(lambda: operator.lines("cannot start yet"))
    assert operator.page("/healthz") == (200, "ok")
    assert operator.terminate() < 5


def test_it_lists_each_kind_once_and_watches_only_what_is_ours(lab: Bench) -> None:
    mark = lab.plane.audit.mark()
    operator = lab.start()
    lab.toy("a", text="hello")
    eventually(lambda: lab.status("a"))
    lab.calm(operator)

    watches = [
        request
        for request in lab.plane.audit.requests(since=mark)
        if request.verb == "watch" and request.user_agent == AGENT
    ]

    assert len(watches) == 10 == len({watch.resource for watch in watches})
    assert all(("labelSelector=dspy-operator.io/kind" in watch.uri) == (watch.resource != "toys") for watch in watches)


@pytest.fixture(autouse=True)
def kind_stays_installed(control_plane: ControlPlane) -> None:
    install_crd(control_plane)
