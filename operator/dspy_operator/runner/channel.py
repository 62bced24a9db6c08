"""A pod's channel: the one ConfigMap that it may get and patch. Progress and the result go out, control comes back.

Nothing here can end a run or hold it up, but one answer: a 404 says that the ConfigMap, and with it the run's object, is
gone. Whatever else goes wrong is the API server's moment; the next progress, or the next attempt at the result, is the retry.
"""

from __future__ import annotations

import json
import logging
import random
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from dspy_operator import __version__
from dspy_operator.contract import names
from dspy_operator.contract.documents import PROGRESS_BYTES, Progress, Result
from dspy_operator.contract.exits import EXIT_OF, Reason, RunFailed
from dspy_operator.contract.runspec import Control
from dspy_operator.runner.breaker import backoff_seconds, monotonic
from dspy_operator.runner.hurry import Hurry
from dspy_operator.runner.pod import Pod
from dspy_operator.runner.progress import LOOK_SECONDS, write_json

INTERVAL_SECONDS = 5.0
"""Between two patches of progress, as the contract promises: a hundred runs are 20 writes a second."""
REQUEST_SECONDS = 4.0
"""For one step (connect, write, read) of a progress patch; an API server under load answers in less than 1 s."""
RESULT_REQUEST_SECONDS = 10.0
"""The same for the result's patch, which carries up to 900 KiB."""
CONTROL_SECONDS = 30.0
"""How long a pod waits for its first control document."""
CONTROL_PAUSE_SECONDS = 1.0
RESULT_SECONDS = 30.0
"""How long the result is tried again where the API server does not take it."""
SETTLE_SECONDS = 0.3
"""How long the result waits for a progress patch that is on its way; one takes a few milliseconds."""
LEAST_SECONDS = 0.4
"""What the result gets even if publishing took all the time that a signal left."""
LONGEST_RETRY_AFTER_SECONDS = 30.0

log = logging.getLogger(__name__)


class ChannelFailed(Exception):
    """One request that came to nothing."""

    def __init__(self, kind: str, message: str, *, gone: bool = False, final: bool = False, retry_after: float = 0.0):
        super().__init__(message)
        self.kind = kind
        """What is logged once: "HTTP 403", "ConnectError"."""
        self.gone = gone
        """The ConfigMap does not exist."""
        self.final = final
        """The same request will be refused again."""
        self.retry_after = retry_after
        """Seconds that the server asks to be left alone."""


