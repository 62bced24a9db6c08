"""The best-so-far: of programs scored on all rows, or, until one was, what a part of the rows promises."""

from __future__ import annotations

from dspy_operator.runner.watch import Best, Candidate

ROWS = ("a", "b", "c", "d")


def by_row(*scores: float) -> dict[str, float]:
    return dict(zip(ROWS, scores, strict=False))


def offered(best: Best, hashed: str, *scores: float) -> None:
    best.offer(Candidate(hashed, 100 * sum(scores) / len(scores), {}), by_row(*scores))


def hash_of(best: Best) -> str:
    assert best.candidate is not None
    return best.candidate.hash


def test_a_tie_stays_with_the_first() -> None:
    best = Best()
    offered(best, "baseline", 1, 0, 0, 0)
    offered(best, "other", 0, 1, 0, 0)
    assert best.candidate is best.whole and hash_of(best) == "baseline"
    offered(best, "better", 0, 1, 1, 0)
    assert hash_of(best) == "better"
    assert best.scores == {"baseline": 25, "other": 25, "better": 50}


def test_the_three_that_lead_are_kept_best_first_and_ties_by_their_order() -> None:
    best = Best()
    for hashed, scores in {
        "a": (1, 0, 0, 0),
        "b": (1, 1, 0, 0),
        "c": (0, 0, 0, 0),
        "d": (0, 1, 1, 0),
        "e": (1, 1, 1, 0),
    }.items():
        offered(best, hashed, *scores)
    offered(best, "b", 1, 1, 1, 1)  # again: what it was scored first counts
    assert [each.hash for each in best.leading] == ["e", "b", "d"]


def test_a_part_is_compared_with_the_baseline_on_the_same_rows() -> None:
    best = Best()
    offered(best, "baseline", 1, 1, 0, 0)
    best.offer_on_part("easy rows", {}, by_row(1, 1))
    assert hash_of(best) == "baseline"
    best.offer_on_part("hard rows", {"of": "it"}, {"c": 1.0, "d": 0.0})
    assert best.candidate == Candidate("hard rows", 100, {"of": "it"})
    best.offer_on_part("no better", {}, {"c": 0.0, "d": 1.0})
    assert hash_of(best) == "hard rows"
    assert best.whole is not None and best.whole.hash == "baseline"


def test_what_is_known_of_all_rows_ends_what_a_part_promised() -> None:
    best = Best()
    offered(best, "baseline", 1, 0, 0, 0)
    best.offer_on_part("promising", {}, {"b": 1.0, "c": 1.0})
    offered(best, "baseline", 1, 0, 0, 0)  # the optimizer scores the first program again
    assert hash_of(best) == "promising"
    offered(best, "promising", 0, 1, 0, 0)
    assert hash_of(best) == "baseline"
    best.offer_on_part("late", {}, {"b": 1.0, "c": 1.0, "d": 1.0})
    assert hash_of(best) == "baseline"


def test_rows_that_the_baseline_was_not_scored_on_promise_nothing() -> None:
    best = Best()
    best.offer_on_part("before the baseline", {}, {"a": 1.0})
    offered(best, "baseline", 0, 0, 0, 0)
    best.offer_on_part("of train rows", {}, {"x": 1.0})
    assert hash_of(best) == "baseline"


def test_the_beaten_are_different_programs_since_the_best() -> None:
    best = Best()
    offered(best, "baseline", 1, 0, 0, 0)
    for hashed in ("baseline", "worse", "worse", "equal"):
        offered(best, hashed, 1 if hashed != "worse" else 0, 0, 0, 0)
    assert best.beaten == {"worse", "equal"}
    offered(best, "better", 1, 1, 0, 0)
    assert best.beaten == set()
    best.offer_on_part("a part", {}, by_row(0))
    offered(best, "worse", 0, 0, 0, 0)  # once more: it was known before
    assert best.beaten == set()


def test_a_part_is_compared_with_the_better_of_baseline_and_start() -> None:
    best = Best(begun_with=2)
    offered(best, "baseline", 1, 0, 0, 0)
    offered(best, "start", 0, 1, 1, 0)
    best.offer_on_part("better than the baseline", {}, {"b": 1.0, "c": 0.0})
    assert hash_of(best) == "start"
    best.offer_on_part("better than both", {}, {"d": 1.0})
    assert hash_of(best) == "better than both"
    offered(best, "third", 0, 0, 0, 0)
    assert hash_of(best) == "start"
