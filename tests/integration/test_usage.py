"""What is counted here is what the endpoint counted; how many requests at a time; who is called, and with which key."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.counting_server import CountingServer
from tests.counting_server.counts import CountsView
from tests.integration.acceptance import LONG
from tests.integration.harness import API, OPTIMIZERS, Case, Ended, Workplace, ended, workplace

PRICES = {"currency": "USD", "input": "0.15", "cachedInput": "0.075", "output": "0.60"}
CACHED = 50
"""Tokens of each prompt that the server says it had cached; every prompt has more."""
PATIENCE_SECONDS = 300
"""For a whole run: the machine may be busy."""

pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize("concurrency", [1, 4, 16])
@pytest.mark.parametrize(
    "optimizer", ["LabeledFewShot", "BootstrapFewShot", "MIPROv2", "GEPA"] if LONG else ["MIPROv2"]
)
def test_tokens_and_money_are_the_servers_own_for_any_number_of_threads(
    tmp_path: Path, optimizer: str, concurrency: int
) -> None:
    case = Case(OPTIMIZERS[optimizer], concurrency=concurrency, endpoint={"pricing": PRICES}, timeout="60s")
    with workplace(tmp_path, case, cached_tokens=CACHED, latency_ms=20) as place:
        done = place.run(timeout=PATIENCE_SECONDS)
        assert done.code == 0, done.stderr
        counts = place.server.counts()
        assert_usage_is(done.result["usage"], counts, PRICES)
        assert counts["highest_concurrency"] <= concurrency
        if concurrency <= 4:
            assert (
                counts["highest_concurrency"] == concurrency
            )  # 16 need more answers at a time than this machine gives
        roles = done.result["usageByRole"].values()
        for name in ("calls", "inputTokens", "cachedInputTokens", "outputTokens"):
            assert sum(role[name] for role in roles) == done.result["usage"][name]
        assert sum(Decimal(role["cost"]) for role in roles) == Decimal(done.result["usage"]["cost"])


def test_each_role_is_counted_at_the_endpoint_that_plays_it(tmp_path: Path) -> None:
    case = Case(
        OPTIMIZERS["MIPROv2"],
        endpoint={"pricing": PRICES},
        run={"endpoints": {"prompt": {"name": "writer"}}},
        timeout="60s",
    )
    dear = {"currency": "USD", "input": "2.5", "output": "10"}
    with workplace(tmp_path, case, latency_ms=3) as place, CountingServer({"models": ["large"]}) as writer:
        provider = {"type": "OpenAI", "openai": {"baseURL": "http://127.0.0.1:9/v1", "model": "large"}}
        add(place, "writer", {"provider": provider, "pricing": dear})
        done = finished(place, place.start("--endpoint", f"writer={writer.url}"))
        assert done.code == 0, done.stderr
        by_role, task, prompt = done.result["usageByRole"], place.server.counts(), writer.counts()
        assert prompt["requests"] > 5
        assert task["by_model"] == {"fake": task["requests"]}
        assert prompt["by_model"] == {"large": prompt["requests"]}
        assert_usage_is(by_role["task"], task, PRICES, cached=0)
        assert_usage_is(by_role["prompt"], prompt, dear, cached=0)
        assert Decimal(done.result["usage"]["cost"]) == sum(Decimal(role["cost"]) for role in by_role.values())


@pytest.mark.parametrize("reporting", ["fake", "writer"])
def test_a_budget_of_tokens_needs_usage_from_both_endpoints(tmp_path: Path, reporting: str) -> None:
    silent: dict[str, Any] = {"faults": [{"type": "no_usage"}]}
    case = Case(OPTIMIZERS["MIPROv2"], run={"endpoints": {"prompt": {"name": "writer"}}}, budget={"tokens": 1_000_000})
    with (
        workplace(tmp_path, case, **({} if reporting == "fake" else silent)) as place,
        CountingServer({} if reporting == "writer" else silent) as writer,
    ):
        add(
            place,
            "writer",
            {"provider": {"type": "OpenAI", "openai": {"baseURL": "http://127.0.0.1:9/v1", "model": "x"}}},
        )
        done = finished(place, place.start("--endpoint", f"writer={writer.url}"))
        assert (done.code, done.result["path"]) == (53, "spec.budget")
        other = "writer" if reporting == "fake" else "fake"
        assert done.result["message"].startswith(f"default/{other} reports no usage")
        assert place.server.counts()["requests"] + writer.counts()["requests"] <= 2


# The live part: control.json is edited while the run waits for one answer.


def test_slots_and_budget_change_while_the_run_goes_on(tmp_path: Path) -> None:
    """With 100 calls it would end as BudgetExhausted."""
    case = Case(OPTIMIZERS["MIPROv2"], concurrency=8, budget={"calls": 100}, timeout="60s")
    with workplace(tmp_path, case, hold_at=[30], latency_ms=5) as place:
        process = place.start()
        wait_for_the_held(place)
        before = place.server.counts()["requests"]
        edit_control(place, generation=7, slots={"default/fake": 2}, budget={"calls": 1000})
        wait_until(lambda: progress(place)["effective"] == 7)
        place.server.set_script(place.case.script(latency_ms=5))  # ordinals begin anew, and the 30th is not held again
        place.server.reset()
        place.server.release()
        done = finished(place, process)
        assert (done.code, done.result["reason"]) == (0, "Completed"), done.stderr
        counts = place.server.counts()
        assert counts["highest_concurrency"] == 2
        assert counts["by_status"] == {"200": counts["requests"] + 1}  # the held one came before the reset
        assert done.result["usage"]["calls"] == before + counts["requests"] > 100


def test_finish_ends_the_optimization_and_judges_what_there_is(tmp_path: Path) -> None:
    with workplace(tmp_path, Case(OPTIMIZERS["MIPROv2"], timeout="60s"), hold_at=[90], latency_ms=5) as place:
        process = place.start()
        wait_for_the_held(place)
        before = place.server.counts()["requests"]
        edit_control(place, generation=2, stop="Finish")
        wait_until(lambda: progress(place)["effective"] == 2)
        place.server.release()
        done = finished(place, process)
        assert (done.code, done.result["reason"]) == (0, "StoppedEarly"), done.stderr
        assert done.result["outcome"] in {"Improved", "NoImprovement"}
        assert done.result["scores"]["candidate"]["rows"] == 12
        assert place.server.counts()["requests"] - before <= 2 * 12
        assert place.verify().code == 0


def test_cancel_ends_the_run_and_a_resume_goes_on(tmp_path: Path) -> None:
    with workplace(tmp_path, Case(OPTIMIZERS["BootstrapFewShot"], timeout="60s"), hold_at=[20], latency_ms=5) as place:
        process = place.start()
        wait_for_the_held(place)
        before = place.server.counts()["requests"]
        edit_control(place, generation=2, stop="Cancel")
        wait_until(lambda: process.poll() is not None or progress(place)["effective"] == 2)
        place.server.release()
        done = finished(place, process)
        assert (done.code, done.result["reason"]) == (51, "Stopped"), done.stderr
        assert "stop: Cancel was asked for" in done.result["message"]
        assert place.server.counts()["requests"] == before
        again = place.run("--resume", timeout=PATIENCE_SECONDS)
        assert (again.code, again.result["reason"]) == (0, "Completed"), again.stderr


# Who is called, and with what


@pytest.mark.parametrize(
    ("type", "limit"),
    [pytest.param("OpenAI", "max_completion_tokens", id="OpenAI"), pytest.param("Ollama", "max_tokens", id="Ollama")],
)
@pytest.mark.parametrize("optimizer", OPTIMIZERS if LONG else ["MIPROv2"])
def test_no_host_is_called_but_the_endpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str, type: str, limit: str
) -> None:
    provider: dict[str, Any] = {
        "OpenAI": {"type": "OpenAI", "openai": {"baseURL": "http://127.0.0.1:9/v1", "model": "fake"}},
        "Ollama": {"type": "Ollama", "ollama": {"model": "fake", "parallel": 4}},
    }[type]
    case = Case(OPTIMIZERS[optimizer], endpoint={"provider": provider}, timeout="60s")
    with workplace(tmp_path, case, latency_ms=3) as place:
        log = tmp_path / "connected.txt"
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).with_name("bystander")))
        monkeypatch.setenv("BYSTANDER_ALLOWS", f"127.0.0.1:{place.server.port}")
        monkeypatch.setenv("BYSTANDER_LOG", str(log))
        monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
        monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:10/v1")
        done = place.run(timeout=PATIENCE_SECONDS)
        assert done.code == 0, done.stderr
        connected = set(log.read_text("utf-8").splitlines())
        assert {line.split()[1] for line in connected} == {f"127.0.0.1:{place.server.port}"}, connected
        bodies = [json.loads(request["body"]) for request in place.server.requests()]
        asked = {name for body in bodies for name in ("max_tokens", "max_completion_tokens") if name in body}
        assert asked == {limit}


SECRET = "sk-" + "0123456789abcdef" * 2


def a_case_with_a_key() -> Case:
    openai = {"baseURL": "http://127.0.0.1:9/v1", "model": "fake", "apiKeySecret": {"name": "keys", "key": "openai"}}
    return Case(
        OPTIMIZERS["BootstrapFewShot"], endpoint={"provider": {"type": "OpenAI", "openai": openai}}, timeout="60s"
    )


def test_an_api_key_is_sent_and_written_nowhere(tmp_path: Path) -> None:
    key = tmp_path / "openai.key"
    key.write_text(SECRET + "\n", encoding="utf-8")
    with workplace(tmp_path, a_case_with_a_key(), api_key=SECRET) as place:
        done = finished(place, place.start("--api-key-file", f"fake={key}"))
        assert done.code == 0, done.stderr
        assert place.server.counts()["by_status"] == {"200": place.server.counts()["requests"]}
        files = [path for path in place.out.rglob("*") if path.is_file()]
        assert len(files) > 10
        assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
        assert SECRET not in done.stdout + done.stderr
        assert all(SECRET not in request["body"] for request in place.server.requests())


def test_a_wrong_api_key_is_told_and_written_nowhere(tmp_path: Path) -> None:
    key = tmp_path / "openai.key"
    key.write_text(SECRET, encoding="utf-8")
    with workplace(tmp_path, a_case_with_a_key(), api_key="another") as place:
        done = finished(place, place.start("--api-key-file", f"fake={key}"))
        assert (done.code, done.result["reason"]) == (46, "AuthenticationFailed"), done.stderr
        assert place.server.counts()["requests"] == 1
        assert SECRET not in done.stdout + done.stderr
        assert [path for path in place.out.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()] == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(None, "cannot be read", id="no file"),
        pytest.param(" \n", "the file is empty", id="an empty file"),
        pytest.param("", "default/fake needs key openai of Secret default/keys", id="not named"),
    ],
)
def test_a_missing_api_key_costs_nothing(tmp_path: Path, content: str | None, says: str) -> None:
    key = tmp_path / "openai.key"
    if content:
        key.write_text(content, encoding="utf-8")
    with workplace(tmp_path, a_case_with_a_key()) as place:
        done = finished(place, place.start(*(() if content == "" else ("--api-key-file", f"fake={key}"))))
        assert done.code == 47
        assert done.stderr.startswith("SecretMissing: ")
        assert "spec.provider.openai.apiKeySecret: " in done.stderr
        assert says in done.stderr
        assert "Traceback" not in done.stderr
        assert place.server.counts()["requests"] == 0


def test_a_pod_whose_secret_is_absent_names_it(tmp_path: Path) -> None:
    """Its mounts are optional: the runner has to say what is missing, since the operator cannot read Secrets."""
    key = tmp_path / "openai.key"
    key.write_text(SECRET, encoding="utf-8")
    with workplace(tmp_path, a_case_with_a_key(), api_key="another") as place:
        assert finished(place, place.start("--api-key-file", f"fake={key}")).code == 46
        sent = place.server.counts()["requests"]
        key.unlink()
        command = [sys.executable, "-m", "dspy_operator.runner", str(place.run_folder / "run.json")]
        pod = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
        assert pod.returncode == 47, pod.stderr
        result = json.loads((place.run_folder / "result.json").read_bytes())
        assert result["reason"] == "SecretMissing"
        assert result["message"] == "default/fake: key openai of Secret default/keys is absent or empty"
        assert place.server.counts()["requests"] == sent


# Words of the tests above.


def assert_usage_is(
    usage: Mapping[str, Any], counts: CountsView, prices: Mapping[str, str], *, cached: int = CACHED
) -> None:
    """A usage document says what a server counted, to the last token and digit."""
    cached_tokens = cached * counts["answered"]
    assert usage["calls"] == counts["requests"]
    assert usage["inputTokens"] == counts["prompt_tokens"]
    assert usage["cachedInputTokens"] == cached_tokens
    assert usage["outputTokens"] == counts["completion_tokens"]
    millions = (
        (counts["prompt_tokens"] - cached_tokens) * Decimal(prices["input"])
        + cached_tokens * Decimal(prices.get("cachedInput", prices["input"]))
        + counts["completion_tokens"] * Decimal(prices["output"])
    )
    assert Decimal(usage["cost"]) == millions / 1_000_000


def add(place: Workplace, name: str, spec: Mapping[str, Any]) -> None:
    """One more ModelEndpoint in the manifests."""
    endpoint = {"apiVersion": API, "kind": "ModelEndpoint", "metadata": {"name": name}, "spec": dict(spec)}
    (place.manifests / f"{name}.yaml").write_text(yaml.safe_dump(endpoint), encoding="utf-8")


def finished(place: Workplace, process: Any) -> Ended:
    return ended(process, place.run_folder, timeout=PATIENCE_SECONDS)


def wait_for_the_held(place: Workplace) -> None:
    """Until the run waits for the answer that is held, and for nothing else."""
    place.server.wait_until(
        lambda counts: counts["held"] == 1 == counts["in_flight"], deadline_seconds=PATIENCE_SECONDS
    )
    time.sleep(0.5)  # a request may be on its way to the server; in_flight alone does not show it
    place.server.wait_until(
        lambda counts: counts["held"] == 1 == counts["in_flight"], deadline_seconds=PATIENCE_SECONDS
    )


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def edit_control(place: Workplace, **changes: Any) -> None:
    """As a person would, in place."""
    path = place.run_folder / "control.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), encoding="utf-8")


def progress(place: Workplace) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((place.run_folder / "progress.json").read_bytes())
    return document
