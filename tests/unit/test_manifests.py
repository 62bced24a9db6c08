"""Manifests from files: what is read, what is refused, and the place that each message names."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dspy_operator.api.unsupported import NOT_YET
from dspy_operator.cli import manifests as manifests_module
from dspy_operator.cli.manifests import ManifestError, Manifests, ObjectId, one_run, read_manifests
from dspy_operator.contract.exits import Exit

EXAMPLES = Path(__file__).parents[2] / "examples"

RUN = """\
apiVersion: dspy-operator.io/v1alpha1
kind: OptimizationRun
metadata:
  name: fast
spec:
  programRef: {name: triage}
  optimizer:
    type: Evaluate
  seed: 7
  budget:
    calls: 10
"""

PROGRAM = """\
apiVersion: dspy-operator.io/v1alpha1
kind: PromptProgram
metadata:
  name: triage
spec:
  program:
    type: Single
    single:
      signature:
        instructions: Classify the text.
        inputs:
          - name: text
            type: str
        outputs:
          - name: label
            type: str
  target:
    endpoint: {name: qwen}
  dataset:
    source:
      type: ConfigMap
      configMap: {name: rows, key: data.jsonl}
    format: JSONL
    fields:
      label: category
  metric:
    type: ExactMatch
"""

CONFIG_MAP = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: rows
data:
  data.jsonl: |
    {"text": "hello", "category": "a"}
"""

