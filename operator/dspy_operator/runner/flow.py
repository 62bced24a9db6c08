"""The run, from its first check to its result: preflight, baseline, optimize, judge, publish."""

from __future__ import annotations

import json
import logging
import math
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError, ContextWindowExceededError, DSPyError, LMError

from dspy_operator.contract import gate
from dspy_operator.contract.adapters import is_open, probe_calls
from dspy_operator.contract.calls import least_row_calls, preflight_calls, scored_row_calls
from dspy_operator.contract.documents import CalibrationReport, Estimate, GateReport, Progress, Result, Score
from dspy_operator.contract.exits import Outcome, Reason, RunFailed
from dspy_operator.contract.repeats import LEADING, choice_calls, chooses
from dspy_operator.contract.reserve import judgement_amount, judgement_calls, too_small, whole
from dspy_operator.contract.runspec import Control, RunSpec, Usage
from dspy_operator.runner import asking
from dspy_operator.runner.adapter_choice import settle, told
from dspy_operator.runner.attempts import Ungraded
from dspy_operator.runner.calibration import calibrate
from dspy_operator.runner.classes import Classes, by_class, classified
from dspy_operator.runner.estimate import estimate
from dspy_operator.runner.headers import header_values
from dspy_operator.runner.journal import Journal, answers_in, is_full
from dspy_operator.runner.judge import Arm, answer_all, answer_repeatedly, examples
from dspy_operator.runner.ledger import Epoch, Ledger, Mark
from dspy_operator.runner.metrics.shape import NoVerdict
from dspy_operator.runner.optimizers.shape import NEVER, Counts, Part, Setup
from dspy_operator.runner.pod import Pod, identity
from dspy_operator.runner.prepare import Prepared, prepare
from dspy_operator.runner.program import (
    fields_of,
    load_program,
    program_hash,
    refuse_unsafe_tools,
    speaking,
    state_document,
)
from dspy_operator.runner.progress import Channel, Reporter, Tracker, write_json
from dspy_operator.runner.publish import (
    Revision,
    digest_in,
    provenance_document,
    report_document,
    revision_of,
    rows_digest,
    versions,
    write_content,
    write_examples,
    write_revision,
)
from dspy_operator.runner.retrieval import Retrieval, RetrievalFailed
from dspy_operator.runner.rows import Row
from dspy_operator.runner.spend import Limits, Reserve, Tally, earlier
from dspy_operator.runner.stop import RunStop
from dspy_operator.runner.took import programs_document
from dspy_operator.runner.tools import Tools
from dspy_operator.runner.values import for_dspy, input_fields, plain_fields
from dspy_operator.runner.watch import Best, Candidate, Unreadable, Watcher

Listener = Callable[[Progress], None]
UNPUBLISHED = frozenset({Reason.REPLAY_DIVERGED, Reason.VERIFY_FAILED, Reason.JOURNAL_FULL})
"""Ends after which no best-so-far is written: it is in doubt, or there is no room."""
_JUDGED_IN_FULL = frozenset({Reason.GOAL_REACHED, Reason.OPTIMIZER_GAVE_UP})
"""Ends of an optimization that leave all of its judgement's budget."""

log = logging.getLogger(__name__)

PREFLIGHT_ROWS = 3
"""Refused one after the other, they say that it is the program's request and not a row."""


def validate(spec: RunSpec, pod: Pod | None = None) -> Result:
    """Check program, rows and metric, and write the baseline revision; no model is called."""
    prepared = prepare(spec)
    baseline = revision_of(spec, prepared, state_document(prepared.program.fresh()))
    result = Result(
        **identity(spec, pod),
        message="valid",
        resolved=told(spec, prepared),
        dataset=prepared.report(),
        code=dict(prepared.code) or None,
        candidate=baseline.digest,
        versions=versions(),
    )
    folder = Path(spec.paths.out) / "revision"
    write_revision(
        folder,
        baseline,
        report=report_document(result, {}, {}, classes={}, export_rows=False),
        provenance=provenance_document(spec, result),
    )
    return result


