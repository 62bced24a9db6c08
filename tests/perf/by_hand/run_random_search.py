"""BootstrapFewShotWithRandomSearch by hand.

python run_random_search.py ROWS URL SEED OUT: rows are train.jsonl, validation.jsonl and test.jsonl of a folder. Plain DSPy, as its tutorials
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


random.seed(seed)
train, validation, test = rows("train"), rows("validation"), rows("test")
random.shuffle(train)
dspy.configure(lm=dspy.LM("openai/fake", api_base=url, api_key="none", temperature=0.0, max_tokens=256))
evaluate = dspy.Evaluate(devset=test, metric=exact, num_threads=8)
program = dspy.Predict(Classify)
before = evaluate(program).score
optimizer = dspy.BootstrapFewShotWithRandomSearch(
    metric=exact, max_bootstrapped_demos=3, max_labeled_demos=4, num_candidate_programs=5, num_threads=8
)
compiled = optimizer.compile(program, trainset=train, valset=validation)
compiled.save(out)
print(json.dumps({"before": before, "after": evaluate(compiled).score}))