Read = Callable[..., Manifests]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Writes files by name into a folder `x` and reads the folder."""
    monkeypatch.chdir(tmp_path)

    def _read(**files: str | bytes) -> Manifests:
        Path("x").mkdir(exist_ok=True)
        for name, content in files.items():
            path = Path("x", name.replace("_", "."))
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_manifests([Path("x")])

    return _read


def complaints(error: pytest.ExceptionInfo[ManifestError]) -> list[str]:
    return [str(problem) for problem in error.value.problems]


def not_yet(model: str, field: str) -> str:
    """What is said of values that would be refused next; nothing once they are all built."""
    values = [value for entry in NOT_YET if (entry.model, entry.field) == (model, field) for value in entry.values]
    return f" (not supported yet: {', '.join(values)})" if values else ""


# What is read


def test_the_example_folder_is_read_as_kubectl_reads_it() -> None:
    found = read_manifests([EXAMPLES / "sentiment"])
    assert list(found.programs) == [("default", "sentiment")]
    assert list(found.runs) == [("default", "sentiment-bootstrap")]
    assert list(found.endpoints) == [("default", "qwen")]
    assert len(found.config_maps["default", "sentiment-data"]["data.jsonl"].splitlines()) == 200
    assert found.ignored == {}
    assert one_run(found).spec.budget.calls == 600


def test_several_paths_make_one_set(read: Read) -> None:
    found = read_manifests([EXAMPLES / "sentiment", EXAMPLES / "sentiment-constrained" / "program.yaml"])
    assert sorted(name for _, name in found.programs) == ["sentiment", "sentiment-constrained"]


def test_a_file_that_is_named_twice_is_read_once(read: Read) -> None:
    read(run_yaml=RUN)
    assert len(read_manifests([Path("x"), Path("x/run.yaml"), Path("x/../x/run.yaml")]).runs) == 1


def test_a_folder_gives_its_yaml_and_json_and_nothing_else(read: Read) -> None:
    Path("x/below").mkdir(parents=True)
    Path("x/below/run.yaml").write_text("not: read")
    Path("x/folder.yaml").mkdir()
    Path("x/.hidden.yaml").write_text("not: read")
    Path("x/make_data.py").write_text("not = read")
    found = read(run_yaml=RUN, kustomization_yaml="resources: [run.yaml]", program_yml=PROGRAM, rows_json=_json_rows())
    assert (list(found.runs), list(found.programs)) == ([("default", "fast")], [("default", "triage")])
    assert found.config_maps == {("default", "rows"): {"data.jsonl": "{}"}}


def _json_rows() -> str:
    return json.dumps(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rows"}, "data": {"data.jsonl": "{}"}},
        indent="\t",
    )


def test_standard_input_is_read_for_a_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(RUN.encode())))
    found = read_manifests([Path("-")])
    assert found.locate(one_run(found), ("spec", "seed")) == "<stdin>:9"


def test_documents_and_lists_are_unpacked_and_empty_documents_skipped(read: Read) -> None:
    listed = "apiVersion: v1\nkind: List\nitems:\n" + "".join(_as_item(text) for text in (PROGRAM, CONFIG_MAP))
    found = read(all_yaml=f"---\n# nothing here\n---\n{RUN}---\n---\n{listed}...\n")
    assert (len(found.runs), len(found.programs), len(found.config_maps)) == (1, 1, 1)
    program = found.programs["default", "triage"]
    lines = Path("x/all.yaml").read_text().splitlines()
    place = found.locate(program, ("spec", "dataset", "fields", "label"))
    assert lines[int(place.removeprefix("x/all.yaml:")) - 1].strip() == "label: category"


def _as_item(text: str) -> str:
    return "- " + "\n  ".join(text.splitlines()) + "\n"


def test_any_case_of_a_boolean_of_yaml_1_1_is_refused_and_no_other_word(read: Read) -> None:
    words = ["y", "Y", "yes", "Yes", "YES", "On", "OFF", "n", "yEs", "yeah", "none", "Never"]
    with pytest.raises(ManifestError) as refused:
        read(a_yaml=RUN + "status:\n  words:\n" + "".join(f"    - {word}\n" for word in words))
    assert [problem.problem.message.split()[0] for problem in refused.value.problems] == words[:8]


def test_kinds_without_a_use_are_counted(read: Read) -> None:
    deployment = "apiVersion: apps/v1\nkind: Deployment\nspec: {on: !what yes}\n"
    service = "apiVersion: v1\nkind: Service\n"
    assert read(a_yaml=f"{deployment}---\n{deployment}---\n{service}").ignored == {"Deployment": 2, "Service": 1}


def test_equal_names_in_two_namespaces_are_two_objects(read: Read) -> None:
    found = read(a_yaml=RUN, b_yaml=RUN.replace("name: fast", "name: fast\n  namespace: team-a"))
    assert sorted(found.runs) == [("default", "fast"), ("team-a", "fast")]


def test_binary_data_is_text_where_it_is_utf_8_else_bytes(read: Read) -> None:
    text, gzip = (base64.b64encode(data).decode() for data in ("é\n".encode(), b"\x1f\x8b\xff"))
    found = read(a_yaml=f"{CONFIG_MAP}binaryData: {{b.jsonl: {text}, c.gz: {gzip}}}\n")
    assert set(found.config_maps["default", "rows"]) == {"data.jsonl", "b.jsonl", "c.gz"}
    assert found.config_maps["default", "rows"]["b.jsonl"] == "é\n"
    assert found.config_maps["default", "rows"]["c.gz"] == b"\x1f\x8b\xff"


@pytest.mark.parametrize(
    ("written", "want"),
    [
        pytest.param("2026-01-31", "2026-01-31", id="a date is text"),
        pytest.param("12:30:45", "12:30:45", id="a time is text, not a number to base 60"),
        pytest.param("!!str 5", "5", id="the tag !!str makes text of a number"),
        pytest.param("True", True, id="true is true in any case"),
        pytest.param("~", None, id="a tilde is null"),
        pytest.param("-12", -12, id="digits are a number"),
        pytest.param("1e3", 1000.0, id="an exponent makes a fraction"),
        pytest.param('"yes"', "yes", id="a quoted yes is text"),
        pytest.param(r'"\ud83d\ude00"', "\N{GRINNING FACE}", id="the two halves that JSON writes are one character"),
        pytest.param("0ab3", "0ab3", id="a digest that begins with 0 is text"),
        pytest.param("&a {text: b}", {"text": "b"}, id="an anchor may be defined again"),
    ],
)
def test_what_a_value_means(read: Read, written: str, want: object) -> None:
    status = f"status:\n  again: &a 1\n  value: {written}\n"
    assert (read(a_yaml=RUN + status).runs["default", "fast"].status or {})["value"] == want


def test_a_byte_order_mark_and_crlf_are_harmless(read: Read) -> None:
    found = read(a_yaml=b"\xef\xbb\xbf" + CONFIG_MAP.replace("\n", "\r\n").encode())
    assert found.config_maps["default", "rows"]["data.jsonl"] == '{"text": "hello", "category": "a"}\n'


# Where it was written


@pytest.mark.parametrize(
    ("path", "want"),
    [
        pytest.param((), 1, id="the object itself"),
        pytest.param(
            ("spec", "program", "single", "signature", "inputs", 0, "type"), 13, id="a field of a list's item"
        ),
        pytest.param(("spec", "dataset", "fields", "label"), 25, id="a field of a mapping"),
        pytest.param(("spec", "dataset", "source", "configMap", "key"), 22, id="a field in braces"),
        pytest.param(("spec", "dataset", "split", "hash"), 19, id="an absent field: its nearest parent"),
        pytest.param(("spec", "program", "single", "signature", "inputs", 5), 11, id="an absent item: its list"),
    ],
)
def test_a_field_is_located_by_its_line(read: Read, path: tuple[str | int, ...], want: int) -> None:
    found = read(p_yaml=PROGRAM)
    assert found.locate(found.programs["default", "triage"], path) == f"x/p.yaml:{want}"


def test_a_config_map_is_located_by_its_identity(read: Read) -> None:
    found = read(c_yaml=f"---\n{CONFIG_MAP}")
    rows = ObjectId("ConfigMap", "default", "rows")
    assert found.locate(rows, ("data", "data.jsonl")) == "x/c.yaml:7"
    assert str(found.origins[rows]) == "x/c.yaml:2"


# What is refused


@pytest.mark.parametrize(
    ("text", "want"),
    [
        pytest.param(
            RUN.replace("  budget:", "\tbudget:"),
            ["x/a.yaml:10:1: a tab: YAML is indented with spaces"],
            id="a tab where an indentation is",
        ),
        pytest.param(
            RUN.replace("budget:", "budget:\t"),
            ["x/a.yaml:10:10: a tab: YAML is indented with spaces"],
            id="a tab behind a colon",
        ),
        pytest.param(
            RUN.replace("type: Evaluate", "type: Evaluate: now"),
            ['x/a.yaml:8:19: a ":" is not expected here: check the indentation, or put the text in quotes'],
            id="two colons on a line",
        ),
        pytest.param(
            RUN.replace("  seed: 7", "  seed"),
            ['x/a.yaml:9:3: neither "field: value" nor the continuation of a text: is a ":" missing?'],
            id="a colon is missing",
        ),
        pytest.param(
            RUN.replace("  seed: 7", " seed: 7"),
            ["x/a.yaml:9:2: does not fit what begins at line 1: check the indentation and the quotes"],
            id="an indentation that fits nothing above",
        ),
        pytest.param(
            RUN.replace("{name: triage}", "{name: triage"),
            ['x/a.yaml:7:12: "," or "}" is expected: is the "{" of line 6 closed?'],
            id="a brace that is not closed",
        ),
        pytest.param(
            RUN.replace("name: fast", 'name: "fast'),
            ["x/a.yaml:4:9: the quotes that open here are not closed"],
            id="quotes that are not closed",
        ),
        pytest.param(
            RUN.replace("name: fast", r'name: "\d+"'),
            [r'x/a.yaml:4:11: "\d" is no escape: inside double quotes write "\\d", or use single quotes'],
            id="a regular expression in double quotes",
        ),
        pytest.param(
            RUN.replace("name: fast", "name: @fast"),
            ['x/a.yaml:4:9: a text cannot begin with "@": put it in quotes'],
            id="a text that begins with @",
        ),
        pytest.param(
            PROGRAM.replace("Classify the text.", "**Classify** the text."),
            ['x/a.yaml:10:23: a text cannot begin with "*": put it in quotes'],
            id="a text that begins with an asterisk",
        ),
        pytest.param(
            PROGRAM.replace("type: str", 'type: "str" or None', 1),
            ["x/a.yaml:13:25: does not fit what begins at line 12: check the indentation and the quotes"],
            id="a text that is quoted by half",
        ),
        pytest.param(
            RUN.replace("seed: 7", "seed: *seven"),
            ["x/a.yaml:9:9: alias *seven: there is no anchor &seven above it in this document"],
            id="an alias without its anchor",
        ),
        pytest.param(
            RUN.replace("fast", "fa\x07st"), ["x/a.yaml:4:11: control character U+0007"], id="a control character"
        ),
        pytest.param(
            RUN.replace("fast", r'"\UFFFFFFFF"'),
            ["x/a.yaml:4:12: a number here is too large"],
            id="an impossible character",
        ),
        pytest.param(
            RUN.replace("fast", r'"\ud83d"'),
            ["x/a.yaml:4: OptimizationRun: metadata.name: has one half of an escaped character (a lone surrogate)"],
            id="half of a character",
        ),
        pytest.param(
            RUN.replace("seed: 7", "seed: " + "[" * 200),
            ["x/a.yaml:9:107: nested more than 100 levels deep"],
            id="nesting without end",
        ),
        pytest.param(
            RUN + "status: &loop\n  again: *loop\n",
            ["x/a.yaml:12: nested more than 100 levels deep"],
            id="an alias inside its own anchor",
        ),
        pytest.param(
            RUN + "status:\n  l0: &l0 [1]\n" + "".join(f"  l{i + 1}: &l{i + 1} [{f'*l{i}, ' * 9}]\n" for i in range(9)),
            ["x/a.yaml:13: more than 100,000 values, aliases expanded"],
            id="a billion laughs",
        ),
        pytest.param(
            RUN.replace("fast", "!secret fast"),
            ["x/a.yaml:4: OptimizationRun/fast: metadata.name: tags are not understood, found !secret"],
            id="a tag",
        ),
        pytest.param(
            RUN.replace("  budget:\n", "  budget:\n    <<: {calls: 5}\n"),
            ['x/a.yaml:11: OptimizationRun/fast: spec.budget: merge keys ("<<") are not understood: repeat the fields'],
            id="a merge key",
        ),
        pytest.param(
            RUN.replace("seed: 7", "seed: 7\n  seed: 8"),
            ["x/a.yaml:10: OptimizationRun/fast: spec.seed: is there twice, first on line 9"],
            id="a field that is there twice",
        ),
        pytest.param(
            RUN.replace("name: fast", "name: {{ .Values.name }}"),
            [
                "x/a.yaml:4: OptimizationRun: metadata.name: "
                "the name of a field must be text (is this a template? render it first)"
            ],
            id="a Helm template that was not rendered",
        ),
        pytest.param(
            RUN.replace("  budget:\n", "  budget:\n    5: x\n"),
            ['x/a.yaml:11: OptimizationRun/fast: spec.budget: the name of a field must be text: write "5" in quotes'],
            id="a field whose name is a number",
        ),
        pytest.param(
            PROGRAM.replace("name: label", "name: y"),
            [
                "x/a.yaml:15: PromptProgram/triage: spec.program.single.signature.outputs[0].name: "
                "y without quotes is true to kubectl: put it in quotes, or write true"
            ],
            id="an output called y, which is true to kubectl",
        ),
        pytest.param(
            RUN.replace("seed: 7", "seed: 010"),
            [
                "x/a.yaml:9: OptimizationRun/fast: spec.seed: "
                '010 without quotes is not one number to all readers: write "010", or its plain digits'
            ],
            id="a leading zero, which is octal to kubectl",
        ),
        pytest.param(
            RUN.replace("calls: 10", "calls: 10_000"),
            [
                "x/a.yaml:11: OptimizationRun/fast: spec.budget.calls: "
                '10_000 without quotes is not one number to all readers: write "10_000", or its plain digits'
            ],
            id="digits with underscores",
        ),
        pytest.param(
            RUN.replace("seed: 7", "seed: " + "9" * 5000),
            [
                "x/a.yaml:9: OptimizationRun/fast: spec.seed: "
                "is a number of more than 64 bits: put it in quotes, or make it smaller"
            ],
            id="a number of 5000 digits",
        ),
        pytest.param(
            RUN.replace("seed: 7", "seed: 1.5"),
            ["x/a.yaml:9: OptimizationRun/fast: spec.seed: must be a whole number, found 1.5"],
            id="a fraction where a whole number is wanted",
        ),
        pytest.param(
            RUN.replace("calls: 10", "cost: 4.00"),
            [
                "x/a.yaml:11: OptimizationRun/fast: spec.budget.cost: "
                'must be a decimal string in quotes, for example "4.0"'
            ],
            id="money without quotes",
        ),
        pytest.param(
            RUN.replace("/v1alpha1", "/v1"),
            [
                "x/a.yaml:1: OptimizationRun/fast: apiVersion: "
                'must be "dspy-operator.io/v1alpha1", found "dspy-operator.io/v1"'
            ],
            id="a version of our group that does not exist",
        ),
        pytest.param(
            RUN.replace("apiVersion: dspy-operator.io/v1alpha1\n", ""),
            ['x/a.yaml:1: OptimizationRun/fast: apiVersion: must be "dspy-operator.io/v1alpha1", found nothing'],
            id="no apiVersion",
        ),
        pytest.param(
            RUN.replace("OptimizationRun", "OptimisationRun"),
            [
                "x/a.yaml:2: OptimisationRun/fast: kind: "
                'dspy-operator.io has no kind "OptimisationRun"; did you mean "OptimizationRun"?'
            ],
            id="a kind that our group does not have",
        ),
        pytest.param(RUN.replace("kind: OptimizationRun\n", ""), ["x/a.yaml:1: kind: is required"], id="no kind"),
        pytest.param(
            RUN.replace("OptimizationRun", "{a: b}"),
            ['x/a.yaml:2: kind: must be a string, found {"a": "b"}'],
            id="a kind that is a mapping",
        ),
        pytest.param(RUN.replace("OptimizationRun", "5"), ["x/a.yaml:2: kind: must be a string, found 5"], id="kind 5"),
        pytest.param(
            RUN.replace("name: fast", "labels: {}"),
            ["x/a.yaml:3: OptimizationRun: metadata.name: is required"],
            id="no name",
        ),
        pytest.param(
            RUN.replace("    type: Evaluate", "    type: Evaluate\n    boostrapFewShot: {}"),
            [
                "x/a.yaml:9: OptimizationRun/fast: spec.optimizer.boostrapFewShot: unknown field; "
                'allowed: bootstrapFewShot, bootstrapFewShotWithRandomSearch, copro, gepa, inferRules, labeledFewShot, miproV2, simba, stages, type; did you mean "bootstrapFewShot"?'
            ],
            id="a field with a typing error",
        ),
        pytest.param(
            RUN.replace("optimizer:\n    type: Evaluate", "optimizer: Evaluate").replace(
                "  budget:\n    calls: 10", "  budget: 10"
            ),
            [
                'x/a.yaml:7: OptimizationRun/fast: spec.optimizer: must be a mapping, found "Evaluate": write {type: Evaluate}',
                "x/a.yaml:9: OptimizationRun/fast: spec.budget: must be a mapping, found 10; its fields: calls, cost, tokens, wallClock",
            ],
            id="a text or a number where a mapping is wanted",
        ),
        pytest.param(
            RUN.replace("name: triage", "name: triage, namespace: b"),
            [
                "x/a.yaml:6: OptimizationRun/fast: spec.programRef.namespace: unknown field; allowed: name; "
                "what it names is in this object's own namespace"
            ],
            id="a namespace of what has none",
        ),
        pytest.param(
            RUN.replace("name: fast", "name: fast.1").replace("budget:", "deadlines: {pending: 1d}\n  budget:"),
            [
                'x/a.yaml:4: OptimizationRun/fast.1: metadata.name: must match ^[a-z]([-a-z0-9]*[a-z0-9])?$, found "fast.1": '
                'a-z, 0-9 and "-", a letter first',
                "x/a.yaml:10: OptimizationRun/fast.1: spec.deadlines.pending: must match "
                '^([0-9]{1,5}(h|m|s|ms)){1,4}$, found "1d": numbers with h, m, s or ms, such as 1h30m; a day is 24h',
            ],
            id="patterns, in words",
        ),
        pytest.param(
            RUN.replace("budget:", "mode: no\n  budget:"),
            [
                "x/a.yaml:10: OptimizationRun/fast: spec.mode: no without quotes is false to kubectl: put it in quotes, or write false",
                'x/a.yaml:10: OptimizationRun/fast: spec.mode: must be one of Run, Estimate, found "no"',
            ],
            id="a boolean where one of some words is wanted",
        ),
        pytest.param(
            "kind: X\nspec: {type: list[str]}\n",
            ['x/a.yaml:2:18: "," or "}" is expected: put a text with "[" in it in quotes'],
            id="brackets in a text",
        ),
        pytest.param(
            RUN.replace("budget:", "budget:\n    wall_clock: 1h"),
            [
                "x/a.yaml:11: OptimizationRun/fast: spec.budget.wall_clock: unknown field; "
                'allowed: calls, cost, tokens, wallClock; did you mean "wallClock"?'
            ],
            id="a field as Python spells it",
        ),
        pytest.param(
            PROGRAM.replace("format: JSONL", "format: jsonl"),
            [
                'x/a.yaml:23: PromptProgram/triage: spec.dataset.format: must be one of JSONL, JSON, CSV, found "jsonl"'
                + not_yet("Dataset", "format")
                + '; did you mean "JSONL"?'
            ],
            id="a value in lower case",
        ),
        pytest.param(
            RUN.replace("type: Evaluate", "type: Evaluation").replace("budget:", "stop: Halt\n  budget:"),
            [
                "x/a.yaml:8: OptimizationRun/fast: spec.optimizer.type: must be one of Evaluate, LabeledFewShot, "
                "BootstrapFewShot, BootstrapFewShotWithRandomSearch, MIPROv2, GEPA, COPRO, SIMBA, InferRules, Stages, "
                'found "Evaluation"' + not_yet("Optimizer", "type") + '; did you mean "Evaluate"?',
                'x/a.yaml:10: OptimizationRun/fast: spec.stop: must be one of Finish, Cancel, found "Halt"',
            ],
            id="values that there are not",
        ),
        pytest.param(
            "- a\n- b\n",
            ["x/a.yaml:1:1: must be an object: a mapping with apiVersion, kind and metadata"],
            id="a list where an object is wanted",
        ),
        pytest.param(
            "apiVersion: v1\nkind: List\nitems: {}\n",
            ["x/a.yaml:3: List: items: must be a list of objects; a List in a List is not unpacked"],
            id="a List without a list",
        ),
        pytest.param(
            CONFIG_MAP.replace("data.jsonl: |", "rows: 5\n  data.jsonl: |"),
            ["x/a.yaml:6: ConfigMap/rows: data.rows: must be text in quotes or a block (|), found 5"],
            id="a ConfigMap with a number",
        ),
        pytest.param(
            CONFIG_MAP.replace("\ndata:\n", "\nbinaryData: []\ndata:\n"),
            ["x/a.yaml:5: ConfigMap/rows: binaryData: must be a mapping, found []"],
            id="a ConfigMap with a list",
        ),
        pytest.param(
            CONFIG_MAP.replace("v1", "v2").replace("name: rows", "labels: {}")
            + "binaryData: {data.jsonl: aGk=, b: 'ä'}\n",
            [
                'x/a.yaml:1: ConfigMap: apiVersion: must be "v1", found "v2"',
                "x/a.yaml:3: ConfigMap: metadata.name: is required",
                "x/a.yaml:8: ConfigMap: binaryData.data.jsonl: is in data as well",
                "x/a.yaml:8: ConfigMap: binaryData.b: is not base64",
            ],
            id="a ConfigMap that is wrong in every way",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place(read: Read, text: str, want: list[str]) -> None:
    with pytest.raises(ManifestError) as refused:
        read(a_yaml=text)
    assert complaints(refused) == want


def test_all_problems_of_all_files_are_told_at_once(read: Read) -> None:
    with pytest.raises(ManifestError) as refused:
        read(
            a_yaml=RUN.replace("seed: 7", "sede: 7").replace("calls: 10", "calls: 0"),
            b_yaml=f"{PROGRAM}---\n{CONFIG_MAP.replace('name: rows', 'nam: rows')}---\n\tbroken\n",
            c_yaml=b"name: caf\xe9\n",
            d_json="{",
        )
    assert [problem.split(": ")[0] for problem in complaints(refused)] == [
        "x/a.yaml:9",
        "x/a.yaml:11",
        "x/b.yaml:31",
        "x/b.yaml:37:1",
        "x/c.yaml:1",
        "x/d.json:1:2",
    ]
    assert str(refused.value) == "\n".join(complaints(refused))
    assert refused.value.exit is Exit.USAGE


def test_two_objects_of_one_name_are_both_located(read: Read) -> None:
    with pytest.raises(ManifestError) as refused:
        read(a_yaml=RUN, b_yaml=f"---\n{RUN.replace('fast', 'fast # again')}")
    assert complaints(refused) == [
        "x/b.yaml:5: OptimizationRun/fast: metadata.name: this OptimizationRun is there twice, first at x/a.yaml:1"
    ]


@pytest.mark.parametrize(
    ("prepare", "want"),
    [
        pytest.param(lambda: None, "x: no such file or folder", id="a path that does not exist"),
        pytest.param(
            lambda: Path("x").mkdir(),
            "x: there are no manifests in this folder (*.yaml, *.yml, *.json)",
            id="an empty folder",
        ),
        pytest.param(
            lambda: Path("x").write_bytes(b"a: 1\nb: \xff\n"),
            "x:2: is not UTF-8: byte 0xff",
            id="a file in another encoding",
        ),
        pytest.param(
            lambda: Path("x").symlink_to("x"),
            "x: cannot be read: Too many levels of symbolic links",
            id="a link to itself",
        ),
        pytest.param(
            lambda: Path("x").write_bytes(b"#" * (manifests_module.MAX_FILE_BYTES + 1)),
            "x: has more than 8 MiB",
            id="a file that is too large",
        ),
    ],
)
def test_a_path_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepare: Callable[[], object], want: str
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare()
    with pytest.raises(ManifestError) as refused:
        read_manifests([Path("x")])
    assert complaints(refused) == [want]


# Which run


def test_the_only_run_is_meant_when_none_is_named(read: Read) -> None:
    assert one_run(read(a_yaml=RUN)).key == "default/fast"


@pytest.mark.parametrize("name", ["slow", "default/slow"])
def test_a_run_is_chosen_by_its_name(read: Read, name: str) -> None:
    assert one_run(read(a_yaml=RUN, b_yaml=RUN.replace("fast", "slow")), name).key == "default/slow"


@pytest.mark.parametrize(
    ("files", "name", "want"),
    [
        pytest.param({"a_yaml": PROGRAM}, None, "x: there is no OptimizationRun", id="no run at all"),
        pytest.param(
            {"a_yaml": RUN, "b_yaml": RUN.replace("fast", "slow")},
            None,
            "x: there are several OptimizationRuns: name one of fast, slow",
            id="several runs, none named",
        ),
        pytest.param(
            {"a_yaml": RUN, "b_yaml": RUN.replace("fast", "slow")},
            "slwo",
            'x: there is no OptimizationRun "slwo"; there are: fast, slow',
            id="a name that no run has",
        ),
        pytest.param(
            {"a_yaml": RUN, "b_yaml": RUN.replace("name: fast", "name: fast\n  namespace: team-a")},
            "fast",
            "x: there are several OptimizationRuns: name one of default/fast, team-a/fast",
            id="a name that two namespaces have",
        ),
    ],
)
def test_which_run_is_meant_must_be_clear(read: Read, files: dict[str, str], name: str | None, want: str) -> None:
    with pytest.raises(ManifestError) as refused:
        one_run(read(**files), name)
    assert complaints(refused) == [want]


# Anything else


def _read_text(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(text.encode(errors="surrogatepass"))))
        try:
            found = read_manifests([Path("-")])
        except ManifestError as error:
            assert error.problems
            assert all(str(problem).startswith("<stdin>") and problem.problem.message for problem in error.problems)
        else:
            for objects in (found.programs, found.runs, found.endpoints):
                assert all(found.locate(obj, ("spec",)) for obj in objects.values())


SNIPPETS = st.sampled_from(
    (
        *(
            "\n",
            "\n  ",
            "\t",
            ": ",
            "- ",
            "? ",
            "<<",
            "|",
            ">-",
            "&a ",
            "*a",
            "!!int ",
            "!x ",
            "---\n",
            "...",
            "%YAML 1.",
            "#",
        ),
        *("{", "}", "[", "]", ",", '"', "'", "\\U", "\\ud8", "\\", "0", "9", "_", ".", "e", "~", "yes", "kind", "List"),
        *(
            "items",
            "metadata",
            "data",
            "binaryData",
            "ConfigMap",
            "v1",
            "apiVersion",
            "\ufeff",
            "\x85",
            "\u2028",
            "\x00",
        ),
    )
)


@given(st.one_of(st.text(), st.lists(SNIPPETS, max_size=40).map("".join)))
@example("%YAML " + "1" * 5000 + ".1\n---\n")
@example("? {a: b}\n: c")
@example("kind: List\nitems: &a [*a]\n")
@settings(max_examples=400, deadline=None)
def test_no_text_is_answered_with_anything_but_a_manifest_error(text: str) -> None:
    _read_text(text)


@given(data=st.data(), text=st.sampled_from([RUN, PROGRAM, CONFIG_MAP, json.dumps({"kind": "List", "items": [{}]})]))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_damage_to_a_good_manifest_is_answered_with_anything_but_a_manifest_error(
    data: st.DataObject, text: str
) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 30)))
        text = text[:start] + data.draw(SNIPPETS) + text[end:]
    _read_text(text)
