"""A cluster of one namespace in memory: it carries out plans as the engine does, and says what was written.

Server-side apply keeps what others wrote beside our fields, creates never change what is there, deletes are by uid, and
every write that changes something counts. Nothing runs by itself: tests play the pods.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from dspy_operator.contract import names
from dspy_operator.contract.canonical import digest
from dspy_operator.contract.digests import revision_digest
from dspy_operator.contract.documents import DatasetReport, Result
from dspy_operator.contract.exits import EXIT_OF, Reason
from dspy_operator.contract.names import KEY_RESULT, KEY_REVISION
from dspy_operator.controllers.promptprogram.controller import PromptProgramController
from dspy_operator.engine.conditions import timestamp
from dspy_operator.engine.plan import Body, Event, Foreign, Key, Plan, Ref, Settings
from tests.unit import heard
from tests.unit.written import a_program

NAMESPACE = "team-a"
PROGRAM = Key("PromptProgram", NAMESPACE, "triage")
START = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
SETTINGS = Settings(runner_image="runner:1", operator_image="operator:1")
ROWS = {
    "dataset.source": {"type": "ConfigMap", "configMap": {"name": "tickets", "key": "data.jsonl"}},
}
"""Changes of a program whose rows lie in a ConfigMap."""


class Crash(Exception):
    """The operator dies between two writes."""


class Cluster:
    """World for controllers, and hands for tests."""

    def __init__(self, settings: Settings = SETTINGS) -> None:
        self.clock = START
        self.objects: dict[tuple[str, str], Body] = {}
        self.unwatched: dict[tuple[str, str], Body] = {}
        """What does not carry our labels: read by name only."""
        self.late: dict[tuple[str, str], Body] = {}
        """What the API server has, and the cache has not heard of."""
        self.events: list[Event] = []
        self.reads: list[Ref] = []
        self.plan = Plan()
        self._applied: dict[tuple[str, str], Body] = {}
        self._foreign: set[Ref] = set()
        self._version = 0
        self.dies_after: int | None = None
        """Writes after which the operator dies."""
        self.controller = PromptProgramController(settings)

    # --- World ----------------------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        return self.clock

    def get(self, kind: str, namespace: str, name: str) -> Body | None:
        return self.objects.get((kind, name)) if namespace == NAMESPACE else None

    def all(self, kind: str, namespace: str | None = None) -> Iterable[Body]:
        return [body for (of, _), body in sorted(self.objects.items()) if of == kind]

    def children(self, owner: Key) -> Iterable[Body]:
        def is_child(body: Body) -> bool:
            labels = body["metadata"].get("labels") or {}
            return (labels.get(names.LABEL_KIND), labels.get(names.LABEL_NAME)) == (owner.kind, owner.name)

        return [body for _, body in sorted(self.objects.items()) if is_child(body)]

    def referrers(self, key: Key) -> Iterable[Key]:
        return [Key(run["kind"], NAMESPACE, run["metadata"]["name"]) for run in self.all("OptimizationRun")]

    async def read(self, ref: Ref) -> Body | None:
        self.reads.append(ref)
        at = (ref.kind, ref.name)
        return self.late.get(at) or self.objects.get(at) or self.unwatched.get(at)

    def foreign(self, key: Key) -> tuple[Ref, ...]:
        return tuple(sorted(self._foreign))

    # --- the engine -----------------------------------------------------------------------------------------------------

    def look(self) -> int:
        """One pass of the program's room; how many writes it took."""
        body = self.objects.get((PROGRAM.kind, PROGRAM.name))
        if body is None:
            return 0
        before = copy.deepcopy(self.objects)
        self.plan = asyncio.run(self.controller.reconcile(PROGRAM, self))
        heard.says(PROGRAM.kind, self.plan)
        assert before == self.objects, "a room must not change what the cache holds"
        return self._carry_out(body, self.plan)

    def settle(self) -> int:
        """Passes until one has nothing to do; how many writes they took."""
        total = 0
        for _ in range(20):
            writes = self.look()
            if not writes:
                return total
            total += writes
        raise AssertionError(f"it never rests: {self.plan}")

    def _carry_out(self, program: Body, plan: Plan, writes: int = 0) -> int:
        try:
            for guarded in plan.guarded:
                writes += self._replace(guarded.body)
            for child in plan.children:
                writes += self._apply(child)
            for new in plan.creates:
                writes += self._create(new)
            for unwanted in plan.deletes:
                writes += self._delete(unwanted.ref, unwanted.uid)
        except Foreign as foreign:
            assert foreign.ref not in self._foreign, "it is known to be somebody else's"
            self._foreign.add(foreign.ref)
            return writes + 1
        self.events += plan.events
        assert plan.status is not None
        status = {key: value for key, value in plan.status.items() if value is not None}
        if status == (program.get("status") or {}):
            assert not plan.events, "an Event without a change would be there after each restart"
            return writes
        assert len(json.dumps(status)) <= 16 * 1024
        self._write()
        self.put({**program, "status": copy.deepcopy(status)})
        return writes + 1

    def _write(self) -> None:
        if self.dies_after is not None:
            if self.dies_after == 0:
                raise Crash
            self.dies_after -= 1

    def _refuse_foreign(self, wanted: Body) -> None:
        ref = Ref.of(wanted)
        at = (ref.kind, ref.name)
        live = self.objects.get(at) or self.unwatched.get(at)
        if live is None:
            return
        ours = {
            label: (live["metadata"].get("labels") or {}).get(label) for label in (names.LABEL_KIND, names.LABEL_NAME)
        }
        if ours != {label: wanted["metadata"]["labels"][label] for label in ours}:
            raise Foreign(ref)

    def _apply(self, wanted: Body) -> int:
        self._refuse_foreign(wanted)
        at = (wanted["kind"], wanted["metadata"]["name"])
        live = self.objects.get(at)
        merged = _merged(live or {}, self._applied.get(at, {}) if live else {}, wanted)
        if live is not None and merged == live:
            return 0
        self._write()
        self._applied[at] = copy.deepcopy(wanted)
        self.put(merged)
        return 1

    def _create(self, wanted: Body) -> int:
        self._refuse_foreign(wanted)
        if (wanted["kind"], wanted["metadata"]["name"]) in self.objects:
            return 0
        self._write()
        self.put(copy.deepcopy(wanted))
        return 1

    def _replace(self, body: Body) -> int:
        live = self.objects[(body["kind"], body["metadata"]["name"])]
        assert body["metadata"]["resourceVersion"] == live["metadata"]["resourceVersion"]
        if body == live:
            return 0
        assert not live.get("immutable") or body["data"] == live["data"]
        self._write()
        self.put(copy.deepcopy(body))
        return 1

    def _delete(self, ref: Ref, uid: str) -> int:
        live = self.objects.get((ref.kind, ref.name))
        if live is None or live["metadata"]["uid"] != uid:
            return 0
        self._write()
        self.remove(ref.kind, ref.name)
        return 1

    # --- hands ----------------------------------------------------------------------------------------------------------

    def put(self, body: Body) -> Body:
        """Store an object, as the API server would after a write."""
        self._version += 1
        metadata = {
            "namespace": NAMESPACE,
            "uid": f"uid-{self._version}",
            "creationTimestamp": timestamp(self.clock),
            "generation": 1,
        } | body["metadata"]
        metadata["resourceVersion"] = str(self._version)
        stored = {**body, "metadata": metadata}
        self.objects[(body["kind"], metadata["name"])] = stored
        return stored

    def remove(self, kind: str, name: str) -> None:
        """Delete an object; the garbage collector takes what it owned, but a running pod takes its time."""
        gone = self.objects[kind, name]
        if kind == "Pod" and gone["status"]["phase"] == "Running" and "deletionTimestamp" not in gone["metadata"]:
            self.put({**gone, "metadata": {**gone["metadata"], "deletionTimestamp": timestamp(self.clock)}})
            return
        del self.objects[kind, name]
        for at, body in list(self.objects.items()):
            references = body["metadata"].get("ownerReferences") or ()
            if any(reference["uid"] == gone["metadata"]["uid"] for reference in references) and at in self.objects:
                self.remove(*at)

    def apply_program(self, changes: dict[str, Any] | None = None) -> Body:
        """`kubectl apply` of the program; another spec is another generation."""
        written = a_program(changes)
        live = self.objects.get((PROGRAM.kind, PROGRAM.name))
        if live is None:
            return self.put(written)
        generation = live["metadata"]["generation"] + (written["spec"] != live["spec"])
        return self.put({**live, "spec": written["spec"], "metadata": {**live["metadata"], "generation": generation}})

    def apply_rows(self, text: str = "{}", name: str = "tickets", key: str = "data.jsonl") -> Body:
        """The user's ConfigMap, which nobody watches."""
        self._version += 1
        live = self.unwatched.get(("ConfigMap", name))
        uid = live["metadata"]["uid"] if live else f"uid-{self._version}"
        self.unwatched["ConfigMap", name] = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": NAMESPACE, "uid": uid, "resourceVersion": str(self._version)},
            "data": {key: text},
        }
        return self.unwatched["ConfigMap", name]

    def put_foreign(self, kind: str, name: str) -> None:
        """Somebody else's object."""
        self.unwatched[kind, name] = {
            "apiVersion": "v1",
            "kind": kind,
            "metadata": {"name": name, "namespace": NAMESPACE, "uid": f"foreign-{name}", "resourceVersion": "1"},
        }

    def remove_foreign(self, kind: str, name: str) -> None:
        """It is gone, and the engine's memory of it has run out."""
        del self.unwatched[kind, name]
        self._foreign.clear()

    def pass_time(self, **delta: float) -> None:
        """The clock moves."""
        self.clock += timedelta(**delta)

    def restart(self, settings: Settings = SETTINGS) -> None:
        """A new operator process: it remembers nothing."""
        self.controller = PromptProgramController(settings)

    def lose_status(self) -> None:
        """Somebody cleared it, or a backup was restored without it."""
        program = dict(self.program)
        del program["status"]
        self.put(program)

    # --- what is there --------------------------------------------------------------------------------------------------

    @property
    def program(self) -> Body:
        return self.objects[(PROGRAM.kind, PROGRAM.name)]

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.program["status"]
        return found

    def condition(self, kind: str) -> tuple[str, str, str]:
        """(status, reason, message)."""
        found = next(condition for condition in self.status["conditions"] if condition["type"] == kind)
        return found["status"], found["reason"], found["message"]

    def says(self, kind: str) -> tuple[str, str]:
        """(status, reason)."""
        return self.condition(kind)[:2]

    def config_map(self, name: str) -> Body | None:
        return self.objects.get(("ConfigMap", name))

    @property
    def current(self) -> Body:
        return self.objects["ConfigMap", "triage-current"]

    def revisions(self) -> list[str]:
        """Names of all revisions."""
        return [
            body["metadata"]["name"]
            for body in self.children(PROGRAM)
            if body["metadata"]["labels"][names.LABEL_COMPONENT] == names.Component.REVISION
        ]

    def jobs(self) -> list[str]:
        return [body["metadata"]["name"] for body in self.all("Job")]

    def candidates(self) -> dict[str, str]:
        """run -> verdict."""
        return {entry["run"]: entry["verdict"] for entry in self.status.get("candidates", ())}

    # --- playing the pod ------------------------------------------------------------------------------------------------

    @property
    def job(self) -> Body:
        """The one Job that runs."""
        (job,) = [job for job in self.all("Job") if "status" not in job]
        return job

    def answer(self, *, try_: int | None = None, **fields: Any) -> dict[str, str]:
        """What the pod of the Job reports; `reason` makes it a failure."""
        job = self.job
        labels = job["metadata"]["labels"]
        spec = self._spec_of(job)
        numbers: dict[str, Any] = {
            "attempt": int(labels[names.LABEL_ATTEMPT]),
            "try": try_ or int(labels[names.LABEL_TRY]),
        }
        if (reason := fields.pop("reason", None)) is not None:
            result = Result(**numbers, reason=reason, exit=int(EXIT_OF[Reason(reason)]), **fields)
            return {KEY_RESULT: json.dumps(result.document())}
        files = fields.pop("files", None) or files_of(json.dumps(spec["program"], sort_keys=True))
        code = fields.pop("code", None)
        report = dataset_report(**fields)
        result = Result(**numbers, dataset=report, code=code, candidate=digest_of(files))
        return {KEY_RESULT: json.dumps(result.document()), **{KEY_REVISION + name: files[name] for name in files}}

    def _spec_of(self, job: Body) -> dict[str, Any]:
        name = job["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"]
        document: dict[str, Any] = json.loads(self.objects["ConfigMap", name]["data"][names.KEY_RUN_SPEC])
        return document

    def pod_reports(self, **fields: Any) -> None:
        """The pod patches its channel; see `answer`."""
        channel = self.objects["ConfigMap", "pp-triage-pod"]
        self.put({**channel, "data": {**channel.get("data", {}), **self.answer(**fields)}})

    def job_ends(self, *, complete: bool = True, job_reason: str = "BackoffLimitExceeded", **status: Any) -> None:
        """The Job controller's words; `terminated` and `pod` go into the pod's status."""
        job = self.job
        condition = {
            "type": "Complete" if complete else "Failed",
            "status": "True",
            "lastTransitionTime": timestamp(self.clock),
            "reason": "CompletionsReached" if complete else job_reason,
        }
        if status:
            self.put_pod(job, {"phase": "Failed", **status})
        self.put({**job, "status": {"conditions": [condition]}})

    def put_pod(self, job: Body, status: dict[str, Any], **metadata: Any) -> Body:
        """The pod of a Job."""
        name = job["metadata"]["name"] + "-x7k2p"
        live = self.objects.get(("Pod", name), {"metadata": {}})
        owner = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": job["metadata"]["name"],
            "uid": job["metadata"]["uid"],
        }
        labels = job["spec"]["template"]["metadata"]["labels"]
        return self.put(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": live["metadata"] | {"name": name, "labels": labels, "ownerReferences": [owner], **metadata},
                "status": status,
            }
        )

    def validated(self, changes: dict[str, Any] | None = None, **fields: Any) -> Cluster:
        """A program that is Ready: applied, validated, its baseline served."""
        self.apply_program(changes)
        self.settle()
        self.pod_reports(**fields)
        self.job_ends()
        self.settle()
        return self

    # --- playing the runs -----------------------------------------------------------------------------------------------

    def run_ends(self, name: str, **changes: Any) -> str:
        """A run that ended with a candidate; its digest.

        Args:
            changes: `files`, `promote`, `outcome`, `incumbent`, `task`, `loaded`, `program_digest`, `published`, `channel`.
        """
        files = changes.get("files") or files_of(f"improved by {name}")
        found, promote = digest_of(files), changes.get("promote", True)
        inputs = {
            "programDigest": changes.get("program_digest", self.status.get("programDigest", "")),
            "endpoints": {"task": {"name": changes.get("task", f"{NAMESPACE}/qwen")}},
        }
        if changes.get("loaded"):
            inputs["endpoints"]["task"]["modelDigest"] = changes["loaded"]
        incumbent = changes.get("incumbent", self.incumbent())
        if incumbent is not None:
            inputs["incumbent"] = incumbent
        status = {
            "completionTime": timestamp(self.clock),
            "outcome": changes.get("outcome", "Improved" if promote else "NoImprovement"),
            "inputs": inputs,
            "scores": {"test": {"baseline": "60.5", "candidate": "83.5"}},
            "gate": {
                "p": "0.004",
                "alpha": changes.get("alpha", "0.0304"),
                "delta": "23",
                "promote": promote,
                "why": "...",
            },
            "revision": {"digest": found},
        }
        live = self.objects.get(("OptimizationRun", name), {"metadata": {"name": name}})
        run = {"apiVersion": "dspy-operator.io/v1alpha1", "kind": "OptimizationRun", "metadata": live["metadata"]}
        spec = {"programRef": {"name": PROGRAM.name}}
        if (revision := self.revision_name(found)) is not None:
            status["revision"]["name"] = revision
        self.put({**run, "spec": spec, "status": status})
        if changes.get("channel", True):
            self.put_run_channel(name, files)
        return found

    def incumbent(self) -> str | None:
        """What a run that starts now is compared with."""
        served = self.status.get("servedRevision", {}).get("name")
        return None if served == self.status.get("baselineRevision") else served

    def revision_name(self, found: str) -> str | None:
        for name in self.revisions():
            if self.objects["ConfigMap", name]["metadata"]["annotations"][names.ANNOTATION_DIGEST] == found:
                return name
        return None

    def runs_see_revisions(self) -> None:
        """The runs' room: a run tells the name of its revision while that is there."""
        for run in self.all("OptimizationRun"):
            if (revision := run.get("status", {}).get("revision")) is None:
                continue
            name = self.revision_name(revision["digest"])
            now = {"digest": revision["digest"]} | ({"name": name} if name else {})
            if now != revision:
                self.put({**run, "status": {**run["status"], "revision": now}})

    def put_run_channel(self, run: str, files: dict[str, str]) -> None:
        labels = {
            names.LABEL_KIND: "OptimizationRun",
            names.LABEL_NAME: run,
            names.LABEL_COMPONENT: names.Component.CHANNEL.value,
        }
        self.put(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": names.run_channel(run), "labels": labels},
                "data": {KEY_REVISION + name: content for name, content in files.items()},
            }
        )

    def put_account(self, looks: dict[str, int]) -> None:
        """run -> its looks at the test set of `dataset_report`."""
        labels = {
            names.LABEL_KIND: PROGRAM.kind,
            names.LABEL_NAME: PROGRAM.name,
            names.LABEL_COMPONENT: names.Component.ACCOUNT.value,
        }
        entries = {run: json.dumps({"testLooks": {"v1:test": count}}) for run, count in looks.items()}
        self.put(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": names.program_account(PROGRAM.name), "labels": labels},
                "data": entries,
            }
        )


