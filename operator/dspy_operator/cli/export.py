"""A revision for programs that have no DSPy: the same messages, written as other libraries read them.

Everything comes from `prompts.json`. What a format cannot hold is refused: a prompt that is nearly the same is another prompt.
"""

from __future__ import annotations

import json
import pprint
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from typing import Any

import yaml

from dspy_operator.cli.exported import SENT_AS, rendered
from dspy_operator.cli.revisions import Revision
from dspy_operator.contract.exits import Reason, RunFailed


class Target(StrEnum):
    """Whose prompt it becomes."""

    PYTHON = "python"
    """A module of the standard library alone: messages(), body(), outputs(); run as a program it checks itself."""
    OPENAI = "openai"
    """The body of /chat/completions as JSON, {{placeholders}} for inputs."""
    LANGCHAIN = "langchain"
    """A ChatPromptTemplate as `langchain_core.load.load` reads it."""
    MLFLOW = "mlflow"
    """Arguments of `mlflow.genai.register_prompt` as JSON."""
    PROMPTFOO = "promptfoo"
    """A promptfooconfig.yaml with the prompt, the provider and the revision's vectors as tests."""


_RENDERED = {"text", "scalar", "json", "byValue"}
_NUNJUCKS = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_MUSTACHE = re.compile(r"\{\{\s*([\w.]+)\s*\}\}")


@dataclass(frozen=True)
class _Prompt:
    """What all formats are made from."""

    revision: Revision
    predictor: Mapping[str, Any]
    model: str
    """As the run's endpoint names it; empty where provenance.json is not at hand."""

    @property
    def placeholders(self) -> dict[str, str]:
        """Placeholder -> input."""
        return {spec["placeholder"]: name for name, spec in self.predictor["inputs"].items()}

    def pieces(self, content: str) -> list[tuple[bool, str]]:
        """A message as (is it an input, its name or the literal text)."""
        holes = self.placeholders
        if not holes:
            return [(False, content)]
        parts = re.split(f"({'|'.join(map(re.escape, holes))})", content)
        return [(part in holes, holes.get(part, part)) for part in parts if part]

    def request(self) -> dict[str, Any]:
        """How it samples, as OpenAI's API names it."""
        written = self.revision.prompts["request"].items()
        return {SENT_AS[name]: float(value) if isinstance(value, str) else value for name, value in written}

    def with_response_format(self, body: dict[str, Any]) -> dict[str, Any]:
        """With the schema that answers are held to, where there is one."""
        form = self.predictor["responseFormat"]
        return {**body, "response_format": form} if form else body


def export(revision: Revision, target: Target) -> str:
    """The revision as one file of another library.

    Raises:
        RunFailed: InvalidManifest where the format cannot hold the prompt, saying which part.
    """
    if "output" in revision.prompts:
        raise _cannot(revision, target, "it is a graph and not one prompt; its program.py runs with DSPy")
    for step in revision.prompts["wiring"]:
        if "attempts" in step:
            why = f"{step['attempts']['type']} asks several times and keeps the best answer; its program.py does, with DSPy"
            raise _cannot(revision, target, why)
    if not revision.prompts["predictors"]:
        raise _cannot(revision, target, "it is code, which alone says what is asked; its program.py runs with DSPy")
    if len(revision.prompts["predictors"]) != 1:
        raise _cannot(revision, target, "it has several predictors; its program.py runs with DSPy")
    (predictor,) = revision.prompts["predictors"].values()
    for name, spec in predictor["inputs"].items():
        if spec["render"] not in _RENDERED:
            raise _cannot(revision, target, f"its input {name} is no text; its program.py runs with DSPy")
    return _WRITERS[target](_Prompt(revision, predictor, _model(revision.provenance)))


def _model(provenance: Mapping[str, Any]) -> str:
    model = ((provenance.get("endpoints") or {}).get("task") or {}).get("model")
    return model if isinstance(model, str) else ""


def _python(prompt: _Prompt) -> str:
    reader = resources.files("dspy_operator.cli").joinpath("exported.py").read_text(encoding="utf-8")
    kept = {name: prompt.revision.prompts[name] for name in ("request", "answer", "vectors")}
    literal = pprint.pformat({**prompt.predictor, **kept}, width=110, sort_dicts=False)
    return reader.replace("REVISION", prompt.revision.name).replace(
        "PROMPT: dict[str, Any] = {}", f"PROMPT: dict[str, Any] = {literal}"
    )


