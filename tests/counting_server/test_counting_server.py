"""The counting server on real sockets, with the real DSPy in front of it."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import dspy  # type: ignore[import-untyped, unused-ignore]
import pytest
from dspy.adapters.baml_adapter import BAMLAdapter  # type: ignore[import-untyped, unused-ignore]
from dspy.utils.exceptions import AdapterParseError  # type: ignore[import-untyped, unused-ignore]

from tests.counting_server import CountingServer, ScriptError, tokens

REPOSITORY = Path(__file__).parents[2]
LABELS = ("positive", "negative")
ROWS = {f"review number {i} says {'yes' if i % 3 else 'no'}.": LABELS[i % 3 == 0] for i in range(40)}


class Sentiment(dspy.Signature):  # type: ignore[misc, unused-ignore]  # dspy has no types
    """Decide the sentiment of the review."""

    text: str = dspy.InputField()
    label: Literal["positive", "negative"] = dspy.OutputField()


class Everything(dspy.Signature):  # type: ignore[misc, unused-ignore]
    """Fill in one field of each type."""

    text: str = dspy.InputField()
    label: Literal["it's", 'a "b"', "c; d"] = dspy.OutputField()
    grade: Literal[1, 2, 3] = dspy.OutputField()
    score: float = dspy.OutputField()
    number: int = dspy.OutputField()
    sure: bool = dspy.OutputField()
    tags: list[str] = dspy.OutputField()
    weights: dict[str, float] = dspy.OutputField()
    remark: str | None = dspy.OutputField()


@pytest.fixture(autouse=True)
def no_cache() -> None:
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)


@pytest.fixture
def server() -> Iterator[CountingServer]:
    with CountingServer({"answers": ROWS}) as running:
        yield running


def lm_of(server: CountingServer, **options: Any) -> Any:
    return dspy.LM("openai/fake", api_base=server.url, api_key="sk-right", num_retries=0, **options)


def chat_body(text: str = "hello", **more: Any) -> dict[str, Any]:
    return {"model": "fake", "messages": [{"role": "user", "content": text}], **more}


def call(
    server: CountingServer,
    body: object = None,
    *,
    path: str = "/v1/chat/completions",
    method: str = "POST",
    **headers: str,
) -> tuple[int, dict[str, str], Any]:
    """One request on a connection of its own: status, headers, parsed body (raw bytes if it is no JSON)."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        response = connection.getresponse()
        raw = response.read()
    finally:
        connection.close()
    try:
        return response.status, dict(response.headers), json.loads(raw)
    except json.JSONDecodeError:
        return response.status, dict(response.headers), raw


def text_of(answer: Any) -> str:
    return str(answer["choices"][0]["message"]["content"])


# Answers


@pytest.mark.parametrize("module", [dspy.Predict, dspy.ChainOfThought])
@pytest.mark.parametrize("adapter", [dspy.ChatAdapter, dspy.JSONAdapter, dspy.XMLAdapter, BAMLAdapter])
@pytest.mark.parametrize("signature", [Sentiment, Everything])
def test_an_answer_parses_at_the_first_try(server: CountingServer, module: Any, adapter: Any, signature: Any) -> None:
    with dspy.context(lm=lm_of(server), adapter=adapter()):
        prediction = module(signature)(text="review number 4")
    assert set(signature.output_fields) <= set(prediction.keys())
    assert server.counts()["requests"] == 1


def test_a_react_agent_uses_a_tool_and_finishes(server: CountingServer) -> None:
    def look_up(word: str, times: int) -> str:
        """Look a word up. It has dots."""
        return word * times

    with dspy.context(lm=lm_of(server)):
        trajectory = dspy.ReAct("question -> answer", tools=[look_up])(question="why?").trajectory
    assert [trajectory["tool_name_0"], trajectory["tool_name_1"]] == ["look_up", "finish"]
    assert set(trajectory["tool_args_0"]) == {"word", "times"}


