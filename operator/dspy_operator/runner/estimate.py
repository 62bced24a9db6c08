"""What a run would spend, without a call."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from typing import Any

from dspy_operator.api.object_types import program_types
from dspy_operator.contract.adapters import probe_calls
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
ANSWER_TOKENS = 64
"""Of an answer, where maxTokens does not say less; a ChainOfThought reasons for about three times as many."""


def estimate(spec: RunSpec, prepared: Prepared, counts: Counts, *, reserve_calls: int) -> Estimate:
    """Calls from the optimizer's own formula, tokens from the rendered prompts of the first rows.

    Demonstrations make prompts longer: half of the most that the optimizer may add is counted.
    """
    assert prepared.optimizer is not None and spec.optimizer is not None
    sizes = prepared.sizes
    scored = 0 if spec.optimizer.type == "Evaluate" else len(prepared.scored) * sizes.calls_per_row
    endpoints = len({(endpoint.name, endpoint.model) for endpoint in spec.endpoints.values()})
    optimize = prepared.optimizer.calls(counts, sizes)
    rescored = (0 if prepared.optimizer.uses_validation else scored) + (scored if spec.start_from else 0)
    calls = max(sizes.calls_per_row, scored + endpoints - 1) + optimize + rescored + reserve_calls + probe_calls(spec)
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
    task = spec.endpoints["task"]
    cost = price(Tokens(calls * input_tokens, 0, calls * output_tokens), task.pricing) if task.pricing else None
    return Estimate(
        calls=calls,
        tokens=calls * (input_tokens + output_tokens),
        cost=f"{cost.quantize(Decimal('0.000001')):f}" if cost is not None else None,
        reserved_calls=reserve_calls,
        optimize_calls=optimize,
    )


def _characters(content: str | list[dict[str, Any]]) -> int:
    if isinstance(content, str):
        return len(content)
    return sum(len(part["text"]) if "text" in part else IMAGE_TOKENS * CHARACTERS_PER_TOKEN for part in content)


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
