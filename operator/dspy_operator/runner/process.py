"""A run as a process: signals, the result file, the exit code, and an exit that no thread can hold up."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from dspy_operator.contract.documents import Result
from dspy_operator.contract.exits import Exit, Reason, RunFailed
from dspy_operator.contract.runspec import Control, Paths, RunSpec
from dspy_operator.runner.flow import Listener, Run, validate
from dspy_operator.runner.hurry import Hurry
from dspy_operator.runner.pod import identity
from dspy_operator.runner.progress import Channel, FileChannel, write_json
from dspy_operator.runner.stop import RunStop

if TYPE_CHECKING:
    from dspy_operator.runner.channel import ConfigMapChannel

log = logging.getLogger(__name__)

Finish = Callable[[Result], None]
"""What is done with a result before the process ends: files, screen."""


def run_process(
    spec: RunSpec,
    control: Control,
    *,
    cluster: ConfigMapChannel | None = None,
    listener: Listener | None = None,
    finish: Finish | None = None,
    answers: Sequence[Path] = (),
) -> int:
    """Run to an end, and leave by `os._exit` with the result's code.

    DSPy's pool threads are not daemons: a hung request would hold a normal exit up for its whole time-out. SIGTERM and
    SIGINT publish the best-so-far and leave within 2 s, whatever the threads do; so does a channel that is gone.

    Args:
        cluster: the pod's channel; None where the documents are files. result.json is a file in both.
        answers: journals of other runs, whose answers are taken at temperature 0.
    """
    out = Path(spec.paths.out)
    channel: Channel = cluster or FileChannel(out / "progress.json", Path(spec.paths.control))
    pod = cluster.pod if cluster is not None else None
    run = Run(spec, control, channel, listener=listener, pod=pod, answers=answers)
    hurry = Hurry()

    def leave(result: Result) -> None:
        files: Mapping[str, str] = {}
        if cluster is not None:
            result, files = _for_cluster(result, out)
        if result.reason is not Reason.INVALID_MANIFEST:  # another process has the run: its files are not ours to write
            try:
                write_json(out / "result.json", result.document())
            except OSError as error:
                # On a full volume the exit code and the last line of the log still say how it ended.
                log.error("result.json cannot be written: %s", error)
        if finish is not None:
            finish(result)
        if cluster is not None:
            cluster.deliver(result, run.progress(), files, hurry)
        leave_process(result.exit)

    ended = threading.Lock()

    def terminate(why: str) -> None:
        result = run.terminate(why)
        if result is not None and ended.acquire(blocking=False):
            leave(result)

    def start_terminating(why: str) -> None:
        threading.Thread(target=terminate, args=(why,), name="terminator", daemon=True).start()

    def on_signal(number: int, frame: FrameType | None) -> None:
        hurry.begin()
        start_terminating("stopped by a signal")

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    if cluster is not None:
        cluster.on_gone = lambda: start_terminating("the run's object is gone")
    result = guarded(run.execute)
    if not ended.acquire(blocking=False):
        threading.Event().wait()  # the terminator ends the process
    if result.reason is Reason.INTERNAL_ERROR:  # what was paid until the bug is paid
        usage, by_role = run.usage()
        result = result.model_copy(
            update={"usage": usage, "usage_by_role": by_role, **identity(spec, cluster.pod if cluster else None)}
        )
    leave(result)
    return result.exit


def guarded(work: Callable[[], Result]) -> Result:
    """Run something to a Result; a bug becomes InternalError with its traceback in the log, never at the user."""
    try:
        return work()
    except RunFailed as failure:
        return Result(reason=failure.reason, message=failure.message, path=failure.path, exit=int(failure.exit))
    except RunStop as stop:
        return Result(reason=stop.reason, message=stop.message, path=stop.path, exit=int(stop.exit))
    except Exception as error:  # whatever it is, it is a bug of ours: it ends as a typed result, not without one
        log.error("internal error", exc_info=True)
        place = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}; the traceback is in the log"
        return Result(reason=Reason.INTERNAL_ERROR, message=message, exit=int(Exit.INTERNAL_ERROR))


def validate_process(spec: RunSpec, *, cluster: ConfigMapChannel | None = None, finish: Finish | None = None) -> Result:
    """The `validate` kind: check, write the baseline revision and result.json, and bring both to the cluster."""
    pod = cluster.pod if cluster is not None else None
    out = Path(spec.paths.out)
    result = guarded(lambda: validate(spec, pod)).model_copy(update=identity(spec, pod))
    files: Mapping[str, str] = {}
    if cluster is not None:
        result, files = _for_cluster(result, out)
    write_json(out / "result.json", result.document())
    if finish is not None:
        finish(result)
    if cluster is not None:
        cluster.deliver(result, None, files, Hurry())
    return result


def _for_cluster(result: Result, out: Path) -> tuple[Result, Mapping[str, str]]:
    """The result and its revision's files as one ConfigMap takes them; without candidate no files, whatever an earlier try left."""
    from dspy_operator.runner.channel import fitted, revision_files

    files = revision_files(out / "revision") if result.candidate is not None else {}
    result = fitted(result, files)
    return result, files if result.candidate is not None else {}


