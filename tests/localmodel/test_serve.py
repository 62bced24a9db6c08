"""The local server, for real: what the runner and the examples need of it, on the smallest model."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from e2e.localmodel import LocalEndpoint, ModelName, ServerFailed, local_model, serve
from e2e.localmodel.weights import SMOLLM, Weights

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[LocalEndpoint]:
    with local_model(ModelName.SMOLLM) as endpoint:
        yield endpoint


def ask(endpoint: LocalEndpoint, question: str, **options: Any) -> dict[str, Any]:
    body = {"model": endpoint.model, "temperature": 0, "messages": [{"role": "user", "content": question}], **options}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{endpoint.url}/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


def content(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["message"]["content"])


def test_an_answer_reports_its_model_and_its_tokens(endpoint: LocalEndpoint) -> None:
    answer = ask(endpoint, "What is the capital of France?", max_tokens=16)
    assert answer["model"] == SMOLLM.served_as
    assert content(answer)
    usage = answer["usage"]
    assert usage["prompt_tokens"] > 0
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


@pytest.mark.parametrize("cap", ["max_tokens", "max_completion_tokens"])
def test_both_names_of_the_token_limit_are_kept(endpoint: LocalEndpoint, cap: str) -> None:
    answer = ask(endpoint, "Count from 1 to 100.", **{cap: 5})
    assert answer["usage"]["completion_tokens"] == 5
    assert answer["choices"][0]["finish_reason"] == "length"


def test_a_stop_sequence_ends_the_answer(endpoint: LocalEndpoint) -> None:
    question = "What is the capital of France?"
    whole = content(ask(endpoint, question, max_tokens=16))
    third_word = whole.split()[2]
    stopped = ask(endpoint, question, max_tokens=16, stop=[third_word])
    assert content(stopped) == whole[: whole.index(third_word)]
    assert stopped["choices"][0]["finish_reason"] == "stop"


def test_a_schema_rules_the_answer_and_its_keys_keep_their_order(endpoint: LocalEndpoint) -> None:
    schema = {
        "type": "object",
        "properties": {
            "reasoning": {"type": "string", "maxLength": 20},
            "label": {"type": "string", "enum": ["positive", "negative"]},
            "certain": {"type": "boolean"},
        },
        "required": ["reasoning", "label", "certain"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    answer = json.loads(content(ask(endpoint, "Sing a song.", max_tokens=64, response_format=wanted)))
    assert list(answer) == ["reasoning", "label", "certain"], "not alphabetical: reasoning has to come before label"
    assert answer["label"] in ("positive", "negative")
    assert isinstance(answer["certain"], bool)


def test_two_calls_at_once_are_both_answered(endpoint: LocalEndpoint) -> None:
    questions = ["What is the capital of France?", "What is the capital of Italy?"]
    with ThreadPoolExecutor(max_workers=2) as pool:
        answers = pool.map(lambda question: ask(endpoint, question, max_tokens=16), questions)
    assert all(content(answer) for answer in answers)


def test_the_server_and_its_log_end_with_the_block() -> None:
    with local_model(ModelName.SMOLLM) as endpoint:
        process = endpoint.process
        assert process.poll() is None
    assert process.poll() is not None
    assert not endpoint.log.exists()


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_server_ends_with_whoever_started_it(signal_number: signal.Signals, tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    command = [sys.executable, "-m", "e2e.localmodel", "serve", f"--model={ModelName.SMOLLM}", f"--log={log}"]
    # A shell's background job, and what it starts, ignores SIGINT: this test must not inherit that.
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, preexec_fn=heed_interrupts
    ) as starter:
        assert starter.stdout is not None
        url, model = starter.stdout.readline().split()
        assert (url.startswith("http://127.0.0.1:"), model) == (True, SMOLLM.served_as)
        starter.send_signal(signal_number)
    wait_until_refused(url)


def heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_until_refused(url: str) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url.removesuffix("/v1") + "/health", timeout=5).close()
        except OSError:
            return
        time.sleep(0.05)
    pytest.fail(f"{url} still answers")


def test_a_server_that_cannot_start_shows_the_end_of_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"not a model" + os.urandom(64))
    monkeypatch.setattr(serve, "fetch", lambda name: Weights(model=SMOLLM, path=broken))
    reason = r"exit code 1; the end of[\s\S]*model loading error"
    with pytest.raises(ServerFailed, match=reason), local_model(ModelName.SMOLLM):
        pass
