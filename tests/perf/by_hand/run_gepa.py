"""GEPA by hand.

python run_gepa.py ROWS URL SEED OUT: rows are train.jsonl, validation.jsonl and test.jsonl of a folder. Plain DSPy, as its tutorials
have it, and what `dspy-operator run` does for the same rows: the first program and the compiled one, both on the test rows.
"""

import json
import random
import sys
from pathlib import Path
from typing import Any, Literal

import dspy

folder, url, seed, out = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]


class Classify(dspy.Signature):  # type: ignore[misc]
    """Classify the text."""

    text: str = dspy.InputField()
    label: Literal["positive", "negative"] = dspy.OutputField()


def rows(name: str) -> list[Any]:
    lines = (folder / f"{name}.jsonl").read_text().splitlines()
    return [dspy.Example(**json.loads(line)).with_inputs("text") for line in lines]


def exact(example: Any, prediction: Any, trace: Any = None) -> bool:
    return bool(example.label == prediction.label)


def feedback(gold: Any, pred: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> Any:
    right = exact(gold, pred)
    return dspy.Prediction(score=float(right), feedback="Right." if right else f"Wrong: the label is {gold.label}.")


random.seed(seed)
train, validation, test = rows("train"), rows("validation"), rows("test")
random.shuffle(train)
dspy.configure(lm=dspy.LM("openai/fake", api_base=url, api_key="none", temperature=0.0, max_tokens=256))
evaluate = dspy.Evaluate(devset=test, metric=exact, num_threads=8)
program = dspy.Predict(Classify)
before = evaluate(program).score
optimizer = dspy.GEPA(
    metric=feedback,
    max_metric_calls=200,
    reflection_lm=dspy.LM("openai/fake", api_base=url, api_key="none", temperature=1.0, max_tokens=256),
    seed=seed,
    num_threads=8,
)
compiled = optimizer.compile(program, trainset=train, valset=validation)
compiled.save(out)
print(json.dumps({"before": before, "after": evaluate(compiled).score}))
