"""The gate: exact tests against brute force, looks that wear a test set, what is said, and how often chance passes."""

import itertools
import math
import random
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_operator.contract.gate import (
    Method,
    Verdict,
    alpha_at,
    is_underpowered,
    judge,
    mcnemar,
    rows_to_win,
    sign_flip,
    smallest_effect,
)
from dspy_operator.contract.runspec import Gate
from tests.perf.gate_simulation import NULLS, Null, run_effect, run_graded_null, run_null

pytestmark = pytest.mark.unmeasured


def a_gate(**options: Any) -> Gate:
    return Gate(**{"mode": "Auto", "alpha": "0.05", "min_improvement": "0"} | options)


def judged(
    *, rows: int = 100, won: int = 0, lost: int = 0, looks_before: int = 0, gate: Gate | None = None, **options: Any
) -> Verdict:
    same = [1, 0] * (rows - won - lost)
    same = same[: rows - won - lost]
    return judge(
        [1] * won + [0] * lost + same, [0] * won + [1] * lost + same, gate or a_gate(), looks_before, **options
    )


def brute_force(differences: list[Fraction]) -> Fraction:
    """p by writing out every assignment of signs, in exact arithmetic."""
    sizes = [abs(difference) for difference in differences if difference]
    reached = sum(differences)
    signs = list(itertools.product((1, -1), repeat=len(sizes)))
    hits = sum(sum(s * size for s, size in zip(flips, sizes, strict=True)) >= reached for flips in signs)
    return Fraction(hits, len(signs))


@pytest.mark.parametrize(("won", "lost"), [(won, lost) for won in range(7) for lost in range(7 - won)])
def test_mcnemar_counts_the_same_outcomes_as_brute_force(won: int, lost: int) -> None:
    assert mcnemar(won=won, lost=lost) == float(brute_force([Fraction(1)] * won + [Fraction(-1)] * lost))


@pytest.mark.parametrize(
    ("won", "lost", "want"),
    [
        pytest.param(0, 0, 1.0, id="no row differs"),
        pytest.param(6, 0, 1 / 64, id="6 won, none lost"),
        pytest.param(9, 1, 11 / 1024, id="9 won, 1 lost"),
        pytest.param(1, 9, 1023 / 1024, id="1 won, 9 lost: a loss is no gain"),
    ],
)
def test_mcnemar_of_known_tables(won: int, lost: int, want: float) -> None:
    assert mcnemar(won=won, lost=lost) == want


@given(won=st.integers(0, 300), lost=st.integers(0, 300))
def test_mcnemar_is_the_binomial_tail(won: int, lost: int) -> None:
    n = won + lost
    tail = Fraction(sum(math.comb(n, k) for k in range(won, n + 1)), 2**n)
    assert mcnemar(won=won, lost=lost) == float(tail)


def test_mcnemar_of_many_thousand_rows_stays_exact() -> None:
    assert mcnemar(won=10_000, lost=10_000) == pytest.approx(0.5 + math.comb(20_000, 10_000) / 2**20_001)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-12, 12).map(lambda twelfths: Fraction(twelfths, 12)), min_size=1, max_size=9))
def test_sign_flip_counts_the_same_assignments_as_brute_force(differences: list[Fraction]) -> None:
    p, method = sign_flip([float(difference) for difference in differences])
    assert (p, method) == (float(brute_force(differences)), Method.SIGN_FLIP)


def test_scores_that_floats_cannot_hold_still_tie() -> None:
    assert sign_flip([1 / 3, 1 / 3, -2 / 3])[0] == float(brute_force([Fraction(1, 3), Fraction(1, 3), Fraction(-2, 3)]))
    assert sign_flip([0.1, 0.2, -0.3])[0] == float(brute_force([Fraction(1, 10), Fraction(2, 10), Fraction(-3, 10)]))


def test_sign_flip_of_whole_rows_is_mcnemar() -> None:
    assert sign_flip([1.0] * 30 + [-1.0] * 14) == (mcnemar(won=30, lost=14), Method.SIGN_FLIP)


def test_sign_flip_is_exact_for_18_rows_and_for_200_rows_of_means_over_5() -> None:
    various = [random.Random(seed).uniform(-1, 1) for seed in range(40)]
    assert sign_flip(various[:18])[1] is Method.SIGN_FLIP
    assert sign_flip(various)[1] is Method.SIGN_FLIP_SAMPLED
    fifths = [random.Random(seed).randint(-5, 5) / 5 for seed in range(200)]
    assert sign_flip(fifths)[1] is Method.SIGN_FLIP


def test_sampling_agrees_with_the_exact_p_within_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = [random.Random(seed).uniform(-0.6, 1) for seed in range(16)]
    exact, _ = sign_flip(differences)
    monkeypatch.setattr("dspy_operator.contract.gate.EXACT_STEPS", 0)
    sampled, method = sign_flip(differences)
    assert method is Method.SIGN_FLIP_SAMPLED
    assert abs(sampled - exact) < 4 * math.sqrt(exact * (1 - exact) / 20_000)


