"""Plays the runner: run.json in; progress, result, revision and exit code out; budget and stop obeyed."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

from dspy_operator.contract import gate, names
from dspy_operator.contract.documents import DatasetReport, Estimate, GateReport, Progress, Result, Score
from dspy_operator.contract.exits import EXIT_OF, Outcome, Reason, RunFailed
from dspy_operator.contract.reserve import judgement_calls
from dspy_operator.contract.runspec import Control, RunSpec, Usage
from tests.simulator.pod import ChannelGone, Container, Denied
from tests.simulator.revision import Revision, baseline, improved
from tests.simulator.rows import check_and_read
from tests.simulator.script import Crash, Death, Ends, Failure, Play, Step

INPUT_TOKENS, OUTPUT_TOKENS = 20, 5
"""Of each call."""
KEEPS_RESULT = frozenset({Reason.BUDGET_EXHAUSTED, Reason.STOPPED_EARLY})


@dataclass
class Journal:
    """What a volume remembers of the calls that were answered."""

    input_digest: str
    optimized: int = 0
    judged: set[str] = field(default_factory=set)
    """Digests of candidates whose judgement is answered."""
    judgement_calls: int = 0

    @property
    def calls(self) -> int:
        return self.optimized + self.judgement_calls


@dataclass
class Died(Exception):
    """The play says that the pod ends here without a word."""

    how: Crash | Death


class _Ending(Exception):
    """The run ends with a reason, and where the reason says so its best-so-far is judged."""

    def __init__(self, reason: Reason, message: str, path: str | None = None) -> None:
        super().__init__(message)
        self.reason, self.message, self.path = reason, message, path


class Runner:
    """One try.

    Args:
        journals: volume and path -> journal; outlives the pod where the volume does.
        released: whether a test let go of what waits.
        pace: seconds between two progress documents.
    """

    def __init__(
        self,
        container: Container,
        play: Play,
        journals: dict[tuple[str, str], Journal],
        released: Callable[[], bool],
        pace: float,
    ) -> None:
        self._container, self._play, self._journals, self._released, self._pace = (
            container,
            play,
            journals,
            released,
            pace,
        )
        environment = container.environment
        self._try = int(environment[names.ENV_TRY])
        self._channel = environment[names.ENV_CHANNEL]
        self._image = environment.get(names.ENV_IMAGE, "")
        self.spec = RunSpec.model_validate_json(container.files.content[names.RUN_JSON])
        self._control = Control.model_construct(generation=0)
        self._journal = Journal(self.spec.input_digest)
        self._replayed = 0
        self._progress = Progress(attempt=self.spec.run.attempt).model_copy(update={"try_": self._try})
        self._dataset: DatasetReport | None = None
        self._scores: dict[str, Score] = {}
        self._gate: GateReport | None = None
        self._estimate: Estimate | None = None

    async def run(self) -> int:
        """To the end of the process; its exit code.

        Raises:
            Died: the pod ends without one.
        """
        validates = self.spec.kind == "validate"
        try:
            result, revision = await (self._validate() if validates else self._optimize_and_judge())
        except (RunFailed, _Ending) as ending:
            result, revision = self._result(ending.reason, ending.message, ending.path), None
            if ending.reason is Reason.STOPPED and self._journal.optimized:
                revision = improved(self.spec)  # best-so-far, as the real one leaves it behind
                result = result.model_copy(update={"candidate": revision.digest, "outcome": Outcome.NOT_JUDGED})
        except (ChannelGone, Denied):
            return int(EXIT_OF[Reason.STOPPED])
        keys = {names.KEY_RESULT: _json(result.document())}
        if revision is not None:
            keys |= revision.keys(self.spec, result)
        try:
            await self._container.write_channel(self._channel, keys)
        except ChannelGone:
            return int(EXIT_OF[Reason.STOPPED])
        except Denied:
            pass  # as the real one: the exit code still says how it ended
        return result.exit

    # --- validate ----------------------------------------------------------------------------------------------------

    async def _validate(self) -> tuple[Result, Revision | None]:
        await self._at(Step.LOAD)
        self._dataset = self._read_rows()
        revision = baseline(self.spec)
        return self._result(Reason.COMPLETED, "valid").model_copy(update={"candidate": revision.digest}), revision

    def _read_rows(self) -> DatasetReport:
        path = self.spec.dataset.path
        text = self._container.files.content.get(path)
        file = path.rsplit("/", 1)[-1]
        if text is None:
            raise RunFailed(Reason.DATASET_NOT_FOUND, f"{file} does not exist", path="spec.dataset.source")
        return check_and_read(self.spec, text, file=file)

    # --- run ---------------------------------------------------------------------------------------------------------

    async def _optimize_and_judge(self) -> tuple[Result, Revision | None]:
        data = await self._container.read_channel(self._channel)
        self._control = Control.model_validate_json(data[names.KEY_CONTROL])
        await self._at(Step.LOAD)
        self._dataset = self._read_rows()
        reserve = judgement_calls(self._dataset.test, self._arms())
        total = self._play.calls + reserve
        cost = self._price(total)
        self._estimate = Estimate(
            calls=total,
            tokens=total * (INPUT_TOKENS + OUTPUT_TOKENS),
            cost=None if cost is None else f"{cost:f}",
            reserved_calls=reserve,
            optimize_calls=self._play.calls,
        )
        limit = self._control.budget.calls
        if limit is not None and limit < reserve + 1:
            message = f"{reserve + 1} calls are needed (judgement {reserve}, preflight 1), given {limit}"
            raise RunFailed(Reason.BUDGET_TOO_SMALL, message, path="spec.budget.calls")
        if self.spec.mode == "Estimate":
            return self._result(Reason.COMPLETED, ""), None
        self._check_secrets()
        self._open_journal()
        await self._at(Step.PREFLIGHT)
        await self._at(Step.BASELINE)
        rows = self._dataset.validation
        self._scores["devBaseline"] = Score(score=float(self._play.right_before), rows=rows)
        ending: _Ending | None = None
        try:
            await self._optimize(reserve)
        except _Ending as found:
            if found.reason not in KEEPS_RESULT:
                raise
            ending = found
        self._scores["devBest"] = Score(score=float(self._play.right_after), rows=rows)
        candidate = improved(self.spec)
        try:
            await self._judge(candidate, reserve)
        except _Ending as found:
            if found.reason not in KEEPS_RESULT:
                raise
            ending = ending or found
        await self._at(Step.PUBLISH)
        result = self._result(ending.reason if ending else Reason.COMPLETED, ending.message if ending else "")
        outcome = Outcome.NOT_JUDGED
        if self._gate is not None:
            outcome = Outcome.IMPROVED if self._gate.passed else Outcome.NO_IMPROVEMENT
        return result.model_copy(update={"candidate": candidate.digest, "outcome": outcome}), candidate

    def _check_secrets(self) -> None:
        for endpoint in self.spec.endpoints.values():
            if endpoint.api_key_source is not None and not self._container.files.content.get(
                endpoint.api_key_file or ""
            ):
                raise RunFailed(Reason.SECRET_MISSING, f"{endpoint.name}: {endpoint.api_key_source} is absent or empty")

    def _open_journal(self) -> None:
        place = (self._container.files.work, self.spec.paths.journal)
        self._journal = self._journals.setdefault(place, self._journal)
        if self._journal.input_digest != self.spec.input_digest:
            message = f"the journal was written for other inputs ({self._journal.input_digest})"
            raise RunFailed(Reason.REPLAY_DIVERGED, message)
        self._replayed = self._journal.calls

    async def _optimize(self, reserve: int) -> None:
        chunk = max(1, math.ceil(self._play.calls / max(1, self._play.reports)))
        self._progress = self._progress.model_copy(
            update={"baseline": float(self._play.right_before), "trials_planned": 10}
        )
        await self._at(Step.OPTIMIZE)
        while (left := self._play.calls - self._journal.optimized) > 0:
            allowed = self._allowed(reserve)
            self._journal.optimized += min(chunk, left, allowed)
            if min(chunk, left) > allowed:
                message = (
                    f"{self._calls()} of {self._control.budget.calls} calls used (the rest is kept for the judgement)"
                )
                raise _Ending(Reason.BUDGET_EXHAUSTED, message)
            self._progress = self._progress.model_copy(
                update={
                    "trials_done": 10 * self._journal.optimized // self._play.calls,
                    "best": float(self._play.right_after),
                }
            )
            await self._report()
            self._obey()
            await asyncio.sleep(self._pace)

    async def _judge(self, candidate: Revision, reserve: int) -> None:
        await self._at(Step.JUDGE)
        if candidate.digest not in self._journal.judged:
            if self._allowed(0) < reserve:
                raise _Ending(Reason.BUDGET_EXHAUSTED, f"{self._calls()} of {self._control.budget.calls} calls used")
            self._journal.judged.add(candidate.digest)
            self._journal.judgement_calls += reserve
        assert self._dataset is not None
        rows = self._dataset.test
        before, after = (_right(rows, percent) for percent in (self._play.right_before, self._play.right_after))
        reference, served = (
            ("incumbent", self._incumbent()) if self.spec.incumbent else ("baseline", baseline(self.spec).digest)
        )
        if candidate.digest == served:
            after = before
        arms = {"baseline": before, "candidate": after} | ({"incumbent": before} if self.spec.incumbent else {})
        self._scores |= {arm: Score(score=round(100 * sum(right) / rows, 4), rows=rows) for arm, right in arms.items()}
        look = self.spec.test_looks + 1
        if candidate.digest == served:
            self._gate = GateReport(why=f"the candidate is the {reference} itself", look=look)
            return
        verdict = gate.judge(after, before, self.spec.gate, self.spec.test_looks)
        self._gate = GateReport.of(verdict, look)

    def _arms(self) -> int:
        """Different programs that the judgement measures."""
        digests = {baseline(self.spec).digest, improved(self.spec).digest}
        return len(digests | ({self._incumbent()} if self.spec.incumbent else set()))

    def _incumbent(self) -> str:
        assert self.spec.incumbent is not None
        files = self._container.files.below(self.spec.incumbent.path)
        return Revision(*(files[name] for name in names.REVISION_PROGRAM)).digest

    # --- money -------------------------------------------------------------------------------------------------------

    def _calls(self) -> int:
        """Over the run's whole life: what the journal knows, or what the account does where a journal was lost."""
        return max(self._journal.calls, self._control.floor.calls + self._journal.calls - self._replayed)

    def _price(self, calls: int) -> Decimal | None:
        pricing = self.spec.endpoints["task"].pricing
        if pricing is None:
            return None
        return calls * (INPUT_TOKENS * Decimal(pricing.input) + OUTPUT_TOKENS * Decimal(pricing.output)) / 1_000_000

    def _allowed(self, reserve: int) -> int:
        """Calls that may still be sent."""
        budget, spent = self._control.budget, self._calls()
        limits = [] if budget.calls is None else [budget.calls]
        if budget.tokens is not None:
            limits.append(budget.tokens // (INPUT_TOKENS + OUTPUT_TOKENS))
        if budget.cost is not None and (price := self._price(1)):
            limits.append(int(Decimal(budget.cost) / price))
        return max(0, min(limits) - reserve - spent)

    def _usage(self) -> Usage:
        if self.spec.kind == "validate":
            return Usage()
        calls = self._calls()
        return Usage(
            calls=calls,
            replayed=self._replayed,
            input_tokens=calls * INPUT_TOKENS,
            output_tokens=calls * OUTPUT_TOKENS,
            cost=f"{self._price(calls) or 0:f}",
        )

    # --- the channel ---------------------------------------------------------------------------------------------------

    async def _at(self, step: Step) -> None:
        """Come to a step: end, wait or go on, as the play says."""
        self._progress = self._progress.model_copy(update={"step": str(step)})
        ends = self._play.ends
        if ends is not None and ends.at is step:
            await self._end(ends)
        if self._play.waits_at is not step:
            self._obey()
            return
        await self._report()
        while not self._released():
            self._obey()
            if not self._play.silent:
                await self._report()
            await asyncio.sleep(max(self._pace, 0.1))

    async def _end(self, ends: Ends) -> None:
        if self.spec.kind == "run" and ends.after_calls:
            self._journal.optimized = max(self._journal.optimized, min(ends.after_calls, self._allowed(0)))
            await self._report()
        if isinstance(ends.how, Failure):
            raise _Ending(ends.how.reason, ends.how.message, ends.how.path)
        raise Died(ends.how)

    def _obey(self) -> None:
        """Signals first, then what control.json says."""
        if self._container.terminated.is_set():
            raise _Ending(Reason.STOPPED, "stopped by a signal; resume repeats at most what was in flight")
        if self.spec.kind != "run" or not self._control.generation:
            return
        if self._control.stop == "Cancel":
            raise _Ending(Reason.STOPPED, "cancelled")
        if self._control.stop == "Finish" and self._progress.step == Step.OPTIMIZE:
            raise _Ending(Reason.STOPPED_EARLY, "stop: Finish")

    async def _report(self) -> None:
        planned = self._estimate.calls if self._estimate else 1
        self._progress = self._progress.model_copy(
            update={
                "effective": self._control.generation,
                "percent": min(99, 100 * self._calls() // max(1, planned)),
                "usage": {"task": self._usage()},
                "heartbeat": datetime.now(UTC).isoformat(timespec="milliseconds"),
            }
        )
        keys = {names.KEY_PROGRESS: _json(self._progress.document())}
        try:
            data = await self._container.write_channel(self._channel, keys)
        except Denied:
            return  # nothing is held up by what cannot be told
        if self.spec.kind == "run":
            self._control = Control.model_validate_json(data[names.KEY_CONTROL])

    def _result(self, reason: Reason, message: str, path: str | None = None) -> Result:
        return Result(
            attempt=self.spec.run.attempt,
            exit=int(EXIT_OF[reason]),
            reason=reason,
            message=message,
            path=path,
            dataset=self._dataset,
            scores=self._scores,
            gate=self._gate,
            usage=self._usage(),
            usage_by_role={"task": self._usage()} if self.spec.kind == "run" else {},
            estimate=self._estimate,
            runner_image=self._image,
            versions={"simulator": "1"},
        ).model_copy(update={"try_": self._try})


def _right(rows: int, percent: int) -> list[float]:
    """A score for each row: the first ones are right."""
    return [1.0 if 100 * (row + 1) <= percent * rows else 0.0 for row in range(rows)]


def _json(document: object) -> str:
    return json.dumps(document, sort_keys=True)
