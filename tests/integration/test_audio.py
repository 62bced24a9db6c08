"""Audio inputs: from the rows to `input_audio` on the wire, through demonstrations, journal, revision and program.py alone."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import wave
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.counting_server.prompts import text_of
from tests.integration.export.libraries import libraries
from tests.integration.harness import OPTIMIZERS, Case, Workplace, workplace
from tests.integration.test_revision_files import CHAT, SCHEMA, XML, Recorder, conforms, recorder

__all__ = ["recorder"]  # a fixture

HERE = Path(__file__).parent


def a_sound(number: int) -> str:
    """A tenth of a second of WAV, or something under the usual name of MP3; no two are the same."""
    if number % 3 == 0:
        return f"data:audio/mpeg;base64,{base64.b64encode(b'ID3' + bytes([number]) * 60).decode()}"
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(1)
        sound.setframerate(800)
        sound.writeframes(bytes([number]) * 80)
    return f"data:audio/wav;base64,{base64.b64encode(file.getvalue()).decode()}"


def on_the_wire(sound: str) -> dict[str, str]:
    head, _, data = sound.partition(",")
    return {"data": data, "format": "wav" if "wav" in head else "mp3"}


@dataclass
class Calls(Case):
    """Rows with a sound of their own, of two formats."""

    dev: int = 12
    test: int = 6
    program: Any = field(
        default_factory=lambda: {
            "program": {
                "type": "Single",
                "single": {
                    "signature": {
                        "instructions": "Classify the call.",
                        "inputs": [
                            {"name": "voice", "type": "Audio", "description": "of the caller"},
                            {"name": "text", "type": "str"},
                        ],
                        "outputs": [{"name": "label", "type": 'Literal["positive", "negative"]'}],
                    },
                    "module": {"type": "Predict"},
                },
            },
        }
    )

    def rows(self) -> list[dict[str, Any]]:
        return [{**row, "voice": a_sound(number)} for number, row in enumerate(super().rows())]


def heard(place: Workplace) -> list[list[dict[str, str]]]:
    """The sounds of each request, in order."""
    return [
        [
            part["input_audio"]
            for message in json.loads(seen["body"])["messages"]
            if isinstance(message["content"], list)
            for part in message["content"]
            if part["type"] == "input_audio"
        ]
        for seen in place.server.requests()
    ]


@pytest.mark.parametrize("provider", ["OpenAI", "Ollama"])
@pytest.mark.parametrize("optimizer", ["BootstrapFewShot", "MIPROv2", "GEPA"])
def test_a_run_hears_every_row_and_resumes_from_its_journal(tmp_path: Path, optimizer: str, provider: str) -> None:
    case = Calls(OPTIMIZERS[optimizer])
    if provider == "Ollama":
        case.endpoint = {"provider": {"type": "Ollama", "openai": None, "ollama": {"model": "fake"}}}
    with workplace(tmp_path, case) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        assert done.result["dataset"]["dropped"] == 0
        assert done.result["usage"]["failed"] == 0
        requests = heard(place)
        known = [on_the_wire(row["voice"]) for row in case.rows()]
        assert all(sound in known for sounds in requests for sound in sounds)
        # The row asked about comes last, behind those of demonstrations.
        assert {json.dumps(sounds[-1]) for sounds in requests if sounds} == {json.dumps(sound) for sound in known}
        assert max(map(len, requests)) > 1
        letters = [sound["data"] for sound in known]
        texts = [
            text_of(m["content"]) for seen in place.server.requests() for m in json.loads(seen["body"])["messages"]
        ]
        assert not [text for text in texts if any(each in text for each in letters)]
        verified = place.verify()
        assert verified.code == 0, verified.stderr
        assert done.result["candidate"] in verified.stdout
        document = json.loads((place.run_folder / "revision" / "prompts.json").read_bytes())
        assert len(document["vectors"]) == 3
        assert {vector["inputs"]["voice"].partition(";")[0] for vector in document["vectors"]} <= {
            "data:audio/wav",
            "data:audio/mp3",
        }
        assert conforms(tmp_path, document)


@pytest.mark.parametrize("adapter", [CHAT, SCHEMA, XML])
def test_program_py_alone_sends_the_same_with_litellm_and_says_so_without(
    tmp_path: Path, recorder: Recorder, adapter: Any
) -> None:
    case = Calls(OPTIMIZERS["LabeledFewShot"])
    case.program["adapter"] = adapter
    with workplace(tmp_path, case) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        revision = place.run_folder / "revision"
        sent = {json.dumps(json.loads(seen["body"])["messages"], sort_keys=True) for seen in place.server.requests()}
    (tmp_path / "alone").mkdir()
    for name in ("program.py", "program.json"):
        (tmp_path / "alone" / name).write_bytes((revision / name).read_bytes())
    vector = json.loads((revision / "prompts.json").read_bytes())["vectors"][0]
    recorder.answer = vector["response"]

    def alone(path: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": path}
        command = [sys.executable, "program.py", "--model", "openai/some-model", "--api-base", recorder.url]
        return subprocess.run(
            [*command, json.dumps(vector["inputs"])],
            cwd=tmp_path / "alone",
            env=environment | {"PYTHONDONTWRITEBYTECODE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
            capture_output=True,
            text=True,
            check=False,
        )

    without = alone("")
    assert without.returncode == 2
    assert without.stderr.endswith("it hears audio, which DSPy sends with litellm alone: pip install 'dspy[litellm]'\n")
    assert recorder.bodies == []
    answered = alone(str(libraries(HERE / "audio-requirements.txt")))
    assert answered.returncode == 0, answered.stderr
    assert json.loads(answered.stdout) == vector["outputs"]
    (body,) = recorder.bodies
    messages = json.loads(body)["messages"]
    assert messages == vector["messages"]
    assert json.dumps(messages, sort_keys=True) in sent


def test_a_sound_that_is_none_drops_its_row_and_says_what_is_wanted(tmp_path: Path) -> None:
    case = Calls(OPTIMIZERS["Evaluate"])
    rows = case.rows()
    rows[0]["voice"] = "https://example.com/a.wav"
    rows[1]["voice"] = "data:audio/ogg;base64,T2dnUw=="
    rows[2]["voice"] = "data:audio/wav;base64,???"
    case.rows = lambda: rows  # type: ignore[method-assign]
    with workplace(tmp_path, case) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        assert done.result["dataset"]["dropped"] == 3
    told = (done.stderr + done.stdout).replace('\\"', '"')
    wanted = 'column "voice": must be a data URI as data:audio/wav;base64,... or data:audio/mp3;base64,..., found'
    assert f'line 1: {wanted} "https://example.com/a.wav"' in told
    assert f'line 2: {wanted} "data:audio/ogg;base64,T2dnUw=="' in told
    assert "must be a data URI in base64 (Only base64 data is allowed)" in told
