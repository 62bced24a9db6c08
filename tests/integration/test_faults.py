"""Optimizer x fault: how the run ends, what it cost, and that no trial is scored by what the network did.

Every cell compares the journal's marks with those of the same run without faults: the same scores, row by row, as far as
the run came. `make test` runs a slice of the cells, `make test-long` all; each is a line of build/acceptance/faults.jsonl.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dspy_operator.cli.local import Options, prepare_run
from dspy_operator.contract.documents import Progress, Result
from dspy_operator.contract.runspec import Control, RunSpec
from dspy_operator.runner import prepare
from dspy_operator.runner.flow import Run
from dspy_operator.runner.rows import Row
from tests.integration.acceptance import (
    LONG,
    RESULTS,
    Point,
    Reference,
    passed_before,
    record,
    reference,
    source_digest,
)
from tests.integration.coded import Coded
from tests.integration.harness import OPTIMIZERS, Case, Ended, Workplace, workplace

SEED = 7
"""Of the random faults."""
THREADS = 8
MOST_REQUESTS_OF_AN_OUTAGE = 20
"""10 unanswered in a row open the breaker; the other 7 threads have one more each on the wire. Counted from the last answer:
as an outage begins, up to 7 requests may still be answered, after others have failed."""
PATIENCE_SECONDS = 300
"""For a whole run: the machine may be busy."""
NOWHERE = "http://127.0.0.1:9/v1"
"""The discard port: nobody listens."""

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("short_waits")]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong, and what a user then sees."""

    name: str
    script: tuple[Mapping[str, Any], ...] = ()
    """Of the counting server."""
    from_the_middle: bool = False
    """The first third of the run, at most 40 requests, is healthy."""
    exit: int = 0
    reason: str = "Completed"
    says: str = ""
    """Part of the result's message."""
    most: int = 0
    """Requests that the endpoint may still get once it is faulty; where the run cannot complete."""
    repaired: bool = False
    """The endpoint recovers, and --resume must come to where the run would have come."""
    timeout: str = "60s"


def a_fault(type: str, **more: Any) -> tuple[Mapping[str, Any], ...]:
    return ({"type": type, **more},)


