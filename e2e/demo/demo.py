"""The steps of the demo: each says what it does and the minutes to expect; what fails says what to look at."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dspy_operator.contract import names
from e2e.cluster import kubectl
from e2e.cluster.command import Failed
from e2e.cluster.steps.fixtures import NAMESPACE as FIXTURES_NAMESPACE
from e2e.cluster.steps.origin import decision
from e2e.demo import lastscreen, overlay, release
from e2e.demo.apiserver import ApiServer, Body, api_server
from e2e.demo.application import Application
from e2e.demo.follow import Follower, condition, is_over, is_true
from e2e.demo.lastscreen import Answer, Result
from e2e.demo.supply import FIXTURES, PUBLIC, QWEN, SMOLLM
from e2e.demo.telling import Telling
from e2e.demo.waiting import until

ENDPOINT, PROGRAM, RUN = "qwen", "sentiment", "sentiment-bootstrap"
COMPARISON = "sentiment-constrained"
"""Its program and its run."""
QUESTION = "The two leads are so warm and funny that I left the cinema smiling."
OUT = Path("out/demo")
_REGISTRY = "model-registry:5001"
_SLOW_BYTES_PER_SECOND = 3_000_000
"""Of each connection (Ollama opens one for 100 MB) to the cluster's own registry: it would send the model within a second, and no percent be seen."""
_GONE_SECONDS = 120
_MADE_BY = "demo.dspy-operator.io/made-here"
"""Label of a namespace that a demo made, and may remove."""


def run(*, namespace: str, model: str, seed: int) -> None:
    """The whole demo, or the rest of an interrupted one.

    Raises:
        Failed: with what to look at, or to do.
    """
    telling = Telling()
    with telling.step("cluster", "A cluster", "seconds where it is there, 1 minute from the caches, 18 from nothing"):
        if subprocess.run([sys.executable, "-m", "e2e.cluster", "up"], check=False).returncode:
            raise Failed("there is no cluster: see above; the same command goes on from there")
    with api_server() as api:
        _Demo(api, telling, namespace, model, seed).go()


def remove(*, namespace: str) -> None:
    """The demo's namespace and the operator; the kinds stay, as with every `helm uninstall`, and so does the cluster."""
    with api_server() as api:
        _refuse_others(api, namespace)
    print(
        kubectl.kubectl("delete", "namespace", namespace, "--ignore-not-found", timeout_seconds=_GONE_SECONDS), end=""
    )
    print(release.uninstall())


def _refuse_others(api: ApiServer, namespace: str) -> None:
    """Raises Failed for a namespace that is there and that no demo made: it would be removed with all that is in it."""
    found = api.find(f"/api/v1/namespaces/{namespace}")
    if found is not None and _MADE_BY not in (found["metadata"].get("labels") or {}):
        raise Failed(f"namespace {namespace} was not made by a demo and is left alone: name another by --namespace")


