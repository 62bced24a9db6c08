"""What is kept back so that a result can be judged."""

from __future__ import annotations

from decimal import Decimal

import pytest

from dspy_operator.contract.reserve import judgement_amount, judgement_calls, whole


@pytest.mark.parametrize(
    ("rows", "more", "want"),
    [
        pytest.param(12, {"arms": 1}, 12, id="Evaluate judges one program"),
        pytest.param(12, {"arms": 2}, 24, id="baseline and candidate"),
        pytest.param(12, {"arms": 3}, 36, id="an incumbent that is neither"),
        pytest.param(12, {"arms": 2, "calls_per_row": 3}, 72, id="three predictors answer a row"),
        pytest.param(12, {"arms": 2, "repeats": 2}, 48, id="each row twice, where the model samples"),
        pytest.param(0, {"arms": 2}, 0, id="no row"),
    ],
)
def test_calls_of_a_judgement(rows: int, more: dict[str, int], want: int) -> None:
    assert judgement_calls(rows, **more) == want


def test_tokens_and_money_have_a_quarter_more_than_the_mean_on_dev() -> None:
    assert judgement_amount(24, Decimal("100")) == 3000
    assert judgement_amount(24, Decimal("0.0001")) == Decimal("0.003")


def test_a_reserve_is_never_short_by_a_fraction() -> None:
    assert [whole(Decimal(text)) for text in ("0", "1", "1.000001", "1.9")] == [0, 1, 2, 2]
