"""What a run would spend: calls from the optimizer's formula, tokens from rendered prompts, money from the price list."""

from __future__ import annotations

import base64
import functools
import io
import json
import wave
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from dspy_operator.contract.documents import Estimate
from dspy_operator.contract.reserve import judgement_calls
from dspy_operator.contract.resolve import Surroundings, resolve
from dspy_operator.contract.runspec import Paths
from dspy_operator.runner.estimate import (
    ANSWER_TOKENS,
    AUDIO_TOKENS_PER_SECOND,
    IMAGE_TOKENS,
    MP3_BYTES_PER_SECOND,
    estimate,
)
from dspy_operator.runner.prepare import prepare
from tests.unit.written import endpoint, program, run

PRICING = {"currency": "USD", "input": "0.15", "output": "0.60"}
DEV, TEST = 20, 10


def estimated(
    folder: Path,
    optimizer: dict[str, Any],
    *,
    words: int = 5,
    arms: int = 2,
    ticket: Callable[[int], str] | None = None,
    **of_program: Any,
) -> Estimate:
    """The estimate of a run over 20 dev rows (10 train, 10 validation) and 10 test rows."""
    data = folder / "rows.jsonl"
    rows = [
        {
            "ticket": ticket(number) if ticket else f"{number} " + "word " * words,
            "label": "a",
            "part": "dev" if number < DEV else "test",
        }
        for number in range(DEV + TEST)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    around = Surroundings(data_path=str(data), paths=Paths(journal="j", out=str(folder), control="c"))
    split = {"dataset.split": {"type": "Column", "column": {"name": "part"}}}
    priced = endpoint({"pricing": PRICING} if of_program.pop("priced", True) else None)
    spec = resolve(run({"optimizer": optimizer}), program(split | of_program), {"default/qwen": priced}, around)
    prepared = prepare(spec)
    assert prepared.optimizer is not None
    counts = prepared.optimizer.counts(prepared.options, prepared.sizes, None)
    return estimate(spec, prepared, counts, reserve_calls=judgement_calls(TEST, arms))


def test_an_evaluation_asks_each_test_row_once_and_knocks_before(tmp_path: Path) -> None:
    found = estimated(tmp_path, {"type": "Evaluate"}, arms=1)
    assert (found.calls, found.reserved_calls, found.optimize_calls) == (TEST + 1, TEST, 0)


def test_labelled_demonstrations_cost_nothing_but_baseline_dev_and_judgement(tmp_path: Path) -> None:
    found = estimated(tmp_path, {"type": "LabeledFewShot"})
    assert (found.calls, found.optimize_calls) == (DEV + DEV + 2 * TEST, 0)


def test_more_trials_are_more_calls(tmp_path: Path) -> None:
    few, many = (
        estimated(tmp_path, {"type": "MIPROv2", "miproV2": {"numCandidates": 4, "numTrials": trials}})
        for trials in (5, 15)
    )
    assert many.calls - few.calls == 10 * (DEV // 2)


def test_longer_rows_are_more_tokens_and_not_more_calls(tmp_path: Path) -> None:
    short, long = (estimated(tmp_path, {"type": "Evaluate"}, words=words) for words in (5, 500))
    assert short.calls == long.calls
    assert short.calls * 550 < long.tokens - short.tokens < short.calls * 700  # 495 words of 5 characters, 4 to a token


def test_an_image_counts_as_one_whatever_its_letters(tmp_path: Path) -> None:
    def looking_at(ticket: Callable[[int], str], type_: str = "Image") -> Estimate:
        inputs: dict[str, Any] = {"program.single.signature.inputs": [{"name": "ticket", "type": type_}]}
        return estimated(tmp_path, {"type": "Evaluate"}, ticket=ticket, **inputs)

    def by_value(number: int) -> str:
        return f"data:image/png;base64,{number:04}" + "A" * 100_000

    images = looking_at(lambda number: f"https://example.com/{number}.png")
    text = looking_at(lambda number: f"{number}", "str")
    assert looking_at(by_value) == images
    assert images.tokens - text.tokens == pytest.approx(IMAGE_TOKENS * images.calls, rel=0.1)


def a_wav(seconds: int, number: int) -> str:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes([number]) * 16_000 * seconds)
    return f"data:audio/wav;base64,{base64.b64encode(file.getvalue()).decode()}"


def test_a_sound_counts_by_its_seconds(tmp_path: Path) -> None:
    def hearing(sound: Callable[[int], str]) -> Estimate:
        inputs: dict[str, Any] = {"program.single.signature.inputs": [{"name": "ticket", "type": "Audio"}]}
        return estimated(tmp_path, {"type": "Evaluate"}, ticket=sound, **inputs)

    def mp3(number: int) -> str:
        data = bytes([number]) * 10 * MP3_BYTES_PER_SECOND
        return f"data:audio/mp3;base64,{base64.b64encode(data).decode()}"

    short, long = (hearing(functools.partial(a_wav, seconds)) for seconds in (10, 60))
    assert long.tokens - short.tokens == pytest.approx(50 * AUDIO_TOKENS_PER_SECOND * long.calls, rel=0.02)
    assert hearing(mp3).tokens == pytest.approx(short.tokens, rel=0.02)


def test_demonstrations_make_prompts_longer(tmp_path: Path) -> None:
    few, many = (estimated(tmp_path, {"type": "LabeledFewShot", "labeledFewShot": {"k": k}}) for k in (1, 16))
    assert many.calls == few.calls
    assert many.tokens > few.tokens


def test_reasoning_triples_an_answer_and_max_tokens_bounds_it(tmp_path: Path) -> None:
    evaluate = {"type": "Evaluate"}
    module: dict[str, Any] = {"program.single.module": {"type": "ChainOfThought"}}
    reasoned = estimated(tmp_path, evaluate, **module)
    bounded = estimated(tmp_path, evaluate, **(module | {"target.request": {"maxTokens": ANSWER_TOKENS}}))
    assert reasoned.tokens - bounded.tokens == reasoned.calls * 2 * ANSWER_TOKENS


def test_money_is_the_price_list_times_tokens_or_unknown(tmp_path: Path) -> None:
    found = estimated(tmp_path, {"type": "Evaluate"})
    assert found.cost is not None
    lowest, highest = (Decimal(found.tokens) * Decimal(price) / 1_000_000 for price in ("0.15", "0.60"))
    assert lowest < Decimal(found.cost) < highest
    assert estimated(tmp_path, {"type": "Evaluate"}, priced=False).cost is None


@pytest.mark.parametrize("kind", ["Evaluate", "LabeledFewShot", "BootstrapFewShot", "MIPROv2", "GEPA"])
def test_every_optimizer_estimates_at_least_its_own_judgement(tmp_path: Path, kind: str) -> None:
    found = estimated(tmp_path, {"type": kind})
    assert found.calls >= found.reserved_calls + 1
    assert found.calls >= found.reserved_calls + found.optimize_calls
