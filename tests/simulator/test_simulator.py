"""The simulator plays pods that real Jobs made: with a Job by hand, before any operator relies on it."""

from __future__ import annotations

import base64
import itertools
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dspy_operator.api.objects import ModelEndpoint, OptimizationRun, PromptProgram, parse_object
from dspy_operator.contract import names
from dspy_operator.contract.documents import Progress, Result
from dspy_operator.contract.exits import Exit, Outcome, Reason
from dspy_operator.contract.resolve import Surroundings, resolve, resolve_validation
from dspy_operator.contract.runspec import Control, Paths
from dspy_operator.controllers import runnerpod
from tests.controlplane.processes import ControlPlane
from tests.integration.operator.manifests import a_program, a_run, an_endpoint, changed, rows
from tests.simulator import Crash, Death, Ends, Failure, Play, Simulator, Step

Body = dict[str, Any]
_PATHS = Paths(journal=names.JOURNAL_FILE, out=names.OUT_FOLDER, control=names.CONTROL_FILE)
_count = itertools.count(1)


@pytest.fixture(scope="module")
def _playing(control_plane: ControlPlane) -> Iterator[Simulator]:
    with Simulator(control_plane) as running:
        yield running


@pytest.fixture
def by_hand(control_plane: ControlPlane, _playing: Simulator) -> Iterator[ByHand]:
    hand = ByHand(control_plane, _playing, f"hand-{next(_count)}")
    hand.prepare()
    yield hand
    assert not _playing.problems


class ByHand:
    """Does what the operator would: spec, channel, access, Job."""

    def __init__(self, plane: ControlPlane, simulator: Simulator, namespace: str) -> None:
        self.plane, self.simulator, self.namespace = plane, simulator, namespace
        self.run = a_run()
        self.endpoint = an_endpoint()
        self.program = a_program()
        self._try = 0

    def prepare(self) -> None:
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self._create("/api/v1/namespaces", {"metadata": {"name": self.namespace, "labels": labels}})
        self._make("configmaps", {"metadata": {"name": "tickets"}, "data": {"data.jsonl": rows()}})

    def try_(self, *, control: Control | None = None, validate: bool = False) -> str:
        """Start a Job; its name."""
        self._try += 1
        run, program, endpoint = (self._typed(body) for body in (self.run, self.program, self.endpoint))
        assert (
            isinstance(run, OptimizationRun)
            and isinstance(program, PromptProgram)
            and isinstance(endpoint, ModelEndpoint)
        )
        secret = endpoint.spec.provider.openai.api_key_secret if endpoint.spec.provider.openai else None
        mounts = runnerpod.Mounts(
            data=(runnerpod.DataMount(file="data.jsonl", config_map="tickets"),),
            keys={"task": runnerpod.KeyRef(name=secret.name, key=secret.key)} if secret else {},
            image="runner:test",
        )
        around = Surroundings(
            mounts.data_path, _PATHS, key_files={f"{self.namespace}/qwen": names.key_file("task")} if secret else {}
        )
        body = program if validate else run
        owner = runnerpod.Owner(body.kind, self.namespace, body.metadata.name, "00000000-0000-0000-0000-000000000000")
        spec = (
            resolve_validation(program, around)
            if validate
            else resolve(run, program, {f"{self.namespace}/qwen": endpoint}, around)
        )
        channel, spec_name = f"{owner.name}-{self._try}-pod", f"{owner.name}-{self._try}-spec"
        children = [
            runnerpod.spec_config_map(owner, spec_name, spec, mounts),
            runnerpod.channel(owner, channel, control or Control(budget=run.spec.budget)),
            *runnerpod.access(owner, channel),
            runnerpod.job(
                owner,
                f"{owner.name}-{self._try}",
                runnerpod.Pod(attempt=1, try_=self._try, spec_name=spec_name, channel_name=channel, mounts=mounts),
            ),
        ]
        for child in children:
            del child["metadata"]["ownerReferences"]  # nobody by that uid is there, and the garbage collector would act
            resource = {"ConfigMap": "configmaps", "ServiceAccount": "serviceaccounts", "Job": "jobs"}.get(
                child["kind"]
            )
            self._make(resource or child["kind"].lower() + "s", child)
        return f"{owner.name}-{self._try}"

    def pod(self, job: str) -> Body | None:
        found = self._get(f"/api/v1/namespaces/{self.namespace}/pods?labelSelector=job-name%3D{job}")["items"]
        return dict(found[0]) if found else None

    def channel(self, job: str) -> dict[str, str]:
        return dict(self._get(f"/api/v1/namespaces/{self.namespace}/configmaps/{job}-pod").get("data") or {})

    def write_control(self, job: str, control: Control) -> None:
        path = f"/api/v1/namespaces/{self.namespace}/configmaps/{job}-pod"
        change = {"data": {names.KEY_CONTROL: json.dumps(control.document())}}
        assert self.plane.request("PATCH", path, change, kind="merge-patch+json")[0] == 200

    def delete_job(self, job: str) -> None:
        path = f"/apis/batch/v1/namespaces/{self.namespace}/jobs/{job}?propagationPolicy=Background"
        assert self.plane.request("DELETE", path)[0] == 200

    def finished(self, job: str) -> tuple[Result | None, Body]:
        """(result.json, the Job) when the Job controller says that it is over."""

        def over() -> Body | None:
            found = self._get(f"/apis/batch/v1/namespaces/{self.namespace}/jobs/{job}")
            ended = {c["type"] for c in found["status"].get("conditions", ())} & {"Complete", "Failed"}
            return dict(found) if ended else None

        found = until(over)
        text = self.channel(job).get(names.KEY_RESULT)
        return (Result.model_validate_json(text) if text else None), found

    def terminated(self, job: str) -> Body:
        pod = self.pod(job)
        assert pod is not None
        return dict(pod["status"]["containerStatuses"][0]["state"]["terminated"])

    def secret(self, name: str, **keys: str) -> None:
        data = {key: base64.b64encode(value.encode()).decode() for key, value in keys.items()}
        self._make("secrets", {"metadata": {"name": name}, "data": data})

    def _typed(self, body: Body) -> object:
        return parse_object({**body, "metadata": {**body["metadata"], "namespace": self.namespace}})

    def _make(self, resource: str, body: Body) -> None:
        groups = {"jobs": "/apis/batch/v1", "roles": "/apis/rbac.authorization.k8s.io/v1"}
        group = groups.get(resource.replace("rolebindings", "roles"), "/api/v1")
        self._create(f"{group}/namespaces/{self.namespace}/{resource}", body)

    def _create(self, path: str, body: Body) -> None:
        code, said = self.plane.request("POST", path, body)
        assert code == 201, said

    def _get(self, path: str) -> Body:
        code, said = self.plane.request("GET", path)
        assert code == 200, said
        return dict(said)


