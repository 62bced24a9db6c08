"""Drives the real CLI as a subprocess against the counting server: manifests in, exit code, files and counts out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.counting_server import CountingServer
from tests.integration.forked import can_fork, fork_python

CLI = "dspy_operator.cli.main"
API = "dspy-operator.io/v1alpha1"
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "Evaluate": {"type": "Evaluate"},
    "LabeledFewShot": {"type": "LabeledFewShot", "labeledFewShot": {"k": 4}},
    "BootstrapFewShot": {
        "type": "BootstrapFewShot",
        "bootstrapFewShot": {"maxBootstrappedDemos": 4, "maxLabeledDemos": 4},
    },
    "BootstrapFewShotWithRandomSearch": {
        "type": "BootstrapFewShotWithRandomSearch",
        "bootstrapFewShotWithRandomSearch": {
            "maxBootstrappedDemos": 3,
            "maxLabeledDemos": 4,
            "numCandidatePrograms": 5,
        },
    },
    "MIPROv2": {"type": "MIPROv2", "miproV2": {"numCandidates": 6, "numTrials": 12, "minibatch": False}},
    "GEPA": {"type": "GEPA", "gepa": {"maxMetricCalls": 200}},
    "COPRO": {"type": "COPRO", "copro": {"breadth": 3, "depth": 3}},
    "InferRules": {
        "type": "InferRules",
        "inferRules": {"maxBootstrappedDemos": 3, "maxLabeledDemos": 4, "numCandidates": 5, "numRules": 3},
    },
    "SIMBA": {"type": "SIMBA", "simba": {"bsize": 6, "numCandidates": 3, "maxSteps": 3}},
    "Stages": {
        "type": "Stages",
        "stages": {
            "stages": [
                {"type": "BootstrapFewShot", "bootstrapFewShot": {"maxBootstrappedDemos": 3, "maxLabeledDemos": 4}},
                {"type": "MIPROv2", "miproV2": {"numCandidates": 3, "numTrials": 6, "minibatch": False}},
            ]
        },
    },
}
"""One of each, with counts that end by themselves after 60 to 200 calls."""
SMALL: dict[str, dict[str, Any]] = {
    **OPTIMIZERS,
    "BootstrapFewShotWithRandomSearch": {
        "type": "BootstrapFewShotWithRandomSearch",
        "bootstrapFewShotWithRandomSearch": {
            "maxBootstrappedDemos": 2,
            "maxLabeledDemos": 2,
            "numCandidatePrograms": 2,
        },
    },
    "MIPROv2": {"type": "MIPROv2", "miproV2": {"numCandidates": 3, "numTrials": 3, "minibatch": False}},
    "GEPA": {"type": "GEPA", "gepa": {"maxMetricCalls": 50}},
    "COPRO": {"type": "COPRO", "copro": {"breadth": 2, "depth": 1}},
    "InferRules": {"type": "InferRules", "inferRules": {"maxBootstrappedDemos": 2, "numCandidates": 2, "numRules": 2}},
    "SIMBA": {"type": "SIMBA", "simba": {"bsize": 4, "numCandidates": 2, "maxSteps": 2}},
}
"""The same, smaller: for programs whose row costs several calls."""
SKILL = {"base": 0.4, "per_demo": 0.06, "instructions": 0.3, "max": 0.95}
"""The counting server's model: better with demonstrations, better or worse with other instructions."""


