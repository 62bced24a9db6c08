"""What answers took, and which programs are worth their tokens."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dspy_operator.runner.took import MOST_PROGRAMS, Point, Took, distribution, front, programs_document


def a_point(program: str, score: float, tokens: int, answers: int = 1) -> Point:
    return Point(program, score, Took(answers, tokens, 0, 500), answers)


def test_percentiles_are_values_that_some_answer_had() -> None:
    told = distribution([Took(1, 100 * number, number, 100 * number) for number in range(1, 11)])
    assert told["answers"] == 10
    assert told["inputTokens"] == {"mean": 550, "p50": 500, "p90": 900, "p99": 1000, "max": 1000}
    assert told["seconds"] == {"mean": 0.55, "p50": 0.5, "p90": 0.9, "p99": 1.0, "max": 1.0}
    assert distribution([Took(2, 7, 3, 250)])["calls"] == {"mean": 2, "p50": 2, "p90": 2, "p99": 2, "max": 2}


def test_what_one_answer_took_is_the_difference_of_two_totals() -> None:
    one, two = Took(1, 10, 2, 500), Took(3, 30, 6, 1500)
    assert (one + two) - one == two
    assert two.tokens == 36


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), max_size=12))
def test_the_front_is_what_no_other_program_beats(pairs: list[tuple[int, int]]) -> None:
    points = [a_point(str(number), score, tokens) for number, (score, tokens) in enumerate(pairs)]

    def beats(one: Point, other: Point) -> bool:
        no_worse = one.score >= other.score and one.tokens <= other.tokens
        return no_worse and (one.score, one.tokens) != (other.score, other.tokens)

    assert front(points) == {point.program for point in points if not any(beats(other, point) for other in points)}


def test_a_report_of_many_programs_has_the_front_and_what_was_judged() -> None:
    points = [a_point(f"p{number}", score=10 + number % 7, tokens=50 + number) for number in range(MOST_PROGRAMS * 2)]
    points[300] = a_point("judged", score=0, tokens=900, answers=2)
    told = programs_document(points, {"baseline": "p0", "candidate": "judged"})
    assert told["scored"] == 2 * MOST_PROGRAMS
    shown = {each["program"]: each for each in told["shown"]}
    assert len(shown) == MOST_PROGRAMS
    assert {name for name, each in shown.items() if each["front"]} == {f"p{number}" for number in range(7)}
    assert shown["judged"] == {
        "program": "judged", "score": 0, "tokens": 450, "seconds": 0.25, "front": False, "arms": ["candidate"]
    }  # fmt: skip
    assert shown["p0"]["arms"] == ["baseline"]
    assert [each["program"] for each in told["shown"]] == [each.program for each in points if each.program in shown]