def verify_process(folder: Path) -> tuple[Result, Result]:
    """Replay a finished run with the network denied; (what it comes to now, what was recorded).

    Raises:
        RunFailed: VerifyFailed where there is nothing to verify.
    """
    try:
        spec = RunSpec.model_validate_json((folder / "run.json").read_bytes())
        control = Control.model_validate_json((folder / "control.json").read_bytes())
        recorded = Result.model_validate_json((folder / "result.json").read_bytes())
    except FileNotFoundError as error:
        raise RunFailed(
            Reason.VERIFY_FAILED, f"{folder} holds no finished run: there is no {Path(error.filename).name}"
        ) from None
    except (OSError, ValueError) as error:
        why = str(error).splitlines()[0]
        raise RunFailed(Reason.VERIFY_FAILED, f"{folder}: a file of the run cannot be read: {why}") from None
    if recorded.candidate is None:
        raise RunFailed(Reason.VERIFY_FAILED, f"{folder}: the run ended with {recorded.reason}, without a candidate")
    if recorded.reason is not Reason.COMPLETED and not RunStop(recorded.reason, "").keeps_result:
        raise RunFailed(Reason.VERIFY_FAILED, f"{folder}: the run is not finished ({recorded.reason}): resume it first")
    spec = _moved(spec, folder.absolute())
    if not Path(spec.paths.journal).is_file():
        raise RunFailed(Reason.VERIFY_FAILED, f"there is no journal {spec.paths.journal}")
    replayed = guarded(Run(spec, control, _Silent(), recorded=recorded).execute)
    if replayed.candidate is not None and replayed.candidate != recorded.candidate:
        message = f"the replay comes to {replayed.candidate}, recorded is {recorded.candidate}"
        replayed = replayed.model_copy(
            update={"reason": Reason.VERIFY_FAILED, "message": message, "exit": int(Exit.VERIFY_FAILED)}
        )
    return replayed, recorded


def _moved(spec: RunSpec, folder: Path) -> RunSpec:
    """The run as it lies in this folder now: a copy is verified by its own journal and rows, not by the original's."""
    before = spec.paths.out

    def here(path: str) -> str:
        return str(folder / Path(path).relative_to(before)) if Path(path).is_relative_to(before) else path

    paths = Paths(journal=here(spec.paths.journal), out=str(folder), control=here(spec.paths.control))
    parts = {
        name: file.model_copy(update={"path": here(file.path)})
        for name in ("validation", "test")
        if (file := getattr(spec.dataset.split, name)) is not None
    }
    split = spec.dataset.split.model_copy(update=parts)
    dataset = spec.dataset.model_copy(update={"path": here(spec.dataset.path), "split": split})
    return spec.model_copy(update={"paths": paths, "dataset": dataset})


def leave_process(code: int) -> None:
    """End now: flush what was written, run no exit handlers, wait for no thread."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        if stream is not None and not stream.closed:
            stream.flush()
    os._exit(code)


class _Silent:
    """A channel to nobody, for verify."""

    interval_seconds = 1.0

    def send(self, progress: object) -> Control | None:
        """Nothing is sent, nothing is read."""
        return None
