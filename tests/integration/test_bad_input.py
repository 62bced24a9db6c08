"""Bad input through the real CLI: reason, place, field, message and exit code; no stack trace, and nothing is paid."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import Case, Ended, Workplace, ended, start_cli, workplace

EVALUATE = {"type": "Evaluate"}
SIGNATURE = "spec.program.single.signature"
KEY = {"provider": {"openai": {"apiKeySecret": {"name": "openai", "key": "api-key"}}}}


PARTS = [
    {"metric": {"type": "F1"}},
    {"metric": {"type": "Regex", "regex": {"field": "label", "pattern": "x(?=y)"}}},
]


def inline(*rows: dict[str, Any]) -> dict[str, Any]:
    """A program's change: these rows, in the manifest."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    return {"dataset": {"source": {"type": "Inline", "inline": {"data": text}}}}


def row(number: int, label: Any, part: str = "dev") -> dict[str, Any]:
    return {"text": f"item{number:03d}", "label": label, "part": part}


def output_of_type(text: str) -> dict[str, Any]:
    outputs = [{"name": "label", "type": text}]
    signature = {"instructions": "Classify.", "inputs": [{"name": "text", "type": "str"}], "outputs": outputs}
    return {"program": {"type": "Single", "single": {"signature": signature}}}


@dataclass
class Mistake:
    """What is wrong, and what its author must be told."""

    code: int
    reason: str
    path: str
    message: str
    at: str = ""
    """Text of the line of the manifest that is named."""
    case: dict[str, Any] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()


def coded(config_map: str, key: str, entrypoint: str) -> dict[str, Any]:
    """A metric of one's own, in a ConfigMap."""
    code = {"configMap": {"name": config_map, "key": key}, "entrypoint": entrypoint}
    return {"type": "Code", "code": code}


