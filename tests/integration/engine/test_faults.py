"""What goes wrong between the operator and the API server is made good: failed writes, lost events, cut watches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.integration.engine.harness import Bench, eventually
from tests.integration.engine.proxy import Proxy

pytestmark = pytest.mark.measured


@pytest.mark.parametrize(
    ("method", "part", "code", "reason"),
    [
        pytest.param("PATCH", "a-applied", 500, "InternalError", id="an apply that the server fails at"),
        pytest.param("POST", "configmaps", 503, "ServiceUnavailable", id="a create at a busy server"),
        pytest.param("PUT", "a/status", 500, "InternalError", id="a status that the server fails at"),
        pytest.param("PUT", "a/status", 409, "Conflict", id="a status over a version that is old by now"),
        pytest.param("GET", "a-applied", 504, "Timeout", id="a read that comes too late"),
    ],
)
def test_a_request_that_fails_is_tried_again(
    lab: Bench, proxy: Proxy, method: str, part: str, code: int, reason: str
) -> None:
    operator = lab.start(server=proxy.url)
    fault = proxy.faults.fail(method, part, code=code, times=3, reason=reason)

    lab.toy("a", text="hello", note="once")

    eventually(lambda: lab.status("a") == {"text": "hello"})
    eventually(lambda: lab.data("a-applied") and lab.data("a-made"))
    assert fault.happened == 3
    lab.calm(operator)
    assert operator.page("/healthz") == (200, "ok")


def test_a_server_that_asks_for_time_gets_it_whatever_else_happens(lab: Bench, proxy: Proxy) -> None:
    operator = lab.start(server=proxy.url)
    fault = proxy.faults.fail("PATCH", "a-applied", code=429, times=1, reason="TooManyRequests", retry_after="3")
    lab.toy("a", text="hello")
    eventually(lambda: fault.happened)

    for number in range(5):
        lab.toy("a", text=f"hello {number}")
    mark = lab.plane.audit.mark()
    eventually(lambda: lab.status("a") == {"text": "hello 4"})

    assert operator.metric("requeues_total", why="held") == 1
    assert [write.resource for write in lab.writes(mark)] == ["configmaps", "toys"]


def test_cut_watches_are_resumed(lab: Bench, proxy: Proxy) -> None:
    operator = lab.start(server=proxy.url)
    for number in range(3):
        proxy.cut_watches()
        wanted = {"text": f"hello {number}"}
        lab.toy("a", **wanted)
        eventually(partial(says, lab, wanted))
    assert operator.popen.poll() is None


def test_a_watch_that_is_told_410_begins_anew(lab: Bench, proxy: Proxy) -> None:
    operator = lab.start(server=proxy.url)
    lab.toy("a", text="hello")
    eventually(lambda: lab.status("a"))

    expired = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
    proxy.faults.inject["/toys"] = {"type": "ERROR", "object": expired}
    eventually(lambda: not proxy.faults.inject)

    lab.toy("a", text="goodbye")
    eventually(lambda: lab.status("a") == {"text": "goodbye"})
    assert operator.popen.poll() is None


def test_any_other_error_in_a_watch_ends_the_process_to_be_started_anew(lab: Bench, proxy: Proxy) -> None:
    operator = lab.start(server=proxy.url)
    failure = {"kind": "Status", "code": 500, "reason": "InternalError", "message": "etcd went away"}
    proxy.faults.inject["/toys"] = {"type": "ERROR", "object": failure}

    assert operator.popen.wait(15) != 0


def says(lab: Bench, wanted: dict[str, Any]) -> bool:
    return lab.status("a") == wanted


def swallow(type_: str, part: str, lab: Bench) -> Callable[[str, dict[str, Any]], bool]:
    """Events about a test's own namespace: that of the test before may still be going away."""

    def mute(path: str, event: dict[str, Any]) -> bool:
        mine = event["object"]["metadata"].get("namespace") == lab.namespace
        return mine and event["type"] == type_ and part in path

    return mute


