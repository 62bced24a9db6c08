"""What runs ask of admission and what it answers: the one piece of memory that both rooms share.

A lost memory loses nothing: runs ask again on their next pass, and what was granted is in their statuses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from dspy_operator.api.reasons import RunReason
from dspy_operator.engine.plan import Key

ADMISSION = Key("Admission", "", "")
"""The singleton that decides."""


@dataclass(frozen=True)
class Request:
    """What one run wants."""

    created: str
    """`metadata.creationTimestamp`: the oldest goes first."""
    slots: Mapping[str, int]
    """`namespace/name` of an endpoint -> slots."""
    capacities: Mapping[str, int | None]
    """The same endpoints -> all slots that they have; None without a limit."""
    program: str | None = None
    """`namespace/name` of a program that takes one run at a time."""
    held: Mapping[str, int] | None = None
    """Slots of a run that is admitted already and can use more; None of one that waits."""


@dataclass(frozen=True)
class Granted:
    """The run may start, with these slots."""

    slots: Mapping[str, int]


@dataclass(frozen=True)
class Waits:
    """The run has to wait."""

    reason: RunReason
    message: str
    waiting_for: str
    """`Kind namespace/name`."""
    position: int | None = None
    """1 is next; None beyond the first 20."""


Answer = Granted | Waits


@dataclass
class Grants:
    """Open requests and their answers."""

    _requests: dict[Key, Request] = field(default_factory=dict)
    _answers: dict[Key, Answer] = field(default_factory=dict)

    def ask(self, run: Key, request: Request | None) -> bool:
        """Put a run's request in place of its last one, None takes it back; whether admission has to look again."""
        if self._requests.get(run) == request:
            return False
        self._answers.pop(run, None)
        if request is None:
            del self._requests[run]
        else:
            self._requests[run] = request
        return True

    def answer(self, run: Key) -> Answer | None:
        """What admission said of the request as it stands; None where it has not looked yet."""
        return self._answers.get(run)

    def requests(self) -> Iterator[tuple[Key, Request]]:
        """All that are open."""
        yield from list(self._requests.items())

    def granted(self) -> dict[Key, Mapping[str, int]]:
        """What was granted and may not be in a status yet."""
        return {run: answer.slots for run, answer in self._answers.items() if isinstance(answer, Granted)}

    def settle(self, answers: Mapping[Key, Answer]) -> tuple[Key, ...]:
        """Keep new answers; the runs whose answer is another one than before."""
        changed = tuple(run for run, answer in answers.items() if self._answers.get(run) != answer)
        self._answers.update({run: answers[run] for run in changed})
        return changed

    def forget(self, run: Key) -> None:
        """Of a run that is gone."""
        self._requests.pop(run, None)
        self._answers.pop(run, None)