@pytest.mark.parametrize(
    ("schema", "want"),
    [
        pytest.param({"enum": ["a", "b"]}, lambda v: v in ("a", "b"), id="an enum"),
        pytest.param({"const": 7}, lambda v: v == 7, id="a constant"),
        pytest.param({"type": "integer", "minimum": 3, "maximum": 4}, lambda v: v in (3, 4), id="a bounded integer"),
        pytest.param({"type": "number", "exclusiveMinimum": 2}, lambda v: v > 2, id="a number above"),
        pytest.param(
            {"type": "array", "items": {"type": "boolean"}, "minItems": 2}, lambda v: len(v) == 2, id="a list"
        ),
        pytest.param({"$ref": "#/$defs/Inner"}, lambda v: isinstance(v["x"], str), id="a reference"),
        pytest.param({"anyOf": [{"type": "integer"}, {"type": "null"}]}, lambda v: isinstance(v, int), id="a union"),
        pytest.param({"type": ["string", "null"]}, lambda v: isinstance(v, str), id="a list of types"),
    ],
)
def test_a_json_schema_is_satisfied(server: CountingServer, schema: Any, want: Callable[[Any], bool]) -> None:
    root = {
        "type": "object",
        "properties": {"z": schema, "a": {"type": "string"}},
        "$defs": {"Inner": {"type": "object", "properties": {"x": {"type": "string"}}}},
    }
    body = chat_body(response_format={"type": "json_schema", "json_schema": {"name": "out", "schema": root}})
    value = json.loads(text_of(call(server, body)[2]))
    assert list(value) == ["z", "a"]
    assert want(value["z"])
    server.set_script({"sorted_properties": True})
    assert list(json.loads(text_of(call(server, body)[2]))) == ["a", "z"]


def test_an_answer_depends_on_the_request_and_not_on_its_order(server: CountingServer) -> None:
    bodies = [chat_body(f"question {i}") for i in range(20)]
    forwards = [call(server, body)[2] for body in bodies]
    backwards = [call(server, body)[2] for body in reversed(bodies)][::-1]
    assert forwards == backwards
    assert len({text_of(answer) for answer in forwards}) == 20


def test_sampling_counts_above_temperature_zero_only(server: CountingServer) -> None:
    def answers(**sampling: Any) -> set[str]:
        return {text_of(call(server, chat_body(**sampling, seed=seed))[2]) for seed in range(5)}

    assert len(answers(temperature=0)) == 1
    assert len(answers(temperature=1)) == 5
    choices = call(server, chat_body(temperature=1, n=3))[2]["choices"]
    assert len({choice["message"]["content"] for choice in choices}) == 3


def test_a_stochastic_server_answers_a_repetition_differently(server: CountingServer) -> None:
    def twice(**sampling: Any) -> int:
        return len({text_of(call(server, chat_body(**sampling))[2]) for _ in range(2)})

    assert twice(temperature=1) == 1
    server.set_script({"stochastic": True})
    assert (twice(temperature=1), twice(temperature=0)) == (2, 1)


def test_the_skill_of_a_prompt_is_kept_over_many_rows(server: CountingServer) -> None:
    rows = {f"row-{i}-": "yes" for i in range(400)}

    def share_right(skill: dict[str, float]) -> float:
        server.set_script({"answers": rows, "skill": {"instructions": 0, **skill}})
        return sum(text_of(call(server, chat_body(f"row-{i}-"))[2]) == "yes" for i in range(400)) / 400

    assert share_right({"base": 0}) == 0
    assert share_right({"base": 1, "max": 1}) == 1
    assert 0.5 < share_right({"base": 0.6}) < 0.7


def test_without_noise_a_better_prompt_never_loses_a_row(server: CountingServer) -> None:
    def right_rows(base: float) -> set[str]:
        skill = {"base": base, "instructions": 0, "noise": 0}
        server.set_script({"answers": ROWS, "skill": skill})
        return {text for text in ROWS if text_of(call(server, chat_body(text))[2]) == ROWS[text]}

    assert right_rows(0.3) < right_rows(0.7)


def test_an_answer_for_several_fields_names_them(server: CountingServer) -> None:
    answers = {"hello": {"label": "negative", "topic": "greeting"}}
    server.set_script({"answers": answers, "skill": {"base": 1, "max": 1, "instructions": 0}})
    with dspy.context(lm=lm_of(server)):
        prediction = dspy.Predict("text -> topic: str, label: Literal['positive', 'negative']")(text="well, hello")
    assert (prediction.topic, prediction.label) == ("greeting", "negative")


# Tokens


def test_cutting_leaves_exactly_the_counted_tokens() -> None:
    text = "Some words, extraordinarily long ones among them,\n and new lines."
    for limit in range(tokens.count(text) + 2):
        assert tokens.count(tokens.cut(text, limit)) == min(limit, tokens.count(text))
        assert text.startswith(tokens.cut(text, limit))


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_an_answer_is_cut_at_its_limit(server: CountingServer, name: str) -> None:
    whole, cut = call(server, chat_body())[2], call(server, {**chat_body(), name: 2})[2]
    assert (whole["choices"][0]["finish_reason"], cut["choices"][0]["finish_reason"]) == ("stop", "length")
    assert cut["usage"]["completion_tokens"] == 2
    assert text_of(whole).startswith(text_of(cut))


