"""Code of a program's own: what its pods mount and run in, and that another text is another program."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dspy_operator.api.objects import PromptProgram, parse_object
from dspy_operator.contract.exits import Reason
from dspy_operator.controllers import codefiles
from tests.unit.promptprogram.world import Cluster
from tests.unit.written import a_program

METRIC = "spec.metric.code"
A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def code(key: str = "metric.py") -> dict[str, Any]:
    return {"configMap": {"name": "code", "key": key}, "entrypoint": f"{key.removesuffix('.py')}:score"}


def in_an_image(image: str) -> dict[str, Any]:
    return {"metric": {"type": "Code", "code": {"image": image, "entrypoint": "metric:score"}}}


IN_A_CONFIG_MAP = {"metric": {"type": "Code", "code": code()}}


def pod_of(cluster: Cluster) -> dict[str, Any]:
    spec: dict[str, Any] = cluster.job["spec"]["template"]["spec"]
    return spec


def run_json(cluster: Cluster) -> dict[str, Any]:
    (spec,) = (body for (kind, name), body in cluster.objects.items() if kind == "ConfigMap" and name.endswith("-spec"))
    document: dict[str, Any] = json.loads(spec["data"]["run.json"])
    return document


def test_code_is_mounted_read_only_where_run_json_says() -> None:
    cluster = Cluster()
    cluster.apply_rows("def score(example, prediction): return 1", name="code", key="metric.py")
    cluster.apply_program(IN_A_CONFIG_MAP)
    cluster.settle()
    pod = pod_of(cluster)
    volume = next(volume for volume in pod["volumes"] if volume["name"] == "code-0")
    items = [{"key": "metric.py", "path": "metric.py"}]
    assert volume["configMap"] == {"name": "code", "items": items, "optional": True}
    mount = next(mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "code-0")
    assert mount == {"name": "code-0", "mountPath": "/code/0", "readOnly": True}
    assert run_json(cluster)["code"] == {
        METRIC: {
            "entrypoint": "metric:score",
            "file": "/code/0/metric.py",
            "source": "ConfigMap code, key metric.py",
        }
    }


def test_a_program_in_python_is_mounted_and_its_pod_told_where() -> None:
    cluster = Cluster()
    cluster.apply_rows("def build(): ...", name="code", key="program.py")
    where = {"configMap": {"name": "code", "key": "program.py"}, "entrypoint": "program:build"}
    fields = {"inputs": [{"name": "ticket", "type": "str"}], "outputs": [{"name": "label", "type": "str"}]}
    cluster.apply_program({"program": {"type": "Code", "code": {**where, **fields}}})
    cluster.settle()
    assert [volume["name"] for volume in pod_of(cluster)["volumes"] if volume["name"].startswith("code")] == ["code-0"]
    part = {"entrypoint": "program:build", "file": "/code/0/program.py", "source": "ConfigMap code, key program.py"}
    assert run_json(cluster)["code"] == {"spec.program.code": part}


def test_a_program_without_code_mounts_none() -> None:
    cluster = Cluster()
    cluster.apply_program()
    cluster.settle()
    assert not [volume for volume in pod_of(cluster)["volumes"] if volume["name"].startswith("code")]


def test_code_that_was_edited_is_validated_again_and_is_another_program() -> None:
    cluster = Cluster()
    cluster.apply_rows("one", name="code", key="metric.py")
    cluster.apply_program(IN_A_CONFIG_MAP)
    cluster.settle()
    cluster.pod_reports(code={METRIC: A})
    cluster.job_ends()
    cluster.settle()
    before = cluster.status
    assert before["code"] == {METRIC: A}
    cluster.apply_rows("two", name="code", key="metric.py")
    cluster.pass_time(seconds=301)
    cluster.settle()
    assert cluster.jobs() == ["pp-triage-2"]
    cluster.pod_reports(code={METRIC: B})
    cluster.job_ends()
    cluster.settle()
    assert cluster.status["code"] == {METRIC: B}
    assert cluster.status["programDigest"] != before["programDigest"]


@pytest.mark.parametrize(
    ("image", "remark"),
    [
        pytest.param("registry.example/code:1", "spec.metric.code.image has no digest", id="a tag"),
        pytest.param(f"registry.example/code@{A}", None, id="a digest"),
    ],
)
def test_code_in_an_image_runs_in_it_and_says_whether_it_is_pinned(image: str, remark: str | None) -> None:
    cluster = Cluster()
    cluster.apply_program(in_an_image(image))
    cluster.settle()
    assert pod_of(cluster)["containers"][0]["image"] == image
    cluster.pod_reports(code={METRIC: A})
    cluster.job_ends()
    cluster.settle()
    told = cluster.condition("Accepted")[2]
    assert remark in told if remark is not None else "digest" not in told


def test_a_refusal_in_an_image_stays_until_an_edit() -> None:
    """The pod's image is not the operator's runner, and need not be."""
    cluster = Cluster()
    cluster.apply_program(in_an_image("registry.example/code:1"))
    cluster.settle()
    cluster.pod_reports(reason=Reason.INVALID_METRIC, message="metric.py, line 3: SyntaxError", path=METRIC)
    cluster.job_ends(complete=False)
    cluster.settle()
    assert cluster.condition("Accepted")[:2] == ("False", "InvalidMetric")
    cluster.pass_time(seconds=3600)
    cluster.settle()
    assert cluster.jobs() == ["pp-triage-1"]


def test_where_code_lies_in_the_pod_is_by_its_place_in_the_program() -> None:
    parts = [{"metric": {"type": "F1"}}, {"metric": {"type": "Code", "code": code("a.py")}}]
    parts.append({"metric": {"type": "Code", "code": code("b.py")}})
    written = a_program({"metric": {"type": "Composite", "composite": {"parts": parts}}})
    program = parse_object(written)
    assert isinstance(program, PromptProgram)
    path = "spec.metric.composite.parts[{}].metric.code"
    found = codefiles.parts_of(program, {path.format(2): A})
    assert {at: (part.file, part.sha256) for at, part in found.items()} == {
        path.format(1): ("/code/0/a.py", None),
        path.format(2): ("/code/1/b.py", A),
    }
    assert [(ref.name, ref.key) for ref in codefiles.mounts_of(program) if ref] == [("code", "a.py"), ("code", "b.py")]
