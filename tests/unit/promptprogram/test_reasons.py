"""Each reason of a program: what sets it, what it says, and what recovers from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from dspy_operator.api.reasons import ProgramReason
from dspy_operator.api.status import PromptProgramStatus
from dspy_operator.contract.exits import Reason
from dspy_operator.engine.plan import Settings
from tests.unit.promptprogram.world import ROWS, Cluster, files_of, revision_config_map
from tests.unit.written import REMOVED

Hands = Callable[[Cluster], Any]


@dataclass(frozen=True)
class Row:
    """One reason's life."""

    reason: ProgramReason
    happens: Hands
    condition: tuple[str, str]
    """Type and status of the condition that shows it."""
    says: str
    """Part of its message."""
    stalled: bool = False
    """Whether it waits for somebody's hand."""
    recovers: Hands | None = None
    """All that a person, or time, has to do; the validation that follows passes."""


def _refused(reason: Reason, message: str, path: str, changes: dict[str, Any] | None = None) -> Hands:
    def happens(cluster: Cluster) -> None:
        cluster.apply_program(changes)
        cluster.settle()
        cluster.pod_reports(reason=reason, message=message, path=path)
        cluster.job_ends(complete=False)

    return happens


def _edit(changes: dict[str, Any]) -> Hands:
    return lambda cluster: cluster.apply_program(changes)


def _given_up(cluster: Cluster) -> None:
    cluster.apply_program()
    for _ in range(4):
        cluster.settle()
        cluster.job_ends(complete=False, containerStatuses=[_terminated("OOMKilled", 137)])
        cluster.pass_time(minutes=10)


def _terminated(reason: str, code: int) -> dict[str, Any]:
    return {"name": "runner", "state": {"terminated": {"reason": reason, "exitCode": code}}}


def _waiting(reason: str, message: str) -> dict[str, Any]:
    return {
        "phase": "Pending",
        "containerStatuses": [{"name": "runner", "state": {"waiting": {"reason": reason, "message": message}}}],
    }


def _image_missing(cluster: Cluster) -> None:
    cluster.apply_program()
    cluster.settle()
    cluster.put_pod(cluster.job, _waiting("ImagePullBackOff", 'Back-off pulling image "runner:1"'))


def _image_comes(cluster: Cluster) -> None:
    cluster.put_pod(cluster.job, {"phase": "Running"})


def _rows_come(cluster: Cluster) -> None:
    cluster.apply_rows()
    cluster.pass_time(seconds=5)


CODE = {
    "metric": {
        "type": "Code",
        "code": {"configMap": {"name": "code", "key": "metric.py"}, "entrypoint": "metric:score"},
    }
}


def _code_comes(cluster: Cluster) -> None:
    cluster.apply_rows("def score(example, prediction): return 1", name="code", key="metric.py")
    cluster.pass_time(seconds=5)


def _taken(kind: str, name: str, *, then: Hands) -> Hands:
    def happens(cluster: Cluster) -> None:
        cluster.put_foreign(kind, name)
        then(cluster)

    return happens


def _looked_at_seven_times(cluster: Cluster) -> None:
    cluster.put_account({"fast": 2, "slow": 5})
    cluster.validated()


def _a_new_program(cluster: Cluster) -> None:
    cluster.apply_program()


EDIT = {"program.single.signature.instructions": "Classify the ticket well."}
TOO_LARGE = files_of("x") | {"prompts.json": "x" * 950_000, "report.json": "r" * 10}

