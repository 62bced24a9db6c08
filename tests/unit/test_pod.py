"""What a runner takes from its pod's environment, and how long its end may take."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dspy_operator.contract import names
from dspy_operator.runner.breaker import monotonic
from dspy_operator.runner.hurry import SIGNAL_SECONDS, Hurry
from dspy_operator.runner.pod import ENV_ACCOUNT, Pod
from tests.unit.test_layout import loaded_by

IN_A_POD = {
    names.ENV_CHANNEL: "orun-a-pod",
    names.ENV_TRY: "3",
    "KUBERNETES_SERVICE_HOST": "10.0.0.1",
    "KUBERNETES_SERVICE_PORT": "443",
}


def test_outside_a_cluster_there_is_no_pod() -> None:
    assert Pod.of({name: value for name, value in IN_A_POD.items() if name != names.ENV_CHANNEL}) is None


@pytest.mark.parametrize(
    ("more", "want"),
    [
        pytest.param(
            {},
            Pod("orun-a-pod", 3, "", "https://10.0.0.1:443", Path(names.ACCOUNT_FOLDER)),
            id="as the kubelet fills it",
        ),
        pytest.param(
            {"KUBERNETES_SERVICE_HOST": "fd00::1", names.ENV_IMAGE: "runner:1", ENV_ACCOUNT: "/account"},
            Pod("orun-a-pod", 3, "runner:1", "https://[fd00::1]:443", Path("/account")),
            id="IPv6, an image, and a token elsewhere",
        ),
    ],
)
def test_a_pod_knows_its_channel_its_try_and_its_api_server(more: dict[str, str], want: Pod) -> None:
    assert Pod.of(IN_A_POD | more) == want


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        pytest.param(names.ENV_TRY, "0", 'DSPY_OPERATOR_TRY is "0"', id="tries count from 1"),
        pytest.param(names.ENV_TRY, "-1", 'DSPY_OPERATOR_TRY is "-1"', id="a try is not negative"),
        pytest.param(names.ENV_TRY, "one", 'DSPY_OPERATOR_TRY is "one"', id="a try is a number"),
        pytest.param(names.ENV_TRY, "\u0663", "DSPY_OPERATOR_TRY is", id="in ASCII digits"),
        pytest.param(names.ENV_TRY, "", "DSPY_OPERATOR_TRY is not set", id="a try is needed"),
        pytest.param("KUBERNETES_SERVICE_HOST", "", "KUBERNETES_SERVICE_HOST is not set", id="an address is needed"),
    ],
)
def test_a_wrong_environment_is_told_with_the_variables_name(name: str, value: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Pod.of(IN_A_POD | {name: value})


def test_without_a_signal_only_the_own_deadline_counts() -> None:
    assert 99 < Hurry().left(monotonic() + 100) <= 100


def test_a_second_signal_does_not_put_the_end_off() -> None:
    hurry = Hurry()
    hurry.begin()
    time.sleep(0.05)
    hurry.begin()
    assert hurry.left(monotonic() + 100) <= SIGNAL_SECONDS - 0.05


def test_a_pause_ends_with_the_signal_and_is_short_after_it() -> None:
    hurry = Hurry()
    hurry.begin()
    before = monotonic()
    hurry.pause(60)
    assert 0 < monotonic() - before < 30


def test_a_pod_listens_for_signals_and_control_before_it_waits_for_dspy() -> None:
    loaded = loaded_by("dspy_operator.runner.cluster")
    assert "httpx" in loaded and "dspy" not in loaded
