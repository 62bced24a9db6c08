"""Where the validation of a program stands: derived on each pass from its spec ConfigMap, its Jobs and its channel.

An attempt is one content (program, how rows are read, which rows); it is numbered by its first try. A try is one Job. Tries
follow each other only after a failure that is nobody's fault: what is wrong with the program stays wrong.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import ValidationError

from dspy_operator.api.objects import PromptProgram
from dspy_operator.api.reasons import ProgramReason
from dspy_operator.contract import names
from dspy_operator.contract.canonical import digest
from dspy_operator.contract.digests import program_digest
from dspy_operator.contract.documents import Result
from dspy_operator.contract.exits import Exit, Reason
from dspy_operator.controllers import runnerpod
from dspy_operator.controllers.pods import attempt_of, of_try, try_of
from dspy_operator.controllers.promptprogram import podstate
from dspy_operator.controllers.promptprogram.revisions import Shelf, TooLarge, check_size, digest_of, files_in
from dspy_operator.controllers.promptprogram.seen import Seen
from dspy_operator.engine.plan import Body

RETRY_AFTER = (timedelta(seconds=10), timedelta(minutes=1), timedelta(minutes=5))
"""Before the second, third and fourth try: an evicted pod finds room at once, a node that is out of memory takes longer."""
RUNNING_LOOK = timedelta(seconds=60)
"""While a pod runs: its words wake the program before, this is for what was missed."""
LEFT_LOOK = timedelta(seconds=5)
MOST_TRIES = 100_000
"""More a program does not see in its life: a pod that says so is mistaken."""
TYPED = frozenset({Exit.INVALID_PROGRAM, Exit.INVALID_DATASET, Exit.INVALID_METRIC})
"""Ends that say what is wrong with the program; any other is an accident of the pod."""
UNSEEN = frozenset(
    {Reason.DATASET_NOT_FOUND, Reason.CODE_NOT_FOUND, Reason.SECRET_MISSING}
    | {Reason.ENDPOINT_UNAVAILABLE, Reason.AUTHENTICATION_FAILED}
)
"""Ends for want of what only a pod can see: a file on a volume, a server's answer, a Secret."""


class Stage(StrEnum):
    """How far the validation of what is written is."""

    RUNNING = "Running"
    """A pod checks it, or is about to."""
    HELD = "Held"
    """Something else has to end first, or a pause between tries."""
    PASSED = "Passed"
    REFUSED = "Refused"
    """Until an edit of the program or of its rows."""
    GIVEN_UP = "GivenUp"
    """Tried as often as it is; until an edit, or another runner image."""


@dataclass(frozen=True)
class Standing:
    """Where the validation stands, and what that asks for."""

    stage: Stage
    reason: ProgramReason
    message: str
    attempt: int = 0
    """0 before there is one."""
    try_: int = 0
    """0 before there is one."""
    freeze: bool = False
    """The spec ConfigMap of the attempt is wanted."""
    start: bool = False
    """The Job of the try is wanted."""
    remove: tuple[Body, ...] = ()
    """Of earlier tries and attempts."""
    look_again: timedelta | None = None
    result: Result | None = None
    """Where it passed."""
    accident: bool = False
    """The message tells of a try that failed by nobody's fault."""


@dataclass(frozen=True)
class _Attempt:
    number: int
    subject: str
    image: str

    @staticmethod
    def of(spec: Body) -> _Attempt:
        mounts = json.loads((spec.get("data") or {}).get(names.KEY_MOUNTS, "{}"))
        subject = (spec["metadata"].get("annotations") or {}).get(names.ANNOTATION_DIGEST, "")
        return _Attempt(attempt_of(spec), subject, mounts.get("image", ""))


def subject_of(program: PromptProgram, rows: str) -> str:
    """Digest of what a validation is about; another one is another attempt.

    Args:
        rows: which rows, as `seen.version_of` tells.
    """
    spec = program.spec
    dataset = spec.dataset.document()
    dataset["source"].pop("inline", None)  # `rows` is its digest
    program_part = program_digest(spec.program, spec.adapter, spec.metric, spec.target.request, spec.types)
    # How a server is asked is no part of the program's digest, but the baseline names the headers.
    secrets = {
        server.name: server.http.headers_secret.name
        for server in spec.program.servers
        if server.http.headers_secret is not None
    }
    headers = {"headers": secrets} if secrets else {}
    return digest({"program": program_part, "dataset": dataset, "rows": rows, **headers})


def stand(seen: Seen, subject: str, shelf: Shelf, image: str) -> Standing:
    """Derive it.

    Args:
        subject: what should be validated.
        image: that a pod would run in now.
        shelf: revisions that are there; a baseline that is among them needs no files any more.
    """
    return _History(seen, shelf).standing(subject, image)


