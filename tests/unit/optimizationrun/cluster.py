"""A cluster in memory: what the API server keeps, what the operator's cache shows of it, and an operator that works on it.

Plans are carried out as the engine does (guarded, children, creates, deletes, events, status), and an operator can be killed
before any one of these writes. Nodes are played by tests: `pod_starts`, `reports`, `ends`, ...
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from dspy_operator.contract import names
from dspy_operator.contract.documents import DatasetReport, GateReport, Progress, Result, Score
from dspy_operator.contract.exits import EXIT_OF, Outcome, Reason
from dspy_operator.contract.runspec import Control, Usage
from dspy_operator.controllers.admission.controller import AdmissionController
from dspy_operator.controllers.admission.grants import ADMISSION, Grants
from dspy_operator.controllers.optimizationrun.controller import OptimizationRunController
from dspy_operator.engine.conditions import timestamp
from dspy_operator.engine.plan import Body, Event, Key, Plan, Ref, Settings
from tests.unit import heard

NAMESPACE = "team-a"
START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
CANDIDATE = "v1:" + "c" * 64
TEST_DIGEST = "v1:" + "7" * 64


class Killed(Exception):
    """The operator died before a write."""


class Refused(Exception):
    """The API server refused a write, or the engine refused to make it; the pass comes again."""


@dataclass
class Operator:
    """What lives in the operator's process: lost when it dies."""

    grants: Grants = field(default_factory=Grants)

    def __post_init__(self) -> None:
        settings = Settings(runner_image="runner:1", operator_image="operator:1")
        self.runs = OptimizationRunController(settings, self.grants)
        self.admission = AdmissionController(self.grants)


