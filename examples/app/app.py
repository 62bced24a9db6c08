"""Serves a prompt program without DSPy: GET /?text=... answers with the revision that `<program>-current` holds.

Needs Python's standard library, the ConfigMap mounted at PROMPT, and an OpenAI-compatible URL. A new revision needs no restart:
the files are read at each request, and the kubelet replaces all of them at once, a minute or less after the ConfigMap.
"""

import json
import os
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit
from urllib.request import Request, urlopen

MOUNT, URL, MODEL = Path(os.environ["PROMPT"]), os.environ["OPENAI_BASE_URL"], os.environ["MODEL"]
HEADERS = {"Content-Type": "application/json", "Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', 'none')}"}
SENT_AS = {
    "temperature": ("temperature", float),
    "topP": ("top_p", float),
    "maxTokens": ("max_tokens", int),
    "stop": ("stop", list),
}


def served():
    """prompts.json and the revision that it is of, from the one folder that the mount points to now."""
    folder = (MOUNT / "prompts.json").resolve().parent
    prompts, provenance = (json.loads((folder / name).read_text()) for name in ("prompts.json", "provenance.json"))
    return prompts, provenance["revision"]


def answer(inputs):
    prompts, revision = served()
    (predictor,) = prompts["predictors"].values()
    values = {spec["placeholder"]: inputs[name] for name, spec in predictor["inputs"].items()}
    holes = "|".join(map(re.escape, values))
    messages = [{**m, "content": re.sub(holes, lambda at: values[at[0]], m["content"])} for m in predictor["messages"]]
    sampling = [(*SENT_AS[name], value) for name, value in prompts["request"].items()]
    body = {"model": MODEL, "messages": messages, **{name: kind(value) for name, kind, value in sampling}}
    if predictor["responseFormat"]:
        body["response_format"] = predictor["responseFormat"]
    with urlopen(Request(f"{URL}/chat/completions", json.dumps(body).encode(), HEADERS), timeout=120) as reply:
        said = json.load(reply)["choices"][0]["message"]["content"]
    found, outputs = sections(prompts["answer"], said), predictor["outputs"]
    read = {
        name: found[name] if found.get(name) in outputs[name].get("choices", found.values()) else None
        for name in outputs
    }
    return {"revision": revision, "outputs": read, "said": said}  # an output is null where the answer cannot be read


def sections(rules, said):
    """The answer's fields: members of one JSON object, or what follows the adapter's headers."""
    if rules["type"] == "JSON":
        return dict(json.loads(said)) if said.strip().startswith("{") and said.strip().endswith("}") else {}
    _, *parts = re.split(r"(?m)^\s*" + rules["header"], said)
    return {name: text.strip() for name, text in zip(parts[-2::-2], parts[::-2], strict=True)}


class Door(BaseHTTPRequestHandler):
    def do_GET(self):
        inputs = dict(parse_qsl(urlsplit(self.path).query))
        try:
            code, body = 200, answer(inputs) if inputs else {"revision": served()[1], "ask": "/?text=..."}
        except (OSError, KeyError, ValueError) as error:
            code, body = 502, {"error": f"{type(error).__name__}: {error}"}
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())


if __name__ == "__main__":
    ThreadingHTTPServer(("", 8080), Door).serve_forever()
