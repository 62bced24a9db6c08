"""The process: its arguments, its door for probes, and its end."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from dspy_operator.loader import health
from dspy_operator.loader.__main__ import USAGE, main, parser
from dspy_operator.loader.cluster import Cluster, NotInCluster

ARGUMENTS = ["--model=qwen:0.5b", "--namespace=models", "--channel=mep-qwen-pod", "--pod=a"]


def test_help_names_every_argument_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as over:
        main(["--help"])
    assert over.value.code == 0
    said = capsys.readouterr().out
    for word in (
        "--model",
        "--registry",
        "--insecure",
        "--channel",
        "--pod",
        "--namespace",
        "/readyz",
        "SIGTERM",
        "64",
    ):
        assert word in said


@pytest.mark.parametrize("missing", ["--model", "--namespace", "--channel", "--pod"])
def test_what_it_cannot_do_without_is_required(missing: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args([argument for argument in ARGUMENTS if not argument.startswith(missing)])
    assert missing in capsys.readouterr().err


def test_outside_a_pod_it_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    handlers, level = logging.root.handlers[:], logging.root.level
    try:
        assert main([*ARGUMENTS, f"--service-account={tmp_path}"]) == USAGE
    finally:
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)


@pytest.mark.parametrize(
    ("host", "server"),
    [("10.0.0.1", "https://10.0.0.1:443"), ("fd00::1", "https://[fd00::1]:443")],
    ids=["IPv4", "IPv6"],
)
def test_the_api_server_is_where_the_environment_says(host: str, server: str, tmp_path: Path) -> None:
    for name in ("token", "ca.crt"):
        (tmp_path / name).write_text("x")
    environment = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": "443"}
    assert Cluster.of(environment, tmp_path) == Cluster(server, tmp_path)


def test_a_pod_without_a_token_says_which_file_is_missing(tmp_path: Path) -> None:
    environment = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    with pytest.raises(NotInCluster, match=f"{tmp_path}/token is missing"):
        Cluster.of(environment, tmp_path)


@pytest.mark.parametrize(
    ("path", "ready", "want"),
    [("/readyz", True, 200), ("/readyz", False, 503), ("/", True, 404), ("/readyz/x", True, 404)],
)
def test_the_probe_is_answered(path: str, ready: bool, want: int) -> None:
    async def ask() -> int:
        async with await health.listen(0, lambda: ready, host="127.0.0.1") as server:
            port = server.sockets[0].getsockname()[1]
            async with httpx.AsyncClient(trust_env=False) as client:
                return (await client.get(f"http://127.0.0.1:{port}{path}")).status_code

    assert asyncio.run(ask()) == want


def test_who_says_nothing_does_not_hold_the_door() -> None:
    async def knock() -> int:
        async with await health.listen(0, lambda: True, host="127.0.0.1") as server:
            port = server.sockets[0].getsockname()[1]
            _, silent = await asyncio.open_connection("127.0.0.1", port)
            async with httpx.AsyncClient(trust_env=False) as client:
                code = (await client.get(f"http://127.0.0.1:{port}/readyz")).status_code
            silent.close()
            return code

    assert asyncio.run(knock()) == 200


def test_a_sidecar_brings_no_operator_and_no_dspy() -> None:
    heavy = "{'kopf', 'kubernetes', 'dspy', 'structlog', 'aiohttp'}"
    script = f"import sys, dspy_operator.loader.__main__; print(*({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
