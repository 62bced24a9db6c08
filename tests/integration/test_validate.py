"""`dspy-operator validate` as a pull request's check meets it: every finding with its place, in three formats."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dspy_operator.cli.findings import Finding, Severity, annotation
from tests.integration.harness import OPTIMIZERS, Case, Ended, ended, start_cli

EVALUATE = {"type": "Evaluate"}
KEYS = {"severity", "reason", "message", "file", "line", "column", "path", "kind", "name"}


def validated(folder: Path, *options: str) -> Ended:
    return ended(start_cli("validate", str(folder), "-o", str(folder.parent / "out"), *options), folder)


def findings(folder: Path) -> tuple[int, list[dict[str, Any]]]:
    done = validated(folder, "--format", "json")
    assert done.stderr == ""
    found: list[dict[str, Any]] = json.loads(done.stdout)
    assert all(finding.keys() == KEYS for finding in found)
    return done.code, found


def written(folder: Path, case: Case, *more: dict[str, Any]) -> list[str]:
    """The lines of the one file."""
    folder.mkdir()
    text = yaml.safe_dump_all([*case.objects(), *more], sort_keys=False)
    (folder / "all.yaml").write_text(text)
    return text.splitlines()


def test_mistakes_of_several_objects_and_stages_are_told_in_one_go(tmp_path: Path) -> None:
    """A syntax of one file, a field of a second object, a metric and a type of a third."""
    case = Case(EVALUATE, program={"metric": {"type": "ExactMatch", "exactMatch": {"fields": ["lable"]}}})
    objects = case.objects()
    objects[2]["spec"]["program"]["single"]["signature"]["inputs"][0]["type"] = "tuple"
    objects[1]["spec"]["provider"]["opanai"] = {}
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "all.yaml").write_text(yaml.safe_dump_all(objects, sort_keys=False))
    (folder / "bad.yaml").write_text("a: [1\n")
    code, found = findings(folder)
    assert code == 64
    assert [(each["reason"], each["kind"], each["path"]) for each in found] == [
        ("InvalidManifest", "ModelEndpoint", "spec.provider.opanai"),
        ("InvalidManifest", None, None),
        ("InvalidProgram", "PromptProgram", "spec.program.single.signature.inputs[0].type"),
        ("InvalidMetric", "PromptProgram", "spec.metric.exactMatch.fields[0]"),
    ]
    lines = (folder / "all.yaml").read_text().splitlines()
    for each, text in zip([found[0], *found[2:]], ["opanai: {}", "type: tuple", "lable"], strict=True):
        line = lines[each["line"] - 1]
        assert text in line
        assert line[each["column"] - 1 :].lstrip("- ").startswith(text)


@pytest.mark.parametrize(
    ("metric", "path", "at"),
    [
        pytest.param(
            {"type": "Regex", "regex": {"field": "label", "pattern": "(a"}},
            "regex.pattern",
            "pattern: (a",
            id="a pattern",
        ),
        pytest.param(
            {"type": "JSONEqual", "feedback": {"template": "{found.lable}"}},
            "feedback.template",
            "template: '{found.lable}'",
            id="a placeholder",
        ),
        pytest.param(
            {"type": "ExactMatch", "feedback": {"column": "why"}}, "feedback.column", "column: why", id="a column"
        ),
        pytest.param({"type": "JSONEqual"}, "type", "type: JSONEqual", id="labels that are no JSON"),
    ],
)
def test_a_metric_that_could_not_score_is_told_with_its_place(
    tmp_path: Path, metric: dict[str, Any], path: str, at: str
) -> None:
    lines = written(tmp_path / "x", Case(EVALUATE, program={"metric": metric}))
    code, (found,) = findings(tmp_path / "x")
    assert (code, found["reason"], found["kind"]) == (42, "InvalidMetric", "PromptProgram")
    assert found["path"] == f"spec.metric.{path}"
    assert lines[found["line"] - 1].strip() == at


@pytest.mark.parametrize(
    ("case", "code", "reason", "path", "at"),
    [
        pytest.param(
            Case(EVALUATE, budget={"calls": 5}), 43, "BudgetTooSmall", "spec.budget.calls", "calls: 5",
            id="a budget that cannot pay the judgement",
        ),
        pytest.param(
            Case(EVALUATE, budget={"tokens": 23}), 43, "BudgetTooSmall", "spec.budget.tokens", "tokens: 23",
            id="tokens that cannot pay it, however few a call takes",
        ),
        pytest.param(
            Case(EVALUATE, budget={"calls": 100, "cost": "0.000008"}),
            43, "BudgetTooSmall", "spec.budget.cost", "cost: '0.000008'",
            id="money that cannot pay it, however little a call costs",
        ),
        pytest.param(
            Case(EVALUATE, budget={"calls": 100, "cost": "1.00"}, endpoint={"pricing": None}),
            43, "PricingMissing", "spec.budget.cost", "cost: '1.00'",
            id="a cost without prices",
        ),
        pytest.param(
            Case({"type": "GEPA", "gepa": {"reflectionMinibatchSize": 20, "maxMetricCalls": 50}}),
            41, "InvalidDataset", "spec.optimizer.gepa", "gepa:",
            id="an optimizer that wants more rows",
        ),
    ],
)  # fmt: skip
def test_a_run_is_checked_as_far_as_its_first_call(
    tmp_path: Path, case: Case, code: int, reason: str, path: str, at: str
) -> None:
    lines = written(tmp_path / "x", case)
    exit_, (found,) = findings(tmp_path / "x")
    assert (exit_, found["severity"], found["reason"], found["kind"], found["path"]) == (
        code, "error", reason, "OptimizationRun", path,
    )  # fmt: skip
    assert at in lines[found["line"] - 1]


@pytest.mark.parametrize(
    ("budget", "want"),
    [
        pytest.param({"tokens": 24}, ("spec.budget.tokens", r"takes about \d{4} tokens \(12 calls, by the estimate\), given 24"), id="tokens"),
        pytest.param({"cost": "0.000009"}, ("spec.budget.cost", r"costs about 0\.000\d{3} \(12 calls, by the estimate\), given 0\.000009"), id="money"),
        pytest.param({"tokens": 20_000, "cost": "0.01"}, None, id="enough of both"),
    ],
)  # fmt: skip
def test_a_budget_below_the_estimate_of_the_judgement_is_a_warning(
    tmp_path: Path, budget: dict[str, Any], want: tuple[str, str] | None
) -> None:
    """An estimate is good within a factor of 2: no error."""
    lines = written(tmp_path / "x", Case(EVALUATE, budget=budget))
    code, found = findings(tmp_path / "x")
    assert code == 0
    assert [(each["severity"], each["reason"], each["path"]) for each in found] == (
        [("warning", "BudgetTooSmall", want[0])] if want else []
    )
    if want is not None:
        assert re.search(want[1], found[0]["message"])
        assert str(*budget.values()) in lines[found[0]["line"] - 1]


def test_a_dropped_row_is_a_warning_at_its_line_of_the_data(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    case = Case(EVALUATE)
    written(folder, case)
    good = [json.dumps(row) for row in case.rows()]
    data = [*good[:3], '{"text": "a", "label": "meh", "part": "dev"}', *good[3:], "", "{"]
    block = "".join(f"    {line}".rstrip() + "\n" for line in data)
    head = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: rows}\ndata:\n  data.jsonl: |\n"
    (folder / "all.yaml").write_text(head + block + "---\n" + yaml.safe_dump_all(case.objects()[1:]))
    code, found = findings(folder)
    assert [(each["severity"], each["reason"], each["kind"], each["line"]) for each in found] == [
        ("warning", "RowsDropped", "ConfigMap", 9),
        ("warning", "RowsDropped", "ConfigMap", 44),
    ]
    assert '"meh"' in (folder / "all.yaml").read_text().splitlines()[8]
    assert code == 0


def test_what_only_the_cluster_has_is_a_warning_and_foreign_kinds_are_named_once(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    _, _, program, run = Case(EVALUATE).objects()
    program["spec"]["dataset"]["source"] = {"type": "Inline", "inline": {"data": _jsonl(Case(EVALUATE))}}
    foreign = [{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}} for name in "ab"]
    run["spec"]["programRef"]["name"] = "elsewhere"
    (folder / "all.yaml").write_text(yaml.safe_dump_all([program, run, *foreign], sort_keys=False))
    code, found = findings(folder)
    assert code == 0
    assert [(each["severity"], each["reason"], each["path"]) for each in found] == [
        ("notice", "Ignored", None),
        ("warning", "EndpointNotFound", "spec.target.endpoint.name"),
        ("warning", "ProgramNotFound", "spec.programRef.name"),
    ]
    assert found[0]["message"] == "not of dspy-operator.io: Deployment (2)"


@pytest.mark.parametrize(
    ("endpoint", "want"),
    [
        pytest.param({}, "may be used from its own namespace only; spec.access.namespaces.from: All opens it to team", id="closed"),
        pytest.param({"from": "Same"}, "may be used from its own namespace only", id="closed in words"),
        pytest.param({"from": "All"}, None, id="open"),
    ],
)  # fmt: skip
def test_an_endpoint_of_another_namespace_lets_the_run_in(
    tmp_path: Path, endpoint: dict[str, str], want: str | None
) -> None:
    """As in the cluster: where a run names no task of its own, it is the program's target that is closed: EndpointNotAllowed."""
    folder = tmp_path / "x"
    folder.mkdir()
    objects = Case(EVALUATE).objects()
    rows, model, program, run = objects
    for each in (rows, program, run):
        each["metadata"]["namespace"] = "team"
    program["spec"]["target"]["endpoint"]["namespace"] = "default"
    # Evaluate calls no such model: it is not asked whether it lets the run in.
    run["spec"]["endpoints"] = {"prompt": {"name": model["metadata"]["name"], "namespace": "default"}}
    if endpoint:
        model["spec"]["access"] = {"namespaces": endpoint}
    (folder / "all.yaml").write_text(yaml.safe_dump_all(objects, sort_keys=False))
    code, found = findings(folder)
    assert code == (64 if want else 0)
    told = [(each["reason"], each["kind"], each["path"]) for each in found]
    assert told == ([("EndpointNotAllowed", "PromptProgram", "spec.target.endpoint.name")] if want else [])
    assert want is None or want in found[0]["message"]