A_GRAPH = {
    "inputs": [{"name": "text", "type": "str"}],
    "nodes": {
        "verdict": {
            "predict": {
                "signature": {
                    "instructions": "Classify.",
                    "inputs": [{"name": "text", "type": "str"}],
                    "outputs": [{"name": "label", "type": "str"}],
                }
            },
            "inputs": {"text": "inputs.text"},
        }
    },
    "output": {"label": "verdict.labels"},
}
MISTAKES = {
    "an output of a graph leads nowhere": Mistake(
        40,
        "InvalidProgram",
        "spec.program.graph.output.label",
        '"verdict.labels" does not exist; allowed: verdict.label',
        "label: verdict.labels",
        {"program": {"program": {"type": "Graph", "graph": A_GRAPH}}},
    ),
    "the ConfigMap of the rows is absent": Mistake(
        41,
        "DatasetNotFound",
        "spec.dataset.source.configMap.name",
        "ConfigMap default/tickets does not exist (there are: rows)",
        "name: tickets",
        {"program": {"dataset": {"source": {"type": "ConfigMap", "configMap": {"name": "tickets", "key": "a"}}}}},
    ),
    "its key is absent": Mistake(
        41,
        "DatasetNotFound",
        "spec.dataset.source.configMap.key",
        'ConfigMap rows has no key "rows.jsonl" (keys: data.jsonl)',
        "key: rows.jsonl",
        {"program": {"dataset": {"source": {"type": "ConfigMap", "configMap": {"name": "rows", "key": "rows.jsonl"}}}}},
    ),
    "the ConfigMap of the metric's code is absent": Mistake(
        40,
        "CodeNotFound",
        "spec.metric.code.configMap.name",
        "ConfigMap default/code does not exist (there are: rows)",
        "name: code",
        {"program": {"metric": coded("code", "metric.py", "metric:score")}},
    ),
    "its code has no such key": Mistake(
        40,
        "CodeNotFound",
        "spec.metric.code.configMap.key",
        'ConfigMap rows has no key "metric.py" (keys: data.jsonl)',
        "key: metric.py",
        {"program": {"metric": coded("rows", "metric.py", "metric:score")}},
    ),
    "the module of an image is not here": Mistake(
        40,
        "CodeNotFound",
        "spec.metric.code.entrypoint",
        'image me/code:1: there is no module "a_module_of_an_image" where the runner runs',
        "entrypoint:",
        {
            "program": {
                "metric": {"type": "Code", "code": {"image": "me/code:1", "entrypoint": "a_module_of_an_image:score"}}
            }
        },
    ),
    "a mapped column is absent": Mistake(
        41,
        "InvalidDataset",
        "spec.dataset.fields.label",
        'column "category" is not in data.jsonl (columns: text, label, part)',
        "label: category",
        {"program": {"dataset": {"fields": {"label": "category"}}}},
    ),
    "the column of the split is absent": Mistake(
        41,
        "InvalidDataset",
        "spec.dataset.split.column",
        'column "fold" is not in data.jsonl (columns: text, label, part)',
        "column:",
        {"program": {"dataset": {"split": {"type": "Column", "column": {"name": "fold"}}}}},
    ),
    "no value has the field's type": Mistake(
        41,
        "InvalidDataset",
        "spec.dataset",
        'no row of inline.jsonl can be used; line 1: column "label": must be one of "positive", "negative"; found 5',
        "dataset:",
        {"program": inline(row(1, 5), row(2, 6))},
    ),
    "the ConfigMap holds no row": Mistake(
        41, "InvalidDataset", "spec.dataset", "no row of data.jsonl can be used", "dataset:", {"dev": 0, "test": 0}
    ),
    "the split leaves no test row": Mistake(
        41,
        "SplitEmpty",
        "spec.dataset.split",
        "the split leaves no row for test (dev 24, test 0)",
        "split:",
        {"test": 0},
    ),
    "one row stands in two parts": Mistake(
        41,
        "InvalidDataset",
        "spec.dataset.split.column",
        'line 1 in "dev" and line 2 in "test" are the same row',
        "column:",
        {"program": inline(row(1, "positive"), row(1, "positive", "test"))},
    ),
    "a type is outside the grammar": Mistake(
        40,
        "InvalidProgram",
        f"{SIGNATURE}.outputs[0].type",
        'unknown type "tuple" at 5; allowed: str, int, float, bool, Literal["a", "b"], list[T], dict[str, T], '
        "Optional[T], A | B, date, datetime",
        "type: list[tuple]",
        {"program": output_of_type("list[tuple]")},
    ),
    "the metric names no output": Mistake(
        42,
        "InvalidMetric",
        "spec.metric.exactMatch.fields[1]",
        '"lable" is no output of the program (outputs: label)',
        "- lable",
        {"program": {"metric": {"type": "ExactMatch", "exactMatch": {"fields": ["label", "lable"]}}}},
    ),
    "the metric's pattern is none of RE2": Mistake(
        42,
        "InvalidMetric",
        "spec.metric.composite.parts[1].metric.regex.pattern",
        'no regular expression: invalid perl operator "(?=" at 1; allowed: RE2\'s syntax, which has no look-around and no '
        "backreferences",
        "pattern: x(?=y)",
        {"program": {"metric": {"type": "Composite", "composite": {"parts": PARTS}}}},
    ),
    "a template of feedback asks for what there is not": Mistake(
        42,
        "InvalidMetric",
        "spec.metric.feedback.template",
        "unknown placeholder {expected} at 7; allowed: {expected.label}, {found.label}, {score}; {{ and }} are braces",
        "template:",
        {"program": {"metric": {"type": "ExactMatch", "feedback": {"template": "wanted {expected}"}}}},
    ),
    "no row has the column of feedback": Mistake(
        42,
        "InvalidMetric",
        "spec.metric.feedback.column",
        'column "why" is not in data.jsonl (columns: text, label, part)',
        "column: why",
        {"program": {"metric": {"type": "ExactMatch", "feedback": {"column": "why"}}}},
    ),
    "a label can be right by no answer": Mistake(
        42,
        "InvalidMetric",
        "spec.metric.type",
        'line 1: label: "negative" is no number',
        "type: Numeric",
        {"program": {"metric": {"type": "Numeric"}}},
    ),
    "the optimizer wants more rows than there are": Mistake(
        41,
        "InvalidDataset",
        "spec.optimizer.gepa",
        "GEPA: reflectionMinibatchSize 20 is more than the 12 train rows",
        "gepa:",
        {"optimizer": {"type": "GEPA", "gepa": {"reflectionMinibatchSize": 20, "maxMetricCalls": 50}}},
    ),
    "no file names the program": Mistake(
        64,
        "ProgramNotFound",
        "spec.programRef.name",
        "PromptProgram default/sentimental does not exist (there are: default/sentiment)",
        "name: sentimental",
        {"run": {"programRef": {"name": "sentimental"}}},
    ),
    "no file names the endpoint": Mistake(
        64,
        "EndpointNotFound",
        "spec.target.endpoint.name",
        "ModelEndpoint default/qwen does not exist (there are: default/fake)",
        "name: qwen",
        {"program": {"target": {"endpoint": {"name": "qwen"}}}},
    ),
    "no file names the endpoint of a role": Mistake(
        64,
        "EndpointNotFound",
        "spec.endpoints.prompt.name",
        "ModelEndpoint models/big does not exist (there are: default/fake)",
        "name: big",
        {"optimizer": {"type": "GEPA"}, "run": {"endpoints": {"prompt": {"name": "big", "namespace": "models"}}}},
    ),
    "the budget cannot pay the judgement": Mistake(
        43,
        "BudgetTooSmall",
        "spec.budget.calls",
        "25 calls are needed (judgement 24, preflight 1), given 24",
        "calls: 24",
        {"optimizer": {"type": "BootstrapFewShot"}, "budget": {"calls": 24}},
    ),
    "a cost budget meets an endpoint without prices": Mistake(
        43,
        "PricingMissing",
        "spec.budget.cost",
        "a cost budget needs spec.pricing on every endpoint of the run; default/fake (task) has none",
        "cost: '1'",
        {"budget": {"cost": "1"}, "endpoint": {"pricing": None}},
    ),
    "an endpoint asks for a key and none is given": Mistake(
        47,
        "SecretMissing",
        "spec.provider.openai.apiKeySecret",
        "default/fake needs key api-key of Secret default/openai; here --api-key-file fake=FILE gives it",
        "apiKeySecret:",
        {"endpoint": KEY},
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_with_its_reason_place_and_field_and_costs_nothing(tmp_path: Path, mistake: Mistake) -> None:
    with workplace(tmp_path, Case(**{"optimizer": EVALUATE, **mistake.case})) as place:
        done = place.run(*mistake.arguments)
        text = (place.manifests / "all.yaml").read_text("utf-8").splitlines()
        line = 1 + next(number for number, line in enumerate(text) if line.strip().startswith(mistake.at))
        file = place.manifests / "all.yaml"
        assert done.stderr == f"{mistake.reason}: {file}:{line}: {mistake.path}: {mistake.message}\n"
        assert done.code == mistake.code
        told = done.logs[-1]
        assert (told["reason"], told["result"]["exit"]) == (mistake.reason, mistake.code)
        assert (told["result"]["path"], told["result"]["message"]) == (mistake.path, mistake.message)
        assert_clean(place, done)


def assert_clean(place: Workplace, *everything: Ended) -> None:
    """No stack trace anywhere, and no request."""
    files = [path for path in place.folder.rglob("*") if path.is_file()]
    texts = [path.read_text("utf-8", errors="replace") for path in files]
    for text in (*texts, *(each for done in everything for each in (done.stdout, done.stderr))):
        assert "Traceback" not in text and "site-packages" not in text and 'File "' not in text
    assert place.server.counts()["requests"] == 0


def test_fixing_the_yaml_is_enough_whatever_was_wrong_before(tmp_path: Path) -> None:
    """The same command in the same folder: no flag, nothing to remove."""
    good = Case(EVALUATE, test=6, dev=6)
    with workplace(tmp_path, good) as place:
        ends = []
        for wrong, right in (
            ({"program": {"dataset": {"fields": {"label": "category"}}}}, {"program": {}}),
            ({"test": 0}, {"test": 6}),
            ({"program": {"metric": {"type": "F1", "f1": {"fields": ["lable"]}}}}, {"program": {}}),
            ({"budget": {"calls": 1}}, {"budget": {"calls": 1000}}),
            ({"endpoint": KEY}, {"endpoint": {}}),
        ):
            place.change(**wrong)
            ends.append(place.run().code)
            place.change(**right)
        assert ends == [41, 41, 42, 43, 47]
        assert place.server.counts()["requests"] == 0
        done = place.run()
        assert (done.code, done.stderr) == (0, "")
        assert done.result["usage"]["calls"] == place.server.counts()["requests"] == 7


def test_rows_that_cannot_be_used_are_counted_and_the_first_five_are_explained(tmp_path: Path) -> None:
    rows = [
        *(row(number, "positive", "dev" if number < 4 else "test") for number in range(8)),
        *(row(number, "meh") for number in range(10, 14)),
        {"text": "no label", "part": "dev"},
        row(0, "positive"),
        row(20, None),
    ]
    with workplace(tmp_path, Case(EVALUATE, program=inline(*rows))) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        wrong = 'column "label": must be one of "positive", "negative"; found "meh"'
        lines = "; ".join(f"line {number}: {wrong}" for number in (9, 10, 11, 12))
        assert done.result["dataset"]["dropped"] == 7
        assert done.result["dataset"]["droppedMessage"] == (
            f'7 rows dropped: {lines}; line 13: column "label" is missing; and 2 more'
        )
        valid = ended(start_cli("validate", str(place.manifests), "-o", str(place.out)), place.out)
        assert (valid.code, valid.stderr) == (0, "")
        assert "8 rows (2 train, 2 validation, 4 test), 7 rows dropped; " in valid.stdout
        assert f"RowsDropped: PromptProgram/sentiment: spec.dataset.source.inline.data: line 9: {wrong}" in valid.stdout


def test_all_mistakes_of_a_manifest_are_told_at_once(tmp_path: Path) -> None:
    case = Case(
        {"type": "MIPROv2", "miproV2": {"numCandidates": 6}, "gepa": {}},
        program={"target": {"request": {"temperature": 0}}, "metrics": {}},
        run={"concurency": 4},
    )
    with workplace(tmp_path, case) as place:
        done = place.run()
        assert done.code == 64
        assert [line.split("all.yaml:")[1].split(": ", 1)[1] for line in done.stderr.splitlines()] == [
            'PromptProgram/sentiment: spec.target.request.temperature: must be a decimal string in quotes, for example "0"',
            "PromptProgram/sentiment: spec.metrics: unknown field; allowed: adapter, concurrencyPolicy, dataset, "
            "deletionPolicy, metric, program, promotion, revision, revisionHistoryLimit, target, types; "
            'did you mean "metric"?',
            "OptimizationRun/run: spec.optimizer.miproV2: numCandidates needs numTrials beside it: write both, or neither",
            "OptimizationRun/run: spec.concurency: unknown field; allowed: answersFrom, budget, cleanup, concurrency, deadlines, "
            "endpoints, goal, journal, mode, optimizer, pacing, podTemplate, priorityClassName, programRef, readyWhen, repeats, rerun, "
            'retries, reuse, seed, startFrom, stop, suspend, ttlAfterFinished; did you mean "concurrency"?',
        ]
        assert done.stderr.startswith(f"InvalidManifest: {place.manifests / 'all.yaml'}:")
        assert done.logs[-1]["reason"] == "InvalidManifest"

        place.change(optimizer={"type": "GEPA", "gepa": {}, "miproV2": {}}, program={}, run={})
        done = place.run()
        want = "spec.optimizer.miproV2: miproV2 is set, but type is GEPA: remove it or change type"
        assert (done.code, done.stderr.split("OptimizationRun/run: ")[1]) == (64, f"{want}\n")
        (place.manifests / "all.yaml").write_text("kind: [OptimizationRun\n")
        broken = place.run()
        assert (broken.code, broken.stderr.startswith("InvalidManifest: ")) == (64, True)
        assert broken.stderr.endswith('all.yaml:2:1: "," or "]" is expected: is the "[" of line 1 closed?\n')
        assert_clean(place, done, broken)
        assert not place.out.exists()


FLAGS = {
    "an endpoint that no manifest has": (
        ["--endpoint", "qwen=http://127.0.0.1:1/v1"],
        "EndpointNotFound: --endpoint qwen=...: there is no ModelEndpoint qwen (there are: fake)",
    ),
    "a key for an endpoint that no manifest has": (
        ["--api-key-file", "qwen=key"],
        "EndpointNotFound: --api-key-file qwen=...: there is no ModelEndpoint qwen (there are: fake)",
    ),
    "an endpoint without its URL": (
        ["--endpoint", "fake"],
        "InvalidManifest: --endpoint fake: write NAME=URL, with the name of a ModelEndpoint",
    ),
    "a key file without its endpoint": (
        ["--api-key-file", "key.txt"],
        "InvalidManifest: --api-key-file key.txt: write NAME=FILE, with the name of a ModelEndpoint",
    ),
    "a key for an endpoint that sends none": (
        ["--api-key-file", "fake=key.txt"],
        "InvalidManifest: --api-key-file fake=key.txt: ModelEndpoint fake sends no key; "
        "spec.provider.openai.apiKeySecret says that it does",
    ),
    "a URL without its scheme": (
        ["--endpoint", "fake=localhost:8000/v1"],
        "InvalidManifest: --endpoint fake=localhost:8000/v1: a URL is wanted, up to and including /v1, "
        "for example http://127.0.0.1:8000/v1",
    ),
    "a run that no manifest has": (
        ["--run", "rnu"],
        'InvalidManifest: {manifests}: there is no OptimizationRun "rnu"; there are: run',
    ),
    "an incumbent that is no revision": (
        ["--incumbent", "{manifests}"],
        "InvalidManifest: --incumbent {manifests}: there is no revision in this folder; give it the folder `revision` "
        "of a run",
    ),
    "nothing to resume": (
        ["--resume"],
        "InvalidManifest: --resume: there is no run in {out}/run; without --resume one is started",
    ),
    "a folder that is a file": (
        ["-o", "{manifests}/all.yaml"],
        "InvalidManifest: --output {manifests}/all.yaml cannot be used: Not a directory",
    ),
    "another path that does not exist": (["{manifests}/more"], "InvalidManifest: {manifests}/more: no such file or folder"),
}  # fmt: skip


@pytest.mark.parametrize("name", FLAGS)
def test_a_mistake_on_the_command_line_is_told_in_one_line(tmp_path: Path, name: str) -> None:
    flags, want = FLAGS[name]
    with workplace(tmp_path, Case(EVALUATE, test=4, dev=4)) as place:
        names = {"manifests": str(place.manifests), "out": str(place.out)}
        done = place.run(*(flag.format(**names) for flag in flags))
        assert (done.code, done.stderr) == (64, want.format(**names) + "\n")
        assert_clean(place, done)


def test_a_key_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with workplace(tmp_path, Case(EVALUATE, test=4, dev=4, endpoint=KEY)) as place:
        key = tmp_path / "key"
        absent = place.run("--api-key-file", f"fake={key}")
        key.write_text(" \n")
        empty = place.run("--api-key-file", f"fake={key}")
        assert (absent.code, empty.code) == (47, 47)
        assert absent.stderr.endswith(f"--api-key-file fake={key}: cannot be read: No such file or directory\n")
        assert empty.stderr.endswith(f"--api-key-file fake={key}: the file is empty\n")
        assert_clean(place, absent, empty)
        key.write_text("sk-test\n")
        assert place.run("--api-key-file", f"fake={key}").code == 0


def test_a_run_that_is_there_is_neither_overwritten_nor_paid_again(tmp_path: Path) -> None:
    with workplace(tmp_path, Case(EVALUATE, test=6, dev=4)) as place:
        assert place.run().code == 0
        sent, kept = place.server.counts()["requests"], place.run_folder / "result.json"
        before = kept.read_bytes()

        again = place.run()
        assert (again.code, again.stderr) == (
            64,
            f"InvalidManifest: {place.out / 'run'} holds this run already: --resume goes on with it, "
            "--output or `rm -r` starts anew\n",
        )
        changed = "{} was started with other inputs: {} changed since; undo that, or use another --output\n"
        for change, undo, what in (
            ({"test": 7}, {"test": 6}, "the rows"),
            ({"run": {"seed": 3}}, {"run": {}}, "the seed"),
            (
                {"program": {"target": {"request": {"maxTokens": 9}}}, "optimizer": {"type": "GEPA"}},
                {"program": {}, "optimizer": EVALUATE},
                "the program, the optimizer, the model or its request",
            ),
        ):
            place.change(**change)
            refused = place.run("--resume")
            assert refused.code == 64
            assert refused.stderr == "InvalidManifest: " + changed.format(place.out / "run", what)
            place.change(**undo)

        hint = place.run("-o", str(tmp_path / "other"), "--incumbent", str(place.run_folder))
        assert hint.stderr.endswith(f"there is no revision in this folder; give it {place.run_folder / 'revision'}\n")
        assert place.run("--estimate").code == 0
        assert (place.server.counts()["requests"], kept.read_bytes()) == (sent, before)
        assert place.verify().code == 0


@pytest.mark.parametrize(
    ("content", "want"),
    [
        pytest.param("[]", "program.json is no state of a DSPy program", id="a list"),
        pytest.param('{"predict": {}}', "program.json is no state of a DSPy program", id="half a state"),
        pytest.param("{", "program.json is not JSON: ", id="no JSON"),
    ],
)
def test_an_incumbent_that_cannot_be_loaded_is_named(tmp_path: Path, content: str, want: str) -> None:
    revision = tmp_path / "served"
    revision.mkdir()
    (revision / "program.json").write_text(content)
    with workplace(tmp_path / "place", Case(EVALUATE, test=4, dev=4)) as place:
        valid = ended(start_cli("validate", str(place.manifests), "-o", str(place.out)), place.out)
        source = place.out / "sentiment.baseline" / "revision" / "program.py"
        (revision / "program.py").write_bytes(source.read_bytes())
        done = place.run("--incumbent", str(revision))
        assert (valid.code, done.code) == (0, 40)
        assert done.stderr.startswith(f"InvalidProgram: the incumbent {revision}")
        assert want in done.stderr
        assert_clean(place, done)


def test_a_url_that_stops_before_v1_is_recognized(tmp_path: Path) -> None:
    with workplace(tmp_path, Case(EVALUATE, test=4, dev=4)) as place:
        url = place.server.url.removesuffix("/v1")
        done = place.run(url=url)
        assert done.code == 45
        assert done.stderr.startswith(
            f"EndpointUnavailable: default/fake does not know {url}/chat/completions, or not the model fake "
            "(a URL goes up to and including /v1): HTTP 404: "
        )
        assert place.server.counts()["requests"] == 0
        assert place.run("--resume").code == 0, "the same folder, with the right URL"


@pytest.mark.usefixtures("short_waits")
def test_an_endpoint_that_nobody_listens_at_is_told_with_its_url(tmp_path: Path) -> None:
    with workplace(tmp_path, Case(EVALUATE, test=4, dev=4)) as place:
        done = place.run(url="http://127.0.0.1:9/v1")
        assert done.code == 45
        assert done.stderr.startswith(
            "EndpointUnavailable: default/fake at http://127.0.0.1:9/v1 left 10 requests in a row"
        )
        assert "Connection refused" in done.stderr
        assert done.result["usage"] == {**done.result["usage"], "calls": 10, "failed": 10, "inputTokens": 0}
        assert done.stderr.endswith("; --endpoint NAME=URL says where it is\n")
        assert_clean(place, done)

        place.change(run={"seed": 3})
        assert place.run().code == 0, "nothing was answered: the corrected command needs no --resume"


def test_verify_of_what_is_no_finished_run_says_what_is_missing(tmp_path: Path) -> None:
    nothing = ended(start_cli("verify", str(tmp_path)), tmp_path)
    assert (nothing.code, nothing.stderr) == (
        52,
        f"VerifyFailed: {tmp_path} holds no finished run: there is no run.json\n",
    )
    (tmp_path / "run.json").write_text("{")
    broken = ended(start_cli("verify", str(tmp_path)), tmp_path)
    assert broken.code == 52
    assert broken.stderr.startswith(f"VerifyFailed: {tmp_path}: a file of the run cannot be read: ")
    assert len(broken.stderr.splitlines()) == 1
