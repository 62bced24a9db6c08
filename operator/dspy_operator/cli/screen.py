"""What a person sees: a progress bar on a terminal while the run goes on, and one last screen."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dspy_operator.contract.documents import Progress, Result
from dspy_operator.contract.repeats import chooses
from dspy_operator.contract.runspec import RunSpec, Usage

BAR_WIDTH = 28
ARMS = ("baseline", "incumbent", "candidate")
SHOWN_CLASSES = 20


class Bar:
    """One live line: step, bar, trials, scores, calls, money, time left."""

    def __init__(self, console: Console, spec: RunSpec) -> None:
        # What libraries print goes to the log, not between the lines of the bar.
        self._live = Live(
            console=console, refresh_per_second=4, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._name = spec.run.name
        self._started = False

    def show(self, progress: Progress) -> None:
        """The listener of the run."""
        if not self._started:
            self._live.start()
            self._started = True
        self._live.update(line_of(self._name, progress))

    def close(self) -> None:
        """Make room for the last screen."""
        if self._started:
            self._live.stop()


def line_of(name: str, progress: Progress) -> Text:
    """The live line."""
    filled = progress.percent * BAR_WIDTH // 100
    text = Text.assemble(
        (f"{name} ", "bold"),
        f"{progress.step:<9} ",
        ("━" * filled, "green"),
        ("━" * (BAR_WIDTH - filled), "dim"),
        f" {progress.percent:3d} %",
    )
    usage = total(progress.usage)
    if progress.stage:
        text.append(f"  {progress.stage}")
    if progress.trials_planned:
        text.append(f"  trial {progress.trials_done}/{progress.trials_planned}")
    for label, score in (("baseline", progress.baseline), ("best", progress.best)):
        if score is not None:
            text.append(f"  {label} {score:.1f}")
    text.append(f"  {usage.calls} calls  {usage.tokens:,} tokens")
    if Decimal(usage.cost):
        text.append(f"  {money(usage.cost)}")
    if progress.eta_seconds is not None:
        text.append(f"  about {duration(progress.eta_seconds)} left")
    return text


def last_screen(console: Console, spec: RunSpec, result: Result, folder: Path) -> None:
    """Baseline, incumbent, candidate, p, calls, tokens, money, and where the files are."""
    verdict = result.outcome.value if result.outcome is not None else "no result"
    console.print(
        Text.assemble(
            (f"{spec.run.name}: ", "bold"),
            (f"{result.reason.value}, {verdict}", "bold green" if result.exit == 0 else "bold yellow"),
        )
    )
    if result.message:
        console.print(result.message, markup=False, highlight=False)
    if any(arm in result.scores for arm in ARMS):
        table = Table(title=f"Held-out test, {result.dataset.test if result.dataset else 0} rows", title_justify="left")
        scores = {arm: result.scores[arm] for arm in ARMS if arm in result.scores}
        outputs = list(dict.fromkeys(output for score in scores.values() for output in score.macro_f1 or ()))
        for column in ("", "score", *(f"macro-F1 of {output}" for output in outputs), "unreadable", "failed"):
            table.add_column(column, justify="left" if not column else "right")
        for arm, score in scores.items():
            macro = (f"{(score.macro_f1 or {}).get(output, 0):.1f}" for output in outputs)
            table.add_row(arm, f"{score.score:.1f}", *macro, str(score.unreadable), str(score.failed))
        console.print(table)
        for table in _class_tables(folder):
            console.print(table)
    if result.gate is not None:
        promoted = "would be promoted" if result.gate.promote else "not promoted"
        console.print(f"Gate: {promoted}. {result.gate.why}", markup=False, highlight=False)
    for path, report in (result.calibration or {}).items():
        console.print(f"Judge {path} against people: {report.told()}", markup=False, highlight=False)
    if "devBaseline" in result.scores and "devBest" in result.scores:
        console.print(
            f"On dev: baseline {result.scores['devBaseline'].score:.1f}, best {result.scores['devBest'].score:.1f}"
        )
    if result.dataset is not None and result.dataset.dropped:
        console.print(result.dataset.dropped_message, markup=False, highlight=False)
    usage = result.usage
    spent = f"{usage.calls} calls ({usage.replayed} replayed), {usage.input_tokens:,} input and {usage.output_tokens:,} output tokens"
    console.print(
        f"Spent: {spent}{', ' + price(spec, usage) if Decimal(usage.cost) else ''}, {duration(result.seconds)}",
        highlight=False,
    )
    if result.candidate is not None:
        console.print(
            f"Revision {spec.program.name}-{short(result.candidate)}: {shown(folder / 'revision')}",
            markup=False,
            highlight=False,
        )
    console.print(f"Everything else: {shown(folder)}", markup=False, highlight=False)
    if result.exit not in (0, 40, 41, 42, 64):
        console.print("Go on with: the same command and --resume", highlight=False)


def _class_tables(folder: Path) -> Iterator[Table]:
    """The classes of each output, from report.json: the F1 of each program, the candidate's worst first."""
    report = folder / "revision" / "report.json"
    by_arm = json.loads(report.read_bytes()).get("classes", {}) if report.is_file() else {}
    for output in next(iter(by_arm.values()), ()):
        scores = {arm: by_arm[arm][output].get("classes", {}) for arm in ARMS if arm in by_arm}
        last = list(scores)[-1]
        support = {name: each["support"] for classes in scores.values() for name, each in classes.items()}
        worst = sorted(support, key=lambda name: _f1(scores[last], name))
        more = f", the worst {SHOWN_CLASSES} of {len(worst)}" if len(worst) > SHOWN_CLASSES else ""
        table = Table(title=f"F1 of each {output}{more}", title_justify="left")
        for column in ("", "rows", *scores):
            table.add_column(column, justify="left" if not column else "right")
        for name in worst[:SHOWN_CLASSES]:
            table.add_row(Text(name), str(support[name]), *(f"{_f1(classes, name):.1f}" for classes in scores.values()))
        if worst:
            yield table