def test_a_deletion_that_the_watch_never_told_is_found_by_the_resync(lab: Bench, proxy: Proxy) -> None:
    operator = lab.start(server=proxy.url, TOY_RESYNC_SECONDS="3")
    lab.toy("a", text="hello", note="once")
    eventually(lambda: lab.status("a"))

    operator.begin()
    proxy.faults.mute = swallow("DELETED", "configmaps", lab)
    lab.ask("DELETE", f"{lab.config_maps}/a-applied")
    lab.ask("DELETE", f"{lab.config_maps}/a-made")

    eventually(lambda: lab.data("a-applied") and lab.data("a-made"))
    assert operator.metric("resync_found_total", what="ghost") == 2


def test_a_deletion_between_the_first_list_and_the_watch_is_found_when_the_watch_is_open(
    lab: Bench, proxy: Proxy
) -> None:
    """kopf lists before it watches, and tells of nobody who is not in its list."""
    first = lab.start()
    lab.toy("a", text="hello", note="once")
    eventually(lambda: lab.data("a-applied") and lab.data("a-made"))
    first.terminate()
    kopf_lists = proxy.faults.hold("/api/v1/configmaps", passes=1)

    operator = lab.start(server=proxy.url)
    eventually(lambda: kopf_lists.waiting)
    lab.ask("DELETE", f"{lab.config_maps}/a-applied")
    lab.ask("DELETE", f"{lab.config_maps}/a-made")
    kopf_lists.open.set()

    eventually(lambda: lab.data("a-applied") and lab.data("a-made"))
    assert operator.metric("resync_found_total", what="ghost") >= 2  # of the test before too, where it still goes away


def test_an_owner_whose_deletion_nobody_told_is_forgotten(lab: Bench, proxy: Proxy) -> None:
    operator = lab.start(server=proxy.url, TOY_RESYNC_SECONDS="3")
    lab.toy("star", text="hello")
    lab.toy("fan", friend="star")
    eventually(lambda: lab.status("fan") == {"friend": "hello"})

    operator.begin()
    proxy.faults.mute = swallow("DELETED", "toys", lab)
    lab.ask("DELETE", f"{lab.toys}/star")

    eventually(lambda: lab.status("fan") == {})
    assert operator.metric("resync_found_total", kind="Toy", what="ghost") == 1


def test_a_deaf_watch_costs_time_and_nothing_else(lab: Bench, proxy: Proxy) -> None:
    operator = lab.start(server=proxy.url, TOY_RESYNC_SECONDS="3")
    proxy.faults.mute = lambda path, event: True

    lab.toy("a", text="hello")
    eventually(lambda: lab.status("a") == {"text": "hello"})
    lab.toy("a", text="goodbye")
    eventually(lambda: lab.status("a") == {"text": "goodbye"})

    assert operator.metric("resync_found_total", kind="Toy", what="missed") >= 1


def test_an_orphaned_job_is_removed_and_what_outlives_its_owner_stays(lab: Bench) -> None:
    operator = lab.start(TOY_RESYNC_SECONDS="2")
    lab.toy("a", job=True, account="5")
    job = f"/apis/batch/v1/namespaces/{lab.namespace}/jobs/a-job"
    eventually(lambda: lab.plane.request("GET", job)[0] == 200 and lab.data("a-account"))

    lab.ask("DELETE", f"{lab.toys}/a", {"propagationPolicy": "Orphan"})

    eventually(lambda: lab.plane.request("GET", job)[0] == 404)
    assert operator.metric("resync_found_total", kind="Job", what="orphan") == 1
    lab.calm(operator)
    assert lab.data("a-account") == {"total": "5"}


def test_a_namespace_that_goes_away_is_left_in_peace(lab: Bench) -> None:
    operator = lab.start()
    lab.toy("a", text="hello", note="once", job=True)
    eventually(lambda: lab.status("a"))

    lab.ask("DELETE", f"/api/v1/namespaces/{lab.namespace}")

    eventually(lambda: lab.plane.request("GET", f"/api/v1/namespaces/{lab.namespace}")[0] == 404, within=60)
    lab.calm(operator)
    assert operator.page("/healthz") == (200, "ok")
    assert operator.metric("reconciles_total", result="error") == 0
