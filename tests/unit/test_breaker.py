"""The breaker: a bad moment is survived, an outage is found soon, and one bad request is told from both."""

from __future__ import annotations

import random

import pytest

from dspy_operator.contract.exits import Reason
from dspy_operator.runner.breaker import (
    BACKOFF_SECONDS,
    FAILURES_OF_ONE_KEY,
    LIMITED_SECONDS,
    REFUSED_IN_A_ROW,
    TIMEOUTS_OF_ONE_KEY,
    UNANSWERED_IN_A_ROW,
    Breaker,
    KeyTroubles,
    Trouble,
    backoff_seconds,
)

TIMEOUT, CONNECTION, SERVER, GARBAGE, LIMITED = Trouble


class AnEndpoint:
    """A breaker, and what it was told: `ok`, `refused` or a trouble at each second."""

    def __init__(self) -> None:
        self.breaker = Breaker("default/fake")
        self.now = 1000.0

    def after(self, *events: Trouble | str) -> tuple[Reason, str] | None:
        """Why the breaker opened, at the first event that opened it."""
        for event in events:
            self.now += 1
            if event == "ok":
                self.breaker.answered(0.0)
            elif event == "refused":
                if (opened := self.breaker.refused("too long")) is not None:
                    return opened
            elif (opened := self.breaker.failed(Trouble(event), "words", self.now)) is not None:
                return opened
        return None


@pytest.mark.parametrize(
    ("events", "want"),
    [
        pytest.param([SERVER] * 9, None, id="nine errors in a row are a bad moment"),
        pytest.param([SERVER] * 10, Reason.ENDPOINT_UNAVAILABLE, id="ten are an outage"),
        pytest.param([CONNECTION] * 10, Reason.ENDPOINT_UNAVAILABLE, id="nobody listens"),
        pytest.param([TIMEOUT] * 10, Reason.ENDPOINT_UNAVAILABLE, id="nobody answers in time"),
        pytest.param([CONNECTION, TIMEOUT, SERVER] * 4, Reason.ENDPOINT_UNAVAILABLE, id="all kinds count together"),
        pytest.param([*[SERVER] * 9, "ok"] * 5, None, id="each answer begins the count anew"),
        pytest.param([*[SERVER] * 9, "refused"] * 5, None, id="a refusal shows that it is alive"),
        pytest.param([GARBAGE] * 10, Reason.MODEL_ANSWERS_UNUSABLE, id="answers with no completion in them"),
        pytest.param([*[GARBAGE] * 4, *[SERVER] * 6], Reason.ENDPOINT_UNAVAILABLE, id="the most frequent kind decides"),
        pytest.param(["refused"] * 9, None, id="nine rows may be too long"),
        pytest.param(["refused"] * 10, Reason.MODEL_ANSWERS_UNUSABLE, id="ten refusals in a row are not about rows"),
        pytest.param([*["refused"] * 9, "ok"] * 3, None, id="unless one is answered between"),
        pytest.param([LIMITED] * 299, None, id="a rate limit only slows down"),
        pytest.param([LIMITED] * 301, Reason.ENDPOINT_UNAVAILABLE, id="for five minutes without one answer"),
        pytest.param([*[LIMITED] * 299, "ok"] * 3, None, id="an answer begins the five minutes anew"),
        pytest.param([*[SERVER, LIMITED] * 9], None, id="a rate limit counts for no outage"),
        pytest.param([*[SERVER, LIMITED] * 10], Reason.ENDPOINT_UNAVAILABLE, id="nor does it end the count of one"),
    ],
)
def test_the_breaker_opens(events: list[Trouble | str], want: Reason | None) -> None:
    opened = AnEndpoint().after(*events)
    assert (opened and opened[0]) == want


def test_the_message_names_the_endpoint_the_count_the_kind_and_the_last_words() -> None:
    opened = AnEndpoint().after(*[SERVER] * UNANSWERED_IN_A_ROW)
    assert opened is not None
    assert opened[1] == "default/fake left 10 requests in a row unanswered (server error): words"
    refused = AnEndpoint().after(*["refused"] * REFUSED_IN_A_ROW)
    assert refused is not None
    assert refused[1] == "default/fake refused 10 requests in a row: too long"


@pytest.mark.parametrize(
    ("given", "want"),
    [
        pytest.param([None], 0.0, id="without Retry-After nothing is held back"),
        pytest.param([3.0], 1003.0, id="with it, everything until then"),
        pytest.param([30.0, 3.0], 1030.0, id="a shorter one does not shorten a longer one"),
        pytest.param([10_000.0], 1000.0 + LIMITED_SECONDS, id="at most as long as a rate limit may last"),
    ],
)
def test_retry_after_holds_the_endpoint_back(given: list[float | None], want: float) -> None:
    breaker = Breaker("default/fake")
    for retry_after in given:
        breaker.hold_back(retry_after, 1000.0)
    assert breaker.not_before == want


@pytest.mark.parametrize(
    ("troubles", "want"),
    [
        pytest.param([TIMEOUT] * (TIMEOUTS_OF_ONE_KEY - 1), False, id="two time-outs may be chance"),
        pytest.param([TIMEOUT] * TIMEOUTS_OF_ONE_KEY, True, id="three are suspect"),
        pytest.param([SERVER] * (FAILURES_OF_ONE_KEY - 1), False, id="seven errors happen at 20 % random ones"),
        pytest.param([SERVER] * FAILURES_OF_ONE_KEY, True, id="eight hardly"),
        pytest.param([CONNECTION, GARBAGE, SERVER, TIMEOUT] * 2, True, id="all kinds count together"),
        pytest.param([LIMITED] * 100, False, id="a rate limit is nobody's fault"),
    ],
)
def test_one_request_becomes_suspect(troubles: list[Trouble], want: bool) -> None:
    counted = KeyTroubles()
    for trouble in troubles:
        counted.count(trouble)
    assert counted.suspect is want


def test_the_backoff_is_full_jitter_up_to_its_cap() -> None:
    base, cap = BACKOFF_SECONDS
    jitter = random.Random(1)
    for attempt in (0, 1, 2, 5, 10, 9_999):
        most = min(cap, base * 2.0 ** min(attempt, 10))
        drawn = [backoff_seconds(attempt, jitter) for _ in range(500)]
        assert 0 <= min(drawn) < 0.05 * most
        assert 0.95 * most < max(drawn) <= most