class Run:
    """One try of a run.

    Args:
        spec: the resolved inputs.
        control: the live part as of the start.
        channel: where progress goes and control comes from.
        listener: sees each progress document too, for a person's screen.
        recorded: for `verify`: what the recorded try came to; nothing goes on the wire, nothing is written.
        pod: which try this is; None outside a cluster.
        answers: journals of other runs, whose answers are taken at temperature 0.
    """

    def __init__(
        self,
        spec: RunSpec,
        control: Control,
        channel: Channel,
        *,
        listener: Listener | None = None,
        recorded: Result | None = None,
        pod: Pod | None = None,
        answers: Sequence[Path] = (),
    ) -> None:
        self.spec = spec
        self._control = control
        self._recorded = recorded
        self._pod = pod
        self._answers = answers
        of_try = {"attempt": spec.run.attempt, "try_": pod.try_ if pod is not None else 1}
        first = Progress(usage=earlier(control.floor)).model_copy(update=of_try)
        self._tracker = Tracker(_state=first)
        self._reporter = Reporter(channel, self._tracker, listener)
        self._ledger: Ledger | None = None
        self._journal: Journal | None = None
        self._prepared: Prepared | None = None
        self._retrieval = Retrieval(spec.program.program)
        self._tools = Tools(spec.program.program.tools)
        self._best = Best()
        self._kept = ""
        self._halted: RunStop | None = None
        self._counts: Counts = {}
        self._adapter_why = ""
        self._validated: str | None = None
        """Digest of the program as validated, where it is an arm beside the one that sends schemas."""
        self._scores: dict[str, Score] = {}
        self._arms: dict[str, Arm] = {}
        self._dev_arms: dict[str, Arm] = {}
        self._judged: dict[str, str] = {}
        self._classes: dict[str, Classes] = {}
        self._gate: GateReport | None = None
        self._calibrated: dict[str, CalibrationReport] = {}
        self._estimate: Estimate | None = None
        self._optimizing = False
        self._part: Part | None = None
        self._concluding = threading.Lock()
        self._result: Result | None = None

    # --- the ends ----------------------------------------------------------------------------------------------------

    def execute(self) -> Result:
        """Run to an end, whatever it is; every typed end is a Result, a bug is InternalError."""
        self._reporter.start()
        try:
            try:
                return self._conclude(*self._go())
            except RunFailed as failure:
                self._halt(RunStop(failure.reason, failure.message))
                return self._conclude(failure, None)
            except RunStop as stop:
                self._halt(stop)
                return self._conclude(stop, self._best_known)
        finally:
            self._reporter.stop()
            if self._journal is not None:
                self._journal.close()

    def terminate(self, why: str) -> Result | None:
        """End from another thread: no further request, flush, publish the best-so-far. None where the run is ending already."""
        stop = RunStop(Reason.STOPPED, f"{why}; resume repeats at most what was in flight")
        self._halt(stop)
        if not self._concluding.acquire(timeout=1.0):
            return None
        self._concluding.release()
        return self._conclude(stop, self._best_known)

    def progress(self) -> Progress:
        """The numbers as of now."""
        return self._tracker.snapshot(self._ledger)

    def usage(self) -> tuple[Usage, dict[str, Usage]]:
        """What was spent over the run's whole life, and by role; before the journal is open: what the account knows of."""
        if self._ledger is None:
            return self._control.floor, earlier(self._control.floor)
        return self._ledger.usage(), self._ledger.usage_by_role()

    @property
    def _best_known(self) -> Candidate | None:
        """The best-so-far; None while a replay has not come to where an earlier try was, whose best may be better."""
        return None if self._ledger is not None and self._ledger.replaying else self._best.candidate

    def _halt(self, stop: RunStop) -> None:
        """Whatever ended the run, no thread of it may send any more, also where the ledger is only about to open."""
        self._halted = self._halted or stop
        if self._ledger is not None:
            self._ledger.halt(stop)

    def _conclude(self, ending: RunFailed | RunStop | Reason, candidate: Candidate | None) -> Result:
        """Write what there is and say how it ended; the first of two threads to come here decides."""
        with self._concluding:
            if self._result is not None:
                return self._result
            reason = ending if isinstance(ending, Reason) else ending.reason
            message = "" if isinstance(ending, Reason) else ending.message
            path = None if isinstance(ending, Reason) else ending.path
            self._tracker.set(step="publish")
            try:
                self._result = self._publish(reason, message, path, candidate)
            except OSError as error:
                if not is_full(error):
                    raise
                self._result = self._publish(Reason.JOURNAL_FULL, f"the volume is full: {error}", None, None)
            if self._journal is not None:
                self._journal.sync()
            return self._result

    def _publish(self, reason: Reason, message: str, path: str | None, candidate: Candidate | None) -> Result:
        from dspy_operator.contract.exits import EXIT_OF

        ledger, prepared = self._ledger, self._prepared
        outcome = None
        if candidate is not None:
            outcome = (
                Outcome.NOT_JUDGED
                if self._gate is None
                else Outcome.IMPROVED
                if self._gate_passed
                else Outcome.NO_IMPROVEMENT
            )
        usage, by_role = self.usage()
        result = Result(
            **identity(self.spec, self._pod),
            outcome=outcome,
            exit=int(EXIT_OF[reason]),
            reason=reason,
            message=message,
            path=path,
            dataset=prepared.report() if prepared is not None else None,
            code=(dict(prepared.code) or None) if prepared is not None else None,
            scores=self._scores,
            gate=self._gate,
            calibration=self._calibrated or None,
            usage=usage,
            usage_by_role=by_role,
            tools=self._tools.usage() or None,
            resolved=self._resolved(),
            estimate=self._estimate,
            versions=versions(),
            seconds=round(ledger.seconds, 3) if ledger is not None else 0.0,
        )
        if candidate is None or prepared is None or reason in UNPUBLISHED:
            return result
        revision = revision_of(self.spec, prepared, candidate.state)
        result = result.model_copy(update={"candidate": revision.digest})
        if self._recorded is not None:
            return result
        out = Path(self.spec.paths.out)
        report = report_document(
            result,
            self._arms,
            self._arm_digests(prepared, revision),
            classes=self._classes,
            programs=programs_document(self._best.points, self._judged) if self._best.points else None,
            export_rows=self.spec.dataset.export_rows,
        )
        write_revision(out / "revision", revision, report=report, provenance=provenance_document(self.spec, result))
        write_content(out / "baseline", revision_of(self.spec, prepared, state_document(prepared.program.fresh())))
        if self._arms and self.spec.dataset.export_rows:
            write_examples(out / "examples.jsonl.zst", prepared, self._arms, self._dev_arms)
        return result

    @property
    def _gate_passed(self) -> bool:
        return self._gate is not None and self._gate.passed

    # --- the way -----------------------------------------------------------------------------------------------------

    def _go(self) -> tuple[RunStop | Reason, Candidate | None]:
        spec = self.spec
        refuse_unsafe_tools(spec.program.program.tools)
        prepared = self._prepared = prepare(spec)
        self._retrieval.connect(prepared.program)
        self._tools.connect(prepared.program)
        asking.connect(prepared.program)
        incumbent = self._load_incumbent(prepared)
        student = prepared.program.fresh()
        start = self._load_start(prepared) or student
        undecided = is_open(spec.program.adapter)
        arms = self._arm_count(student, incumbent, start)
        judgement, choice = self._size_up(prepared, arms + (undecided and incumbent is None))
        self._check_budget(judgement, choice, arms)
        if spec.mode == "Estimate":
            return Reason.COMPLETED, None
        self._check_secrets()
        ledger = self._open_ledger()
        epoch = ledger.open_epoch("optimize", Reserve(calls=judgement + choice))
        ending: RunStop | Reason = Reason.COMPLETED
        compiled: Candidate | None = None
        try:
            if undecided:
                prepared, incumbent = self._settle_adapter(prepared, incumbent, epoch)
                student = prepared.program.fresh()
                start = self._load_start(prepared) or student
                judgement, choice = self._size_up(prepared, self._arm_count(student, incumbent, start))
                ledger.set_reserve(epoch, Reserve(calls=judgement + choice))
            with self._phase("optimize", epoch, prepared.scored) as watcher:
                self._preflight(prepared, student, epoch)
                self._calibrate(prepared)
                judgement += self._baseline(prepared, student, incumbent, start, epoch)
                compiled = self._optimize(prepared, start, epoch, watcher)
                self._score_compiled(prepared, compiled)
        except RunStop as stop:
            if stop.reason is Reason.OPTIMIZER_GAVE_UP and not self._found_something(student, start):
                raise RunStop(Reason.MODEL_ANSWERS_UNUSABLE, stop.message, path=stop.path) from stop
            if not stop.keeps_result:
                raise
            ending = stop
            if stop.reason in _JUDGED_IN_FULL and self._best.whole is not None:
                self._score_compiled(prepared, self._best.whole)
        candidate = compiled or self._best.candidate
        if candidate is None:
            # Stopped before the baseline was scored: the baseline is all there is.
            candidate = Candidate(program_hash(student), 0.0, state_document(student))
        if choice:
            candidate = self._choose(prepared, candidate, epoch.reserve.part(judgement))
        stopped = self._judge(prepared, student, incumbent, candidate)
        if stopped is not None and (isinstance(ending, Reason) or ending.reason in _JUDGED_IN_FULL):
            ending = stopped
        if isinstance(ending, RunStop):
            ledger.drain()
        return ending, candidate

    def _found_something(self, student: Any, start: Any) -> bool:
        """Whether the best on all rows is none of those that the optimization began with."""
        best = self._best.whole
        return best is not None and best.hash not in (program_hash(student), program_hash(start))

    def _size_up(self, prepared: Prepared, arms: int) -> tuple[int, int]:
        """Counts and estimate; calls of the judgement of so many different programs, and of the choice before it."""
        spec = self.spec
        assert spec.optimizer is not None
        per_row = scored_row_calls(spec.program.program, spec.program.metric).most
        judgement = judgement_calls(len(prepared.parts.test), arms, per_row, spec.repeats)
        choice = choice_calls(spec.optimizer.type, len(prepared.scored), per_row, spec.repeats)
        self._counts = self._first_counts(prepared, judgement + choice)
        self._estimate = estimate(spec, prepared, self._counts, reserve_calls=judgement + choice)
        self._tracker.planned_calls = self._estimate.calls
        return judgement, choice

    def _settle_adapter(self, prepared: Prepared, incumbent: Any | None, epoch: Epoch) -> tuple[Prepared, Any | None]:
        """The program as it is asked from here on, and what is served as it is asked: without a promotion, the program as validated."""
        assert self._ledger is not None
        self._tracker.set(step="preflight")

        def ask(probed: Prepared) -> None:
            self._prepared, row = probed, (probed.scored or probed.parts.test)[0]
            self._retrieval.connect(probed.program)
            self._tools.connect(probed.program)
            asking.connect(probed.program)
            student = probed.program.fresh()
            with self._phase("preflight", epoch, probed.scored):
                student(**for_dspy(input_fields(student), row.inputs))

        try:
            settled = settle(self.spec, prepared, self._ledger, epoch, ask)
        finally:
            self._prepared = prepared
        self._adapter_why = settled.why
        if settled.stop is not None:
            raise settled.stop
        if settled.prepared is prepared:
            return prepared, incumbent
        validated = prepared.program.fresh()
        self._validated = revision_of(self.spec, prepared, state_document(validated)).digest
        self._prepared = settled.prepared
        self._retrieval.connect(settled.prepared.program)
        self._tools.connect(settled.prepared.program)
        asking.connect(settled.prepared.program)
        served = self._load_incumbent(settled.prepared) or speaking(validated, prepared.program.adapter)
        return settled.prepared, served

    def _resolved(self) -> dict[str, Any]:
        """What options and adapter came to."""
        adapter = told(self.spec, self._prepared) if self._prepared is not None else {}
        if adapter and self._adapter_why:
            adapter["adapter"]["why"] = self._adapter_why
        return {**self._counts, **adapter}

    def _open_ledger(self) -> Ledger:
        path = Path(self.spec.paths.journal)
        self._journal = journal = Journal(path, read_only=self._recorded is not None)
        if journal.recorded.torn:
            log.warning("the journal's last line was cut off by a crash and is dropped: %s", path)
        opened = journal.recorded.opened
        if opened is None:
            journal.append("open", contract=self.spec.contract, inputDigest=self.spec.input_digest, versions=versions())
        elif opened["inputDigest"] != self.spec.input_digest:
            raise RunFailed(
                Reason.REPLAY_DIVERGED,
                f"{path} was written for other inputs ({opened['inputDigest']}; this run has {self.spec.input_digest})",
            )
        recorded, offline_stop = self._recorded, None
        if recorded is not None and recorded.reason in {Reason.BUDGET_EXHAUSTED, Reason.STOPPED_EARLY}:
            offline_stop = RunStop(recorded.reason, recorded.message)
        self._ledger = Ledger(
            journal,
            self.spec.endpoints,
            self._control,
            seed=self.spec.seed,
            offline=recorded is not None,
            offline_stop=offline_stop,
            others=answers_in(self._answers),
        )
        headers = header_values(self.spec) if recorded is None else {}
        self._retrieval.open(self._ledger, journal, headers)
        self._tools.open(self._ledger, journal, headers)
        self._reporter.attach(self._ledger)
        if self._halted is not None:
            self._ledger.halt(self._halted)
        if recorded is None and self._control.stop is not None:
            self._ledger.update(self._control)
        return self._ledger

    @contextmanager
    def _phase(
        self, step: str, epoch: Epoch, scored: Sequence[Row], *, kind: str = "evaluate", best: Best | None = None
    ) -> Iterator[Watcher]:
        """DSPy's settings for one phase: our LM, adapter and watcher, and nothing of DSPy's own memory."""
        assert self._ledger is not None and self._prepared is not None
        self._tracker.set(step=step)
        prepared, ledger = self._prepared, self._ledger
        watcher = Watcher(
            ledger=ledger,
            kind=kind,
            rows=prepared.by_digest,
            scored=scored,
            best=best if best is not None else self._best,
            unreadable=Unreadable(2 * len(prepared.scored) + 20),
            on_evaluation=self._evaluated(epoch, kind),
        )
        random.seed(self.spec.seed)
        with dspy.context(
            lm=ledger.lm("task", epoch),
            adapter=prepared.program.adapter,
            callbacks=[watcher, self._tools],
            disable_history=True,
            max_errors=NEVER,
            num_threads=self._threads,
            provide_traceback=False,
            warn_on_type_mismatch=False,  # rows hold dates and objects as JSON, checked by their types
        ):
            yield watcher

    def _preflight(self, prepared: Prepared, student: Any, epoch: Epoch) -> None:
        """One call for each endpoint: the first scored row as the program asks it (so it replays later), a word from the prompt model.

        Where that row is refused, the next one is asked: it may be too long, or caught by a content filter.
        """
        assert self._ledger is not None
        self._tracker.set(step="preflight")
        task = self.spec.endpoints["task"]
        refused: LMError | None = None
        undecided: NoVerdict | Ungraded | None = None
        for row in (prepared.scored or prepared.parts.test)[:PREFLIGHT_ROWS]:
            refused = undecided = None
            try:
                prediction = student(**for_dspy(input_fields(student), row.inputs))
                # Labels scored well; does an answer, too?
                prepared.metric.score({**row.inputs, **row.outputs}, plain_fields(prediction))
            except (NoVerdict, Ungraded) as error:
                undecided = error
                continue
            except AdapterParseError as error:
                if prepared.adapter is not None and prepared.adapter.constrained == "Required":
                    answer = str(error.lm_response).strip()[:200]
                    raise RunStop(
                        Reason.MODEL_ANSWERS_UNUSABLE,
                        f"{task.name} does not keep to the JSON schema that it is sent (adapter.constrained): {answer!r}",
                    ) from error
            except LMError as error:
                refused = error
                log.warning("%s refuses %s; rows like it count as failed: %s", task.name, row.place, error)
                continue
            break
        if isinstance(refused, RetrievalFailed):
            raise RunStop(
                Reason.INVALID_PROGRAM, f"the program's first queries have no answer: {refused}", path="spec.program"
            ) from refused
        if refused is not None and not isinstance(refused, ContextWindowExceededError):
            raise RunStop(
                Reason.MODEL_ANSWERS_UNUSABLE, f"{task.name} refuses the program's first requests: {refused}"
            ) from refused
        if undecided is not None:
            judge = self.spec.endpoints["judge"].name
            raise RunStop(
                Reason.MODEL_ANSWERS_UNUSABLE,
                f"{judge} does not judge the program's first answers: {undecided}",
                path="spec.endpoints.judge",
            )
        asked = {(task.name, task.model)}
        for role in ("judge", "prompt"):
            endpoint = self.spec.endpoints.get(role)
            if endpoint is None or (endpoint.name, endpoint.model) in asked:
                continue
            asked.add((endpoint.name, endpoint.model))
            if role == "judge" and self._ledger.usage_by_role()[role].calls:
                continue  # it judged an answer already
            try:
                self._ledger.lm(role, epoch)("Reply with the word OK.")
            except LMError as error:
                raise RunStop(
                    Reason.MODEL_ANSWERS_UNUSABLE, f"{endpoint.name} refuses its first request: {error}"
                ) from error
        for role, usage in self._ledger.usage_by_role().items():
            if role in self.spec.endpoints and usage.calls > usage.failed:
                self._check_reported(self.spec.endpoints[role].name, usage.tokens)

    def _calibrate(self, prepared: Prepared) -> None:
        """Ask each judge about what people graded.

        Raises:
            RunStop: InvalidMetric where it agrees less than the program asks for.
        """
        for calibration in prepared.calibrations:
            report = calibrate(calibration, self._control.concurrency)
            self._calibrated[calibration.path] = report
            agreed = f"{report.agreed} of {report.rows - report.undecided} grades are the same"
            log.info("the judge %s agrees with people: kappa %s, %s", calibration.path, report.kappa, agreed)
            if report.min_kappa is None or (report.kappa is not None and report.kappa >= float(report.min_kappa)):
                continue
            told = "cannot be computed" if report.kappa is None else f"is {report.kappa:.2f}"
            raise RunStop(
                Reason.INVALID_METRIC,
                f"the judge does not grade as people do: Cohen's kappa {told}, minKappa is {report.min_kappa} ({agreed}, "
                f"{report.undecided} without a verdict)",
                path=f"{calibration.path}.calibration.minKappa",
            )

    def _check_reported(self, name: str, tokens: int) -> None:
        """An endpoint that says nothing of tokens cannot be held to a budget of them."""
        assert self._ledger is not None
        if tokens == 0 and (self._ledger.limits.tokens is not None or self._ledger.limits.cost is not None):
            raise RunStop(
                Reason.MODEL_ANSWERS_UNUSABLE,
                f"{name} reports no usage, so a budget of tokens or cost cannot be kept: use budget.calls",
                path="spec.budget",
            )

    def _baseline(self, prepared: Prepared, student: Any, incumbent: Any | None, start: Any, epoch: Epoch) -> int:
        """Baseline, incumbent and what is started from on the scored rows; from here the tokens of the judgement are known.

        Returns:
            Calls that the judgement needs beyond those of the program, where what is served asks more often.
        """
        assert self._ledger is not None and self.spec.optimizer is not None
        self._tracker.set(step="baseline")
        if self.spec.optimizer.type == "Evaluate":
            return 0
        more = 0
        arm = answer_all(student, prepared.scored, prepared.metric, self._threads)
        self._dev_arms["baseline"] = arm
        self._scores["devBaseline"] = arm.score()
        self._tracker.set(baseline=arm.score().score)
        if incumbent is not None and program_hash(incumbent) != program_hash(student):
            before = self._ledger.served().answered
            with self._phase("baseline", epoch, prepared.scored, best=Best()):
                self._dev_arms["incumbent"] = answer_all(incumbent, prepared.scored, prepared.metric, self._threads)
            more = self._reserve_more(prepared, self._ledger.served().answered - before, epoch)
            score = self._scores["devIncumbent"] = self._dev_arms["incumbent"].score()
            self._tracker.set(incumbent=score.score)
        if program_hash(start) != program_hash(student):
            self._best.begun_with = 2
            self._scores["devStart"] = answer_all(start, prepared.scored, prepared.metric, self._threads).score()
        self._best.beaten.clear()
        is_choice = self.spec.repeats > 1 and chooses(self.spec.optimizer.type)
        what = "choice and judgement alone need" if is_choice else "the judgement alone needs"
        limits, spent, reserve = self._ledger.limits, self._ledger.spent(), epoch.reserve
        if self._recorded is None:
            for name, limit, kept, used in (
                ("calls", limits.calls, reserve.calls, spent.calls),
                ("tokens", limits.tokens, reserve.tokens, spent.tokens),
                ("cost", limits.cost, reserve.cost, spent.cost),
            ):
                if limit is not None and limit < kept:
                    raise RunStop(
                        Reason.BUDGET_TOO_SMALL,
                        f"{what} about {kept} {name} ({reserve.calls} calls), given {limit}, used {used}",
                        path=f"spec.budget.{name}",
                    )
        return more

    def _reserve_more(self, prepared: Prepared, answers: int, epoch: Epoch) -> int:
        """Keep back what the incumbent's judgement needs beyond the program's: it may be a program that asks more often.

        Args:
            answers: what it took on the scored rows.
        Returns:
            How many calls that is.
        """
        assert self._ledger is not None
        per_row = scored_row_calls(self.spec.program.program, self.spec.program.metric).most
        mean = Decimal(answers) / len(prepared.scored)
        if mean <= per_row:
            return 0
        rows = len(prepared.parts.test) * self.spec.repeats
        more = whole(judgement_amount(rows, mean)) - rows * per_row
        log.info(
            "what is served asks %.1f times a row, the program %d: %d calls more are kept for it", mean, per_row, more
        )
        self._ledger.set_reserve(epoch, replace(epoch.reserve, calls=epoch.reserve.calls + more))
        return more

    def _optimize(self, prepared: Prepared, student: Any, epoch: Epoch, watcher: Watcher) -> Candidate:
        assert self._ledger is not None and prepared.optimizer is not None and self.spec.optimizer is not None
        ledger = self._ledger
        self._look_at_goal(epoch)
        self._counts = ledger.resolved(self._fitted_counts(prepared))
        self._tracker.set(step="optimize")
        by_order = random.Random(self.spec.seed)
        dev, train, validation = list(prepared.parts.dev), list(prepared.parts.train), list(prepared.parts.validation)
        for rows in (dev, train):
            by_order.shuffle(rows)

        begun_with = program_hash(student)

        def began(part: Part, counts: Counts, program: Any, stage: str | None) -> None:
            nonlocal begun_with
            begun_with, self._part = program_hash(program), part
            watcher.on_failure = lambda error: self._give_up(part, counts, error)
            self._tracker.set(trials_done=0, trials_planned=part.optimizer.trials(counts, part.sizes), stage=stage)

        def bootstrapped(scores: Sequence[float]) -> None:
            ledger.mark(Mark("bootstrap", begun_with, prepared.parts.digest, tuple(scores)))

        def score(program: Any) -> float:
            if program_hash(program) not in self._best.scores:
                answer_all(program, prepared.scored, prepared.metric, self._threads)
            return self._best.scores[program_hash(program)]

        setup = Setup(
            train=examples(train, student),
            validation=examples(validation, student),
            dev=examples(dev, student),
            metric=prepared.metric,
            task_lm=dspy.settings.lm,
            prompt_lm=ledger.lm("prompt", epoch) if "prompt" in self.spec.endpoints else dspy.settings.lm,
            threads=self._threads,
            seed=self.spec.seed,
            sizes=prepared.sizes,
            score=score,
            on_stage=began,
            on_trial=lambda done: self._tracker.set(trials_done=done),
            on_bootstrap=bootstrapped,
            on_evaluation=watcher.evaluated,
        )
        whole = Part(self.spec.optimizer.type, prepared.optimizer, prepared.options, prepared.sizes)
        began(whole, self._counts, student, None)
        try:
            compiled = prepared.optimizer.compile(student, prepared.options, self._counts, setup)
        except Exception as error:
            assert watcher.on_failure is not None
            watcher.on_failure(error)
            raise
        watcher.on_failure = None
        return Candidate(program_hash(compiled), 0.0, state_document(compiled))

    def _give_up(self, part: Part, counts: Counts, error: BaseException) -> None:
        """End the run for what makes DSPy's optimizer give up: it is of the model and no bug of ours.

        Raises:
            RunStop: ModelAnswersUnusable at `maxErrors`, OptimizerGaveUp without one; nothing for an error of any other kind.
        """
        most = counts.get("max_errors")
        # A bootstrap raises the last row's error, an evaluation an Exception of these words (dspy/utils/parallelizer.py).
        if most is not None and (isinstance(error, DSPyError) or str(error).startswith("Execution cancelled")):
            reason, why = Reason.MODEL_ANSWERS_UNUSABLE, f"maxErrors: {most} rows failed in one bootstrap or evaluation"
        elif isinstance(error, DSPyError):
            reason, why = Reason.OPTIMIZER_GAVE_UP, "it cannot go on without an answer"
        else:
            return
        last = f"; the last error: {' '.join(str(error).split())[:300]}" if isinstance(error, DSPyError) else ""
        raise RunStop(reason, f"{part.type}: {why}{last}", path=part.path) from error

    def _score_compiled(self, prepared: Prepared, compiled: Candidate) -> None:
        """The candidate of an optimizer that scores none itself, on dev: for the report, and for what its tokens cost."""
        assert prepared.optimizer is not None and self.spec.optimizer is not None
        score = self._best.scores.get(compiled.hash)
        if score is not None:
            self._scores["devBest"] = Score(score=round(score, 4), rows=len(prepared.scored))
        if score is not None or prepared.optimizer.uses_validation or self.spec.optimizer.type == "Evaluate":
            return
        module = prepared.program.in_state(compiled.state)
        arm = self._dev_arms["candidate"] = answer_all(module, prepared.scored, prepared.metric, self._threads)
        self._scores["devBest"] = arm.score()

    def _choose(self, prepared: Prepared, candidate: Candidate, reserve: Reserve) -> Candidate:
        """Of the programs that lead on dev the best on fresh answers: where a model samples, the first of many was lucky, too.

        Where money or time ends before all are asked anew, what the optimizer chose stays.
        """
        assert self._ledger is not None
        others = [each for each in self._best.leading if each.hash != candidate.hash]
        contenders = [candidate, *others][:LEADING]
        if len(contenders) == 1 or (self._recorded is not None and "devAgain" not in self._recorded.scores):
            return candidate
        epoch, again = self._ledger.open_epoch("choose", reserve), {}
        try:
            with self._phase("optimize", epoch, prepared.scored, kind="judge", best=Best()):
                for each in contenders:
                    module = prepared.program.in_state(each.state)
                    again[each.hash] = answer_repeatedly(
                        module, prepared.scored, prepared.metric, self._threads, repeats=self.spec.repeats, first=1
                    )
        except RunStop as stop:
            if not stop.keeps_result:
                raise
            log.warning("what leads on dev could not be asked anew: %s", stop.message)
            return candidate
        chosen = max(contenders, key=lambda each: again[each.hash].score().score)
        arm = self._dev_arms["candidate"] = again[chosen.hash]
        self._scores["devAgain"] = arm.score()
        return chosen

    def _judge(self, prepared: Prepared, student: Any, incumbent: Any | None, candidate: Candidate) -> RunStop | None:
        """Each different arm on the test rows; the stop that left the candidate unjudged, or None."""
        assert self._ledger is not None
        ledger = self._ledger
        looks = self._looks_before(prepared, student, incumbent, candidate)
        epoch = ledger.open_epoch("judge")
        chosen = prepared.program.in_state(candidate.state)
        modules = {
            "baseline": student,
            **({"incumbent": incumbent} if incumbent is not None else {}),
            "candidate": chosen,
        }
        self._judged = {name: program_hash(module) for name, module in modules.items()}
        measured: dict[str, Arm] = {}
        outputs = classified(self.spec.program, prepared.metric.fields)
        try:
            with self._phase("judge", epoch, prepared.parts.test, kind="judge", best=Best()):
                for name, module in modules.items():
                    hashed = self._judged[name]
                    if hashed not in measured:
                        measured[hashed] = answer_repeatedly(
                            module, prepared.parts.test, prepared.metric, self._threads, repeats=self.spec.repeats
                        )
                    self._arms[name] = arm = measured[hashed]
                    self._classes[name] = classes = by_class(arm.rows, outputs, arm.repeats)
                    macro = {output: report["macroF1"] for output, report in classes.items()}
                    self._scores[name] = arm.score().model_copy(update={"macro_f1": macro or None})
        except RunStop as stop:
            if not stop.keeps_result:
                raise
            return stop
        rows = [judged for arm in measured.values() for judged in arm.rows]
        if all(judged.failure not in ("right", "wrong") for judged in rows):
            raise RunStop(
                Reason.MODEL_ANSWERS_UNUSABLE,
                f"not one of {len(rows)} answers to the test rows can be read: see unreadable and failed of each score",
            )
        reference = "incumbent" if incumbent is not None else "baseline"
        self._gate = self._verdict(reference, looks, same=self._arms["candidate"] is self._arms[reference])
        return None

    def _verdict(self, reference: str, looks: int, *, same: bool) -> GateReport:
        if same:
            return GateReport(why=f"the candidate is the {reference} itself", look=looks + 1)
        # The worse of the two arms: over all arms one of them could lose more than its share unseen.
        compared = (self._arms["candidate"], self._arms[reference])
        undecided = [
            any(all(judged.failure == "judge" for judged in arm.by_row[place]) for arm in compared)
            for place in range(len(compared[0].scores))
        ]
        if all(undecided):
            return GateReport(why="no row has a verdict on both answers", look=looks + 1)
        ours, theirs = (
            [score for score, left_out in zip(arm.scores, undecided, strict=True) if not left_out] for arm in compared
        )
        verdict = gate.judge(
            ours,
            theirs,
            self.spec.gate,
            looks,
            failed_examples=max(arm.score().failed for arm in compared),
            total=len(compared[0].rows),
            repeats=self.spec.repeats,
        )
        return GateReport.of(verdict, looks + 1)

    def _looks_before(self, prepared: Prepared, student: Any, incumbent: Any | None, candidate: Candidate) -> int:
        """Looks at this test set so far: those the account knows, and judgements of other candidates in this run's journal."""
        assert self._journal is not None
        arms = {program_hash(student), candidate.hash} | ({program_hash(incumbent)} if incumbent is not None else set())
        rows = rows_digest(prepared)
        judged = {entry["program"] for entry in self._journal.recorded.judgements.values() if entry["rows"] == rows}
        return self.spec.test_looks + len(judged - arms)

    # --- numbers -----------------------------------------------------------------------------------------------------

    @property
    def _threads(self) -> int:
        """So many that task and judge are both busy where they are two endpoints; each has slots of its own."""
        names = {self.spec.endpoints[role].name for role in ("task", "judge") if role in self.spec.endpoints}
        return self._control.concurrency * len(names)

    def _evaluated(self, epoch: Epoch, kind: str) -> Callable[[int, float, bool], None]:
        """What follows an evaluation: trials, the best for the screen, and the reserve in tokens and money."""
        assert self._ledger is not None
        ledger, served = self._ledger, self._ledger.served()

        def after(rows: int, mean: float, whole_set: bool) -> None:
            nonlocal served
            before, served = served, ledger.served()
            if kind != "evaluate":
                return
            self._count_trial(rows)
            best = self._best.candidate
            if best is not None:
                self._keep_best(best)
            best = self._best.whole
            if whole_set and best is not None:
                self._tracker.set(best=round(best.score, 4))
                answers = served.answered - before.answered
                if answers and mean >= best.score:
                    self._renew_reserve(epoch, served, before, answers)
            if self._optimizing:
                self._look_at_goal(epoch)

        return after

    def _look_at_goal(self, epoch: Epoch) -> None:
        """End the optimization where `goal` is reached: after an evaluation, by scores that a replay makes again.

        Raises:
            RunStop: GoalReached.
        """
        assert self._ledger is not None
        best, goal = self._best.whole, self.spec.goal
        self._optimizing = True
        if goal is None or best is None:
            return
        if goal.score is not None and round(best.score, 4) >= float(goal.score):
            why = f"goal.score {goal.score}: {best.score:.4g} on the rows that candidates are compared on"
        elif goal.patience is not None and len(self._best.beaten) >= goal.patience:
            why = f"goal.patience {goal.patience}: so many candidates in a row were not better than {best.score:.4g}"
        else:
            return
        stop = RunStop(Reason.GOAL_REACHED, why)
        self._ledger.end(epoch, stop)
        raise stop

    def _keep_best(self, best: Candidate) -> None:
        """best.json: the best-so-far, on disk from the moment it is known."""
        assert self._ledger is not None
        if best.hash != self._kept and self._recorded is None and not self._ledger.replaying:
            self._kept = best.hash
            write_json(Path(self.spec.paths.out) / "best.json", {"score": round(best.score, 4), "program": best.state})

    def _count_trial(self, rows: int) -> None:
        match self._part.optimizer.trial if self._part is not None else None:
            case "Evaluation":
                self._tracker.trial()
            case "Row":
                self._tracker.trial(rows)
            case "Own" | None:
                pass

    def _renew_reserve(self, epoch: Epoch, served: Tally, before: Tally, answers: int) -> None:
        assert self._ledger is not None and self._prepared is not None
        calls, rows = epoch.reserve.calls, len(self._prepared.parts.test)
        tokens = Decimal(served.tokens - before.tokens) / answers
        cost = (served.cost - before.cost) / answers
        # Arm after arm, in rounds of as many rows as there are threads: the last, short round takes as long as the others.
        rounds = calls / rows * math.ceil(rows / max(1, self._threads))
        seconds = rounds * self._ledger.seconds_per_call
        self._ledger.set_reserve(
            epoch,
            Reserve(
                calls, whole(judgement_amount(calls, tokens)), judgement_amount(calls, cost), float(seconds) * 1.25
            ),
        )

    def _first_counts(self, prepared: Prepared, reserve_calls: int) -> Counts:
        """Counts for the estimate, from the budget of calls alone."""
        assert prepared.optimizer is not None
        limit = Limits.of(self._control.budget).calls
        return prepared.optimizer.counts(prepared.options, prepared.sizes, self._left(prepared, limit, reserve_calls))

    def _fitted_counts(self, prepared: Prepared) -> Counts:
        """Counts from what is left: also from tokens and money, whose mean the baseline has shown.

        Nominal numbers, not what was spent: calls that a crash repeated must not change what is computed.
        """
        assert self._ledger is not None and prepared.optimizer is not None and self._estimate is not None
        limits, served = self._ledger.limits, self._ledger.served()
        fits = [limits.calls] if limits.calls is not None else []
        if served.answered and served.tokens and limits.tokens is not None:
            fits.append(limits.tokens * served.answered // served.tokens)
        if served.answered and served.cost and limits.cost is not None:
            fits.append(int(limits.cost * served.answered / served.cost))
        left = self._left(prepared, min(fits) if fits else None, self._estimate.reserved_calls)
        return prepared.optimizer.counts(prepared.options, prepared.sizes, left)

    def _left(self, prepared: Prepared, limit: int | None, reserve_calls: int) -> int | None:
        if limit is None:
            return None
        programs = 1 if self.spec.start_from is None else 2
        return max(
            0,
            limit
            - prepared.calibration_calls
            - reserve_calls
            - programs * len(prepared.scored) * prepared.sizes.calls_per_row
            - 1,
        )

    def _check_budget(self, judgement: int, choice: int, arms: int) -> None:
        """Refuse a budget that certainly cannot pay; what tokens and money come to besides, the baseline tells.

        Raises:
            RunFailed: BudgetTooSmall, with the limit's path.
        """
        preflight = preflight_calls(self.spec) + probe_calls(self.spec)
        assert self._prepared is not None
        calibration = self._prepared.calibration_calls
        made_of = f"judgement {judgement}{f', choice between the best {choice}' if choice else ''}, preflight {preflight}{f', calibration {calibration}' if calibration else ''}"
        needed = judgement + choice + preflight + calibration
        rows, per_row = len(self._prepared.parts.test), least_row_calls(self.spec.program.program)
        refused = too_small(
            self._control.budget,
            needed,
            made_of,
            least=judgement_calls(rows, arms, per_row, self.spec.repeats),
            prices=[endpoint.pricing for endpoint in self.spec.endpoints.values()],
        )
        if refused is not None:
            path, message = refused
            raise RunFailed(Reason.BUDGET_TOO_SMALL, message, path=path)

    def _check_secrets(self) -> None:
        for endpoint in self.spec.endpoints.values():
            if endpoint.api_key_source is None or self._recorded is not None:
                continue
            path = Path(endpoint.api_key_file) if endpoint.api_key_file is not None else None
            if path is None or not path.is_file() or not path.read_text(encoding="utf-8").strip():
                raise RunFailed(Reason.SECRET_MISSING, f"{endpoint.name}: {endpoint.api_key_source} is absent or empty")

    def _arm_count(self, student: Any, incumbent: Any | None, start: Any) -> int:
        """Different programs that the judgement may measure."""
        assert self.spec.optimizer is not None
        known = {program_hash(student)} | ({program_hash(incumbent)} if incumbent is not None else set())
        if self.spec.optimizer.type == "Evaluate":
            return len(known | {program_hash(start)})
        return len(known) + 1

    def _arm_digests(self, prepared: Prepared, candidate: Revision) -> dict[str, str]:
        """Which revisions were judged; an incumbent that was given without its prompts.json has no digest."""
        baseline = revision_of(self.spec, prepared, state_document(prepared.program.fresh()))
        found = {"baseline": baseline.digest, "candidate": candidate.digest}
        if self.spec.incumbent is not None and (digest := digest_in(Path(self.spec.incumbent.path))) is not None:
            found["incumbent"] = digest
        elif self._validated is not None:
            found["incumbent"] = self._validated
        return {name: digest for name, digest in found.items() if name in self._arms}

    def _load_incumbent(self, prepared: Prepared) -> Any | None:
        if self.spec.incumbent is None:
            return None
        return self._load_revision(prepared, "incumbent", Path(self.spec.incumbent.path))

    def _load_start(self, prepared: Prepared) -> Any | None:
        """What the optimizer begins with, in this program's own shape; None for the baseline.

        Raises:
            RunFailed: InvalidProgram, where the revision is damaged or of a program with other predictors or fields.
        """
        start = self.spec.start_from
        if start is None:
            return None
        folder = Path(start.path)
        if digest_in(folder) != start.digest:
            raise RunFailed(
                Reason.INVALID_PROGRAM,
                f"the files of revision {start.revision} have not the digest {start.digest}",
                path="spec.startFrom",
            )
        try:
            module = self._load_revision(prepared, "start", folder)
            has, wanted = fields_of(module), fields_of(prepared.program.module)
            if has != wanted:
                raise RunFailed(Reason.INVALID_PROGRAM, f"it has the fields {has}, this program {wanted}")
            return prepared.program.in_state(state_document(module))
        except RunFailed as failure:
            message = f"revision {start.revision} does not fit this program: {failure.message}"
            raise RunFailed(failure.reason, message, path="spec.startFrom") from failure

    def _load_revision(self, prepared: Prepared, what: str, folder: Path) -> Any:
        try:
            source = (folder / "program.py").read_text(encoding="utf-8")
            state = json.loads((folder / "program.json").read_bytes())
        except OSError as error:
            raise RunFailed(Reason.INVALID_PROGRAM, f"the {what} {folder} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise RunFailed(Reason.INVALID_PROGRAM, f"the {what} {folder}/program.json is not JSON: {error}") from None
        try:
            program = (
                prepared.program
                if source == prepared.program.source
                else load_program(source, Path(self.spec.paths.out) / what, prepared.own)
            )
            self._retrieval.connect(program)
            self._tools.connect(program)
            asking.connect(program)
            module = program.in_state(state)
            other = type(program.adapter).__name__ != type(prepared.program.adapter).__name__
            return speaking(module, program.adapter) if other else module
        except RunFailed as failure:
            # Its path is that of the program under test, which is not to blame.
            raise RunFailed(failure.reason, f"the {what} {folder}: {failure.message}") from failure