def is_result_late(seen: Seen) -> bool:
    """Whether a Job ended and nothing was heard of its pod: two watches, and the other one may be behind."""
    history = _History(seen, Shelf(runnerpod.Owner.of(seen.body), ()))
    return history.ended_unheard()


class _History:
    """The tries that left a trace."""

    def __init__(self, seen: Seen, shelf: Shelf) -> None:
        self._seen = seen
        self._shelf = shelf
        self._specs = sorted(seen.of(names.Component.SPEC, "ConfigMap"), key=lambda spec: _Attempt.of(spec).number)
        self._jobs = {try_of(job): job for job in seen.of(names.Component.JOB, "Job")}
        self._pods = tuple(seen.of(names.Component.JOB, "Pod"))
        self._channel = next(iter(seen.of(names.Component.CHANNEL, "ConfigMap")), None)
        self._result = _result_in(self._channel)
        recorded = seen.status.get("validation") or {}
        self._recorded_try = int(recorded.get("try", 0))

    def standing(self, subject: str, image: str) -> Standing:
        attempt = _Attempt.of(self._specs[-1]) if self._specs else None
        if attempt is None or attempt.subject != subject:
            return self._begin()
        found = self._of_attempt(attempt)
        other_runner = attempt.image != image
        if found.stage in (Stage.REFUSED, Stage.GIVEN_UP) and other_runner:
            return self._begin()  # what the old one could not do the new one may
        return found

    def ended_unheard(self) -> bool:
        """Whether the latest Job ended, and the last result is not its."""
        latest = max(self._jobs, default=0)
        if not latest or podstate.finished_at(self._jobs[latest]) is None:
            return False
        return self._result is None or self._result.try_ != latest

    def _begin(self) -> Standing:
        known = [_Attempt.of(spec).number for spec in self._specs] + [*self._jobs, self._recorded_try]
        if self._result is not None and self._result.try_ < MOST_TRIES:
            known.append(self._result.try_)  # else the words of an earlier pod would be taken for those of the next
        number = 1 + max(known)
        return self._start(number, number)

    def _of_attempt(self, attempt: _Attempt) -> Standing:
        tries = [try_ for try_ in self._jobs if try_ >= attempt.number]
        result = self._result if self._result is not None and self._result.attempt == attempt.number else None
        if self._recorded_try >= attempt.number:
            tries.append(self._recorded_try)
        latest = max(tries, default=attempt.number)
        if result is not None and result.try_ == latest:
            standing = self._by_result(result)
            if standing is not None:
                return standing
        unseen = result is not None and result.try_ == latest and result.reason in UNSEEN
        job = self._jobs.get(latest)
        if job is None:
            if not tries:
                return self._start(attempt.number, latest)
            return self._failed(
                attempt, latest, self._why(result, latest) or "its Job was removed", None, unseen=unseen
            )
        if "deletionTimestamp" in job["metadata"]:
            return _held("the Job of the last try is being removed")
        ended = podstate.finished_at(job)
        pods = of_try(self._pods, "Pod", latest)
        if ended is not None:
            why = self._why(result, latest) or podstate.silent_end(job, pods)
            return self._failed(attempt, latest, why, ended, unseen=unseen)
        if (trouble := podstate.image_trouble(pods)) is not None:
            return self._running(attempt, latest, trouble, ProgramReason.RUNNER_IMAGE_UNAVAILABLE)
        waits = podstate.unschedulable(pods) or podstate.container_trouble(pods)
        return self._running(attempt, latest, waits or _checking(attempt.number, latest))

    def _by_result(self, result: Result) -> Standing | None:
        """What a result says for good; None where it tells of an accident."""
        if result.exit == Exit.COMPLETED and result.dataset is not None and result.candidate is not None:
            return self._passed(result)
        # Where the pod found no rows or code and we see some, its node had not heard of the ConfigMap yet.
        if result.exit not in TYPED or result.reason in (Reason.DATASET_NOT_FOUND, Reason.CODE_NOT_FOUND):
            return None
        message = f"{result.path}: {result.message}" if result.path else result.message
        reason = ProgramReason(result.reason.value)
        return Standing(Stage.REFUSED, reason, message, result.attempt, result.try_, remove=self._earlier(result.try_))

    def _passed(self, result: Result) -> Standing | None:
        assert result.candidate is not None and result.dataset is not None
        earlier = self._earlier(result.try_)
        if self._shelf.find(result.candidate) is None:
            files = files_in(self._channel or {})
            try:
                check_size(files)
            except TooLarge as large:
                reason = ProgramReason.REVISION_TOO_LARGE
                return Standing(Stage.REFUSED, reason, str(large), result.attempt, result.try_, remove=earlier)
            if digest_of(files) != result.candidate:
                return None
        report = result.dataset
        reason = ProgramReason.ROWS_DROPPED if report.dropped else ProgramReason.ACCEPTED
        message = f"{report.rows} rows: {report.train} train, {report.validation} validation, {report.test} test"
        if report.dropped:
            message += f"; {report.dropped_message or f'{report.dropped} rows dropped'}"
        return Standing(Stage.PASSED, reason, message, result.attempt, result.try_, remove=earlier, result=result)

    def _why(self, result: Result | None, try_: int) -> str | None:
        """An accident, in the pod's own words."""
        if result is None or result.try_ != try_:
            return None
        if result.exit == Exit.COMPLETED:
            return "the files of the baseline revision are not what the pod said"
        return ": ".join(part for part in (result.reason, result.path, result.message) if part)

    def _failed(
        self, attempt: _Attempt, try_: int, why: str, ended: datetime | None, *, unseen: bool = False
    ) -> Standing:
        """An accident: try again after a pause, a few times; without an end where nobody could tell us that it is over."""
        failures = try_ - attempt.number + 1
        if failures > len(RETRY_AFTER) and not unseen:
            message = f"{failures} tries failed, the last: {why}; an edit of the program or its rows starts anew"
            return Standing(Stage.GIVEN_UP, ProgramReason.VALIDATION_FAILED, message, attempt.number, try_)
        pause = RETRY_AFTER[min(failures, len(RETRY_AFTER)) - 1]
        if ended is not None and (left := ended + pause - self._seen.now) > timedelta(0):
            message = f"try {failures} failed: {why}; the next follows in {_spoken(pause)}"
            return Standing(
                Stage.HELD,
                ProgramReason.VALIDATING,
                message,
                attempt.number,
                try_,
                remove=self._earlier(try_),
                look_again=left,
                accident=True,
            )
        return self._start(attempt.number, try_ + 1)

    def _start(self, attempt: int, try_: int) -> Standing:
        """A new try, once no earlier one can speak in its place."""
        jobs = [job for number, job in self._jobs.items() if number != try_]
        specs = [spec for spec in self._specs if _Attempt.of(spec).number != attempt]
        others = [pod for pod in self._pods if try_of(pod) != try_]
        if jobs or any(podstate.is_in_the_way(pod, self._seen.now) for pod in others):
            # The attempt is begun before the Jobs go, whose numbers would be lost with them.
            held = _held("the pod of an earlier validation has to be gone first")
            return replace(held, attempt=attempt, freeze=True, remove=_present(jobs))
        return Standing(
            Stage.RUNNING,
            ProgramReason.VALIDATING,
            _checking(attempt, try_),
            attempt,
            try_,
            freeze=True,
            start=True,
            remove=_present(specs),
            look_again=RUNNING_LOOK,
        )

    def _running(
        self, attempt: _Attempt, try_: int, message: str, reason: ProgramReason = ProgramReason.VALIDATING
    ) -> Standing:
        return Standing(
            Stage.RUNNING,
            reason,
            message,
            attempt.number,
            try_,
            remove=self._earlier(try_),
            look_again=RUNNING_LOOK,
        )

    def _earlier(self, try_: int) -> tuple[Body, ...]:
        """What only earlier tries needed: the last Job stays until the next content, for its log."""
        jobs = [job for number, job in self._jobs.items() if number < try_]
        return _present([*jobs, *self._specs[:-1]])


def _checking(attempt: int, try_: int) -> str:
    number = try_ - attempt + 1
    return "a pod checks program, rows and metric" + (f", try {number}" if number > 1 else "")


def _held(message: str) -> Standing:
    return Standing(Stage.HELD, ProgramReason.VALIDATING, message, look_again=LEFT_LOOK)


def _present(bodies: list[Body]) -> tuple[Body, ...]:
    """Those whose removal was not asked for yet."""
    return tuple(body for body in bodies if "deletionTimestamp" not in body["metadata"])


def _result_in(channel: Body | None) -> Result | None:
    text = ((channel or {}).get("data") or {}).get(names.KEY_RESULT)
    if text is None:
        return None
    try:
        return Result.model_validate_json(text)
    except ValidationError:
        return None  # torn or of another version: as if the pod had said nothing


def _spoken(pause: timedelta) -> str:
    seconds = int(pause.total_seconds())
    return f"{seconds} s" if seconds < 60 else f"{seconds // 60} min"