class ConfigMapChannel:
    """Progress, control and result of one try, through one ConfigMap.

    Args:
        pod: which one, and how to reach it.
        namespace: run.json's.
        control_file: where the control document in force is kept for whoever looks into the volume.
    """

    interval_seconds = INTERVAL_SECONDS + LOOK_SECONDS / 2  # the reporter's clock must not be ahead of ours

    def __init__(self, pod: Pod, namespace: str, control_file: Path) -> None:
        self.pod = pod
        self.on_gone: Callable[[], None] = lambda: None
        """Called once, from the reporter's thread, when the ConfigMap has been deleted."""
        self._path = f"/api/v1/namespaces/{namespace}/configmaps/{pod.channel}"
        self._control_file = control_file
        self._kept: Control | None = None
        self._client: httpx.Client | None = None
        self._connecting = threading.Lock()
        self._sending = threading.Lock()
        self._next_at = 0.0
        self._closed = False
        self._gone = False
        self._told: set[str] = set()
        self._jitter = random.Random()

    @property
    def control(self) -> Control | None:
        """The newest control document that was read; None before the first."""
        return self._kept

    def first_control(self, *, within_seconds: float = CONTROL_SECONDS) -> Control:
        """The control document that the operator put there before the pod.

        Raises:
            RunFailed: Stopped where there is no such ConfigMap, for then there is no run either; InternalError where it
                cannot be read: no fault of the user's, and worth another try.
        """
        until = monotonic() + within_seconds
        while True:
            gone = False
            try:
                return self._keep(_control(self._request("GET")))
            except ChannelFailed as failure:
                problem, gone = str(failure), failure.gone
                self._tell(failure)
            except ValueError as error:
                problem = str(error)
            if monotonic() >= until:
                break
            time.sleep(CONTROL_PAUSE_SECONDS)
        reason = Reason.STOPPED if gone else Reason.INTERNAL_ERROR
        raise RunFailed(reason, f"no control document within {within_seconds:.0f} s: {problem}")

    def send(self, progress: Progress) -> Control | None:
        """Patch progress.json, at most once in INTERVAL_SECONDS; what is skipped goes with the next, or with the result.

        Returns:
            The control document in force, from the patch's own answer; None where nothing was sent or it cannot be read.
        """
        if not self._sending.acquire(blocking=False):
            return None
        try:
            if self._closed or monotonic() < self._next_at:
                return None
            self._next_at = monotonic() + INTERVAL_SECONDS
            text = _json(progress.document())
            if len(text.encode()) > PROGRESS_BYTES:
                raise ChannelFailed("progress too large", f"progress.json is larger than {PROGRESS_BYTES} bytes")
            return self._keep(_control(self._request("PATCH", {names.KEY_PROGRESS: text})))
        except ChannelFailed as failure:
            self._tell(failure)
            self._next_at += max(0.0, failure.retry_after - INTERVAL_SECONDS)
            if failure.gone:
                self._closed = self._gone = True
                self.on_gone()
        except ValueError as error:
            self._tell(ChannelFailed(names.KEY_CONTROL, f"{error}; what was in force stays"))
        finally:
            self._sending.release()
        return None

    def deliver(self, result: Result, progress: Progress | None, revision: Mapping[str, str], hurry: Hurry) -> bool:
        """result.json, the last progress and the revision in one patch, tried until it is taken, or RESULT_SECONDS long.

        Keys of an earlier try's revision go with the same patch, so that what is there is always this result's.

        Args:
            revision: file name -> content; empty where nothing is published.
            hurry: a signal cuts the attempts short.
        Returns:
            Whether it arrived.
        """
        self._closed = True
        if self._gone:
            return False
        if self._sending.acquire(timeout=SETTLE_SECONDS):  # a patch on its way must not overwrite the last progress
            self._sending.release()
        data: dict[str, str | None] = {
            f"{names.KEY_REVISION}{name}": revision.get(name) for name in names.REVISION_FILES
        }
        data[names.KEY_RESULT] = _json(result.document())
        if progress is not None:
            data[names.KEY_PROGRESS] = _json(progress.document())
        started = monotonic()

        def left() -> float:
            return max(hurry.left(started + RESULT_SECONDS), started + LEAST_SECONDS - monotonic())

        arrived = threading.Event()
        # In a thread of its own: no time-out of a socket bounds a whole request, and who waits here has a deadline.
        thread = threading.Thread(target=self._insist, args=(data, left, hurry, arrived), name="result", daemon=True)
        thread.start()
        while thread.is_alive() and left() > 0:
            thread.join(0.05)
        if not arrived.is_set():
            log.error(
                "the result did not reach ConfigMap %s; it is in result.json of the work volume", self.pod.channel
            )
        return arrived.is_set()

    def _insist(
        self, data: Mapping[str, str | None], left: Callable[[], float], hurry: Hurry, arrived: threading.Event
    ) -> None:
        attempt = 0
        while (seconds := left()) > 0:
            try:
                self._request("PATCH", data, seconds=min(RESULT_REQUEST_SECONDS, seconds))
            except ChannelFailed as failure:
                self._tell(failure)
                if failure.gone or failure.final:
                    return
                hurry.pause(max(backoff_seconds(attempt, self._jitter), failure.retry_after))
                attempt += 1
            else:
                arrived.set()
                return

    def _keep(self, control: Control) -> Control:
        if control != self._kept:
            self._kept = control
            try:
                write_json(self._control_file, control.document())
            except OSError as error:
                # The copy is for people; a volume that is full ends the run through its journal.
                self._tell(ChannelFailed("control file", f"{self._control_file} cannot be written: {error}"))
        return control

    def _tell(self, failure: ChannelFailed) -> None:
        """Each kind once: an API server that is away for an hour is one line, not 720."""
        if failure.kind not in self._told:
            self._told.add(failure.kind)
            log.warning("%s (told once)", failure)

    def _request(
        self, method: str, data: Mapping[str, str | None] | None = None, *, seconds: float = REQUEST_SECONDS
    ) -> dict[str, str]:
        """One request; the ConfigMap's data as the server has it now.

        Raises:
            ChannelFailed: whatever else came of it.
        """
        try:
            # Read each time: the kubelet renews it, by default after 80 % of an hour.
            token = (self.pod.account / "token").read_text("utf-8").strip()
            answer = self._connected().request(
                method,
                self._path,
                content=None if data is None else json.dumps({"data": data}),
                params=None if data is None else {"fieldManager": "dspy-operator-runner"},
                headers={"Authorization": f"Bearer {token}", "Content-Type": "application/merge-patch+json"},
                timeout=seconds,
            )
        except (httpx.HTTPError, OSError, ValueError) as error:
            message = f"the API server {self.pod.server} cannot be reached: {type(error).__name__}: {error}"
            raise ChannelFailed(type(error).__name__, message) from error
        if answer.status_code != httpx.codes.OK:
            raise failure_of(answer)
        try:
            document = answer.json()
        except ValueError as error:
            raise ChannelFailed("no JSON", f"the API server {self.pod.server} answers no JSON: {error}") from error
        return dict(document.get("data") or {}) if isinstance(document, dict) else {}

    def _connected(self) -> httpx.Client:
        with self._connecting:
            if self._client is None:
                self._client = httpx.Client(
                    base_url=self.pod.server,
                    verify=ssl.create_default_context(cafile=str(self.pod.account / "ca.crt")),
                    trust_env=False,  # a proxy for the models' sake is none for the cluster's own API server
                    headers={"User-Agent": f"dspy-operator-runner/{__version__}"},
                )
            return self._client


