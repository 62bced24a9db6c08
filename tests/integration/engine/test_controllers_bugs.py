"""A bug in a controller, or at one object, stays there: it is counted, told, slowed down, and the others go on."""

from __future__ import annotations

import pytest

from tests.integration.engine.harness import Bench, Process, eventually

pytestmark = pytest.mark.measured


@pytest.fixture
def operator(lab: Bench) -> Process:
    return lab.start(TOY_PASS_SECONDS="2")


def test_a_controller_that_raises_is_told_and_tried_again_and_the_others_go_on(lab: Bench, operator: Process) -> None:
    lab.toy("bad", mischief="raise")
    eventually(lambda: operator.metric("reconciles_total", result="error") >= 3)

    lab.toy("good", text="hello")
    eventually(lambda: lab.status("good") == {"text": "hello"})

    said = operator.lines("a pass failed by a bug")[0]
    assert (said["kind"], said["namespace"], said["name"]) == ("Toy", lab.namespace, "bad")
    assert "RuntimeError: mischief" in said["exception"]
    assert operator.page("/healthz") == (200, "ok")

    lab.toy("bad", text="better")
    eventually(lambda: lab.status("bad") == {"text": "better"})


def test_more_stuck_objects_than_workers_do_not_stop_the_others(lab: Bench, operator: Process) -> None:
    for number in range(6):
        lab.toy(f"stuck{number}", mischief="hang")
    # Each of the four workers has been cut loose once; a "good" made before could be the first of a list, by its name.
    eventually(lambda: operator.metric("reconciles_total", result="error") >= 4)

    lab.toy("good", text="hello")

    eventually(lambda: lab.status("good") == {"text": "hello"})


def test_a_controller_at_war_with_itself_is_slowed_down(lab: Bench, operator: Process) -> None:
    mark = lab.plane.audit.mark()
    lab.toy("war", mischief="war", text="hello")

    eventually(lambda: operator.metric("unsettled_total") >= 1)
    writes, held = len(lab.writes(mark)), operator.metric("requeues_total", why="held")

    assert operator.lines("every pass writes something; held back")[0]["object"].endswith("/war")
    assert 20 <= writes <= 20 + held, "and then one after each pause"
    lab.toy("good", text="hello")
    eventually(lambda: lab.status("good") == {"text": "hello"})


def test_an_object_that_others_keep_busy_is_slowed_to_a_write_a_second_and_is_right_in_the_end(
    lab: Bench, operator: Process
) -> None:
    for number in range(60):
        lab.toy("busy", text=f"hello {number}")

    eventually(lambda: lab.status("busy") == {"text": "hello 59"})
    assert operator.metric("unsettled_total") == 0


def test_a_status_that_nobody_could_read_is_refused(lab: Bench, operator: Process) -> None:
    lab.toy("long", mischief="verbose", text="short")

    said = eventually(lambda: operator.lines("a pass failed by a bug"))

    assert "16384 allowed" in said[0]["exception"]
    assert lab.status("long") == {}


def test_a_status_field_that_the_crd_does_not_know_is_written_once_and_told(lab: Bench, operator: Process) -> None:
    lab.toy("new", mischief="unknown", text="hello")
    eventually(lambda: lab.status("new") == {"text": "hello"})
    lab.calm(operator)

    assert operator.metric("status_writes_total") == 1
    assert operator.lines("did not keep the whole status")[0]["field"] == "surprise"


def test_logs_are_json_and_name_the_object(lab: Bench, operator: Process) -> None:
    lab.toy("bad", mischief="raise")
    eventually(lambda: operator.lines("a pass failed by a bug"))
    lab.toy("bad")
    operator.terminate()

    lines = operator.log.read_text().splitlines()
    assert len(operator.lines()) == len(lines)
    assert all({"time", "level", "logger", "message"} <= entry.keys() for entry in operator.lines())