FAULTS = {
    fault.name: fault
    for fault in (
        Fault(
            name="503 from the first request on",
            script=a_fault("503"),
            exit=45,
            reason="EndpointUnavailable",
            says="unanswered (server error): HTTP 503",
            most=MOST_REQUESTS_OF_AN_OUTAGE,
        ),
        Fault(
            name="503 from the middle on, then repaired",
            script=a_fault("503"),
            from_the_middle=True,
            exit=45,
            reason="EndpointUnavailable",
            says="unanswered (server error): HTTP 503",
            most=MOST_REQUESTS_OF_AN_OUTAGE,
            repaired=True,
        ),
        Fault(
            name="half of all 429, Retry-After",
            script=a_fault("429", retry_after=0.05, when={"probability": 0.5, "seed": SEED}),
        ),
        Fault(name="half of all 429", script=a_fault("429", when={"probability": 0.5, "seed": SEED})),
        Fault(name="a fifth of all 500", script=a_fault("500", when={"probability": 0.2, "seed": SEED})),
        Fault(name="a fifth dropped", script=a_fault("drop", when={"probability": 0.2, "seed": SEED})),
        Fault(
            name="a fifth dropped in mid-answer",
            script=a_fault("drop", partial_bytes=150, when={"probability": 0.2, "seed": SEED}),
        ),
        Fault(
            name="one request hangs",
            script=a_fault("hang", when={"max": 1}),
            from_the_middle=True,
            timeout="10s",
        ),
        Fault(
            name="no completion in any answer",
            script=a_fault("garbage"),
            exit=53,
            reason="ModelAnswersUnusable",
            says="no completion in the answer",
            most=MOST_REQUESTS_OF_AN_OUTAGE,
        ),
        Fault(
            name="401 from the first request on",
            script=a_fault("401"),
            exit=46,
            reason="AuthenticationFailed",
            says="default/fake: HTTP 401: Incorrect API key provided",
            most=1,
        ),
        Fault(
            name="401 from the middle on, then repaired",
            script=a_fault("401"),
            from_the_middle=True,
            exit=46,
            reason="AuthenticationFailed",
            says="default/fake: HTTP 401: Incorrect API key provided",
            most=THREADS,
            repaired=True,
        ),
        Fault(
            name="the account cannot pay",
            script=a_fault("billing"),
            from_the_middle=True,
            exit=46,
            reason="AuthenticationFailed",
            says="You exceeded your current quota",
            most=THREADS,
        ),
        Fault(
            name="the model is unknown",
            script=a_fault("404"),
            exit=45,
            reason="EndpointUnavailable",
            says="default/fake does not know the model fake: HTTP 404",
            most=1,
        ),
    )
}
SCORED_ON_VALIDATION = {"BootstrapFewShotWithRandomSearch", "MIPROv2", "GEPA", "InferRules", "Stages"}
SLICE = (
    ("BootstrapFewShot", "503 from the first request on"),
    ("MIPROv2", "503 from the middle on, then repaired"),
    ("GEPA", "half of all 429, Retry-After"),
    ("BootstrapFewShot", "one request hangs"),
    ("MIPROv2", "a fifth of all 500"),
    ("BootstrapFewShot", "a fifth dropped in mid-answer"),
    ("GEPA", "no completion in any answer"),
    ("BootstrapFewShot", "401 from the middle on, then repaired"),
    ("MIPROv2", "the account cannot pay"),
    ("GEPA", "the model is unknown"),
    ("BootstrapFewShotWithRandomSearch", "503 from the middle on, then repaired"),
    ("BootstrapFewShotWithRandomSearch", "half of all 429, Retry-After"),
    ("COPRO", "503 from the middle on, then repaired"),
    ("COPRO", "a fifth of all 500"),
    ("InferRules", "503 from the middle on, then repaired"),
    ("InferRules", "a fifth dropped in mid-answer"),
    ("SIMBA", "503 from the middle on, then repaired"),
    ("SIMBA", "half of all 429, Retry-After"),
    ("SIMBA", "one request hangs"),
    ("Stages", "503 from the middle on, then repaired"),
)
"""What `make test` runs of the table."""


def cells() -> list[Any]:
    chosen = [(optimizer, name) for optimizer in OPTIMIZERS for name in FAULTS] if LONG else list(SLICE)
    return [pytest.param(optimizer, FAULTS[name], id=f"{optimizer}: {name}") for optimizer, name in chosen]


@pytest.fixture(scope="module", autouse=True)
def _table(request: pytest.FixtureRequest) -> Iterator[None]:
    """Print what the long form has seen."""
    yield
    if LONG:
        capture: Any = request.config.pluginmanager.get_plugin("capturemanager")
        with capture.global_and_fixture_disabled():
            print("\n" + "\n".join(table()))