@dataclass
class Case:
    """One run as a user would write it; `spec` changes are merged into the OptimizationRun, `program` into the PromptProgram."""

    optimizer: Mapping[str, Any]
    dev: int = 24
    test: int = 12
    module: str = "Predict"
    budget: Mapping[str, Any] = field(default_factory=lambda: {"calls": 1000})
    concurrency: int = 8
    run: Mapping[str, Any] = field(default_factory=dict)
    program: Mapping[str, Any] = field(default_factory=dict)
    endpoint: Mapping[str, Any] = field(default_factory=dict)
    timeout: str = "5s"

    def rows(self) -> list[dict[str, str]]:
        """Made-up rows, each with a text of its own, so that the server can tell them apart."""
        return [
            {
                "text": f"item{number:03d} thing",
                "label": "positive" if number % 2 else "negative",
                "part": "dev" if number < self.dev else "test",
            }
            for number in range(self.dev + self.test)
        ]

    def answers(self) -> dict[str, str]:
        """What the counting server has to know to be right."""
        return {row["text"]: row["label"] for row in self.rows()}

    def objects(self) -> list[dict[str, Any]]:
        """The manifests."""
        text = "".join(json.dumps(row) + "\n" for row in self.rows())
        endpoint = {
            "provider": {"type": "OpenAI", "openai": {"baseURL": "http://127.0.0.1:9/v1", "model": "fake"}},
            "pricing": {"currency": "USD", "input": "0.15", "output": "0.60"},
            "request": {"timeout": self.timeout},
        }
        program = {
            "program": {
                "type": "Single",
                "single": {
                    "signature": {
                        "instructions": "Classify the text.",
                        "inputs": [{"name": "text", "type": "str"}],
                        "outputs": [{"name": "label", "type": 'Literal["positive", "negative"]'}],
                    },
                    "module": {"type": self.module},
                },
            },
            "target": {"endpoint": {"name": "fake"}, "request": {"temperature": "0", "maxTokens": 256}},
            "dataset": {
                "source": {"type": "ConfigMap", "configMap": {"name": "rows", "key": "data.jsonl"}},
                "format": "JSONL",
                "split": {"type": "Column", "column": {"name": "part"}},
            },
            "metric": {"type": "ExactMatch"},
        }
        run = {
            "programRef": {"name": "sentiment"},
            "optimizer": dict(self.optimizer),
            "budget": dict(self.budget),
            "concurrency": self.concurrency,
        }
        return [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rows"}, "data": {"data.jsonl": text}},
            _object("ModelEndpoint", "fake", merged(endpoint, self.endpoint)),
            _object("PromptProgram", "sentiment", merged(program, self.program)),
            _object("OptimizationRun", "run", merged(run, self.run)),
        ]

    def write(self, folder: Path) -> Path:
        """The manifests as a file in a folder; the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "all.yaml").write_text(yaml.safe_dump_all(self.objects(), sort_keys=False), encoding="utf-8")
        return folder

    def script(self, **more: Any) -> dict[str, Any]:
        """A script for the counting server that answers these rows."""
        return {"answers": self.answers(), "skill": SKILL, **more}


@dataclass
class Ended:
    """What a finished process left."""

    code: int
    stdout: str
    stderr: str
    folder: Path

    @property
    def result(self) -> dict[str, Any]:
        """result.json."""
        document: dict[str, Any] = json.loads((self.folder / "result.json").read_bytes())
        return document

    @property
    def logs(self) -> list[dict[str, Any]]:
        """The JSON lines on stdout; a line that is none fails the test."""
        return [json.loads(line) for line in self.stdout.splitlines()]


@dataclass
class Workplace:
    """A folder for one case, and the commands a user types in it."""

    folder: Path
    case: Case
    server: CountingServer
    fresh: bool = False
    """Whether each command gets an interpreter of its own, started as a user starts it."""

    def __post_init__(self) -> None:
        self.case.write(self.manifests)

    @property
    def manifests(self) -> Path:
        """Where the manifests are."""
        return self.folder / "manifests"

    @property
    def out(self) -> Path:
        """Where results go."""
        return self.folder / "out"

    @property
    def run_folder(self) -> Path:
        """The run's own folder."""
        return self.out / "run"

    def change(self, **changes: Any) -> None:
        """Edit the manifests, as a user would between two commands."""
        for name, value in changes.items():
            setattr(self.case, name, value)
        self.case.write(self.manifests)

    def start(
        self,
        *arguments: str,
        url: str | None = None,
        environment: Mapping[str, str] | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> subprocess.Popen[str]:
        """`dspy-operator run MANIFESTS --endpoint fake=URL -o OUT ...`, not waited for."""
        command = [
            "run",
            str(self.manifests),
            "--endpoint",
            f"fake={url or self.server.url}",
            "-o",
            str(self.out),
            *arguments,
        ]
        return start_cli(*command, environment=environment, prepare=prepare, fresh=self.fresh)

    def run(self, *arguments: str, url: str | None = None, timeout: float = 120) -> Ended:
        """The same, to its end."""
        return ended(self.start(*arguments, url=url), self.run_folder, timeout=timeout)

    def verify(self, *, environment: Mapping[str, str] | None = None) -> Ended:
        """`dspy-operator verify OUT/run`."""
        command = start_cli("verify", str(self.run_folder), environment=environment, fresh=self.fresh)
        return ended(command, self.run_folder)

    def journal(self) -> list[dict[str, Any]]:
        """The journal's lines."""
        return [json.loads(line) for line in (self.run_folder / "journal.jsonl").read_text("utf-8").splitlines()]


@contextmanager
def workplace(folder: Path, case: Case, **script: Any) -> Iterator[Workplace]:
    """A workplace with its own counting server."""
    with CountingServer(case.script(**script)) as server:
        yield Workplace(folder, case, server)


def start_cli(
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    prepare: Callable[[], None] | None = None,
    fresh: bool = False,
) -> subprocess.Popen[str]:
    """`dspy-operator ...` as a process of its own, forked where nothing speaks for an interpreter of its own.

    `environment` is added to ours; `prepare` runs in the child before the program, for limits on what it may use. With
    `fresh` the interpreter is new, whatever the rest.
    """
    surroundings = {**os.environ, "NO_COLOR": "1", "COLUMNS": "160"}
    surroundings.pop("PYTHONHASHSEED", None)
    if not fresh and prepare is None and can_fork(environment or {}):
        return fork_python(CLI, arguments, environment={**surroundings, **(environment or {})})
    return subprocess.Popen(
        [sys.executable, "-m", CLI, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**surroundings, **(environment or {})},
        preexec_fn=prepare,  # setrlimit and the like: nothing that needs a lock, which a thread of ours may hold
    )


def ended(process: subprocess.Popen[str], folder: Path, *, timeout: float = 120) -> Ended:
    """Wait for a process."""
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        stdout, stderr = process.communicate()
        raise AssertionError(f"still running after {timeout} s\n{stdout[-2000:]}\n{stderr[-4000:]}") from None
    return Ended(process.returncode, stdout, stderr, folder)


def seconds_to_the_end(process: subprocess.Popen[str], sent: signal.Signals, times: int = 1) -> float:
    """Send a signal; the seconds from it to the end, without those in which the process waited for a processor that others had."""
    at, waited = time.monotonic(), _waited_for_a_processor(process.pid)
    for _ in range(times):
        process.send_signal(sent)
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        assert time.monotonic() - at < 60, f"{sent.name} did not end it"
        time.sleep(0.005)
    seconds = time.monotonic() - at - (_waited_for_a_processor(process.pid) - waited)
    process.wait()
    return seconds


def _waited_for_a_processor(pid: int) -> float:
    """Of its main thread, as the kernel counts it; 0 where it does not."""
    path = Path(f"/proc/{pid}/schedstat")
    return int(path.read_text().split()[1]) / 1e9 if path.exists() else 0.0


def intruder(
    *, path: str = "", event: str = "os.rename", send: signal.Signals = signal.SIGKILL, denied: Path | None = None
) -> dict[str, str]:
    """Environment that lets intruder/sitecustomize.py into a process: a signal just before a path's event, or no network."""
    folders = [str(Path(__file__).with_name("intruder")), os.environ.get("PYTHONPATH", "")]
    environment = {"PYTHONPATH": os.pathsep.join(folder for folder in folders if folder)}
    if path:
        environment |= {"INTRUDER_PATH": path, "INTRUDER_EVENT": event, "INTRUDER_SIGNAL": str(int(send))}
    if denied is not None:
        environment["INTRUDER_DENIES_NETWORK"] = str(denied)
    return environment


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `change` laid over it, mapping by mapping; None removes."""
    result = dict(base)
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping) and "type" not in value:
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def _object(kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": dict(spec)}