def until(found: Callable[[], Any], seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while (answer := found()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return answer


def test_a_validation_reports_the_rows_and_a_baseline(by_hand: ByHand) -> None:
    job = by_hand.try_(validate=True)
    result, ended = by_hand.finished(job)
    assert result is not None and result.exit == 0 and result.try_ == 1
    assert result.dataset is not None and (result.dataset.rows, result.dataset.test) == (180, 60)
    assert {key for key in by_hand.channel(job) if key.startswith("revision.")} == {
        f"revision.{name}" for name in ("program.py", "program.json", "prompts.json", "report.json", "provenance.json")
    }
    assert ended["status"]["succeeded"] == 1


@pytest.mark.parametrize(
    ("change", "reason", "path"),
    [
        pytest.param(
            {"dataset__fields": {"ticket": "text", "label": "kind"}},
            Reason.INVALID_DATASET,
            "spec.dataset.fields.label",
            id="a column that is not there",
        ),
        pytest.param(
            {"dataset__split": {"type": "Column", "column": {"name": "category"}}},
            Reason.SPLIT_EMPTY,
            "spec.dataset.split",
            id="a split without a test",
        ),
        pytest.param(
            {"metric__exactMatch": {"fields": ["mood"]}},
            Reason.INVALID_METRIC,
            "spec.metric.exactMatch.fields[0]",
            id="a metric of no output",
        ),
    ],
)
def test_a_wrong_program_ends_its_validation_with_the_path(
    by_hand: ByHand, change: Body, reason: Reason, path: str
) -> None:
    by_hand.program = changed(by_hand.program, **change)
    result, _ = by_hand.finished(by_hand.try_(validate=True))
    assert result is not None and (result.reason, result.path) == (reason, path)


def test_a_run_is_judged_by_the_real_gate_and_pays_to_the_call(by_hand: ByHand) -> None:
    by_hand.simulator.run_plays(by_hand.namespace, "fast", Play(calls=40))
    result, _ = by_hand.finished(by_hand.try_())
    assert result is not None and (result.outcome, result.usage.calls) == (Outcome.IMPROVED, 40 + 2 * 60)
    assert result.gate is not None and result.gate.promote and result.gate.delta == 40.0


def test_a_budget_is_kept_to_the_call(by_hand: ByHand) -> None:
    by_hand.run = changed(by_hand.run, budget={"calls": 150})
    result, _ = by_hand.finished(by_hand.try_())
    assert result is not None and (result.exit, result.usage.calls) == (Exit.BUDGET_EXHAUSTED, 150)


def test_a_floor_counts_where_the_journal_was_lost(by_hand: ByHand) -> None:
    budget = changed(by_hand.run, budget={"calls": 200})
    by_hand.run = budget
    control = Control.model_validate({"budget": {"calls": 200}, "floor": {"calls": 70}})
    result, _ = by_hand.finished(by_hand.try_(control=control))
    assert result is not None and (result.exit, result.usage.calls) == (Exit.BUDGET_EXHAUSTED, 200)


@pytest.mark.parametrize(
    ("stop", "reason"), [("Finish", Reason.STOPPED_EARLY), ("Cancel", Reason.STOPPED)], ids=["finish", "cancel"]
)
def test_a_stop_reaches_a_run(by_hand: ByHand, stop: str, reason: Reason) -> None:
    by_hand.simulator.run_plays(by_hand.namespace, "fast", Play(waits_at=Step.OPTIMIZE))
    job = by_hand.try_()
    until(lambda: by_hand.channel(job).get(names.KEY_PROGRESS))
    by_hand.write_control(job, Control.model_validate({"generation": 2, "budget": {"calls": 1000}, "stop": stop}))
    result, _ = by_hand.finished(job)
    assert result is not None and result.reason is reason


def test_a_deleted_job_is_a_sigterm_and_its_pod_goes(by_hand: ByHand) -> None:
    by_hand.simulator.run_plays(by_hand.namespace, "fast", Play(waits_at=Step.OPTIMIZE))
    job = by_hand.try_()
    text = until(lambda: by_hand.channel(job).get(names.KEY_PROGRESS))
    assert Progress.model_validate_json(text).step == "optimize"
    by_hand.delete_job(job)
    until(lambda: True if by_hand.pod(job) is None else None)
    assert Result.model_validate_json(by_hand.channel(job)[names.KEY_RESULT]).reason is Reason.STOPPED


@pytest.mark.parametrize(
    ("how", "code", "why"),
    [
        pytest.param(Crash(70), 70, "Error", id="crash"),
        pytest.param(Death.OUT_OF_MEMORY, 137, "OOMKilled", id="out of memory"),
    ],
)
def test_a_pod_dies_without_a_word(by_hand: ByHand, how: Crash | Death, code: int, why: str) -> None:
    by_hand.simulator.run_plays(by_hand.namespace, "fast", Play(ends=Ends(how)))
    job = by_hand.try_()
    result, _ = by_hand.finished(job)
    assert result is None
    terminated = by_hand.terminated(job)
    assert (terminated["exitCode"], terminated["reason"]) == (code, why)


@pytest.mark.parametrize("how", [Death.EVICTED, Death.VANISHED, Death.PREEMPTED], ids=str)
def test_a_lost_pod_fails_its_job(by_hand: ByHand, how: Death) -> None:
    by_hand.simulator.run_plays(by_hand.namespace, "fast", Play(ends=Ends(how)))
    _, ended = by_hand.finished(by_hand.try_())
    assert ended["status"]["failed"] == 1


def test_a_typed_failure_has_its_exit_code_and_result(by_hand: ByHand) -> None:
    failure = Failure(Reason.ENDPOINT_UNAVAILABLE, "10 requests in a row without an answer")
    by_hand.simulator.run_plays(by_hand.namespace, "fast", Play(ends=Ends(failure)))
    job = by_hand.try_()
    result, _ = by_hand.finished(job)
    assert result is not None and result.message == failure.message
    assert by_hand.terminated(job)["exitCode"] == Exit.ENDPOINT_UNAVAILABLE


def test_an_absent_secret_is_a_typed_end_until_it_is_there(by_hand: ByHand) -> None:
    by_hand.endpoint["spec"]["provider"]["openai"]["apiKeySecret"] = {"name": "keys", "key": "token"}
    result, _ = by_hand.finished(by_hand.try_())
    assert result is not None and result.reason is Reason.SECRET_MISSING
    by_hand.secret("keys", token="s3cret")
    result, _ = by_hand.finished(by_hand.try_())
    assert result is not None and result.reason is Reason.COMPLETED