def _openai(prompt: _Prompt) -> str:
    body = prompt.with_response_format({"messages": prompt.predictor["messages"], **prompt.request()})
    document = {"body": {"model": prompt.model, **body} if prompt.model else body, "inputs": prompt.predictor["inputs"]}
    return _json(document)


def _langchain(prompt: _Prompt) -> str:
    def made(module: str, name: str, **options: Any) -> dict[str, Any]:
        return {"lc": 1, "type": "constructor", "id": ["langchain", "prompts", module, name], "kwargs": options}

    kinds = {"system": "System", "user": "Human", "assistant": "AI"}
    messages = []
    for message in prompt.predictor["messages"]:
        pieces = prompt.pieces(message["content"])
        text = "".join(f"{{{part}}}" if hole else part.replace("{", "{{").replace("}", "}}") for hole, part in pieces)
        names = sorted({part for hole, part in pieces if hole})
        template = made("prompt", "PromptTemplate", input_variables=names, template=text, template_format="f-string")
        messages.append(made("chat", f"{kinds[message['role']]}MessagePromptTemplate", prompt=template))
    inputs = sorted(prompt.predictor["inputs"])
    return _json(made("chat", "ChatPromptTemplate", input_variables=inputs, messages=messages))


def _mlflow(prompt: _Prompt) -> str:
    messages = []
    for message in prompt.predictor["messages"]:
        pieces = prompt.pieces(message["content"])
        for hole, part in pieces:
            if not hole and (found := _MUSTACHE.search(part)):
                raise _cannot(
                    prompt.revision, Target.MLFLOW, f"a message has {found[0]} in it, which MLflow takes for a variable"
                )
        text = "".join(f"{{{{{part}}}}}" if hole else part for hole, part in pieces)
        messages.append({"role": message["role"], "content": text})
    request = prompt.request()
    settings = {"model_name": prompt.model, **request} if prompt.model else request
    name = prompt.revision.name.rpartition("-")[0] or "prompt"
    return _json(
        {"name": name, "template": messages, "model_config": settings, "commit_message": prompt.revision.digest}
    )


def _promptfoo(prompt: _Prompt) -> str:
    def nunjucks(text: str) -> str:
        # promptfoo renders the text and then reads it as JSON: so a message is one expression, dumped as a whole.
        pieces = prompt.pieces(text) or [(False, "")]
        return " ~ ".join(part if hole else f'"{part.translate(_NUNJUCKS)}"' for hole, part in pieces)

    # On lines of their own: promptfoo takes a text of one line for the pattern of file names first, for minutes.
    messages = ",\n".join(
        f'{{"role": "{message["role"]}", "content": {{{{ ({nunjucks(message["content"])}) | dump }}}}}}'
        for message in prompt.predictor["messages"]
    )
    config = prompt.with_response_format(prompt.request())
    vectors = prompt.revision.prompts.get("vectors") or []
    return yaml.safe_dump(
        {
            "description": f"{prompt.revision.name}, {prompt.revision.digest}",
            "prompts": [{"id": prompt.revision.name, "raw": f"[\n{messages}\n]"}],
            "providers": [{"id": f"openai:chat:{prompt.model or 'MODEL'}", "config": config}],
            # As texts: promptfoo makes a test of each item of a list, and knows no null.
            "tests": [
                {"vars": {name: _as_it_is(rendered(value)) for name, value in vector["inputs"].items()}}
                for vector in vectors
            ],
        },
        allow_unicode=True,
        sort_keys=False,
        width=10**6,
    )


def _as_it_is(value: str) -> str:
    """For promptfoo, which fills in what looks like a placeholder in a value, too."""
    return re.sub(r"\{(?=[{%#])", '{{ "{" }}', value)


_WRITERS: Mapping[Target, Callable[[_Prompt], str]] = {
    Target.PYTHON: _python,
    Target.OPENAI: _openai,
    Target.LANGCHAIN: _langchain,
    Target.MLFLOW: _mlflow,
    Target.PROMPTFOO: _promptfoo,
}


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def _cannot(revision: Revision, target: Target, why: str) -> RunFailed:
    return RunFailed(Reason.INVALID_MANIFEST, f"{revision.name} cannot be exported to {target.value}: {why}")
