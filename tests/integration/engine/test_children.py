"""Children are made, set back, left alone and removed; other people's objects are not touched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dspy_operator.contract import names
from tests.controlplane.processes import ControlPlane
from tests.integration.engine.harness import Bench, Process, bench, eventually, install_crd

pytestmark = pytest.mark.measured

FOREIGN_SECONDS = "3"
"""How soon a freed name is noticed here; a minute else."""


@pytest.fixture(scope="module")
def one_operator(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """For all tests of this module: it sees all namespaces."""
    install_crd(control_plane)
    with bench(control_plane, "operator-of-children", tmp_path_factory.mktemp("operator")) as made:
        yield made.start(TOY_FOREIGN_SECONDS=FOREIGN_SECONDS)


@pytest.fixture
def operator(one_operator: Process, lab: Bench) -> Process:
    lab.calm(one_operator)
    one_operator.begin()
    return one_operator


def deployment(lab: Bench, name: str) -> dict[str, Any]:
    return dict(lab.ask("GET", f"/apis/apps/v1/namespaces/{lab.namespace}/deployments/{name}"))


def poke(lab: Bench, name: str) -> None:
    """A change that asks for nothing."""
    lab.ask("PATCH", f"{lab.toys}/{name}", {"metadata": {"annotations": {"poked": "yes"}}}, kind="merge-patch+json")


def test_a_toy_becomes_true_with_one_write_for_each_object_and_one_status(lab: Bench, operator: Process) -> None:
    mark = lab.plane.audit.mark()
    lab.toy("a", text="hello", note="once", job=True, quantity="1Gi", account="3", event="hi")

    eventually(lambda: lab.status("a") == {"text": "hello"})
    lab.calm(operator)

    assert [(write.verb, write.resource, write.subresource, write.code) for write in lab.writes(mark)] == [
        ("create", "configmaps", "", 201),
        ("patch", "configmaps", "", 201),
        ("patch", "deployments", "", 201),
        ("create", "configmaps", "", 201),
        ("create", "jobs", "", 201),
        ("create", "events", "", 201),
        ("update", "toys", "status", 200),
    ]
    assert (lab.data("a-applied"), lab.data("a-made")) == ({"text": "hello"}, {"note": "once"})
    owner = lab.config_map("a-made")["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"], owner["controller"]) == ("Toy", "a", True)


def test_a_pass_over_what_is_true_writes_nothing(lab: Bench, operator: Process) -> None:
    lab.toy("a", text="hello", note="once", job=True, account="3", event="hi")
    eventually(lambda: lab.status("a"))
    lab.calm(operator)
    passes, mark = operator.metric("reconciles_total", result="quiet"), lab.plane.audit.mark()

    poke(lab, "a")
    eventually(lambda: operator.metric("reconciles_total", result="quiet") > passes)

    assert lab.writes(mark) == []


@pytest.mark.parametrize("memory", [pytest.param("1024Mi", id="1024Mi"), pytest.param("1.5G", id="1.5G")])
def test_what_the_api_server_spells_otherwise_is_not_written_again(lab: Bench, operator: Process, memory: str) -> None:
    lab.toy("a", quantity=memory)
    lab.calm(operator)
    passes, mark = operator.metric("reconciles_total"), lab.plane.audit.mark()

    poke(lab, "a")
    eventually(lambda: operator.metric("reconciles_total") > passes)
    lab.calm(operator)

    assert lab.writes(mark) == []
    assert operator.metric("children_healed_total") == 0
    assert not operator.lines("the API server stores a child otherwise")


def test_a_child_that_a_person_edited_is_set_back_and_what_others_added_stays(lab: Bench, operator: Process) -> None:
    lab.toy("a", text="hello")
    eventually(lambda: lab.data("a-applied"))

    lab.edit("a-applied", {"data": {"text": "mine", "more": "also mine"}})

    eventually(lambda: lab.data("a-applied") == {"text": "hello", "more": "also mine"})
    lab.calm(operator)
    assert operator.metric("children_healed_total", kind="ConfigMap") == 1
    assert operator.lines("set back")[0]["field"] == "data.text"


def test_a_deployment_that_a_person_scaled_is_set_back(lab: Bench, operator: Process) -> None:
    lab.toy("a", quantity="1Gi")
    eventually(lambda: operator.metric("child_writes_total", kind="Deployment"))

    lab.plane.kubectl("scale", "deployment/a", "--replicas=2", "-n", lab.namespace)

    eventually(lambda: operator.metric("children_healed_total", kind="Deployment") == 1)
    # It is counted when it is seen, and written after that.
    eventually(lambda: deployment(lab, "a")["spec"]["replicas"] == 0)
    assert operator.metric("children_healed_total", kind="Deployment") == 1


def test_an_edit_of_the_owner_reaches_the_child(lab: Bench, operator: Process) -> None:
    lab.toy("a", text="hello")
    eventually(lambda: lab.data("a-applied"))

    lab.toy("a", text="goodbye")

    eventually(lambda: lab.data("a-applied") == {"text": "goodbye"})
    eventually(lambda: lab.status("a") == {"text": "goodbye"})


def test_a_child_that_a_person_deleted_comes_back(lab: Bench, operator: Process) -> None:
    lab.toy("a", text="hello", note="once")
    eventually(lambda: lab.status("a"))

    for name in ("a-applied", "a-made"):
        lab.ask("DELETE", f"{lab.config_maps}/{name}")

    eventually(lambda: lab.data("a-applied") and lab.data("a-made"))


@pytest.mark.parametrize("child", [pytest.param("a-applied", id="applied"), pytest.param("a-made", id="created")])
def test_a_child_whose_labels_a_person_took_off_gets_them_back(lab: Bench, operator: Process, child: str) -> None:
    lab.toy("a", text="hello", note="once")
    eventually(lambda: lab.status("a"))
    lab.calm(operator)
    uid = lab.config_map(child)["metadata"]["uid"]

    lab.edit(child, {"metadata": {"labels": {names.LABEL_KIND: None, names.LABEL_NAME: None}}})

    eventually(lambda: lab.config_map(child)["metadata"]["labels"].get(names.LABEL_NAME) == "a")
    assert lab.config_map(child)["metadata"]["uid"] == uid
    lab.calm(operator)


def test_what_is_not_wanted_any_more_is_deleted(lab: Bench, operator: Process) -> None:
    lab.toy("a", text="hello")
    eventually(lambda: lab.data("a-applied"))

    lab.toy("a", text="hello", delete=True)

    eventually(lambda: lab.config_map("a-applied") is None)
    lab.calm(operator)
    assert operator.metric("child_writes_total", action="delete") == 1


@pytest.mark.parametrize(
    ("taken", "spec"),
    [
        pytest.param("a-applied", {"text": "hello"}, id="a child that is applied"),
        pytest.param("a-made", {"text": "hello", "note": "once"}, id="a child that is created"),
    ],
)
def test_an_object_of_somebody_else_is_left_alone_until_its_name_is_free(
    lab: Bench, operator: Process, taken: str, spec: dict[str, Any]
) -> None:
    lab.ask("POST", lab.config_maps, {"metadata": {"name": taken}, "data": {"text": "mine", "note": "mine"}})
    version = lab.config_map(taken)["metadata"]["resourceVersion"]

    lab.toy("a", **spec)
    eventually(lambda: lab.status("a") == {"text": "hello", "conflicts": [taken]})
    mark = lab.plane.audit.mark()
    passes = operator.metric("reconciles_total")
    eventually(lambda: operator.metric("reconciles_total") > passes + 1)

    assert lab.config_map(taken)["metadata"]["resourceVersion"] == version
    assert lab.writes(mark) == [], "looking again whether the name is free is no write"

    lab.ask("DELETE", f"{lab.config_maps}/{taken}")
    eventually(lambda: lab.status("a") == {"text": "hello"})
    assert lab.config_map(taken)["metadata"]["labels"][names.LABEL_NAME] == "a"
    assert operator.metric("unsettled_total") == 0


def test_a_new_object_of_the_same_name_waits_for_its_predecessors_children_to_go(lab: Bench, operator: Process) -> None:
    lab.toy("a", text="hello", note="old")
    eventually(lambda: lab.status("a"))

    lab.ask("DELETE", f"{lab.toys}/a")
    uid = lab.toy("a", text="again", note="new")["metadata"]["uid"]

    # The garbage collector looks for new kinds every 30 s, and ours may be that new here.
    eventually(lambda: lab.data("a-made") == {"note": "new"} and lab.data("a-applied") == {"text": "again"}, within=90)
    eventually(lambda: lab.status("a") == {"text": "again"})
    for child in ("a-made", "a-applied"):
        assert lab.config_map(child)["metadata"]["ownerReferences"][0]["uid"] == uid


def test_an_account_that_two_write_is_replaced_only_over_what_was_read(lab: Bench, operator: Process) -> None:
    lab.toy("a", account="1")
    eventually(lambda: lab.data("a-account") == {"total": "1"})

    for total in range(2, 8):
        lab.edit("a-account", {"data": {"total": f"by hand {total}"}})
        lab.toy("a", account=str(total))

    eventually(lambda: lab.data("a-account") == {"total": "7"})
    lab.calm(operator)
    assert "ownerReferences" not in lab.config_map("a-account")["metadata"]


def test_a_friend_that_changes_wakes_who_names_it_and_the_other_way_round(lab: Bench, operator: Process) -> None:
    lab.toy("fan", friend="star")
    eventually(lambda: operator.metric("reconciles_total", result="quiet"))

    lab.toy("star", text="hello")
    eventually(lambda: lab.status("fan") == {"friend": "hello"})
    eventually(lambda: lab.status("star") == {"text": "hello", "friends": 1})

    lab.toy("star", text="goodbye")
    eventually(lambda: lab.status("fan") == {"friend": "goodbye"})

    lab.ask("DELETE", f"{lab.toys}/fan")
    eventually(lambda: lab.status("star") == {"text": "goodbye"})


def test_a_change_that_nobody_looks_at_wakes_nobody(lab: Bench, operator: Process) -> None:
    lab.toy("star", text="hello")
    for number in range(10):
        lab.toy(f"fan{number}", friend="star")
    eventually(lambda: lab.status("fan9") == {"friend": "hello"} and lab.status("star").get("friends") == 10)
    lab.calm(operator)
    operator.begin()

    poke(lab, "star")
    eventually(lambda: operator.metric("reconciles_total"))
    lab.calm(operator)

    assert operator.metric("reconciles_total") == 1
