"""How the operator was installed is read from its environment, and a mistake in it is named."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta

import pytest

from dspy_operator import main

NEEDED = {"DSPY_OPERATOR_RUNNER_IMAGE": "runner:1", "DSPY_OPERATOR_IMAGE": "operator:1"}


def test_two_images_are_enough() -> None:
    how = main.installed(NEEDED)
    assert (how.settings.runner_image, how.settings.operator_image) == ("runner:1", "operator:1")
    assert how.settings.ollama_image == "ollama/ollama:0.34.2"
    assert how.operation.workers == how.settings.workers == 8
    assert how.operation.resync == how.settings.resync == timedelta(minutes=7)
    assert (how.operation.health_port, how.operation.metrics_port) == (8080, 8081)
    assert how.log_level == "info"


def test_everything_can_be_said() -> None:
    how = main.installed(
        {
            **NEEDED,
            "DSPY_OPERATOR_OLLAMA_IMAGE": "ollama:2",
            "DSPY_OPERATOR_IMAGE_PULL_POLICY": "Never",
            "DSPY_OPERATOR_WORKERS": "3",
            "DSPY_OPERATOR_RESYNC_SECONDS": "60",
            "DSPY_OPERATOR_LOG_LEVEL": "debug",
            "DSPY_OPERATOR_HEALTH_PORT": "9000",
            "DSPY_OPERATOR_METRICS_PORT": "9000",
            "HOSTNAME": "dspy-operator-0",
        }
    )
    assert (how.settings.ollama_image, how.settings.image_pull_policy) == ("ollama:2", "Never")
    assert (how.operation.workers, how.operation.resync) == (3, timedelta(seconds=60))
    assert (how.operation.health_port, how.operation.metrics_port) == (9000, 9000)
    assert (how.operation.instance, how.log_level) == ("dspy-operator-0", "debug")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        pytest.param("DSPY_OPERATOR_RUNNER_IMAGE", "", "DSPY_OPERATOR_RUNNER_IMAGE is not set", id="no image"),
        pytest.param("DSPY_OPERATOR_WORKERS", "0", "a whole number from 1 to 256, found '0'", id="nobody works"),
        pytest.param("DSPY_OPERATOR_WORKERS", "many", "a whole number from 1 to 256, found 'many'", id="no number"),
        pytest.param("DSPY_OPERATOR_RESYNC_SECONDS", "1", "from 10 to 86400", id="a resync all the time"),
        pytest.param(
            "DSPY_OPERATOR_LOG_LEVEL", "loud", "one of debug, info, warning, error, found 'loud'", id="no level"
        ),
        pytest.param("DSPY_OPERATOR_IMAGE_PULL_POLICY", "never", "one of Always, IfNotPresent, Never", id="other case"),
        pytest.param("DSPY_OPERATOR_HEALTH_PORT", "-1", "from 0 to 65535", id="no port"),
    ],
)
def test_a_mistake_is_named(name: str, value: str, words: str) -> None:
    with pytest.raises(main.BadEnvironment, match=words):
        main.installed({**NEEDED, name: value})


def test_help_names_every_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main.main(["--help"])
    said = capsys.readouterr().out
    assert all(variable.name in said for variable in main.VARIABLES) and "KUBECONFIG" in said


def test_every_kind_has_a_room() -> None:
    rooms = {room.kind for room in main.controllers(main.installed(NEEDED).settings)}
    assert rooms == {*(resource.kind for resource in main.RESOURCES.own), "Admission"}


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        pytest.param({}, "DSPY_OPERATOR_RUNNER_IMAGE is not set", id="nothing set"),
        pytest.param({**NEEDED, "KUBECONFIG": "/nowhere"}, "KUBECONFIG=/nowhere", id="a kubeconfig that is not there"),
    ],
)
def test_a_process_that_cannot_start_says_why_and_that_a_restart_would_not_help(
    environment: dict[str, str], words: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dspy_operator.main"],
        env={"PATH": "", "HOME": "/nonexistent", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert words in done.stderr and "Traceback" not in done.stderr
