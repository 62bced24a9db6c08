"""What a run would spend, without a call."""

from __future__ import annotations

import base64
import io
import json
import wave
from contextlib import suppress
from decimal import Decimal
from typing import Any

from dspy_operator.api.object_types import program_types
from dspy_operator.api.program import judges_of
from dspy_operator.contract.adapters import probe_calls
from dspy_operator.contract.calls import judge_calls, preflight_calls, reward_calls, scored_row_calls
from dspy_operator.contract.documents import Estimate
from dspy_operator.contract.runspec import RunSpec
from dspy_operator.runner.graph_prompts import CannotBeWalked, walk
from dspy_operator.runner.optimizers.shape import Counts
from dspy_operator.runner.prepare import Prepared
from dspy_operator.runner.prompts import step_answers
from dspy_operator.runner.spend import Tokens, price
from dspy_operator.runner.values import for_dspy

CHARACTERS_PER_TOKEN = 4
"""English text in common tokenizers; an estimate is good within a factor of 2, usage is what counts."""
IMAGE_TOKENS = 1000
"""Of an image, whatever its size: models that see count from under a hundred to some thousands."""
AUDIO_TOKENS_PER_SECOND = 20
"""Of a sound: models that hear count 10 to 32 a second."""
MP3_BYTES_PER_SECOND = 16_000
"""Of 128 kbit/s; a WAV file says it itself."""
JUDGE_CHARACTERS = 500
"""What a judge is told besides the rubric and the row."""
ANSWER_TOKENS = 64
"""Of an answer, where maxTokens does not say less; a ChainOfThought reasons for about three times as many."""


def estimate(spec: RunSpec, prepared: Prepared, counts: Counts, *, reserve_calls: int) -> Estimate:
    """Calls from the optimizer's own formula, tokens from the rendered prompts of the first rows.

    Demonstrations make prompts longer: half of the most that the optimizer may add is counted.
    """
    assert prepared.optimizer is not None and spec.optimizer is not None
    sizes = prepared.sizes
    scored = 0 if spec.optimizer.type == "Evaluate" else len(prepared.scored) * sizes.calls_per_row
    row = scored_row_calls(spec.program.program, spec.program.metric)
    words = preflight_calls(spec) - row.most
    optimize = prepared.optimizer.calls(counts, sizes)
    rescored = (0 if prepared.optimizer.uses_validation else scored) + (scored if spec.start_from else 0)
    calls = max(sizes.calls_per_row, scored + words) + optimize + rescored + reserve_calls
    calls += probe_calls(spec) + prepared.calibration_calls
    row_tokens = prompt_tokens(spec, prepared)
    demos = max(
        each.get(name, 0)
        for each in (counts, *counts.get("stages", ()))
        for name in ("max_bootstrapped_demos", "max_labeled_demos", "k")
    )
    example = max(16, row_tokens // 4)
    input_tokens = row_tokens + demos * example // 2
    reasoning = prepared.program.source.count("dspy.ChainOfThought(")
    most = spec.endpoints["task"].request.max_tokens or 1_000_000
    output_tokens = min(ANSWER_TOKENS * (3 if reasoning else 1), most)
    judging = judge_calls(spec.program.metric) + reward_calls(spec.program.program)
    judged = calls * judging.usual // row.usual
    by_role = {
        "task": Tokens((calls - judged) * input_tokens, 0, (calls - judged) * output_tokens),
        "judge": Tokens(judged * judge_tokens(spec, prepared), 0, judged * ANSWER_TOKENS),
    }
    used = {role: tokens for role, tokens in by_role.items() if tokens.total}
    prices = {role: spec.endpoints[role].pricing for role in used}  # type: ignore[index]  # both are roles
    cost = None
    if all(prices.values()):
        cost = sum((price(tokens, prices[role]) for role, tokens in used.items()), Decimal(0))
    return Estimate(
        calls=calls,
        tokens=sum(tokens.total for tokens in used.values()),
        cost=f"{cost.quantize(Decimal('0.000001')):f}" if cost is not None else None,
        reserved_calls=reserve_calls,
        optimize_calls=optimize,
    )


def judge_tokens(spec: RunSpec, prepared: Prepared) -> int:
    """Mean tokens of what a judge is shown, over a few rows: rubric, inputs, and the outputs twice."""
    judges = judges_of(spec.program.program, spec.program.metric).values()
    rows = prepared.parts.dev[:5]
    if not judges or not rows:
        return 0
    rubric = sum(len(judge.instructions) for judge in judges) // len(judges)
    shown = sum(
        len(
            json.dumps(
                [*(row.inputs[name] for name in prepared.metric.inputs), *[*row.outputs.values()] * 2], default=str
            )
        )
        for row in rows
    )
    return (JUDGE_CHARACTERS + rubric + shown // len(rows)) // CHARACTERS_PER_TOKEN


def _characters(content: str | list[dict[str, Any]]) -> int:
    if isinstance(content, str):
        return len(content)
    return sum(len(part["text"]) if "text" in part else _tokens(part) * CHARACTERS_PER_TOKEN for part in content)


def _tokens(part: dict[str, Any]) -> int:
    """Of an image or a sound."""
    if part["type"] != "input_audio":
        return IMAGE_TOKENS
    sound = part["input_audio"]
    data: str = sound["data"]
    rate = MP3_BYTES_PER_SECOND
    if sound["format"] == "wav":
        with suppress(wave.Error, EOFError, ValueError), wave.open(io.BytesIO(base64.b64decode(data))) as opened:
            rate = opened.getframerate() * opened.getnchannels() * opened.getsampwidth()
    return AUDIO_TOKENS_PER_SECOND * (len(data) * 3 // 4) // rate


def prompt_tokens(spec: RunSpec, prepared: Prepared) -> int:
    """Mean tokens of one call of the program, rendered for a few rows."""
    module, adapter = prepared.program.fresh(), prepared.program.adapter
    graph = program_types(spec.program.program, spec.program.types).graph
    sent: list[list[dict[str, Any]]] = []
    for row in [*prepared.parts.dev[:5], *prepared.parts.test[:5]]:
        if graph is not None:
            with suppress(CannotBeWalked):
                steps, _ = walk(module, graph, row.inputs, row.outputs, step_answers(adapter))
                sent += [step["messages"] for step in steps if "messages" in step]
            continue
        for predictor in module.predictors():
            inputs = {name: row.inputs[name] for name in predictor.signature.input_fields if name in row.inputs}
            inputs = for_dspy(predictor.signature.input_fields, inputs)
            sent.append(adapter.format(predictor.signature, demos=predictor.demos, inputs=inputs))
    characters = sum(_characters(message["content"]) for messages in sent for message in messages)
    return max(1, characters // max(1, len(sent)) // CHARACTERS_PER_TOKEN)
