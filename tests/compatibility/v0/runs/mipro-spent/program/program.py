"""PromptProgram sentiment: plain DSPy, written by dspy-operator.

Its instructions and demonstrations are in program.json beside it.

    program = load()
    with dspy.context(lm=dspy.LM("openai/MODEL", api_base="URL", **REQUEST), adapter=ADAPTER):
        prediction = program(...)

or, for one call: python program.py --model openai/MODEL --api-base URL '{"field": "value"}'
"""

import argparse
import json
import os
from pathlib import Path
from typing import Literal

import dspy


class SentimentSignature(dspy.Signature):
    """Classify the text."""

    text: str = dspy.InputField()
    label: Literal["positive", "negative"] = dspy.OutputField()


class Program(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.predict = dspy.Predict(SentimentSignature)

    def forward(self, *, text: str) -> dspy.Prediction:
        return self.predict(text=text)


ADAPTER = dspy.ChatAdapter(use_json_adapter_fallback=False)
REQUEST = {"temperature": 0.0, "max_tokens": 256}
STATE = Path(__file__).with_name("program.json")


def load(path: Path = STATE) -> Program:
    """The program with the instructions and demonstrations of its revision."""
    program = Program()
    program.load(path)
    return program


def main() -> None:
    """Call the program once: its inputs as a JSON object in, its outputs as a JSON object out."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="as DSPy names it, for example openai/gpt-4.1-mini")
    parser.add_argument("--api-base", required=True, help="URL of the endpoint, up to and including /v1")
    parser.add_argument("--api-key-env", help="environment variable that holds the API key")
    parser.add_argument("inputs", type=json.loads, help="the inputs as a JSON object")
    options = parser.parse_args()
    api_key = os.environ[options.api_key_env] if options.api_key_env else "none"
    lm = dspy.LM(options.model, api_base=options.api_base, api_key=api_key, cache=False, **REQUEST)
    with dspy.context(lm=lm, adapter=ADAPTER):
        prediction = load()(**options.inputs)
    print(json.dumps(prediction.toDict(), ensure_ascii=False, indent=2))


if __name__ == "__main__":
    main()