@pytest.mark.parametrize(("optimizer", "fault"), cells())
def test_a_fault_ends_as_it_should_and_never_becomes_a_score(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, optimizer: str, fault: Fault
) -> None:
    point = Point(optimizer, SEED, fault.name)
    if passed_before("faults", point):
        return
    whole = reference(tmp_path_factory.getbasetemp(), optimizer)
    healthy = min(40, whole.requests // 3) if fault.from_the_middle else 0
    script = [{**one, "when": {"after": healthy, **one.get("when", {})}} for one in fault.script]
    started_at = time.monotonic()
    with workplace(tmp_path, a_case(optimizer, fault.timeout), faults=script, latency_ms=3) as place:
        done = run(place)
        counts = place.server.counts()
        assert (done.code, done.result["reason"]) == (fault.exit, fault.reason), done.stderr
        assert fault.says in done.result["message"]
        assert done.result["usage"]["calls"] == counts["requests"]
        assert_scores_are_those_without_faults(place, whole)
        if fault.exit == 0:
            assert_nothing_was_lost(place, whole, done)
            assert counts["requests"] == whole.requests + sum(counts["by_fault"].values())
        else:
            assert unanswered_at_the_end(place) <= fault.most
            late = THREADS - 1 if fault.from_the_middle and fault.reason == "EndpointUnavailable" else 0
            assert sum(counts["by_fault"].values()) <= fault.most + late
            assert "gate" not in done.result
        if fault.repaired:
            place.server.set_script(place.case.script())
            done = run(place, "--resume")
            assert done.code == 0, done.stderr
            assert_nothing_was_lost(place, whole, done)
            assert_scores_are_those_without_faults(place, whole)
        note(point, place, done, started_at, first_exit=fault.exit)


@pytest.mark.parametrize("optimizer", OPTIMIZERS if LONG else ["LabeledFewShot"])
def test_nobody_listens(tmp_path: Path, optimizer: str) -> None:
    point, started_at = Point(optimizer, SEED, "nobody listens"), time.monotonic()
    if passed_before("faults", point):
        return
    with workplace(tmp_path, a_case(optimizer)) as place:
        done = run(place, url=NOWHERE)
        assert (done.code, done.result["reason"]) == (45, "EndpointUnavailable"), done.stderr
        assert "unanswered (connection)" in done.result["message"]
        assert done.result["usage"]["calls"] <= MOST_REQUESTS_OF_AN_OUTAGE
        assert marks(place.run_folder) == ([], {})
        note(point, place, done, started_at, first_exit=45)


@pytest.mark.parametrize("optimizer", OPTIMIZERS if LONG else ["GEPA"])
def test_a_server_that_dies_in_the_middle_and_comes_back_loses_nothing(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, optimizer: str
) -> None:
    point, started_at = Point(optimizer, SEED, "the server dies and comes back"), time.monotonic()
    if passed_before("faults", point):
        return
    whole = reference(tmp_path_factory.getbasetemp(), optimizer)
    at = min(40, whole.requests // 3)
    with workplace(tmp_path, a_case(optimizer), hold_at=[at], latency_ms=3) as place:
        process = place.start()
        place.server.wait_until(lambda counts: counts["held"] == 1, deadline_seconds=PATIENCE_SECONDS)
        place.server.stop()
        seen = place.server.counts()["requests"]
        done = finished(process, place)
        assert (done.code, done.result["reason"]) == (45, "EndpointUnavailable"), done.stderr
        assert done.result["usage"]["calls"] - seen <= MOST_REQUESTS_OF_AN_OUTAGE
        assert_scores_are_those_without_faults(place, whole)
        place.server.set_script(place.case.script())
        with place.server:
            done = run(place, "--resume")
            assert done.code == 0, done.stderr
            assert_scores_are_those_without_faults(place, whole)
            assert done.result["candidate"] == whole.result["candidate"]
            assert place.server.counts()["answered"] <= whole.requests + THREADS  # answers on the wire when it died
            note(point, place, done, started_at, first_exit=45)


@pytest.mark.parametrize(
    ("optimizer", "type"),
    [(optimizer, type) for optimizer in OPTIMIZERS for type in ("garbage_text", "empty")]
    if LONG
    else [("Evaluate", "garbage_text"), ("BootstrapFewShot", "empty")],
)
def test_a_model_whose_answers_never_parse_ends_the_run(tmp_path: Path, optimizer: str, type: str) -> None:
    point, started_at = Point(optimizer, SEED, type), time.monotonic()
    if passed_before("faults", point):
        return
    with workplace(tmp_path, a_case(optimizer), faults=a_fault(type), latency_ms=3) as place:
        done = run(place)
        assert (done.code, done.result["reason"]) == (53, "ModelAnswersUnusable"), done.stderr
        scored = done.result["dataset"]["train"] + done.result["dataset"]["validation"]
        assert place.server.counts()["requests"] <= 2 * scored + 20 + THREADS + 1
        assert "gate" not in done.result
        note(point, place, done, started_at, first_exit=53)


@pytest.mark.parametrize(
    ("optimizer", "type"),
    [(optimizer, type) for optimizer in OPTIMIZERS for type in ("context_length", "content_filter")]
    if LONG
    else [("BootstrapFewShot", "context_length"), ("GEPA", "content_filter")],
)
def test_a_row_that_is_refused_counts_as_failed_and_is_never_asked_again(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, optimizer: str, type: str
) -> None:
    point, started_at = Point(optimizer, SEED, type), time.monotonic()
    if passed_before("faults", point):
        return
    scored, test = rows_of(reference(tmp_path_factory.getbasetemp(), optimizer))
    script = [{"type": type, "when": {"match": asked(row)}} for row in (scored[3], test[2])]
    with workplace(tmp_path, a_case(optimizer), faults=script, latency_ms=3) as place:
        done = run(place)
        assert done.code == 0, done.stderr
        result, counts = done.result, place.server.counts()
        assert result["scores"]["baseline"]["failed"] == result["scores"]["candidate"]["failed"] == 1
        assert optimizer == "Evaluate" or result["scores"]["devBaseline"]["failed"] == 1
        fails = [entry for entry in place.journal() if entry["kind"] == "fail"]
        assert len(fails) == sum(counts["by_fault"].values())
        assert progress(place)["failedExamples"] == len(fails)
        again = run(place, "--resume")
        assert (again.code, again.result["candidate"]) == (0, result["candidate"])
        assert place.server.counts()["requests"] == counts["requests"]
        verified = place.verify()
        assert verified.code == 0, verified.stderr
        note(point, place, done, started_at, first_exit=0)


@pytest.mark.parametrize("type", ["context_length", "content_filter"])
def test_a_first_row_that_is_refused_does_not_end_the_run(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, type: str
) -> None:
    """Preflight asks the next one, and sees there that a budget of tokens can be kept."""
    scored, _ = rows_of(reference(tmp_path_factory.getbasetemp(), "BootstrapFewShot"))
    case = a_case("BootstrapFewShot")
    case.budget = {"tokens": 500_000}
    with workplace(tmp_path, case, faults=a_fault(type, when={"match": asked(scored[0])}), latency_ms=3) as place:
        done = run(place)
        assert done.code == 0, done.stderr
        assert done.result["scores"]["devBaseline"]["failed"] == 1


def test_requests_that_are_refused_whatever_the_row_end_the_run_in_preflight(tmp_path: Path) -> None:
    with workplace(tmp_path, a_case("BootstrapFewShot"), faults=a_fault("content_filter")) as place:
        done = run(place)
        assert (done.code, done.result["reason"]) == (53, "ModelAnswersUnusable"), done.stderr
        assert "default/fake refuses the program's first requests" in done.result["message"]
        assert place.server.counts()["requests"] == 3


@pytest.mark.parametrize("optimizer", OPTIMIZERS if LONG else ["MIPROv2"])
def test_a_row_that_always_hangs_is_given_up_and_blocks_promotion(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, optimizer: str
) -> None:
    """1 of 12 answers is missing: what the candidate gained counts for nothing."""
    point, started_at = Point(optimizer, SEED, "a row hangs"), time.monotonic()
    if passed_before("faults", point):
        return
    whole = reference(tmp_path_factory.getbasetemp(), optimizer)
    _, test = rows_of(whole)
    baseline, candidate = judged(whole, "baseline"), judged(whole, "candidate")
    row = next(number for number, pair in enumerate(zip(baseline, candidate, strict=True)) if pair[0] == pair[1])
    script = a_fault("hang", when={"match": asked(test[row])})
    with workplace(tmp_path, a_case(optimizer, "3s"), faults=script, latency_ms=3) as place:
        done = run(place)
        result = done.result
        assert done.code == 0, done.stderr
        assert result["candidate"] == whole.result["candidate"]
        arms = 1 if optimizer == "Evaluate" else 2
        journal = place.journal()
        hung = {entry["key"] for entry in journal if entry["kind"] == "fail"}
        attempts = Counter(entry["key"] for entry in journal if entry["kind"] == "start" and entry["key"] in hung)
        assert len(hung) == arms and max(attempts.values()) <= 3
        assert place.server.counts()["by_fault"]["hang"] == sum(attempts.values())
        assert result["scores"]["baseline"]["failed"] == result["scores"]["candidate"]["failed"] == 1
        assert marks(place.run_folder)[0] == marks(whole.run_folder)[0]
        if arms == 2:
            assert result["gate"]["passed"] is False
            assert "1 of 12 examples failed" in result["gate"]["why"], result["gate"]["why"]
        note(point, place, done, started_at, first_exit=0)


@pytest.mark.parametrize("optimizer", OPTIMIZERS if LONG else ["BootstrapFewShot"])
@pytest.mark.parametrize("limit", ["tokens", "cost", "calls"])
def test_a_server_that_reports_no_usage(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, optimizer: str, limit: str
) -> None:
    point, started_at = Point(optimizer, SEED, f"no usage, budget of {limit}"), time.monotonic()
    if passed_before("faults", point):
        return
    case = a_case(optimizer)
    case.budget = {limit: {"tokens": 500_000, "cost": "100", "calls": 1000}[limit]}
    with workplace(tmp_path, case, faults=a_fault("no_usage"), latency_ms=3) as place:
        done = run(place)
        if limit == "calls":
            assert done.code == 0, done.stderr
            assert done.result["candidate"] == reference(tmp_path_factory.getbasetemp(), optimizer).result["candidate"]
        else:
            assert (done.code, done.result["path"]) == (53, "spec.budget")
            assert "default/fake reports no usage" in done.result["message"]
            assert place.server.counts()["requests"] == 1
        note(point, place, done, started_at, first_exit=done.code)


# A metric that is code.


def a_function(*lines: str) -> str:
    """metric.py with these lines as the function's body; `calls` counts."""
    head = ["calls = 0", "", "", "def score(example, prediction, trace=None):", "    global calls", "    calls += 1"]
    return "\n".join([*head, *(f"    {line}" for line in lines), ""])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    ("then", "says"),
    [
        pytest.param("return float('nan')", "score gave NaN, not a number from 0 to 1", id="NaN"),
        pytest.param("return None", "score gave null, not a number from 0 to 1", id="None"),
        pytest.param(
            "return 1 / 0", "metric.py, line 8, in score raised ZeroDivisionError: division by zero", id="raises"
        ),
        pytest.param("return 1.5", "score gave 1.5, not a number from 0 to 1", id="above 1"),
    ],
)
@pytest.mark.parametrize(("labels", "most"), [pytest.param(0, 0, id="on labels"), pytest.param(3, 1, id="on answers")])
def test_a_broken_metric_ends_the_run_before_the_fourth_call(
    tmp_path: Path, optimizer: str, then: str, says: str, labels: int, most: int
) -> None:
    """It scores the labels, which are checked first, and then does something else."""
    source = a_function(f"if calls <= {labels}: return 1.0", then)
    result, requests = run_with_metric(tmp_path, optimizer, source)
    assert (result.exit, result.reason, result.path) == (42, "InvalidMetric", "spec.metric.code")
    assert re.match(rf"the row of line \d+: {re.escape(says)}", result.message), result.message
    assert requests == most
    assert marks(tmp_path / "out" / "run") == ([], {})


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_metric_that_breaks_on_wrong_answers_alone_ends_the_run_too(tmp_path: Path, optimizer: str) -> None:
    """The first set of rows that it scores has a wrong answer; no set is marked."""
    source = a_function("return 1.0 if example.label == prediction.label else float('nan')")
    result, requests = run_with_metric(tmp_path, optimizer, source)
    assert (result.exit, result.reason) == (42, "InvalidMetric")
    assert requests <= (12 if optimizer in SCORED_ON_VALIDATION else 24) + 1
    assert marks(tmp_path / "out" / "run") == ([], {})


class Silent:
    """A channel to nobody."""

    interval_seconds = 60.0

    def send(self, progress: Progress) -> Control | None:
        return None


def run_with_metric(folder: Path, optimizer: str, source: str) -> tuple[Result, int]:
    """A run in this process with a metric of its own, and the requests that it sent."""
    case = Coded(OPTIMIZERS[optimizer], concurrency=THREADS, timeout="60s", source=source)
    with workplace(folder, case, latency_ms=3) as place:
        local = prepare_run(Options([place.manifests], place.out, endpoints={"fake": place.server.url}))
        result = Run(local.spec, local.control, Silent()).execute()
        return result, place.server.counts()["requests"]


# Words of the tests above.


def a_case(optimizer: str, timeout: str = "60s") -> Case:
    return Case(OPTIMIZERS[optimizer], concurrency=THREADS, timeout=timeout)


def run(place: Workplace, *arguments: str, url: str | None = None) -> Ended:
    return place.run(*arguments, url=url, timeout=PATIENCE_SECONDS)


def finished(process: Any, place: Workplace) -> Ended:
    from tests.integration.harness import ended

    return ended(process, place.run_folder, timeout=PATIENCE_SECONDS)


def marks(run_folder: Path) -> tuple[list[Any], dict[Any, Any]]:
    """Scores of the optimization in order, and of the judgement by (program, rows)."""
    path = run_folder / "journal.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    scored = [entry for entry in lines if entry["kind"] == "mark" and "scores" in entry]
    ordered = [
        (entry["mark"], entry["program"], entry["rows"], entry["scores"])
        for entry in scored
        if entry["mark"] != "judge"
    ]
    return ordered, {(entry["program"], entry["rows"]): entry["scores"] for entry in scored if entry["mark"] == "judge"}


def unanswered_at_the_end(place: Workplace) -> int:
    """Requests sent after the last answer came."""
    kinds = [entry["kind"] for entry in place.journal() if entry["kind"] in {"start", "done"}]
    return kinds[::-1].index("done") if "done" in kinds else len(kinds)


def assert_scores_are_those_without_faults(place: Workplace, whole: Reference) -> None:
    """Each score in the journal, row by row, is what the row scored when nothing failed."""
    (seen, judged_now), (want, judged_then) = marks(place.run_folder), marks(whole.run_folder)
    assert seen == want[: len(seen)]
    assert judged_now.items() <= judged_then.items()


def assert_nothing_was_lost(place: Workplace, whole: Reference, done: Ended) -> None:
    """The same revision and the same verdict, every trial, no failed row, and no answer paid twice."""
    assert done.result["candidate"] == whole.result["candidate"]
    assert done.result["gate"] == whole.result["gate"]
    assert marks(place.run_folder) == marks(whole.run_folder)
    assert progress(place)["failedExamples"] == 0
    assert all(score.get("failed", 0) == 0 for score in done.result["scores"].values())
    counts = place.server.counts()
    assert (
        whole.requests <= counts["answered"] <= whole.requests + THREADS * (counts["by_status"].get("abandoned", 0) > 0)
    )


def progress(place: Workplace) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((place.run_folder / "progress.json").read_bytes())
    return document


def rows_of(whole: Reference) -> tuple[list[Row], list[Row]]:
    """(rows on which programs are scored, test rows), in the order of their evaluations."""
    prepared = prepare.prepare(RunSpec.model_validate_json((whole.run_folder / "run.json").read_bytes()))
    return list(prepared.scored), list(prepared.parts.test)


def asked(row: Row) -> str:
    """How a row reads where it is asked, and not where it is a demonstration."""
    return f"{row.inputs['text']}\n\nRespond"


def judged(whole: Reference, arm: str) -> list[float]:
    """An arm's scores on the test rows."""
    judgements = list(marks(whole.run_folder)[1].values())  # in the order: baseline, candidate
    return list(judgements[0] if arm == "baseline" else judgements[-1])


def note(point: Point, place: Workplace, done: Ended, started_at: float, *, first_exit: int) -> None:
    counts = place.server.counts()
    record(
        "faults",
        point,
        exit=first_exit,
        finally_exit=done.code,
        reason=done.result["reason"],
        requests=counts["requests"],
        answered=counts["answered"],
        faults=counts["by_fault"],
        calls=done.result["usage"]["calls"],
        candidate=done.result.get("candidate", "")[:11],
        seconds=round(time.monotonic() - started_at, 1),
    )


def table() -> list[str]:
    """One line a cell, for these sources."""
    path = RESULTS / "faults.jsonl"
    entries = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    rows = {entry["point"]: entry for entry in entries if entry["sources"] == source_digest()}
    lines = [
        f"{'optimizer':<17} {'fault':<40} {'exit':>4} {'then':>4} {'calls':>5} {'answered':>8}  revision     faults"
    ]
    for entry in sorted(rows.values(), key=lambda entry: (entry["optimizer"], entry["phase"])):
        lines.append(
            f"{entry['optimizer']:<17} {entry['phase']:<40} {entry['exit']:>4} {entry['finally_exit']:>4} "
            f"{entry['calls']:>5} {entry['answered']:>8}  {entry['candidate']:<12} {entry['faults']}"
        )
    return lines