class Cluster:
    """The API server, a cache of it, and one operator."""

    def __init__(self) -> None:
        self.time = START
        self.server: dict[tuple[str, str, str], Body] = {}
        self.cache: dict[tuple[str, str, str], Body] = {}
        self.operator = Operator()
        self.writes: Counter[str] = Counter()
        self.events: list[Event] = []
        self.jobs_made: list[str] = []
        self.known_jobs: set[str] = set()
        """Jobs that a status named, or whose pod said a word."""
        self.phases: list[tuple[str, str | None, str | None]] = []
        """(run, phase before, phase after) of each status that was written."""
        self.due: dict[Key, datetime] = {}
        self._version = 0
        self._kill_after: int | None = None
        self._stale = False
        self._foreign: set[Ref] = set()

    # --- World -------------------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        return self.time

    def get(self, kind: str, namespace: str, name: str) -> Body | None:
        return self.cache.get((kind, namespace, name))

    def all(self, kind: str, namespace: str | None = None) -> Iterable[Body]:
        return [
            body for (of, where, _), body in sorted(self.cache.items()) if of == kind and namespace in (None, where)
        ]

    def children(self, owner: Key) -> Iterable[Body]:
        return [body for _, body in sorted(self.cache.items()) if _owner(body) == owner]

    def referrers(self, key: Key) -> Iterable[Key]:
        return ()

    async def read(self, ref: Ref) -> Body | None:
        return self.server.get((ref.kind, ref.namespace, ref.name))

    def foreign(self, key: Key) -> tuple[Ref, ...]:
        return tuple(sorted(self._foreign))

    # --- what people do ----------------------------------------------------------------------------------------------

    def apply(self, document: Mapping[str, Any]) -> Body:
        """Create or edit an object; generation moves with spec."""
        kind, metadata = document["kind"], document["metadata"]
        at = (kind, metadata.get("namespace", NAMESPACE), metadata["name"])
        before = self.server.get(at)
        body = copy.deepcopy(dict(document))
        if before is None:
            body["metadata"] |= {
                "namespace": at[1],
                "uid": f"uid-{self._next()}",
                "generation": 1,
                "creationTimestamp": timestamp(self.time),
            }
        else:
            body["metadata"] = copy.deepcopy(before["metadata"])
            body.setdefault("status", copy.deepcopy(before.get("status") or {}))
            if body.get("spec") != before.get("spec"):
                body["metadata"]["generation"] += 1
        return self._store(at, body)

    def edit(self, name: str, **changes: Any) -> None:
        """Set (None: remove) top fields of a run's spec."""
        body = copy.deepcopy(self.server["OptimizationRun", NAMESPACE, name])
        for field_name, value in changes.items():
            if value is None:
                body["spec"].pop(field_name, None)
            else:
                body["spec"][field_name] = value
        self.apply(body)

    def remove(self, kind: str, name: str, namespace: str = NAMESPACE) -> None:
        """Gone at once, with everything that it owns."""
        body = self.server.pop((kind, namespace, name))
        self._forget((kind, namespace, name))
        for at, child in list(self.server.items()):
            owners = {reference["uid"] for reference in child["metadata"].get("ownerReferences", ())}
            if body["metadata"]["uid"] in owners:
                self.remove(child["kind"], child["metadata"]["name"], at[1])

    def lose_status(self, name: str) -> None:
        body = copy.deepcopy(self.server["OptimizationRun", NAMESPACE, name])
        body.pop("status", None)
        self._store(("OptimizationRun", NAMESPACE, name), body)

    def set_status(self, kind: str, name: str, status: Mapping[str, Any], namespace: str = NAMESPACE) -> None:
        body = copy.deepcopy(self.server[kind, namespace, name])
        body["status"] = dict(status)
        self._store((kind, namespace, name), body)

    def pass_time(self, **duration: float) -> None:
        self.time += timedelta(**duration)

    # --- what nodes do -----------------------------------------------------------------------------------------------

    def pod_of(self, run: str, *, pending: bool = False) -> Body | None:
        """The Job controller makes the pod of the newest Job that has none."""
        jobs = [job for job in self._of("Job", run) if "status" not in job and not self._pods(run, _try(job))]
        if not jobs:
            return None
        job = max(jobs, key=_try)
        template = copy.deepcopy(job["spec"]["template"])
        name = f"{job['metadata']['name']}-{self._next()}"
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": template["metadata"]
            | {
                "name": name,
                "namespace": NAMESPACE,
                "uid": f"uid-{self._next()}",
                "creationTimestamp": timestamp(self.time),
                "ownerReferences": [{"kind": "Job", "uid": job["metadata"]["uid"], "controller": True}],
            },
            "spec": template["spec"] | {"nodeName": "node-1"},
            "status": {"phase": "Pending"},
        }
        self._store(("Pod", NAMESPACE, name), pod)
        if not pending:
            self.pod_starts(run)
        return pod

    def pod_starts(self, run: str) -> None:
        self._pod_status(
            run,
            {
                "phase": "Running",
                "containerStatuses": [{"name": "runner", "state": {"running": {"startedAt": timestamp(self.time)}}}],
            },
        )

    def pod_says(self, run: str, status: Mapping[str, Any]) -> None:
        """Any pod status, as a kubelet or the control plane writes it."""
        self._pod_status(run, status)

    def reports(self, run: str, *, calls: int = 0, step: str = "optimize", **more: Any) -> None:
        """progress.json of the newest pod."""
        pod = self._newest_pod(run)
        document = Progress(
            step=step,
            effective=self.control(run).generation,
            usage={"task": spent(calls)},
            heartbeat=timestamp(self.time),
            **more,
        )
        self._tell(run, names.KEY_PROGRESS, document.model_copy(update=_whose(pod)).document())

    def ends(
        self,
        run: str,
        reason: Reason = Reason.COMPLETED,
        *,
        calls: int = 10,
        outcome: Outcome | None = Outcome.IMPROVED,
        message: str = "",
        says_so: bool = True,
        **more: Any,
    ) -> None:
        """The newest pod leaves its result, and ends with its exit code; the Job follows."""
        pod = self._newest_pod(run)
        code = int(EXIT_OF[reason])
        good = code in (0, 44)
        result = Result(
            outcome=outcome if good else None,
            exit=code,
            reason=reason,
            message=message,
            usage=spent(calls),
            usage_by_role={"task": spent(calls)},
            seconds=(self.time - START).total_seconds(),
            **({"candidate": CANDIDATE} | judgement(self, run) | more if good else more),
        )
        if says_so:
            self._tell(run, names.KEY_RESULT, result.model_copy(update=_whose(pod)).document())
        self.exits(run, code)

    def exits(self, run: str, code: int, *, reason: str = "") -> None:
        """The container ends, with or without last words; the Job follows."""
        pod = self._newest_pod(run)
        state = {
            "exitCode": code,
            "reason": reason or ("Completed" if code == 0 else "Error"),
            "startedAt": timestamp(self.time),
            "finishedAt": timestamp(self.time),
        }
        self._pod_status(
            run,
            {
                "phase": "Succeeded" if code == 0 else "Failed",
                "containerStatuses": [{"name": "runner", "state": {"terminated": state}}],
            },
        )
        self._job_ends(run, _try(pod), "Complete" if code == 0 else "Failed")

    def pod_vanishes(self, run: str) -> None:
        """Its node was removed, and the pod object with it."""
        pod = self._newest_pod(run)
        self.remove("Pod", pod["metadata"]["name"])
        self._job_ends(run, _try(pod), "Failed")

    def pod_is_cut_off(self, run: str) -> None:
        """Its node does not answer: the pod is to go and does not."""
        pod = copy.deepcopy(self._newest_pod(run))
        pod["metadata"]["deletionTimestamp"] = timestamp(self.time)
        self._store(("Pod", NAMESPACE, pod["metadata"]["name"]), pod)

    def job_is_deleted(self, run: str) -> None:
        """By hand, with its pod on the way out."""
        job = max(self._of("Job", run), key=_try)
        self._remove_job(job)

    def leaves(self, run: str, *, calls: int = 0, says_so: bool = True) -> None:
        """A pod that is to go is gone, with its last words where it ran."""
        for pod in self._of("Pod", run):
            if "deletionTimestamp" not in pod["metadata"]:
                continue
            ran = pod["status"].get("phase") == "Running"
            if ran and says_so and self.server.get(("ConfigMap", NAMESPACE, names.run_channel(run))):
                result = Result(
                    exit=51, reason=Reason.STOPPED, usage=spent(calls), usage_by_role={"task": spent(calls)}
                )
                self._tell(run, names.KEY_RESULT, result.model_copy(update=_whose(pod)).document())
            self.remove("Pod", pod["metadata"]["name"])
            self._job_ends(run, _try(pod), "Failed")

    # --- the operator ------------------------------------------------------------------------------------------------

    def restart(self) -> None:
        """Its memory is lost; its cache is filled anew before it works."""
        self.operator = Operator()
        self._stale = False
        self.catch_up()

    def fall_behind(self) -> None:
        """From here on the cache shows only what the operator wrote itself."""
        self._stale = True

    def catch_up(self) -> None:
        self._stale = False
        self.cache = dict(self.server)

    def look(self, run: str, *, kill_after: int | None = None) -> Plan | None:
        """One pass over a run, and those that it wakes. None where the pass failed and comes again.

        Args:
            kill_after: writes after which the operator dies.
        Raises:
            Killed: it did.
        """
        key = Key("OptimizationRun", NAMESPACE, run)
        if key not in self.cache:
            return None
        self._kill_after = kill_after
        body = self.cache[key]
        plan = asyncio.run(self.operator.runs.reconcile(key, self))
        heard.says(key.kind, plan)
        try:
            self._carry_out(body, plan)
        except Refused:
            return None
        finally:
            self._kill_after = None
        if plan.requeue_after is not None:
            self.due[key] = self.time + plan.requeue_after
        if ADMISSION in plan.wake:
            self.admission_looks()
        return plan

    def admission_looks(self) -> None:
        """One pass over the singleton, and one over each run whose answer changed."""
        for run in asyncio.run(self.operator.admission.reconcile(ADMISSION, self)).wake:
            self.look(run.name)

    def settle(self, *runs: str, most: int = 20) -> None:
        """Passes until nothing is written any more.

        Raises:
            AssertionError: it never came to rest.
        """
        self.admission_looks()  # as it does every 10 s while anybody waits
        wanted = runs or tuple(name for kind, _, name in list(self.cache) if kind == "OptimizationRun")
        for _ in range(most):
            before = self.writes.total()
            for run in wanted:
                self.look(run)
            if self.writes.total() == before:
                return
        raise AssertionError(f"still writing after {most} passes: {self.writes}")

    # --- looking -----------------------------------------------------------------------------------------------------

    def status(self, run: str) -> dict[str, Any]:
        return dict(self.server["OptimizationRun", NAMESPACE, run].get("status") or {})

    def condition(self, run: str, of: str) -> tuple[str, str]:
        """(status, reason)."""
        for condition in self.status(run)["conditions"]:
            if condition["type"] == of:
                return condition["status"], condition["reason"]
        raise AssertionError(f"no condition {of}")

    def message(self, run: str, of: str) -> str:
        return next(str(found["message"]) for found in self.status(run)["conditions"] if found["type"] == of)

    def entry(self, run: str, program: str = "triage") -> dict[str, Any]:
        account = self.server["ConfigMap", NAMESPACE, names.program_account(program)]
        return dict(json.loads(account["data"][run]))

    def control(self, run: str) -> Control:
        channel = self.server["ConfigMap", NAMESPACE, names.run_channel(run)]
        return Control.model_validate_json(channel["data"][names.KEY_CONTROL])

    def jobs(self, run: str) -> list[str]:
        return [body["metadata"]["name"] for body in self._of("Job", run)]

    def pods(self, run: str) -> list[Body]:
        return self._of("Pod", run)

    def job(self, run: str) -> Body:
        return max(self._of("Job", run), key=_try)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _carry_out(self, body: Body, plan: Plan) -> None:
        for guarded in plan.guarded:
            self._guarded(guarded.body)
        for child in plan.children:
            self._apply(child)
        for new in plan.creates:
            self._create(new)
        for unwanted in plan.deletes:
            at = (unwanted.ref.kind, unwanted.ref.namespace, unwanted.ref.name)
            live = self.server.get(at)
            if live is not None and live["metadata"]["uid"] == unwanted.uid:
                self._write("delete")
                if at[0] == "Job":
                    self._remove_job(live)
                else:
                    self.remove(at[0], at[2])
            self.cache.pop(at, None)
        self.events.extend(plan.events)
        if plan.status is None:
            return
        wanted = _without_none(plan.status)
        if wanted == (body.get("status") or {}):
            return
        at = ("OptimizationRun", body["metadata"]["namespace"], body["metadata"]["name"])
        live = self.server.get(at)
        if live is None or live["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            if live is not None:
                self.cache[at] = live
            raise Refused("the object changed")
        self._write("status")
        if "jobName" in wanted:
            self.known_jobs.add(wanted["jobName"])
        self.phases.append((at[2], (body.get("status") or {}).get("phase"), wanted.get("phase")))
        self.cache[at] = self._store(at, {**copy.deepcopy(live), "status": wanted})

    def _guarded(self, body: Body) -> None:
        at = _at(body)
        live = self.server.get(at)
        if (live or {"metadata": {}})["metadata"].get("resourceVersion") != body["metadata"].get("resourceVersion"):
            if live is not None:
                self.cache[at] = live
            raise Refused("the account changed")
        self._write("account")
        self.cache[at] = self._store(at, copy.deepcopy(body))

    def _apply(self, child: Body) -> None:
        at = _at(child)
        live = self.server.get(at)
        self._refuse_leaving(child, live)
        wanted = copy.deepcopy(child)
        if live is not None:
            merged = {**live, **wanted, "metadata": {**live["metadata"], **wanted["metadata"]}}
            if "data" in live or "data" in wanted:
                merged["data"] = {**live.get("data", {}), **wanted.get("data", {})}
            if merged == live:
                return
            wanted = merged
        self._write(f"apply {child['kind']}")
        self.cache[at] = self._store(at, wanted)

    def _create(self, new: Body) -> None:
        at = _at(new)
        live = self.server.get(at)
        if live is None:
            self._write(f"create {new['kind']}")
            if new["kind"] == "Job":
                assert new["metadata"]["name"] not in self.known_jobs, "a Job's name was used twice"
                self.jobs_made.append(new["metadata"]["name"])
            body = copy.deepcopy(new)
            body["metadata"]["creationTimestamp"] = timestamp(self.time)
            live = self._store(at, body)
        self._refuse_leaving(new, live)
        self.cache[at] = live

    def _refuse_leaving(self, wanted: Body, live: Body | None) -> None:
        if live is None:
            return
        owners = [[of["uid"] for of in body["metadata"].get("ownerReferences", ())] for body in (wanted, live)]
        if owners[0] != owners[1] or "deletionTimestamp" in live["metadata"]:
            raise Refused("belongs to a former object, or is on its way out")

    def _write(self, what: str) -> None:
        if self._kill_after is not None:
            if self._kill_after == 0:
                self._kill_after = None
                raise Killed
            self._kill_after -= 1
        self.writes[what] += 1

    def _store(self, at: tuple[str, str, str], body: Body) -> Body:
        body["metadata"]["resourceVersion"] = str(self._next())
        body["metadata"].setdefault("uid", f"uid-{self._version}")
        self.server[at] = body
        if not self._stale:
            self.cache[at] = body
        return body

    def _forget(self, at: tuple[str, str, str]) -> None:
        if not self._stale:
            self.cache.pop(at, None)

    def _next(self) -> int:
        self._version += 1
        return self._version

    def _of(self, kind: str, run: str) -> list[Body]:
        owner = Key("OptimizationRun", NAMESPACE, run)
        return [body for _, body in sorted(self.server.items()) if body["kind"] == kind and _owner(body) == owner]

    def _pods(self, run: str, try_: int) -> list[Body]:
        return [body for body in self._of("Pod", run) if _try(body) == try_]

    def _newest_pod(self, run: str) -> Body:
        return max(self._of("Pod", run), key=_try)

    def _pod_status(self, run: str, status: Mapping[str, Any]) -> None:
        pod = copy.deepcopy(self._newest_pod(run))
        pod["status"] = {**pod["status"], **copy.deepcopy(dict(status))}
        self._store(("Pod", NAMESPACE, pod["metadata"]["name"]), pod)

    def _job_ends(self, run: str, try_: int, how: str) -> None:
        for job in self._of("Job", run):
            if _try(job) == try_ and "status" not in job:
                body = copy.deepcopy(job)
                body["status"] = {"conditions": [{"type": how, "status": "True"}]}
                self._store(("Job", NAMESPACE, body["metadata"]["name"]), body)

    def _remove_job(self, job: Body) -> None:
        """In the background: the Job is gone, its pods get their signal."""
        name = job["metadata"]["name"]
        self.server.pop(("Job", NAMESPACE, name))
        self._forget(("Job", NAMESPACE, name))
        for pod in self._pods(job["metadata"]["labels"][names.LABEL_NAME], _try(job)):
            if pod["status"].get("phase") == "Running":
                going = copy.deepcopy(pod)
                going["metadata"].setdefault("deletionTimestamp", timestamp(self.time + timedelta(seconds=10)))
                self._store(("Pod", NAMESPACE, pod["metadata"]["name"]), going)
            else:
                self.remove("Pod", pod["metadata"]["name"])

    def _tell(self, run: str, key: str, document: Any) -> None:
        self.known_jobs.add(names.run_job(run, document["try"]))
        at = ("ConfigMap", NAMESPACE, names.run_channel(run))
        channel = copy.deepcopy(self.server[at])
        channel["data"] = {**channel.get("data", {}), key: json.dumps(document)}
        self._store(at, channel)


def spent(calls: int) -> Usage:
    """Each call costs the same."""
    return Usage(calls=calls, input_tokens=20 * calls, output_tokens=5 * calls, cost=f"{calls / 1000:.3f}")


def judgement(cluster: Cluster, run: str) -> dict[str, Any]:
    """What a result says of the test rows; the look is the next one after those that run.json knows."""
    spec = json.loads(cluster.server["ConfigMap", NAMESPACE, _spec_name(cluster, run)]["data"][names.KEY_RUN_SPEC])
    return {
        "dataset": DatasetReport(
            rows=100,
            train=30,
            validation=30,
            test=40,
            dropped=0,
            digest=spec["dataset"]["digest"],
            test_digest=TEST_DIGEST,
        ),
        "scores": {name: Score(score=value, rows=40) for name, value in (("baseline", 50.0), ("candidate", 80.0))},
        "gate": GateReport(
            p=0.001, alpha=0.0304, delta=30.0, passed=True, promote=True, why="+30", look=spec["testLooks"] + 1
        ),
    }


def _spec_name(cluster: Cluster, run: str) -> str:
    volumes = cluster.job(run)["spec"]["template"]["spec"]["volumes"]
    return str(next(volume["configMap"]["name"] for volume in volumes if volume["name"] == "spec"))


def _whose(pod: Body) -> dict[str, int]:
    return {"attempt": int(pod["metadata"]["labels"][names.LABEL_ATTEMPT]), "try_": _try(pod)}


def _try(body: Body) -> int:
    return int(body["metadata"]["labels"][names.LABEL_TRY])


def _owner(body: Body) -> Key | None:
    labels = body["metadata"].get("labels") or {}
    kind, name = labels.get(names.LABEL_KIND), labels.get(names.LABEL_NAME)
    return Key(kind, body["metadata"].get("namespace", ""), name) if kind and name else None


def _at(body: Body) -> tuple[str, str, str]:
    return (body["kind"], body["metadata"]["namespace"], body["metadata"]["name"])


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value
