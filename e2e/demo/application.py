"""The example application as its user meets it: asked over HTTP, by way of the API server."""

from __future__ import annotations

import time
from typing import Any

from dspy_operator.contract import names
from e2e.cluster.command import Failed
from e2e.demo.apiserver import ApiServer
from e2e.demo.lastscreen import Answer
from e2e.demo.waiting import SECONDS_BETWEEN_LOOKS, until

_SERVICE = "app:http"
_READY_SECONDS = 180
_ANSWER_SECONDS = 180
"""Where the machine has two cores and a run keeps the model busy, one answer takes some seconds."""
FOLLOWS_SECONDS = 180
"""A kubelet renews a mounted ConfigMap once a minute, give or take half of it, later where the machine is busy."""


class Application:
    """In a namespace of the demo's."""

    def __init__(self, api: ApiServer, namespace: str, program: str) -> None:
        self._api = api
        self._namespace = namespace
        self._program = program

    def revision(self) -> str | None:
        """The one that it would answer with now; None while it is not up."""
        code, said = self._api.of_service(self._namespace, _SERVICE, "/")
        return names.program_revision(self._program, said["revision"]) if code == 200 else None

    def wait_until_up(self) -> None:
        """Its pod starts when the baseline revision is served."""
        until("the application answers", lambda: self.revision() is not None, seconds=_READY_SECONDS, why_not=self._pod)

    def wait_for(self, revision: str) -> None:
        """Until the mounted files are that revision's."""
        until(
            f"the application has {revision} mounted",
            lambda: self.revision() == revision,
            seconds=FOLLOWS_SECONDS,
            why_not=lambda: f"it has {self.revision()}\n{self._pod()}",
        )

    def ask(self, question: str) -> Answer:
        """Tried again for a while: the model may just start, or be busy for the run.

        Raises:
            Failed: with what it says instead.
        """
        deadline = time.monotonic() + _ANSWER_SECONDS
        while True:
            code, said = self._api.of_service(
                self._namespace, _SERVICE, "/", query={"text": question}, timeout_seconds=_ANSWER_SECONDS
            )
            if code == 200:
                return Answer.of(self._program, said)
            if time.monotonic() > deadline:
                raise Failed(
                    f"the application answers with {code}: {said}\nlook with: kubectl logs deploy/app -n {self._namespace}"
                )
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def _pod(self) -> str:
        pods: list[Any] = self._api.items(f"/api/v1/namespaces/{self._namespace}/pods?labelSelector=app%3Dapp")
        states = [pod.get("status", {}).get("containerStatuses") or pod.get("status") for pod in pods]
        return f"its pods: {states}\nlook with: kubectl describe pod -l app=app -n {self._namespace}"