def test_the_same_rows_in_any_order_give_the_same_p() -> None:
    differences = [random.Random(seed).uniform(-0.6, 1) for seed in range(60)]
    p, method = sign_flip(differences)
    assert method is Method.SIGN_FLIP_SAMPLED
    assert sign_flip(differences[::-1]) == (p, method) == sign_flip(differences)


def test_sampling_never_says_that_chance_is_impossible() -> None:
    assert sign_flip([0.5 + seed / 1000 for seed in range(60)])[0] == 1 / 20_001


def test_a_late_look_draws_flips_enough_to_be_passed() -> None:
    ours = [0.9 - seed / 1000 for seed in range(200)]
    verdict = judge(ours, [0.1] * 200, a_gate(), looks_before=29)
    assert verdict.method is Method.SIGN_FLIP_SAMPLED
    assert verdict.promote


def test_all_looks_together_spend_alpha() -> None:
    assert alpha_at(0.05, 1) == pytest.approx(0.030396, abs=1e-6)
    assert alpha_at(0.05, 2) == pytest.approx(alpha_at(0.05, 1) / 4)
    spent = sum(alpha_at(0.05, look) for look in range(1, 100_000))
    assert 0.04999 < spent <= 0.05


@pytest.mark.parametrize(
    ("rows", "look", "want"),
    [
        pytest.param(59, 1, True, id="59 rows at look 1"),
        pytest.param(60, 1, False, id="60 rows at look 1"),
        pytest.param(79, 2, True, id="79 rows at look 2"),
        pytest.param(80, 2, False, id="80 rows at look 2"),
        pytest.param(139, 20, True, id="139 rows at look 20"),
        pytest.param(140, 20, False, id="140 rows at look 20"),
    ],
)
def test_rows_are_too_few_when_10_points_could_not_pass(rows: int, look: int, want: bool) -> None:
    alpha_k = alpha_at(0.05, look)
    assert is_underpowered(rows, alpha_k) is want
    ten_points = judged(rows=rows, won=rows // 10, looks_before=look - 1)
    assert ten_points.promote is not want
    assert ten_points.underpowered is want


@pytest.mark.parametrize("rows", [6, 20, 59, 60, 100, 200])
def test_the_smallest_effect_is_what_just_passes(rows: int) -> None:
    alpha_k = alpha_at(0.05, 1)
    wins = rows_to_win(alpha_k)
    assert smallest_effect(rows, alpha_k) == 100 * wins / rows == judged(rows=rows).smallest_effect
    assert judged(rows=rows, won=wins).passed
    assert not judged(rows=rows, won=wins - 1).passed


def test_five_rows_can_show_nothing() -> None:
    verdict = judged(rows=5, won=5)
    assert (verdict.smallest_effect, verdict.underpowered, verdict.passed) == (None, True, False)
    assert verdict.why.endswith("10 points won with no row lost could not pass at this look, not even all could")


@pytest.mark.parametrize(
    ("verdict", "want_passed", "want_promote", "want_why"),
    [
        pytest.param(
            judged(rows=160, won=20, lost=4),
            True,
            True,
            "+10 points on 160 rows (20 won, 4 lost), p = 0.000772 where look 1 asks for at most 0.0304: promoted",
            id="a clear gain is promoted",
        ),
        pytest.param(
            judged(won=12, lost=6),
            False,
            False,
            "+6 points on 100 rows (12 won, 6 lost), p = 0.119 where look 1 asks for at most 0.0304: "
            "not promoted, since that may be chance",
            id="a gain that may be chance is not",
        ),
        pytest.param(
            judged(won=9, lost=1, looks_before=1),
            False,
            False,
            "+8 points on 100 rows (9 won, 1 lost), p = 0.0107 where look 2 asks for at most 0.0076: "
            "not promoted, since that may be chance",
            id="a second look asks for more",
        ),
        pytest.param(
            judged(won=8, lost=1, gate=a_gate(min_improvement="7.5")),
            False,
            False,
            "+7 points on 100 rows (8 won, 1 lost), p = 0.0195 where look 1 asks for at most 0.0304: "
            "not promoted, since minImprovement asks for 7.5 points",
            id="a gain below minImprovement is not promoted",
        ),
        pytest.param(
            judged(won=8, lost=1, gate=a_gate(mode="Manual")),
            True,
            False,
            "+7 points on 100 rows (8 won, 1 lost), p = 0.0195 where look 1 asks for at most 0.0304: "
            "passed, and waits for a person, since promotion is Manual",
            id="Manual waits for a person",
        ),
        pytest.param(
            judged(rows=40, won=8),
            True,
            False,
            "+20 points on 40 rows (8 won, 0 lost), p = 0.00391 where look 1 asks for at most 0.0304: "
            "passed, and waits for a person, since 10 points won with no row lost could not pass at this look, "
            "the smallest gain in whole rows that could is 15 points",
            id="too few rows wait for a person",
        ),
        pytest.param(
            judged(won=20, failed_examples=7, total=300),
            False,
            False,
            "+20 points on 100 rows (20 won, 0 lost), p = 9.54e-07 where look 1 asks for at most 0.0304: "
            "not promoted, since 7 of 300 examples failed (at most 2 % may)",
            id="too many failed examples block it",
        ),
        pytest.param(
            judged(won=3, lost=9),
            False,
            False,
            "-6 points on 100 rows (3 won, 9 lost), p = 0.981 where look 1 asks for at most 0.0304: "
            "not promoted, since that may be chance",
            id="a loss is not promoted",
        ),
    ],
)
def test_the_verdict_says_why_in_one_sentence(
    verdict: Verdict, want_passed: bool, want_promote: bool, want_why: str
) -> None:
    assert (verdict.passed, verdict.promote, verdict.why) == (want_passed, want_promote, want_why)


def test_exactly_two_percent_failed_is_still_allowed() -> None:
    assert judged(won=20, failed_examples=2).promote
    assert not judged(won=20, failed_examples=3).promote


def test_means_of_repeats_are_tested_by_rows_and_their_answers_may_fail() -> None:
    ours, theirs = [1.0] * 8 + [2 / 3] * 52, [2 / 3] * 8 + [2 / 3] * 52
    verdict = judge(ours, theirs, a_gate(), 0, failed_examples=3, total=180, repeats=3)
    assert verdict.method is Method.SIGN_FLIP and verdict.p == 1 / 2**8
    assert verdict.why.startswith("+4.44 points on 60 rows asked 3 times (8 won, 0 lost), p = 0.00391 ")
    assert verdict.passed, "3 of 180 answers are not too many, of 60 rows they would be"
    assert not judge(ours, theirs, a_gate(), 0, failed_examples=4, total=180, repeats=3).passed


def test_exactly_min_improvement_is_enough() -> None:
    assert judged(rows=150, won=15, gate=a_gate(min_improvement="10.0")).promote
    graded = judge([0.1] * 100, [0.0] * 100, a_gate(min_improvement="10"), 0)
    assert (graded.delta, graded.promote) == (10.0, True)


def test_equal_scores_promote_nothing() -> None:
    for scores in ([1, 0] * 50, [0.25, 0.75] * 50):
        verdict = judge(scores, scores, a_gate(), 0)
        assert (verdict.p, verdict.delta, verdict.promote) == (1.0, 0.0, False)


def test_graded_scores_use_the_sign_flip_test() -> None:
    assert judge([0.5, 1.0] * 50, [0.0, 1.0] * 50, a_gate(), 0).method is Method.SIGN_FLIP
    assert judge([0.0, 1.0] * 50, [False, True] * 50, a_gate(), 0).method is Method.MCNEMAR


@pytest.mark.parametrize(
    ("ours", "theirs", "looks_before", "says"),
    [
        pytest.param([], [], 0, "do not pair up", id="no rows"),
        pytest.param([1.0], [1.0, 0.0], 0, "1 of the candidate, 2 of the incumbent", id="other rows"),
        pytest.param([math.nan], [1.0], 0, "not nan", id="NaN"),
        pytest.param([70.0], [65.0], 0, "a score is 0 to 1, not 70", id="points instead of scores"),
        pytest.param([1.0], [0.0], -1, "looks_before is -1", id="a look before the first"),
    ],
)
def test_scores_that_make_no_sense_are_refused(
    ours: list[float], theirs: list[float], looks_before: int, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        judge(ours, theirs, a_gate(), looks_before)


@pytest.mark.parametrize("null", [null for null in NULLS if null.looks == 1 or null.accuracy == 0.6], ids=str)
def test_twenty_thousand_null_effects_pass_at_most_in_5_percent(null: Null) -> None:
    rates = run_null(null, series=20_000, seed=1)
    assert rates.promoted <= rates.passed
    assert rates.upper_bound <= 0.05


def test_graded_null_effects_pass_at_most_in_5_percent() -> None:
    assert run_graded_null(rows=60, fields=2, series=1_000, seed=1).upper_bound <= 0.05


@pytest.mark.parametrize(
    ("points", "least"),
    [pytest.param(15, 0.85, id="15 points: mostly promoted"), pytest.param(20, 0.97, id="20 points: nearly always")],
)
def test_a_true_gain_on_160_rows_is_promoted(points: float, least: float) -> None:
    rates = run_effect(rows=160, points=points, discordant=0.35, series=20_000, seed=1)
    assert rates.promoted / rates.series >= least
