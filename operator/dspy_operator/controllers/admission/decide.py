"""Who starts next: a pure function over all waiting runs and all that hold slots.

The oldest goes first. A run that does not fit an endpoint holds back the younger ones on that endpoint, so that a large one
is not starved by small ones, and nobody on other endpoints.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from dspy_operator.api.reasons import RunReason
from dspy_operator.controllers.admission.grants import Answer, Granted, Request, Waits
from dspy_operator.engine.plan import Key

SHOWN_POSITIONS = 20
"""Places in a queue that are told: each one that moves is a status write."""


@dataclass(frozen=True)
class Active:
    """A run that is admitted, as its status says."""

    slots: Mapping[str, int]
    program: str = ""
    """`namespace/name`."""
    eta: str = ""
    """Its own estimate of what is left, for people."""


def decide(
    requests: Mapping[Key, Request], active: Mapping[Key, Active], granted: Mapping[Key, Mapping[str, int]]
) -> dict[Key, Answer]:
    """An answer to every request.

    Args:
        active: by run; those that also have a request want more slots than they hold.
        granted: grants that are not in a status yet; they stay as they are.
    """
    queue = _Queue(requests, active, granted)
    answers: dict[Key, Answer] = {}
    waiting = sorted(
        (run for run in requests if run not in active), key=lambda run: (requests[run].created, run.namespace, run.name)
    )
    for run in waiting:
        answers[run] = Granted(granted[run]) if run in granted else queue.admit(run, requests[run])
    for run, request in requests.items():
        if run in active and request.held is not None:
            answers[run] = queue.widen(request, granted.get(run, request.held))
    return answers


class _Queue:
    """The state of one decision."""

    def __init__(
        self,
        requests: Mapping[Key, Request],
        active: Mapping[Key, Active],
        granted: Mapping[Key, Mapping[str, int]],
    ) -> None:
        self._active = active
        self._used: Counter[str] = Counter()
        self._runs: dict[str, Key] = {}
        """Program that takes one run at a time -> the run that has it."""
        self._ahead: Counter[str] = Counter()
        """Endpoint or program -> runs that wait for it."""
        self._closed: set[str] = set()
        """Endpoints that an older run waits for."""
        for run, holder in active.items():
            self._used.update(holder.slots)
            self._runs.setdefault(holder.program, run)
        for run, slots in granted.items():
            if run in active:
                self._used.update(_more(slots, active[run].slots))
            elif run in requests:
                self._used.update(slots)
                if (program := requests[run].program) is not None:
                    self._runs.setdefault(program, run)

    def admit(self, run: Key, request: Request) -> Answer:
        if request.program is not None and (other := self._runs.get(request.program)) is not None:
            return self._behind(request.program, other)
        lacking = [endpoint for endpoint, slots in request.slots.items() if not self._fits(endpoint, slots, request)]
        if lacking:
            answer = self._busy(lacking[0], request)
            for endpoint in lacking:
                self._closed.add(endpoint)
                self._ahead[endpoint] += 1
            return answer
        self._used.update(request.slots)
        if request.program is not None:
            self._runs[request.program] = run
        return Granted(dict(request.slots))

    def widen(self, request: Request, held: Mapping[str, int]) -> Granted:
        """More slots for a run that has some, as far as they are free and nobody waits for them."""
        slots = dict(held)
        for endpoint, more in _more(request.slots, held).items():
            if endpoint not in self._closed:
                free = self._free(endpoint, request)
                given = more if free is None else min(more, free)
                self._used[endpoint] += given
                slots[endpoint] = slots.get(endpoint, 0) + given
        return Granted(slots)

    def _free(self, endpoint: str, request: Request) -> int | None:
        capacity = request.capacities[endpoint]
        return None if capacity is None else max(0, capacity - self._used[endpoint])

    def _fits(self, endpoint: str, slots: int, request: Request) -> bool:
        free = self._free(endpoint, request)
        return free is None or (slots <= free and endpoint not in self._closed)

    def _busy(self, endpoint: str, request: Request) -> Waits:
        ahead = self._ahead[endpoint]
        message = (
            f"{self._free(endpoint, request)} of {request.capacities[endpoint]} slots free on {endpoint}, "
            f"{request.slots[endpoint]} wanted, {ahead} ahead of you"
        )
        etas = [run.eta for run in self._active.values() if endpoint in run.slots and run.eta]
        if etas:
            message += f"; the runs that have it need about {' and '.join(sorted(etas)[:3])}"
        return Waits(RunReason.ENDPOINT_BUSY, message, f"ModelEndpoint {endpoint}", _shown(ahead))

    def _behind(self, program: str, other: Key) -> Waits:
        ahead = self._ahead[program]
        self._ahead[program] += 1
        message = f"{other.name} runs for PromptProgram {program}, which takes one run at a time; {ahead} ahead of you"
        return Waits(RunReason.QUEUED, message, f"PromptProgram {program}", _shown(ahead))


def _more(slots: Mapping[str, int], than: Mapping[str, int]) -> dict[str, int]:
    return {endpoint: more for endpoint, wanted in slots.items() if (more := wanted - than.get(endpoint, 0)) > 0}


def _shown(ahead: int) -> int | None:
    return ahead + 1 if ahead < SHOWN_POSITIONS else None