class _Demo:
    def __init__(self, api: ApiServer, telling: Telling, namespace: str, model: str, seed: int) -> None:
        self._api = api
        self._telling = telling
        self._namespace = namespace
        self._supply = FIXTURES if decision().choice == "built" else PUBLIC
        self._model = model
        self._seed = seed
        self._follower = Follower(api, namespace, telling.line)
        self._application = Application(api, namespace, PROGRAM)

    def go(self) -> None:
        _refuse_others(self._api, self._namespace)
        step = self._telling.step
        with step("operator", "The operator, from its chart", "20 seconds"):
            release.install(self._api, self._supply, self._telling.line)
        with step("model and program", "A model, a program, two runs and an application, applied", "1 minute"):
            self._choose_model()
            self._make_room()
            with self._percents_to_be_seen():
                self._apply()
                self._follower.until("the run calls the model", self._running)
        with step(
            "optimize and judge",
            "DSPy optimizes in a pod, then both programs answer the held-out rows",
            "8 to 12 minutes",
        ):
            before = self._ask_before()
            self._follower.until(f"{RUN} ends", lambda: self._over(RUN))
            self._keep_the_model(True)
            self._follower.until("the program says what becomes of it", self._decided)
        with step("application and comparison", "The application follows; the comparison is measured", "3 minutes"):
            after = self._ask_after(before)
            self._follower.until(f"{COMPARISON} ends", lambda: self._over(COMPARISON))
        with step("back to zero", "No run needs the model any more: its pod goes", "1 minute"):
            self._keep_the_model(False)
            self._telling.line(f"it is kept for another {overlay.SCALE_DOWN_SECONDS} s, then:")
            self._follower.until("no pod of the model is left", self._at_zero)
        self._last_screen(before, after)

    # --- steps --------------------------------------------------------------------------------------------------------

    def _choose_model(self) -> None:
        """Another one where the registry does not have it: the packages that it comes from may be gone one day."""
        if not self._supply.pull:
            return
        name, _, tag = self._model.partition(":")
        code, _ = self._api.of_service(FIXTURES_NAMESPACE, _REGISTRY, f"/v2/library/{name}/manifests/{tag}")
        if code != 200:
            self._telling.line(f"the cluster's registry has no {self._model}; {SMOLLM} takes its place")
            self._model = SMOLLM
        if self._model != QWEN:
            self._telling.line(f"the scores will be {self._model}'s: too small to show a gain; the steps are the same")

    def _make_room(self) -> None:
        """An interrupted demo goes on; what is left of one that is over, or had another model, is removed."""
        endpoint = self._api.ours(self._namespace, "modelendpoints", ENDPOINT)
        runs = [self._api.ours(self._namespace, "optimizationruns", name) or {} for name in (RUN, COMPARISON)]
        other_model = endpoint is not None and endpoint["spec"]["provider"]["ollama"]["model"] != self._model
        failed = any(is_true(run.get("status") or {}, "Failed") for run in runs)
        over = failed or all(is_over(run.get("status") or {}) for run in runs)
        going = (self._api.find(f"/api/v1/namespaces/{self._namespace}") or {}).get("status", {}).get("phase")
        if other_model or over or going == "Terminating":
            self._telling.line(f"namespace {self._namespace} is of an earlier demo: removing it, to begin anew")
            kubectl.kubectl("delete", "namespace", self._namespace, "--wait=false", "--ignore-not-found")
            path = f"/api/v1/namespaces/{self._namespace}"
            until(
                f"namespace {self._namespace} is gone",
                lambda: self._api.find(path) is None,
                seconds=_GONE_SECONDS,
                why_not=lambda: json.dumps((self._api.find(path) or {}).get("status")),
            )
        elif endpoint is not None:
            self._telling.line("going on with the demo that was interrupted")

    def _apply(self) -> None:
        labels = {"pod-security.kubernetes.io/enforce": "restricted", _MADE_BY: "true"}
        kubectl.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self._namespace, "labels": labels}}
        )
        made = overlay.kustomization(OUT, self._supply, namespace=self._namespace, model=self._model, seed=self._seed)
        overlay.write(OUT, made)
        self._telling.line(
            f"$ kubectl apply -k {OUT}     # examples/sentiment, -constrained and app, on this cluster's images"
        )
        for line in kubectl.kubectl("apply", "-k", str(OUT)).splitlines():
            self._telling.line(f"  {line}")

    @contextlib.contextmanager
    def _percents_to_be_seen(self) -> Iterator[None]:
        if not self._supply.pull:
            yield
            return
        self._set_rate(_SLOW_BYTES_PER_SECOND)
        try:
            yield
        finally:
            self._set_rate(0)

    def _set_rate(self, bytes_per_second: int) -> None:
        body = {"rate_bytes_per_second": bytes_per_second}
        code, said = self._api.of_service(FIXTURES_NAMESPACE, _REGISTRY, "/control", method="PUT", body=body)
        if code != 200:
            raise Failed(f"the cluster's model registry answers with {code}: {said}")

    def _keep_the_model(self, kept: bool) -> None:
        """The operator knows what runs need, not what applications do. Whichever run comes last, the application is answered."""
        why = "the application needs the model, too" if kept else "it does not any more"
        patch = json.dumps({"spec": {"scaling": {"minReplicas": int(kept)}}})
        self._telling.line(f"$ kubectl patch mep {ENDPOINT} -n {self._namespace} --type=merge -p '{patch}'   # {why}")
        kubectl.kubectl("patch", "mep", ENDPOINT, "-n", self._namespace, "--type=merge", "-p", patch)

    def _ask_before(self) -> Answer | None:
        """While the model is up and the program as written is served; an earlier part of an interrupted demo may have done it."""
        noted = OUT / "before.json"
        uid = self._api.ours(self._namespace, "promptprograms", PROGRAM)
        key = uid["metadata"]["uid"] if uid else ""
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(noted.read_text())
            if found["program"] == key:
                return Answer.of(PROGRAM, found["answer"])
        self._application.wait_until_up()
        if self._application.revision() != self._program_status().get("baselineRevision"):
            return None
        self._telling.line("the application is asked, while the program as written is served")
        answer = self._application.ask(QUESTION)
        noted.write_text(json.dumps({"program": key, "answer": answer.document}))
        self._tell(answer)
        return answer

    def _ask_after(self, before: Answer | None) -> Answer:
        served: str = self._program_status()["servedRevision"]["name"]
        if before is not None and served == before.revision:
            self._telling.line("nothing else is served than before")
        else:
            self._telling.line(
                f"{served} is served; the kubelet brings it to the application's mount within a minute or so"
            )
            self._application.wait_for(served)
        answer = self._application.ask(QUESTION)
        self._tell(answer)
        return answer

    def _tell(self, answer: Answer) -> None:
        self._telling.line(f'"{QUESTION}"')
        self._telling.line(f"  {answer.revision} answers: {answer.told()}")

    def _last_screen(self, before: Answer | None, after: Answer) -> None:
        outcome = self._follower.status("OptimizationRun", RUN)
        print(f"\n{RUN}: {outcome['phase']}, {outcome.get('outcome')}\n")
        lines = lastscreen.scores(self._result(RUN), self._result(COMPARISON))
        lines += lastscreen.closing(
            namespace=self._namespace,
            program=PROGRAM,
            run=RUN,
            question=QUESTION,
            baseline=self._program_status()["baselineRevision"],
            before=before,
            after=after,
            minutes=self._telling.minutes,
        )
        print("\n".join(lines), flush=True)

    # --- what is seen -------------------------------------------------------------------------------------------------

    def _running(self) -> bool:
        """Calling the model, or past that."""
        self._refuse_what_cannot_go_on()
        status = self._follower.status("OptimizationRun", RUN)
        return is_over(status) or status.get("phase") in ("Running", "Judging")

    def _over(self, run: str) -> bool:
        self._refuse_what_cannot_go_on()
        return is_over(self._follower.status("OptimizationRun", run))

    def _decided(self) -> bool:
        found = self._follower.status("OptimizationRun", RUN).get("revision") or {}
        program = self._program_status()
        promoted = (program.get("promotedRevision") or {}).get("run") == RUN
        told = any(candidate.get("run") == RUN for candidate in program.get("candidates") or ())
        nothing_found = not found or found.get("name") == program.get("baselineRevision")
        return promoted or told or nothing_found

    def _at_zero(self) -> bool:
        pods = self._api.items(
            f"/api/v1/namespaces/{self._namespace}/pods?labelSelector={names.LABEL_COMPONENT}%3D{names.Component.SERVER}"
        )
        ready = condition(self._follower.status("ModelEndpoint", ENDPOINT), "Ready")
        return not pods and ready.get("reason") == "ScaledToZero"

    def _program_status(self) -> Body:
        return (self._api.ours(self._namespace, "promptprograms", PROGRAM) or {}).get("status") or {}

    def _result(self, run: str) -> Result:
        channel = self._api.config_map(self._namespace, names.run_channel(run))
        if channel is None:
            raise Failed(f"{names.run_channel(run)} is gone, and with it the result of {run}")
        found: dict[str, Any] = json.loads(channel["data"][names.KEY_RESULT])
        return found

    def _refuse_what_cannot_go_on(self) -> None:
        """Raises Failed for a program that is not accepted and for a failed run."""
        for name in (PROGRAM, COMPARISON):
            accepted = condition(self._follower.status("PromptProgram", name), "Accepted")
            if accepted.get("status") == "False":
                raise Failed(f"program {name} is not accepted: {accepted.get('reason')}: {accepted.get('message')}")
        for name in (RUN, COMPARISON):
            status = self._follower.status("OptimizationRun", name)
            if is_true(status, "Failed"):
                why = condition(status, "Failed")
                job = f"job/{status.get('jobName')}"
                _, log = kubectl.tried("logs", job, "-n", self._namespace, "--tail=15")
                raise Failed(
                    f"{name} failed: {why.get('reason')}: {why.get('message')}\n"
                    f"the end of the log of {job}:\n{log}\nmore: kubectl describe orun {name} -n {self._namespace}"
                )
