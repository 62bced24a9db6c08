"""SIGTERM and SIGINT: out within 2 s whatever hangs, nothing sent any more, and --resume goes on; a second process keeps out."""

from __future__ import annotations

import itertools
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.integration.acceptance import (
    Point,
    Reference,
    record,
    reference,
    resumed_to_the_same,
    revision_files,
    unanswered,
)
from tests.integration.harness import OPTIMIZERS, Case, Ended, Workplace, ended, intruder, seconds_to_the_end, workplace
from tests.integration.test_kill import THREADS, until

EXIT_SECONDS = 2.0
"""From the signal to the end of the process, as the issue asks."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("optimizer", "phase", "sent", "times"),
    [
        pytest.param("MIPROv2", "optimize", signal.SIGTERM, 1, id="SIGTERM in a trial of MIPROv2"),
        pytest.param("GEPA", "judge", signal.SIGTERM, 1, id="SIGTERM in the judgement of GEPA's candidate"),
        pytest.param(
            "BootstrapFewShot", "baseline", signal.SIGTERM, 1, id="SIGTERM in the baseline of BootstrapFewShot"
        ),
        pytest.param("MIPROv2", "optimize", signal.SIGINT, 1, id="SIGINT in a trial of MIPROv2"),
        pytest.param("BootstrapFewShot", "judge", signal.SIGTERM, 3, id="SIGTERM three times"),
        pytest.param(
            "BootstrapFewShotWithRandomSearch", "batch", signal.SIGTERM, 1, id="SIGTERM in a trial of RandomSearch"
        ),
        pytest.param("COPRO", "batch", signal.SIGTERM, 1, id="SIGTERM in a trial of COPRO"),
        pytest.param("InferRules", "batch", signal.SIGTERM, 1, id="SIGTERM in a trial of InferRules"),
        pytest.param("SIMBA", "batch", signal.SIGTERM, 1, id="SIGTERM in a batch of SIMBA"),
    ],
)
def test_a_signal_ends_the_run_at_once_and_it_resumes_to_the_same_revision(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    optimizer: str,
    phase: str,
    sent: signal.Signals,
    times: int,
) -> None:
    whole = reference(tmp_path_factory.getbasetemp(), optimizer)
    # Where all threads ask at once. An optimization is stopped in its last trial, where the best-so-far is not the baseline.
    ordinal = {"baseline": 3, "judge": whole.judge_from, "batch": late_in_the_largest_batch(whole)}.get(
        phase
    ) or whole.whole_set_from(rows=12)
    with workplace(tmp_path, Case(OPTIMIZERS[optimizer], concurrency=THREADS)) as place:
        process = held(place, ordinal, THREADS)
        before = place.server.counts()
        stopped, seconds = signalled(process, place, sent, times)
        assert seconds <= EXIT_SECONDS
        assert (stopped.code, stopped.result["reason"], stopped.result["exit"]) == (51, "Stopped", 51)
        assert "Traceback" not in stopped.stderr
        after = place.server.wait_until(lambda counts: counts["in_flight"] == 0)
        assert after["requests"] == before["requests"] and before["in_flight"] == THREADS
        lost = unanswered(place)
        assert lost == THREADS
        if phase == "baseline":
            assert "candidate" not in stopped.result and not (place.run_folder / "revision").exists()
        else:
            assert stopped.result["candidate"] is not None and len(revision_files(place.run_folder)) == 3
            assert stopped.result["outcome"] == "NotJudged"
        place.server.set_script(place.case.script())
        resumed_to_the_same(place, whole, lost)
        record(
            "signal",
            Point(optimizer, ordinal, phase),
            signal=sent.name,
            times=times,
            in_flight=lost,
            exit_seconds=round(seconds, 3),
        )


@pytest.mark.parametrize(
    ("moment", "codes"),
    [
        pytest.param("/run/data/data.jsonl", {-15, 51}, id="before the runner has its handlers"),
        pytest.param("/run/best.json", {51}, id="as the baseline becomes the best so far"),
    ],
)
def test_a_signal_early_leaves_a_folder_that_runs(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, moment: str, codes: set[int]
) -> None:
    whole = reference(tmp_path_factory.getbasetemp(), "BootstrapFewShot")
    with workplace(tmp_path, Case(OPTIMIZERS["BootstrapFewShot"], concurrency=THREADS)) as place:
        stopped = struck(place, moment)
        assert stopped.code in codes, stopped.stderr
        assert "Traceback" not in stopped.stderr
        resumed_to_the_same(place, whole, unanswered(place))


def test_a_signal_before_the_first_call_sends_none(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    whole = reference(tmp_path_factory.getbasetemp(), "BootstrapFewShot")
    with workplace(tmp_path, Case(OPTIMIZERS["BootstrapFewShot"], concurrency=THREADS)) as place:
        stopped = struck(place, "/run/journal.jsonl", opened=True)
        assert (stopped.code, stopped.result["reason"]) == (51, "Stopped"), stopped.stderr
        assert place.server.counts()["requests"] == 0
        resumed_to_the_same(place, whole, 0)


@pytest.mark.parametrize("moment", ["/revision/prompts.json", "/run/result.json"])
def test_a_signal_during_publishing_does_not_spoil_it(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, moment: str
) -> None:
    whole = reference(tmp_path_factory.getbasetemp(), "BootstrapFewShot")
    with workplace(tmp_path, Case(OPTIMIZERS["BootstrapFewShot"], concurrency=THREADS)) as place:
        done = struck(place, moment)
        assert (done.code, done.result["reason"]) == (0, "Completed"), done.stderr
        assert done.result["candidate"] == whole.result["candidate"]
        assert revision_files(place.run_folder) == whole.files()
        assert place.verify().code == 0


def test_a_second_process_on_the_same_run_is_refused_and_the_first_goes_on_unharmed(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = reference(tmp_path_factory.getbasetemp(), "BootstrapFewShot")
    # The held call waits for two more processes to come and go; its own time-out would send it again.
    case = Case(OPTIMIZERS["BootstrapFewShot"], concurrency=THREADS, timeout="120s")
    with workplace(tmp_path, case) as place:
        first = held(place, whole.optimize_from + 5, 1)
        before = documents(place)
        place.change(budget={"calls": 60})
        for arguments in (("--resume",), ()):
            second = place.run(*arguments)
            assert second.code == 64, (second.stdout, second.stderr)
            assert "in use by another process" in second.stderr and "Traceback" not in second.stderr
            assert documents(place) == before, "the second process wrote into the first one's folder"
        place.server.set_script(place.case.script())
        place.server.release()
        done = ended(first, place.run_folder)
        assert done.code == 0, done.stderr
        assert done.result["candidate"] == whole.result["candidate"]
        assert place.server.counts()["requests"] == whole.requests


def late_in_the_largest_batch(whole: Reference) -> int:
    """Where as many rows as there are threads are still to be asked, of the most that the optimizer asks for between two marks."""
    _, end = max(itertools.pairwise(whole.evaluations), key=lambda ends: ends[1] - ends[0], default=(0, THREADS + 1))
    return max(1, end - THREADS - 1)


def held(place: Workplace, ordinal: int, requests: int) -> subprocess.Popen[str]:
    """A run whose requests from this one on are held, as soon as there are as many of them."""
    place.server.set_script(place.case.script(hold_at=list(range(ordinal, ordinal + 2 * THREADS))))
    process = place.start()
    until(place.server, process, lambda: place.server.counts()["held"] == requests)
    return process


def signalled(
    process: subprocess.Popen[str], place: Workplace, sent: signal.Signals, times: int
) -> tuple[Ended, float]:
    """Send a signal; the end, and the seconds from the signal to it."""
    seconds = seconds_to_the_end(process, sent, times)
    return ended(process, place.run_folder), seconds


def struck(place: Workplace, moment: str, *, opened: bool = False) -> Ended:
    """A run that gets SIGTERM from within, just before a file of this name is put in place, or opened."""
    environment = intruder(path=moment, event="open" if opened else "os.rename", send=signal.SIGTERM)
    return ended(place.start(environment=environment), place.run_folder)


def documents(place: Workplace) -> Mapping[str, bytes]:
    """The files of a run that do not change by themselves while it waits."""
    changing = {"progress.json", "journal.jsonl"}
    files = (path for path in sorted(place.run_folder.rglob("*")) if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(place.run_folder)): path.read_bytes() for path in files if path.name not in changing}
