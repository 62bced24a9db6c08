"""What is kept back so that a result can be judged."""

from __future__ import annotations

from decimal import Decimal

import pytest

from dspy_operator.api.modelendpoint import Pricing
from dspy_operator.api.optimizationrun import Budget
from dspy_operator.contract.reserve import judgement_amount, judgement_calls, too_small, whole


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


MINI = Pricing.model_validate({"currency": "USD", "input": "0.15", "output": "0.60"})
CACHED = Pricing.model_validate({"currency": "USD", "input": "30", "cachedInput": "3", "output": "60"})
FREE = Pricing.model_validate({"currency": "USD", "input": "0", "output": "0"})


@pytest.mark.parametrize(
    ("budget", "least", "prices", "want"),
    [
        pytest.param({"calls": 24}, 24, [MINI], ("spec.budget.calls", "25 calls are needed (judgement 24, preflight 1), given 24"), id="a call less than is needed"),
        pytest.param({"calls": 25}, 24, [MINI], None, id="the calls that are needed"),
        pytest.param({"tokens": 47}, 24, [MINI], ("spec.budget.tokens", "at least 48 tokens are needed (24 calls of the judgement, each of a token sent and one answered at least), given 47"), id="less than two tokens a call"),
        pytest.param({"tokens": 48}, 24, [MINI], None, id="two tokens a call"),
        pytest.param({"calls": 25, "tokens": 1}, 0, [MINI], None, id="answers that may take no call"),
        pytest.param({"cost": "0.000017"}, 24, [MINI], ("spec.budget.cost", "at least 0.000018 is needed (24 calls of the judgement, each of a token sent and one answered at least), given 0.000017"), id="less than two tokens cost"),
        pytest.param({"cost": "0.000018"}, 24, [MINI], None, id="what two tokens cost"),
        pytest.param({"cost": "0.000018"}, 24, [CACHED, MINI], None, id="the cheapest endpoint counts"),
        pytest.param({"cost": "0.001511"}, 24, [CACHED], ("spec.budget.cost", "at least 0.001512 is needed (24 calls of the judgement, each of a token sent and one answered at least), given 0.001511"), id="what is sent may be cached"),
        pytest.param({"cost": "0.000001"}, 24, [FREE, MINI], None, id="an endpoint that costs nothing"),
        pytest.param({"cost": "0.000001"}, 24, [None], None, id="an endpoint without prices"),
    ],
)  # fmt: skip
def test_a_budget_is_too_small_where_that_is_certain(
    budget: dict[str, object], least: int, prices: list[Pricing | None], want: tuple[str, str] | None
) -> None:
    made_of = "judgement 24, preflight 1"
    assert too_small(Budget.model_validate(budget), 25, made_of, least=least, prices=prices) == want