ROWS_OF_TABLE = [
    pytest.param(
        Row(
            ProgramReason.VALIDATING,
            _a_new_program,
            ("Accepted", "Unknown"),
            "a pod checks program, rows and metric",
            recovers=lambda c: None,
        ),
        id="a new program is checked by a pod",
    ),
    pytest.param(
        Row(
            ProgramReason.ACCEPTED,
            Cluster.validated,
            ("Accepted", "True"),
            "200 rows: 60 train, 60 validation, 80 test",
        ),
        id="a good program is accepted, with the sizes of its split",
    ),
    pytest.param(
        Row(
            ProgramReason.ROWS_DROPPED,
            lambda c: c.validated(dropped=2, dropped_message="2 rows dropped: line 3: no column text"),
            ("Accepted", "True"),
            "80 test; 2 rows dropped: line 3: no column text",
        ),
        id="some rows are bad: the program is accepted without them",
    ),
    pytest.param(
        Row(ProgramReason.SERVING, Cluster.validated, ("Ready", "True"), "is served, the baseline"),
        id="the baseline is served from the first minute",
    ),
    pytest.param(
        Row(
            ProgramReason.INVALID_SPEC,
            lambda c: c.apply_program({"surprise": 1}),
            ("Accepted", "False"),
            "spec.surprise: unknown field",
            stalled=True,
            recovers=_edit({}),
        ),
        id="a field that nobody knows",
    ),
    pytest.param(
        Row(
            ProgramReason.INVALID_PROGRAM,
            lambda c: c.apply_program({"program.single.signature.outputs": []}),
            ("Accepted", "False"),
            "spec.program.single.signature.outputs: needs at least 1 item(s)",
            stalled=True,
            recovers=_edit({}),
        ),
        id="a program without outputs, which the API server let through",
    ),
    pytest.param(
        Row(
            ProgramReason.INVALID_PROGRAM,
            _refused(
                Reason.INVALID_PROGRAM, 'unknown type "strr" at 0', "spec.program.single.signature.outputs[0].type"
            ),
            ("Accepted", "False"),
            'spec.program.single.signature.outputs[0].type: unknown type "strr" at 0',
            stalled=True,
            recovers=_edit(EDIT),
        ),
        id="a type outside the grammar, found by the pod (exit 40)",
    ),
    pytest.param(
        Row(
            ProgramReason.INVALID_DATASET,
            _refused(
                Reason.INVALID_DATASET,
                'column "category" is not in data.jsonl (columns: text, tag)',
                "spec.dataset.fields.label",
            ),
            ("Accepted", "False"),
            'spec.dataset.fields.label: column "category" is not in data.jsonl (columns: text, tag)',
            stalled=True,
            recovers=_edit({"dataset.fields": {"label": "tag"}}),
        ),
        id="a column that is not there (exit 41)",
    ),
    pytest.param(
        Row(
            ProgramReason.INVALID_DATASET,
            lambda c: c.apply_program({"dataset.source.inline": REMOVED}),
            ("Accepted", "False"),
            "spec.dataset.source.inline: type is Inline: inline is required",
            stalled=True,
            recovers=_edit({}),
        ),
        id="a source without its member",
    ),
    pytest.param(
        Row(
            ProgramReason.SPLIT_EMPTY,
            _refused(Reason.SPLIT_EMPTY, "1 dev, 0 test", "spec.dataset.split"),
            ("Accepted", "False"),
            "spec.dataset.split: 1 dev, 0 test",
            stalled=True,
            recovers=_edit({"dataset.source.inline.data": "{}\n{}\n{}"}),
        ),
        id="a split that leaves no test rows (exit 41)",
    ),
    pytest.param(
        Row(
            ProgramReason.INVALID_METRIC,
            _refused(
                Reason.INVALID_METRIC,
                'no output "lable" (outputs: label)',
                "spec.metric.exactMatch.fields[0]",
                {"metric.exactMatch": {"fields": ["lable"]}},
            ),
            ("Accepted", "False"),
            'spec.metric.exactMatch.fields[0]: no output "lable" (outputs: label)',
            stalled=True,
            recovers=_edit({"metric.exactMatch": {"fields": ["label"]}}),
        ),
        id="a metric that names no output (exit 42)",
    ),
    pytest.param(
        Row(
            ProgramReason.CODE_NOT_FOUND,
            lambda c: c.apply_program(CODE),
            ("Accepted", "False"),
            "spec.metric.code.configMap.name: ConfigMap team-a/code does not exist; creating it is enough",
            recovers=_code_comes,
        ),
        id="code in a ConfigMap that is not there yet: applying it is enough",
    ),
    pytest.param(
        Row(
            ProgramReason.CODE_NOT_FOUND,
            lambda c: (c.apply_rows(name="code", key="score.py"), c.apply_program(CODE)),
            ("Accepted", "False"),
            'spec.metric.code.configMap.key: ConfigMap team-a/code has no key "metric.py" (keys: score.py)',
            recovers=_code_comes,
        ),
        id="code under another key: the keys that exist are named",
    ),
    pytest.param(
        Row(
            ProgramReason.DATASET_NOT_FOUND,
            lambda c: c.apply_program(ROWS),
            ("Accepted", "False"),
            "spec.dataset.source.configMap.name: ConfigMap team-a/tickets does not exist",
            recovers=_rows_come,
        ),
        id="rows in a ConfigMap that is not there yet: applying it is enough",
    ),
    pytest.param(
        Row(
            ProgramReason.DATASET_NOT_FOUND,
            lambda c: (c.apply_rows(key="rows.jsonl"), c.apply_program(ROWS)),
            ("Accepted", "False"),
            'spec.dataset.source.configMap.key: ConfigMap team-a/tickets has no key "data.jsonl" (keys: rows.jsonl)',
            recovers=_rows_come,
        ),
        id="rows under another key: the keys that exist are named",
    ),
    pytest.param(
        Row(
            ProgramReason.VALIDATION_FAILED,
            _given_up,
            ("Accepted", "Unknown"),
            "4 tries failed, the last: OOMKilled, exit code 137",
            stalled=True,
            recovers=_edit(EDIT),
        ),
        id="a pod that is killed four times: nobody tries for ever",
    ),
    pytest.param(
        Row(
            ProgramReason.VALIDATION_FAILED,
            _given_up,
            ("Accepted", "Unknown"),
            "4 tries failed",
            stalled=True,
            recovers=lambda c: c.restart(Settings(runner_image="runner:2", operator_image="operator:2")),
        ),
        id="given up, and another runner image was installed",
    ),
    pytest.param(
        Row(
            ProgramReason.RUNNER_IMAGE_UNAVAILABLE,
            _image_missing,
            ("Accepted", "Unknown"),
            'ImagePullBackOff: Back-off pulling image "runner:1"',
            recovers=_image_comes,
        ),
        id="an image that the node cannot pull",
    ),
    pytest.param(
        Row(
            ProgramReason.REVISION_TOO_LARGE,
            lambda c: c.validated(files=TOO_LARGE),
            ("Accepted", "False"),
            "921600 fit (prompts.json 950000, program.json",
            stalled=True,
            recovers=_edit({"dataset.exportRows": False}),
        ),
        id="a baseline that no ConfigMap holds",
    ),
    pytest.param(
        Row(
            ProgramReason.NAME_CONFLICT,
            _taken("ConfigMap", "triage-current", then=Cluster.validated),
            ("Ready", "False"),
            "ConfigMap team-a/triage-current exists and is not ours",
            stalled=True,
            recovers=lambda c: c.remove_foreign("ConfigMap", "triage-current"),
        ),
        id="somebody else's object under the name that applications would mount",
    ),
    pytest.param(
        Row(
            ProgramReason.NAME_CONFLICT,
            _taken("Role", "pp-triage-pod", then=Cluster.apply_program),
            ("Accepted", "Unknown"),
            "Role team-a/pp-triage-pod exists and is not ours",
            stalled=True,
            recovers=lambda c: c.remove_foreign("Role", "pp-triage-pod"),
        ),
        id="somebody else's object under a name that the validation needs",
    ),
    pytest.param(
        Row(
            ProgramReason.PINNED,
            lambda c: (
                c.put(revision_config_map("triage-golden", files_of("golden"))),
                c.validated({"revision": {"name": "triage-golden"}}),
            ),
            ("Ready", "True"),
            "triage-golden is served, as spec.revision says",
        ),
        id="a pin to a revision that Git brought",
    ),
    pytest.param(
        Row(
            ProgramReason.REVISION_NOT_FOUND,
            lambda c: c.validated({"revision": {"name": "triage-golden"}}),
            ("Ready", "False"),
            "there is no revision triage-golden; triage-",
            stalled=True,
            recovers=lambda c: c.put(revision_config_map("triage-golden", files_of("golden"))),
        ),
        id="a pin to nothing: what is served is served on, and the revision may still come",
    ),
    pytest.param(
        Row(
            ProgramReason.TEST_UNDERPOWERED,
            lambda c: c.validated(test=40),
            ("Ready", "True"),
            "TestUnderpowered: with 40 test rows a gain of 15 points is the smallest that can pass",
        ),
        id="too few test rows: told before anything is paid",
    ),
    pytest.param(
        Row(
            ProgramReason.TEST_WORN,
            _looked_at_seven_times,
            ("Ready", "True"),
            "TestWorn: 80 test rows were looked at 7 times",
        ),
        id="test rows that were looked at too often",
    ),
    pytest.param(
        Row(ProgramReason.SETTLED, Cluster.validated, ("Reconciling", "False"), ""),
        id="nothing is left to do",
    ),
]


