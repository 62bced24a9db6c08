"""Serves a prompt program without DSPy: GET /?text=... answers with the revision that `<program>-current` holds.

Needs the ConfigMap mounted at PROMPT and an OpenAI-compatible URL. A new revision needs no restart: the files are read at
each request, and the kubelet replaces all of them at once, a minute or less after the ConfigMap.
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
SENT_AS = {"temperature": "temperature", "topP": "top_p", "maxTokens": "max_tokens", "stop": "stop"}


def answer(inputs):
    folder = (MOUNT / "prompts.json").resolve().parent  # of one revision, also when the mount moves on meanwhile
    prompts, provenance = (json.loads((folder / name).read_text()) for name in ("prompts.json", "provenance.json"))
    if not inputs:
        return {"revision": provenance["revision"], "ask": "/?text=..."}
    (predictor,) = prompts["predictors"].values()
    values = {spec["placeholder"]: inputs[name] for name, spec in predictor["inputs"].items()}
    holes = "|".join(map(re.escape, values))
    messages = [{**m, "content": re.sub(holes, lambda at: values[at[0]], m["content"])} for m in predictor["messages"]]
    request = {SENT_AS[k]: float(v) if isinstance(v, str) else v for k, v in prompts["request"].items()}
    schema = {"response_format": predictor["responseFormat"]} if predictor["responseFormat"] else {}
    body = json.dumps({"model": MODEL, "messages": messages, **request, **schema}).encode()
    with urlopen(Request(f"{URL}/chat/completions", body, HEADERS), timeout=120) as reply:
        said = json.load(reply)["choices"][0]["message"]["content"]
    found = {name: fields(prompts["answer"], said).get(name) for name in predictor["outputs"]}
    allowed = {name: spec.get("choices", [found[name]]) for name, spec in predictor["outputs"].items()}
    outputs = {name: value if value in allowed[name] else None for name, value in found.items()}
    return {"revision": provenance["revision"], "outputs": outputs, "said": said}  # null: cannot be read


def fields(rules, said):
    if rules["type"] == "JSON":
        return dict(json.loads(said))
    _, *parts = re.split(
        r"(?m)^\s*" + rules["header"], said
    )  # header, text, header, text, ...; the first of a name counts
    return {name: text.strip() for name, text in zip(parts[-2::-2], parts[::-2], strict=True)}


class Door(BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            code, body = 200, answer(dict(parse_qsl(urlsplit(self.path).query)))
        except (OSError, KeyError, TypeError, ValueError) as error:
            code, body = 502, {"error": f"{type(error).__name__}: {error}"}
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())


if __name__ == "__main__":
    ThreadingHTTPServer(("", int(os.environ.get("PORT", "8080"))), Door).serve_forever()