def test_the_server_counts_the_tokens_that_it_reports(server: CountingServer) -> None:
    server.set_script({"cached_tokens": 3})
    usages = [call(server, chat_body(f"question {i}"))[2]["usage"] for i in range(5)]
    counts = server.counts()
    assert counts["prompt_tokens"] == sum(usage["prompt_tokens"] for usage in usages)
    assert counts["completion_tokens"] == sum(usage["completion_tokens"] for usage in usages)
    assert all(usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] for usage in usages)
    assert all(usage["prompt_tokens_details"] == {"cached_tokens": 3} for usage in usages)


# Optimizers


def metric(gold: Any, prediction: Any, trace: Any = None, *_: Any) -> float:
    return float(gold.label == prediction.label)


def feedback_metric(gold: Any, prediction: Any, trace: Any = None, name: Any = None, part: Any = None) -> Any:
    right = gold.label == prediction.label
    return dspy.Prediction(score=float(right), feedback=f"expected {gold.label}, got {prediction.label}")


def bootstrap(student: Any, rows: list[Any], lm: Any) -> Any:
    return dspy.BootstrapFewShot(metric=metric, max_labeled_demos=2).compile(student, trainset=rows)


def mipro(student: Any, rows: list[Any], lm: Any) -> Any:
    optimizer = dspy.MIPROv2(metric=metric, auto=None, num_candidates=3, num_threads=8, seed=3)
    return optimizer.compile(student, trainset=rows[:20], valset=rows[20:], num_trials=4, minibatch=False)


def gepa(student: Any, rows: list[Any], lm: Any) -> Any:
    optimizer = dspy.GEPA(metric=feedback_metric, max_metric_calls=60, reflection_lm=lm, num_threads=8, seed=3)
    return optimizer.compile(student, trainset=rows[:20], valset=rows[20:])


def fingerprint(program: Any) -> str:
    """The hash of the instructions and demos of every predictor."""
    state = [
        (name, predictor.signature.instructions, [dict(demo) for demo in predictor.demos])
        for name, predictor in program.named_predictors()
    ]
    return hashlib.sha256(json.dumps(state, sort_keys=True, default=str).encode()).hexdigest()


@pytest.mark.parametrize("optimize", [bootstrap, mipro, gepa])
def test_an_optimizer_moves_the_score_to_the_same_program_twice(
    optimize: Callable[[Any, list[Any], Any], Any],
) -> None:
    rows = [dspy.Example(text=text, label=label).with_inputs("text") for text, label in ROWS.items()]

    def run() -> tuple[str, float, float, int, set[str]]:
        with CountingServer({"answers": ROWS, "skill": {"base": 0.4, "instructions": 0.3}}) as server:
            lm = lm_of(server)
            with dspy.context(lm=lm):
                evaluate = dspy.Evaluate(devset=rows[20:], metric=metric, num_threads=8, display_progress=False)
                before = evaluate(dspy.ChainOfThought(Sentiment)).score
                program = optimize(dspy.ChainOfThought(Sentiment), rows, lm)
                after = evaluate(program).score
            counts = server.counts(keys=True)
            assert set(counts["by_status"]) == {"200"}
            return fingerprint(program), before, after, counts["distinct_keys"], set(counts["keys"])

    first, second = run(), run()
    assert first == second
    _, before, after, _, _ = first
    assert after > before


def test_proposals_differ_and_parse(server: CountingServer) -> None:
    def proposed(tip: str) -> str:
        return str(
            dspy.Predict("program_code, tip -> proposed_instruction")(program_code="x", tip=tip).proposed_instruction
        )

    with dspy.context(lm=lm_of(server)):
        assert len({proposed(f"tip {i}") for i in range(8)}) == 8
    reflection = lm_of(server)("I provided instructions:\n```\nold\n```\nWrite a new instruction within ``` blocks.")
    assert re.fullmatch(r"```\n.+ \(variant [0-9a-f]{4}\): .+\n```", reflection[0])


# Faults