@pytest.mark.parametrize("row", ROWS_OF_TABLE)
def test_reason(row: Row) -> None:
    cluster = Cluster()

    row.happens(cluster)
    cluster.settle()

    kind, status = row.condition
    found, reason, message = cluster.condition(kind)
    assert found == status
    assert row.says in message
    assert reason == row.reason or row.reason.value in message
    assert cluster.says("Stalled")[0] == str(row.stalled)
    PromptProgramStatus.model_validate(cluster.status)  # the CRD would drop what it does not know

    if row.recovers is None:
        return
    row.recovers(cluster)
    cluster.settle()
    if any("status" not in job for job in cluster.all("Job")):
        cluster.pod_reports()
        cluster.job_ends()
        cluster.settle()
    assert cluster.says("Ready")[0] == "True"
    assert cluster.says("Stalled") == ("False", "Settled")
    assert cluster.current["data"]


OF_CANDIDATES = frozenset(
    {
        ProgramReason.PROMOTED,
        ProgramReason.SUPERSEDED,
        ProgramReason.MANUAL_PROMOTION,
        ProgramReason.GATE_NOT_PASSED,
        ProgramReason.NOT_JUDGED,
        ProgramReason.INCUMBENT_CHANGED,
        ProgramReason.DIFFERENT_MODEL,
        ProgramReason.PROGRAM_CHANGED,
        ProgramReason.REVISION_DAMAGED,
    }
)
"""Told of candidates: test_promotion.py has a row for each."""


def test_every_reason_has_a_row() -> None:
    rows = {parameter.values[0].reason for parameter in ROWS_OF_TABLE}  # type: ignore[union-attr]
    assert rows | OF_CANDIDATES == set(ProgramReason)