def test_answers_and_revisions_of_elsewhere_are_told_and_the_rest_is_checked(tmp_path: Path) -> None:
    elsewhere = {
        "answersFrom": {"runs": ["earlier", "other"]},
        "startFrom": {"type": "Revision", "revision": {"name": "sentiment-1a2b3c4d"}},
    }
    optimizer = OPTIMIZERS["BootstrapFewShot"]
    written(tmp_path / "x", Case(optimizer, run=elsewhere))
    code, found = findings(tmp_path / "x")
    assert code == 0
    assert [(each["severity"], each["reason"], each["path"]) for each in found] == [
        ("warning", "RevisionNotFound", "spec.startFrom.revision.name"),
        ("warning", "AnswersNotFound", "spec.answersFrom.runs"),
    ]
    assert found[1]["message"] == "the journals of earlier, other are not here: the estimate counts every call"
    written(tmp_path / "y", Case(optimizer, run=elsewhere, budget={"calls": 5}))
    code, found = findings(tmp_path / "y")
    assert code != 0 and found[-1]["reason"] == "BudgetTooSmall"


def _jsonl(case: Case) -> str:
    return "".join(json.dumps(row) + "\n" for row in case.rows())


def test_a_run_of_a_broken_program_says_nothing_of_its_own(tmp_path: Path) -> None:
    written(tmp_path / "x", Case(EVALUATE, program={"metrics": {}}))
    code, found = findings(tmp_path / "x")
    assert (code, [each["path"] for each in found]) == (64, ["spec.metrics"])