def revision_config_map(
    name: str, files: dict[str, str], *, claimed: str | None = None, immutable: bool = True
) -> Body:
    """A revision as Git would bring it from another cluster: the documented labels, and nothing else of ours."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "labels": {
                names.LABEL_KIND: PROGRAM.kind,
                names.LABEL_NAME: PROGRAM.name,
                names.LABEL_COMPONENT: names.Component.REVISION.value,
            },
            "annotations": {names.ANNOTATION_DIGEST: claimed or digest_of(files)},
        },
        "immutable": immutable,
        "data": dict(files),
    }


def files_of(content: str) -> dict[str, str]:
    """A revision's files."""
    return {
        "program.py": f"# {content}\n",
        "program.json": json.dumps({"content": content}),
        "prompts.json": json.dumps({"messages": [content]}),
        "report.json": "{}",
        "provenance.json": "{}",
    }


def digest_of(files: dict[str, str]) -> str:
    return revision_digest(*(files[name].encode() for name in ("program.py", "program.json", "prompts.json")))


def dataset_report(**changes: Any) -> DatasetReport:
    """200 rows, 80 of them for the test."""
    sizes = {"rows": 200, "train": 60, "validation": 60, "test": 80, "dropped": 0}
    return DatasetReport(**(sizes | {"digest": digest("rows"), "test_digest": "v1:test"} | changes))


def _merged(live: Body, before: Body, wanted: Body) -> Body:
    """Server-side apply: our fields as wanted, those that we had and do not want are gone, others' stay."""
    result: Body = {key: value for key, value in live.items() if key in wanted or key not in before}
    for key, value in wanted.items():
        old, applied = live.get(key), before.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            result[key] = _merged(old, applied if isinstance(applied, dict) else {}, value)
        else:
            result[key] = copy.deepcopy(value)
    return result
