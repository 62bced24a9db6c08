"""read_with.py openai|langchain|mlflow EXPORTED PROMPTS [URL]: prints the messages that the library makes of each vector."""
# mypy: ignore-errors

import json
import sys


def rendered(value):
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else str(value)


def openai(exported, vectors, url):
    from openai import OpenAI

    client = OpenAI(base_url=url, api_key="none", max_retries=0)
    for vector in vectors:
        text = json.dumps(exported["body"], ensure_ascii=False)
        for name, spec in exported["inputs"].items():
            text = text.replace(
                spec["placeholder"], json.dumps(rendered(vector["inputs"][name]), ensure_ascii=False)[1:-1]
            )
        client.chat.completions.create(
            **{"model": "any", **json.loads(text)}
        )  # the server tells the test what it was sent


def langchain(exported, vectors):
    from langchain_core.load import load

    roles = {"system": "system", "human": "user", "ai": "assistant"}
    template = load(exported, allowed_objects="core")
    for vector in vectors:
        made = template.format_messages(**{name: rendered(value) for name, value in vector["inputs"].items()})
        yield [{"role": roles[message.type], "content": message.content} for message in made]


def mlflow(exported, vectors):
    from mlflow.entities.model_registry import PromptVersion

    prompt = PromptVersion(name=exported["name"], version=1, template=exported["template"])
    for vector in vectors:
        yield prompt.format(**{name: rendered(value) for name, value in vector["inputs"].items()})


library, file, prompts, *rest = sys.argv[1:]
with open(file, encoding="utf-8") as opened:
    content = json.load(opened)
with open(prompts, encoding="utf-8") as opened:
    vectors = json.load(opened)["vectors"]
found = {"openai": openai, "langchain": langchain, "mlflow": mlflow}[library](content, vectors, *rest)
print(json.dumps(list(found or []), ensure_ascii=False))