def test_a_folder_without_anything_of_ours_is_a_mistake(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "a.yaml").write_text("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n")
    done = validated(folder)
    assert done.code == 64
    assert done.stderr == f"InvalidManifest: there is no object of dspy-operator.io in {folder}\n"
    assert done.stdout == "notice: Ignored: not of dspy-operator.io: Deployment (1)\n"


def test_github_sees_one_command_for_each_finding_and_people_one_line(tmp_path: Path) -> None:
    written(tmp_path / "x", Case(EVALUATE, budget={"calls": 5}))
    done = validated(tmp_path / "x", "--format", "github")
    (command, valid) = done.stdout.splitlines()
    assert command.startswith(f"::error file={tmp_path}/x/all.yaml,line=")
    assert ",title=BudgetTooSmall OptimizationRun/run::spec.budget.calls: 13 calls are needed" in command
    assert valid.startswith("sentiment: valid, ")
    told = validated(tmp_path / "x")
    assert (done.code, told.code) == (43, 43)
    assert "all.yaml:" in told.stderr
    assert ": BudgetTooSmall: OptimizationRun/run: spec.budget.calls: 13 calls are needed" in told.stderr


def test_an_annotation_is_one_line_whatever_is_in_it() -> None:
    finding = Finding(Severity.ERROR, "R", "100 %\r\nof: a, b", file="a,b:c.yaml", line=3, column=4, kind="K", name="n")
    assert annotation(finding) == ("::error file=a%2Cb%3Ac.yaml,line=3,col=4,title=R K/n::100 %25%0D%0Aof: a, b")
    assert annotation(Finding(Severity.NOTICE, "Ignored", "x")) == "::notice title=Ignored::x"


def test_the_examples_are_valid(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    folders = [
        f"examples/{name}"
        for name in (
            "sentiment",
            "sentiment-constrained",
            "sentiment-miprov2",
            "sentiment-graph",
            "sentiment-code",
            "sentiment-judge",
            "sentiment-stages",
            "stock-react",
            "invoice-lines",
            "invoice-metric",
        )
    ]
    done = subprocess.run(
        [sys.executable, "-m", "dspy_operator.cli.main", "validate", *folders, "-o", tmp_path, "--format", "json"],
        cwd=root, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, json.loads(done.stdout)) == (0, [])