def failure_of(answer: httpx.Response) -> ChannelFailed:
    """What an answer other than 200 means for a run."""
    code = answer.status_code
    try:
        document = answer.json()
    except ValueError:
        document = None
    status = document if isinstance(document, dict) else {}
    words = str(status.get("message") or answer.text)[:300]
    return ChannelFailed(
        f"HTTP {code}",
        f"the channel's ConfigMap: HTTP {code}: {words}",
        # Only the API server's own words count: a proxy that knows no such path must not end a run.
        gone=code == httpx.codes.NOT_FOUND and status.get("reason") == "NotFound",
        final=code in (httpx.codes.REQUEST_ENTITY_TOO_LARGE, httpx.codes.UNPROCESSABLE_ENTITY),
        retry_after=_seconds(answer.headers.get("retry-after", "")),
    )


def revision_files(folder: Path) -> dict[str, str]:
    """A written revision, file name -> text, as a ConfigMap takes it.

    Only report.json and provenance.json, which no digest covers, can hold half a surrogate pair (of a model's answer).
    """
    return {name: (folder / name).read_bytes().decode("utf-8", "replace") for name in names.REVISION_FILES}


def fitted(result: Result, revision: Mapping[str, str]) -> Result:
    """The result, or, where its revision is too large for a ConfigMap, the failure that says what to cut."""
    sizes = {name: len(text.encode()) for name, text in revision.items()}
    total = sum(sizes.values())
    if total <= names.REVISION_BYTES:
        return result
    largest = ", ".join(f"{name} {sizes[name]}" for name in sorted(sizes, key=lambda name: -sizes[name]) if sizes[name])
    message = (
        f"the revision has {total} bytes, a ConfigMap takes {names.REVISION_BYTES} ({largest}); "
        "exportRows: false leaves rows out of prompts.json and report.json; fewer or shorter rows and demonstrations "
        "make the others smaller"
    )
    reason = Reason.REVISION_TOO_LARGE
    return result.model_copy(
        update={
            "outcome": None,
            "candidate": None,
            "reason": reason,
            "exit": int(EXIT_OF[reason]),
            "message": message,
            "path": "spec.dataset.exportRows",
        }
    )


def _control(data: Mapping[str, str]) -> Control:
    """Raises ValueError, on one line."""
    text = data.get(names.KEY_CONTROL)
    if text is None:
        raise ValueError(f"the ConfigMap has no {names.KEY_CONTROL}")
    try:
        return Control.model_validate_json(text)
    except ValueError as error:
        raise ValueError(f"{names.KEY_CONTROL} cannot be read: {' '.join(str(error).split())[:300]}") from None


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False)


def _seconds(retry_after: str) -> float:
    """Of a Retry-After; the API server gives seconds, never a date."""
    return min(float(retry_after), LONGEST_RETRY_AFTER_SECONDS) if retry_after.isdecimal() else 0.0
