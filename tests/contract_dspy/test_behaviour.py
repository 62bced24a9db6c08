"""What no fingerprint shows: how DSPy 3.4 behaves where the Ledger and the watcher stand."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import dspy
import pytest
from dspy import lm15
from dspy._vendor.lm15.types import AudioPart
from dspy.clients.engines.lm15_engine import LM15Engine
from dspy.utils.callback import BaseCallback
from dspy.utils.exceptions import AdapterParseError, ContextWindowExceededError, LMError

from dspy_operator.runner.ledger import RequestFailed, RequestTooLong
from tests.contract_dspy.endpoint import ANSWERS, Engine, Stop, stops_from

NEVER = 10**9


class Judge(dspy.Signature):  # type: ignore[misc]  # DSPy is untyped here
    """Say yes or no."""

    text: str = dspy.InputField()
    label: str = dspy.OutputField()


ROWS = [dspy.Example(text=text, label=label).with_inputs("text") for text, label in ANSWERS.items()]


def exact(example: Any, prediction: Any, trace: Any = None) -> float:
    return float(getattr(prediction, "label", None) == example.label)


def for_gepa(gold: Any, pred: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> Any:
    return dspy.Prediction(score=exact(gold, pred), feedback="as it is")


def look_up(word: str) -> str:
    """Look it up."""
    return word


def reward(inputs: Any, prediction: Any) -> float:
    return 0.0


def lm(engine: Engine, **options: Any) -> Any:
    return dspy.LM(
        "openai/m", **{"temperature": 0.0, "max_tokens": 64} | options, cache=False, num_retries=0, engine=engine
    )


def asking(engine: Engine, **options: Any) -> Any:
    """The settings of a run (flow.py)."""
    return dspy.context(
        lm=lm(engine),
        disable_history=True,
        max_errors=NEVER,
        num_threads=2,
        adapter=dspy.ChatAdapter(use_json_adapter_fallback=False),
        **options,
    )


# --- the engine: one complete() a request -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "want"),
    [
        pytest.param(lambda: dspy.Predict(Judge), 1, id="Predict"),
        pytest.param(lambda: dspy.ChainOfThought(Judge), 1, id="ChainOfThought"),
        pytest.param(lambda: dspy.MultiChainComparison(Judge, M=3), 1, id="MultiChainComparison, its attempts given"),
        pytest.param(lambda: dspy.BestOfN(dspy.Predict(Judge), N=3, reward_fn=reward, threshold=1.0), 3, id="BestOfN"),
        pytest.param(lambda: dspy.Refine(dspy.Predict(Judge), N=3, reward_fn=reward, threshold=1.0), 5, id="Refine, two pieces of advice"),
    ],
)  # fmt: skip
def test_a_module_makes_one_engine_call_for_each_of_its_requests(module: Callable[[], Any], want: int) -> None:
    engine = Engine()
    with asking(engine):
        made = module()
        if isinstance(made, dspy.MultiChainComparison):
            made([dspy.Prediction(reasoning="so", label="yes")] * 3, text="text 1.")
        else:
            made(text="text 1.")
    assert len(engine.requests) == want


def test_n_is_n_engine_calls_within_one_call_of_the_lm() -> None:
    engine, calls = Engine(), []

    class Counted(dspy.LM):  # type: ignore[misc]
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            calls.append(len(engine.requests))
            return super().__call__(*args, **kwargs)

    counted = Counted("openai/m", engine=engine, cache=False, num_retries=0, temperature=1.0)
    with dspy.context(lm=counted):
        prediction = dspy.Predict(Judge)(text="text 1.", config={"n": 3, "temperature": 1.0})
    assert calls == [0] and len(engine.requests) == 3 and len(prediction.completions) == 3


def test_a_rollout_is_known_to_the_lm_and_not_to_the_engine() -> None:
    engine, known = Engine(), []

    class Knowing(dspy.LM):  # type: ignore[misc]
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            known.append(kwargs.get("rollout_id", self.kwargs.get("rollout_id")))
            return super().__call__(*args, **kwargs)

    made = Knowing("openai/m", engine=engine, cache=False, num_retries=0, temperature=1.0)
    with dspy.context(lm=made.copy(rollout_id=7)):
        dspy.Predict(Judge)(text="text 1.")
        dspy.Predict(Judge)(text="text 1.", config={"rollout_id": 8, "temperature": 1.0})
    assert known == [7, 8]
    assert engine.requests[0] == engine.requests[1] and "rollout" not in str(engine.requests)


def test_a_copy_of_a_program_asks_the_same_engine() -> None:
    engine = Engine()
    program = dspy.Predict(Judge)
    program.lm = lm(engine)
    program.deepcopy()(text="text 1.")
    program.reset_copy()
    assert len(engine.requests) == 1 and program.lm.copy(temperature=1.0).engine is engine


@pytest.mark.parametrize(("cached", "want"), [(False, (0, 0)), (True, (1, 1))], ids=["ours", "DSPy's own"])
def test_its_own_cache_is_asked_once_and_filled_once_a_call_or_not_at_all(
    cached: bool, want: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dspy.clients.cache import Cache

    cache = Cache(enable_disk_cache=False, enable_memory_cache=True, disk_cache_dir="")
    counts = {"get": 0, "put": 0}
    for name in counts:
        original = getattr(cache, name)

        def counted(*args: Any, _name: str = name, _original: Any = original, **kwargs: Any) -> Any:
            counts[_name] += 1
            return _original(*args, **kwargs)

        monkeypatch.setattr(cache, name, counted)
    monkeypatch.setattr(dspy, "cache", cache)
    with dspy.context(lm=dspy.LM("openai/m", engine=Engine(), cache=cached, num_retries=0, temperature=0.0)):
        dspy.Predict(Judge)(text="text 1.")
    assert (counts["get"], counts["put"]) == want


@pytest.mark.parametrize(
    ("failure", "want"),
    [
        pytest.param(RequestFailed("no"), LMError, id="a request that fails for ever"),
        pytest.param(RequestTooLong("no"), ContextWindowExceededError, id="one that is too long"),
        pytest.param(Stop("now"), Stop, id="a stop"),
    ],
)
def test_what_the_engine_raises_comes_out_as(failure: BaseException, want: type[BaseException]) -> None:
    with asking(engine := Engine(fails=lambda _: failure)), pytest.raises(want):
        dspy.Predict(Judge)(text="text 1.")
    assert len(engine.requests) == 1


def test_an_answer_that_cannot_be_read_is_asked_for_once() -> None:
    engine = Engine(says="nothing of the kind")
    with asking(engine), pytest.raises(AdapterParseError) as caught:
        dspy.Predict(Judge)(text="text 1.")
    assert len(engine.requests) == 1 and caught.value.lm_response == "nothing of the kind"


# --- a BaseException gets out of everything ----------------------------------------------------------------------------

STUDENTS: dict[str, Callable[[], Any]] = {
    "Predict": lambda: dspy.Predict(Judge),
    "ChainOfThought": lambda: dspy.ChainOfThought(Judge),
    "ReAct": lambda: dspy.ReAct(Judge, tools=[look_up], max_iters=3),
    "BestOfN": lambda: dspy.BestOfN(dspy.Predict(Judge), N=3, reward_fn=reward, threshold=1.0),
    "Refine": lambda: dspy.Refine(dspy.Predict(Judge), N=3, reward_fn=reward, threshold=1.0),
}
ADAPTERS = {
    "Chat": lambda: dspy.ChatAdapter(use_json_adapter_fallback=False),
    "Chat with its fallback": dspy.ChatAdapter,
    "JSON": dspy.JSONAdapter,
    "XML": dspy.XMLAdapter,
}


@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize("name", STUDENTS)
def test_a_stop_gets_out_of_every_module(name: str, first: int) -> None:
    with asking(engine := Engine(fails=stops_from(first))):
        student = STUDENTS[name]()
        with pytest.raises(Stop):
            _asked(student, times=first)
    assert len(engine.requests) == first


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_stop_gets_out_of_every_adapter(name: str) -> None:
    with dspy.context(lm=lm(engine := Engine(fails=stops_from(1))), adapter=ADAPTERS[name]()), pytest.raises(Stop):
        dspy.Predict(Judge)(text="text 1.")
    assert len(engine.requests) == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_a_stop_gets_out_of_an_evaluation(threads: int) -> None:
    evaluate = dspy.Evaluate(devset=ROWS, metric=exact, num_threads=threads, max_errors=NEVER)
    with asking(Engine(fails=stops_from(5))), pytest.raises(Stop):
        evaluate(dspy.Predict(Judge))


def _bootstrap(student: Any, prompt: Any) -> Any:
    return dspy.BootstrapFewShot(metric=exact, max_errors=NEVER).compile(student, trainset=ROWS)


def _random_search(student: Any, prompt: Any) -> Any:
    optimizer = dspy.BootstrapFewShotWithRandomSearch(
        metric=exact, num_candidate_programs=2, num_threads=2, max_errors=NEVER
    )
    return optimizer.compile(student, trainset=ROWS[:12], valset=ROWS[12:])


def _mipro(student: Any, prompt: Any) -> Any:
    optimizer = dspy.MIPROv2(
        metric=exact, prompt_model=prompt, task_model=dspy.settings.lm, auto=None, num_candidates=3, num_threads=2,
        max_errors=NEVER, seed=1,
    )  # fmt: skip
    return optimizer.compile(student, trainset=ROWS[:12], valset=ROWS[12:], num_trials=2, minibatch=False)


def _gepa(student: Any, prompt: Any) -> Any:
    optimizer = dspy.GEPA(metric=for_gepa, max_metric_calls=60, reflection_lm=prompt, num_threads=2, seed=1)
    return optimizer.compile(student, trainset=ROWS[:12], valset=ROWS[12:])


def _copro(student: Any, prompt: Any) -> Any:
    optimizer = dspy.COPRO(prompt_model=prompt, metric=exact, breadth=2, depth=2)
    return optimizer.compile(student, trainset=ROWS[:8], eval_kwargs={"num_threads": 2})


def _simba(student: Any, prompt: Any) -> Any:
    optimizer = dspy.SIMBA(metric=exact, bsize=6, num_candidates=2, max_steps=2, num_threads=2, prompt_model=prompt)
    return optimizer.compile(student, trainset=ROWS, seed=1)


def _infer_rules(student: Any, prompt: Any) -> Any:
    optimizer = dspy.InferRules(metric=exact, num_candidates=2, num_rules=2, num_threads=2, max_errors=NEVER)
    optimizer.rules_induction_program.teacher_settings = {"lm": prompt}
    return optimizer.compile(student, trainset=ROWS[:12], valset=ROWS[12:])


def _better_together(student: Any, prompt: Any) -> Any:
    optimizer = dspy.BetterTogether(metric=exact, p=dspy.BootstrapFewShot(metric=exact, max_errors=NEVER))
    student.set_lm(dspy.settings.lm)
    return optimizer.compile(student, trainset=ROWS[:12], valset=ROWS[12:], strategy="p")


OPTIMIZERS: dict[str, tuple[Callable[[Any, Any], Any], tuple[int, ...]]] = {
    "BootstrapFewShot": (_bootstrap, (1, 3)),
    "BootstrapFewShotWithRandomSearch": (_random_search, (1, 14, 40)),
    "MIPROv2": (_mipro, (1, 9, 22, 40)),
    "GEPA": (_gepa, (1, 14, 20)),
    "COPRO": (_copro, (1, 10, 20)),
    "SIMBA": (_simba, (1, 14, 30)),
    "InferRules": (_infer_rules, (1, 6, 14)),
    "BetterTogether": (_better_together, (1, 14)),
}
"""How each is compiled, and at which calls it is stopped: bootstraps, proposals, evaluations."""


@pytest.mark.parametrize(
    ("name", "first"), [(name, first) for name, (_, points) in OPTIMIZERS.items() for first in points]
)
def test_a_stop_gets_out_of_every_optimizer(name: str, first: int) -> None:
    engine = Engine(fails=stops_from(first))
    with asking(engine), pytest.raises(Stop):
        OPTIMIZERS[name][0](dspy.Predict(Judge), lm(engine, temperature=1.0))
    assert (
        first <= len(engine.requests) <= first + 40
    )  # what was queued in threads asks in vain; the Ledger sends nothing


def test_labeled_few_shot_asks_nothing() -> None:
    with asking(engine := Engine()):
        compiled = dspy.LabeledFewShot(k=4).compile(dspy.Predict(Judge), trainset=ROWS)
    assert not engine.requests and len(compiled.demos) == 4


# --- callbacks ---------------------------------------------------------------------------------------------------------


@dataclass
class Seen(BaseCallback):  # type: ignore[misc]
    raises: BaseException | None = None
    started: list[dict[str, Any]] = field(default_factory=list)
    ended: list[Any] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    parsed: list[BaseException | None] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self.started.append({"instance": instance, **inputs})

    def on_evaluate_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        self.ended.append(outputs)
        if self.raises is not None:
            raise self.raises

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        with self._lock:
            self.answers.append(outputs)

    def on_adapter_parse_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        with self._lock:
            self.parsed.append(exception)


def test_an_evaluation_tells_its_program_its_set_and_every_score_in_order() -> None:
    seen, program = Seen(), dspy.Predict(Judge)
    with asking(Engine(), callbacks=[seen]):
        dspy.Evaluate(devset=ROWS, metric=exact, num_threads=2)(program)
    (start,), (outputs,) = seen.started, seen.ended
    assert start["program"] is program and (start.get("devset") or start["instance"].devset) == ROWS
    assert [example for example, _, _ in outputs.results] == ROWS
    assert all(isinstance(score, float) for *_, score in outputs.results)
    assert outputs.score == round(100 * sum(score for *_, score in outputs.results) / len(ROWS), 2)
    assert len(seen.answers) == len(seen.parsed) == len(ROWS) and set(seen.parsed) == {None}
    assert all(isinstance(text, str) for answers in seen.answers for text in answers)


def test_a_callbacks_exception_is_lost_and_its_stop_is_not() -> None:
    evaluate = dspy.Evaluate(devset=ROWS[:2], metric=exact, num_threads=2)
    with asking(Engine(), callbacks=[Seen(raises=ValueError("lost"))]):
        evaluate(dspy.Predict(Judge))
    with asking(Engine(), callbacks=[Seen(raises=Stop("kept"))]), pytest.raises(Stop):
        evaluate(dspy.Predict(Judge))


def test_an_empty_answer_is_told_before_it_is_refused() -> None:
    engine, seen = Engine(says=""), Seen()
    with asking(engine, callbacks=[seen]), pytest.raises(AdapterParseError):
        dspy.Predict(Judge)(text="text 1.")
    assert seen.answers == [[""]] and not seen.parsed


@pytest.mark.parametrize(
    ("compile_", "want"),
    [
        pytest.param(_random_search, 5, id="BootstrapFewShotWithRandomSearch, one each candidate"),
        pytest.param(_infer_rules, 2, id="InferRules, one each candidate"),
        pytest.param(_mipro, 3, id="MIPROv2, the default program and each trial"),
        pytest.param(_copro, 4, id="COPRO, breadth times depth"),
        pytest.param(_simba, 0, id="SIMBA, none: it is watched elsewhere"),
        pytest.param(_bootstrap, 0, id="BootstrapFewShot, none: it is watched elsewhere"),
    ],
)
def test_an_optimizer_makes_as_many_evaluations_as_we_mark(compile_: Callable[[Any, Any], Any], want: int) -> None:
    seen, engine = Seen(), Engine()
    with asking(engine, callbacks=[seen]):
        compile_(dspy.Predict(Judge), lm(engine, temperature=1.0))
    assert len(seen.ended) == want


def test_an_evaluation_that_fails_too_often_ends_in_these_words() -> None:
    failing = Engine(fails=lambda _: RequestFailed("no"))
    with asking(failing), pytest.raises(Exception, match=r"^Execution cancelled"):
        dspy.Evaluate(devset=ROWS, metric=exact, num_threads=2, max_errors=3)(dspy.Predict(Judge))


def test_two_identical_runs_send_the_same_requests() -> None:
    sent = []
    for _ in range(2):
        with asking(engine := Engine()):
            _random_search(dspy.Predict(Judge), None)
        sent.append(sorted(map(str, engine.requests)))
    assert sent[0] == sent[1]


def _asked(student: Any, *, times: int) -> None:
    for _ in range(times):
        student(text="a text that no script knows")


def test_the_native_client_sends_no_audio_yet() -> None:
    """When it does, runner/audio.py and the litellm of program.py go."""
    config = lm15.RouterConfig(api_keys={"openai-chat": "none"}, env={})
    parts = (AudioPart(data="UklGRg==", media_type="audio/wav"),)
    request = lm15.Request(model="openai/m", messages=(lm15.Message(role="user", parts=parts),))
    with pytest.raises(lm15.UnsupportedFeatureError, match="audio part"):
        LM15Engine(config).plan(request)