@pytest.mark.parametrize(
    ("fault", "want_status", "want_code"),
    [
        ({"type": "429"}, 429, "rate_limit_exceeded"),
        ({"type": "500"}, 500, None),
        ({"type": "503"}, 503, None),
        ({"type": "401"}, 401, "invalid_api_key"),
        ({"type": "404"}, 404, "model_not_found"),
        ({"type": "billing"}, 429, "insufficient_quota"),
        ({"type": "context_length"}, 400, "context_length_exceeded"),
        ({"type": "content_filter"}, 400, "content_policy_violation"),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else None,
)
def test_an_error_has_openais_shape(
    server: CountingServer, fault: dict[str, Any], want_status: int, want_code: str | None
) -> None:
    server.set_script({"faults": [fault]})
    status, headers, body = call(server, chat_body())
    assert (status, body["error"]["code"]) == (want_status, want_code)
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert "Retry-After" not in headers
    assert server.counts()["by_status"] == {str(want_status): 1}
    assert server.counts()["by_fault"] == {fault["type"]: 1}
    assert server.counts()["answered"] == server.counts()["prompt_tokens"] == 0


@pytest.mark.parametrize(
    ("fault", "want"),
    [
        ("429", dspy.LMRateLimitError),
        ("500", dspy.LMServerError),
        ("401", dspy.LMAuthError),
        ("billing", dspy.LMBillingError),
        ("context_length", dspy.ContextWindowExceededError),
        ("content_filter", dspy.LMInvalidRequestError),
        ("drop", dspy.LMTransportError),
        ("garbage", dspy.LMError),
        ("garbage_text", AdapterParseError),
        ("empty", AdapterParseError),
    ],
)
def test_dspy_sees_the_fault_for_what_it_is(server: CountingServer, fault: str, want: type[Exception]) -> None:
    server.set_script({"faults": [{"type": fault}]})
    with dspy.context(lm=lm_of(server), adapter=dspy.ChatAdapter(use_json_adapter_fallback=False)), pytest.raises(want):
        dspy.Predict(Sentiment)(text="review number 4")


def test_a_retry_after_may_be_a_fraction(server: CountingServer) -> None:
    server.set_script({"faults": [{"type": "429", "retry_after": 0.25}]})
    assert call(server, chat_body())[1]["Retry-After"] == "0.25"


def test_a_dropped_connection_can_break_in_the_middle(server: CountingServer) -> None:
    server.set_script({"faults": [{"type": "drop", "when": {"until": 1}}, {"type": "drop", "partial_bytes": 200}]})
    with pytest.raises(http.client.RemoteDisconnected):
        call(server, chat_body())
    with pytest.raises(http.client.IncompleteRead):
        call(server, chat_body())
    assert server.counts()["by_status"] == {"dropped": 2}


def test_a_spoilt_answer_is_still_a_200(server: CountingServer) -> None:
    whole = call(server, chat_body())[2]
    server.set_script({"faults": [{"type": "garbage"}]})
    assert isinstance(call(server, chat_body())[2], bytes)
    server.set_script({"faults": [{"type": "empty"}]})
    assert text_of(call(server, chat_body())[2]) == ""
    server.set_script({"faults": [{"type": "no_usage"}]})
    assert call(server, chat_body())[2] == {name: value for name, value in whole.items() if name != "usage"}
    assert server.counts()["by_status"] == {"200": 4}
    assert server.counts()["answered"] == 3, "a body that is no JSON is no answer"


def test_a_hang_ends_with_its_seconds_or_with_the_server() -> None:
    with CountingServer({"faults": [{"type": "hang", "seconds": 0.01}]}) as server:
        assert call(server, chat_body())[0] == 200
        server.set_script({"faults": [{"type": "hang"}]})
        with ThreadPoolExecutor() as pool:
            hanging = pool.submit(call, server, chat_body())
            server.wait_until(lambda counts: counts["by_fault"] == {"hang": 2})
            server.stop()
            with pytest.raises(ConnectionError):
                hanging.result(timeout=10)
        assert server.counts()["by_status"] == {"200": 1, "abandoned": 1}


@pytest.mark.parametrize(
    ("when", "want"),
    [
        pytest.param({}, [1, 2, 3, 4, 5, 6, 7, 8], id="every request"),
        pytest.param({"after": 5}, [6, 7, 8], id="those after the fifth"),
        pytest.param({"until": 2}, [1, 2], id="the first two"),
        pytest.param({"after": 1, "every": 3}, [4, 7], id="each third after the first"),
        pytest.param({"max": 2, "after": 2}, [3, 4], id="two after the second"),
        pytest.param({"match": "question 6"}, [6], id="one with a text"),
        pytest.param({"model": "other"}, [], id="another model"),
        pytest.param({"probability": 0.0}, [], id="none by chance"),
    ],
)
def test_a_fault_meets_the_requests_it_describes(server: CountingServer, when: dict[str, Any], want: list[int]) -> None:
    server.set_script({"faults": [{"type": "500", "when": when}]})
    statuses = [call(server, chat_body(f"question {i}"))[0] for i in range(1, 9)]
    assert [i for i, status in enumerate(statuses, 1) if status == 500] == want


def test_chance_is_the_same_for_the_same_seed(server: CountingServer) -> None:
    def failed(seed: int) -> list[int]:
        server.reset()
        server.set_script({"faults": [{"type": "500", "when": {"probability": 0.3, "seed": seed}}]})
        return [i for i in range(100) if call(server, chat_body())[0] == 500]

    assert failed(1) == failed(1) != failed(2)
    assert 15 < len(failed(1)) < 45


def test_what_is_more_than_it_works_at_gets_a_429(server: CountingServer) -> None:
    server.set_script({"answers": ROWS, "most_at_once": 2, "latency_ms": 3_600_000})
    with ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            pool.submit(call, server, chat_body())
        server.wait_until(lambda view: view["in_flight"] == 2)
        assert call(server, chat_body())[0] == 429
        assert server.counts()["by_fault"] == {"429": 1}
        server.stop()  # ends the two


def test_what_is_more_than_it_takes_within_a_second_gets_a_429(
    server: CountingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("tests.counting_server.server.monotonic", lambda: now[0])
    server.set_script({"answers": ROWS, "most_per_second": 2})
    assert [call(server, chat_body())[0] for _ in range(3)] == [200, 200, 429]
    now[0] += 1.0
    assert [call(server, chat_body())[0] for _ in range(3)] == [200, 200, 429]


def test_a_request_needs_the_scripts_api_key(server: CountingServer) -> None:
    server.set_script({"api_key": "sk-right", "models": ["a", "b"]})
    assert call(server, chat_body())[0] == 401
    assert call(server, chat_body(), Authorization="Bearer sk-right")[0] == 200
    assert call(server, path="/v1/models", method="GET")[0] == 401
    models = call(server, path="/v1/models", method="GET", Authorization="Bearer sk-right")[2]
    assert [model["id"] for model in models["data"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("script", "want"),
    [
        ({"fault": []}, "script.fault: unknown"),
        ({"faults": [{"type": "429"}, {"type": "boom"}]}, "script.faults[1].type: 'boom' is not a fault"),
        ({"faults": [{"type": "429", "when": {"evry": 2}}]}, "script.faults[0].when.evry: unknown"),
        ({"faults": [{"type": "429", "when": {"every": 0}}]}, "script.faults[0].when.every: 0 is not"),
        ({"faults": [{"type": "429", "retry_after": "1"}]}, "script.faults[0].retry_after: expected float"),
        ({"skill": {"base": "high"}}, "script.skill.base: expected float, got 'high'"),
        ({"stochastic": 1}, "script.stochastic: expected bool, got 1"),
        ({"hold_at": [0]}, "script.hold_at: expected ordinals from 1 on"),
        ({"latency_ms": {"min": 1}}, "script.latency_ms: expected a number"),
        ([], "script: expected an object, got list"),
    ],
)
def test_a_wrong_script_is_refused_with_its_path(server: CountingServer, script: Any, want: str) -> None:
    with pytest.raises(ScriptError, match=re.escape(want)):
        server.set_script(script)
    status, _, body = call(server, script, path="/_script")
    assert status == 400
    assert want in body["error"]["message"]


# Counts


def test_sixteen_threads_are_counted_exactly(server: CountingServer) -> None:
    server.set_script({"latency_ms": {"min": 0, "max": 3}})

    def fifty(thread: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        for i in range(50):
            connection.request("POST", "/v1/chat/completions", json.dumps(chat_body(f"{thread % 8} asks {i}")))
            assert connection.getresponse().read()
        connection.close()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(fifty, range(16)))
    counts = server.counts(keys=True)
    assert counts["requests"] == counts["answered"] == counts["by_model"]["fake"] == 800
    assert counts["by_status"] == {"200": 800}
    assert counts["distinct_keys"] == counts["repeated_keys"] == 400
    assert set(counts["keys"].values()) == {2}
    assert counts["in_flight"] == 0
    assert 1 < counts["highest_concurrency"] <= 16


def test_the_highest_concurrency_is_what_was_in_flight_at_once(server: CountingServer) -> None:
    server.set_script({"hold_at": list(range(1, 33))})
    with ThreadPoolExecutor(32) as pool:
        calls = [pool.submit(call, server, chat_body(str(i))) for i in range(32)]
        assert server.wait_until(lambda counts: counts["held"] == 32)["in_flight"] == 32
        server.release()
        assert {each.result(timeout=10)[0] for each in calls} == {200}
    counts = server.counts()
    assert (counts["highest_concurrency"], counts["in_flight"], counts["held"]) == (32, 0, 0)


def test_the_control_paths_do_what_the_methods_do(server: CountingServer) -> None:
    call(server, chat_body("first"))
    call(server, chat_body("second"))
    assert call(server, path="/_counts", method="GET")[2] == server.counts()
    assert call(server, path="/_counts?keys=1", method="GET")[2] == server.counts(keys=True)
    seen = call(server, path="/_requests?last=1", method="GET")[2]
    assert seen == server.requests(1)
    assert [json.loads(each["body"]) for each in server.requests()] == [chat_body("first"), chat_body("second")]
    assert call(server, {"faults": [{"type": "503"}]}, path="/_script")[0] == 200
    assert call(server, chat_body())[0] == 503
    assert call(server, path="/_reset")[0] == 200
    assert server.counts()["requests"] == len(server.requests()) == 0
    assert call(server, path="/_unknown")[0] == 404


@pytest.mark.parametrize("body", [[], {}, {"messages": 1}, {"messages": ["x"]}, {"messages": [], "stream": True}])
def test_a_body_that_is_no_request_is_refused(server: CountingServer, body: object) -> None:
    assert call(server, body)[0] == 400


# Kill tests


@pytest.mark.parametrize("linger", [pytest.param(None, id="in order"), pytest.param(0, id="by a reset")])
def test_a_client_that_goes_while_it_is_held_leaves_nothing_in_flight(
    server: CountingServer, capfd: pytest.CaptureFixture[str], linger: int | None
) -> None:
    server.set_script({"hold_at": 1})
    raw = json.dumps(chat_body()).encode()
    client = socket.create_connection(("127.0.0.1", server.port))
    client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(raw), raw))
    server.wait_until(lambda counts: counts["held"] == 1)
    if linger is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, linger))
    client.close()
    counts = server.wait_until(lambda counts: counts["in_flight"] == 0)
    assert counts["by_status"] == {"abandoned": 1}
    assert (counts["answered"], counts["held"], counts["prompt_tokens"]) == (0, 0, 0)
    assert call(server, chat_body())[0] == 200
    assert capfd.readouterr() == ("", "")