def _f1(classes: Mapping[str, Mapping[str, float]], name: str) -> float:
    """0 for a class that is in another program's answers only."""
    return classes[name]["f1"] if name in classes else 0.0


def estimate_screen(console: Console, spec: RunSpec, result: Result) -> None:
    """What the run would spend."""
    estimate = result.estimate
    if estimate is None:
        return
    console.print(Text.assemble((f"{spec.run.name}: ", "bold"), "estimate, no model was called"))
    is_choice = spec.repeats > 1 and spec.optimizer is not None and chooses(spec.optimizer.type)
    kept = "choice and judgement" if is_choice else "judgement"
    parts = f"optimization {estimate.optimize_calls}, {kept} {estimate.reserved_calls}"
    console.print(f"about {estimate.calls} calls ({parts}), {estimate.tokens:,} tokens", highlight=False)
    if estimate.cost is not None:
        console.print(f"about {price(spec, Usage(cost=estimate.cost))}", highlight=False)
    if result.dataset is not None:
        rows = result.dataset
        console.print(
            f"rows: {rows.train} train, {rows.validation} validation, {rows.test} test, {rows.dropped} dropped",
            highlight=False,
        )
    for line in _counts(spec, result):
        console.print(f"  {line}", highlight=False)


def _counts(spec: RunSpec, result: Result) -> Iterator[str]:
    """What the optimizer's options came to, of Stages stage by stage."""
    stages = spec.optimizer.options.get("stages", ()) if spec.optimizer is not None else ()
    for name, value in result.resolved.items():
        if name != "stages":
            yield f"{name}: {value}"
    for number, (stage, own) in enumerate(zip(stages, result.resolved.get("stages", ()), strict=False), start=1):
        yield f"{number}. {stage['type']}: {', '.join(f'{name} {value}' for name, value in own.items()) or 'no counts'}"


def total(usage: dict[str, Usage]) -> Usage:
    """All roles together."""
    return Usage(
        calls=sum(each.calls for each in usage.values()),
        input_tokens=sum(each.input_tokens for each in usage.values()),
        output_tokens=sum(each.output_tokens for each in usage.values()),
        cost=f"{sum((Decimal(each.cost) for each in usage.values()), Decimal(0)):f}",
    )


def price(spec: RunSpec, usage: Usage) -> str:
    """Money with its currency."""
    pricing = spec.endpoints["task"].pricing
    return f"{money(usage.cost)} {pricing.currency if pricing else ''}".strip()


def money(amount: str) -> str:
    """Four digits after the point, six below a cent."""
    value = Decimal(amount)
    return f"{value:.4f}" if value >= Decimal("0.01") else f"{value:.6f}"


def duration(seconds: float) -> str:
    """4 s, 3 min 20 s, 2 h 5 min."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def short(digest: str) -> str:
    """The first 8 hex digits."""
    return digest.split(":", 1)[-1][:8]


def shown(path: Path) -> str:
    """Relative to where the person is, where that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
