"""The cache believes the newest fact, whoever brings it and in whatever order."""

from __future__ import annotations

import itertools

import pytest

from dspy_operator.engine.cache import FOR_EVER, TOMBSTONE_SECONDS, Cache, owner
from dspy_operator.engine.plan import Body, Key
from dspy_operator.engine.references import References
from tests.unit.engine.clocks import TurnedClock, an_object

RUN = Key("Run", "team-a", "mine")
OTHER = Key("Run", "team-a", "other")


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture
def cache(clock: TurnedClock) -> Cache:
    return Cache(clock)


def named(bodies: object) -> list[str]:
    assert hasattr(bodies, "__iter__")
    return [body["metadata"]["name"] for body in bodies]


def test_the_newest_version_wins_in_any_order() -> None:
    for order in itertools.permutations([9, 10, 11]):
        cache = Cache(TurnedClock())
        for version in order:
            cache.put(an_object("a", version, data={"v": str(version)}))
        found = cache.get("ConfigMap", "team-a", "a")
        assert found is not None and found["data"] == {"v": "11"}, order


def test_a_fact_that_is_known_is_no_news(cache: Cache) -> None:
    assert cache.put(an_object("a", 10)) is not None
    assert cache.put(an_object("a", 10)) is None
    assert cache.put(an_object("a", 9)) is None


def test_what_was_deleted_stays_deleted_when_an_older_event_comes_late(cache: Cache) -> None:
    cache.put(an_object("a", 10))
    assert cache.remove(an_object("a", 12)) is not None
    assert cache.put(an_object("a", 11)) is None
    assert cache.get("ConfigMap", "team-a", "a") is None


def test_a_deletion_that_comes_first_is_remembered(cache: Cache) -> None:
    assert cache.remove(an_object("a", 12)) is None
    assert cache.put(an_object("a", 11)) is None


def test_a_new_object_of_the_same_name_is_not_its_predecessor(cache: Cache) -> None:
    cache.put(an_object("a", 10, uid="old"))
    cache.put(an_object("a", 20, uid="new"))
    assert cache.remove(an_object("a", 19, uid="old")) is None, "the late end of the old one"
    found = cache.get("ConfigMap", "team-a", "a")
    assert found is not None and found["metadata"]["uid"] == "new"


def test_an_object_that_lost_our_label_may_come_back(cache: Cache) -> None:
    """The watch tells of a label taken off as of a deletion."""
    cache.put(an_object("a", 10))
    cache.remove(an_object("a", 11))
    assert cache.put(an_object("a", 12)) is not None


def test_an_object_whose_deletion_was_answered_may_not(cache: Cache) -> None:
    cache.put(an_object("a", 10))
    assert cache.remove(an_object("a", 0), at=FOR_EVER) is not None
    assert cache.put(an_object("a", 12)) is None, "the event of a change before the deletion"


def test_tombstones_do_not_pile_up(cache: Cache, clock: TurnedClock) -> None:
    cache.put(an_object("a", 10))
    cache.remove(an_object("a", 12))
    clock.turn(TOMBSTONE_SECONDS + 1)
    cache.forget_the_dead()
    assert cache.put(an_object("a", 11)) is not None


def test_children_are_found_by_their_owner_and_ordered(cache: Cache) -> None:
    cache.put(an_object("b", 1, of=RUN))
    cache.put(an_object("a", 2, of=RUN))
    cache.put(an_object("z", 3, kind="Job", of=RUN))
    cache.put(an_object("c", 4, of=OTHER))
    cache.put(an_object("d", 5))
    assert named(cache.children(RUN)) == ["a", "b", "z"]


def test_children_follow_their_label_and_leave_with_their_deletion(cache: Cache) -> None:
    cache.put(an_object("a", 1, of=RUN))
    cache.put(an_object("a", 2, of=OTHER))
    assert (named(cache.children(RUN)), named(cache.children(OTHER))) == ([], ["a"])
    cache.remove(an_object("a", 3, of=OTHER))
    assert named(cache.children(OTHER)) == []


def test_a_namesake_in_another_namespace_is_another_owner() -> None:
    assert owner(an_object("a", 1, namespace="team-b", of=RUN)) == Key("Run", "team-b", "mine")
    assert owner(an_object("a", 1)) is None


def test_all_of_a_kind_come_ordered_also_after_changes(cache: Cache) -> None:
    for namespace, name in [("b", "x"), ("a", "y"), ("a", "x")]:
        cache.put(an_object(name, 1, namespace=namespace, uid=namespace + name))
    assert [(b["metadata"]["namespace"], b["metadata"]["name"]) for b in cache.all("ConfigMap")] == [
        ("a", "x"),
        ("a", "y"),
        ("b", "x"),
    ]
    cache.remove(an_object("x", 2, namespace="a", uid="ax"))
    cache.put(an_object("w", 3, namespace="a"))
    assert named(cache.all("ConfigMap", "a")) == ["w", "y"]
    assert cache.count("ConfigMap") == 3
    assert named(cache.all("Job")) == []


def test_who_goes_through_all_may_change_the_cache_meanwhile(cache: Cache) -> None:
    for name in "abc":
        cache.put(an_object(name, 1))
    for body in cache.all("ConfigMap"):
        cache.remove(an_object(body["metadata"]["name"], 2))
    assert cache.count("ConfigMap") == 0


def test_managed_fields_are_not_kept_and_the_teller_keeps_his(cache: Cache) -> None:
    told: Body = an_object("a", 1)
    told["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    cache.put(told)
    found = cache.get("ConfigMap", "team-a", "a")
    assert found is not None and "managedFields" not in found["metadata"]
    assert "managedFields" in told["metadata"]


def test_references_are_known_both_ways_also_of_what_does_not_exist() -> None:
    program, endpoint = Key("Program", "team-a", "p"), Key("Endpoint", "models", "big")
    references = References()
    references.set(RUN, [program, endpoint])
    references.set(OTHER, [program])

    assert references.referrers(program) == [RUN, OTHER]
    assert references.named_by(RUN) == {program, endpoint}

    references.set(RUN, [endpoint])
    assert references.referrers(program) == [OTHER]
    references.set(OTHER, [])
    references.set(RUN, [])
    assert references.referrers(program) == references.referrers(endpoint) == []