def test_a_test_is_told_when_a_request_arrives(server: CountingServer, tmp_path: Path) -> None:
    told = tmp_path / "told"
    server.set_script({"notify": {"at": [2, 4], "file": str(told)}})
    for _ in range(5):
        call(server, chat_body())
    assert told.read_text() == "2\n4\n"


def test_a_process_says_its_port_and_counts_on_after_a_restart(tmp_path: Path) -> None:
    script, state = tmp_path / "script.json", tmp_path / "counts.json"
    script.write_text(json.dumps({"api_key": "sk-right"}))
    command = [sys.executable, "-m", "tests.counting_server", "--script", str(script), "--state-file", str(state)]
    for want_requests in (1, 2):
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())["port"]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        headers = {"Authorization": "Bearer sk-right"}
        connection.request("POST", "/v1/chat/completions", json.dumps(chat_body()), headers)
        assert connection.getresponse().status == 200
        connection.close()
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=10) == ("", "")
        assert process.returncode == 0
        saved = json.loads(state.read_text())
        assert (saved["requests"], saved["repeated_keys"]) == (want_requests, want_requests - 1)


def test_a_server_can_stop_and_start_again_on_its_port() -> None:
    server = CountingServer().start()
    port = server.port
    assert call(server, chat_body())[0] == 200
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        call(server, chat_body())
    with server:
        assert server.port == port
        assert call(server, chat_body())[0] == 200
        with pytest.raises(OSError, match="in use"):
            CountingServer(port=port).start()
    assert server.counts()["requests"] == 2
    assert not [thread for thread in threading.enumerate() if thread.name == "counting-server"]
